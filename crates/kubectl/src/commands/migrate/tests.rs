use countersign_api::KEEP_FINALIZER;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::{Value, json};

use super::plan::{autoscaled, of_deployment};
use super::unmigrate::{returns, way_back};
use super::*;
use crate::view::tests::{at_rest, waiting};

fn deployment(spec: &Value) -> Deployment {
    let mut whole = json!({
        "replicas": 4, "minReadySeconds": 3,
        "selector": { "matchLabels": { "app": "web" } },
        "template": { "metadata": { "labels": { "app": "web" } } },
    });
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let managed = json!([
        { "manager": "countersign", "operation": "Update", "time": "2026-01-03T00:00:00Z",
          "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": { "f:replicas": {} } } },
        { "manager": "argocd", "operation": "Apply", "time": "2026-01-02T00:00:00Z",
          "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": { "f:replicas": {} } } },
        { "manager": "kubectl", "operation": "Update", "time": "2026-01-01T00:00:00Z",
          "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": { "f:replicas": {} } } },
    ]);
    serde_json::from_value(json!({
        "metadata": { "name": "web", "managedFields": managed },
        "spec": whole, "status": { "availableReplicas": 3 },
    }))
    .unwrap()
}

#[test]
fn the_plan_lists_in_order_what_will_happen_and_with_which_rollout() {
    let plan = Plan::of(&deployment(&json!({}))).unwrap();
    let yaml = document(&plan.manifest, Format::Yaml).unwrap();
    let rendered = plan.render(&yaml, &["mind this".into()]);
    for part in [
        "1. Rollout web is created",
        "starts 4 pods",
        "select app=web",
        "  replicas: 4\n",
        "  minReadySeconds: 3\n",
        "unmigrate web",
        "warning: mind this\n",
    ] {
        assert!(rendered.contains(part), "{part} is not in:\n{rendered}");
    }
    let made: Rollout = serde_json::from_value(plan.manifest).unwrap();
    assert!(made.spec.keeps_pods() && made.spec.template.is_absent());
}

#[test]
fn what_a_rollout_has_too_is_carried_over_and_defaults_are_not() {
    let carried = |spec: Value| {
        let plan = Plan::of(&deployment(&spec)).unwrap();
        let _: Rollout = serde_json::from_value(plan.manifest.clone()).unwrap();
        let mut spec = plan.manifest["spec"].as_object().unwrap().clone();
        spec.remove("replicas");
        spec.remove("workloadRef");
        Value::Object(spec)
    };
    let defaults = json!({
        "minReadySeconds": 0, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10, "paused": false,
        "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } },
    });
    assert_eq!(carried(defaults), json!({}));
    assert_eq!(
        carried(json!({
            "minReadySeconds": 900, "progressDeadlineSeconds": 1800, "revisionHistoryLimit": 2, "paused": true,
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
        })),
        json!({
            "minReadySeconds": 900, "progressDeadlineSeconds": 1800, "revisionHistoryLimit": 2, "paused": true,
            "strategy": { "canary": { "maxSurge": 1, "maxUnavailable": 0 } },
        })
    );
    // No deadline at all, in a Deployment's words.
    let endless = json!({ "progressDeadlineSeconds": i32::MAX, "minReadySeconds": 0 });
    assert_eq!(
        carried(endless.clone()),
        json!({ "progressDeadlineSeconds": 604_800 })
    );
    let warnings = of_deployment("web", &deployment(&endless)).join("\n");
    assert!(
        warnings.contains(
            "progressDeadlineSeconds is 2147483647, of which a Rollout takes at most 604800"
        ),
        "{warnings}"
    );
}

#[test]
fn a_deployment_that_is_rolled_out_or_recreated_is_warned_of() {
    let mut moving = deployment(&json!({ "strategy": { "type": "Recreate" } }));
    let status = moving.status.as_mut().unwrap();
    (status.replicas, status.updated_replicas) = (Some(4), Some(1));
    let warnings = of_deployment("web", &moving).join("\n");
    for part in [
        "1 of 4 pods of the Deployment run its template",
        "type is Recreate",
    ] {
        assert!(warnings.contains(part), "{part} is not in:\n{warnings}");
    }
}

#[test]
fn what_cannot_be_adopted_is_refused_before_anything_is_made() {
    let refused = |spec: Value| Plan::of(&deployment(&spec)).unwrap_err();
    let expression =
        json!({ "selector": { "matchExpressions": [{ "key": "a", "operator": "Exists" }] } });
    assert_eq!(refused(expression), Error::Expressions("web".into()));
    assert_eq!(
        refused(json!({ "replicas": 0 })),
        Error::NoPods("web".into())
    );
}

#[test]
fn warnings_name_who_scales_and_what_to_do() {
    let warnings = of_deployment("web", &deployment(&json!({ "paused": true }))).join("\n");
    for part in [
        "set by argocd",
        "3 of 4 pods",
        "spec.paused is carried over",
        "no provenance",
    ] {
        assert!(warnings.contains(part), "{part} is not in:\n{warnings}");
    }
    let autoscaler = |kind: &str| -> HorizontalPodAutoscaler {
        let target = json!({ "apiVersion": "apps/v1", "kind": kind, "name": "web" });
        let spec = json!({ "maxReplicas": 9, "scaleTargetRef": target });
        serde_json::from_value(json!({ "metadata": { "name": kind.to_lowercase() }, "spec": spec }))
            .unwrap()
    };
    let found = autoscaled(
        "web",
        &[autoscaler("Deployment"), autoscaler("StatefulSet")],
    );
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains("set its target to Rollout web"),
        "{found:?}"
    );
}

fn adopting(mut rollout: Rollout) -> Rollout {
    rollout.spec.template = countersign_api::PodTemplate::default();
    rollout.spec.selector = countersign_api::Selector::default();
    rollout.spec.workload_ref = Some(countersign_api::WorkloadReference {
        name: "web".into(),
        ..Default::default()
    });
    rollout.finalizers_mut().push(KEEP_FINALIZER.into());
    rollout
}

#[test]
fn a_return_that_would_take_pods_away_or_skip_the_gates_is_refused() {
    let refused = |rollout: &Rollout| returns(rollout).unwrap_err();
    assert_eq!(refused(&at_rest()), Error::AdoptsNothing("web".into()));
    let rests = adopting(at_rest());
    assert_eq!(returns(&rests).unwrap(), "web");
    let mut deletes = rests.clone();
    deletes.spec.deletion_policy = Some(countersign_api::DeletionPolicy::Delete);
    assert_eq!(refused(&deletes), Error::WouldDelete("web".into()));
    let mut unkept = rests.clone();
    unkept.finalizers_mut().clear();
    assert_eq!(refused(&unkept), Error::NotKept("web".into()));
    let under_way = adopting(waiting().rollout);
    assert!(matches!(refused(&under_way), Error::OtherTemplate { .. }));
}

#[test]
fn the_way_back_names_the_services_that_are_let_go() {
    let mut rollout = adopting(at_rest());
    let rendered = way_back(&rollout, "web");
    assert!(!rendered.contains("selectors"), "{rendered}");
    rollout.spec.strategy.canary.stable_service = Some("front".into());
    let rendered = way_back(&rollout, "web");
    assert!(
        rendered.contains("3. The label pod-template-hash is taken out of the selectors of front"),
        "{rendered}"
    );
    assert!(rendered.contains("4. After 5s"), "{rendered}");
}
