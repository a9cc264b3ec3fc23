//! The operator's token in the hands of somebody else.

use countersign_cluster::{Kinds, wait_for};
use serde_json::{Value, json};

use super::{OPERATOR, at, own_set, owner, refused, serving, tried};
use crate::identity::user::{User, path};
use crate::support::{App, TIMEOUT};

#[tokio::test]
async fn a_stolen_token_edits_no_rollout() {
    let (scene, _app) = serving("stolen-rollout").await;
    let (admin, own) = (User::admin(&scene), path(&scene, "rollouts/shop"));
    let foreign =
        json!({ "metadata": { "finalizers": ["example.org/keep"], "labels": { "team": "shop" } } });
    admin.merge(&own, &foreign).await.unwrap();
    let operator = User::impersonated(&scene, OPERATOR, &[]).await;
    let metadata = |fields: Value| json!({ "metadata": fields });
    let other = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "gone" });
    let words = [
        "403",
        "writes the finalizer countersign.dev/keep of a Rollout alone",
    ];
    for edit in [
        json!({ "spec": { "paused": true } }),
        json!({ "spec": { "template": { "metadata": { "annotations": { "edited": "yes" } } } } }),
        metadata(json!({ "annotations": { "provenance.countersign.dev/lines-added": "1" } })),
        metadata(json!({ "annotations": { "provenance.countersign.dev/tests": null } })),
        metadata(json!({ "labels": { "team": "other" } })),
        metadata(json!({ "labels": { "team": null } })),
        metadata(json!({ "finalizers": null })),
        metadata(json!({ "ownerReferences": [other] })),
    ] {
        refused(&operator, "PATCH", &own, &edit, &words).await;
    }
    let kept = ["example.org/keep", "countersign.dev/keep"];
    let kept = metadata(json!({ "finalizers": kept }));
    tried(&operator, "PATCH", &own, &kept).await.unwrap();
    let none = metadata(json!({ "finalizers": null }));
    admin.merge(&own, &none).await.unwrap();
}

#[tokio::test]
async fn a_stolen_token_moves_one_label_of_a_service() {
    let (scene, _app) = serving("stolen-service").await;
    let operator = User::impersonated(&scene, OPERATOR, &[]).await;
    let own = at(&scene, "v1", "services/shop");
    let words = [
        "403",
        "the label pod-template-hash in the selector of a Service alone",
    ];
    for edit in [
        json!({ "spec": { "selector": { "app": "other" } } }),
        json!({ "spec": { "selector": { "app": null } } }),
        json!({ "spec": { "selector": { "more": "yes" } } }),
        json!({ "spec": { "ports": [{ "port": 81 }] } }),
        json!({ "spec": { "externalIPs": ["192.0.2.1"] } }),
    ] {
        refused(&operator, "PATCH", &own, &edit, &words).await;
    }
    let revision = json!({ "spec": { "selector": { "pod-template-hash": "another" } } });
    tried(&operator, "PATCH", &own, &revision).await.unwrap();
}

#[tokio::test]
async fn a_stolen_token_writes_no_replica_set_of_others() {
    let (scene, app) = serving("stolen-set").await;
    let admin = User::admin(&scene);
    let operator = User::impersonated(&scene, OPERATOR, &[]).await;
    let words = ["403", "writes ReplicaSets and Jobs of Rollouts alone"];
    let all = at(&scene, "apps/v1", "replicasets");
    let own = own_set(&scene).await;
    let mut stray = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "spec": own["spec"],
        "metadata": { "name": "stray", "labels": own["metadata"]["labels"] },
    });
    refused(&operator, "POST", &all, &stray, &words).await;
    let owner = owner(&scene, &app).await;
    stray["metadata"]["ownerReferences"] = json!([owner]);
    tried(&operator, "POST", &all, &stray).await.unwrap();
    for namespace in ["kube-system", "countersign-system"] {
        let all = format!("/apis/apps/v1/namespaces/{namespace}/replicasets");
        let words = [
            "403",
            "creates nothing in kube-system and its own namespace",
        ];
        refused(&operator, "POST", &all, &stray, &words).await;
    }

    let template = App::new("tool").manifest()["spec"]["template"].clone();
    let tool = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "tool" },
        "spec": { "replicas": 1, "selector": { "matchLabels": { "app": "tool" } }, "template": template },
    });
    let deployments = at(&scene, "apps/v1", "deployments");
    admin.create(&deployments, &tool).await.unwrap();
    let poll = async || {
        let sets = admin.get(&all).await.unwrap();
        let mut sets = sets["items"].as_array().unwrap().iter();
        let of_tool = sets.find(|it| it["metadata"]["labels"]["app"] == "tool");
        of_tool.cloned().ok_or("it has no ReplicaSet")
    };
    let set = wait_for("the Deployment has one", TIMEOUT, poll)
        .await
        .unwrap();
    let own = format!("{all}/{}", set["metadata"]["name"].as_str().unwrap());
    let scaled = json!({ "spec": { "replicas": 0 } });
    let stolen = json!({ "metadata": { "ownerReferences": [owner] } });
    for edit in [&scaled, &stolen] {
        refused(&operator, "PATCH", &own, edit, &words).await;
    }
    refused(&operator, "DELETE", &own, &Value::Null, &words).await;
}

#[tokio::test]
async fn a_stolen_token_sends_no_route_elsewhere() {
    let (scene, _app) = serving("stolen-route").await;
    let gateway = Kinds::GatewayApi;
    scene.cluster.install_kinds(gateway).await.unwrap();
    let version = "gateway.networking.k8s.io/v1";
    let routes = at(&scene, version, "httproutes");
    let backends = |weight: i32, canary: &str| {
        let backend =
            |name: &str, weight: i32| json!({ "name": name, "port": 80, "weight": weight });
        json!([backend("shop", 100 - weight), backend(canary, weight)])
    };
    let rules = |backends: Value, filters: Value| json!({ "spec": { "rules": [{ "backendRefs": backends, "filters": filters }] } });
    let route = json!({
        "apiVersion": version, "kind": "HTTPRoute", "metadata": { "name": "shop" },
        "spec": { "hostnames": ["shop.example.org"], "rules": [{ "backendRefs": backends(0, "shop-canary") }] },
    });
    User::admin(&scene).create(&routes, &route).await.unwrap();
    let operator = User::impersonated(&scene, OPERATOR, &[]).await;
    let own = format!("{routes}/shop");
    let redirect =
        json!([{ "type": "RequestRedirect", "requestRedirect": { "hostname": "example.com" } }]);
    let mirror = json!([{ "type": "RequestMirror", "requestMirror": { "backendRef": { "name": "shop-canary", "port": 80 } } }]);
    let words = ["403", "writes weights and mirrors of a route alone"];
    for edit in [
        json!({ "spec": { "hostnames": ["example.com"] } }),
        rules(backends(50, "other"), json!([])),
        rules(json!([]), redirect),
        json!({ "spec": { "rules": null } }),
    ] {
        refused(&operator, "PATCH", &own, &edit, &words).await;
    }
    refused(&operator, "DELETE", &own, &Value::Null, &words).await;
    for edit in [
        rules(backends(50, "shop-canary"), json!([])),
        rules(backends(0, "shop-canary"), mirror),
    ] {
        tried(&operator, "PATCH", &own, &edit).await.unwrap();
    }
}
