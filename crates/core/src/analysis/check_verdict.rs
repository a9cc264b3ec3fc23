//! From the evidence of one check to its verdict.

use countersign_api::counts::EProcess;
use countersign_api::rollout::{Change, CheckEvidence, Strictness, WindowState};
use countersign_api::{Check, Duration};
use k8s_openapi::jiff::Timestamp;

use crate::analysis::finding::{Finding, Violation};
use crate::analysis::statistics::{self, EProcessExt};
use crate::analysis::{gates, summary, thresholds};
use crate::reason::Reason;

/// End of the oldest window on which a decision may still be made.
pub(super) fn oldest_fresh(interval: Duration, now: Timestamp, lag: Duration) -> Timestamp {
    let intervals = interval.signed().saturating_mul(3);
    let max_age = lag.signed().saturating_add(intervals);
    now.saturating_sub(max_age).unwrap_or(Timestamp::MIN)
}

pub(super) fn find(check: &Check, evidence: &CheckEvidence, change: &Change) -> Finding {
    let no_data = |reason, message| Finding::NoData { reason, message };
    if fails_alone(check, evidence, change) {
        return Finding::Fails;
    }
    if evidence.last != WindowState::Counted {
        return no_data(Reason::Window(evidence.last), evidence.message.clone());
    }
    if let Some(metric) = &check.metric {
        if evidence.outside > 0 {
            return no_data(Reason::OutOfBounds, summary::bounds(metric, evidence));
        }
        return match evidence.step_windows {
            0 => Finding::Scarce("no window of this step has been measured yet".into()),
            _ => Finding::Passes,
        };
    }
    let strictness = &change.plan.strictness;
    if stable_above_ceiling(evidence.stable_ceiling.as_ref(), strictness)
        && above_ceiling(evidence, change)
    {
        let message = "stable breaks the ceiling too, so the canary is not to blame";
        return no_data(Reason::StableAboveCeiling, message.into());
    }
    let least = thresholds::least_requests(change);
    let open = gates::is_open(evidence, gates::next(change), &change.plan.strictness);
    if open && evidence.step_requests >= least {
        Finding::Passes
    } else {
        Finding::Scarce(summary::still_needed(evidence, change))
    }
}

/// Outdated evidence gives no verdict.
pub(super) fn fresh(finding: Finding, evidence: &CheckEvidence, oldest: Timestamp) -> Finding {
    let end = evidence.last_window_end.as_ref();
    let is_fresh = evidence.last != WindowState::Counted || end.is_some_and(|end| end.0 >= oldest);
    if is_fresh {
        return finding;
    }
    Finding::NoData {
        reason: Reason::EvidenceOutdated,
        message: "no window was answered lately".into(),
    }
}

fn fails_alone(check: &Check, evidence: &CheckEvidence, change: &Change) -> bool {
    match &check.metric {
        Some(_) => metric_fails(check, evidence),
        None => tests(evidence, change)
            .iter()
            .any(|(_, value)| *value >= thresholds::rollback_at(&change.plan.strictness)),
    }
}

fn metric_fails(check: &Check, evidence: &CheckEvidence) -> bool {
    let metric = check.metric.as_ref();
    metric.is_some_and(|metric| evidence.outside >= metric.failures)
}

/// A metric that is out of bounds for too long, or the mean of the tests' e-values at its bound. The mean
/// is valid whatever their dependence, and never later than a single one of `m` that reaches `m` times the
/// bound.
pub(super) fn failure(evidence: &[(&Check, &CheckEvidence)], change: &Change) -> Option<String> {
    let metric = evidence.iter().find(|(check, it)| metric_fails(check, it));
    if let Some((_, it)) = metric {
        return Some(format!("check {}: {}", it.name, it.summary.sentence));
    }
    let tests: Vec<_> = evidence
        .iter()
        .filter(|(check, _)| check.metric.is_none())
        .flat_map(|(_, it)| tests(it, change).into_iter().map(|test| (*it, test)))
        .collect();
    let values: Vec<f64> = tests.iter().map(|(_, (_, value))| *value).collect();
    if statistics::ln_mean(&values) < thresholds::rollback_at(&change.plan.strictness) {
        return None;
    }
    let (check, (what, _)) = tests.into_iter().max_by(|a, b| a.1.1.total_cmp(&b.1.1))?;
    Some(format!(
        "check {}: {}",
        check.name,
        summary::failed(check, what, change)
    ))
}

/// The roll-back tests of one check, with their ln E. A ceiling that stable exceeds as well is no evidence
/// against the canary.
fn tests(evidence: &CheckEvidence, change: &Change) -> Vec<(Violation, f64)> {
    let mut tests = vec![(Violation::Worse, evidence.rollback.ln_value())];
    if let Some(ceiling) = &evidence.ceiling {
        // The test is kept with no evidence, so that the weights of the others do not change.
        let of_stable = evidence.stable_ceiling.as_ref();
        let blameless = stable_above_ceiling(of_stable, &change.plan.strictness);
        let value = ceiling.ln_value();
        tests.push((
            Violation::AboveCeiling,
            if blameless { value.min(0.0) } else { value },
        ));
    }
    tests
}

/// Whether stable breaks the ceiling, according to its test.
pub(super) fn stable_above_ceiling(of_stable: Option<&EProcess>, strictness: &Strictness) -> bool {
    of_stable.map_or(0.0, EProcess::ln_value) >= stable_ceiling_at(strictness)
}

/// The ln E from which on stable breaks the ceiling.
pub(super) fn stable_ceiling_at(strictness: &Strictness) -> f64 {
    -strictness.max_false_rollback.ln()
}

fn above_ceiling(evidence: &CheckEvidence, change: &Change) -> bool {
    let value = evidence.ceiling.as_ref().map(EProcess::ln_value);
    value.is_some_and(|value| value >= thresholds::rollback_at(&change.plan.strictness))
}
