//! Sign-offs and interventions of people.

use std::collections::BTreeSet;

use countersign_api::intervention::InterventionAction;
use countersign_api::rollout::{Change, Outcome, Stage};
use countersign_api::sign_off::SignOffDecision;
use k8s_openapi::jiff::SignedDuration;

use crate::change;
use crate::limits::{MAX_HANDLED, MAX_PAUSES_EACH, MAX_WITH_BREAK_GLASS};
use crate::observation::Observation;
use crate::observation::people::ObservedIntervention;
use crate::people::intervention;
use crate::people::sign_off::{self, SignOffs};
use crate::reason::Reason;
use crate::rollout::context::Context;
use crate::rollout::requeue::Requeue;
use crate::rollout::transition;
use crate::workload::smoke;

/// Each intervention is applied once, in order of creation; an abort comes before all others.
pub(super) fn apply_interventions(context: &Context, change: &mut Change, requeue: &mut Requeue) {
    let pending = intervention::pending(context.observation, change);
    let abort = |it: &&&ObservedIntervention| it.spec.action == InterventionAction::Abort;
    if let Some(abort) = pending.iter().find(abort).filter(|_| !change.initial) {
        change.handled_requests.insert(abort.uid.clone());
        let message = format!("aborted by {}", intervention::describe(abort));
        transition::roll_back(context, change, requeue, Reason::Aborted, message);
        return;
    }
    for it in pending {
        let followed = follow(context, change, it);
        remember(context.observation, change, it, followed);
    }
}

/// Answered interventions are forgotten. Those that do not fit are applied again by the next reconcile, to
/// the same end: the last command counts.
fn remember(
    observation: &Observation,
    change: &mut Change,
    it: &ObservedIntervention,
    followed: bool,
) {
    let uids = if followed {
        &mut change.handled_requests
    } else {
        &mut change.ignored_requests
    };
    make_room(observation, uids);
    if uids.len() < MAX_HANDLED {
        uids.insert(it.uid.clone());
    }
}

/// Forgets answered interventions if there is no room: they are not applied again.
fn make_room(observation: &Observation, uids: &mut BTreeSet<String>) {
    let people = &observation.people;
    if uids.len() < MAX_HANDLED || !people.unreadable_requests.is_empty() {
        return;
    }
    for it in people.interventions.iter().filter(|it| it.answered) {
        uids.remove(&it.uid);
    }
}

/// Applies one command; `false` if it changes nothing.
fn follow(context: &Context, change: &mut Change, it: &ObservedIntervention) -> bool {
    let words = intervention::describe(it);
    let (why, message) = match it.spec.action {
        InterventionAction::Pause if change.paused_by.is_none() => {
            change.paused_by = Some(it.spec.person.username.clone());
            (Reason::PausedByPerson, format!("paused by {words}"))
        }
        InterventionAction::Resume if change.paused_by.is_some() => {
            change.paused_by = None;
            (Reason::Resumed, format!("resumed by {words}"))
        }
        InterventionAction::Promote
            if bakes(context.observation, change) && it.spec.step == Some(change.step) =>
        {
            change.bake_skipped = Some(change.step);
            let message = format!("the rest of the bake is skipped by {words}");
            (Reason::BakeSkipped, message)
        }
        _ => return false,
    };
    if pauses_by(change, &it.spec.person.username) < MAX_PAUSES_EACH || why == Reason::BakeSkipped {
        transition::record(context, change, why, message);
    }
    true
}

/// How many transitions are about pauses of one person.
fn pauses_by(change: &Change, user: &str) -> usize {
    let is_by = |message: &str| {
        let begins = ["paused by ", "resumed by "].into_iter();
        let mut rest = begins.filter_map(|begin| message.strip_prefix(begin)?.strip_prefix(user));
        rest.any(|rest| rest.is_empty() || rest.starts_with(": "))
    };
    let lines = change.transitions.iter();
    let pauses = lines
        .filter(|line| line.reason == Reason::PausedByPerson || line.reason == Reason::Resumed);
    pauses.filter(|line| is_by(&line.message)).count()
}

fn bakes(observation: &Observation, change: &Change) -> bool {
    let stepping = change.stage == Stage::Stepping && change.bake_skipped != Some(change.step);
    stepping && change::bake_ends(change).is_none_or(|end| end > observation.now)
}

/// Records each valid sign-off once, with the evidence that the person could see.
pub(super) fn record_sign_offs(context: &Context, change: &mut Change, sign_offs: &SignOffs) {
    for it in sign_offs.all().filter(|it| it.refused.is_none()) {
        let it = it.sign_off;
        let breaks_glass = it.spec.decision == SignOffDecision::BreakGlass;
        make_room(context.observation, &mut change.handled_requests);
        let full = change.handled_requests.len() >= MAX_HANDLED && !breaks_glass;
        if full
            || change.handled_requests.len() >= MAX_WITH_BREAK_GLASS
            || !change.handled_requests.insert(it.uid.clone())
        {
            continue;
        }
        let by =
            intervention::author_and_reason(&it.spec.approver.username, it.spec.reason.as_deref());
        let gate = it.spec.gate.as_deref().unwrap_or("all gates");
        let (why, message) = match it.spec.decision {
            SignOffDecision::Approve => (Reason::SignedOff, format!("{gate} signed off by {by}")),
            SignOffDecision::BreakGlass => {
                let message = format!("waiting and sign-off are skipped, analysis is not, by {by}");
                (Reason::BreakGlass, message)
            }
            SignOffDecision::Reject if sign_off::awaits_first(change) => {
                (Reason::Rejected, format!("rejected by {by}"))
            }
            SignOffDecision::Reject => continue, // recorded by the rollback
        };
        transition::record(context, change, why, message);
    }
}

/// Records a successful smoke check once; the check is then no longer required.
pub(super) fn record_smoke_result(context: &Context, change: &mut Change) {
    if let Some(message) = smoke::success(context.observation, change) {
        change.smoke.get_or_insert_default().passed = true;
        transition::record(context, change, Reason::SmokePassed, message);
    }
}

/// Whether a person requested a retry of a rolled-back change. The request is first recorded in this
/// attempt; the next reconcile begins the new attempt.
pub(super) fn is_retried(context: &Context, change: &mut Change, requeue: &mut Requeue) -> bool {
    if is_to_be_retried(change) {
        return true;
    }
    let pending = intervention::pending(context.observation, change);
    let mut retries = pending
        .into_iter()
        .filter(|it| it.spec.action == InterventionAction::Retry);
    if let Some(retry) = retries.next() {
        change.handled_requests.insert(retry.uid.clone());
        let message = format!("retried by {}", intervention::describe(retry));
        transition::record(context, change, Reason::Retried, message);
        requeue.after(SignedDuration::ZERO);
    }
    false
}

/// A change that has ended can only be retried.
pub(super) fn ignore_interventions(observation: &Observation, change: &mut Change) {
    for it in intervention::pending(observation, change) {
        if it.spec.action != InterventionAction::Retry
            || change.outcome != Some(Outcome::RolledBack)
        {
            remember(observation, change, it, false);
        }
    }
}

pub(super) fn is_to_be_retried(change: &Change) -> bool {
    let last = change.transitions.last();
    last.is_some_and(|line| line.reason == Reason::Retried)
}
