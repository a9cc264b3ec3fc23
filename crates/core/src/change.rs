//! Queries about a change: its revision, its step, its bake, its deadline.

use countersign_api::rollout::{
    Adopted, Change, Outcome, Revision, RolloutStatus, Stage, Transition,
};
use countersign_api::{Duration, Step};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::observation::Observation;
use crate::reason::Reason;

/// The revision that a change is, once it is stable.
#[must_use]
pub fn revision(change: &Change) -> Revision {
    Revision {
        pod_template_hash: change.pod_template_hash.clone(),
        template_digest: change.template_digest.clone(),
        stored_template_digest: change.stored_template_digest.clone(),
        digest: change.digest.clone(),
        provenance_digest: change.provenance_digest.clone(),
        source_revision: change.source_revision.clone(),
        revision: change.revision,
        run: Some(change.run.clone()),
    }
}

/// Whether named Services are left unchanged, since the workload's pods are to be reached again.
#[must_use]
pub fn releases_services(observation: &Observation, adopted: Option<&Adopted>) -> bool {
    observation.deleting && adopted.is_some_and(|adopted| adopted.given_back_at.is_some())
}

/// Whether a change was promoted and is still watched.
#[must_use]
pub fn is_watched(change: &Change) -> bool {
    change.outcome == Some(Outcome::Promoted) && change.watched_until.is_some()
}

/// Whether a first revision may have pods. Whether it has some is no answer: others may scale its ReplicaSet.
#[must_use]
pub const fn has_begun(change: &Change) -> bool {
    change.begun || change.served
}

/// When the present step's bake is over; `None` if the step does not bake.
#[must_use]
pub fn bake_ends(change: &Change) -> Option<Timestamp> {
    if change.stage != Stage::Stepping || change.bake_skipped == Some(change.step) {
        return None;
    }
    let since = change.available_at.as_ref()?.0;
    let bake = present_step(change).map_or(Duration::default(), |step| step.bake);
    since.saturating_add(bake.signed()).ok()
}

/// Whether the present step needs evidence. A step of weight 0 needs it if it demands requests, which then
/// come from testers or mirroring, and if the promotion follows it, unless the policy waives that.
#[must_use]
pub fn wants_evidence(change: &Change) -> bool {
    let step = present_step(change);
    step.is_none_or(|step| step.weight > 0 || step.min_requests > 0 || switches(change))
}

/// Whether the promotion follows a step of weight 0, and the policy does not waive its evidence.
#[must_use]
pub fn switches(change: &Change) -> bool {
    change.stage == Stage::Stepping
        && present_step(change).is_some_and(|step| step.weight == 0)
        && usize::try_from(change.step) == Ok(change.plan.steps.len())
        && !change.plan.strictness.switch_without_evidence
}

/// Whether the status was waiting for this reason when it was written.
#[must_use]
pub fn waits_for(status: &RolloutStatus, reason: Reason) -> bool {
    status.waiting_for.as_ref().is_some_and(|it| *it == reason)
}

/// The present step of a change.
#[must_use]
pub fn present_step(change: &Change) -> Option<&Step> {
    let index = usize::try_from(change.step).ok()?.checked_sub(1)?;
    change.plan.steps.get(index)
}

/// Whether the progress deadline has passed since the last progress.
#[must_use]
pub fn is_overdue(observation: &Observation, change: &Change) -> bool {
    deadlines_passed(observation, change) >= 1
}

/// How many progress deadlines have passed since the last progress.
pub(super) fn deadlines_passed(observation: &Observation, change: &Change) -> i64 {
    let deadline = progress_timeout(observation).as_secs();
    let since = change.progressed_at.as_ref();
    let idle = since.map(|since| observation.now.duration_since(since.0).as_secs());
    idle.map_or(i64::MAX, |idle| idle / deadline.max(1))
}

/// The progress deadline of the spec.
pub(super) fn progress_timeout(observation: &Observation) -> SignedDuration {
    SignedDuration::from_secs(observation.spec.progress_deadline_seconds.into())
}

/// The transition that explains the state of a change; the removal of rejected pods explains less.
#[must_use]
pub fn last_cause(change: &Change) -> Option<&Transition> {
    let mut transitions = change.transitions.iter().rev();
    transitions.find(|it| it.reason != Reason::RolledBack)
}
