//! What is kept of Rollouts, ReplicaSets and Jobs.
//!
//! Of a ReplicaSet whose stored template is the recorded one, apart from defaults, the recorded one is kept. Of any other
//! no template is kept, so it is read, and then compared with what was decided. So is a Job that has ended.

use countersign_api::{
    GROUP, PodTemplate, REQUESTED_ANNOTATION, REVISION_ANNOTATION, ROLLOUT_UID_LABEL,
    TEMPLATE_ANNOTATION, TEMPLATE_DIGEST_ANNOTATION,
};
use countersign_core::risk;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::PartialObjectMeta;
use serde_json::{Map, Value, json};

use crate::owned;
use crate::watch::cache::Cached;
use crate::watch::changes::Pods;
use crate::watch::claim::Claim;

/// The manifest that client-side apply keeps.
pub(super) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

impl Cached for Claim {
    fn prune(mut rollout: Value) -> Value {
        let metadata = rollout.get_mut("metadata").and_then(Value::as_object_mut);
        if let Some(metadata) = metadata {
            metadata.remove("managedFields");
            let annotations = metadata.get_mut("annotations");
            if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
                annotations.remove(LAST_APPLIED);
            }
        }
        rollout
    }

    fn of(&self) -> Option<String> {
        rollout(&self.metadata)
    }
}

impl Cached for Pods {
    fn prune(set: Value) -> Value {
        let mut annotations = vec![
            TEMPLATE_DIGEST_ANNOTATION,
            REVISION_ANNOTATION,
            REQUESTED_ANNOTATION,
        ];
        if is_as_recorded(&set) {
            annotations.push(TEMPLATE_ANNOTATION);
        }
        let annotations = pick(set.pointer("/metadata/annotations"), &annotations);
        let fields = [
            "name",
            "namespace",
            "uid",
            "resourceVersion",
            "deletionTimestamp",
            "labels",
            "ownerReferences",
        ];
        let mut metadata = pick(set.get("metadata"), &fields);
        metadata.insert("annotations".to_owned(), Value::Object(annotations));
        let mut spec = pick(set.get("spec"), &["replicas", "minReadySeconds"]);
        let labels = pick(set.pointer("/spec/template/metadata"), &["labels"]);
        spec.insert("template".to_owned(), json!({ "metadata": labels }));
        let fields = [
            "replicas",
            "readyReplicas",
            "availableReplicas",
            "conditions",
        ];
        let status = pick(set.get("status"), &fields);
        json!({ "metadata": metadata, "spec": spec, "status": status })
    }

    fn of(&self) -> Option<String> {
        rollout_of_set(self.meta())
    }
}

impl Cached for PartialObjectMeta<Job> {
    /// The spec is compared while the Job runs. What follows from its end is decided from live reads.
    fn prune(job: Value) -> Value {
        let fields = [
            "name",
            "namespace",
            "uid",
            "deletionTimestamp",
            "ownerReferences",
        ];
        let metadata = pick(job.get("metadata"), &fields);
        let status = pick(job.get("status"), &["conditions"]);
        let mut kept = if has_ended(&job) {
            Map::new()
        } else {
            pick(Some(&job), &["spec"])
        };
        kept.insert("metadata".to_owned(), Value::Object(metadata));
        kept.insert("status".to_owned(), Value::Object(status));
        Value::Object(kept)
    }

    fn of(&self) -> Option<String> {
        rollout_of_label(&self.metadata)
    }
}

/// The uid of a Rollout.
pub(super) fn rollout(metadata: &ObjectMeta) -> Option<String> {
    metadata.uid.clone()
}

/// The uid of the Rollout to which a ReplicaSet belongs: its controller, or else that of its label.
pub(super) fn rollout_of_set(metadata: &ObjectMeta) -> Option<String> {
    let mut owners = metadata.owner_references.iter().flatten();
    match owners.find(|owner| owner.controller == Some(true)) {
        Some(owner) => {
            let (group, _) = owner.api_version.split_once('/').unwrap_or_default();
            (owner.kind == "Rollout" && group == GROUP).then(|| owner.uid.clone())
        }
        None => rollout_of_label(metadata),
    }
}

/// The uid of the Rollout by whose label an object is listed.
pub(super) fn rollout_of_label(metadata: &ObjectMeta) -> Option<String> {
    metadata.labels.as_ref()?.get(ROLLOUT_UID_LABEL).cloned()
}

fn has_ended(job: &Value) -> bool {
    let conditions = job.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        let field = |name: &str| condition.get(name).and_then(Value::as_str);
        matches!(field("type"), Some("Complete" | "Failed")) && field("status") == Some("True")
    })
}

/// Whether the stored template of a ReplicaSet differs from the recorded one by defaults alone.
fn is_as_recorded(set: &Value) -> bool {
    let recorded = || {
        let annotations = set.pointer("/metadata/annotations")?;
        let recorded = annotations.get(TEMPLATE_ANNOTATION)?.as_str()?;
        serde_json::from_str(recorded).ok().map(PodTemplate)
    };
    let stored = set.pointer("/spec/template");
    stored.zip(recorded()).is_some_and(|(stored, recorded)| {
        let stored = owned::stored_template(stored.clone());
        risk::differences(Some(&recorded), &stored).is_empty()
    })
}

/// These fields, as far as the object has them.
fn pick(object: Option<&Value>, fields: &[&str]) -> Map<String, Value> {
    let fields = fields.iter().filter_map(|name| {
        let value = object?.get(*name)?.clone();
        Some(((*name).to_owned(), value))
    });
    fields.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(image: &str) -> Value {
        let recorded = json!({
            "metadata": { "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "app", "image": "web:1" }] },
        });
        json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": "web-abc", "namespace": "shop", "uid": "1", "resourceVersion": "7",
                "labels": { "app": "web" },
                "annotations": {
                    TEMPLATE_ANNOTATION: recorded.to_string(), TEMPLATE_DIGEST_ANNOTATION: "d",
                    "note": "of no use",
                },
                "managedFields": [{ "manager": "countersign" }],
            },
            "spec": {
                "replicas": 2,
                "template": {
                    "metadata": { "creationTimestamp": null, "labels": { "app": "web", "pod-template-hash": "abc" } },
                    "spec": { "containers": [{ "name": "app", "image": image }], "restartPolicy": "Always" },
                },
            },
            "status": { "replicas": 2, "availableReplicas": 1, "observedGeneration": 3 },
        })
    }

    #[test]
    fn the_template_of_a_replica_set_is_kept_only_if_it_is_the_recorded_one() {
        let kept = Pods::prune(set("web:1"));
        let recorded = kept["metadata"]["annotations"][TEMPLATE_ANNOTATION].as_str();
        assert!(recorded.is_some_and(|it| it.contains("web:1")), "{kept}");
        assert_eq!(kept["metadata"].get("managedFields"), None);
        assert_eq!(kept["metadata"]["annotations"].get("note"), None);
        assert_eq!(kept.pointer("/spec/template/spec"), None);
        let hash = kept.pointer("/spec/template/metadata/labels/pod-template-hash");
        assert_eq!(hash, Some(&json!("abc")));
        assert_eq!(
            kept["status"],
            json!({ "replicas": 2, "availableReplicas": 1 })
        );

        let edited = Pods::prune(set("evil:1"));
        assert_eq!(
            edited["metadata"]["annotations"],
            json!({ TEMPLATE_DIGEST_ANNOTATION: "d" })
        );
        assert!(!edited.to_string().contains("evil:1"), "{edited}");
    }

    #[test]
    fn a_rollout_is_kept_whole_but_for_what_nobody_reads() {
        let rollout = json!({
            "metadata": {
                "name": "web", "annotations": { LAST_APPLIED: "{}", "note": "kept" },
                "managedFields": [{ "manager": "kubectl" }],
            },
            "spec": { "fieldOfTomorrow": 1 }, "status": { "phase": "Dreaming" },
        });
        let kept = json!({
            "metadata": { "name": "web", "annotations": { "note": "kept" } },
            "spec": { "fieldOfTomorrow": 1 }, "status": { "phase": "Dreaming" },
        });
        assert_eq!(Claim::prune(rollout), kept);
    }

    #[test]
    fn the_spec_of_a_job_is_kept_while_it_runs() {
        let job = |conditions: Value| {
            let job = json!({
                "apiVersion": "batch/v1", "kind": "Job",
                "metadata": {
                    "name": "web-smoke", "uid": "1", "labels": { ROLLOUT_UID_LABEL: "web" },
                    "managedFields": [{ "manager": "countersign" }],
                },
                "spec": { "backoffLimit": 0, "fieldOfTomorrow": 1 },
                "status": { "active": 1, "conditions": conditions },
            });
            let metadata: PartialObjectMeta<Job> = serde_json::from_value(job.clone()).unwrap();
            assert_eq!(metadata.of().as_deref(), Some("web"));
            PartialObjectMeta::<Job>::prune(job)
        };
        let metadata = json!({ "name": "web-smoke", "uid": "1" });
        for kind in ["Complete", "Failed", "Suspended"] {
            let ended = json!([{ "type": kind, "status": "True" }]);
            let kept = job(ended.clone());
            assert_eq!(kept["metadata"], metadata);
            assert_eq!(kept["status"], json!({ "conditions": ended }));
            assert_eq!(kept.get("spec").is_some(), kind == "Suspended", "{kind}");
        }
        let running = job(json!([{ "type": "Complete", "status": "False" }]));
        let spec = json!({ "backoffLimit": 0, "fieldOfTomorrow": 1 });
        assert_eq!(running["spec"], spec);
    }

    #[test]
    fn a_replica_set_belongs_to_its_controller_or_else_to_the_rollout_of_its_label() {
        let metadata = |owner: Value| -> ObjectMeta {
            serde_json::from_value(json!({
                "labels": { ROLLOUT_UID_LABEL: "of the label" }, "ownerReferences": owner,
            }))
            .unwrap()
        };
        let owner = |group: &str, kind: &str| {
            metadata(json!([{
                "apiVersion": format!("{group}/v1"), "kind": kind, "name": "web", "uid": "owner", "controller": true,
            }]))
        };
        let own = rollout_of_set(&owner(GROUP, "Rollout"));
        assert_eq!(own.as_deref(), Some("owner"));
        assert_eq!(rollout_of_set(&owner("apps", "Deployment")), None);
        assert_eq!(rollout_of_set(&owner("argoproj.io", "Rollout")), None);
        let none = rollout_of_set(&metadata(json!([])));
        assert_eq!(none.as_deref(), Some("of the label"));
    }
}
