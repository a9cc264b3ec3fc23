//! `check`: the installation, the metrics of a Rollout, and what an uninstallation would leave behind.

use std::panic::{AssertUnwindSafe, resume_unwind};

use countersign_cluster::wait_for;
use futures::FutureExt as _;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{DeleteParams, PostParams};

use super::*;
use crate::support::TIMEOUT;

/// A binding that proves no author and is in force only in namespaces with its label.
const BINDING: &str = "immutable-config.countersign.dev";

/// Waits until the chart's Deployment, whose pods are simulated, is available.
async fn installed(scene: &Scene) {
    let deployments: Api<Deployment> =
        Api::namespaced(scene.cluster.client(), "countersign-system");
    let poll = async || {
        let deployment = deployments.get("countersign").await.ok()?;
        let available = deployment.status?.available_replicas?;
        (available > 0).then_some(())
    };
    wait_for("the chart's pods are available", TIMEOUT, poll)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_good_installation_has_no_failed_finding_and_a_member_sees_their_rights() {
    let scene = Scene::new("plugin-check").await;
    installed(&scene).await;
    // An older version has a finding for what it lacks.
    let kubernetes = if scene.stamped {
        "ok       kubernetes: v1."
    } else {
        "warning  kubernetes: v1."
    };
    admin(&scene).runs("check").await.exits(0).out(&[
        "ok       version: operator and plugin are",
        "ok       operator: Deployment countersign-system/countersign",
        "ok       leader: countersign-0 leads",
        "ok       definitions: all ",
        "ok       admission: all ",
        kubernetes,
        "approve, reject      yes",
    ]);

    // Most of the installation is not for a member to read, which is no failure.
    let approves = member(creates("signoffs", &["approve"]));
    let bob = Person::new(&scene, "bob", &approves).await;
    let document = bob.runs("check -o json").await.exits(0);
    let document: Value = serde_json::from_str(&document.out).unwrap();
    let unread = document["findings"].as_array().unwrap();
    let unread = unread.iter().find(|it| it["subject"] == "definitions");
    assert_eq!(unread.unwrap()["level"], "warning", "{document}");
    let rights = document["rights"].as_array().unwrap();
    let undo = rights.iter().find(|it| it["command"] == "undo, restart");
    assert_eq!(undo.unwrap()["missing"], json!(["patch rollouts"]));
}

#[tokio::test]
#[ignore = "make e2e-alone runs it"]
async fn a_missing_admission_policy_fails_and_is_named() {
    let scene = Scene::alone("plugin-check-policy").await;
    installed(&scene).await;
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(scene.cluster.client());
    let mut kept = bindings.get(BINDING).await.unwrap();
    bindings
        .delete(BINDING, &DeleteParams::default())
        .await
        .unwrap();
    let checked = AssertUnwindSafe(admin(&scene).runs("check"))
        .catch_unwind()
        .await;
    // Put back before anything can fail.
    kept.metadata.resource_version = None;
    kept.metadata.uid = None;
    kept.metadata.managed_fields = None;
    bindings
        .create(&PostParams::default(), &kept)
        .await
        .unwrap();
    let missing =
        format!("failed   admission: ValidatingAdmissionPolicyBinding {BINDING} is missing");
    let checked = checked.unwrap_or_else(|panic| resume_unwind(panic));
    checked.exits(1).out(&[&missing]);
    admin(&scene).runs("check").await.exits(0);
}

#[tokio::test]
async fn a_label_that_the_series_do_not_have_is_named_by_the_real_prometheus() {
    let scene = Scene::new("plugin-check-metrics").await;
    installed(&scene).await;
    let own = r#"http_requests_total{namespace="{{namespace}}",pod_template_hash="{{revision}}""#;
    let check = json!({ "name": "own", "errors": format!("{own},status=~\"5..\"}}"), "total": format!("{own}}}") });
    let analysis = json!({ "interval": "1s", "checks": [
        { "name": "preset", "preset": "HttpRequestsTotal" },
        check,
    ] });
    let spec = json!({ "strategy": { "canary": { "analysis": analysis } } });
    let app = scene.serving(App::new("shop").spec(spec)).await;
    let _load = scene.load(&app, 50).await;

    let line = format!(
        "check shop --prometheus-url {}",
        scene.cluster.prometheus_url()
    );
    let admin = admin(&scene);
    let poll = async || {
        let checked = admin.runs(&line).await;
        let scraped = checked
            .out
            .contains("check preset: Prometheus has its series");
        let out = checked.out.clone();
        scraped.then_some(checked).ok_or(out)
    };
    let checked = wait_for("the series are scraped", TIMEOUT, poll).await;
    checked.unwrap().exits(1).out(&[
        "failed   check own: `http_requests_total` has the labels code, ",
        "; not status: ",
    ]);
}

#[tokio::test]
async fn before_an_uninstallation_a_change_under_way_fails() {
    let scene = Scene::new("plugin-check-uninstall").await;
    let app = scene.serving(App::new("shop")).await;
    let rollout = format!("rollout {}/shop: ", scene.namespace);
    let at_rest = admin(&scene).runs("check --before-uninstall").await;
    at_rest.out(&[&format!("warning  {rollout}ReplicaSet shop-")]);

    let _load = scene.load(&app, 100).await;
    let next = app.version("v2").spec(slow());
    scene.apply(&next).await;
    stepping(&scene, &next).await;
    let under_way = admin(&scene).runs("check --before-uninstall").await;
    let failed = format!("failed   {rollout}a change is under way at step 1/");
    under_way.exits(1).out(&[&failed]);
}
