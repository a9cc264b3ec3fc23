//! Writes to ReplicaSets that a Rollout owns or may adopt, limited to the fields that the controller
//! owns.

use countersign_api::{
    REQUESTED_ANNOTATION, REVISION_ANNOTATION, ROLLOUT_UID_LABEL, Rollout,
    TEMPLATE_DIGEST_ANNOTATION,
};
use countersign_core::Observation;
use countersign_core::decision::{NewReplicaSet, WorkloadAction};
use countersign_core::observation::workload::{
    ReplicaSet as ObservedReplicaSet, RequestedReplicas,
};
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::api::{DynamicObject, ListParams, ObjectMeta, Patch};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::{Actor, as_manager, as_observed, field_manager, is_taken, patch_places};
use crate::act::error::{Error, Target};
use crate::api_resource::untyped;
use crate::owned;

impl Actor {
    pub(super) async fn act_on_workload(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        action: &WorkloadAction,
    ) -> Result<(), Error> {
        let namespace = &observation.namespace;
        let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), namespace);
        let written = match action {
            WorkloadAction::CreateReplicaSet(new) => {
                let body = owned::replica_set(rollout, observation.now, new);
                let write = create_replica_set(&self.client, namespace, body);
                let written = self.write(Target::ReplicaSet, rollout, "create", write);
                let written = written.await.map_err(|error| explained(error, new))?;
                written.metadata
            }
            WorkloadAction::SetMinReadySeconds {
                replica_set,
                seconds,
            } => {
                let mut operations: Vec<_> = same(observation, replica_set).into_iter().collect();
                // The patch replaces the whole field, which is absent if 0.
                operations.push(
                    json!({ "op": "add", "path": "/spec/minReadySeconds", "value": seconds }),
                );
                let write = patch_places(&sets, replica_set, &operations);
                let written = self.write(Target::Replicas, rollout, "patch", write);
                written.await?.metadata
            }
            WorkloadAction::Scale {
                replica_set,
                replicas,
                revision,
            } => {
                let operations = scaling(observation, replica_set, *replicas, *revision);
                let write = patch_places(&sets, replica_set, &operations);
                let written = self.write(Target::Replicas, rollout, "patch", write);
                written.await?.metadata
            }
            WorkloadAction::Adopt { replica_set } => {
                let observed = observed(observation, replica_set);
                let labels =
                    observed.map(|set| owned::set_labels(rollout, &set.template, &set.hash));
                let patch = ownership(observed, &json!(labels), &owned::owner(rollout));
                self.change_owner(rollout, &sets, replica_set, patch)
                    .await?
            }
            WorkloadAction::Release { replica_set } => {
                let observed = observed(observation, replica_set);
                let own = json!({ "$patch": "delete", "uid": rollout.uid() });
                let none = json!({ ROLLOUT_UID_LABEL: null });
                let patch = ownership(observed, &none, &own);
                self.change_owner(rollout, &sets, replica_set, patch)
                    .await?
            }
            WorkloadAction::DeleteReplicaSet { replica_set } => {
                return self
                    .delete_replica_set(rollout, observation, replica_set)
                    .await;
            }
        };
        self.written
            .replica_sets
            .reaches(&observation.uid, &written);
        Ok(())
    }

    async fn delete_replica_set(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        name: &str,
    ) -> Result<(), Error> {
        let namespace = &observation.namespace;
        let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), namespace);
        let observed = observed(observation, name);
        let (uid, version) = (observed.map(|it| &it.uid), observed.map(|it| &it.version));
        // If another leader has scaled up the ReplicaSet, its resourceVersion differs.
        let as_observed = as_observed(uid, version);
        self.remove(Target::OldReplicaSet, rollout, &sets, name, as_observed)
            .await?;
        let uid = uid.map_or("", String::as_str);
        self.written
            .replica_sets
            .deleted(&observation.uid, namespace, name, uid);
        Ok(())
    }

    async fn change_owner(
        &self,
        rollout: &Rollout,
        sets: &Api<ReplicaSet>,
        name: &str,
        patch: Value,
    ) -> Result<ObjectMeta, Error> {
        let (parameters, patch) = (field_manager(), Patch::Strategic(patch));
        let write = sets.patch(name, &parameters, &patch);
        let written = self.write(Target::ReplicaSet, rollout, "patch", write);
        Ok(written.await?.metadata)
    }
}

/// Creates a ReplicaSet, unless the Rollout has it already, and returns it. Not by server-side apply, which refuses lists
/// with duplicate keys, such as two names for one port, although pods may have them.
async fn create_replica_set(
    client: &Client,
    namespace: &str,
    body: Value,
) -> Result<DynamicObject, kube::Error> {
    let sets = untyped::<ReplicaSet>(client, namespace);
    let set: DynamicObject = serde_json::from_value(body).map_err(kube::Error::SerdeError)?;
    let error = match sets.create(&as_manager(), &set).await {
        Err(error) if is_taken(&error) => error,
        made => return made,
    };
    // The response to an earlier request may have been lost.
    let named = ListParams::default().fields(&format!("metadata.name={}", set.name_any()));
    let there = sets.list(&named).await?;
    let mut there = there.items.into_iter();
    let own = there.find(|it| identity(it) == identity(&set));
    own.ok_or(error)
}

/// By what a ReplicaSet is known as one of a revision: its controller, the label by which it is listed, and the
/// digest of its template. What it really runs is compared when it is observed.
fn identity(set: &DynamicObject) -> [Option<String>; 5] {
    let mut owners = set.owner_references().iter();
    let owner = owners.find(|owner| owner.controller == Some(true));
    [
        owner.map(|it| it.uid.clone()),
        owner.map(|it| it.kind.clone()),
        owner.map(|it| it.api_version.clone()),
        set.labels().get(ROLLOUT_UID_LABEL).cloned(),
        set.annotations().get(TEMPLATE_DIGEST_ANNOTATION).cloned(),
    ]
}

/// Distinguishes what only another name, or another template, resolves from a temporary refusal.
fn explained(error: Error, new: &NewReplicaSet) -> Error {
    match error {
        Error::Refused {
            rollout, source, ..
        } if is_taken(&source) => Error::NameTaken {
            rollout,
            replica_set: new.name.clone(),
            hash: new.hash.clone(),
        },
        Error::Refused {
            rollout, source, ..
        } if is_invalid(&source) => Error::InvalidRevision {
            rollout,
            hash: new.hash.clone(),
            source,
        },
        other => other,
    }
}

/// Whether an object violates its schema or cannot be decoded. An admission policy also answers
/// `Invalid`, but names no field, and may allow the object later.
fn is_invalid(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else {
        return false;
    };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let fields = causes.filter(|cause| !cause.field.is_empty()).count();
    match status.reason.as_str() {
        "Invalid" => fields > 0,
        "BadRequest" => status.message.contains("cannot be handled as a"),
        _ => false,
    }
}

/// The JSON patch test for the observed uid; a later ReplicaSet of the same name has another.
fn same(observation: &Observation, name: &str) -> Option<Value> {
    let set = observed(observation, name)?;
    Some(json!({ "op": "test", "path": "/metadata/uid", "value": set.uid }))
}

/// The observed ReplicaSet of this name.
fn observed<'a>(observation: &'a Observation, name: &str) -> Option<&'a ObservedReplicaSet> {
    observation.replica_sets.iter().find(|set| set.name == name)
}

/// Adopts or releases the observed ReplicaSet, by its uid. A strategic merge patch changes only the owner
/// reference with this uid and keeps foreign ones.
fn ownership(observed: Option<&ObservedReplicaSet>, labels: &Value, owner: &Value) -> Value {
    let mut metadata = json!({ "labels": labels, "ownerReferences": [owner] });
    if let (Some(set), Some(metadata)) = (observed, metadata.as_object_mut()) {
        metadata.insert("uid".into(), json!(set.uid));
    }
    json!({ "metadata": metadata })
}

/// Scales the observed ReplicaSet, if its replicas are unchanged.
fn scaling(observation: &Observation, name: &str, replicas: i32, revision: i64) -> Vec<Value> {
    let mut operations: Vec<_> = same(observation, name).into_iter().collect();
    let observed = observed(observation, name);
    operations.extend(
        observed
            .map(|set| json!({ "op": "test", "path": "/spec/replicas", "value": set.replicas })),
    );
    operations.push(json!({ "op": "replace", "path": "/spec/replicas", "value": replicas }));
    // An absent annotation was removed, or never written; neither is an error.
    let annotate = |name: &str, value: String| {
        let place = format!("/metadata/annotations/{}", name.replace('/', "~1"));
        json!({ "op": "replace", "path": place, "value": value })
    };
    if observed.is_some_and(|set| set.requested.is_some()) {
        let requested = requested(replicas, observation).to_string();
        operations.push(annotate(REQUESTED_ANNOTATION, requested));
    }
    if observed.is_some_and(|set| set.revision > 0 && set.revision != revision) {
        operations.push(annotate(REVISION_ANNOTATION, revision.to_string()));
    }
    operations
}

/// The annotation of a ReplicaSet for this number of replicas.
fn requested(replicas: i32, observation: &Observation) -> RequestedReplicas {
    let at = observation.now;
    RequestedReplicas { replicas, at }
}
