//! Filters events by the fields that decisions depend on.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use serde::{Deserialize, Serialize};

use crate::watch::claim::Claim;
use crate::watch::trigger::Trigger;

/// Hashes of the last seen objects, by hashes of their uids, to save memory.
#[derive(Default)]
pub(super) struct LastSeen(BTreeMap<u64, u64>);

impl LastSeen {
    fn key(metadata: &ObjectMeta) -> u64 {
        hash(&metadata.uid)
    }

    /// Whether the object differs from its last seen state, by `version` and by its metadata other than
    /// the API server's.
    pub(super) fn has_changed(&mut self, metadata: &ObjectMeta, version: &impl Hash) -> bool {
        let deleted = metadata.deletion_timestamp.is_some();
        let owners = metadata.owner_references.iter().flatten();
        let owners: Vec<_> = owners.map(|owner| &owner.uid).collect();
        let version = hash(&(deleted, owners, &metadata.labels, version));
        self.0.insert(Self::key(metadata), version) != Some(version)
    }

    fn knows(&self, metadata: &ObjectMeta) -> bool {
        self.0.contains_key(&Self::key(metadata))
    }

    pub(super) fn forget(&mut self, metadata: &ObjectMeta) {
        self.0.remove(&Self::key(metadata));
    }
}

pub(super) fn hash(it: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    it.hash(&mut hasher);
    hasher.finish()
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
    /// The fields whose change may change a decision: not the number of starting pods, but whether one is
    /// ready, and whether the last one is deleted. The generation stands for the template, which others may edit.
    fn version(&self) -> impl Hash {
        let Self {
            metadata,
            spec,
            status,
        } = self;
        let gone = spec.replicas == 0 && status.replicas == 0;
        let serves = status.ready_replicas > 0;
        (
            metadata.generation,
            spec,
            gone,
            serves,
            status.available_replicas,
            &status.conditions,
        )
    }

    /// Whether the ReplicaSet was just created by the controller and has no pods yet.
    fn is_blank(&self) -> bool {
        self.status.available_replicas == 0 && self.status.conditions.is_empty()
    }
}

/// Whether a change of a ReplicaSet may change a decision.
pub(super) fn pods_have_changed(seen: &mut LastSeen, event: &watcher::Event<Pods>) -> bool {
    match event {
        watcher::Event::Apply(it) => {
            let made = !seen.knows(&it.metadata) && it.is_blank();
            seen.has_changed(&it.metadata, &it.version()) && !made
        }
        watcher::Event::Delete(it) => {
            seen.forget(&it.metadata);
            true
        }
        watcher::Event::Init => {
            *seen = LastSeen::default();
            false
        }
        watcher::Event::InitApply(it) => seen.has_changed(&it.metadata, &it.version()),
        watcher::Event::InitDone => true,
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
            watcher::Event::Apply(claim) | watcher::Event::InitApply(claim) => {
                // The controller's own status writes change no claims, so they cause no reconcile.
                let version = (claim.metadata.generation, claim.annotations());
                let changed = self.seen.has_changed(&claim.metadata, &version);
                let touched = changed.then(|| Trigger::Touched(Arc::new(claim)));
                touched.into_iter().collect()
            }
            watcher::Event::Delete(claim) => vec![self.deleted(Arc::new(claim))],
            // The store keeps its old content until the new list is complete.
            watcher::Event::Init => {
                self.before = self.store.state();
                Vec::new()
            }
            // A deletion while the watch was disconnected causes no event: the Rollout is missing in the
            // list.
            watcher::Event::InitDone => {
                let mut before = std::mem::take(&mut self.before);
                before.retain(|claim| {
                    let now = self.store.get(&ObjectRef::from_obj(&**claim));
                    now.is_none_or(|now| now.metadata.uid != claim.metadata.uid)
                });
                before.into_iter().map(|it| self.deleted(it)).collect()
            }
        }
    }

    fn deleted(&mut self, claim: Arc<Claim>) -> Trigger {
        self.seen.forget(&claim.metadata);
        Trigger::Deleted(claim)
    }
}

/// Keeps the fields for conflicts, and a hash of the annotations.
pub(super) fn strip_claim(claim: &mut Claim) {
    claim.metadata.managed_fields = None;
    let annotations = claim.metadata.annotations.take().unwrap_or_default();
    let annotations = hash(&annotations).to_string();
    claim.metadata.annotations = Some(BTreeMap::from([(String::new(), annotations)]));
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
        let mut seen = LastSeen::default();
        let mut is_news = |it: Pods| pods_have_changed(&mut seen, &watcher::Event::Apply(it));
        assert!(!is_news(set(1, 0)), "the operator has just made it");
        assert!(!is_news(set(1, 1)));
        assert!(is_news(set(2, 1)));
        assert!(!is_news(set(2, 2)));
    }
}
