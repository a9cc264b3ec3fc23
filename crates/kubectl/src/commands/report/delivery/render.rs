//! The report as tables with sentences, for a terminal or as Markdown.

use countersign_api::Duration;
use countersign_core::estimate::Interval;
use countersign_core::estimate::odds::{Failures, Finding, OddsRatio};
use countersign_core::text::sanitize;

use crate::commands::report::delivery::figures::{Figures, Rate, Share, Times};
use crate::commands::report::delivery::{By, Delivery};
use crate::output;
use crate::output::report::number;

/// What stands for a figure that the numbers do not give.
const NONE: &str = "-";

/// How a table is drawn.
type Draw = fn(&[&str], &[Vec<String>]) -> String;

/// The report for a terminal.
#[must_use]
pub fn table(report: &Delivery) -> String {
    text(report, output::table)
}

/// The report as Markdown.
#[must_use]
pub fn markdown(report: &Delivery) -> String {
    text(report, markdown_table)
}

fn text(report: &Delivery, draw: Draw) -> String {
    let mut parts = vec![head(report)];
    if report.total.deployments > 0 {
        parts.push(figures(report, draw));
        parts.extend(comparison(report, draw));
    }
    parts.extend(incomplete(report.incomplete.len()));
    let parts: Vec<_> = parts.iter().map(|part| part.trim_end()).collect();
    parts.join("\n\n") + "\n"
}

fn head(report: &Delivery) -> String {
    let (since, until) = (report.since, report.until);
    let deployments = number(report.total.deployments, "deployment");
    let others = match report.not_deployed {
        0 => String::new(),
        others => format!("; {} ended without one", number(others, "change")),
    };
    let shorter = if report.recorded_since > since {
        let from = report.recorded_since;
        format!(" The oldest record began at {from:.0}: deployments a week are from then.")
    } else {
        String::new()
    };
    format!(
        "{deployments} from {since:.0} to {until:.0}{others}.{shorter} In brackets: intervals of 95 %; times are medians."
    )
}

fn figures(report: &Delivery, draw: Draw) -> String {
    let first = match report.by {
        Some(By::Team) => "TEAM",
        Some(By::Namespace) => "NAMESPACE",
        Some(By::Contributor) => "CONTRIBUTOR",
        None => "",
    };
    let heading = [
        first,
        "DEPLOYMENTS",
        "PER-WEEK",
        "LEAD-TIME",
        "FAILED",
        "RESTORED-IN",
        "REWORK",
    ];
    let groups = report.groups.iter();
    let rows = groups.map(|(name, figures)| row(name, figures));
    let rows: Vec<_> = rows.chain([row("all", &report.total)]).collect();
    draw(&heading, &rows)
}

fn row(name: &str, figures: &Figures) -> Vec<String> {
    vec![
        name.to_owned(),
        figures.deployments.to_string(),
        figures.per_week.as_ref().map_or_else(|| "-".into(), rate),
        times(&figures.lead_time),
        share(&figures.change_failure_rate),
        times(&figures.time_to_restore),
        share(&figures.rework_rate),
    ]
}

fn rate(rate: &Rate) -> String {
    let Interval { low, high } = rate.interval;
    format!("{:.1} ({low:.1} to {high:.1})", rate.value)
}

fn share(share: &Share) -> String {
    let Some((value, Interval { low, high })) = share.value.zip(share.interval) else {
        return NONE.to_owned();
    };
    let [value, low, high] = [value, low, high].map(|it| 100.0 * it);
    format!(
        "{} of {}: {value:.1}% ({low:.1}% to {high:.1}%)",
        share.count, share.of
    )
}

fn times(times: &Times) -> String {
    let Some(median) = times.median else {
        return NONE.to_owned();
    };
    let interval = times.interval.map_or_else(String::new, |it| {
        format!(" ({} to {})", length(it.low), length(it.high))
    });
    format!("{}{interval} of {}", length(median), times.count)
}

/// A length of time in its two largest units.
fn length(time: Duration) -> String {
    let seconds = time.std().as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (1.., _, _) => format!("{days}d{}h", hours % 24),
        (_, 1.., _) => format!("{hours}h{}m", minutes % 60),
        (_, _, 1..) => format!("{minutes}m{}s", seconds % 60),
        _ => format!("{seconds}s"),
    }
}

/// The strata with both groups or one, and what they show; nothing if nobody is known to have written anything.
fn comparison(report: &Delivery, draw: Draw) -> Vec<String> {
    let comparison = &report.comparison;
    let mut parts = Vec::new();
    if !comparison.strata.is_empty() {
        let failed = |it: Failures| match it.of {
            0 => NONE.to_owned(),
            of => format!("{} of {of}", it.failed),
        };
        let rows = comparison.strata.iter().map(|row| {
            vec![
                row.tier.to_string(),
                row.lines.to_string(),
                failed(row.ai),
                failed(row.people),
            ]
        });
        let heading = ["TIER", "LINES", "FAILED-WITH-AI", "FAILED-OF-PEOPLE"];
        parts.push(draw(&heading, &rows.collect::<Vec<_>>()));
    }
    let ratio = comparison.odds_ratio.as_ref();
    let mut sentence = format!(
        "Changes with an AI against people's, of equal tier and size: {}{}",
        ratio.map_or_else(String::new, odds),
        finding(comparison.finding)
    );
    if comparison.unknown > 0 {
        let unknown = number(comparison.unknown, "deployment");
        sentence = format!("{sentence} It is not known who wrote {unknown}.");
    }
    parts.push(sentence);
    parts
}

fn odds(found: &OddsRatio) -> String {
    let OddsRatio {
        ratio,
        interval: Interval { low, high },
    } = found;
    format!("odds of failure times {ratio:.1} ({low:.1} to {high:.1}); ")
}

/// A finding in a sentence.
#[must_use]
pub fn finding(finding: Finding) -> String {
    match finding {
        Finding::More => "they fail more often.".to_owned(),
        Finding::Fewer => "they fail less often.".to_owned(),
        Finding::NoDifference => {
            "no difference was found; twice the odds would have been seen with a chance of 80 %."
                .to_owned()
        }
        Finding::NotEnough { more } => {
            let more = rounded(more);
            format!("not enough changes yet: about {more:.0} more.")
        }
    }
}

/// Rounded up to two digits: an estimate has no more.
fn rounded(count: f64) -> f64 {
    let unit = 10_f64.powf((count.log10().floor() - 1.0).max(0.0));
    (count / unit).ceil() * unit
}

fn incomplete(rollouts: usize) -> Option<String> {
    let rollouts = number(Some(rollouts).filter(|it| *it > 0)?, "Rollout");
    Some(format!(
        "Older records of {rollouts} were removed, so deployments are missing: `history.keepFor` of a RolloutPolicy keeps more."
    ))
}

fn markdown_table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let escaped = |cell: &String| sanitize(cell).replace('\\', "\\\\").replace('|', "\\|");
    let rule = format!("|{}\n", "---|".repeat(heading.len()));
    let heading = line(heading.iter().map(|name| (*name).to_owned()).collect());
    let rows = rows
        .iter()
        .map(|row| line(row.iter().map(escaped).collect()));
    heading + &rule + &rows.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_of_markdown_stays_a_cell() {
        let rows = [vec!["a|b\n\u{1b}".to_owned(), "c".to_owned()]];
        assert_eq!(
            markdown_table(&["X", "Y"], &rows),
            "| X | Y |\n|---|---|\n| a\\|b \\\\u{1b} | c |\n"
        );
    }

    #[test]
    fn no_difference_is_stated_with_the_chance_to_see_one() {
        let text = finding(Finding::NoDifference);
        assert!(text.contains("with a chance of 80 %"), "{text}");
    }

    #[test]
    fn estimates_have_two_digits_and_times_two_units() {
        for (count, shown) in [
            (1.0, 1.0),
            (7.0, 7.0),
            (99.0, 99.0),
            (101.0, 110.0),
            (139.0, 140.0),
            (1_234.0, 1_300.0),
        ] {
            assert!((rounded(count) - shown).abs() < 1e-9, "{count}");
        }
        for (seconds, shown) in [(9, "9s"), (61, "1m1s"), (3_600, "1h0m"), (200_000, "2d7h")] {
            assert_eq!(length(Duration::seconds(seconds)), shown);
        }
    }
}
