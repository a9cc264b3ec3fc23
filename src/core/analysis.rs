//! Windows of counts in, evidence and a verdict out.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::observation::{CheckWindows, Observation, WindowOutcome};
use super::policy::Effective;
use super::statistics::{self, Counts, EProcess, Test, Tolerance};
use crate::api::rollout::{Change, CheckEvidence, CheckSummary, Evidence, Strictness};
use crate::api::{Check, Duration, analysis::default_interval};

/// The checks that a change must pass: its own and those of the policies, whose names are prefixed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checks {
    /// Each check under its unique name.
    pub checks: BTreeMap<String, Check>,
    /// Length of one window: the shortest that anyone asks for.
    pub interval: Duration,
}

/// The checks in force for an observation.
#[must_use]
pub fn checks(observation: &Observation, effective: &Effective) -> Checks {
    let own = observation.spec.strategy.canary.analysis.as_ref();
    let named = own.into_iter().flat_map(|analysis| {
        analysis
            .checks
            .iter()
            .map(|check| (check.name.clone(), check.clone()))
    });
    let interval = own
        .map(|analysis| analysis.interval)
        .into_iter()
        .chain(effective.interval)
        .min();
    Checks {
        checks: named.chain(effective.checks.iter().cloned()).collect(),
        interval: interval.unwrap_or_else(default_interval),
    }
}

/// The checks of a change under way: one that has counted stays as it was, whatever became of its
/// definition since, and new ones are added. So nobody can swap the question while it is answered.
#[must_use]
pub fn in_force(change: &Change, current: &Checks) -> Checks {
    if change.evidence.from.is_none() {
        return current.clone();
    }
    let has_counted = |name: &String| {
        let evidence = change
            .evidence
            .checks
            .iter()
            .find(|check| check.name == *name);
        evidence.is_some_and(|check| check.canary.requests + check.stable.requests > 0.0)
    };
    let mut checks = change.checks.clone();
    for (name, check) in &current.checks {
        if !has_counted(name) {
            checks.insert(name.clone(), check.clone());
        }
    }
    Checks {
        checks,
        interval: change.interval,
    }
}

/// What the evidence says of a canary.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// There is nothing to judge by.
    NoChecks,
    /// It is worse than tolerated.
    Fail {
        /// Which check, with the numbers.
        message: String,
    },
    /// Nothing can be said, since data is missing, odd or late.
    NoData {
        /// Why, in one word.
        reason: String,
        /// Why, in a sentence.
        message: String,
    },
    /// Clean so far, but too little to rule out that it is worse than the margin.
    Scarce {
        /// How much is still needed.
        message: String,
    },
    /// It is within the margin by every check.
    Pass {
        /// The numbers.
        message: String,
    },
}

fn tolerated(strictness: &Strictness) -> Tolerance {
    Tolerance {
        ratio: strictness.tolerated_ratio,
        difference: strictness.tolerated_difference,
    }
}

fn margin(strictness: &Strictness) -> Tolerance {
    Tolerance {
        ratio: strictness.margin_ratio,
        difference: strictness.margin_difference,
    }
}

/// ln E at which the canary is rolled back: half of the allowance is for evidence gathered from the
/// start, the other half for what begins anew with each step (see [`rearm`]).
fn rollback_at(strictness: &Strictness) -> f64 {
    (2.0 / strictness.max_false_rollback).ln()
}

fn promote_at(strictness: &Strictness) -> f64 {
    -strictness.max_false_promotion.ln()
}

/// Folds the answered windows into the evidence. The same windows always give the same evidence.
#[must_use]
pub fn gather(
    change: &Change,
    checks: &Checks,
    windows: &BTreeMap<String, CheckWindows>,
) -> Evidence {
    let none = CheckWindows::default();
    let checks = checks.checks.iter().map(|(name, check)| {
        let known = change
            .evidence
            .checks
            .iter()
            .find(|evidence| evidence.name == *name);
        let mut evidence = known.cloned().unwrap_or_else(|| CheckEvidence {
            name: name.clone(),
            last: "Waiting".into(),
            message: "no window has ended yet".into(),
            ..CheckEvidence::default()
        });
        fold(
            &mut evidence,
            check,
            windows.get(name).unwrap_or(&none),
            change,
        );
        evidence
    });
    Evidence {
        from: change.evidence.from.clone(),
        checks: checks.collect(),
    }
}

fn fold(evidence: &mut CheckEvidence, check: &Check, windows: &CheckWindows, change: &Change) {
    if evidence.dispersion.is_none() && windows.baseline.is_some() {
        let measured = windows
            .baseline
            .as_deref()
            .map_or(1.0, statistics::dispersion);
        evidence.dispersion = Some(check.dispersion.unwrap_or(measured));
    }
    let step_started = change
        .step_started_at
        .as_ref()
        .map_or(Timestamp::MIN, |at| at.0);
    for window in &windows.due {
        if evidence
            .last_window_end
            .as_ref()
            .is_some_and(|end| window.end <= end.0)
        {
            continue;
        }
        match &window.outcome {
            WindowOutcome::Counted { canary, stable } => {
                count(evidence, check, *canary, *stable, &change.plan.strictness);
                if window.start >= step_started {
                    evidence.step_requests += canary.requests;
                }
                evidence.last = "Counted".into();
                evidence.message = format!(
                    "canary {} of {} requests failed, stable {} of {}",
                    canary.errors, canary.requests, stable.errors, stable.requests
                );
            }
            WindowOutcome::Uncounted { reason, message } => {
                evidence.last = format!("{reason:?}");
                evidence.message.clone_from(message);
            }
            WindowOutcome::Unanswered { reason, message } => {
                evidence.last = format!("{reason:?}");
                evidence.message.clone_from(message);
                return; // it is asked again, so nothing after it is counted yet
            }
        }
        evidence.last_window_end = Some(Time(window.end));
    }
}

fn count(
    evidence: &mut CheckEvidence,
    check: &Check,
    canary: Counts,
    stable: Counts,
    strictness: &Strictness,
) {
    let dispersion = evidence.dispersion.unwrap_or(1.0);
    let observe = |process: &mut EProcess, test, canary| {
        process.observe(test, canary, stable, dispersion);
    };
    observe(
        &mut evidence.rollback,
        Test::RollBack(tolerated(strictness)),
        canary,
    );
    observe(
        &mut evidence.promote,
        Test::Promote(margin(strictness)),
        canary,
    );
    if let Some(ceiling) = check.ceiling {
        let test = Test::Ceiling(ceiling);
        observe(evidence.ceiling.get_or_insert_default(), test, canary);
        observe(
            evidence.stable_ceiling.get_or_insert_default(),
            test,
            stable,
        );
    }
    for (sum, window) in [
        (&mut evidence.canary, canary),
        (&mut evidence.stable, stable),
    ] {
        sum.requests += window.requests;
        sum.errors += window.errors;
    }
}

/// Starts a step: requests are counted anew, and a regression that begins now is seen as soon as one
/// that began with the change, since the roll-back tests get a fresh share of the allowance.
pub fn rearm(evidence: &mut Evidence, steps: usize) {
    #[allow(clippy::cast_precision_loss)]
    let share = 1.0 / (steps.max(1) as f64);
    for check in &mut evidence.checks {
        check.step_requests = 0.0;
        check.rollback.rearm(share);
        for ceiling in [&mut check.ceiling, &mut check.stable_ceiling]
            .into_iter()
            .flatten()
        {
            ceiling.rearm(share);
        }
    }
}

/// Judges the evidence of a step.
///
/// Fresh evidence is one that reaches to within three intervals and the lag of `now`: without it
/// nothing passes, whatever was seen before.
#[must_use]
pub fn judge(
    evidence: &Evidence,
    checks: &Checks,
    strictness: &Strictness,
    min_requests: i64,
    now: Timestamp,
    lag: Duration,
) -> Verdict {
    if checks.checks.is_empty() {
        return Verdict::NoChecks;
    }
    if let Some(message) = failure(evidence, strictness) {
        return Verdict::Fail { message };
    }
    if let Some(no_data) = missing(evidence, checks, now, lag) {
        return no_data;
    }
    if let Some(check) = both_above_ceiling(evidence, strictness) {
        return Verdict::NoData {
            reason: "StableAboveCeiling".into(),
            message: format!(
                "check {}: stable breaks the ceiling too, so the canary is not to blame",
                check.name
            ),
        };
    }
    let scarce: Vec<_> = evidence
        .checks
        .iter()
        .filter_map(|check| scarcity(check, strictness, min_requests))
        .collect();
    if scarce.is_empty() {
        Verdict::Pass {
            message: summary_line(evidence, strictness),
        }
    } else {
        Verdict::Scarce {
            message: scarce.join("; "),
        }
    }
}

/// The mean of the tests' e-values reaches `1/alpha`: valid whatever their dependence, and never
/// later than any single one of `m` that reaches `m/alpha`.
fn failure(evidence: &Evidence, strictness: &Strictness) -> Option<String> {
    let tests: Vec<_> = evidence
        .checks
        .iter()
        .flat_map(|check| tests(check, strictness))
        .collect();
    let values: Vec<f64> = tests.iter().map(|(_, _, value)| *value).collect();
    if statistics::ln_mean(&values) < rollback_at(strictness) {
        return None;
    }
    let (check, what, value) = tests.into_iter().max_by(|a, b| a.2.total_cmp(&b.2))?;
    Some(format!(
        "check {}: {}; that is {what}, by odds of 1 to 10^{:.1} (rolled back from 10^{:.1})",
        check.name,
        rates(check),
        log10(value),
        log10(rollback_at(strictness)),
    ))
}

/// The roll-back tests of one check. A ceiling that stable breaks as well says nothing of the canary.
fn tests<'a>(
    check: &'a CheckEvidence,
    strictness: &Strictness,
) -> Vec<(&'a CheckEvidence, &'static str, f64)> {
    let mut tests = vec![(
        check,
        "worse than tolerated beside stable",
        check.rollback.ln_value(),
    )];
    if let Some(ceiling) = &check.ceiling
        && !stable_above_ceiling(check, strictness)
    {
        tests.push((check, "above the ceiling", ceiling.ln_value()));
    }
    tests
}

fn stable_above_ceiling(check: &CheckEvidence, strictness: &Strictness) -> bool {
    let value = check
        .stable_ceiling
        .as_ref()
        .map_or(0.0, EProcess::ln_value);
    value >= -strictness.max_false_rollback.ln()
}

fn both_above_ceiling<'a>(
    evidence: &'a Evidence,
    strictness: &Strictness,
) -> Option<&'a CheckEvidence> {
    let above = |check: &CheckEvidence| {
        check
            .ceiling
            .as_ref()
            .is_some_and(|ceiling| ceiling.ln_value() >= rollback_at(strictness))
    };
    evidence
        .checks
        .iter()
        .find(|check| above(check) && stable_above_ceiling(check, strictness))
}

fn missing(evidence: &Evidence, checks: &Checks, now: Timestamp, lag: Duration) -> Option<Verdict> {
    let patience = lag
        .signed()
        .saturating_add(checks.interval.signed().saturating_mul(3));
    let oldest = now.saturating_sub(patience).unwrap_or(Timestamp::MIN);
    evidence.checks.iter().find_map(|check| {
        let fresh = check
            .last_window_end
            .as_ref()
            .is_some_and(|end| end.0 >= oldest);
        let (reason, message) = match check.last.as_str() {
            "Counted" if fresh => return None,
            "Counted" => (
                super::reason::EVIDENCE_OUTDATED,
                "no window was answered lately",
            ),
            reason => (reason, check.message.as_str()),
        };
        Some(Verdict::NoData {
            reason: reason.to_owned(),
            message: format!("check {}: {message}", check.name),
        })
    })
}

fn scarcity(check: &CheckEvidence, strictness: &Strictness, min_requests: i64) -> Option<String> {
    #[allow(clippy::cast_precision_loss)]
    let least = (min_requests as f64).max(1.0);
    if check.step_requests < least {
        return Some(format!(
            "check {}: the canary served {} of at least {least} requests in this step",
            check.name, check.step_requests
        ));
    }
    if check.promote.ln_value() >= promote_at(strictness) {
        return None;
    }
    let needed = statistics::requests_needed(strictness.max_false_promotion, margin(strictness));
    Some(format!(
        "check {}: {}; it takes at least {needed} requests without an error to rule out that the canary is worse than the margin",
        check.name,
        rates(check)
    ))
}

/// One line with the counts and e-values of every check.
#[must_use]
pub fn summary_line(evidence: &Evidence, strictness: &Strictness) -> String {
    let lines: Vec<_> = summaries(evidence, strictness)
        .iter()
        .zip(&evidence.checks)
        .map(|(summary, check)| {
            format!(
                "check {}: {}; worse: 10^{:.1} of 10^{:.1}, within margin: 10^{:.1} of 10^{:.1}",
                check.name,
                rates(check),
                summary.log10_worse,
                summary.rollback_at,
                summary.log10_within_margin,
                summary.promote_at
            )
        })
        .collect();
    lines.join("; ")
}

/// The evidence of each check in the form that records keep.
#[must_use]
pub fn summaries(evidence: &Evidence, strictness: &Strictness) -> Vec<CheckSummary> {
    let summary = |check: &CheckEvidence| CheckSummary {
        check: check.name.clone(),
        canary: check.canary,
        stable: check.stable,
        log10_worse: log10(check.rollback.ln_value()),
        rollback_at: log10(rollback_at(strictness)),
        log10_within_margin: log10(check.promote.ln_value()),
        promote_at: log10(promote_at(strictness)),
    };
    evidence.checks.iter().map(summary).collect()
}

fn log10(ln: f64) -> f64 {
    // Two decimals are what a person reads and what a record needs.
    (ln / std::f64::consts::LN_10 * 100.0).round() / 100.0
}

fn rates(check: &CheckEvidence) -> String {
    let rate = |counts: Counts| {
        let percent = if counts.requests > 0.0 {
            100.0 * counts.errors / counts.requests
        } else {
            0.0
        };
        format!(
            "{} of {} requests failed ({percent:.2}%)",
            counts.errors.round(),
            counts.requests.round()
        )
    };
    format!(
        "canary {}, stable {}",
        rate(check.canary),
        rate(check.stable)
    )
}
