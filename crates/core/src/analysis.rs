//! Windows of counts in, evidence and a verdict out.

use std::collections::BTreeMap;

use countersign_api::analysis::CheckMode;
use countersign_api::evidence::{Counts, EProcess};
use countersign_api::plan::Tier;
use countersign_api::rollout::{Change, CheckEvidence, CheckVerdict, Evidence, Stage, Strictness};
use countersign_api::{Check, Duration, Metric};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::checks::{self, Checks};
use crate::observation::windows::{CheckWindows, WindowOutcome};
use crate::statistics::{self, EProcessExt, Test, Tolerance};
use crate::{query, summary};

/// Most windows whose rates are kept for people to look at.
const RECENT: usize = 30;

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

/// How much worse than stable a canary may be before it is rolled back.
#[must_use]
pub fn tolerated(strictness: &Strictness) -> Tolerance {
    Tolerance {
        ratio: strictness.tolerated_ratio,
        difference: strictness.tolerated_difference,
    }
}

/// How much worse than stable a canary must surely not be before it is promoted.
#[must_use]
pub fn margin(strictness: &Strictness) -> Tolerance {
    Tolerance {
        ratio: strictness.margin_ratio,
        difference: strictness.margin_difference,
    }
}

/// How much fresh evidence all steps together begin with (see [`rearm`]), beside the 1 that a change
/// begins with: two thirds of the allowance are for what is gathered from the start, a third for what
/// begins late.
pub const RENEWED: f64 = 0.5;

/// ln E at which the canary is rolled back.
#[must_use]
pub fn rollback_at(strictness: &Strictness) -> f64 {
    ((1.0 + RENEWED) / strictness.max_false_rollback).ln()
}

/// ln E at which a step may pass.
#[must_use]
pub fn promote_at(strictness: &Strictness) -> f64 {
    -strictness.max_false_promotion.ln()
}

/// The ceiling of a check: its own, or the share of slow requests that a quantile leaves.
#[must_use]
pub fn ceiling(check: &Check) -> Option<f64> {
    let quantile = check.latency.as_ref().and_then(|it| it.quantile);
    check
        .ceiling
        .or_else(|| quantile.map(|quantile| 1.0 - quantile))
}

/// Fewest requests of the canary in the present step.
#[must_use]
pub fn least_requests(change: &Change) -> f64 {
    let step = usize::try_from(change.step - 1)
        .ok()
        .and_then(|index| change.plan.steps.get(index));
    #[allow(clippy::cast_precision_loss)]
    step.map_or(1.0, |step| (step.min_requests as f64).max(1.0))
}

/// The evidence of one check in a change, if it has any.
fn evidence_of<'a>(change: &'a Change, name: &str) -> Option<&'a CheckEvidence> {
    change.evidence.checks.iter().find(|it| it.name == name)
}

/// From when on a check counts, and until when it has counted.
#[must_use]
pub fn counted_until(change: &Change, name: &str) -> Option<Timestamp> {
    let known = evidence_of(change, name);
    let from = known.and_then(|known| known.from.clone());
    let from = from.or_else(|| change.evidence.from.clone())?.0;
    let counted = known.and_then(|known| known.last_window_end.as_ref());
    Some(counted.map_or(from, |end| end.0.max(from)))
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
        let mut evidence = evidence_of(change, name)
            .cloned()
            .unwrap_or_else(|| CheckEvidence {
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
        let finding = find(check, &evidence, change);
        evidence.summary = summary::of(check, &evidence, change, &finding);
        evidence
    });
    Evidence {
        from: change.evidence.from.clone(),
        checks: checks.collect(),
        objectives: change.evidence.objectives.clone(),
        renewed: change.evidence.renewed,
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
    for window in &windows.due {
        if evidence
            .last_window_end
            .as_ref()
            .is_some_and(|end| window.end <= end.0)
        {
            continue;
        }
        let warms_up = warms_up(change, check, window.start);
        match &window.outcome {
            WindowOutcome::Counted { canary, stable } if !warms_up || check.latency.is_none() => {
                count(evidence, check, *canary, *stable, change, warms_up);
                if is_of_step(change, window.start) && !warms_up {
                    evidence.step_requests += canary.requests;
                    evidence.step_windows = evidence.step_windows.saturating_add(1);
                }
                evidence.last = "Counted".into();
                evidence.message = format!(
                    "canary {} of {} requests failed, stable {} of {}",
                    canary.errors, canary.requests, stable.errors, stable.requests
                );
            }
            WindowOutcome::Measured { value } if !warms_up => {
                measure(evidence, check, *value);
                evidence.step_windows += i32::from(is_of_step(change, window.start));
                evidence.last = "Counted".into();
                evidence.message = format!("the metric is {value}");
            }
            WindowOutcome::Counted { .. } | WindowOutcome::Measured { .. } => {
                evidence.last = crate::reason::WARMING_UP.into();
                evidence.message = "the new pods warm up".into();
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

fn is_of_step(change: &Change, start: Timestamp) -> bool {
    let since = change.step_started_at.as_ref();
    since.is_none_or(|since| start >= since.0)
}

/// Whether the pods of the present step were new in a window that began then. Where a Service tells
/// the revisions apart they are new until they are available, as stable pods may stand in for them.
fn warms_up(change: &Change, check: &Check, start: Timestamp) -> bool {
    let matters = change.warm_up > Duration::default() || query::is_told_by_service(check);
    if !matters || !is_of_step(change, start) {
        return false;
    }
    let all_lost = change.lost.as_ref().filter(|lost| lost.all);
    let until = match (change.stage, &change.available_at, &change.step_started_at) {
        (Stage::Stepping, ..) if all_lost.is_some_and(|lost| start >= lost.since.0) => return true,
        (Stage::Stepping, since, _) => match since.as_ref().max(change.warm_from.as_ref()) {
            Some(since) => since.0,
            None => return true,
        },
        (Stage::Promoting | Stage::Promoted, _, Some(since)) => since.0,
        _ => return false,
    };
    until
        .saturating_add(change.warm_up.signed())
        .is_ok_and(|until| start < until)
}

fn count(
    evidence: &mut CheckEvidence,
    check: &Check,
    canary: Counts,
    stable: Counts,
    change: &Change,
    warms_up: bool,
) {
    let strictness = &change.plan.strictness;
    let dispersion = evidence.dispersion.unwrap_or(1.0);
    let observe = |process: &mut EProcess, test, canary| {
        process.observe(test, canary, stable, dispersion);
    };
    observe(
        &mut evidence.rollback,
        Test::RollBack(tolerated(strictness)),
        canary,
    );
    if !warms_up {
        observe(
            &mut evidence.promote,
            Test::Promote(margin(strictness)),
            canary,
        );
    }
    if let Some(ceiling) = ceiling(check) {
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
    if canary.requests > 0.0 {
        remember(evidence, canary.errors / canary.requests);
    }
}

fn measure(evidence: &mut CheckEvidence, check: &Check, value: f64) {
    let outside = check
        .metric
        .as_ref()
        .is_some_and(|it| is_outside(it, value));
    evidence.outside = if outside {
        evidence.outside.saturating_add(1)
    } else {
        0
    };
    evidence.value = Some(value);
    remember(evidence, value);
}

/// Whether a number is out of a metric's bounds.
fn is_outside(metric: &Metric, value: f64) -> bool {
    metric.min.is_some_and(|min| value < min) || metric.max.is_some_and(|max| value > max)
}

fn remember(evidence: &mut CheckEvidence, value: f64) {
    if evidence.recent.len() >= RECENT {
        evidence.recent.remove(0);
    }
    // Four digits are what a picture needs.
    evidence.recent.push(summary::significant(value));
}

/// Lets the checks count that run at this weight and did not at the last one.
pub fn begin(change: &mut Change, before: i32, weight: i32, now: &Time) {
    for (name, check) in &change.checks {
        let began = change.step > 0 && !checks::is_active(check, &change.plan, before);
        if !(began && checks::is_active(check, &change.plan, weight)) {
            continue;
        }
        let checks = &mut change.evidence.checks;
        if let Some(known) = checks.iter_mut().find(|it| it.name == *name) {
            known.from = Some(now.clone());
        }
    }
}

/// Starts a step: requests are counted anew, and a regression that begins now is seen as soon as one
/// that began with the change, since the roll-back tests get a fresh share of the allowance.
pub fn rearm(evidence: &mut Evidence, shares: usize) {
    #[allow(clippy::cast_precision_loss)]
    let share = (RENEWED / (shares.max(1) as f64)).min(RENEWED - evidence.renewed);
    if share <= 0.0 {
        return begin_step(evidence);
    }
    evidence.renewed += share;
    begin_step(evidence);
    for check in &mut evidence.checks {
        check.rollback.rearm(share);
        for ceiling in [&mut check.ceiling, &mut check.stable_ceiling]
            .into_iter()
            .flatten()
        {
            ceiling.rearm(share);
        }
    }
}

fn begin_step(evidence: &mut Evidence) {
    for check in &mut evidence.checks {
        check.step_requests = 0.0;
        check.step_windows = 0;
    }
}

/// Whether every check that decides has counted until a moment.
#[must_use]
pub fn has_counted_until(change: &Change, until: Timestamp) -> bool {
    let oldest = until.saturating_sub(change.interval.signed());
    let oldest = oldest.unwrap_or(Timestamp::MIN);
    let mut deciding =
        checks::active(change).filter(|(_, check)| check.mode == CheckMode::Required);
    deciding.all(|(name, _)| {
        evidence_of(change, name).is_some_and(|it| {
            let end = it.last_window_end.as_ref();
            it.last == "Counted" && end.is_some_and(|end| end.0 >= oldest)
        })
    })
}

/// Judges the evidence of a change as it was gathered.
///
/// Fresh evidence is one that reaches to within three intervals and the lag of `now`: without it
/// nothing passes, whatever was seen before.
#[must_use]
pub fn judge(change: &Change, checks: &Checks, now: Timestamp, lag: Duration) -> Verdict {
    let decides = |name: &str| {
        let check = checks.checks.get(name);
        check.filter(|check| check.mode == CheckMode::Required)
    };
    let evidence: Vec<_> = change
        .evidence
        .checks
        .iter()
        .filter_map(|it| Some((decides(&it.name)?, it)))
        .collect();
    if let Some(message) = failure(&evidence, change) {
        return Verdict::Fail { message };
    }
    let active: Vec<_> = evidence
        .into_iter()
        .filter(|(check, _)| checks::is_active(check, &change.plan, change.weight))
        .collect();
    // A number within bounds says nothing of requests; only the lowest tier goes on by that alone.
    let counts = active.iter().any(|(check, _)| check.metric.is_none());
    if active.is_empty() || (!counts && change.tier > Tier::Low) {
        return Verdict::NoChecks;
    }
    let oldest = oldest_fresh(change.interval, now, lag);
    let findings: Vec<_> = active
        .iter()
        .map(|(check, it)| (*it, fresh(find(check, it, change), it, oldest)))
        .collect();
    for (check, finding) in &findings {
        let (reason, message) = match finding {
            Finding::NoData { reason, message } => (reason.as_str(), message),
            // One check alone is not enough to roll back, but surely enough to wait.
            Finding::Fails => (crate::reason::CHECK_FAILING, &check.summary.sentence),
            Finding::Scarce(_) | Finding::Passes => continue,
        };
        return Verdict::NoData {
            reason: reason.to_owned(),
            message: format!("check {}: {message}", check.name),
        };
    }
    let scarce: Vec<_> = findings
        .iter()
        .filter_map(|(check, finding)| match finding {
            Finding::Scarce(message) => Some(format!("check {}: {message}", check.name)),
            _ => None,
        })
        .collect();
    if scarce.is_empty() {
        let message = summary::line(&change.evidence);
        return Verdict::Pass { message };
    }
    Verdict::Scarce {
        message: scarce.join("; "),
    }
}

/// End of the oldest window on which a decision may still be made.
fn oldest_fresh(interval: Duration, now: Timestamp, lag: Duration) -> Timestamp {
    let intervals = interval.signed().saturating_mul(3);
    let patience = lag.signed().saturating_add(intervals);
    now.saturating_sub(patience).unwrap_or(Timestamp::MIN)
}

/// What one check says by itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// It would roll the canary back if it stood alone.
    Fails,
    /// Nothing can be said.
    NoData {
        /// Why, in one word.
        reason: String,
        /// Why, in a sentence.
        message: String,
    },
    /// Clean so far, but too little; with what is still needed.
    Scarce(String),
    /// It passes.
    Passes,
}

impl Finding {
    /// The word for it.
    #[must_use]
    pub fn verdict(&self) -> CheckVerdict {
        match self {
            Self::Fails => CheckVerdict::Failing,
            Self::NoData { reason, .. } if reason == "Waiting" => CheckVerdict::Waiting,
            Self::NoData { .. } => CheckVerdict::NoData,
            Self::Scarce(_) => CheckVerdict::Scarce,
            Self::Passes => CheckVerdict::Passing,
        }
    }
}

fn find(check: &Check, evidence: &CheckEvidence, change: &Change) -> Finding {
    let no_data = |reason: &str, message: String| Finding::NoData {
        reason: reason.to_owned(),
        message,
    };
    if fails_alone(check, evidence, change) {
        return Finding::Fails;
    }
    if evidence.last != "Counted" {
        return no_data(&evidence.last, evidence.message.clone());
    }
    if let Some(metric) = &check.metric {
        if evidence.outside > 0 {
            return no_data(
                crate::reason::OUT_OF_BOUNDS,
                summary::bounds(metric, evidence),
            );
        }
        return match evidence.step_windows {
            0 => Finding::Scarce("no window of this step has been measured yet".into()),
            _ => Finding::Passes,
        };
    }
    if stable_above_ceiling(evidence, change) && above_ceiling(evidence, change) {
        let message = "stable breaks the ceiling too, so the canary is not to blame";
        return no_data(crate::reason::STABLE_ABOVE_CEILING, message.into());
    }
    let least = least_requests(change);
    let passes = evidence.promote.ln_value() >= promote_at(&change.plan.strictness);
    if passes && evidence.step_requests >= least {
        Finding::Passes
    } else {
        Finding::Scarce(summary::still_needed(evidence, change))
    }
}

/// Old evidence says nothing of now.
fn fresh(finding: Finding, evidence: &CheckEvidence, oldest: Timestamp) -> Finding {
    let end = evidence.last_window_end.as_ref();
    let is_fresh = evidence.last != "Counted" || end.is_some_and(|end| end.0 >= oldest);
    if is_fresh {
        return finding;
    }
    Finding::NoData {
        reason: crate::reason::EVIDENCE_OUTDATED.into(),
        message: "no window was answered lately".into(),
    }
}

fn fails_alone(check: &Check, evidence: &CheckEvidence, change: &Change) -> bool {
    match &check.metric {
        Some(_) => metric_fails(check, evidence),
        None => tests(evidence, change)
            .iter()
            .any(|(_, value)| *value >= rollback_at(&change.plan.strictness)),
    }
}

fn metric_fails(check: &Check, evidence: &CheckEvidence) -> bool {
    let metric = check.metric.as_ref();
    metric.is_some_and(|metric| evidence.outside >= metric.failures)
}

/// A metric that is out of bounds for too long, or the mean of the tests' e-values at its bound: that
/// is valid whatever their dependence, and never later than any single one of `m` that reaches
/// `m` times that.
fn failure(evidence: &[(&Check, &CheckEvidence)], change: &Change) -> Option<String> {
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
    if statistics::ln_mean(&values) < rollback_at(&change.plan.strictness) {
        return None;
    }
    let (check, (what, value)) = tests.into_iter().max_by(|a, b| a.1.1.total_cmp(&b.1.1))?;
    Some(format!(
        "check {}: {}",
        check.name,
        summary::failed(check, what, value, change)
    ))
}

/// What a roll-back test finds wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The canary is worse than tolerated beside stable.
    Worse,
    /// The canary is above the ceiling.
    AboveCeiling,
}

/// The roll-back tests of one check, with their ln E. A ceiling that stable breaks as well says nothing
/// of the canary.
fn tests(evidence: &CheckEvidence, change: &Change) -> Vec<(Wrong, f64)> {
    let mut tests = vec![(Wrong::Worse, evidence.rollback.ln_value())];
    if let Some(ceiling) = &evidence.ceiling {
        // It stays one of the tests, so that the others weigh no more without it.
        let blameless = stable_above_ceiling(evidence, change);
        let value = ceiling.ln_value();
        tests.push((
            Wrong::AboveCeiling,
            if blameless { value.min(0.0) } else { value },
        ));
    }
    tests
}

fn stable_above_ceiling(evidence: &CheckEvidence, change: &Change) -> bool {
    let value = evidence
        .stable_ceiling
        .as_ref()
        .map_or(0.0, EProcess::ln_value);
    value >= -change.plan.strictness.max_false_rollback.ln()
}

fn above_ceiling(evidence: &CheckEvidence, change: &Change) -> bool {
    let value = evidence.ceiling.as_ref().map(EProcess::ln_value);
    value.is_some_and(|value| value >= rollback_at(&change.plan.strictness))
}

#[cfg(test)]
mod tests {
    use countersign_api::evidence::{Counts, EProcess};

    use super::*;

    /// A check whose roll-back test stands at this e-value, and which would pass otherwise.
    fn evidence(name: &str, e: f64, now: Timestamp) -> CheckEvidence {
        let counts = Counts {
            requests: 5_000.0,
            errors: 0.0,
        };
        CheckEvidence {
            name: name.into(),
            canary: counts,
            stable: counts,
            step_requests: 5_000.0,
            rollback: EProcess {
                ln_e: vec![e.ln(); 8],
            },
            promote: EProcess { ln_e: vec![9.0; 7] },
            last: "Counted".into(),
            last_window_end: Some(Time(now)),
            ..CheckEvidence::default()
        }
    }

    #[test]
    fn one_check_that_fails_alone_holds_and_all_together_roll_back() {
        let now = Timestamp::UNIX_EPOCH;
        let judged = |e: [f64; 3]| {
            let names = ["a", "b", "c"];
            let check = |name: &str| (name.to_owned(), Check::default());
            let checks = Checks {
                checks: names.into_iter().map(check).collect(),
                ..Checks::default()
            };
            let mut change = Change {
                weight: 5,
                ..Change::default()
            };
            change.plan.strictness.max_false_rollback = 0.05;
            change.plan.strictness.max_false_promotion = 0.05;
            let values = names.into_iter().zip(e);
            change.evidence.checks = values.map(|(name, e)| evidence(name, e, now)).collect();
            judge(&change, &checks, now, Duration::default())
        };
        // Rolled back from 1.5 / 0.05 = 30 on.
        assert!(matches!(judged([0.1, 1.0, 29.0]), Verdict::Pass { .. }));
        let Verdict::NoData { reason, message } = judged([0.1, 0.1, 60.0]) else {
            panic!("{:?}", judged([0.1, 0.1, 60.0]));
        };
        assert_eq!(reason, crate::reason::CHECK_FAILING);
        assert!(message.starts_with("check c"), "{message}");
        assert!(matches!(judged([0.1, 0.1, 95.0]), Verdict::Fail { .. }));
    }
}
