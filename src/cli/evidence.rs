//! The evidence on a canary, for people: error rates with intervals, and how far the tests are.
//!
//! The controller decides by e-values, which may be looked at all the time. The intervals beside the
//! rates are for one look: they give a feeling for how much the counts say, and decide nothing.

use crate::api::evidence::Counts;
use crate::api::rollout::{Change, CheckEvidence, CheckSummary};
use crate::core::analysis;

/// Quantile of the normal distribution for an interval that holds the true rate in 95 of 100 cases.
const Z: f64 = 1.959_964;

/// Every check with what is to be said of it; nothing before the canary had traffic.
#[must_use]
pub fn lines(change: &Change) -> Option<Vec<(String, Vec<String>)>> {
    change.evidence.from.as_ref()?;
    let summaries = analysis::summaries(&change.evidence, &change.plan.strictness);
    let checks = change.evidence.checks.iter().zip(&summaries);
    Some(
        checks
            .map(|(check, summary)| (check.name.clone(), of_check(check, summary)))
            .collect(),
    )
}

fn of_check(check: &CheckEvidence, summary: &CheckSummary) -> Vec<String> {
    let dispersion = check.dispersion.unwrap_or(1.0);
    let mut lines = vec![
        format!("canary: {}", rate(check.canary, dispersion)),
        format!("stable: {}", rate(check.stable, dispersion)),
        format!(
            "odds that it is worse than tolerated: 10^{:.2}, rolled back at 10^{:.2}",
            summary.log10_worse, summary.rollback_at
        ),
        format!(
            "odds that it is within the margin: 10^{:.2}, passes at 10^{:.2}",
            summary.log10_within_margin, summary.promote_at
        ),
    ];
    if check.last != "Counted" {
        lines.push(format!("last window: {}: {}", check.last, check.message));
    }
    lines
}

fn rate(counts: Counts, dispersion: f64) -> String {
    let Counts { requests, errors } = counts;
    if requests <= 0.0 {
        return "no requests".into();
    }
    let (low, high) = interval(requests / dispersion, errors / dispersion);
    format!(
        "{} of {} requests failed, {:.2}% (95% interval {:.2}% to {:.2}%)",
        errors.round(),
        requests.round(),
        100.0 * errors / requests,
        100.0 * low,
        100.0 * high
    )
}

/// Wilson's interval for a rate: it stays within 0 and 1, and is honest for few or no errors.
fn interval(requests: f64, errors: f64) -> (f64, f64) {
    let rate = (errors / requests).clamp(0.0, 1.0);
    let z2 = Z * Z / requests;
    let middle = (rate + z2 / 2.0) / (1.0 + z2);
    let half = Z * (rate * (1.0 - rate) / requests + z2 / (4.0 * requests)).sqrt() / (1.0 + z2);
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn intervals_are_those_of_the_books() {
        // Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
        for (errors, requests, low, high) in [
            (81.0, 263.0, 0.2553, 0.3662),
            (15.0, 148.0, 0.0624, 0.1605),
            (0.0, 20.0, 0.0000, 0.1611),
            (1.0, 29.0, 0.0061, 0.1718),
        ] {
            let (l, h) = interval(requests, errors);
            assert!((l - low).abs() < 5e-5 && (h - high).abs() < 5e-5, "{l} {h}");
        }
    }

    #[test]
    fn clustered_errors_widen_the_interval() {
        let counts = Counts {
            requests: 400.0,
            errors: 10.0,
        };
        assert_eq!(
            rate(counts, 4.0),
            "10 of 400 requests failed, 2.50% (95% interval 0.78% to 7.74%)"
        );
        assert_eq!(rate(Counts::default(), 1.0), "no requests");
    }

    proptest! {
        #[test]
        fn an_interval_holds_the_observed_rate(requests in 1.0..1e9_f64, share in 0.0..=1.0_f64) {
            let (low, high) = interval(requests, requests * share);
            prop_assert!((0.0..=1.0).contains(&low) && (0.0..=1.0).contains(&high));
            prop_assert!(low <= share + 1e-9 && share <= high + 1e-9);
        }
    }
}
