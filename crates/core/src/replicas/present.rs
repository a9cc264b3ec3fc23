//! Pods by the revision that they are of.

use countersign_api::HASH_LABEL;
use countersign_api::rollout::{Change, RolloutStatus, Stage};

use crate::observation::workload::ReplicaSet;
use crate::observation::{self, Observation};
use crate::replicas::{self, Limits, Pods, Present, Share, Split};

/// The limits on pods that a Rollout's spec sets.
#[must_use]
pub fn limits(observation: &Observation) -> Limits {
    let canary = &observation.spec.strategy.canary;
    Limits::new(
        observation.spec.replicas,
        &canary.max_surge,
        &canary.max_unavailable,
    )
    .with(
        match (observation::is_routed(observation), canary.dynamic_stable) {
            (true, true) => Share::RoutesAlone,
            (true, false) => Share::Routes,
            (false, _) if canary.stable_service.is_some() => Share::Services,
            (false, _) => Share::Pods,
        },
    )
}

/// The split of pods that the present step asks for.
#[must_use]
pub fn step_goal(limits: Limits, change: &Change) -> Split {
    // At weight 0 there is somebody to test all the same.
    let least = i32::from(change.weight == 0);
    replicas::goal(limits, change.weight, scale_of(change).unwrap_or(least))
}

/// The size that the last step up to the present one names: pods must not go as their traffic comes, for
/// routers learn of the one before the other.
pub(crate) fn scale_of(change: &Change) -> Option<i32> {
    let steps = usize::try_from(change.step).ok()?;
    let begun = change.plan.steps.iter().take(steps);
    begun.rev().find_map(|step| step.scale)
}

/// The revisions that a status gives a role, by their hashes.
pub(crate) struct Roles<'a> {
    pub(crate) stable: Option<&'a str>,
    pub(crate) canary: Option<&'a str>,
}

pub(crate) fn roles(status: &RolloutStatus) -> Roles<'_> {
    let stable = status
        .stable
        .as_ref()
        .map(|stable| stable.pod_template_hash.as_str());
    let canary = status
        .change
        .as_ref()
        .filter(|change| !matches!(change.stage, Stage::Promoted | Stage::RolledBack))
        .map(|change| change.pod_template_hash.as_str())
        .filter(|canary| Some(*canary) != stable);
    Roles { stable, canary }
}

pub(crate) fn with_hash<'a>(
    observation: &'a Observation,
    hash: Option<&str>,
) -> Option<&'a ReplicaSet> {
    observation
        .replica_sets
        .iter()
        .find(|set| set.owned && hash.is_some_and(|hash| set.hash == hash))
}

/// Available pods of a revision.
#[must_use]
pub fn available(observation: &Observation, hash: Option<&str>) -> i32 {
    with_hash(observation, hash).map_or(0, |set| set.available)
}

/// Pods that are available though they are asked for no more are about to go, and count for nothing.
fn pods(set: Option<&ReplicaSet>) -> Pods {
    set.map_or_else(Pods::default, |set| Pods {
        asked: set.replicas,
        available: set.available.min(set.replicas),
    })
}

/// Revisions that are wanted no more; one that is kept for the way back is not among them.
pub(crate) fn others<'a>(
    observation: &'a Observation,
    status: &RolloutStatus,
) -> Vec<&'a ReplicaSet> {
    let roles = roles(status);
    let has_role = |set: &ReplicaSet| {
        roles.stable == Some(set.hash.as_str()) || roles.canary == Some(set.hash.as_str())
    };
    observation
        .replica_sets
        .iter()
        .filter(|set| set.owned && set.matches && !has_role(set))
        .filter(|set| !is_kept(observation, status, set))
        .collect()
}

/// The pods that are there, by the roles that a status gives them.
#[must_use]
pub fn present(observation: &Observation, status: &RolloutStatus) -> Present {
    let roles = roles(status);
    Present {
        stable: pods(with_hash(observation, roles.stable)),
        canary: pods(with_hash(observation, roles.canary)),
        others: others(observation, status)
            .into_iter()
            .map(|set| pods(Some(set)))
            .collect(),
    }
}

/// Whether the pods of a revision that was stable before are kept, so that the way back is at once.
pub(crate) fn is_kept(observation: &Observation, status: &RolloutStatus, set: &ReplicaSet) -> bool {
    let Some(change) = &status.change else {
        return false;
    };
    let kept = change
        .kept_until
        .as_ref()
        .is_some_and(|until| until.0 > observation.now);
    let previous = change
        .previous
        .as_ref()
        .filter(|_| kept && change.stage == Stage::Promoted);
    previous.is_some_and(|previous| previous.pod_template_hash == set.hash)
}

/// The revision that a Service selects.
#[must_use]
pub fn selected<'a>(observation: &'a Observation, service: &str) -> Option<&'a str> {
    let service = observation.services.get(service)?.as_ref()?;
    service.selector.get(HASH_LABEL).map(String::as_str)
}
