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
    let steering = "service.beta.kubernetes.io/aws-load-balancer-internal";
    let steered = json!({ "metadata": { "annotations": { steering: "false" } } });
    let steers = ["403", "no annotations of Services and routes"];
    refused(&operator, "PATCH", &own, &steered, &steers).await;
    let revision = json!({ "spec": { "selector": { "pod-template-hash": "another" } } });
    let noted = json!({ "metadata": { "annotations": { "example.org/updated-by": "a webhook" } } });
    for edit in [&revision, &noted] {
        tried(&operator, "PATCH", &own, edit).await.unwrap();
    }

    // A Service without a selector gets one of a revision.
    let bare = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "bare" },
        "spec": { "ports": [{ "port": 80 }] },
    });
    let services = at(&scene, "v1", "services");
    User::admin(&scene).create(&services, &bare).await.unwrap();
    let bare = format!("{services}/bare");
    let all = json!({ "spec": { "selector": { "app": "shop" } } });
    refused(&operator, "PATCH", &bare, &all, &words).await;
    let selector = json!({ "app": "shop", "pod-template-hash": "another" });
    let one = json!({ "spec": { "selector": selector } });
    tried(&operator, "PATCH", &bare, &one).await.unwrap();
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
    let mirror_to = |name: &str| json!([{ "type": "RequestMirror", "requestMirror": { "backendRef": { "name": name, "port": 80 } } }]);
    let words = ["403", "writes weights and mirrors of a route alone"];
    let mut other_port = backends(50, "shop-canary");
    other_port[1]["port"] = 81.into();
    let timeouts =
        json!({ "backendRefs": backends(0, "shop-canary"), "timeouts": { "request": "1ms" } });
    for edit in [
        json!({ "spec": { "hostnames": ["example.com"] } }),
        json!({ "spec": { "rules": [timeouts] } }),
        rules(backends(50, "other"), json!([])),
        rules(other_port, json!([])),
        rules(json!([]), redirect),
        json!({ "spec": { "rules": null } }),
    ] {
        refused(&operator, "PATCH", &own, &edit, &words).await;
    }
    refused(&operator, "DELETE", &own, &Value::Null, &words).await;
    let elsewhere = rules(backends(0, "shop-canary"), mirror_to("other"));
    let words = ["403", "mirrors requests to a backend of the rule alone"];
    refused(&operator, "PATCH", &own, &elsewhere, &words).await;
    for edit in [
        rules(backends(50, "shop-canary"), json!([])),
        rules(backends(0, "shop-canary"), mirror_to("shop-canary")),
    ] {
        tried(&operator, "PATCH", &own, &edit).await.unwrap();
    }
}

#[tokio::test]
async fn a_stolen_token_edits_no_virtual_service_beside_its_weights() {
    let (scene, _app) = serving("stolen-istio").await;
    scene.cluster.install_kinds(Kinds::Istio).await.unwrap();
    let version = "networking.istio.io/v1";
    let services = at(&scene, version, "virtualservices");
    let route = |weight: i32, fields: Value| {
        let to =
            |host: &str, weight: i32| json!({ "destination": { "host": host }, "weight": weight });
        let mut rule = json!({
            "timeout": "5s", "route": [to("shop", 100 - weight), to("shop-canary", weight)],
        });
        crate::support::merge(&mut rule, &fields);
        json!({ "spec": { "http": [rule] } })
    };
    let mut shop = json!({
        "apiVersion": version, "kind": "VirtualService", "metadata": { "name": "shop" },
        "spec": { "hosts": ["shop.example.org"] },
    });
    crate::support::merge(&mut shop, &route(0, json!({})));
    User::admin(&scene).create(&services, &shop).await.unwrap();
    let operator = User::impersonated(&scene, OPERATOR, &[]).await;
    let own = format!("{services}/shop");
    let fault = json!({ "abort": { "httpStatus": 500, "percentage": { "value": 100 } } });
    let words = [
        "403",
        "writes weights and mirrors of a VirtualService alone",
    ];
    for edit in [
        json!({ "spec": { "hosts": ["example.com"] } }),
        route(0, json!({ "timeout": "9s" })),
        route(0, json!({ "fault": fault })),
        route(0, json!({ "corsPolicy": { "allowCredentials": true } })),
        route(
            0,
            json!({ "route": [{ "destination": { "host": "other" } }] }),
        ),
    ] {
        refused(&operator, "PATCH", &own, &edit, &words).await;
    }
    let mirrored = |host: &str| {
        let percent = json!({ "value": 5 });
        route(
            0,
            json!({ "mirror": { "host": host }, "mirrorPercentage": percent }),
        )
    };
    let words = ["403", "mirrors requests to a destination of the rule alone"];
    refused(&operator, "PATCH", &own, &mirrored("other"), &words).await;
    for edit in [route(25, json!({})), mirrored("shop-canary")] {
        tried(&operator, "PATCH", &own, &edit).await.unwrap();
    }
}

/// A check that costs more than the API server allows refuses, and so does not keep the operator from putting traffic right.
#[tokio::test]
async fn what_a_team_makes_large_does_not_keep_the_operator_from_writing() {
    let (scene, _app) = serving("large-objects").await;
    scene.cluster.install_kinds(Kinds::Istio).await.unwrap();
    let (admin, version) = (User::admin(&scene), "networking.istio.io/v1");
    let operator = User::impersonated(&scene, OPERATOR, &[]).await;

    let prefix = vec!["a".repeat(62); 4].join(".");
    let key = |n: usize| format!("{prefix}/{n:063}");
    let many: serde_json::Map<_, _> = (0..600).map(|n| (key(n), json!(""))).collect();
    let service = at(&scene, "v1", "services/shop");
    let noted = json!({ "metadata": { "annotations": many } });
    admin.merge(&service, &noted).await.unwrap();
    let moved = json!({ "spec": { "selector": { "pod-template-hash": "another" } } });
    tried(&operator, "PATCH", &service, &moved).await.unwrap();

    let to = |weight: i32| {
        let to =
            |host: &str, weight: i32| json!({ "destination": { "host": host }, "weight": weight });
        json!([to("shop", 100 - weight), to("shop-canary", weight)])
    };
    let tcp: Vec<_> = (0..5_000).map(|_| json!({ "route": to(0) })).collect();
    let many: Vec<_> = (0..20_000)
        .map(|_| json!({ "destination": { "host": "a" } }))
        .collect();
    let large = [
        ("tcp", json!(tcp), json!(tcp)),
        (
            "http",
            json!([{ "route": to(0) }]),
            json!([{ "route": to(25) }]),
        ),
        (
            "more",
            json!([{ "route": to(0) }, { "route": many }]),
            json!([{ "route": to(25) }, { "route": many }]),
        ),
    ];
    for (name, before, after) in large {
        let kind = if name == "tcp" { "tcp" } else { "http" };
        let services = at(&scene, version, "virtualservices");
        let route = json!({
            "apiVersion": version, "kind": "VirtualService", "metadata": { "name": name },
            "spec": { "hosts": ["shop.example.org"], kind: before },
        });
        admin.create(&services, &route).await.unwrap();
        let mut edit = json!({ "spec": { kind: after } });
        edit["metadata"] = json!({ "labels": { "edited": "yes" } });
        let own = format!("{services}/{name}");
        tried(&operator, "PATCH", &own, &edit).await.unwrap();
    }

    let labels: serde_json::Map<_, _> =
        (0..30_000).map(|n| (format!("l{n}"), json!("a"))).collect();
    let subsets = |hash: &str| {
        let mut of_canary = labels.clone();
        of_canary.insert("pod-template-hash".into(), json!(hash));
        json!([{ "name": "stable" }, { "name": "canary", "labels": of_canary }])
    };
    let rules = at(&scene, version, "destinationrules");
    let rule = json!({
        "apiVersion": version, "kind": "DestinationRule", "metadata": { "name": "shop" },
        "spec": { "host": "shop", "subsets": subsets("old") },
    });
    admin.create(&rules, &rule).await.unwrap();
    let edit = json!({ "spec": { "subsets": subsets("new") } });
    tried(&operator, "PATCH", &format!("{rules}/shop"), &edit)
        .await
        .unwrap();
}
