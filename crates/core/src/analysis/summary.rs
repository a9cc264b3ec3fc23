//! The evidence of a check in words and numbers, for people. No decision depends on it.

use countersign_api::counts::{Counts, EProcess};
use countersign_api::rollout::{
    Change, CheckEvidence, CheckSummary, CheckVerdict, Evidence, GateSummary, Rate,
};
use countersign_api::{Check, Metric};

use crate::analysis::finding::{Finding, Violation};
use crate::analysis::statistics::{self, EProcessExt};
use crate::analysis::{confidence, gates, numbers, thresholds};

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
        gate: gate(evidence, change).filter(|_| counts),
        log10_worse: numbers::log10(worst.fold(f64::MIN, f64::max)),
        rollback_at: numbers::log10(thresholds::rollback_at(strictness)),
        log10_within_margin: numbers::log10(gates::ln_value(evidence, gates::next(change))),
        promote_at: numbers::log10(thresholds::promote_at(strictness)),
    }
}

fn rate(counts: Counts, evidence: &CheckEvidence, change: &Change) -> Option<Rate> {
    let rate = (counts.requests > 0.0).then(|| counts.errors / counts.requests)?;
    let dispersion = thresholds::dispersion(evidence);
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
                Some(_) => failed(evidence, Violation::AboveCeiling, change),
                None => failed(evidence, Violation::Worse, change),
            }
        }
        Finding::Passes => format!(
            "{}: it adds at most {} per 1,000 of the service, certain to 1 in {}",
            rates(evidence),
            failed_requests(ruled_out(evidence, change)),
            numbers::thousands(1.0 / change.plan.strictness.max_false_promotion)
        ),
    }
}

/// Why the canary is rolled back, with the numbers.
#[must_use]
pub fn failed(evidence: &CheckEvidence, wrong: Violation, change: &Change) -> String {
    let alpha = change.plan.strictness.max_false_rollback;
    let dispersion = thresholds::dispersion(evidence);
    let times = confidence::times_worse(evidence.canary, evidence.stable, dispersion, alpha);
    let what = match (wrong, times) {
        (Violation::AboveCeiling, _) => "above the ceiling".into(),
        (Violation::Worse, Some(times)) => {
            format!("at least {} times worse", numbers::significant_text(times))
        }
        (Violation::Worse, None) => "worse than tolerated".into(),
    };
    format!(
        "{}: {what}, certain to 1 in {}",
        rates(evidence),
        numbers::thousands(1.0 / alpha),
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

/// What the next gate still needs, in a sentence, and about how long that takes.
#[must_use]
pub fn still_needed(evidence: &CheckEvidence, change: &Change) -> String {
    let step = thresholds::least_requests(change) - evidence.step_requests;
    let Some(gate) = gate(evidence, change) else {
        return "stable has answered no request that the canary's could be compared with".into();
    };
    let for_gate = gate.requests.unwrap_or(f64::INFINITY);
    let needed = step.max(for_gate).max(1.0);
    if !needed.is_finite() {
        return "without errors of stable nothing can show that the canary has fewer: name marginDifference in a policy".into();
    }
    let requests = if needed.round() > 1.0 {
        format!("about {} more requests", numbers::thousands(needed))
    } else {
        "1 more request".into()
    };
    let time = match seconds(evidence, change, needed) {
        Some(seconds) => format!(", {} at the present rate", numbers::about(seconds)),
        None => ", and none was served in a whole window of this step yet".into(),
    };
    let opens = match gate.share {
        gates::PROMOTION => "the promotion".into(),
        share => format!("{share}%"),
    };
    let present = gates::present(change);
    if step >= for_gate {
        return format!("the step needs {requests} before {opens}{time}");
    }
    let needed = numbers::significant_text(gate.needed);
    if present == 0 {
        return format!(
            "it gets no share of the traffic yet; before {opens}, more than {needed} failed requests per 1,000 of the service must be ruled out: {requests}{time}"
        );
    }
    format!(
        "at {present}% it adds at most {} per 1,000 of the service; before {opens}, more than {needed} must be ruled out: {requests}{time}",
        failed_requests(gate.ruled_out),
    )
}

fn failed_requests(per_thousand: f64) -> String {
    let plural = if (per_thousand - 1.0).abs() < f64::EPSILON {
        ""
    } else {
        "s"
    };
    format!(
        "{} failed request{plural}",
        numbers::significant_text(per_thousand)
    )
}

/// The next gate: what the evidence rules out so far, and what the gate needs; `None` without requests of
/// stable to compare with.
fn gate(evidence: &CheckEvidence, change: &Change) -> Option<GateSummary> {
    let strictness = &change.plan.strictness;
    let share = gates::next(change);
    let open = gates::is_open(evidence, share, strictness);
    if !open && evidence.canary.requests > 0.0 && evidence.stable.requests <= 0.0 {
        return None;
    }
    let requests = needed_for(evidence, change, share);
    Some(GateSummary {
        share,
        ruled_out: numbers::significant(ruled_out(evidence, change)),
        needed: numbers::significant(added(evidence, change, share)),
        requests: requests.is_finite().then(|| requests.ceil()),
        seconds: seconds(evidence, change, requests).map(f64::ceil),
    })
}

/// Failed requests, in 1,000 of the service at the present share, of a canary that is as bad as the gate to
/// a share tolerates; without a share yet, at the one that the gate opens.
fn added(evidence: &CheckEvidence, change: &Change, share: i32) -> f64 {
    let stable = evidence.stable;
    let rate = if stable.requests > 0.0 {
        stable.errors / stable.requests
    } else {
        0.0
    };
    let at = gates::tolerance(&change.plan.strictness, share);
    let excess = (at.ratio * rate + at.difference - rate)
        .min(1.0 - rate)
        .max(0.0);
    10.0 * f64::from(at_stake(change)) * excess
}

/// Failed requests, in 1,000 of the service, that the canary adds at most at its present share: what the
/// strictest open gate tolerates, or all its requests.
fn ruled_out(evidence: &CheckEvidence, change: &Change) -> f64 {
    let gates = evidence.gates.iter().map(|gate| gate.share);
    let open = gates.filter(|share| gates::is_open(evidence, *share, &change.plan.strictness));
    open.map(|share| added(evidence, change, share))
        .fold(10.0 * f64::from(at_stake(change)), f64::min)
}

/// The share that evidence speaks about, in percent: the present one, or the next if there is none yet.
fn at_stake(change: &Change) -> i32 {
    match gates::present(change) {
        0 => gates::next(change),
        present => present,
    }
}

/// Seconds until the canary has served so many more requests, at the rate of the present step.
fn seconds(evidence: &CheckEvidence, change: &Change, requests: f64) -> Option<f64> {
    let served = f64::from(evidence.step_windows) * change.interval.std().as_secs_f64();
    let seconds = requests * served / evidence.step_requests;
    (evidence.step_requests > 0.0 && seconds.is_finite()).then_some(seconds)
}

/// Requests until the gate to a share opens, if further ones are like those before.
fn needed_for(evidence: &CheckEvidence, change: &Change, share: i32) -> f64 {
    let strictness = &change.plan.strictness;
    if gates::is_open(evidence, share, strictness) {
        return 0.0;
    }
    let progress = gates::ln_value(evidence, share) / thresholds::promote_at(strictness);
    if progress > 0.05 {
        return evidence.canary.requests * (1.0 - progress) / progress;
    }
    let tolerance = gates::tolerance(strictness, share);
    statistics::requests_needed(strictness.max_false_promotion, tolerance)
        * thresholds::dispersion(evidence)
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
