//! Laws on the order of changes.

use countersign_api::rollout::{Change, Stage};

use crate::laws::{observe, people};
use crate::observation::Observation;

/// Whether a first step is taken in order: after the Rollout's dependencies, and only if every limit of
/// every policy has room, counted independently.
pub(super) fn in_order(observation: &Observation, before: &Change, after: &Change) -> bool {
    before.stage != Stage::Waiting
        || (dependencies_are_stable(observation)
            && (people::has_break_glass(observation, before) || has_room(observation, after)))
}

fn has_room(observation: &Observation, after: &Change) -> bool {
    let policies = observation.policies.iter();
    let policies = policies.filter(|policy| observe::is_enforced(policy, after));
    let mut limits = policies.filter_map(|it| Some((&it.name, it.spec.concurrency.as_ref()?)));
    limits.all(|(policy, limit)| {
        let Some(Ok(concurrent_changes)) = &observation.concurrent_changes else {
            return after.tier < limit.from_tier;
        };
        let counted = concurrent_changes.iter().filter(|it| {
            it.queued_at.is_none() && it.tier >= limit.from_tier && it.policies.contains(policy)
        });
        let (near, all) = counted.fold((0, 0), |(near, all), it| {
            (
                near + i32::from(it.namespace == observation.namespace),
                all + 1,
            )
        });
        let has_room = limit.per_namespace.is_none_or(|most| near < most)
            && limit.per_cluster.is_none_or(|most| all < most);
        after.tier < limit.from_tier || has_room
    })
}

pub(super) fn dependencies_are_stable(observation: &Observation) -> bool {
    let mut names = observation.spec.depends_on.iter();
    names.all(|name| {
        let mut seen = observation.dependencies.iter().flatten();
        seen.any(|it| it.name == *name && it.awaited.is_none())
    })
}
