//! Filters events by the fields that decisions depend on.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;

use countersign_api::KEEP_FINALIZER;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use serde::{Deserialize, Serialize};

use crate::watch::claim::Claim;
use crate::watch::hashing::hash;
use crate::watch::trigger::Trigger;

/// Hashes of the last seen Rollouts, by hashes of their uids, to save memory.
#[derive(Default)]
struct LastSeen(BTreeMap<u64, u64>);

impl LastSeen {
    /// Whether the Rollout differs from its last seen state.
    fn has_changed(&mut self, claim: &Claim) -> bool {
        // The controller's own status writes change no claims, so they cause no reconcile.
        let mut finalizers = claim.metadata.finalizers.iter().flatten();
        let is_kept = finalizers.any(|it| it == KEEP_FINALIZER);
        let version = (claim.metadata.generation, claim.annotations, is_kept);
        let version = hash(&(own(&claim.metadata), version));
        self.0.insert(hash(&claim.metadata.uid), version) != Some(version)
    }

    fn forget(&mut self, claim: &Claim) {
        self.0.remove(&hash(&claim.metadata.uid));
    }
}

/// The metadata that decisions depend on.
fn own(metadata: &ObjectMeta) -> impl Hash {
    let deleted = metadata.deletion_timestamp.is_some();
    let owners = metadata.owner_references.iter().flatten();
    let owners: Vec<_> = owners.map(|owner| &owner.uid).collect();
    (deleted, owners, &metadata.labels)
}

/// The fields of a ReplicaSet that a decision depends on.
#[derive(Resource, Clone, Debug, Default, Deserialize, Serialize)]
#[resource(inherit = "ReplicaSet")]
#[serde(default)]
pub(super) struct Pods {
    metadata: ObjectMeta,
    spec: PodsSpec,
    status: PodsStatus,
}

#[derive(Clone, Debug, Default, Hash, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct PodsSpec {
    replicas: i32,
}

#[derive(Clone, Debug, Default, Hash, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodsStatus {
    replicas: i32,
    ready_replicas: i32,
    available_replicas: i32,
    conditions: Vec<PodsCondition>,
}

#[derive(Clone, Debug, Default, Hash, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct PodsCondition {
    r#type: String,
    status: String,
    message: String,
}

impl Pods {
    /// A hash of the fields whose change may change a decision: not the number of starting pods, but whether one is
    /// ready, and whether the last one is deleted. The generation stands for the template, which others may edit.
    pub(super) fn version(&self) -> u64 {
        let Self {
            metadata,
            spec,
            status,
        } = self;
        let gone = spec.replicas == 0 && status.replicas == 0;
        let serves = status.ready_replicas > 0;
        hash(&(
            own(metadata),
            metadata.generation,
            spec,
            gone,
            serves,
            status.available_replicas,
            &status.conditions,
        ))
    }

    /// Whether the ReplicaSet was just created by the controller and has no pods yet.
    pub(super) fn is_blank(&self) -> bool {
        self.status.available_replicas == 0 && self.status.conditions.is_empty()
    }
}

/// Detects relevant changes of Rollouts, whose store is updated before each event.
pub(super) struct ClaimChanges {
    store: Store<Claim>,
    seen: LastSeen,
    /// The Rollouts that were known when the current list began.
    before: Vec<Arc<Claim>>,
}

impl ClaimChanges {
    pub(super) fn new(store: Store<Claim>) -> Self {
        Self {
            store,
            seen: LastSeen::default(),
            before: Vec::new(),
        }
    }

    pub(super) fn triggers(&mut self, event: watcher::Event<Claim>) -> Vec<Trigger> {
        match event {
            watcher::Event::Apply(claim) => self.touched(claim, true),
            // One that the store does not have yet is reconciled once the list is complete.
            watcher::Event::InitApply(claim) => {
                let known = self.store.get(&ObjectRef::from_obj(&claim));
                let is_known = known.is_some_and(|it| it.metadata.uid == claim.metadata.uid);
                self.touched(claim, is_known)
            }
            watcher::Event::Delete(claim) => vec![self.deleted(Arc::new(claim))],
            // The store keeps its old content until the new list is complete.
            watcher::Event::Init => {
                self.before = self.store.state();
                Vec::new()
            }
            // What happened while the watch was disconnected causes no event. A deleted Rollout is missing in the
            // list; one of another version may have another status, as after a restored backup.
            watcher::Event::InitDone => {
                let before = std::mem::take(&mut self.before).into_iter();
                let before = before.map(|claim| (claim.metadata.uid.clone(), claim));
                let mut before: BTreeMap<_, _> = before.collect();
                let mut touched = Vec::new();
                for now in self.store.state() {
                    let known = before.remove(&now.metadata.uid);
                    let known = known.map(|it| it.metadata.resource_version.clone());
                    if known.as_ref() != Some(&now.metadata.resource_version) {
                        touched.push(Trigger::Touched(now));
                    }
                }
                let deleted = before.into_values().map(|claim| self.deleted(claim));
                deleted.chain(touched).collect()
            }
        }
    }

    fn touched(&mut self, claim: Claim, is_in_store: bool) -> Vec<Trigger> {
        let changed = self.seen.has_changed(&claim) && is_in_store;
        let touched = changed.then(|| Trigger::Touched(Arc::new(claim)));
        touched.into_iter().collect()
    }

    fn deleted(&mut self, claim: Arc<Claim>) -> Trigger {
        self.seen.forget(&claim);
        Trigger::Deleted(claim)
    }
}

/// Keeps the fields for conflicts, and a hash of the annotations.
pub(super) fn strip_claim(claim: &mut Claim) {
    claim.metadata.managed_fields = None;
    claim.annotations = hash(&claim.metadata.annotations.take());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_edited_template_is_news_and_a_starting_pod_is_none() {
        let set = |generation: i64, pods: i32| -> Pods {
            serde_json::from_value(json!({
                "metadata": { "name": "web-abc", "uid": "1", "generation": generation },
                "spec": { "replicas": 2 }, "status": { "replicas": pods },
            }))
            .unwrap()
        };
        assert!(set(1, 0).is_blank(), "the operator has just made it");
        assert_eq!(set(1, 0).version(), set(1, 1).version());
        assert_ne!(set(1, 1).version(), set(2, 1).version());
        assert_eq!(set(2, 1).version(), set(2, 2).version());
    }
}
