//! Whether a ReplicaSet still has the template that was decided.
//!
//! The recorded template is trusted by the digest in the status, which the operator alone writes. What is stored
//! differs from it by defaults of the API server, and by what admission webhooks changed. A dry run shows what they
//! make of the recorded template today; only where that differs too, somebody else has edited the ReplicaSet.

use countersign_api::{MANAGER, PodTemplate, Rollout, TEMPLATE_ANNOTATION};
use countersign_core::decision::NewReplicaSet;
use countersign_core::field_managers;
use countersign_core::observation::workload::{Edit, Integrity, ReplicaSet};
use countersign_core::provenance::digest::{is_hash_of, template_digest};
use countersign_core::risk;
use k8s_openapi::api::apps::v1::ReplicaSet as ApiReplicaSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::ResourceExt;
use kube::api::PostParams;
use kube::core::DynamicObject;

use super::dry_runs::DryRun;
use super::observer::Observer;
use super::people::in_time;
use crate::api_resource::untyped;
use crate::clock;
use crate::owned;

/// The pod template in managed fields.
const TEMPLATE: &str = "/f:spec/f:template";

/// The result of a comparison without a dry run.
pub(super) enum Compared {
    /// It is known.
    As(Integrity),
    /// Defaults do not explain it.
    Differs(Difference),
}

/// A stored template that differs from the recorded one.
pub(super) struct Difference {
    /// The digest of the stored template.
    stored: String,
    /// The kinds of differences, in words.
    kinds: String,
    /// Who wrote what of the ReplicaSet.
    fields: Vec<ManagedFieldsEntry>,
}

impl Observer {
    /// What a difference means: an edit, unless a dry run gives the same template.
    pub(super) async fn integrity(
        &self,
        rollout: &Rollout,
        namespace: &str,
        own: &ReplicaSet,
        difference: Difference,
    ) -> Integrity {
        let Difference {
            stored,
            kinds,
            fields,
        } = difference;
        if !is_used(rollout, own) {
            let message =
                "it is not in use, so no dry run has shown what admission makes of its template";
            return Integrity::Unverified {
                message: message.into(),
            };
        }
        let Decided {
            digest: recorded,
            stored: kept,
            is_named,
        } = decided(rollout, own);
        // Builds before this one compared nothing, and a webhook may answer otherwise by now.
        if is_named && kept.is_none() && field_managers::is_written_by_us_alone(&fields, TEMPLATE) {
            return Integrity::Admitted { digest: stored };
        }
        let is_same = if let Some(is_same) = self.dry_runs.known(&own.uid, recorded, &stored) {
            is_same
        } else {
            let made = self.dry_run(rollout, namespace, own);
            let made = match in_time("what admission makes of its template", made).await {
                Ok(made) => made,
                Err(message) => return Integrity::Unverified { message },
            };
            let answer = DryRun {
                recorded: recorded.to_owned(),
                is_same: template_digest(&made) == stored,
                stored: stored.clone(),
            };
            let is_same = answer.is_same;
            self.dry_runs.keep(&own.uid, answer);
            is_same
        };
        if is_same {
            return Integrity::Admitted { digest: stored };
        }
        edited(&fields, format!("template ({kinds})"), TEMPLATE)
    }

    /// What admission makes of the recorded template of a ReplicaSet today. Nothing is stored.
    async fn dry_run(
        &self,
        rollout: &Rollout,
        namespace: &str,
        own: &ReplicaSet,
    ) -> Result<PodTemplate, kube::Error> {
        let new = NewReplicaSet {
            name: String::new(),
            hash: own.hash.clone(),
            template_digest: own.template_digest.clone(),
            revision: own.revision,
            replicas: 0,
            template: own.template.clone(),
        };
        let body = owned::replica_set(rollout, clock::now(), &new);
        let body = serde_json::from_value(body).map_err(kube::Error::SerdeError);
        let mut body: DynamicObject = body?;
        body.metadata.name = None;
        body.metadata.generate_name = Some(format!("{}-", rollout.name_any()));
        let sets = untyped::<ApiReplicaSet>(&self.client, namespace);
        let parameters = PostParams {
            dry_run: true,
            field_manager: Some(MANAGER.into()),
        };
        let made = sets.create(&parameters, &body).await?;
        Ok(stored_template(&made).unwrap_or_default())
    }
}

/// What the operator decided about the revision of a ReplicaSet.
struct Decided<'a> {
    /// The digest of its template.
    digest: &'a str,
    /// The digest of the template as admission had changed it, empty if it had not; `None` if it was never compared.
    stored: Option<&'a str>,
    /// Whether the status names the revision; otherwise the digest is the ReplicaSet's own claim.
    is_named: bool,
}

impl Decided<'_> {
    /// Whether a recorded template of a ReplicaSet is what was decided. What no revision names has its digest from an
    /// annotation, which may have been edited with the template. Its hash is in its selector, which never changes.
    fn is(&self, rollout: &Rollout, own: &ReplicaSet, template: &PodTemplate) -> bool {
        let collisions = rollout.status.as_ref().map_or(0, |it| it.collision_count);
        let mut collisions = 0..=collisions;
        template_digest(template) == self.digest
            && (self.is_named || collisions.any(|it| is_hash_of(&own.hash, template, it)))
    }
}

fn decided<'a>(rollout: &'a Rollout, own: &'a ReplicaSet) -> Decided<'a> {
    let status = rollout.status.as_ref();
    let stable = status.and_then(|it| it.stable.as_ref());
    let change = status.and_then(|it| it.change.as_ref());
    let previous = change.and_then(|it| it.previous.as_ref());
    let revisions = stable.into_iter().chain(previous);
    let revisions = revisions.map(|it| {
        let stored = it.stored_template_digest.as_deref();
        (&it.pod_template_hash, &it.template_digest, stored)
    });
    let change = change.map(|it| {
        let stored = it.stored_template_digest.as_deref();
        (&it.pod_template_hash, &it.template_digest, stored)
    });
    let mut named = revisions.chain(change);
    let named = named.find(|(hash, ..)| **hash == own.hash);
    named.map_or(
        Decided {
            digest: &own.template_digest,
            stored: None,
            is_named: false,
        },
        |(_, digest, stored)| Decided {
            digest: digest.as_str(),
            stored,
            is_named: true,
        },
    )
}

/// Whether it matters what a ReplicaSet runs: it has pods, belongs to a revision in use, or could be used next.
fn is_used(rollout: &Rollout, own: &ReplicaSet) -> bool {
    let template = &rollout.spec.template;
    let is_next = || !template.is_absent() && template_digest(template) == own.template_digest;
    own.has_pods() || decided(rollout, own).is_named || is_next()
}

/// Whether a ReplicaSet is as it was decided by what its watch has kept of it, which is the recorded template only if the
/// stored one is the same. Any other has to be read.
pub(super) fn is_as_decided(rollout: &Rollout, own: &ReplicaSet, set: &DynamicObject) -> bool {
    let annotated = set.annotations().contains_key(TEMPLATE_ANNOTATION);
    annotated && decided(rollout, own).is(rollout, own, &own.template)
}

/// Compares the stored template of a ReplicaSet with the recorded one.
pub(super) fn compared(rollout: &Rollout, own: &ReplicaSet, set: &DynamicObject) -> Compared {
    let decided = decided(rollout, own);
    // Without a digest it is not one that the operator made, and no revision is found by it.
    if decided.digest.is_empty() {
        return Compared::As(Integrity::Sound);
    }
    let stored = stored_template(set).unwrap_or_default();
    let stored_digest = template_digest(&stored);
    let is_it = |template: &PodTemplate| decided.is(rollout, own, template);
    let annotated = set.annotations().contains_key(TEMPLATE_ANNOTATION);
    let is_recorded = is_it(&own.template);
    let is_stored = decided.stored == Some(stored_digest.as_str());
    if is_stored && (is_recorded || !annotated) {
        return Compared::As(Integrity::Sound);
    }
    if is_recorded {
        let kinds = risk::differences(Some(&own.template), &stored);
        if kinds.is_empty() {
            return Compared::As(Integrity::Sound);
        }
        return Compared::Differs(Difference {
            stored: stored_digest,
            kinds: risk::names_of(&kinds),
            fields: set.managed_fields().to_vec(),
        });
    }
    // A template that is too large for the annotation is verified by the digest that the status keeps of it.
    let is_large = |template: &PodTemplate| template.0.to_string().len() > owned::MAX_TEMPLATE;
    if !annotated && is_large(&stored) {
        let desired = &rollout.spec.template;
        let alike = risk::differences(Some(desired), &stored).is_empty();
        return Compared::As(if is_it(desired) && is_large(desired) && alike {
            Integrity::Admitted {
                digest: stored_digest,
            }
        } else {
            Integrity::Unverified {
                message: "its template is too large to be kept in an annotation, and the Rollout has another one by now".into(),
            }
        });
    }
    let what = format!("annotation {TEMPLATE_ANNOTATION}");
    let name = TEMPLATE_ANNOTATION.replace('/', "~1");
    let field = format!("/f:metadata/f:annotations/f:{name}");
    Compared::As(edited(set.managed_fields(), what, &field))
}

/// An edit of a field, with its last other writer.
fn edited(fields: &[ManagedFieldsEntry], what: String, field: &str) -> Integrity {
    let writer = field_managers::editor(fields, field);
    let (writer, at) = writer.map_or((None, None), |it| (Some(it.name), it.at));
    Integrity::Edited(Edit { what, writer, at })
}

/// The stored pod template of a Deployment or ReplicaSet.
pub(super) fn stored_template(object: &DynamicObject) -> Option<PodTemplate> {
    let template = object.data.pointer("/spec/template")?;
    Some(owned::stored_template(template.clone()))
}

#[cfg(test)]
mod tests {
    use countersign_core::provenance::digest::pod_template_hash;
    use serde_json::{Value, json};

    use super::*;

    fn template(image: &str) -> Value {
        json!({
            "metadata": { "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "app", "image": image }] },
        })
    }

    /// A ReplicaSet made of a template, as the API server stores it.
    fn stored(image: &str) -> DynamicObject {
        let recorded = template(image);
        let digest = template_digest(&PodTemplate(recorded.clone()));
        let mut stored = recorded.clone();
        stored["metadata"]["creationTimestamp"] = Value::Null;
        stored["metadata"]["labels"]["pod-template-hash"] = json!("abc");
        stored["spec"]["restartPolicy"] = json!("Always");
        serde_json::from_value(json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": "web-abc", "uid": "1", "labels": { "pod-template-hash": "abc" },
                "annotations": {
                    "countersign.dev/template": recorded.to_string(),
                    "countersign.dev/template-digest": digest,
                },
                "managedFields": [
                    written("countersign", "2026-01-01T00:00:00Z"), written("kubectl-patch", "2026-01-02T00:00:00Z"),
                ],
            },
            "spec": { "replicas": 1, "template": stored },
        }))
        .unwrap()
    }

    fn written(manager: &str, at: &str) -> Value {
        json!({
            "manager": manager, "operation": "Update", "time": at, "fieldsV1": {
                "f:spec": { "f:template": {} },
                "f:metadata": { "f:annotations": { "f:countersign.dev/template": {} } },
            },
        })
    }

    /// A Rollout whose stable revision has this template.
    fn rollout(image: &str) -> Rollout {
        let template = template(image);
        serde_json::from_value(json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "Rollout", "metadata": { "name": "web" },
            "spec": { "template": template, "selector": { "matchLabels": { "app": "web" } } },
            "status": { "stable": {
                "podTemplateHash": "abc", "templateDigest": template_digest(&PodTemplate(template.clone())),
                "digest": "", "revision": 1,
            } },
        }))
        .unwrap()
    }

    fn result(rollout: &Rollout, set: &DynamicObject) -> Compared {
        let own = super::super::replica_sets::replica_set(rollout, "", set).unwrap();
        compared(rollout, &own, set)
    }

    fn edit_of(compared: Compared) -> Edit {
        match compared {
            Compared::As(Integrity::Edited(edit)) => edit,
            Compared::As(other) => panic!("{other:?}"),
            Compared::Differs(difference) => panic!("{}", difference.kinds),
        }
    }

    #[test]
    fn what_differs_by_defaults_alone_is_as_it_was_decided() {
        let found = result(&rollout("web:1"), &stored("web:1"));
        assert!(matches!(found, Compared::As(Integrity::Sound)));
    }

    #[test]
    fn another_image_is_a_difference_unless_the_status_keeps_its_digest() {
        let mut set = stored("web:1");
        set.data["spec"]["template"]["spec"]["containers"][0]["image"] = json!("proxy/web:1");
        let mut rollout = rollout("web:1");
        let Compared::Differs(Difference { stored, kinds, .. }) = result(&rollout, &set) else {
            panic!("it is taken for the decided one");
        };
        assert_eq!(kinds, "image");
        let status = rollout.status.as_mut().unwrap();
        status.stable.as_mut().unwrap().stored_template_digest = Some(stored);
        let found = result(&rollout, &set);
        assert!(matches!(found, Compared::As(Integrity::Sound)));
    }

    #[test]
    fn what_no_revision_names_is_known_by_its_hash_and_not_by_its_own_claim() {
        let rollout = rollout("web:2");
        let claims = |hash: &str| {
            let mut set = stored("web:1");
            set.data["spec"]["template"]["metadata"]["labels"]["pod-template-hash"] = json!(hash);
            result(&rollout, &set)
        };
        let edit = edit_of(claims("another"));
        assert_eq!(edit.what, "annotation countersign.dev/template");
        let own = pod_template_hash(&PodTemplate(template("web:1")), 0);
        for own in [&own, &own[..10]] {
            assert!(matches!(claims(own), Compared::As(Integrity::Sound)));
        }
        let edit = edit_of(claims(&own[..9]));
        assert_eq!(edit.what, "annotation countersign.dev/template");
    }

    #[test]
    fn an_edited_annotation_is_an_edit_though_the_template_is_as_admitted() {
        let set = stored("evil:1");
        let mut rollout = rollout("web:1");
        let admitted = template_digest(&stored_template(&set).unwrap());
        let stable = rollout.status.as_mut().unwrap().stable.as_mut().unwrap();
        stable.stored_template_digest = Some(admitted);
        let edit = edit_of(result(&rollout, &set));
        assert_eq!(edit.what, "annotation countersign.dev/template");
    }

    #[test]
    fn a_record_that_the_status_does_not_confirm_is_an_edit() {
        let of_another = stored("evil:1");
        let edit = edit_of(result(&rollout("web:1"), &of_another));
        assert_eq!(edit.what, "annotation countersign.dev/template");
        assert_eq!(edit.writer.as_deref(), Some("kubectl-patch"));
        assert!(edit.at.is_some());
        let mut removed = stored("web:1");
        removed.annotations_mut().remove(TEMPLATE_ANNOTATION);
        assert_eq!(edit_of(result(&rollout("web:1"), &removed)), edit);
    }
}
