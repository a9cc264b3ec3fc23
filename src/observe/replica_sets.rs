//! The ReplicaSets of a Rollout, and foreign ones whose pods it selects.

use std::collections::BTreeMap;

use countersign_api::{
    GROUP, HASH_LABEL, MANAGED_BY_LABEL, MANAGER, PodTemplate, REQUESTED_ANNOTATION,
    REVISION_ANNOTATION, ROLLOUT_UID_LABEL, Rollout, TEMPLATE_ANNOTATION,
    TEMPLATE_DIGEST_ANNOTATION,
};
use countersign_core::observation::workload::{Integrity, ReplicaSet};
use futures::future::join_all;
use k8s_openapi::api::apps::v1::ReplicaSet as ApiReplicaSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::core::DynamicObject;
use kube::{Api, Resource, ResourceExt};
use serde_json::Value;

use super::integrity::stored_template;
use super::observer::Observer;

/// The ReplicaSets that were found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// ReplicaSets that the Rollout owns or may adopt.
    pub own: Vec<ReplicaSet>,
    /// Foreign ReplicaSets with pods that the Rollout selects, each in words, by name; not always read.
    pub foreign: Option<Vec<String>>,
}

impl Observer {
    /// Lists by the Rollout's uid while a change is in progress, else by its selector, which also finds
    /// foreign ReplicaSets; by both if a ReplicaSet of the status is missing.
    pub(super) async fn replica_sets(
        &self,
        rollout: &Rollout,
        namespace: &str,
    ) -> Result<Found, kube::Error> {
        let uid = rollout.uid().unwrap_or_default();
        let by_uid = format!("{ROLLOUT_UID_LABEL}={uid}");
        let by_pods = rollout.spec.selector.to_string();
        let status = rollout.status.as_ref();
        let change = status.and_then(|it| it.change.as_ref());
        let under_way = change.is_some_and(|it| it.outcome.is_none());
        let first = if under_way || by_pods.is_empty() {
            &by_uid
        } else {
            &by_pods
        };
        let mut sets = self.list_replica_sets(namespace, first).await?;
        let mut all = first == &by_pods;
        let stable = status.and_then(|it| it.stable.as_ref());
        let stable = stable.map(|it| &it.pod_template_hash);
        let named = stable.or(change.map(|first| &first.pod_template_hash));
        let is_own = |set: &DynamicObject| set.labels().get(ROLLOUT_UID_LABEL) == Some(&uid);
        let missing = named.is_some_and(|hash| {
            let mut own = sets.iter().filter(|set| is_own(set));
            !own.any(|set| set.labels().get(HASH_LABEL) == Some(hash))
        });
        if missing && !by_pods.is_empty() {
            let other = if all { &by_uid } else { &by_pods };
            let more = self.list_replica_sets(namespace, other).await?;
            let seen: Vec<_> = sets.iter().map(ResourceExt::uid).collect();
            let more = more.into_iter().filter(|set| !seen.contains(&set.uid()));
            sets.extend(more);
            all = true;
        }
        let ours = |set: &&DynamicObject| {
            let controlled = controller(set).is_some_and(|owner| is_rollout(owner, &uid));
            controlled
                || is_own(set)
                || set.labels().get(MANAGED_BY_LABEL).map(String::as_str) == Some(MANAGER)
        };
        let (ours, others): (Vec<_>, Vec<_>) = sets.iter().partition(ours);
        let mut foreign: Vec<_> = others
            .into_iter()
            .filter_map(|set| foreign(rollout, set))
            .collect();
        foreign.sort();
        let own = ours
            .into_iter()
            .filter_map(|set| Some((replica_set(rollout, &uid, set)?, set)));
        let own = own.map(|(own, set)| async move {
            let integrity = self.integrity(rollout, namespace, &own, set).await;
            ReplicaSet { integrity, ..own }
        });
        Ok(Found {
            own: join_all(own).await,
            foreign: all.then_some(foreign),
        })
    }

    /// Lists dynamic objects, so that template fields newer than this build are kept.
    pub(super) async fn list_replica_sets(
        &self,
        namespace: &str,
        selector: &str,
    ) -> Result<Vec<DynamicObject>, kube::Error> {
        let kind = kube::core::ApiResource::erase::<ApiReplicaSet>(&());
        let sets: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind);
        Ok(self.reads.list(&sets, selector).await?.items)
    }
}

/// A foreign ReplicaSet with pods, in words; `None` if it is the adopted workload's.
fn foreign(rollout: &Rollout, set: &DynamicObject) -> Option<String> {
    let has_pods = number(set, "/spec/replicas") > 0 || number(set, "/status/replicas") > 0;
    let controller = controller(set);
    let adopted = rollout.spec.workload_ref.as_ref();
    let is_adopted = adopted.is_some_and(|adopted| {
        controller.is_some_and(|it| it.kind == "Deployment" && it.name == adopted.name)
    });
    if !has_pods || is_adopted || set.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let of = controller.map(|it| format!(" of {} {}", it.kind, it.name));
    Some(format!(
        "ReplicaSet {}{}",
        set.name_any(),
        of.unwrap_or_default()
    ))
}

/// Whether an owner is the Rollout with this uid. The API server takes any kind beside a uid, and the admission
/// policy that keeps others from naming a Rollout as owner asks for its kind.
pub(super) fn is_rollout(owner: &OwnerReference, uid: &str) -> bool {
    let group = owner.api_version.split_once('/').map(|(group, _)| group);
    owner.uid == uid && owner.kind == Rollout::kind(&()) && group == Some(GROUP)
}

fn controller(set: &DynamicObject) -> Option<&OwnerReference> {
    let mut owners = set.owner_references().iter();
    owners.find(|owner| owner.controller == Some(true))
}

fn number(set: &DynamicObject, path: &str) -> i32 {
    let value = set.data.pointer(path).and_then(Value::as_i64);
    i32::try_from(value.unwrap_or_default()).unwrap_or(i32::MAX)
}

pub(super) fn replica_set(rollout: &Rollout, uid: &str, set: &DynamicObject) -> Option<ReplicaSet> {
    let controller = controller(set);
    let owned = controller.is_some_and(|owner| is_rollout(owner, uid));
    let foreign = controller.is_some() && !owned;
    if foreign || set.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let failure = set
        .data
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .and_then(|conditions| {
            let failed = |condition: &&Value| {
                condition.get("type") == Some(&"ReplicaFailure".into())
                    && condition.get("status") == Some(&"True".into())
            };
            conditions
                .iter()
                .find(failed)?
                .get("message")?
                .as_str()
                .map(ToOwned::to_owned)
        });
    let pod_labels = pod_labels(set);
    let hash = pod_labels.get(HASH_LABEL).or(set.labels().get(HASH_LABEL));
    let hash = hash.cloned().unwrap_or_default();
    Some(ReplicaSet {
        name: set.name_any(),
        uid: set.uid().unwrap_or_default(),
        version: set.resource_version().unwrap_or_default(),
        hash,
        template_digest: set
            .annotations()
            .get(TEMPLATE_DIGEST_ANNOTATION)
            .cloned()
            .unwrap_or_default(),
        revision: revision(&set.metadata),
        owned,
        matches: rollout.spec.selector.matches(&pod_labels),
        labels_missing: owned && !is_labelled(set, uid, &pod_labels),
        replicas: number(set, "/spec/replicas"),
        min_ready_seconds: number(set, "/spec/minReadySeconds"),
        requested: set
            .annotations()
            .get(REQUESTED_ANNOTATION)
            .and_then(|it| it.parse().ok()),
        current: number(set, "/status/replicas"),
        ready: number(set, "/status/readyReplicas"),
        available: number(set, "/status/availableReplicas"),
        failure,
        template: as_recorded(set),
        integrity: Integrity::Sound,
    })
}

/// The labels of a ReplicaSet's pods: those of its template, since its own may have been removed.
fn pod_labels(set: &DynamicObject) -> BTreeMap<String, String> {
    let labels = set.data.pointer("/spec/template/metadata/labels").cloned();
    labels
        .and_then(|labels| serde_json::from_value(labels).ok())
        .unwrap_or_default()
}

/// Whether a ReplicaSet has the labels by which it is listed: those of its pods, and the Rollout's uid.
fn is_labelled(set: &DynamicObject, uid: &str, pod_labels: &BTreeMap<String, String>) -> bool {
    let own = set.labels();
    let has = |(name, value): (&String, &String)| own.get(name) == Some(value);
    own.get(ROLLOUT_UID_LABEL).map(String::as_str) == Some(uid)
        && own.get(MANAGED_BY_LABEL).map(String::as_str) == Some(MANAGER)
        && pod_labels.iter().all(has)
}

fn revision(metadata: &ObjectMeta) -> i64 {
    let annotations = metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(REVISION_ANNOTATION)?.parse().ok())
        .unwrap_or_default()
}

/// The template as the Rollout had it; for a foreign ReplicaSet, the stored one.
pub(super) fn as_recorded(set: &DynamicObject) -> PodTemplate {
    let kept = set.annotations().get(TEMPLATE_ANNOTATION);
    let kept = kept.and_then(|kept| serde_json::from_str(kept).ok());
    kept.map_or_else(|| stored_template(set).unwrap_or_default(), PodTemplate)
}
