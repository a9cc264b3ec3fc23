//! Pods by revision.

use countersign_api::HASH_LABEL;
use countersign_api::Step;
use countersign_api::rollout::{Change, Reached, Revision, Stage};

use crate::observation::workload::ReplicaSet;
use crate::observation::{self, Observation};
use crate::replicas::{self, Limits, Pods, Present, Share, Split};

/// The limits on pods in a Rollout's spec.
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

/// The share of the traffic that the canary really gets in each step, in percent, rounded up: its weight, or
/// without routes its share of the pods if that is more.
#[must_use]
pub fn shares(observation: &Observation, steps: &[Step]) -> Vec<i32> {
    let limits = limits(observation);
    let mut scale = None;
    let share = |step: &Step| {
        scale = step.scale.or(scale);
        let Split { stable, canary } = replicas::goal(limits, step.weight, scale.unwrap_or(0));
        if limits.share != Share::Pods || step.weight <= 0 || canary <= 0 {
            return step.weight;
        }
        let (canary, pods) = (i64::from(canary), i64::from(stable) + i64::from(canary));
        let share = i32::try_from((100 * canary + pods - 1) / pods).unwrap_or(100);
        share.max(step.weight) // so that scaling by a pod does not change it
    };
    steps.iter().map(share).collect()
}

/// The split of pods for the present step.
#[must_use]
pub fn step_goal(limits: Limits, change: &Change) -> Split {
    // At weight 0 one pod is needed for testers.
    let least = i32::from(change.weight == 0);
    replicas::goal(limits, change.weight, scale_of(change).unwrap_or(least))
}

/// The scale of the last begun step that sets one: pods are not removed as soon as their traffic arrives,
/// since routers do not observe both at once.
pub(crate) fn scale_of(change: &Change) -> Option<i32> {
    let steps = usize::try_from(change.step).ok()?;
    let begun = change.plan.steps.iter().take(steps);
    begun.rev().find_map(|step| step.scale)
}

/// The pod template hashes of the revisions, by their roles in a status.
pub(crate) struct Roles<'a> {
    pub(crate) stable: Option<&'a str>,
    pub(crate) canary: Option<&'a str>,
}

pub(crate) fn roles<'a>(stable: Option<&'a Revision>, change: Option<&'a Change>) -> Roles<'a> {
    let stable = stable.map(|stable| stable.pod_template_hash.as_str());
    let canary = change
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

/// The pod template hashes of other revisions than these, newest first.
pub fn earlier<'a>(observation: &'a Observation, than: &[&str]) -> impl Iterator<Item = &'a str> {
    let sets = observation.replica_sets.iter().filter(|set| set.owned);
    let mut sets: Vec<_> = sets
        .filter(|set| !than.contains(&set.hash.as_str()))
        .collect();
    sets.sort_by_key(|set| std::cmp::Reverse(set.revision));
    sets.into_iter().map(|set| set.hash.as_str())
}

/// Available pods of a revision.
#[must_use]
pub fn available(observation: &Observation, hash: Option<&str>) -> i32 {
    with_hash(observation, hash).map_or(0, |set| set.available)
}

/// Requested pods of a revision: the goal, or more if the controller requested more before. Pods that another
/// writer requests are no progress.
pub(crate) fn requested(observation: &Observation, hash: Option<&str>, goal: i32) -> i32 {
    with_hash(observation, hash).map_or(goal, |set| {
        let requested = set.requested.map_or(set.replicas, |it| it.replicas);
        requested.max(goal)
    })
}

/// The progress of a revision's pods, with its share of the traffic in percent.
pub(crate) fn reached(observation: &Observation, hash: Option<&str>, weight: i32) -> Reached {
    Reached {
        pods: with_hash(observation, hash).map_or(0, |set| set.current),
        available: available(observation, hash),
        weight,
    }
}

/// Available pods beyond the requested number are about to be deleted and are not counted.
fn pods(set: Option<&ReplicaSet>) -> Pods {
    set.map_or_else(Pods::default, |set| Pods {
        requested: set.replicas,
        available: set.available.min(set.replicas),
    })
}

/// The existing ReplicaSets, by their roles in a status.
#[derive(Clone, Debug)]
pub struct Fleet<'a> {
    /// Bounds on the number of pods.
    pub limits: Limits,
    /// The ReplicaSet of the stable revision.
    pub stable: Option<&'a ReplicaSet>,
    /// The ReplicaSet of the canary.
    pub canary: Option<&'a ReplicaSet>,
    /// ReplicaSets that are no longer needed.
    pub others: Vec<&'a ReplicaSet>,
    /// The ReplicaSet of the previous stable revision, if it is kept for a rollback without a wait.
    pub kept: Option<&'a ReplicaSet>,
    /// The pods of all ReplicaSets except the kept one.
    pub pods: Present,
}

impl<'a> Fleet<'a> {
    /// The ReplicaSets of an observation, by the roles that a stable revision and a change give them.
    #[must_use]
    pub fn of(
        observation: &'a Observation,
        stable: Option<&Revision>,
        change: Option<&Change>,
    ) -> Self {
        let roles = roles(stable, change);
        let kept = change.and_then(|change| kept_hash(observation, change));
        let kept = with_hash(observation, kept);
        let has_role = |set: &ReplicaSet| {
            let hash = Some(set.hash.as_str());
            [
                roles.stable,
                roles.canary,
                kept.map(|kept| kept.hash.as_str()),
            ]
            .contains(&hash)
        };
        let owned = observation.replica_sets.iter();
        let owned = owned.filter(|set| set.owned && set.matches);
        let others: Vec<_> = owned.filter(|set| !has_role(set)).collect();
        let stable = with_hash(observation, roles.stable);
        let canary = with_hash(observation, roles.canary);
        Self {
            limits: limits(observation),
            pods: Present {
                stable: pods(stable),
                canary: pods(canary),
                others: others.iter().map(|set| pods(Some(set))).collect(),
            },
            stable,
            canary,
            others,
            kept,
        }
    }
}

/// The previous stable revision, while its pods are kept.
fn kept_hash<'a>(observation: &Observation, change: &'a Change) -> Option<&'a str> {
    let until = change.kept_until.as_ref()?;
    let kept = until.0 > observation.now && change.stage == Stage::Promoted;
    let previous = change.previous.as_ref().filter(|_| kept)?;
    Some(&previous.pod_template_hash)
}

/// The revision that a Service selects.
#[must_use]
pub fn selected<'a>(observation: &'a Observation, service: &str) -> Option<&'a str> {
    let service = observation.traffic.services.get(service)?.as_ref()?;
    service.selector.get(HASH_LABEL).map(String::as_str)
}
