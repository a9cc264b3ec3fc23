//! Writes to ReplicaSets, Jobs and Services: only those that a Rollout owns or names, only the fields that
//! the controller owns.

use countersign_api::{
    ASKED_ANNOTATION, HASH_LABEL, MANAGED_BY_LABEL, MANAGER, PodTemplate, REVISION_ANNOTATION,
    ROLLOUT_UID_LABEL, RUN_ANNOTATION, Rollout, TEMPLATE_ANNOTATION, TEMPLATE_DIGEST_ANNOTATION,
};
use countersign_core::Observation;
use countersign_core::decision::Action;
use countersign_core::observation::workload::{Asked, ReplicaSet as ReplicaSetSeen};
use countersign_core::replicas::present;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Service;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::{Actor, Error, PODS, SELECTOR, as_seen, field_manager, owner};

/// Largest template that is kept in an annotation, whose total is limited to 256 KiB.
const MAX_TEMPLATE: usize = 200_000;
/// Seconds for which the Job of a smoke check is kept after its end, with its pods and their logs.
const JOB_KEPT: i32 = 86_400;

impl Actor {
    pub(super) async fn act_on_workload(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        action: &Action,
    ) -> Result<(), Error> {
        let namespace = &observation.namespace;
        match action {
            Action::CreateReplicaSet { hash, .. } => {
                let body = replica_set(rollout, observation, action);
                let write = create_replica_set(&self.client, namespace, body);
                let written = self.write("a ReplicaSet", rollout, "create", "replicasets", write);
                written.await.map_err(|error| invalid_revision(error, hash))
            }
            Action::SetMinReadySeconds {
                replica_set,
                seconds,
            } => {
                let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), namespace);
                let mut operations: Vec<_> = same(observation, replica_set).into_iter().collect();
                // It replaces what is there, and is absent where it is 0.
                operations.push(
                    json!({ "op": "add", "path": "/spec/minReadySeconds", "value": seconds }),
                );
                let at = ("replicasets", replica_set.as_str());
                self.patch_places(PODS, rollout, &sets, at, &operations)
                    .await
            }
            Action::Scale {
                replica_set,
                replicas,
                revision,
            } => {
                let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), namespace);
                let operations = scaling(observation, replica_set, *replicas, *revision);
                let at = ("replicasets", replica_set.as_str());
                self.patch_places(PODS, rollout, &sets, at, &operations)
                    .await
            }
            Action::Adopt { replica_set } => {
                let seen = seen(observation, replica_set);
                let labels = seen.map(|set| set_labels(rollout, &set.template, &set.hash));
                let patch = ownership(seen, &json!(labels), &owner(rollout));
                self.patch_replica_set(rollout, observation, replica_set, patch)
                    .await
            }
            Action::Release { replica_set } => {
                let seen = seen(observation, replica_set);
                let own = json!({ "$patch": "delete", "uid": rollout.uid() });
                let none = json!({ ROLLOUT_UID_LABEL: null });
                let patch = ownership(seen, &none, &own);
                self.patch_replica_set(rollout, observation, replica_set, patch)
                    .await
            }
            Action::DeleteReplicaSet { replica_set } => {
                let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), namespace);
                let what = "the removal of an old ReplicaSet";
                let at = ("replicasets", replica_set.as_str());
                let seen = seen(observation, replica_set);
                // A set that another leader has scaled up since has another version.
                let as_seen = as_seen(seen.map(|it| &it.uid), seen.map(|it| &it.version));
                self.remove(what, rollout, &sets, at, as_seen).await
            }
            Action::SelectRevision { service, hash } => {
                let services: Api<Service> = Api::namespaced(self.client.clone(), namespace);
                let operations = selection(observation, service, hash);
                let at = ("services", service.as_str());
                self.patch_places(SELECTOR, rollout, &services, at, &operations)
                    .await
            }
            Action::CreateJob { .. } => {
                let kind = ApiResource::erase::<Job>(&());
                let jobs: Api<DynamicObject> =
                    Api::namespaced_with(self.client.clone(), namespace, &kind);
                // One of this name that is there already is either this one, and is seen at the next
                // look, or somebody else's, and the refusal says so.
                let parameters = PostParams {
                    field_manager: Some(MANAGER.into()),
                    ..PostParams::default()
                };
                let write = async {
                    let body = serde_json::from_value(job(rollout, action));
                    let body: DynamicObject = body.map_err(kube::Error::SerdeError)?;
                    jobs.create(&parameters, &body).await
                };
                self.write("a Job", rollout, "create", "jobs", write)
                    .await?;
                Ok(())
            }
            Action::DeleteJob { job, uid } => {
                let jobs: Api<Job> = Api::namespaced(self.client.clone(), namespace);
                let (what, at) = ("the end of a Job", ("jobs", job.as_str()));
                self.remove(what, rollout, &jobs, at, as_seen(Some(uid), None))
                    .await
            }
            _ => Ok(()),
        }
    }

    async fn patch_replica_set(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        name: &str,
        patch: Value,
    ) -> Result<(), Error> {
        let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &observation.namespace);
        let (parameters, patch) = (field_manager(), Patch::Strategic(patch));
        let write = sets.patch(name, &parameters, &patch);
        self.write("a ReplicaSet", rollout, "patch", "replicasets", write)
            .await?;
        Ok(())
    }
}

/// Makes a ReplicaSet, unless the Rollout has it already. Not by server-side apply: that refuses lists
/// that have one key twice, such as two names for one port, which pods may have.
async fn create_replica_set(
    client: &Client,
    namespace: &str,
    body: Value,
) -> Result<(), kube::Error> {
    let kind = ApiResource::erase::<ReplicaSet>(&());
    let sets: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind);
    let set: DynamicObject = serde_json::from_value(body).map_err(kube::Error::SerdeError)?;
    let parameters = PostParams {
        field_manager: Some(MANAGER.into()),
        ..PostParams::default()
    };
    let Err(error) = sets.create(&parameters, &set).await else {
        return Ok(());
    };
    if !matches!(&error, kube::Error::Api(status) if status.is_already_exists()) {
        return Err(error);
    }
    let controller = |set: &DynamicObject| {
        let mut owners = set.owner_references().iter();
        let owner = owners.find(|owner| owner.controller == Some(true));
        owner.map(|owner| owner.uid.clone())
    };
    // The answer to an earlier request may have been lost.
    let named = ListParams::default().fields(&format!("metadata.name={}", set.name_any()));
    let there = sets.list(&named).await?;
    let is_own = there.iter().any(|it| controller(it) == controller(&set));
    if is_own { Ok(()) } else { Err(error) }
}

/// What the API server can never take is told apart from what it refuses now.
fn invalid_revision(error: Error, hash: &str) -> Error {
    match error {
        Error::Refused {
            rollout, source, ..
        } if is_invalid(&source) => Error::InvalidRevision {
            rollout,
            hash: hash.to_owned(),
            source,
        },
        other => other,
    }
}

/// Whether an object breaks a rule of its kind, or cannot even be read as one. An admission policy answers
/// with `Invalid`, too, but names no field, and may allow the object tomorrow.
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

/// The test that a ReplicaSet is the one that was observed: one of the same name made since is another.
fn same(observation: &Observation, name: &str) -> Option<Value> {
    let set = seen(observation, name)?;
    Some(json!({ "op": "test", "path": "/metadata/uid", "value": set.uid }))
}

/// The ReplicaSet of this name as it was observed.
fn seen<'a>(observation: &'a Observation, name: &str) -> Option<&'a ReplicaSetSeen> {
    observation.replica_sets.iter().find(|set| set.name == name)
}

/// Takes over or gives up the ReplicaSet that was observed; one of the same name made since is another.
/// A strategic merge patch changes the one owner reference with this uid and leaves those of others.
fn ownership(seen: Option<&ReplicaSetSeen>, labels: &Value, owner: &Value) -> Value {
    let mut metadata = json!({ "labels": labels, "ownerReferences": [owner] });
    if let (Some(set), Some(metadata)) = (seen, metadata.as_object_mut()) {
        metadata.insert("uid".into(), json!(set.uid));
    }
    json!({ "metadata": metadata })
}

/// Scales the ReplicaSet that was observed, where it still has as many pods: one of the same name made since
/// is another.
fn scaling(observation: &Observation, name: &str, replicas: i32, revision: i64) -> Vec<Value> {
    let mut operations = Vec::new();
    let seen = seen(observation, name);
    if let Some(set) = seen {
        operations.extend([
            json!({ "op": "test", "path": "/metadata/uid", "value": set.uid }),
            json!({ "op": "test", "path": "/spec/replicas", "value": set.replicas }),
        ]);
    }
    operations.push(json!({ "op": "replace", "path": "/spec/replicas", "value": replicas }));
    // One that is not there was taken away, or was never written; then it is not missed.
    let annotate = |name: &str, value: String| {
        let place = format!("/metadata/annotations/{}", name.replace('/', "~1"));
        json!({ "op": "replace", "path": place, "value": value })
    };
    if seen.is_some_and(|set| set.asked.is_some()) {
        let asked = asked(replicas, observation).to_string();
        operations.push(annotate(ASKED_ANNOTATION, asked));
    }
    if seen.is_some_and(|set| set.revision > 0 && set.revision != revision) {
        operations.push(annotate(REVISION_ANNOTATION, revision.to_string()));
    }
    operations
}

/// What is noted on a ReplicaSet that is asked for as many pods.
fn asked(replicas: i32, observation: &Observation) -> Asked {
    let at = observation.now;
    Asked { replicas, at }
}

/// Points a Service at a revision, where it still points at the one that was seen.
fn selection(observation: &Observation, service: &str, hash: &str) -> Vec<Value> {
    let place = format!("/spec/selector/{HASH_LABEL}");
    match present::selected(observation, service) {
        Some(seen) => vec![
            json!({ "op": "test", "path": place, "value": seen }),
            json!({ "op": "replace", "path": place, "value": hash }),
        ],
        None if has_selector(observation, service) => {
            vec![json!({ "op": "add", "path": place, "value": hash })]
        }
        None => {
            // One that nobody set gets the pods' own labels, too, which stay when it is given back.
            let mut selector = observation.spec.selector.match_labels.clone();
            selector.insert(HASH_LABEL.to_owned(), hash.to_owned());
            vec![json!({ "op": "add", "path": "/spec/selector", "value": selector })]
        }
    }
}

fn has_selector(observation: &Observation, service: &str) -> bool {
    let seen = observation.services.get(service).and_then(Option::as_ref);
    seen.is_some_and(|it| !it.selector.is_empty())
}

/// The ReplicaSet of a revision. The template stays JSON, so that fields newer than this build survive.
fn replica_set(rollout: &Rollout, observation: &Observation, action: &Action) -> Value {
    let Action::CreateReplicaSet {
        name,
        hash,
        template_digest,
        revision,
        replicas,
        template,
    } = action
    else {
        return Value::Null;
    };
    let mut labels = json!(template.labels());
    let mut selector = json!(rollout.spec.selector.match_labels);
    for map in [&mut labels, &mut selector] {
        if let Some(map) = map.as_object_mut() {
            map.insert(HASH_LABEL.into(), json!(hash));
        }
    }
    let asked = asked(*replicas, observation);
    json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "labels": set_labels(rollout, template, hash),
            "annotations": annotations(template, template_digest, *revision, asked),
            "ownerReferences": [owner(rollout)],
        },
        "spec": {
            "replicas": replicas,
            "minReadySeconds": rollout.spec.min_ready_seconds,
            "selector": { "matchLabels": selector },
            "template": labelled(template, &labels),
        },
    })
}

/// The labels of a ReplicaSet: those of its pods, and by which it is found.
fn set_labels(rollout: &Rollout, template: &PodTemplate, hash: &str) -> Value {
    let mut labels = template.labels();
    labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGER.to_owned());
    labels.insert(
        ROLLOUT_UID_LABEL.to_owned(),
        rollout.uid().unwrap_or_default(),
    );
    json!(labels)
}

/// The Job of a smoke check: it tries once, and goes some time after its end.
fn job(rollout: &Rollout, action: &Action) -> Value {
    let Action::CreateJob {
        name,
        run,
        deadline,
        template,
    } = action
    else {
        return Value::Null;
    };
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "labels": { MANAGED_BY_LABEL: MANAGER, ROLLOUT_UID_LABEL: rollout.uid() },
            "annotations": { RUN_ANNOTATION: run },
            "ownerReferences": [owner(rollout)],
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": deadline.std().as_secs(),
            "ttlSecondsAfterFinished": JOB_KEPT,
            "template": template.0,
        },
    })
}

fn annotations(template: &PodTemplate, digest: &str, revision: i64, asked: Asked) -> Value {
    let mut annotations = json!({
        ASKED_ANNOTATION: asked.to_string(),
        TEMPLATE_DIGEST_ANNOTATION: digest,
        REVISION_ANNOTATION: revision.to_string(),
    });
    let text = template.0.to_string();
    if let Some(map) = annotations
        .as_object_mut()
        .filter(|_| text.len() <= MAX_TEMPLATE)
    {
        map.insert(TEMPLATE_ANNOTATION.into(), json!(text));
    }
    annotations
}

fn labelled(template: &PodTemplate, labels: &Value) -> Value {
    let mut template = template.0.clone();
    if let Some(template) = template.as_object_mut() {
        let metadata = template.entry("metadata").or_insert_with(|| json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("labels".into(), labels.clone());
        }
    }
    template
}
