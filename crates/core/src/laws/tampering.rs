//! Laws on ReplicaSets that are not as they were decided.

use countersign_api::rollout::Change;

use crate::decision::Decision;
use crate::observation::Observation;
use crate::observation::workload::Integrity;

fn integrity<'a>(observation: &'a Observation, hash: &str) -> Option<&'a Integrity> {
    let mut sets = observation.replica_sets.iter();
    let set = sets.find(|set| set.owned && set.hash == hash)?;
    Some(&set.integrity)
}

fn is_edited(observation: &Observation, hash: &str) -> bool {
    matches!(integrity(observation, hash), Some(Integrity::Edited(_)))
}

/// Whether stable and canary are known to run what was decided, as far as they have a ReplicaSet.
pub(super) fn is_as_decided(observation: &Observation, before: &Change) -> bool {
    let stable = observation.status.stable.as_ref();
    let stable = stable.map(|it| it.pod_template_hash.as_str());
    let in_use = [stable, Some(before.pod_template_hash.as_str())];
    let mut found = in_use.into_iter().flatten();
    found.all(|hash| {
        let integrity = integrity(observation, hash);
        !matches!(
            integrity,
            Some(Integrity::Edited(_) | Integrity::Unverified { .. })
        )
    })
}

/// An edited ReplicaSet that is taken for a revision.
pub(super) fn unlawful_revision(
    observation: &Observation,
    decision: &Decision,
) -> Option<&'static str> {
    let (before, after) = (&observation.status, &decision.status);
    let stable = after.stable.as_ref().map(|it| &it.pod_template_hash);
    let was_stable = before.stable.as_ref().map(|it| &it.pod_template_hash);
    // A first revision that has served is stable, edited or not, or the next change would pass no gate.
    let becomes_stable = was_stable.is_some() && stable != was_stable && !observation.deleting;
    if becomes_stable && stable.is_some_and(|it| is_edited(observation, it)) {
        return Some("an edited ReplicaSet became the stable one");
    }
    let (before, after) = (before.change.as_ref(), after.change.as_ref());
    let begins = after.map(|it| &it.run) != before.map(|it| &it.run);
    let canary = after.filter(|it| begins || (it.outcome.is_none() && !it.initial));
    let edited = canary.is_some_and(|it| is_edited(observation, &it.pod_template_hash));
    edited.then_some("a change began or continued with an edited ReplicaSet")
}
