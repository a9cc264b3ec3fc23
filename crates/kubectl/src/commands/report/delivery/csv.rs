//! The report as one table of comma-separated values (RFC 4180): a row for each figure of each group.

use countersign_api::Duration;
use countersign_core::estimate::Interval;
use countersign_core::text::sanitize;

use crate::commands::report::delivery::Delivery;
use crate::commands::report::delivery::comparison::Comparison;
use crate::commands::report::delivery::figures::{Figures, Share, Times};
use crate::commands::report::delivery::render;

const HEADING: [&str; 9] = [
    "group", "figure", "count", "of", "value", "low", "high", "unit", "finding",
];

/// The report.
#[must_use]
pub fn csv(report: &Delivery) -> String {
    let mut lines = vec![HEADING.map(ToOwned::to_owned)];
    for (name, group) in &report.groups {
        lines.extend(figures(name, group));
    }
    lines.extend(figures("all", &report.total));
    lines.push(comparison(&report.comparison));
    let lines = lines.iter().map(|cells| {
        let cells: Vec<_> = cells.iter().map(|cell| quoted(cell)).collect();
        cells.join(",") + "\r\n"
    });
    lines.collect()
}

/// The odds ratio, if there is a valid one, and the finding in any case.
fn comparison(comparison: &Comparison) -> [String; 9] {
    let odds = comparison.odds_ratio;
    let value = odds.map(|odds| (odds.ratio, Some(odds.interval)));
    let counts = (String::new(), String::new());
    let finding = render::finding(comparison.finding);
    line("all", "AI to people", counts, value, "odds ratio", finding)
}

fn figures(group: &str, figures: &Figures) -> [[String; 9]; 5] {
    let counts = (figures.deployments.to_string(), String::new());
    let rate = figures.per_week.as_ref();
    let rate = rate.map(|rate| (rate.value, Some(rate.interval)));
    [
        figure(group, "deployments", counts, rate, "per week"),
        times(group, "lead time", &figures.lead_time),
        share(group, "change failure rate", &figures.change_failure_rate),
        times(group, "time to restore", &figures.time_to_restore),
        share(group, "rework rate", &figures.rework_rate),
    ]
}

fn share(group: &str, name: &str, share: &Share) -> [String; 9] {
    let counts = (share.count.to_string(), share.of.to_string());
    let value = share.value.map(|value| (value, share.interval));
    figure(group, name, counts, value, "share")
}

fn times(group: &str, name: &str, times: &Times) -> [String; 9] {
    let seconds = |time: Duration| time.std().as_secs_f64();
    let interval = times.interval.map(|it| Interval {
        low: seconds(it.low),
        high: seconds(it.high),
    });
    let value = times.median.map(|median| (seconds(median), interval));
    let counts = (times.count.to_string(), String::new());
    figure(group, name, counts, value, "seconds, median")
}

/// A figure has no finding.
fn figure(
    group: &str,
    name: &str,
    counts: (String, String),
    value: Option<(f64, Option<Interval>)>,
    unit: &str,
) -> [String; 9] {
    line(group, name, counts, value, unit, String::new())
}

fn line(
    group: &str,
    figure: &str,
    (count, of): (String, String),
    value: Option<(f64, Option<Interval>)>,
    unit: &str,
    finding: String,
) -> [String; 9] {
    let number = |it: Option<f64>| it.map_or_else(String::new, |it| format!("{it:.4}"));
    let interval = value.and_then(|(_, interval)| interval);
    [
        group.to_owned(),
        figure.to_owned(),
        count,
        of,
        number(value.map(|(value, _)| value)),
        number(interval.map(|it| it.low)),
        number(interval.map(|it| it.high)),
        unit.to_owned(),
        finding,
    ]
}

fn quoted(cell: &str) -> String {
    let cell = sanitize(cell);
    if cell.contains([',', '"']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_stays_a_cell() {
        assert_eq!(quoted("shop"), "shop");
        assert_eq!(quoted("a,\"b\"\n"), "\"a,\"\"b\"\" \"");
    }
}
