//! Where the traffic goes, while a change is under way.

use countersign_cluster::wait_for;
use serde_json::{Value, json};

use super::{allow, editor, label, refused, serving, tried};
use crate::identity::user::{User, path, until_enforced};
use crate::sign_off::Checkpoint;
use crate::support::{App, Scene, TIMEOUT};

fn canary(fields: Value) -> Value {
    json!({ "spec": { "strategy": { "canary": fields } } })
}

#[tokio::test]
async fn where_the_traffic_goes_is_edited_once_the_change_is_aborted() {
    let mut checkpoint = Checkpoint::new("steady", json!({})).await;
    let next = checkpoint.baking("v2");
    checkpoint.deploy(&next).await;
    let own = path(&checkpoint.scene, "rollouts/shop");
    // Each request has this header behind a proxy, so everybody would be a tester.
    let everybody = json!({ "headers": [{ "name": "x-forwarded-proto", "value": "https" }] });
    let routed = json!({
        "stableService": "shop", "canaryService": "shop-canary",
        "traffic": { "routes": [{ "name": "shop" }], "testers": everybody },
    });
    let edits = [
        canary(json!({ "stableService": "shop" })),
        canary(json!({ "canaryService": "shop" })),
        canary(routed),
    ];
    let words = ["403", "is under way: abort it before you edit"];
    for edit in &edits {
        refused(&checkpoint.alice, "PATCH", &own, edit, &words).await;
    }
    let larger = json!({ "spec": { "replicas": 5 } });
    tried(&checkpoint.alice, "PATCH", &own, &larger)
        .await
        .unwrap();

    let abort = json!({ "action": "Abort" });
    let abort = checkpoint.intervene(&checkpoint.alice, abort).await;
    checkpoint.answered(&abort.unwrap(), "Applied").await;
    checkpoint.until_degraded().await;
    for edit in &edits {
        tried(&checkpoint.alice, "PATCH", &own, edit).await.unwrap();
    }
    checkpoint.scene.remove_policy().await;
}

#[tokio::test]
async fn a_first_revision_may_still_get_its_services() {
    let scene = Scene::new("steady-first").await;
    until_enforced(&scene).await;
    let app = App {
        starts: Some("ImagePullBackOff".into()),
        ..App::new("shop")
    };
    scene.apply(&app).await;
    let begun = |rollout: &countersign_api::Rollout| {
        let status = rollout.status.as_ref();
        status.is_some_and(|it| it.change.as_ref().is_some_and(|it| it.initial))
    };
    scene.until(&app, "its first change began", begun).await;
    let user = editor(&scene).await;
    let own = path(&scene, "rollouts/shop");
    let named = canary(json!({ "stableService": "shop" }));
    tried(&user, "PATCH", &own, &named).await.unwrap();
}

#[tokio::test]
async fn who_names_a_route_may_patch_it() {
    let (scene, _app) = serving("named").await;
    label(&scene, "countersign.dev/traffic", "authorized").await;
    // It may write Rollouts and nothing else.
    let writer = format!("writer-of-{}", scene.namespace);
    let writer = User::impersonated(&scene, &writer, &[]).await;
    let verbs = ["create", "patch"];
    allow(&scene, &writer, "countersign.dev", "rollouts", &verbs).await;
    let routed = canary(json!({
        "stableService": "shop", "canaryService": "shop-canary",
        "traffic": { "routes": [
            { "name": "shop" },
            { "kind": "VirtualService", "name": "shop", "destinationRule": {
                "name": "shop", "stableSubset": "stable", "canarySubset": "canary",
            } },
        ] },
    }));
    let mut other = App::new("other").manifest();
    crate::support::merge(&mut other, &routed);
    let (all, own) = (path(&scene, "rollouts"), path(&scene, "rollouts/shop"));
    let words = [
        "403",
        "may not patch each of services shop, services shop-canary, httproutes shop, virtualservices shop, destinationrules shop",
    ];
    refused(&writer, "POST", &all, &other, &words).await;
    refused(&writer, "PATCH", &own, &routed, &words).await;
    // The operator would scale the Deployment to 0.
    let mut adopting = App::new("adopting").manifest();
    adopting["spec"] = json!({ "replicas": 2, "workloadRef": { "name": "payments" } });
    let words_adopted = ["403", "may not patch each of deployments payments"];
    refused(&writer, "POST", &all, &adopting, &words_adopted).await;
    // What names none is nobody else's.
    let larger = json!({ "spec": { "replicas": 5 } });
    tried(&writer, "PATCH", &own, &larger).await.unwrap();

    for (group, resource) in [
        ("", "services"),
        ("gateway.networking.k8s.io", "httproutes"),
        ("networking.istio.io", "virtualservices"),
    ] {
        allow(&scene, &writer, group, resource, &["patch"]).await;
        refused(&writer, "PATCH", &own, &routed, &words).await;
    }
    let (group, resource) = ("networking.istio.io", "destinationrules");
    allow(&scene, &writer, group, resource, &["patch"]).await;
    tried(&writer, "PATCH", &own, &routed).await.unwrap();
    allow(&scene, &writer, "apps", "deployments", &["patch"]).await;
    let poll = async || tried(&writer, "POST", &all, &adopting).await;
    wait_for("it may be adopted", TIMEOUT, poll).await.unwrap();

    // What is named already stays for everybody who edits the Rollout.
    User::admin(&scene).merge(&own, &routed).await.unwrap();
    let another = format!("another-of-{}", scene.namespace);
    let another = User::impersonated(&scene, &another, &[]).await;
    allow(&scene, &another, "countersign.dev", "rollouts", &["patch"]).await;
    tried(&another, "PATCH", &own, &larger).await.unwrap();
}
