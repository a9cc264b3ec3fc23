//! Routes that are missing, wrong, foreign or taken hold a change and are named.

use super::*;

#[tokio::test]
async fn a_missing_or_wrong_route_holds_with_the_reason_until_it_is_fixed() {
    let scene = Scene::new("routed-missing").await;
    let gateway = scene.cluster.gateway().await.unwrap();
    services(&scene).await;
    let app = App::new("shop").spec(canary(&json!({})));
    scene.apply(&app).await;
    scene
        .until(&app, "the first revision serves", |it| {
            phase(it) == Phase::Stable
        })
        .await;
    let next = app.version("v2");
    scene.apply(&next).await;
    let held = scene
        .until(&next, "the missing route is named", |it| {
            waits_for(it, "RouteNotFound")
        })
        .await;
    let (stalled, _, why) = condition(&held, "Stalled").unwrap();
    assert!(stalled == "True" && why.contains("HTTPRoute shop"), "{why}");

    let mut route = http_route(&scene, gateway);
    route["spec"]["rules"][1]["backendRefs"] = json!([backend(STABLE, 1)]);
    create(&http_routes(&scene), &route).await;
    let held = scene
        .until(&next, "the missing backend is named", |it| {
            waits_for(it, "RouteInvalid")
        })
        .await;
    let message = held.status.unwrap().message;
    assert!(
        message.contains("none of its rules sends to both Service shop and"),
        "{message}"
    );

    let backends = json!([{ "op": "replace", "path": "/spec/rules/1/backendRefs", "value": [backend(STABLE, 1), backend(CANARY, 0)] }]);
    let patch: Patch<DynamicObject> = Patch::Json(serde_json::from_value(backends).unwrap());
    http_routes(&scene)
        .patch("shop", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let load = through(&scene, gateway).await;
    let run = scene.outcome(&next).await;
    assert!(ended(&run, Outcome::Promoted), "{:?}", run.spec.progress);
    all_well(&load.stop().await);
}

#[tokio::test]
async fn a_backend_in_a_foreign_namespace_without_a_grant_holds_and_is_named() {
    let scene = Scene::new("routed-foreign").await;
    let (app, _load) = routed(&scene, &json!({})).await;
    let foreign = json!({ "name": "x", "namespace": "kube-system", "port": 80, "weight": 0 });
    let rules = json!([{ "op": "add", "path": "/spec/rules/2/backendRefs/-", "value": foreign }]);
    let patch: Patch<DynamicObject> = Patch::Json(serde_json::from_value(rules).unwrap());
    http_routes(&scene)
        .patch("shop", &PatchParams::default(), &patch)
        .await
        .unwrap();
    scene.apply(&app.version("v2")).await;
    awaits_traffic(&scene, &app, "ResolvedRefs").await;
    let run = scene.outcome(&app).await;
    assert!(ended(&run, Outcome::RolledBack));
}

#[tokio::test]
async fn two_rollouts_do_not_split_one_rule() {
    let scene = Scene::new("routed-twice").await;
    let (_app, _load) = routed(&scene, &json!({})).await;
    for name in ["blog", "blog-canary"] {
        scene.service(name, "blog").await;
    }
    let both = json!([{ "op": "add", "path": "/spec/rules/1/backendRefs/-", "value": backend("blog", 1) },
        { "op": "add", "path": "/spec/rules/1/backendRefs/-", "value": backend("blog-canary", 0) }]);
    let patch: Patch<DynamicObject> = Patch::Json(serde_json::from_value(both).unwrap());
    http_routes(&scene)
        .patch("shop", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let mut spec = canary(&json!({}));
    spec["strategy"]["canary"]["stableService"] = json!("blog");
    spec["strategy"]["canary"]["canaryService"] = json!("blog-canary");
    let blog = App::new("blog").spec(spec);
    scene.apply(&blog).await;
    let held = scene
        .until(&blog, "the conflict is named", |it| {
            waits_for(it, "Conflict")
        })
        .await;
    let message = held.status.unwrap().message;
    assert!(
        message.contains("Rollout shop") && message.contains("rule 2"),
        "{message}"
    );
}

#[tokio::test]
async fn a_tier_that_requires_routes_holds_a_change_without_them() {
    let scene = Scene::new("require-router").await;
    scene
        .policy(json!({ "tiers": { "low": { "requireRouter": true } } }))
        .await;
    let app = scene.serving(App::new("shop")).await;
    scene.apply(&app.version("v2")).await;
    let held = scene
        .until(&app, "it waits for a router", |it| {
            waits_for(it, "RouterRequired")
        })
        .await;
    let message = held.status.unwrap().message;
    assert!(message.contains("requireRouter"), "{message}");
    scene.remove_policy().await;
}
