//! Reads the adopted workload of a Rollout, and what a deletion waits for.

use countersign_api::{
    GROUP, HASH_LABEL, KEEP_FINALIZER, MANAGED_BY_LABEL, PROVENANCE_PREFIX, PodTemplate,
    ROLLOUT_UID_LABEL, Rollout, Selector, TEMPLATE_DIGEST_ANNOTATION,
};
use countersign_core::field_managers;
use countersign_core::observation::Observation;
use countersign_core::observation::workload::{Autoscaler, Deletion, Unusable, Workload};
use countersign_core::provenance::digest;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ListParams, ObjectMeta};
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use serde_json::Value;

use super::integrity::stored_template;
use super::observer::Observer;
use super::people::in_time;
use super::reads::{self, tried};
use super::replica_sets::as_recorded;
use crate::api_resource::untyped;
use crate::api_server::sentence;

/// Most autoscalers of a namespace that are read; a further one is not reported.
const MOST_AUTOSCALERS: usize = 500;

fn has_finalizer(rollout: &Rollout) -> bool {
    rollout.finalizers().iter().any(|it| it == KEEP_FINALIZER)
}

impl Observer {
    /// Fills in what the deletion of a Rollout waits for.
    pub(super) fn deletion(&self, rollout: &Rollout, observation: &mut Observation) {
        let namespace = ObjectRef::<PartialObjectMeta<Namespace>>::new(&observation.namespace);
        let namespace = self.caches.namespaces.get(&namespace);
        let since = rollout.metadata.deletion_timestamp.as_ref();
        observation.deleting = since.is_some();
        observation.deletion = Deletion {
            awaited: has_finalizer(rollout),
            since: since.map(|at| at.0),
            namespace_ends: namespace.is_some_and(|it| it.metadata.deletion_timestamp.is_some()),
        };
    }

    /// Reads the referenced workload and fills in the Rollout's template, selector and, if it has none of
    /// its own, provenance.
    ///
    /// If the workload cannot be used, the template stays absent and the selector is the last known one,
    /// so that pods are found and a change in progress continues.
    pub(super) async fn adopt(
        &self,
        rollout: &mut Rollout,
        namespace: &str,
    ) -> Result<Option<Result<Workload, Unusable>>, kube::Error> {
        let Some(reference) = rollout.spec.workload_ref.clone() else {
            return Ok(None);
        };
        let known = known_selector(rollout);
        let deployment = match self.deployment(namespace, &reference.name).await {
            Ok(deployment) => deployment,
            Err(unusable) => {
                rollout.spec.selector = known;
                return Ok(Some(Err(unusable)));
            }
        };
        let (template, selector) = match parts(&deployment, &known) {
            Ok(parts) => parts,
            Err(message) => {
                rollout.spec.selector = known;
                return Ok(Some(Err(Unusable::Unfit { message })));
            }
        };
        rollout.spec.selector = selector;
        rollout.spec.template = self.settled(rollout, namespace, template).await?;
        inherit_provenance(rollout, &deployment.metadata);
        let mut workload = workload(&deployment);
        workload.autoscalers = self.autoscalers(namespace, rollout, &workload.name).await;
        Ok(Some(Ok(workload)))
    }

    /// Reads a dynamic object, so that template fields newer than this build are kept.
    async fn deployment(&self, namespace: &str, name: &str) -> Result<DynamicObject, Unusable> {
        let api = untyped::<Deployment>(&self.client, namespace);
        match tried(|| api.get_opt(name)).await {
            Ok(Some(found)) if found.metadata.deletion_timestamp.is_none() => Ok(found),
            Ok(_) => Err(Unusable::Missing),
            // Any error is reported as unusable: a rollback must not depend on this read.
            Err(error) => Err(Unusable::Unreadable {
                message: sentence(&error),
            }),
        }
    }

    /// The template, or that of a revision if the two differ only by the API server's defaults: a newer
    /// API server adds new defaults to stored objects, which is no change. It adds the same to the
    /// revision's ReplicaSet.
    async fn settled(
        &self,
        rollout: &Rollout,
        namespace: &str,
        template: PodTemplate,
    ) -> Result<PodTemplate, kube::Error> {
        let status = rollout.status.as_ref();
        let stable = status.and_then(|it| Some(&it.stable.as_ref()?.template_digest));
        let change = status.and_then(|it| Some(&it.change.as_ref()?.template_digest));
        let known: Vec<_> = [stable, change].into_iter().flatten().collect();
        if known.is_empty() || known.contains(&&digest::template_digest(&template)) {
            return Ok(template);
        }
        let uid = rollout.uid().unwrap_or_default();
        let selector = format!("{ROLLOUT_UID_LABEL}={uid}");
        let same = |set: &DynamicObject| {
            let digest = set.annotations().get(TEMPLATE_DIGEST_ANNOTATION)?;
            let recorded = as_recorded(set);
            let sound = known.contains(&digest) && digest::template_digest(&recorded) == *digest;
            let alike = stored_template(set)? == template;
            (sound && alike).then_some(recorded)
        };
        let same = self.first_of_sets(namespace, &selector, same).await?;
        Ok(same.unwrap_or(template))
    }

    /// The autoscalers that target the workload or the Rollout. They are only reported, so a failed read
    /// is no error.
    async fn autoscalers(
        &self,
        namespace: &str,
        rollout: &Rollout,
        workload: &str,
    ) -> Vec<Autoscaler> {
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(self.client.clone(), namespace);
        let name = rollout.name_any();
        let targeting = |it: HorizontalPodAutoscaler| {
            let target = &it.spec.scale_target_ref;
            let group = target.api_version.as_deref().unwrap_or_default();
            let ours = target.kind == "Rollout" && group.starts_with(GROUP);
            let targets_rollout = ours && target.name == name;
            let targets_workload = target.kind == "Deployment" && target.name == workload;
            (targets_rollout || targets_workload).then(|| Autoscaler {
                name: it.name_any(),
                targets_rollout,
            })
        };
        let of = ListParams::default().limit(reads::LARGE);
        let found = reads::collect_at_most(MOST_AUTOSCALERS, &api, &of, targeting);
        let mut autoscalers = match in_time("the autoscalers of a namespace", found).await {
            Ok((found, _)) => found,
            Err(error) => {
                tracing::warn!(%error, %namespace);
                return Vec::new();
            }
        };
        autoscalers.sort_by(|a, b| a.name.cmp(&b.name));
        autoscalers
    }
}

/// The last known selector of the Rollout's pods.
fn known_selector(rollout: &Rollout) -> Selector {
    let known = rollout.status.as_ref().map(|status| &status.selector);
    let pairs = known.into_iter().flat_map(|text| text.split(','));
    let pairs = pairs.filter_map(|pair| pair.split_once('='));
    Selector {
        match_labels: pairs
            .map(|(key, value)| (key.into(), value.into()))
            .collect(),
    }
}

/// Keeps the selector of the Rollout's pods, and returns the problem, if the spec has another one. The API server
/// refuses an edit of the selector, but not one by way of an adopted workload, after which the present pods would be
/// released and serve on without an owner.
pub(super) fn keep_selector(rollout: &mut Rollout) -> Option<String> {
    let known = known_selector(rollout);
    let named = &rollout.spec.selector;
    if known.is_empty() || known == *named {
        return None;
    }
    let problem = format!(
        "spec.selector selects pods with {named}, and those of this Rollout have {known}: put it back, or delete the Rollout and create it again"
    );
    rollout.spec.selector = known;
    Some(problem)
}

/// Template and selector of a Deployment, or why a Rollout cannot use them.
fn parts(deployment: &DynamicObject, known: &Selector) -> Result<(PodTemplate, Selector), String> {
    let selector = deployment.data.pointer("/spec/selector");
    let member = |name: &str| selector.and_then(|it| it.get(name));
    let expressions = member("matchExpressions").and_then(Value::as_array);
    if expressions.is_some_and(|it| !it.is_empty()) {
        return Err(
            "selects its pods by matchExpressions, which a Rollout cannot: recreate it with matchLabels alone".into(),
        );
    }
    let labels = member("matchLabels").and_then(Value::as_object);
    let labels = labels.into_iter().flatten();
    let labels = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    let selector = Selector {
        match_labels: labels.collect(),
    };
    for own in [HASH_LABEL, MANAGED_BY_LABEL] {
        if selector.match_labels.contains_key(own) {
            return Err(format!(
                "selects its pods by {own}, which the controller sets itself: recreate it with another selector"
            ));
        }
    }
    if !known.is_empty() && *known != selector {
        return Err(format!(
            "selects pods with {selector}, but those of this Rollout have {known}: delete and recreate the Rollout, or name another Deployment"
        ));
    }
    let template = stored_template(deployment).unwrap_or_default();
    if selector.is_empty() || !selector.matches(&template.labels()) {
        return Err(format!(
            "has a pod template without the labels that it selects by ({selector})"
        ));
    }
    Ok((template, selector))
}

/// Provenance may be on either object; that of the Rollout, if any, replaces the Deployment's as a whole.
fn inherit_provenance(rollout: &mut Rollout, deployment: &ObjectMeta) {
    let provenance = |key: &str| key.starts_with(PROVENANCE_PREFIX);
    if rollout.annotations().keys().any(|key| provenance(key)) {
        return;
    }
    let inherited = deployment.annotations.iter().flatten();
    let inherited = inherited.filter(|(key, _)| provenance(key));
    let inherited: Vec<_> = inherited
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    rollout.annotations_mut().extend(inherited);
}

fn workload(deployment: &DynamicObject) -> Workload {
    let number = |path: &str| deployment.data.pointer(path).and_then(Value::as_i64);
    let pods = |path: &str, otherwise: i64| {
        i32::try_from(number(path).unwrap_or(otherwise)).unwrap_or(i32::MAX)
    };
    let fields = deployment.metadata.managed_fields.as_deref();
    Workload {
        name: deployment.name_any(),
        uid: deployment.uid().unwrap_or_default(),
        replicas: pods("/spec/replicas", 1),
        current: pods("/status/replicas", 0),
        available: pods("/status/availableReplicas", 0),
        observed: number("/status/observedGeneration") >= deployment.metadata.generation,
        scaled_by: field_managers::last_scaler(fields.unwrap_or_default()).map(ToOwned::to_owned),
        autoscalers: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(spec: &Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "web", "uid": "1", "generation": 3, "annotations": {
                "provenance.countersign.dev/authors": "alice", "countersign.dev/changed-by": "mallory",
            } },
            "spec": spec, "status": { "observedGeneration": 3, "replicas": 2, "availableReplicas": 1 },
        }))
        .unwrap()
    }

    fn sound() -> Value {
        json!({
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "creationTimestamp": null, "labels": { "app": "web", "team": "shop" } },
                "spec": { "containers": [{ "name": "web", "image": "web:1" }], "fieldOfTomorrow": 1 },
            },
        })
    }

    fn adopting(status: &Value) -> Rollout {
        serde_json::from_value(json!({
            "metadata": { "name": "web" },
            "spec": { "workloadRef": { "name": "web" } }, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn template_and_selector_are_the_stored_ones() {
        let (template, selector) = parts(&deployment(&sound()), &Selector::default()).unwrap();
        assert_eq!(selector.to_string(), "app=web");
        assert_eq!(template.0["spec"]["fieldOfTomorrow"], 1);
        let metadata = json!({ "labels": { "app": "web", "team": "shop" } });
        assert_eq!(template.0["metadata"], metadata, "no empty timestamp");
        let adopted = workload(&deployment(&sound()));
        assert_eq!(
            (adopted.replicas, adopted.current, adopted.available),
            (1, 2, 1)
        );
        assert!(adopted.observed);
    }

    #[test]
    fn what_a_rollout_cannot_use_is_reported_with_its_remedy() {
        let with = |path: &str, value: Value| {
            let mut spec = sound();
            *spec.pointer_mut(path).unwrap() = value;
            parts(&deployment(&spec), &Selector::default()).unwrap_err()
        };
        let expression = json!({ "matchLabels": { "app": "web" },
            "matchExpressions": [{ "key": "a", "operator": "Exists" }] });
        assert!(with("/selector", expression).contains("matchLabels alone"));
        let own = json!({ "matchLabels": { "app.kubernetes.io/managed-by": "Helm" } });
        assert!(with("/selector", own).contains("another selector"));
        let other = with("/template/metadata/labels/app", json!("shop"));
        assert!(other.contains("(app=web)"), "{other}");
        let known = known_selector(&adopting(&json!({ "selector": "app=shop,tier=front" })));
        assert_eq!(known.match_labels.len(), 2);
        let moved = parts(&deployment(&sound()), &known).unwrap_err();
        assert!(moved.contains("app=shop,tier=front"), "{moved}");
    }

    #[test]
    fn a_selector_that_changed_by_way_of_an_adopted_workload_is_named_and_not_used() {
        let with = |named: &str, known: &str| -> Rollout {
            serde_json::from_value(json!({
                "metadata": { "name": "web" },
                "spec": { "selector": { "matchLabels": { "app": named } }, "template": {} },
                "status": { "selector": known },
            }))
            .unwrap()
        };
        for (named, known) in [("web", "app=web"), ("web", "")] {
            assert_eq!(keep_selector(&mut with(named, known)), None);
        }
        let mut moved = with("other", "app=web");
        let problem = keep_selector(&mut moved).unwrap();
        assert!(
            problem.contains("app=other") && problem.contains("app=web"),
            "{problem}"
        );
        assert_eq!(moved.spec.selector.to_string(), "app=web");
    }

    #[test]
    fn provenance_comes_from_the_deployment_where_the_rollout_has_none() {
        let mut rollout = adopting(&json!({}));
        inherit_provenance(&mut rollout, &deployment(&sound()).metadata);
        let authors = format!("{PROVENANCE_PREFIX}authors");
        assert_eq!(rollout.annotations().len(), 1, "and nothing but provenance");
        assert_eq!(rollout.annotations()[&authors], "alice");
        let own = format!("{PROVENANCE_PREFIX}revision");
        let mut rollout = adopting(&json!({}));
        rollout.annotations_mut().insert(own.clone(), "1".into());
        inherit_provenance(&mut rollout, &deployment(&sound()).metadata);
        assert_eq!(rollout.annotations().keys().collect::<Vec<_>>(), [&own]);
    }
}
