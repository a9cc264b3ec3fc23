//! Transitions and their records.

use countersign_api::Duration;
use countersign_api::rollout::{Change, Outcome, Stage, Transition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;

use crate::analysis::verdict::Verdict;
use crate::analysis::{gather, summary};
use crate::limits::{
    BREAK_GLASS_LINES, LAST_LINES, LINE_MESSAGE, MAX_EVIDENCE, MAX_PAUSES, MAX_PEOPLE,
    MAX_TRANSITIONS,
};
use crate::reason::{Line, Reason};
use crate::replicas::present;
use crate::rollout::context::Context;
use crate::rollout::requeue::Requeue;
use crate::text;
use crate::traffic::share;

pub(super) fn enter(context: &Context, change: &mut Change, stage: Stage, weight: i32) {
    let now = Time(context.observation.now);
    let (before, checks) = (change.weight, &context.proposal.checks);
    if change.evidence.from.is_none() {
        change.evidence.from = Some(now.clone());
        change.interval = checks.interval;
        change.warm_up = checks.warm_up;
        change.post_promotion = checks.post_promotion;
        change.checks.clone_from(&checks.checks);
        change.objectives.clone_from(&checks.objectives);
        for budget in &mut change.evidence.objectives {
            budget.burnt_before = budget.burning;
        }
    } else {
        let shares = shares(change);
        gather::rearm(&mut change.evidence, shares);
    }
    gather::begin(change, before, weight, &now);
    change.stage = stage;
    change.weight = weight;
    change.step_started_at = Some(now.clone());
    change.progressed_at = Some(now);
    change.progress =
        present::reached(context.observation, Some(&change.pod_template_hash), before);
    (change.available_at, change.lost, change.warm_from) = (None, None, None);
    change.evidence_since = None;
    change.awaited_gates.clear();
}

pub(super) fn roll_back(
    context: &Context,
    change: &mut Change,
    requeue: &mut Requeue,
    why: Reason,
    message: String,
) {
    end(context, change, Outcome::RolledBack, why, message);
    requeue.after(SignedDuration::ZERO);
}

pub(super) fn end(
    context: &Context,
    change: &mut Change,
    outcome: Outcome,
    why: Reason,
    message: String,
) {
    let observation = context.observation;
    let stable = observation.status.stable.as_ref();
    let stable = stable.map(|it| it.pod_template_hash.as_str());
    let returned = present::reached(observation, stable, 0);
    // If stable gave up capacity or lost all pods, the canary's pods serve until stable's are available.
    let lost = stable.is_some()
        && returned.available == 0
        && present::available(observation, Some(&change.pod_template_hash)) > 0;
    let grows = lost || share::pods_follow(context.before.fleet.limits);
    change.outcome = Some(outcome);
    (change.stage, change.weight) = match outcome {
        Outcome::Promoted => (Stage::Promoted, 100),
        Outcome::Superseded if !grows => (Stage::RolledBack, 0),
        Outcome::Superseded | Outcome::RolledBack | Outcome::Reverted => (Stage::RollingBack, 0),
    };
    change.progressed_at = Some(Time(observation.now));
    change.progress = returned;
    record(context, change, why, message);
}

/// Records a transition of the change.
// The message is made for this call alone.
#[allow(clippy::needless_pass_by_value)]
pub(super) fn record(context: &Context, change: &mut Change, why: Reason, message: String) {
    if !has_room(change, why) {
        return;
    }
    // A pause does not show the evidence: anybody may pause any number of times.
    let shown = why.class().line != Line::Pause
        && (change.transitions.len() < MAX_EVIDENCE || change.outcome.is_some());
    let evidence = shown.then(|| summary::worst(&change.evidence));
    change.transitions.push(Transition {
        at: Some(Time(context.observation.now)),
        step: change.step,
        weight: change.weight,
        reason: why.into(),
        message: text::sanitize_to(&message, LINE_MESSAGE),
        evidence: evidence.unwrap_or_default(),
    });
}

/// Whether there is room for a transition. Room for steps and ends is reserved.
fn has_room(change: &Change, why: Reason) -> bool {
    let kind = |line: &Transition| Reason::parse(&line.reason).map(|it| it.class().line);
    let lines = |kinds: &[Line]| {
        let lines = change.transitions.iter();
        lines
            .filter(|line| kind(line).is_some_and(|kind| kinds.contains(&kind)))
            .count()
    };
    let by_people = || lines(&[Line::Pause, Line::People]) < MAX_PEOPLE;
    let step = usize::try_from(change.step).unwrap_or(0);
    let to_come = change.plan.steps.len().saturating_sub(step) + LAST_LINES;
    let most = MAX_TRANSITIONS.saturating_sub(to_come);
    let total = change.transitions.len();
    let has_spare = total + BREAK_GLASS_LINES < most;
    match why.class().line {
        Line::Start | Line::Step => true,
        Line::BreakGlass => total < most,
        Line::Pause => has_spare && lines(&[Line::Pause]) < MAX_PAUSES && by_people(),
        Line::People => has_spare && by_people(),
        Line::Advisory => has_spare,
        Line::Other => change.outcome.is_some() || has_spare,
    }
}

/// How often the allowance is renewed: per step, for the promotion, and for the watch after it.
pub(super) fn shares(change: &Change) -> usize {
    let watched = change.post_promotion > Duration::default();
    change.plan.steps.len() + usize::from(watched)
}

pub(super) fn verdict_line(verdict: &Verdict) -> String {
    match verdict {
        Verdict::NoChecks => "no checks apply".into(),
        Verdict::Fail { message }
        | Verdict::NoData { message, .. }
        | Verdict::Scarce { message }
        | Verdict::Pass { message } => message.clone(),
    }
}
