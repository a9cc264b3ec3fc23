//! Closed gates and their deadlines.

use countersign_api::policy::OnScarceEvidence;
use countersign_api::rollout::{Change, RolloutStatus, Stage, WaitingKind};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::change;
use crate::hold::{Hold, HoldKind};
use crate::intervals::POLL_INTERVAL;
use crate::observation::Observation;
use crate::people::sign_off;
use crate::queue::concurrency;
use crate::reason::{Poll, Reason, Wait};
use crate::rollout::context::{Context, FIRST_PODS, Progress, TRAFFIC};
use crate::rollout::requeue::Requeue;
use crate::rollout::{deadlines, transition};
use crate::workload::smoke;

/// Handles a closed gate, depending on what the change waits for and for how long.
pub(super) fn wait(
    context: &Context,
    status: &mut RolloutStatus,
    change: &mut Change,
    hold: Hold,
    requeue: &mut Requeue,
) -> Progress {
    start_clock(context.observation, change, hold.kind);
    let progress = match hold.kind {
        HoldKind::Requested => {
            change.awaited_gates.clear(); // people have their whole deadline afterwards
            let effective = &context.proposal.effective;
            let delay = concurrency::requeue_after(context.observation, change, effective, &hold);
            if let Some(delay) = delay {
                requeue.after(delay);
            }
            Progress::Held(hold)
        }
        HoldKind::Time(until) => {
            requeue.at(until);
            Progress::Held(hold)
        }
        // Nothing serves, so there is nothing to roll back to.
        HoldKind::People if change.initial => Progress::Held(hold),
        HoldKind::People => {
            let (gate, _) = sign_off::next_gate(change);
            await_people(context, change, gate, hold, requeue)
        }
        HoldKind::Doubt => doubt(context, change, hold, requeue),
        HoldKind::Scarce => scarce(context, change, hold, requeue),
    };
    if let Progress::Held(hold) = &progress {
        status.waiting_kind = Some(hold.kind.remembered());
    }
    progress
}

/// A deadline runs only while the change is held by that kind of hold: it starts if the previous hold had
/// another deadline, or none.
fn start_clock(observation: &Observation, change: &mut Change, kind: HoldKind) {
    let before = &observation.status;
    // Older builds did not store the kind.
    let unknown = before.waiting_for.as_ref().map(|_| WaitingKind::Requested);
    // A person is asked about scarce evidence because its own deadline has passed.
    let scarce_still =
        change::waits_for(before, Reason::AwaitingPerson).then_some(WaitingKind::Scarce);
    let Some(before) = scarce_still.or(before.waiting_kind).or(unknown) else {
        return;
    };
    let now = Some(Time(observation.now));
    let stood_still = matches!(before, WaitingKind::Requested | WaitingKind::People);
    let (doubt, scarce) = (kind == HoldKind::Doubt, kind == HoldKind::Scarce);
    // Evidence may be found scarce only once the pods of the step are available again.
    if stood_still && (doubt || scarce) {
        change.evidence_since.clone_from(&now);
    }
    if doubt && (stood_still || before == WaitingKind::Scarce) {
        change.progressed_at = now;
    }
}

/// Each gate has its own deadline, which keeps running during a short hold of another kind.
fn await_people(
    context: &Context,
    change: &mut Change,
    gate: String,
    hold: Hold,
    requeue: &mut Requeue,
) -> Progress {
    let now = context.observation.now;
    let since = change.awaited_gates.entry(gate).or_insert(Time(now)).0;
    let deadline = change.plan.strictness.wait_at_most;
    let until = since.saturating_add(deadline.signed());
    let until = until.unwrap_or(Timestamp::MAX);
    if now >= until {
        let message = format!("not signed off within {deadline}: {}", hold.message);
        transition::roll_back(context, change, requeue, Reason::WaitExpired, message);
        return Progress::RolledBack;
    }
    requeue.at(until);
    Progress::Held(hold)
}

/// Missing evidence never promotes: the change is rolled back at the deadline, except a first revision.
fn doubt(context: &Context, change: &mut Change, hold: Hold, requeue: &mut Requeue) -> Progress {
    let observation = context.observation;
    let class = hold.reason.class();
    match class.poll {
        Poll::Event => {}
        Poll::Soon if class.wait == Wait::Pods && change.initial => requeue.after(FIRST_PODS),
        Poll::Traffic if requeue.progressed_lately(change) => requeue.after(TRAFFIC),
        Poll::Soon | Poll::Traffic => requeue.after(POLL_INTERVAL),
    }
    let deadline = match change.stage {
        Stage::Waiting => {
            smoke::deadline(observation, change).filter(|_| class.wait == Wait::Smoke)
        }
        _ => Some(deadlines::progress_deadline(observation, change)),
    };
    let Some(deadline) = deadline else {
        return Progress::Held(hold);
    };
    if observation.now < deadline {
        requeue.at(deadline);
        return Progress::Held(hold);
    }
    if change.initial {
        return Progress::Held(hold); // no other revision serves, so there is nothing to roll back to
    }
    let seconds = observation.spec.progress_deadline_seconds;
    let message = format!(
        "no progress for {seconds} s: {}: {}",
        hold.reason, hold.message
    );
    let why = Reason::ProgressDeadlineExceeded;
    transition::roll_back(context, change, requeue, why, message);
    Progress::RolledBack
}

/// The evidence is clean but scarce; the tier decides at the deadline.
fn scarce(context: &Context, change: &mut Change, hold: Hold, requeue: &mut Requeue) -> Progress {
    let observation = context.observation;
    let deadline = deadlines::evidence_deadline(observation, change);
    if observation.now < deadline {
        requeue.at(deadline);
        return Progress::Held(hold);
    }
    match change.plan.strictness.on_scarce_evidence {
        OnScarceEvidence::RollBack => {
            let message = format!("too little evidence: {}", hold.message);
            let why = Reason::ProgressDeadlineExceeded;
            transition::roll_back(context, change, requeue, why, message);
            Progress::RolledBack
        }
        OnScarceEvidence::Promote | OnScarceEvidence::Hold => {
            let gate = sign_off::evidence_gate(change.step);
            // No policy names who answers, so the message has the role and the command.
            let message = format!(
                "gate {gate} requires more traffic, or 1 person with the role countersign-approver who accepts it by `kubectl countersign approve {} --gate {gate}`: {}",
                observation.name, hold.message
            );
            let hold = Hold {
                kind: HoldKind::People,
                reason: Reason::AwaitingPerson,
                message,
            };
            await_people(context, change, gate, hold, requeue)
        }
    }
}
