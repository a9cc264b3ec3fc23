//! Every kind of route: those that appear later, and those that no router here serves.

use super::*;

#[tokio::test]
#[ignore = "make e2e-alone runs it"]
async fn kinds_that_appear_are_picked_up() {
    let scene = Scene::alone("routed-kinds").await;
    scene.cluster.remove_kinds(Kinds::Istio).await.unwrap();
    services(&scene).await;
    let by_subsets = json!({ "strategy": { "canary": { "drain": "1s", "steps": [{ "weight": 50, "bake": "4s" }], "traffic": { "routes": [{
        "kind": "VirtualService", "name": "shop",
        "destinationRule": { "name": "shop", "stableSubset": "stable", "canarySubset": "canary" },
    }] } } } });
    let app = App::new("shop").spec(by_subsets);
    scene.apply(&app).await;
    let first = scene
        .until(&app, "the first revision serves", |it| {
            phase(it) == Phase::Stable
        })
        .await;
    let next = app.version("v2");
    scene.apply(&next).await;
    scene
        .until(&next, "the missing kind is named", |it| {
            waits_for(it, "RouterNotInstalled")
        })
        .await;
    scene.cluster.install_kinds(Kinds::Istio).await.unwrap();
    scene
        .until(&next, "the missing route is named", |it| {
            waits_for(it, "RouteNotFound")
        })
        .await;

    let (virtual_services, rules) = istio(&scene);
    let destination = |subset: &str, weight: i32| json!({ "destination": { "host": STABLE, "subset": subset }, "weight": weight });
    create(&virtual_services, &json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": { "name": "shop" },
        "spec": { "hosts": [STABLE], "http": [{ "route": [destination("stable", 100), destination("canary", 0)], "timeout": "5s" }] },
    })).await;
    create(&rules, &json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": { "name": "shop" },
        "spec": { "host": STABLE, "subsets": [{ "name": "stable", "labels": { "app": "shop" } }, { "name": "canary" }] },
    })).await;
    let _load = scene.load(&app, 100).await;
    let seen = scene
        .until(&next, "the canary has its share", |it| settled(it, 50))
        .await;
    let (stable, canary) = (
        first.status.unwrap().stable.unwrap().pod_template_hash,
        hash_of(&seen),
    );
    let service = virtual_services.get("shop").await.unwrap();
    let route = &service.data["spec"]["http"][0];
    assert_eq!(
        (&route["route"][0]["weight"], &route["route"][1]["weight"]),
        (&json!(50), &json!(50))
    );
    assert_eq!(route["timeout"], "5s");
    let rule = rules.get("shop").await.unwrap();
    let labels = |n: usize| rule.data["spec"]["subsets"][n]["labels"]["pod-template-hash"].clone();
    assert_eq!((labels(0), labels(1)), (json!(stable), json!(canary)));
    assert_eq!(rule.data["spec"]["subsets"][0]["labels"]["app"], "shop");

    let run = scene.outcome(&next).await;
    assert!(ended(&run, Outcome::Promoted), "{:?}", run.spec.progress);
    scene
        .until(&next, "it is stable", |it| phase(it) == Phase::Stable)
        .await;
    let service = virtual_services.get("shop").await.unwrap();
    assert_eq!(
        service.data["spec"]["http"][0]["route"][1]["weight"],
        json!(0)
    );
    let rule = rules.get("shop").await.unwrap();
    assert_eq!(
        rule.data["spec"]["subsets"][0]["labels"]["pod-template-hash"],
        json!(canary)
    );
}

fn istio(scene: &Scene) -> (Api<DynamicObject>, Api<DynamicObject>) {
    let version = "networking.istio.io/v1";
    (
        routes(scene, version, "VirtualService"),
        routes(scene, version, "DestinationRule"),
    )
}

/// Routes without a router: the test checks the writes, and sets the router's status by hand.
#[tokio::test]
async fn grpc_tls_and_tcp_routes_and_istio_by_hosts_get_their_weights() {
    let scene = Scene::new("routed-others").await;
    scene
        .cluster
        .install_kinds(Kinds::GatewayApi)
        .await
        .unwrap();
    scene
        .cluster
        .install_kinds(Kinds::GatewayApiExperimental)
        .await
        .unwrap();
    scene.cluster.install_kinds(Kinds::Istio).await.unwrap();
    services(&scene).await;
    let (v1, alpha) = (
        "gateway.networking.k8s.io/v1",
        "gateway.networking.k8s.io/v1alpha2",
    );
    let kinds = [(v1, "GRPCRoute"), (alpha, "TLSRoute"), (alpha, "TCPRoute")];
    for (version, kind) in kinds {
        let mut route = json!({
            "apiVersion": version, "kind": kind, "metadata": { "name": "shop" },
            "spec": { "parentRefs": [{ "name": "nobody" }], "rules": [{ "backendRefs": [backend(STABLE, 1), backend(CANARY, 0)] }] },
        });
        if kind == "TLSRoute" {
            route["spec"]["hostnames"] = json!([host(&scene)]);
        }
        create(&routes(&scene, version, kind), &route).await;
    }
    let (virtual_services, _) = istio(&scene);
    let destination =
        |host: &str, weight: i32| json!({ "destination": { "host": host }, "weight": weight });
    let domain = format!("{STABLE}.{}.svc.cluster.local", scene.namespace);
    create(&virtual_services, &json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": { "name": "shop" },
        "spec": { "hosts": [STABLE], "http": [{ "route": [destination(&domain, 100), destination(CANARY, 0)] }] },
    })).await;
    let named: Vec<_> = ["GRPCRoute", "TLSRoute", "TCPRoute", "VirtualService"]
        .iter()
        .map(|kind| json!({ "kind": kind, "name": "shop" }))
        .collect();
    let preview = json!({ "weight": 0, "mirror": 25, "bake": "1s" });
    let mut more_ = json!({ "steps": [preview, { "weight": 20, "bake": "2s" }] });
    more_["traffic"] = json!({ "routes": named });
    let mut app = App::new("shop").spec(canary(&more_));
    app.checks = false;
    scene.apply(&app).await;
    scene
        .until(&app, "the first revision serves", |it| {
            phase(it) == Phase::Stable
        })
        .await;
    scene.apply(&app.version("v2")).await;
    awaits_traffic(&scene, &app, "Gateway nobody has not reported").await;
    let mirrored = async || {
        let service = virtual_services.get("shop").await.unwrap();
        let grpc = routes(&scene, v1, "GRPCRoute").get("shop").await.unwrap();
        let percent = grpc
            .data
            .pointer("/spec/rules/0/filters/0/requestMirror/percent");
        (
            service.data["spec"]["http"][0]["mirrorPercentage"]["value"].clone(),
            percent.cloned().unwrap_or_default(),
        )
    };
    assert_eq!(mirrored().await, (json!(25), json!(25)));
    // Plays the router's status until the rollout has ended.
    let accept = async {
        loop {
            for (version, kind) in kinds {
                let api = routes(&scene, version, kind);
                let route = api.get("shop").await.unwrap();
                let weight = route.data["spec"]["rules"][0]["backendRefs"][1]["weight"].as_i64();
                assert!(
                    [Some(0), Some(20), Some(70), Some(100)].contains(&weight),
                    "{weight:?}"
                );
                let condition = |name: &str| {
                    json!({
                        "type": name, "status": "True", "reason": "Ok", "message": "",
                        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": route.metadata.generation,
                    })
                };
                let parents = json!([{
                    "parentRef": { "name": "nobody" }, "controllerName": "example.org/test",
                    "conditions": [condition("Accepted"), condition("ResolvedRefs")],
                }]);
                let patch = Patch::Merge(json!({ "status": { "parents": parents } }));
                api.patch_status("shop", &PatchParams::default(), &patch)
                    .await
                    .unwrap();
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let run = tokio::select! {
        run = scene.outcome(&app) => run,
        () = accept => unreachable!(),
    };
    assert!(ended(&run, Outcome::Promoted), "{:?}", run.spec.progress);
    assert_eq!(mirrored().await, (Value::Null, Value::Null));
}
