//! Reconciles that events have caused, with what the watches have reported.

mod records;
mod rollouts;
mod templates;

use countersign_api::RouteKind;
use countersign_core::decision::{RoutePatch, TestersRoute};

use super::costs::kinds_read;
use super::*;

/// The only Rollout.
fn rollout(scene: &Scene) -> Value {
    scene.server.get(&format!("{ROLLOUTS}/web")).unwrap()
}

/// The only ReplicaSet, with its path.
fn only_set(scene: &Scene) -> (String, Value) {
    let mut paths = scene.server.paths("replicasets");
    assert_eq!(paths.len(), 1);
    let path = paths.remove(0);
    let set = scene.server.get(&path).unwrap();
    (path, set)
}

/// A scene at rest, whose watches have listed everything.
async fn at_rest() -> Scene {
    let scene = Scene::at_rest("web").await;
    scene.watches().await;
    kinds_read(&scene);
    scene
}

/// Edits the number of replicas of the Rollout, which its watch reports.
fn scale(scene: &Scene, replicas: i32) {
    let mut edited = rollout(scene);
    edited["spec"]["replicas"] = json!(replicas);
    edited["metadata"]["generation"] = json!(replicas + 10);
    scene.server.put(&format!("{ROLLOUTS}/web"), edited);
    let caches = &scene.context.observer.caches;
    caches.report_rollout(rollout(scene));
}

#[tokio::test]
async fn a_rollout_at_rest_that_an_event_concerns_costs_no_read() {
    let mut scene = at_rest().await;
    scene.reconcile_reported("web").await.unwrap();
    assert_eq!(kinds_read(&scene), [""; 0]);
    // Without an event a watch may be silent.
    scene.reconcile("web").await.unwrap();
    assert_eq!(kinds_read(&scene), ["replicasets", "rollouts"]);
}

#[tokio::test]
async fn law_5_nothing_is_decided_from_what_a_watch_has_not_reported_yet() {
    let mut scene = at_rest().await;
    // Nobody reports it: the event is late, or was lost.
    let (path, mut set) = only_set(&scene);
    set["status"]["availableReplicas"] = json!(0);
    scene.server.put(&path, set);
    scale(&scene, 2);
    scene.reconcile_reported("web").await.unwrap();
    let available = scene.status("web")["availableReplicas"].as_i64();
    assert_eq!(available.unwrap_or_default(), 0);
    assert_eq!(kinds_read(&scene), ["replicasets"]);
}

#[tokio::test]
async fn law_5_nothing_is_decided_from_a_cache_that_lags_behind_an_own_write() {
    let mut scene = at_rest().await;
    scale(&scene, 2);
    scene.reconcile_reported("web").await.unwrap();
    let (path, set) = only_set(&scene);
    assert_eq!(set["spec"]["replicas"], 2);
    kinds_read(&scene);
    // The watches have reported neither the status nor the ReplicaSet.
    scene.reconcile_reported("web").await.unwrap();
    let reads = kinds_read(&scene);
    for kind in ["replicasets", "rollouts"] {
        assert!(reads.iter().any(|it| it == kind), "{reads:?}");
    }
    scene.pods_are_ready();
    for _ in 0..3 {
        scene.reconcile("web").await.unwrap();
    }
    let set = scene.server.get(&path).unwrap();
    let caches = scene.context.observer.caches.clone();
    caches.report_rollout(rollout(&scene));
    caches.report_set(set);
    kinds_read(&scene);
    scene.reconcile_reported("web").await.unwrap();
    assert_eq!(kinds_read(&scene), [""; 0]);
}

#[tokio::test]
async fn after_a_failed_reconcile_everything_is_read() {
    let mut scene = at_rest().await;
    scale(&scene, 2);
    let writes = |request: &RecordedRequest| request.method != "GET";
    let lost = move |request: &RecordedRequest| writes(request).then_some(Fault::Refuse(500));
    scene.server.fails(lost);
    scene.reconcile_reported("web").await.unwrap_err();
    scene.server.fails(|_| None);
    kinds_read(&scene);
    scene.reconcile_reported("web").await.unwrap();
    assert_eq!(kinds_read(&scene), ["replicasets", "rollouts"]);
}

#[tokio::test]
async fn law_11_a_replica_set_that_is_not_as_recorded_is_read() {
    let mut scene = at_rest().await;
    let (path, mut set) = only_set(&scene);
    set["spec"]["template"]["spec"]["containers"][0]["image"] = json!("evil:1");
    scene.server.put(&path, set);
    let caches = scene.context.observer.caches.clone();
    caches.report_set(scene.server.get(&path).unwrap());
    scene.reconcile_reported("web").await.unwrap();
    let status = scene.status("web");
    let conditions = status["conditions"].as_array().unwrap();
    assert!(
        conditions.iter().any(|it| it["type"] == "Tampered"),
        "{status}"
    );
}

#[tokio::test]
async fn law_11_a_replica_set_that_its_watch_shows_no_more_is_looked_for() {
    let mut scene = at_rest().await;
    let lost = Trigger::Lost(ObjectRef::new("web").within("shop"));
    assert_eq!(triggers::reconciled_by(&scene, vec![lost]).await, ["web"]);
    scene.reconcile_reported("web").await.unwrap();
    assert_eq!(kinds_read(&scene), ["replicasets", "rollouts"]);
    scene.reconcile_reported("web").await.unwrap();
    assert_eq!(kinds_read(&scene), [""; 0]);
}

#[tokio::test]
async fn law_5_a_new_leader_relies_on_no_cache_that_another_ones_write_has_not_reached() {
    let mut scene = Scene::at_rest("web").await;
    let caches = scene.context.observer.caches.clone();
    let (path, set) = only_set(&scene);
    caches.list(vec![rollout(&scene)], vec![set.clone()]);
    scene.server.put(&path, set);
    caches.open(&scene.server.client()).await;
    kinds_read(&scene);
    scene.reconcile_reported("web").await.unwrap();
    assert_eq!(kinds_read(&scene), ["replicasets"]);
    caches.report_set(scene.server.get(&path).unwrap());
    scene.reconcile_reported("web").await.unwrap();
    assert_eq!(kinds_read(&scene), [""; 0]);
}

/// A scene with a canary that has come to rest in its step.
async fn stepping() -> Scene {
    let mut scene = Scene::serving("web").await;
    scene.deploy("web", "app:2");
    for _ in 0..4 {
        scene.reconcile("web").await.unwrap();
        scene.pods_are_ready();
    }
    for _ in 0..3 {
        scene.reconcile("web").await.unwrap();
    }
    assert_eq!(scene.status("web")["change"]["stage"], "Stepping");
    scene.watches().await;
    kinds_read(&scene);
    scene
}

/// Somebody's command on the change under way.
fn intervene(scene: &Scene, action: &str) {
    let path = ROLLOUTS.replace("rollouts", "interventions/one");
    let change = &scene.status("web")["change"];
    scene.server.put(
        &path,
        json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "Intervention",
            "metadata": { "name": "one", "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": {
                "rollout": "web", "rolloutUid": format!("uid-of-{ROLLOUTS}/web"),
                "run": change["run"], "digest": change["digest"], "action": action,
                "person": { "username": "alice" },
            },
        }),
    );
}

#[tokio::test]
async fn a_canary_of_which_nobody_has_said_anything_costs_no_read() {
    let mut scene = stepping().await;
    scene.reconcile_reported("web").await.unwrap();
    assert_eq!(kinds_read(&scene), [""; 0]);
}

#[tokio::test]
async fn what_somebody_has_said_is_read_once_a_watch_has_reported_it() {
    let mut scene = stepping().await;
    intervene(&scene, "Abort");
    scene.watches().await;
    kinds_read(&scene);
    scene.reconcile_reported("web").await.unwrap();
    let reads = kinds_read(&scene);
    assert!(reads.iter().any(|it| it == "interventions"), "{reads:?}");
    assert_eq!(scene.status("web")["change"]["outcome"], "RolledBack");
}

#[tokio::test]
async fn law_3_an_abort_that_no_watch_has_reported_wins_over_whatever_else_is_written() {
    let mut scene = stepping().await;
    intervene(&scene, "Abort");
    scale(&scene, 2);
    scene.reconcile_reported("web").await.unwrap();
    assert_eq!(scene.status("web")["change"]["outcome"], "RolledBack");
}

/// A scene with a canary whose pod is awaited, and its ReplicaSet.
async fn awaiting() -> (Scene, Value) {
    let mut scene = Scene::serving("web").await;
    scene.deploy("web", "app:2");
    for _ in 0..7 {
        scene.reconcile("web").await.unwrap();
    }
    let change = scene.status("web")["change"].clone();
    assert_eq!(change["stage"], "Stepping");
    let sets = scene.server.paths("replicasets").into_iter();
    let mut sets = sets.map(|path| scene.server.get(&path).unwrap());
    let hash = &change["podTemplateHash"];
    let canary = sets.find(|set| set["metadata"]["labels"]["pod-template-hash"] == *hash);
    let canary = canary.unwrap();
    assert_ne!(canary["spec"]["replicas"], 0);
    scene.watches().await;
    kinds_read(&scene);
    (scene, canary)
}

#[tokio::test]
async fn awaited_pods_are_not_read_for_each_event() {
    let (mut scene, _) = awaiting().await;
    scene.reconcile_reported("web").await.unwrap();
    assert_eq!(kinds_read(&scene), [""; 0]);
    scene.reconcile("web").await.unwrap();
    let reads = kinds_read(&scene);
    assert!(reads.iter().any(|it| it == "pods"), "{reads:?}");
}

#[tokio::test]
async fn pods_that_crash_are_found_before_anything_is_written() {
    let (mut scene, canary) = awaiting().await;
    let owner = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": canary["metadata"]["name"],
        "uid": canary["metadata"]["uid"], "controller": true,
    });
    let container = json!({
        "name": "app", "image": "app:2", "imageID": "", "ready": false, "restartCount": 5,
        "state": { "waiting": { "reason": "CrashLoopBackOff" } },
        "lastState": { "terminated": { "exitCode": 1 } },
    });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "one", "ownerReferences": [owner] },
        "status": { "phase": "Running", "containerStatuses": [container] },
    });
    scene.server.put("/api/v1/namespaces/shop/pods/one", pod);
    scale(&scene, 2);
    scene.reconcile_reported("web").await.unwrap();
    assert_eq!(scene.status("web")["change"]["outcome"], "RolledBack");
}

#[tokio::test]
async fn of_a_change_under_way_everything_is_read_once_a_minute() {
    let mut scene = stepping().await;
    for reported in [true, false] {
        scene.context.read.lock().unwrap().clear();
        let mut reconcile = async || {
            if reported {
                scene.reconcile_reported("web").await.unwrap();
            } else {
                scene.reconcile("web").await.unwrap();
            }
            kinds_read(&scene)
        };
        let reads = reconcile().await;
        for kind in ["replicasets", "rollouts"] {
            assert!(reads.iter().any(|it| it == kind), "{reads:?}");
        }
        assert_eq!(reconcile().await, [""; 0], "the canary has traffic");
    }
}

/// A scene at rest with two Services.
async fn serving_two() -> Scene {
    let mut scene = Scene::new();
    for name in ["web", "web-canary"] {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
            "spec": { "type": "ClusterIP", "selector": { "app": "web" } },
        });
        let path = format!("/api/v1/namespaces/shop/services/{name}");
        scene.server.put(&path, service);
    }
    scene.deploy("web", "app:1");
    let mut deployed = rollout(&scene);
    deployed["spec"]["strategy"] =
        json!({ "canary": { "stableService": "web", "canaryService": "web-canary" } });
    scene.server.put(&format!("{ROLLOUTS}/web"), deployed);
    for _ in 0..6 {
        scene.reconcile("web").await.unwrap();
        scene.pods_are_ready();
    }
    assert_eq!(scene.status("web")["phase"], "Stable");
    scene
}

/// A scene at rest with two Services, whose watches have listed everything.
async fn with_services() -> Scene {
    let scene = serving_two().await;
    scene.watches().await;
    kinds_read(&scene);
    scene
}

/// Begins a change of a Rollout with two Services, and reconciles it until it waits for something; returns the kinds
/// that the last reconcile has read, without its watches.
async fn begin(scene: &mut Scene, traffic: &Value) -> Vec<String> {
    scene.deploy("web", "app:2");
    let mut deployed = rollout(scene);
    deployed["spec"]["strategy"] = json!({ "canary": {
        "stableService": "web", "canaryService": "web-canary", "traffic": traffic,
    } });
    scene.server.put(&format!("{ROLLOUTS}/web"), deployed);
    let stored = |scene: &Scene| {
        let kinds = ["rollouts", "replicasets", "services", "httproutes"];
        let paths = kinds.into_iter().flat_map(|it| scene.server.paths(it));
        let objects = paths.map(|path| scene.server.get(&path));
        objects.collect::<Vec<_>>()
    };
    for _ in 0..20 {
        scene.pods_are_ready();
        let before = stored(scene);
        kinds_read(scene);
        scene.reconcile("web").await.unwrap();
        if stored(scene) == before {
            let change = &scene.status("web")["change"];
            assert!(
                change.is_object() && change["outcome"].is_null(),
                "{change}"
            );
            return kinds_read(scene);
        }
    }
    panic!("it never waits: {}", scene.status("web"));
}

/// How often a kind was read.
fn count(reads: &[String], kind: &str) -> usize {
    reads.iter().filter(|it| *it == kind).count()
}

#[tokio::test]
async fn endpoints_that_the_watch_has_reported_are_not_read() {
    let mut scene = serving_two().await;
    let live = begin(&mut scene, &Value::Null).await;
    assert_eq!(count(&live, "endpointslices"), 1, "{live:?}");
    scene.watches().await;
    kinds_read(&scene);
    scene.reconcile_reported("web").await.unwrap();
    let reads = kinds_read(&scene);
    assert_eq!(count(&reads, "endpointslices"), 0, "{reads:?}");
}

#[tokio::test]
async fn services_that_the_watch_has_reported_are_not_read() {
    let mut scene = with_services().await;
    scene.reconcile_reported("web").await.unwrap();
    assert_eq!(kinds_read(&scene), [""; 0]);
}

#[tokio::test]
async fn services_are_read_before_a_write() {
    let mut scene = with_services().await;
    scale(&scene, 2);
    scene.reconcile_reported("web").await.unwrap();
    let all = ["replicasets", "services", "services"];
    assert_eq!(kinds_read(&scene), all);
}

#[tokio::test]
async fn everything_is_read_before_a_write_that_no_status_comes_before() {
    let mut scene = with_services().await;
    let path = "/api/v1/namespaces/shop/services/web";
    let service = scene.server.get(path).unwrap();
    let mut edited = service.clone();
    edited["spec"]["selector"]["pod-template-hash"] = json!("other");
    scene.server.put(path, edited);
    scene.watches().await;
    kinds_read(&scene);
    scene.reconcile_reported("web").await.unwrap();
    let selects = |service: &Value| service["spec"]["selector"].clone();
    assert_eq!(selects(&scene.server.get(path).unwrap()), selects(&service));
    let read = kinds_read(&scene);
    assert!(read.iter().any(|it| it == "rollouts"), "{read:?}");
}

const GATEWAY: &str = "gateway.networking.k8s.io/v1";
const HTTP_ROUTE: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/web";

/// A scene with a change behind a route that waits for something, whose watches have listed everything.
async fn routed() -> Scene {
    let mut scene = serving_two().await;
    let backend = |name: &str, weight: i32| json!({ "name": name, "port": 80, "weight": weight });
    let route = json!({
        "apiVersion": GATEWAY, "kind": "HTTPRoute", "metadata": { "name": "web", "generation": 1 },
        "spec": {
            "parentRefs": [{ "name": "public" }],
            "rules": [{ "backendRefs": [backend("web", 100), backend("web-canary", 0)] }],
        },
    });
    scene.server.put(HTTP_ROUTE, route);
    let routes = json!({ "routes": [{ "kind": "HTTPRoute", "name": "web" }] });
    let live = begin(&mut scene, &routes).await;
    let why = "the route and the one for testers";
    assert_eq!(count(&live, "httproutes"), 2, "{why}: {live:?}");
    scene.watches().await;
    kinds_read(&scene);
    scene
}

/// How often routes were read in a reconcile that an event has caused.
async fn routes_read(scene: &mut Scene) -> usize {
    kinds_read(scene);
    scene.reconcile_reported("web").await.unwrap();
    count(&kinds_read(scene), "httproutes")
}

/// Writes to a route or a DestinationRule, as a decision has it.
async fn write(scene: &Scene, action: TrafficAction) {
    let (snapshot, decision) = late(scene, vec![Write::Traffic(action)]).await;
    let (actor, it) = (&scene.context.actor, &snapshot.observation);
    let done = actor.carry_out(&snapshot.rollout, it, &decision, Instant::now());
    done.await.unwrap();
}

/// A patch that changes nothing that matters.
fn labelled() -> Vec<Value> {
    vec![json!({ "op": "add", "path": "/metadata/labels", "value": {} })]
}

fn patched() -> TrafficAction {
    TrafficAction::PatchRoute(RoutePatch {
        kind: RouteKind::HTTPRoute,
        name: "web".into(),
        api_version: GATEWAY.into(),
        weight: 0,
        operations: labelled(),
    })
}

#[tokio::test]
async fn routes_that_the_watches_have_reported_are_not_read() {
    let mut scene = routed().await;
    assert_eq!(routes_read(&mut scene).await, 0);
}

#[tokio::test]
async fn a_route_that_its_watch_has_not_kept_is_read() {
    let mut scene = routed().await;
    let caches = scene.context.observer.caches.clone();
    // The Rollout did not name it yet when it was listed.
    caches.list_routes("HTTPRoute", Vec::new());
    let why = "that there is none for testers is known";
    assert_eq!(routes_read(&mut scene).await, 1, "{why}");
}

#[tokio::test]
async fn law_5_a_route_is_read_until_its_watch_has_reported_an_own_write() {
    let mut scene = routed().await;
    Box::pin(write(&scene, patched())).await;
    assert_eq!(routes_read(&mut scene).await, 2);
    let caches = scene.context.observer.caches.clone();
    caches.report_route(scene.server.get(HTTP_ROUTE).unwrap());
    assert_eq!(routes_read(&mut scene).await, 0);
}

#[tokio::test]
async fn law_5_every_own_write_to_a_router_is_waited_for() {
    let scene = routed().await;
    let rule = HTTP_ROUTE.replace("gateway.networking.k8s.io", "networking.istio.io");
    let rule = rule.replace("httproutes", "destinationrules");
    let object = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": { "name": "web" }, "spec": {},
    });
    scene.server.put(&rule, object);
    let (kind, api_version) = (RouteKind::HTTPRoute, || GATEWAY.to_owned());
    let testers = |exists: bool| {
        TrafficAction::ApplyTesters(TestersRoute {
            kind,
            api_version: api_version(),
            exists,
            name: "web-testers".into(),
            spec: json!({ "rules": [] }),
        })
    };
    let subsets = TrafficAction::SelectSubsets {
        name: "web".into(),
        api_version: "networking.istio.io/v1".into(),
        operations: labelled(),
    };
    let deleted = TrafficAction::DeleteTesters {
        kind,
        api_version: api_version(),
        name: "web-testers".into(),
    };
    for (kind, action) in [
        ("HTTPRoute", patched()),
        ("DestinationRule", subsets),
        ("HTTPRoute", testers(false)),
        ("HTTPRoute", testers(true)),
        ("HTTPRoute", deleted),
    ] {
        scene.watches().await;
        let cache = scene.context.observer.caches.written.routes.of(kind);
        let uid = rollout(&scene)["metadata"]["uid"].clone();
        let own = || cache.of_rollout("shop", uid.as_str().unwrap());
        assert!(own().is_some(), "{action:?}");
        Box::pin(write(&scene, action.clone())).await;
        assert_eq!(own(), None, "{action:?}");
    }
    let paths = scene.server.paths("httproutes");
    assert_eq!(
        paths,
        [HTTP_ROUTE],
        "the one for testers was made and deleted"
    );
}
