//! From windows to evidence.

use std::collections::BTreeMap;

use countersign_api::counts::{Counts, EProcess};
use countersign_api::rollout::{Change, CheckEvidence, Dispersion, Evidence, Stage, WindowState};
use countersign_api::{Check, Duration, Metric};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::analysis::checks::{self, Checks};
use crate::analysis::statistics::{self, EProcessExt, Test};
use crate::analysis::thresholds::{self, RENEWED};
use crate::analysis::{above_weight, check_verdict, gates, numbers, query, summary};
use crate::observation::windows::{CheckWindows, WindowOutcome};

/// How far above its bound the evidence that stable breaks a ceiling is kept, in nats: the first windows after an outage
/// take it below.
const ABOVE_BOUND: f64 = 1.0;
/// Most values of a metric that are kept for display.
const RECENT: usize = 30;
/// Most windows whose counts are kept of each check for display: up to 2 KiB.
const WINDOWS: usize = 60;
/// Most windows whose counts are kept of all checks together: up to 40 KiB.
const ALL_WINDOWS: usize = 20 * WINDOWS;

/// The evidence of one check in a change, if it has any.
#[must_use]
pub fn evidence_of<'a>(change: &'a Change, name: &str) -> Option<&'a CheckEvidence> {
    change.evidence.checks.iter().find(|it| it.name == name)
}

/// When a check begins to count, and until when it has counted.
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
    let most_checks = checks.checks.len().max(1);
    let checks = checks.checks.iter().map(|(name, check)| {
        let mut evidence = evidence_of(change, name)
            .cloned()
            .unwrap_or_else(|| CheckEvidence {
                name: name.clone(),
                last: WindowState::Waiting,
                message: "no window has ended yet".into(),
                ..CheckEvidence::default()
            });
        fold(
            &mut evidence,
            check,
            windows.get(name).unwrap_or(&none),
            change,
        );
        bound(
            &mut evidence.windows,
            (ALL_WINDOWS / most_checks).min(WINDOWS),
        );
        let finding = check_verdict::find(check, &evidence, change);
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
    if evidence.dispersion.is_none() {
        let declared = check.dispersion.map(|value| Dispersion {
            value,
            ..Dispersion::default()
        });
        let history = windows.history.as_deref();
        evidence.dispersion = declared.or_else(|| history.map(statistics::dispersion));
    }
    gates::align(&mut evidence.gates, &change.plan, &change.plan.strictness);
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
                    if change.stage == Stage::Stepping && change.weight > 0 {
                        let run = &mut evidence.above_weight;
                        above_weight::note(run, *canary, *stable, change.weight);
                    }
                }
                evidence.last = WindowState::Counted;
                evidence.message = format!(
                    "canary {} of {} requests failed, stable {} of {}",
                    canary.errors, canary.requests, stable.errors, stable.requests
                );
            }
            WindowOutcome::Measured { value } if !warms_up => {
                measure(evidence, check, *value);
                evidence.step_windows += i32::from(is_of_step(change, window.start));
                evidence.last = WindowState::Counted;
                evidence.message = format!("the metric is {value}");
                let metric = check.metric.as_ref();
                if metric.is_some_and(|it| evidence.outside == it.failures) {
                    evidence.last_window_end = Some(Time(window.end));
                    return; // it is judged before a later window of the same read makes up for it
                }
            }
            WindowOutcome::Counted { .. } | WindowOutcome::Measured { .. } => {
                evidence.last = WindowState::WarmingUp;
                evidence.message = "the new pods warm up".into();
            }
            WindowOutcome::Uncounted { reason, message } => {
                evidence.last = (*reason).into();
                evidence.message.clone_from(message);
            }
            WindowOutcome::Unanswered { reason, message } => {
                evidence.last = (*reason).into();
                evidence.message.clone_from(message);
                return; // the query is repeated, so no later window is counted yet
            }
        }
        evidence.last_window_end = Some(Time(window.end));
    }
}

fn is_of_step(change: &Change, start: Timestamp) -> bool {
    let since = change.step_started_at.as_ref();
    since.is_none_or(|since| start >= since.0)
}

/// Whether the pods of the present step were new when a window began. If a Service distinguishes the
/// revisions, the pods are new until they are available, as stable pods may stand in for them.
fn warms_up(change: &Change, check: &Check, start: Timestamp) -> bool {
    let matters = change.warm_up > Duration::default() || query::is_split_by_service(check);
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
    let known = thresholds::dispersion(evidence);
    let assumed = thresholds::rollback_dispersion(check, evidence.dispersion, change.tier);
    let observe = |process: &mut EProcess, test, canary| {
        process.observe(test, canary, stable, assumed);
    };
    observe(
        &mut evidence.rollback,
        Test::RollBack(thresholds::tolerated(strictness)),
        canary,
    );
    if !warms_up {
        for gate in &mut evidence.gates {
            let test = Test::Promote(gates::tolerance(strictness, gate.share));
            gate.promote.observe(test, canary, stable, known);
        }
    }
    if let Some(ceiling) = thresholds::ceiling(check) {
        let test = Test::Ceiling(ceiling);
        observe(evidence.ceiling.get_or_insert_default(), test, canary);
        let of_stable = &mut evidence.stable_ceiling;
        let was_above = check_verdict::stable_above_ceiling(of_stable.as_ref(), strictness);
        observe(of_stable.get_or_insert_default(), test, stable);
        // Otherwise an outage of a minute would hold the change for half an hour.
        let bound = check_verdict::stable_ceiling_at(strictness);
        of_stable.get_or_insert_default().cap(bound + ABOVE_BOUND);
        let is_above = check_verdict::stable_above_ceiling(of_stable.as_ref(), strictness);
        // The errors of an outage of both sides are not held against the canary once it is over.
        if let (true, false, Some(ceiling)) = (was_above, is_above, &mut evidence.ceiling) {
            ceiling.forgive();
        }
    }
    for (sum, window) in [
        (&mut evidence.canary, canary),
        (&mut evidence.stable, stable),
    ] {
        sum.requests += window.requests;
        sum.errors += window.errors;
    }
    let window = [
        canary.requests,
        canary.errors,
        stable.requests,
        stable.errors,
    ];
    evidence.windows.push(window.map(numbers::significant));
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
    // Four digits suffice for a chart.
    evidence.recent.push(numbers::significant(value));
    bound(&mut evidence.recent, RECENT);
}

/// Whether a number is out of a metric's bounds.
fn is_outside(metric: &Metric, value: f64) -> bool {
    metric.min.is_some_and(|min| value < min) || metric.max.is_some_and(|max| value > max)
}

/// Drops the oldest entries beyond the most that are kept.
fn bound<T>(list: &mut Vec<T>, most: usize) {
    let surplus = list.len().saturating_sub(most);
    list.drain(..surplus);
}

/// Starts checks that run at this weight and did not at the previous one.
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

/// Starts the watch after a promotion, in which the new revision is judged alone. Windows that began before are not: the
/// Service of the stable side sent to the previous revision, and what failed on both sides was nobody's fault.
pub fn begin_watch(change: &mut Change, now: &Time) {
    for known in &mut change.evidence.checks {
        let of_stable = known.stable_ceiling.take();
        if let Some(ceiling) = &mut known.ceiling
            && check_verdict::stable_above_ceiling(of_stable.as_ref(), &change.plan.strictness)
        {
            ceiling.forgive();
        }
        known.from = Some(now.clone());
    }
}

/// Starts a step: requests are counted from 0, and a regression that begins now is detected as soon as one
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
        check.above_weight = None;
    }
}
