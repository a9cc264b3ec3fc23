//! What belongs to a Rollout: its owner reference, and a ReplicaSet and a Job as the operator creates them.

use countersign_api::{
    GROUP, HASH_LABEL, MANAGED_BY_LABEL, MANAGER, PodTemplate, REQUESTED_ANNOTATION,
    REVISION_ANNOTATION, ROLLOUT_UID_LABEL, RUN_ANNOTATION, Rollout, TEMPLATE_ANNOTATION,
    TEMPLATE_DIGEST_ANNOTATION, VERSION,
};
use countersign_core::decision::{NewJob, NewReplicaSet};
use countersign_core::observation::workload::RequestedReplicas;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};

/// Largest template in bytes that is kept in an annotation; a larger one is not. Kubernetes limits all
/// annotations to 256 KiB.
pub(crate) const MAX_TEMPLATE: usize = 200_000;

/// `ttlSecondsAfterFinished` of a smoke check's Job: its pods and logs are kept for this many seconds.
const JOB_KEPT: i32 = 86_400;

/// The owner reference to a Rollout.
pub(crate) fn owner(rollout: &Rollout) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": "Rollout",
        "name": rollout.name_any(),
        "uid": rollout.uid(),
        "controller": true,
    })
}

/// The ReplicaSet of a revision. The template stays JSON, so that fields newer than this build survive.
pub(crate) fn replica_set(rollout: &Rollout, now: Timestamp, new: &NewReplicaSet) -> Value {
    let template = &new.template;
    let mut labels = json!(template.labels());
    let mut selector = json!(rollout.spec.selector.match_labels);
    for map in [&mut labels, &mut selector] {
        if let Some(map) = map.as_object_mut() {
            map.insert(HASH_LABEL.into(), json!(new.hash));
        }
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": new.name,
            "labels": set_labels(rollout, template, &new.hash),
            "annotations": annotations(new, now),
            "ownerReferences": [owner(rollout)],
        },
        "spec": {
            "replicas": new.replicas,
            "minReadySeconds": rollout.spec.min_ready_seconds,
            "selector": { "matchLabels": selector },
            "template": labelled(template, &labels),
        },
    })
}

/// The Job of a smoke check: a single attempt, deleted some time after its end.
pub(crate) fn job(rollout: &Rollout, new: &NewJob) -> Value {
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": new.name,
            "labels": { MANAGED_BY_LABEL: MANAGER, ROLLOUT_UID_LABEL: rollout.uid() },
            "annotations": { RUN_ANNOTATION: new.run },
            "ownerReferences": [owner(rollout)],
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": new.deadline.std().as_secs(),
            "ttlSecondsAfterFinished": JOB_KEPT,
            "template": new.template.0,
        },
    })
}

/// The labels of a ReplicaSet: those of its pods, and those by which it is listed.
pub(crate) fn set_labels(rollout: &Rollout, template: &PodTemplate, hash: &str) -> Value {
    let mut labels = template.labels();
    labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGER.to_owned());
    labels.insert(
        ROLLOUT_UID_LABEL.to_owned(),
        rollout.uid().unwrap_or_default(),
    );
    json!(labels)
}

/// The stored pod template of a Deployment or ReplicaSet, without fields that controllers and some API servers add.
pub(crate) fn stored_template(mut template: Value) -> PodTemplate {
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        if metadata.get("creationTimestamp") == Some(&Value::Null) {
            metadata.remove("creationTimestamp");
        }
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.remove(HASH_LABEL);
        }
    }
    PodTemplate(template)
}

fn annotations(new: &NewReplicaSet, at: Timestamp) -> Value {
    let replicas = new.replicas;
    let requested = RequestedReplicas { replicas, at };
    let mut annotations = json!({
        REQUESTED_ANNOTATION: requested.to_string(),
        TEMPLATE_DIGEST_ANNOTATION: new.template_digest,
        REVISION_ANNOTATION: new.revision.to_string(),
    });
    let text = new.template.0.to_string();
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
