//! Deadlines of a change.

use countersign_api::Duration;
use countersign_api::rollout::{Change, Stage};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::change;
use crate::observation::Observation;

/// The progress deadline: counts from the last progress, or from the end of the bake and the warm-up.
pub(super) fn progress_deadline(observation: &Observation, change: &Change) -> Timestamp {
    let timeout = change::progress_timeout(observation);
    deadline(observation, change, change.progressed_at.as_ref(), timeout)
}

/// The deadline of scarce evidence, `extendAtMost` of the tier: counts from when the pods were available, or
/// from the end of the bake and the warm-up; stops while the change is held for another reason.
pub(super) fn evidence_deadline(observation: &Observation, change: &Change) -> Timestamp {
    let since = change
        .available_at
        .as_ref()
        .max(change.evidence_since.as_ref());
    let since = since.or(change.progressed_at.as_ref());
    let timeout = change.plan.strictness.extend_at_most.signed();
    deadline(observation, change, since, timeout)
}

fn deadline(
    observation: &Observation,
    change: &Change,
    since: Option<&Time>,
    timeout: SignedDuration,
) -> Timestamp {
    let since = since.map_or(observation.now, |at| at.0);
    let since = change::bake_ends(change).map_or(since, |bake| bake.max(since));
    let warm = change.available_at.as_ref().max(change.warm_from.as_ref());
    let warms = change.stage == Stage::Stepping && change.warm_up > Duration::default();
    let warm = warm.filter(|_| warms);
    let warm = warm.and_then(|at| at.0.saturating_add(change.warm_up.signed()).ok());
    let since = warm.map_or(since, |warm| warm.max(since));
    since.saturating_add(timeout).unwrap_or(Timestamp::MAX)
}
