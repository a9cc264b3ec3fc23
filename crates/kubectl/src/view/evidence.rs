//! The evidence on a canary: the message of each check, with error rates and a sparkline.

use countersign_api::rollout::{Change, CheckEvidence, CheckSummary, Rate, WindowState};

use crate::output::report::number;

/// Bars of a sparkline, from zero to the maximum.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The lines of each check; `None` before the canary had traffic.
#[must_use]
pub fn lines(change: &Change) -> Option<Vec<(String, Vec<String>)>> {
    change.evidence.from.as_ref()?;
    let checks = change.evidence.checks.iter();
    let checks = checks.map(|check| (check.name.clone(), of_check(check)));
    let budgets = change.evidence.objectives.iter();
    let budgets = budgets.map(|it| (format!("objective {}", it.name), vec![it.message.clone()]));
    Some(checks.chain(budgets).collect())
}

fn of_check(check: &CheckEvidence) -> Vec<String> {
    let summary = &check.summary;
    let mut lines = vec![format!("{:?}: {}", summary.verdict, summary.sentence)];
    if let (Some(canary), Some(stable)) = (summary.canary_rate, summary.stable_rate) {
        lines.push(format!(
            "error rate: canary {}, stable {}",
            rate(canary),
            rate(stable)
        ));
    }
    if summary.value.is_none() {
        lines.push(odds(summary));
    }
    if !check.recent.is_empty() {
        lines.push(format!(
            "last {}: {}",
            number(check.recent.len(), "window"),
            sparkline(&check.recent)
        ));
    }
    if check.last != WindowState::Counted {
        lines.push(format!(
            "last window: {}: {}",
            check.last.as_str(),
            check.message
        ));
    }
    lines
}

fn odds(summary: &CheckSummary) -> String {
    format!(
        "evidence that it is worse: 10^{:.2}, rolled back at 10^{:.2}; that it is within the margin: 10^{:.2}, passes at 10^{:.2}",
        summary.log10_worse, summary.rollback_at, summary.log10_within_margin, summary.promote_at
    )
}

fn rate(rate: Rate) -> String {
    let percent = |share: f64| format!("{:.2}%", 100.0 * share);
    format!(
        "{} ({} to {})",
        percent(rate.rate),
        percent(rate.low),
        percent(rate.high)
    )
}

/// Numbers as bars, from the lower of zero and their minimum to their maximum.
fn sparkline(values: &[f64]) -> String {
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let (low, high) = (finite().fold(0.0, f64::min), finite().fold(0.0, f64::max));
    let bar = |value: &f64| {
        let share = (value - low) / (high - low);
        let at = BARS
            .iter()
            .zip(1_u32..)
            .find(|(_, at)| share * 8.0 <= f64::from(*at));
        at.map_or('▁', |(bar, _)| *bar)
    };
    values.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_goes_from_zero_to_the_most() {
        assert_eq!(sparkline(&[0.0, 0.0, 0.0]), "▁▁▁");
        assert_eq!(sparkline(&[0.0, 0.5, 1.0]), "▁▄█");
        assert_eq!(sparkline(&[-1.0, 0.0, 1.0]), "▁▄█");
        assert_eq!(sparkline(&[f64::NAN, 2.0]), "▁█");
    }
}
