//! Routes: Traefik splits real requests by the weights that the operator writes, and none is lost.

mod holds;
mod kinds;

use std::time::Duration;

use countersign::clock;
use countersign_api::rollout::Outcome;
use countersign_api::{Phase, Rollout};
use countersign_cluster::{Gateway, Kinds, Limits, Load, LoadReport, wait_for};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::{App, Scene, TIMEOUT, condition, ended, merge, phase, waits_for};

const STABLE: &str = "shop";
const CANARY: &str = "shop-canary";

/// The API of a kind of routes in the scene's namespace.
fn routes(scene: &Scene, api_version: &str, kind: &str) -> Api<DynamicObject> {
    let (group, version) = api_version.split_once('/').unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Api::namespaced_with(scene.cluster.client(), &scene.namespace, &resource)
}

fn http_routes(scene: &Scene) -> Api<DynamicObject> {
    routes(scene, "gateway.networking.k8s.io/v1", "HTTPRoute")
}

pub fn host(scene: &Scene) -> String {
    format!("{}.example.org", scene.namespace)
}

fn backend(name: &str, weight: i32) -> Value {
    json!({ "name": name, "port": 80, "weight": weight })
}

/// A route with foreign rules around the Rollout's own.
fn http_route(scene: &Scene, gateway: Gateway) -> Value {
    let path = |value: &str| json!([{ "path": { "type": "PathPrefix", "value": value } }]);
    let add = json!([{ "type": "RequestHeaderModifier", "requestHeaderModifier": { "add": [{ "name": "x-a", "value": "b" }] } }]);
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": { "name": "shop" },
        "spec": {
            "parentRefs": [gateway.parent_ref()], "hostnames": [host(scene)],
            "rules": [
                { "matches": path("/stable-only"), "backendRefs": [backend(STABLE, 1)] },
                { "matches": path("/"), "timeouts": { "request": "10s" },
                  "backendRefs": [backend(STABLE, 1), backend(CANARY, 0)] },
                { "matches": path("/filtered"), "filters": add, "backendRefs": [backend(STABLE, 3), backend("other", 1)] },
            ],
        },
    })
}

async fn create(api: &Api<DynamicObject>, object: &Value) {
    let object = serde_json::from_value(object.clone()).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

fn canary(more: &Value) -> Value {
    let mut canary = json!({
        "stableService": STABLE, "canaryService": CANARY, "drain": "3s",
        "traffic": { "routes": [{ "name": "shop" }] },
    });
    merge(&mut canary, more);
    json!({ "strategy": { "canary": canary } })
}

async fn services(scene: &Scene) {
    for name in [STABLE, CANARY, "other"] {
        scene.service(name, "shop").await;
    }
}

/// An application behind Traefik whose first revision serves, with a load through the gateway.
pub async fn routed(scene: &Scene, more: &Value) -> (App, Load) {
    let gateway = scene.cluster.gateway().await.unwrap();
    services(scene).await;
    create(&http_routes(scene), &http_route(scene, gateway)).await;
    let app = App::new("shop").spec(canary(more));
    scene.apply(&app).await;
    scene
        .until(&app, "the first revision serves", |rollout| {
            phase(rollout) == Phase::Stable
        })
        .await;
    let load = through(scene, gateway).await;
    (app, load)
}

async fn through(scene: &Scene, gateway: Gateway) -> Load {
    let limits = Limits {
        max_requests: 200_000,
        max_time: Duration::from_mins(5),
    };
    Load::through(gateway, &host(scene), 100, limits)
        .await
        .unwrap()
}

/// The two weights in the route's own rule.
async fn weights(scene: &Scene) -> (i64, i64) {
    let route = http_routes(scene).get("shop").await.unwrap();
    let weight = |n: usize| {
        let path = format!("/spec/rules/1/backendRefs/{n}/weight");
        route.data.pointer(&path).and_then(Value::as_i64).unwrap()
    };
    (weight(0), weight(1))
}

/// Whether the routes have this weight and the router has accepted it.
pub fn settled(rollout: &Rollout, weight: i32) -> bool {
    let split = rollout.status.as_ref().and_then(|it| it.traffic.as_ref());
    split.is_some_and(|it| {
        it.settled_at.is_some() && it.weight == weight && it.settled_weight == weight
    })
}

fn requests(report: &LoadReport, hash: &str) -> u64 {
    report.by_revision.get(hash).map_or(0, |it| it.requests)
}

fn all_well(report: &LoadReport) {
    let failed = (report.http_errors, report.connection_errors);
    assert_eq!(failed, (0, 0), "{:?}: {report:?}", report.last_failure);
}

fn hash_of(rollout: &Rollout) -> String {
    let change = rollout.status.as_ref().and_then(|it| it.change.as_ref());
    change.map(|it| it.pod_template_hash.clone()).unwrap()
}

/// Waits until a change waits for its traffic, with this message.
async fn awaits_traffic(scene: &Scene, app: &App, what: &str) -> Rollout {
    scene
        .until(app, what, |it| {
            let message = it.status.as_ref().map_or("", |it| it.message.as_str());
            waits_for(it, "AwaitingTraffic") && message.contains(what)
        })
        .await
}

/// Waits until so many more requests were served.
async fn more(load: &Load, requests: u64) -> LoadReport {
    let wanted = load.report().requests + requests;
    let poll = async || Some(load.report()).filter(|report| report.requests >= wanted);
    wait_for("more requests are served", TIMEOUT, poll)
        .await
        .unwrap()
}

/// The canary's share of the requests between two reports, and their number.
fn share(start: &LoadReport, end: &LoadReport, hash: &str) -> (f64, f64) {
    let all = (end.requests - start.requests) as f64;
    let of_canary = (requests(end, hash) - requests(start, hash)) as f64;
    (of_canary / all, all)
}

/// Waits until the canary's share exceeds this one: a gateway applies a route a moment after it has accepted it.
async fn exceeds(load: &Load, hash: &str, least: f64) {
    let poll = async || {
        let start = load.report();
        let end = more(load, 50).await;
        let (share, _) = share(&start, &end, hash);
        (share > least).then_some(()).ok_or(share)
    };
    wait_for("the gateway has applied the route", TIMEOUT, poll)
        .await
        .unwrap();
}

fn steps(weights: &[i32], bake: &str) -> Value {
    let steps: Vec<_> = weights
        .iter()
        .map(|weight| json!({ "weight": weight, "bake": bake }))
        .collect();
    json!({ "steps": steps })
}

#[tokio::test]
async fn every_step_has_exactly_its_share_and_no_request_is_lost() {
    let scene = Scene::new("routed").await;
    let (app, load) = routed(&scene, &steps(&[10, 30, 50], "8s")).await;
    let mut before = http_routes(&scene).get("shop").await.unwrap().data["spec"].clone();
    // A first revision may be stable before its reconcile has seen the route.
    before["rules"][1]["backendRefs"][0]["weight"] = json!(100);
    let next = app.version("v2");
    scene.apply(&next).await;
    let mut last = 0.0;
    for weight in [10, 30, 50] {
        let seen = scene
            .until(&next, "the step's share is accepted", |rollout| {
                settled(rollout, weight)
            })
            .await;
        assert_eq!(seen.status.as_ref().unwrap().weight, Some(weight));
        assert_eq!(
            weights(&scene).await,
            (i64::from(100 - weight), i64::from(weight))
        );
        let (hash, wanted) = (hash_of(&seen), f64::from(weight) / 100.0);
        exceeds(&load, &hash, f64::midpoint(last, wanted)).await;
        let start = load.report();
        let (share, all) = share(&start, &more(&load, 400).await, &hash);
        // Traefik uses weighted round robin, so the share is more exact than random.
        let error = 3.0 * (0.25 / all).sqrt();
        assert!((share - wanted).abs() < error, "{weight}: {share} of {all}");
        last = wanted;
    }
    let run = scene.outcome(&next).await;
    assert!(ended(&run, Outcome::Promoted), "{:?}", run.spec.progress);
    let stable = scene
        .until(&next, "it is stable", |rollout| {
            phase(rollout) == Phase::Stable
        })
        .await;
    assert_eq!(weights(&scene).await, (100, 0));
    let after = http_routes(&scene).get("shop").await.unwrap().data["spec"].clone();
    assert_eq!(after, before, "nothing else in the route has changed");
    more(&load, 100).await;
    let report = load.stop().await;
    all_well(&report);
    let hash = stable.status.unwrap().stable.unwrap().pod_template_hash;
    assert!(requests(&report, &hash) > 0);
}

#[tokio::test]
#[ignore = "make e2e-alone runs it"]
async fn a_bad_canary_is_out_of_the_traffic_within_two_seconds() {
    // What it takes is measured.
    let scene = Scene::alone("routed-bad").await;
    let (app, load) = routed(&scene, &steps(&[30], "60s")).await;
    let next = app.version("v2");
    scene.apply(&next).await;
    let seen = scene
        .until(&next, "the canary has its share", |rollout| {
            settled(rollout, 30)
        })
        .await;
    let hash = hash_of(&seen);
    more(&load, 200).await;
    all_well(&load.report());
    scene
        .cluster
        .set_error_rate(&scene.namespace, &hash, 0.5)
        .await
        .unwrap();
    // The verdict is timed by its status write; the time in the status is the start of the reconcile.
    let poll = async || {
        let change = scene.get(&next).await.status.unwrap().change.unwrap();
        change.outcome.map(|_| (clock::now(), change))
    };
    let (verdict, change) = wait_for("it is rejected", TIMEOUT, poll).await.unwrap();
    let began = change.transitions.last().unwrap().at.clone().unwrap().0;
    scene
        .until(&next, "it is rolled back", |rollout| {
            phase(rollout) == Phase::Degraded
        })
        .await;
    assert!(ended(&scene.outcome(&next).await, Outcome::RolledBack));
    assert_eq!(weights(&scene).await, (100, 0));
    let report = load.stop().await;
    let last = report.by_revision[&hash].last_request_at.unwrap();
    let took = last.duration_since(verdict).as_secs_f64();
    let took_to_verdict = verdict.duration_since(began).as_secs_f64();
    println!(
        "verdict {took_to_verdict:.2} s, from the verdict to the canary's last request {took:.2} s"
    );
    assert!(took < 2.0, "{took}");
    assert_eq!(report.connection_errors, 0, "{:?}", report.last_failure);
    let others = report.by_revision.iter().filter(|(it, _)| **it != hash);
    assert!(others.clone().count() >= 1 && others.clone().all(|(_, it)| it.errors == 0));
    let within = |seconds: &str| {
        let metrics = crate::interfaces::fetch("/metrics");
        let name = format!("countersign_weight_write_seconds_{seconds} ");
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(&name).map(str::to_owned));
        line.and_then(|count| count.parse::<f64>().ok()).unwrap()
    };
    let (most, all) = (within(r#"bucket{le="0.128"}"#), within("count"));
    println!("{most} of {all} weights were written within 128 ms of their decision");
    assert_eq!(scene.pods(&hash).await, 0);
}

#[tokio::test]
#[ignore = "make e2e-alone runs it"]
async fn a_return_a_newer_change_a_crash_and_scaling_lose_no_request() {
    let scene = Scene::alone("routed-rough").await;
    let (app, load) = routed(&scene, &steps(&[30, 50], "60s")).await;
    scene.apply(&app.version("v2")).await;
    scene
        .until(&app, "v2 has its share", |rollout| settled(rollout, 30))
        .await;
    // A newer change on top.
    scene.apply(&app.version("v3")).await;
    let third = scene
        .until(&app, "v3 has its share", |rollout| {
            let third = rollout.status.as_ref().and_then(|it| it.change.as_ref());
            third.is_some_and(|it| it.revision == 3) && settled(rollout, 30)
        })
        .await;
    // Scaling and a crash in mid-step.
    let scale = json!({ "spec": { "replicas": 6 } });
    let rollouts = scene.rollouts();
    let (parameters, patch) = (PatchParams::default(), Patch::Merge(scale));
    rollouts
        .patch_scale(&app.name, &parameters, &patch)
        .await
        .unwrap();
    scene.cluster.kill_operator().await.unwrap();
    scene
        .until(&app, "both sides have grown", |rollout| {
            rollout
                .status
                .as_ref()
                .is_some_and(|it| it.available_replicas >= 8)
        })
        .await;
    all_well(&load.report());
    let hash = hash_of(&third);
    // The template goes back.
    scene
        .apply(&app.spec(canary(&steps(&[30, 50], "60s"))))
        .await;
    scene
        .until(&app, "stable serves alone", |rollout| {
            let status = rollout.status.as_ref().unwrap();
            status.change.is_none() && status.stable.as_ref().is_some_and(|it| it.revision == 1)
        })
        .await;
    assert_eq!(weights(&scene).await, (100, 0));
    assert_eq!(scene.pods(&hash).await, 0);
    more(&load, 200).await;
    all_well(&load.stop().await);
}

#[tokio::test]
async fn weights_that_a_gitops_tool_sets_are_set_back_and_named() {
    let scene = Scene::new("routed-drift").await;
    let (app, load) = routed(&scene, &steps(&[30], "30s")).await;
    scene.apply(&app.version("v2")).await;
    let seen = scene
        .until(&app, "v2 has its share", |rollout| settled(rollout, 30))
        .await;
    let step = seen.status.unwrap().change.unwrap().step;
    let own =
        json!([{ "op": "replace", "path": "/spec/rules/1/backendRefs/1/weight", "value": 90 }]);
    let patch: Patch<DynamicObject> = Patch::Json(serde_json::from_value(own).unwrap());
    let parameters = PatchParams {
        field_manager: Some("argocd".into()),
        ..PatchParams::default()
    };
    http_routes(&scene)
        .patch("shop", &parameters, &patch)
        .await
        .unwrap();
    let poll = async || (weights(&scene).await == (70, 30)).then_some(());
    wait_for("the weights are set back", TIMEOUT, poll)
        .await
        .unwrap();
    scene.event_once(&app, "WeightsCorrected").await;
    let events = scene.events(&app, "WeightsCorrected").await;
    assert!(
        events[0].contains("argocd set the canary's weight"),
        "{events:?}"
    );
    let now = scene.get(&app).await.status.unwrap().change.unwrap();
    assert_eq!((now.step, now.weight), (step, 30));
    all_well(&load.report());
}

#[tokio::test]
async fn testers_reach_the_canary_before_anybody_else_and_what_they_see_decides() {
    let scene = Scene::new("routed-testers").await;
    let testers = json!({ "headers": [{ "name": "x-tester", "value": "yes" }] });
    let mut plan = json!({ "steps": [{ "weight": 0, "bake": "3s", "minRequests": 100 }, { "weight": 50, "bake": "2s" }] });
    plan["traffic"] = json!({ "testers": testers });
    let (app, load) = routed(&scene, &plan).await;
    let next = app.version("v2");
    scene.apply(&next).await;
    let seen = scene
        .until(&next, "the canary is ready for testers", |rollout| {
            let change = rollout.status.as_ref().and_then(|it| it.change.as_ref());
            change.is_some_and(|it| it.step == 1 && it.available_at.is_some())
        })
        .await;
    let hash = hash_of(&seen);
    let own = http_routes(&scene).get("shop-testers").await.unwrap();
    assert_eq!(own.data["spec"]["hostnames"], json!([host(&scene)]));
    let gateway = scene.cluster.gateway().await.unwrap();
    let test = async || {
        let answer = gateway
            .get(&host(&scene), "/", &[("x-tester", "yes")])
            .await;
        let answer = answer.map_err(|error| error.to_string())?;
        let revision = answer.headers().get("x-revision");
        let revision = revision.and_then(|it| it.to_str().ok());
        (revision == Some(&hash))
            .then_some(())
            .ok_or(format!("{revision:?}"))
    };
    wait_for("a tester reaches the canary", TIMEOUT, test)
        .await
        .unwrap();
    assert_eq!(requests(&load.report(), &hash), 0, "nobody else does");
    let own = http_routes(&scene).get("shop-testers").await.unwrap();
    assert_eq!(own.metadata.generation, Some(1), "it is written once");

    // Testers continue until the check has enough requests.
    let poll = async || {
        for _ in 0..5 {
            test().await?;
        }
        let change = scene.get(&next).await.status.unwrap().change;
        let step = change.map_or(0, |it| it.step);
        (step == 2).then_some(()).ok_or(format!("step {step}"))
    };
    wait_for("what they see lets the change continue", TIMEOUT, poll)
        .await
        .unwrap();
    let run = scene.outcome(&next).await;
    assert!(ended(&run, Outcome::Promoted), "{:?}", run.spec.progress);
    let lines = &run.spec.progress.transitions;
    let accepted = lines
        .iter()
        .any(|it| it.reason == "ScarceEvidenceAccepted" && it.step == 1);
    assert!(!accepted, "{lines:?}");
    scene
        .until(&next, "it is stable", |rollout| {
            phase(rollout) == Phase::Stable
        })
        .await;
    let own = http_routes(&scene).get_opt("shop-testers").await.unwrap();
    assert!(own.is_none(), "it goes with the canary");
    all_well(&load.stop().await);
}

#[tokio::test]
async fn with_dynamic_stable_pods_follow_the_traffic_and_none_is_lost() {
    let scene = Scene::new("routed-dynamic").await;
    let mut dynamic = steps(&[50], "8s");
    merge(&mut dynamic, &json!({ "dynamicStable": true }));
    let (app, load) = routed(&scene, &dynamic).await;
    let stable = scene
        .get(&app)
        .await
        .status
        .unwrap()
        .stable
        .unwrap()
        .pod_template_hash;
    let next = app.version("v2");
    scene.apply(&next).await;
    let poll = async || (scene.pods(&stable).await == 2).then_some(());
    wait_for("stable has given up what it no longer needs", TIMEOUT, poll)
        .await
        .unwrap();
    // Back again: stable grows before it gets more.
    scene.apply(&app).await;
    scene
        .until(&app, "stable serves alone", |rollout| {
            let status = rollout.status.as_ref().unwrap();
            status.change.is_none() && status.available_replicas == 4
        })
        .await;
    assert_eq!(weights(&scene).await, (100, 0));
    more(&load, 200).await;
    all_well(&load.stop().await);
}

#[tokio::test]
async fn blue_green_switches_all_at_once_and_the_way_back_is_instant() {
    let scene = Scene::new("blue-green").await;
    let plan =
        json!({ "steps": [{ "weight": 0, "scale": 100, "bake": "3s" }], "scaleDownDelay": "10m" });
    let (app, load) = routed(&scene, &plan).await;
    let next = app.version("v2");
    scene.apply(&next).await;
    // The tests' policy requires a last step of 50%: the plan notes the addition.
    let seen = scene
        .until(
            &next,
            "it is promoted and the old side is kept",
            |rollout| {
                let status = rollout.status.as_ref().unwrap();
                phase(rollout) == Phase::Stable
                    && status.stable.as_ref().is_some_and(|it| it.revision == 2)
            },
        )
        .await;
    let status = seen.status.unwrap();
    assert!(
        status.message.contains("is kept until"),
        "{}",
        status.message
    );
    let kept = status.change.unwrap().previous.unwrap().pod_template_hash;
    assert_eq!(scene.pods(&kept).await, 4);
    scene.apply(&app).await;
    scene
        .until(&app, "the old side serves again", |rollout| {
            let stable = rollout.status.as_ref().and_then(|it| it.stable.as_ref());
            stable.is_some_and(|it| it.revision == 1) && phase(rollout) == Phase::Stable
        })
        .await;
    more(&load, 100).await;
    all_well(&load.stop().await);
}

#[tokio::test]
async fn plain_services_are_switched_without_a_lost_request() {
    let scene = Scene::new("plain-services").await;
    services(&scene).await;
    let named = json!({ "strategy": { "canary": {
        "stableService": STABLE, "canaryService": CANARY, "drain": "3s", "steps": [{ "weight": 0, "scale": 100, "bake": "3s" }],
    } } });
    let mut app = App::new("shop").spec(named);
    app.checks = false;
    scene.apply(&app).await;
    scene
        .until(&app, "the first revision serves", |it| {
            phase(it) == Phase::Stable
        })
        .await;
    let load = scene.load(&app, 100).await;
    let next = app.version("v2");
    scene.apply(&next).await;
    let services: Api<Service> = Api::namespaced(scene.cluster.client(), &scene.namespace);
    let stable = scene
        .until(&next, "it is stable", |it| {
            phase(it) == Phase::Stable
                && it
                    .status
                    .as_ref()
                    .unwrap()
                    .stable
                    .as_ref()
                    .is_some_and(|it| it.revision == 2)
        })
        .await;
    let hash = stable.status.unwrap().stable.unwrap().pod_template_hash;
    let selector = services
        .get(STABLE)
        .await
        .unwrap()
        .spec
        .unwrap()
        .selector
        .unwrap();
    assert_eq!(selector.get("pod-template-hash"), Some(&hash));
    more(&load, 100).await;
    all_well(&load.stop().await);
}
