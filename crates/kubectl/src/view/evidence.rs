//! The evidence on a canary: the message of each check, with error rates and a sparkline.

use countersign_api::Duration;
use countersign_api::rollout::{Change, CheckEvidence, Dispersion, GateSummary, Rate, WindowState};
use countersign_core::analysis::gates::PROMOTION;
use countersign_core::analysis::thresholds::KNOWN_HISTORY;

use crate::output::report::number;

/// Bars of a sparkline, from zero to the maximum.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Bars of a sparkline at most.
const BARS_SHOWN: usize = 30;

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
    lines.extend(summary.gate.as_ref().map(next_gate));
    lines.extend(short_history(check));
    let recent = recent(check);
    if !recent.is_empty() {
        lines.push(format!(
            "last {}: {}",
            number(recent.len(), "window"),
            sparkline(&recent)
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

/// The canary's error rate, or the metric, in the last windows in which there was one, oldest first.
fn recent(check: &CheckEvidence) -> Vec<f64> {
    let served = check
        .windows
        .iter()
        .filter(|[requests, ..]| *requests > 0.0);
    let rates = served.map(|[requests, errors, ..]| errors / requests);
    let recent: Vec<_> = check.recent.iter().copied().chain(rates).collect();
    let surplus = recent.len().saturating_sub(BARS_SHOWN);
    recent.into_iter().skip(surplus).collect()
}

/// What the evidence rules out so far, and what the next gate needs.
fn next_gate(gate: &GateSummary) -> String {
    let per_thousand = |value: f64| format!("{value} failed requests in 1,000 of the service");
    let opens = match gate.share {
        PROMOTION => "the promotion".into(),
        share => format!("{share}%"),
    };
    let ruled_out = format!("ruled out: more than {}", per_thousand(gate.ruled_out));
    let requests = match gate.requests {
        Some(requests) if requests > 0.0 => format!("about {} more", number(requests, "request")),
        Some(_) => return format!("{ruled_out}; {opens} may open"),
        None => "errors of stable to compare with".into(),
    };
    let time = gate.seconds.map(|seconds| {
        let seconds = std::time::Duration::from_secs_f64(seconds.clamp(0.0, 1e9).round());
        format!(", {} at the present rate", Duration::from(seconds))
    });
    format!(
        "{ruled_out}; {opens} needs {} ruled out: {requests}{}",
        gate.needed,
        time.unwrap_or_default()
    )
}

/// From how much history bursts of errors are known; `None` if it is enough.
fn short_history(check: &CheckEvidence) -> Option<String> {
    let Dispersion { windows, pairs, .. } = check.dispersion?;
    // Neither windows nor pairs: the check sets it.
    (windows < KNOWN_HISTORY && windows > 0).then(|| {
        format!(
            "bursts of errors are not well known: {windows} of {KNOWN_HISTORY} windows before the change, {pairs} pairs of them with errors"
        )
    })
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
    fn a_gate_states_what_it_needs_in_failed_requests() {
        let gate = GateSummary {
            share: 20,
            ruled_out: 1.0,
            needed: 0.5,
            requests: Some(340.0),
            seconds: Some(240.0),
        };
        assert_eq!(
            next_gate(&gate),
            "ruled out: more than 1 failed requests in 1,000 of the service; 20% needs 0.5 ruled out: about 340 requests more, 4m at the present rate"
        );
        let open = GateSummary {
            share: 100,
            requests: Some(0.0),
            ..gate
        };
        assert_eq!(
            next_gate(&open),
            "ruled out: more than 1 failed requests in 1,000 of the service; the promotion may open"
        );
    }

    #[test]
    fn a_sparkline_goes_from_zero_to_the_most() {
        assert_eq!(sparkline(&[0.0, 0.0, 0.0]), "▁▁▁");
        assert_eq!(sparkline(&[0.0, 0.5, 1.0]), "▁▄█");
        assert_eq!(sparkline(&[-1.0, 0.0, 1.0]), "▁▄█");
        assert_eq!(sparkline(&[f64::NAN, 2.0]), "▁█");
    }
}
