//! The observation right after a manifest was applied, in a healthy cluster where another template serves.

use std::collections::BTreeMap;

use countersign_api::analysis::TemplateUse;
use countersign_api::rollout::{Revision, RolloutStatus};
use countersign_api::traffic::Router;
use countersign_api::{
    AnalysisTemplateSpec, Duration, PodTemplate, Rollout, RouteKind, RouteReference, Traffic,
};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::analysis::checks;
use crate::observation::Observation;
use crate::observation::people::NamedPolicy;
use crate::observation::traffic::{Route, RouteObject, TrafficObjects};
use crate::observation::windows::{AnalysisInputs, ErrorRates};
use crate::observation::workload::{Integrity, ReplicaSet, Service};
use crate::policy;
use crate::provenance::digest::{change_digest, pod_template_hash, template_digest};
use crate::queue::dependencies;

/// Ingestion delay of Prometheus, unless the operator is configured otherwise.
const LAG: Duration = Duration::seconds(30);

/// The objects around a Rollout in the simulated cluster.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Labels of its namespace.
    pub namespace_labels: BTreeMap<String, String>,
    /// The policies that govern it.
    pub policies: Vec<NamedPolicy>,
    /// The Services that it names, if known.
    pub services: BTreeMap<String, Option<Service>>,
    /// The AnalysisTemplates of its namespace.
    pub templates: BTreeMap<String, AnalysisTemplateSpec>,
}

/// The Rollout right after it was applied, while `stable` serves with all its pods.
#[must_use]
pub fn observe(
    rollout: &Rollout,
    stable: &PodTemplate,
    around: Surroundings,
    now: Timestamp,
) -> Observation {
    let name = rollout.name_any();
    let serving = serving(&name, stable, rollout.spec.replicas);
    let templates = templates(rollout, &around.templates);
    let namespace = rollout.namespace().unwrap_or_else(|| "default".into());
    let mut observation = Observation {
        now,
        uid: rollout.uid().unwrap_or_default(),
        generation: 2,
        labels: rollout.labels().clone(),
        annotations: rollout.annotations().clone(),
        status: RolloutStatus {
            revision: 1,
            attempts: 1,
            stable: Some(Revision {
                pod_template_hash: serving.hash.clone(),
                template_digest: serving.template_digest.clone(),
                stored_template_digest: None,
                digest: change_digest(stable, &BTreeMap::new(), &rollout.spec.strategy.canary),
                provenance_digest: None,
                source_revision: None,
                revision: 1,
                run: None,
            }),
            ..RolloutStatus::default()
        },
        namespace_labels: around.namespace_labels,
        policies: around.policies,
        replica_sets: vec![serving],
        traffic: TrafficObjects {
            services: around.services,
            ..TrafficObjects::default()
        },
        recorded: true,
        analysis: AnalysisInputs {
            lag: LAG,
            templates,
            ..AnalysisInputs::default()
        },
        dependencies: Some(dependencies::all_stable(&rollout.spec.depends_on)),
        concurrent_changes: Some(Ok(Vec::new())),
        ..Observation::of(&namespace, &name, rollout.spec.clone())
    };
    take_routes_for_granted(&mut observation);
    // No error budget burns.
    let effective = policy::effective(&observation.policies);
    let objectives = checks::checks(&observation, &effective).objectives;
    let met = objectives
        .into_keys()
        .map(|name| (name, Ok(ErrorRates::default())));
    observation.analysis.objectives = met.collect();
    observation
}

/// Replaces the routes by one accepted route between the two Services.
fn take_routes_for_granted(observation: &mut Observation) {
    let canary = &mut observation.spec.strategy.canary;
    let Some(traffic) = &mut canary.traffic else {
        return;
    };
    let mut kinds = traffic.routes.iter().map(|route| route.kind);
    let kind = kinds.find(|kind| match kind.router() {
        Router::GatewayApi => true,
        Router::Istio => false,
    });
    let reference = RouteReference {
        kind: kind.unwrap_or(RouteKind::VirtualService),
        name: observation.name.clone(),
        ..RouteReference::default()
    };
    *traffic = Traffic {
        routes: vec![reference.clone()],
        testers: None,
    };
    let mut side = |service: &mut Option<String>, name: &str, weight: i32| {
        let name = service.get_or_insert_with(|| name.to_owned()).clone();
        let known = observation
            .traffic
            .services
            .entry(name.clone())
            .or_insert(None);
        known.get_or_insert_with(|| Service {
            kind: "ClusterIP".into(),
            selector: BTreeMap::new(),
        });
        match kind {
            Some(_) => json!({ "name": name, "weight": weight }),
            None => json!({ "destination": { "host": name }, "weight": weight }),
        }
    };
    let backends = [
        side(&mut canary.stable_service, "stable", 100),
        side(&mut canary.canary_service, "canary", 0),
    ];
    let spec = match kind {
        Some(_) => json!({
            "parentRefs": [{ "name": "gateway" }], "rules": [{ "backendRefs": backends }],
        }),
        None => json!({ "http": [{ "route": backends }] }),
    };
    observation.traffic.routes = vec![Route {
        reference,
        object: Ok(RouteObject {
            object: json!({ "metadata": { "uid": "route", "generation": 1 }, "spec": spec }),
            last_writer: None,
        }),
        destination_rule: None,
        testers: None,
    }];
}

/// The AnalysisTemplates that a Rollout names.
fn templates(
    rollout: &Rollout,
    known: &BTreeMap<String, AnalysisTemplateSpec>,
) -> BTreeMap<String, Result<AnalysisTemplateSpec, String>> {
    let analysis = rollout.spec.strategy.canary.analysis.as_ref();
    let used = analysis
        .into_iter()
        .flat_map(|analysis| &analysis.templates);
    let template = |used: &TemplateUse| {
        let name = &used.name;
        let missing = || format!("AnalysisTemplate {name} is not among the files");
        (name.clone(), known.get(name).cloned().ok_or_else(missing))
    };
    used.map(template).collect()
}

fn serving(rollout: &str, template: &PodTemplate, replicas: i32) -> ReplicaSet {
    let hash = pod_template_hash(template, 0);
    let name = format!("{rollout}-{hash}");
    ReplicaSet {
        uid: format!("uid-{name}"),
        version: String::new(),
        name,
        template_digest: template_digest(template),
        hash,
        revision: 1,
        owned: true,
        matches: true,
        labels_missing: false,
        replicas,
        min_ready_seconds: 0,
        requested: None,
        current: replicas,
        ready: replicas,
        available: replicas,
        failure: None,
        template: template.clone(),
        integrity: Integrity::Sound,
    }
}

/// A template that differs from this one only in its first image; assumed to serve if the stable template
/// is unknown.
#[must_use]
pub fn with_another_image(template: &PodTemplate) -> PodTemplate {
    let mut other = template.clone();
    if let Some(Value::String(image)) = other.0.pointer_mut("/spec/containers/0/image") {
        image.push_str("-before");
    } else {
        other.0 = Value::Null;
    }
    other
}

#[cfg(test)]
mod tests {
    use countersign_api::Tier;
    use countersign_api::policy::Difference;
    use countersign_api::rollout::Stage;

    use super::*;
    use crate::risk::differences;
    use crate::rollout::decide::decide;

    fn rollout() -> Rollout {
        serde_json::from_value(json!({
            "apiVersion": "countersign.dev/v1alpha1",
            "kind": "Rollout",
            "metadata": { "name": "web", "labels": { "countersign.dev/criticality": "critical" } },
            "spec": {
                "replicas": 3,
                "selector": { "matchLabels": { "app": "web" } },
                "template": {
                    "metadata": { "labels": { "app": "web" } },
                    "spec": { "containers": [{ "name": "web", "image": "example.org/web:2" }] },
                },
            },
        }))
        .unwrap()
    }

    fn observed(stable: &PodTemplate) -> Observation {
        observe(
            &rollout(),
            stable,
            Surroundings::default(),
            Timestamp::UNIX_EPOCH,
        )
    }

    #[test]
    fn the_template_that_is_taken_to_serve_differs_in_its_image_alone() {
        let template = rollout().spec.template;
        let before = with_another_image(&template);
        assert_eq!(
            differences(Some(&before), &template),
            [Difference::Image].into()
        );
        let without_containers = PodTemplate(json!({ "spec": {} }));
        assert_ne!(with_another_image(&without_containers), without_containers);
    }

    #[test]
    fn the_first_decision_about_it_starts_the_change_with_the_controllers_own_risk_and_plan() {
        let before = with_another_image(&rollout().spec.template);
        let decision = decide(&observed(&before));
        let change = decision.status.change.unwrap();
        assert_eq!(change.stage, Stage::Waiting);
        assert!(!change.initial, "something serves already");
        assert!(change.tier >= Tier::High, "{change:?}");
        assert!(!change.plan.steps.is_empty());
    }

    #[test]
    fn what_serves_already_is_no_change() {
        let decision = decide(&observed(&rollout().spec.template));
        assert_eq!(decision.status.change, None);
    }
}
