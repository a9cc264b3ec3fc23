//! The evidence of a check in words and numbers, for people. No decision depends on it.

use countersign_api::counts::{Counts, EProcess};
use countersign_api::rollout::{Change, CheckEvidence, CheckSummary, CheckVerdict, Evidence, Rate};
use countersign_api::{Check, Metric};

use crate::analysis::finding::{Finding, Violation};
use crate::analysis::statistics::{self, EProcessExt};
use crate::analysis::{confidence, numbers, thresholds};

/// The summary of a check.
#[must_use]
pub fn of(
    check: &Check,
    evidence: &CheckEvidence,
    change: &Change,
    finding: &Finding,
) -> CheckSummary {
    let strictness = &change.plan.strictness;
    let rate = |counts: Counts| rate(counts, evidence, change);
    let counts = check.metric.is_none();
    let worst = [Some(&evidence.rollback), evidence.ceiling.as_ref()];
    let worst = worst.into_iter().flatten().map(EProcess::ln_value);
    CheckSummary {
        check: evidence.name.clone(),
        verdict: finding.verdict(),
        sentence: sentence(check, evidence, change, finding),
        canary: evidence.canary,
        stable: evidence.stable,
        canary_rate: rate(evidence.canary).filter(|_| counts),
        stable_rate: rate(evidence.stable).filter(|_| counts),
        value: evidence.value,
        log10_worse: numbers::log10(worst.fold(f64::MIN, f64::max)),
        rollback_at: numbers::log10(thresholds::rollback_at(strictness)),
        log10_within_margin: numbers::log10(evidence.promote.ln_value()),
        promote_at: numbers::log10(thresholds::promote_at(strictness)),
    }
}

fn rate(counts: Counts, evidence: &CheckEvidence, change: &Change) -> Option<Rate> {
    let rate = (counts.requests > 0.0).then(|| counts.errors / counts.requests)?;
    let dispersion = evidence.dispersion.unwrap_or(1.0);
    let alpha = change.plan.strictness.max_false_rollback;
    let interval = confidence::interval(counts, dispersion, alpha);
    Some(Rate {
        rate: numbers::significant(rate),
        low: numbers::significant(interval.low),
        high: numbers::significant(interval.high),
    })
}

fn sentence(check: &Check, evidence: &CheckEvidence, change: &Change, finding: &Finding) -> String {
    match finding {
        Finding::NoData { message, .. } => message.clone(),
        Finding::Scarce(needed) => format!("{}: {needed}", rates(evidence)),
        _ if check.metric.is_some() => check
            .metric
            .as_ref()
            .map(|metric| bounds(metric, evidence))
            .unwrap_or_default(),
        Finding::Fails => {
            let ceiling = evidence.ceiling.as_ref().map(EProcess::ln_value);
            let worse = evidence.rollback.ln_value();
            match ceiling.filter(|ceiling| *ceiling > worse) {
                Some(ceiling) => failed(evidence, Violation::AboveCeiling, ceiling, change),
                None => failed(evidence, Violation::Worse, worse, change),
            }
        }
        Finding::Passes => format!(
            "{}: within the margin, certain to 1 in {}",
            rates(evidence),
            numbers::thousands(1.0 / change.plan.strictness.max_false_promotion)
        ),
    }
}

/// Why the canary is rolled back, with the numbers.
#[must_use]
pub fn failed(
    evidence: &CheckEvidence,
    wrong: Violation,
    ln_value: f64,
    change: &Change,
) -> String {
    let strictness = &change.plan.strictness;
    let alpha = strictness.max_false_rollback;
    let dispersion = evidence.dispersion.unwrap_or(1.0);
    let times = confidence::times_worse(evidence.canary, evidence.stable, dispersion, alpha);
    let what = match (wrong, times) {
        (Violation::AboveCeiling, _) => "above the ceiling".into(),
        (Violation::Worse, Some(times)) => {
            format!("at least {} times worse", numbers::significant_text(times))
        }
        (Violation::Worse, None) => "worse than tolerated".into(),
    };
    format!(
        "{}: {what}, certain to 1 in {} (evidence 10^{:.1}, rolled back from 10^{:.1})",
        rates(evidence),
        numbers::thousands(1.0 / alpha),
        numbers::log10(ln_value),
        numbers::log10(thresholds::rollback_at(strictness)),
    )
}

/// A metric with its bounds.
#[must_use]
pub fn bounds(metric: &Metric, evidence: &CheckEvidence) -> String {
    let value = evidence
        .value
        .map_or_else(|| "unknown".into(), numbers::significant_text);
    let bounds = match (metric.min, metric.max) {
        (Some(min), Some(max)) => format!("from {min} to {max}"),
        (Some(min), None) => format!("at least {min}"),
        (None, Some(max)) => format!("at most {max}"),
        (None, None) => "anything".into(),
    };
    if evidence.outside == 0 {
        return format!("{value}, within bounds ({bounds})");
    }
    format!(
        "{value}, out of bounds ({bounds}) in {} of {} windows in a row",
        evidence.outside.min(metric.failures),
        metric.failures
    )
}

/// The requests, and the approximate time, that a step still needs.
#[must_use]
pub fn still_needed(evidence: &CheckEvidence, change: &Change) -> String {
    let step = thresholds::least_requests(change) - evidence.step_requests;
    let promotion = needed_for_promotion(evidence, change);
    let needed = step.max(promotion).max(1.0);
    if promotion > 0.0 && evidence.canary.requests > 0.0 && evidence.stable.requests <= 0.0 {
        return "stable has answered no request that the canary's could be compared with".into();
    }
    if !needed.is_finite() {
        return "without errors of stable nothing can show that the canary has fewer: name marginDifference in a policy".into();
    }
    let because = if promotion > step {
        "to rule out that the canary is worse than the margin"
    } else {
        "for this step"
    };
    let windows = f64::from(evidence.step_windows);
    let seconds = windows * change.interval.std().as_secs_f64();
    let time = if evidence.step_requests > 0.0 {
        format!(
            ", {} at the present rate",
            numbers::about(needed * seconds / evidence.step_requests)
        )
    } else {
        ", and none was served in a whole window of this step yet".into()
    };
    format!(
        "about {} needed {because}{time}",
        if needed.round() > 1.0 {
            format!("{} more requests are", numbers::thousands(needed))
        } else {
            "1 more request is".into()
        }
    )
}

/// Requests until the promote test passes, if further ones are like those before.
fn needed_for_promotion(evidence: &CheckEvidence, change: &Change) -> f64 {
    let strictness = &change.plan.strictness;
    let (value, least) = (
        evidence.promote.ln_value(),
        thresholds::promote_at(strictness),
    );
    if value >= least {
        return 0.0;
    }
    let flawless = statistics::requests_needed(
        strictness.max_false_promotion,
        thresholds::margin(strictness),
    ) * evidence.dispersion.unwrap_or(1.0);
    let progress = value / least;
    if progress > 0.05 {
        evidence.canary.requests * (1.0 - progress) / progress
    } else {
        flawless
    }
}

/// One line with the summary of every check.
#[must_use]
pub fn line(evidence: &Evidence) -> String {
    let lines: Vec<_> = evidence
        .checks
        .iter()
        .map(|check| format!("check {}: {}", check.name, check.summary.sentence))
        .collect();
    lines.join("; ")
}

/// Most checks whose summaries a transition holds.
const MOST: usize = 10;

/// The summaries of the most important checks: failing ones first.
#[must_use]
pub fn worst(evidence: &Evidence) -> Vec<CheckSummary> {
    let mut all = all(evidence);
    all.sort_by_key(|it| match it.verdict {
        CheckVerdict::Failing => 0,
        CheckVerdict::NoData => 1,
        CheckVerdict::Scarce => 2,
        CheckVerdict::Passing => 3,
        CheckVerdict::Waiting => 4,
    });
    all.truncate(MOST);
    all
}

/// The summary of every check.
#[must_use]
pub fn all(evidence: &Evidence) -> Vec<CheckSummary> {
    evidence
        .checks
        .iter()
        .map(|check| check.summary.clone())
        .collect()
}

fn rates(evidence: &CheckEvidence) -> String {
    let rate = |counts: Counts| {
        let rate = if counts.requests > 0.0 {
            100.0 * counts.errors / counts.requests
        } else {
            0.0
        };
        format!("{}% of", numbers::significant_text(rate))
    };
    format!(
        "canary {} {} against stable {} {}",
        rate(evidence.canary),
        numbers::counted(evidence.canary.requests, "request"),
        rate(evidence.stable),
        numbers::thousands(evidence.stable.requests)
    )
}
