use std::time::Duration;

use kube::runtime::reflector::{self, store::Writer};
use serde_json::json;

use super::*;
use crate::stand_in::{Fault, RecordedRequest, StandIn};

const HTTP_ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes";

/// A Rollout with these routes.
fn rollout(name: &str, routes: &Value) -> Claim {
    serde_json::from_value(json!({
        "metadata": { "name": name, "namespace": "shop", "uid": name },
        "spec": { "strategy": { "canary": { "traffic": { "routes": routes } } } },
    }))
    .unwrap()
}

fn report(claims: &mut Writer<Claim>, name: &str, routes: &Value) {
    claims.apply_watcher_event(&watcher::Event::Apply(rollout(name, routes)));
}

fn http_route(name: &str) -> Value {
    json!([{ "kind": "HTTPRoute", "name": name }])
}

/// A leader's watch on a kind, of Rollouts that are reported.
fn watch_of(kind: &'static str) -> (RouteWatch, Writer<Claim>) {
    let (store, claims) = reflector::store();
    let (send, _) = mpsc::unbounded_channel();
    let watch = RouteWatch {
        kind,
        claims: store,
        cache: Cache::opened(),
        objects: Objects::default(),
        leads: watch::channel(true).1,
        telemetry: Arc::new(Telemetry::new()),
        send,
    };
    (watch, claims)
}

/// An object of a router.
fn object(kind: &str, name: &str, version: u64) -> Kept<DynamicObject> {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": kind, "spec": {},
        "metadata": {
            "name": name, "namespace": "shop", "uid": name, "resourceVersion": version.to_string(),
        },
    }))
    .unwrap()
}

fn route(name: &str, version: u64) -> Kept<DynamicObject> {
    object("HTTPRoute", name, version)
}

/// A route that Rollout `web` owns.
fn owned(name: &str, version: u64) -> Kept<DynamicObject> {
    let owner = json!([{
        "apiVersion": "countersign.dev/v1alpha1", "kind": "Rollout", "name": "web", "uid": "web",
        "controller": true,
    }]);
    let mut route = route(name, version);
    route.meta_mut().owner_references = serde_json::from_value(owner).unwrap();
    route
}

/// The names of the Rollouts that an event concerns.
fn on(watch: &mut RouteWatch, event: watcher::Event<Kept<DynamicObject>>) -> Vec<String> {
    let triggers = watch.take(event).into_iter();
    let names = triggers.map(|trigger| match trigger {
        Trigger::Related(rollout) => rollout.name,
        other => format!("{other:?}"),
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn list(watch: &mut RouteWatch, routes: Vec<Kept<DynamicObject>>) -> Vec<String> {
    let routes = routes.into_iter().map(watcher::Event::InitApply);
    let events = std::iter::once(watcher::Event::Init).chain(routes);
    let events = events.chain([watcher::Event::InitDone]);
    events.flat_map(|event| on(watch, event)).collect()
}

/// The version of a route, if it is kept.
fn kept(watch: &RouteWatch, name: &str) -> Option<String> {
    let json = watch.cache.get("shop", name)?;
    let route: RouteObject = serde_json::from_str(&json).unwrap();
    let version = &route.object["metadata"]["resourceVersion"];
    Some(version.as_str().unwrap().to_owned())
}

#[test]
fn a_route_is_kept_as_long_as_a_rollout_names_it() {
    let (mut watch, mut claims) = watch_of("HTTPRoute");
    report(&mut claims, "web", &http_route("web"));
    list(&mut watch, vec![route("web", 1), route("other", 2)]);
    assert_eq!(kept(&watch, "web").as_deref(), Some("1"));
    assert_eq!(kept(&watch, "other"), None);

    report(&mut claims, "web", &http_route("other"));
    assert_eq!(kept(&watch, "other"), None, "nothing shows that it is none");
    on(&mut watch, watcher::Event::Apply(route("other", 3)));
    assert_eq!(kept(&watch, "other").as_deref(), Some("3"));
    on(&mut watch, watcher::Event::Apply(route("web", 4)));
    assert_eq!(kept(&watch, "web"), None, "not as it was before either");
}

#[test]
fn which_routes_a_rollout_owns_is_known_though_it_names_none_of_them() {
    let (mut watch, mut claims) = watch_of("HTTPRoute");
    report(&mut claims, "web", &http_route("web"));
    let of = |watch: &RouteWatch| watch.cache.of_rollout("shop", "web").map(|all| all.len());
    assert_eq!(of(&watch), None, "they are not listed");
    list(&mut watch, vec![route("web", 1), route("web-testers", 2)]);
    assert_eq!(of(&watch), Some(0), "somebody else made that one");
    on(&mut watch, watcher::Event::Delete(route("web-testers", 3)));
    on(
        &mut watch,
        watcher::Event::Apply(owned("former-testers", 4)),
    );
    assert_eq!(of(&watch), Some(1));
}

#[test]
fn a_route_concerns_the_rollouts_that_name_it() {
    let (mut watch, mut claims) = watch_of("HTTPRoute");
    report(&mut claims, "web", &http_route("web"));
    report(&mut claims, "api", &http_route("api"));
    let mesh = json!([{
        "kind": "VirtualService", "name": "web", "destinationRule": { "name": "web" },
    }]);
    report(&mut claims, "mesh", &mesh);
    let routes = vec![route("web", 1), route("other", 2)];
    assert_eq!(
        list(&mut watch, routes),
        ["web", "api", "web"],
        "each after the list"
    );
    let changed = |name: &str, version| watcher::Event::Apply(route(name, version));
    assert_eq!(on(&mut watch, changed("web", 3)), ["web"]);
    assert_eq!(on(&mut watch, changed("web", 3)), [""; 0]);
    assert_eq!(on(&mut watch, changed("web-testers", 4)), ["web"]);
    assert_eq!(on(&mut watch, changed("other", 5)), [""; 0]);
    let gone = watcher::Event::Delete(route("web", 6));
    assert_eq!(on(&mut watch, gone), ["web"]);
    // The watch was away, and the route for testers was deleted.
    assert_eq!(list(&mut watch, vec![route("other", 5)]), ["web"]);

    let (mut rules, mut claims) = watch_of(DESTINATION_RULE);
    report(&mut claims, "mesh", &mesh);
    let rule = object(DESTINATION_RULE, "web", 1);
    assert_eq!(list(&mut rules, vec![rule]), ["mesh", "mesh"]);
    assert_eq!(kept(&rules, "web").as_deref(), Some("1"));
}

#[test]
fn the_last_writer_is_who_wrote_the_spec_and_not_the_controller() {
    let entry = |manager: &str, at: &str, subresource: Option<&str>, field: &str| json!({ "manager": manager, "operation": "Apply", "time": at, "subresource": subresource, "fieldsV1": { field: {} } });
    let object = json!({ "apiVersion": "v1", "kind": "HTTPRoute", "metadata": {
        "annotations": { LAST_APPLIED: "{}", "note": "kept" },
        "managedFields": [
            entry("kubectl", "2026-01-01T00:00:01Z", None, "f:spec"),
            entry("argocd", "2026-01-01T00:00:02Z", None, "f:spec"),
            entry("countersign", "2026-01-01T00:00:03Z", None, "f:spec"),
            entry("labeller", "2026-01-01T00:00:04Z", None, "f:metadata"),
            entry("traefik", "2026-01-01T00:00:05Z", Some("status"), "f:status"),
        ],
    } });
    let route: RouteObject = serde_json::from_value(DynamicObject::prune(object.clone())).unwrap();
    let live = route_object(serde_json::from_value(object.clone()).unwrap());
    assert_eq!(route, live);
    assert_eq!(route.last_writer.as_deref(), Some("argocd"));
    let metadata = json!({ "annotations": { "note": "kept" } });
    assert_eq!(route.object["metadata"], metadata);
    let mut untyped = object;
    untyped.as_object_mut().unwrap().remove("kind");
    assert_eq!(DynamicObject::prune(untyped), Value::Null);
}

#[test]
fn the_last_writer_of_a_destination_rule_is_who_set_its_subsets() {
    let entry = |manager: &str, at: &str, field: &str| json!({ "manager": manager, "operation": "Update", "time": at, "fieldsV1": { "f:spec": { field: {} } } });
    let rule = |subsets: &str| {
        let object = json!({ "apiVersion": "v1", "kind": DESTINATION_RULE, "metadata": { "managedFields": [
            entry(subsets, "2026-01-01T00:00:01Z", "f:subsets"),
            entry("kubectl", "2026-01-01T00:00:02Z", "f:host"),
        ] } });
        route_object(serde_json::from_value(object).unwrap()).last_writer
    };
    assert_eq!(rule("mallory").as_deref(), Some("mallory"));
    assert_eq!(rule("countersign"), None);
}

/// Waits until a cache has this version of a route.
async fn until_kept(cache: &Cache, version: &str) {
    let is_kept = || {
        let json = cache.get("shop", "web")?;
        let route: RouteObject = serde_json::from_str(&json).ok()?;
        let found = route.object.pointer("/metadata/resourceVersion")?;
        (found == version).then_some(())
    };
    let kept = async {
        while is_kept().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let kept = tokio::time::timeout(Duration::from_secs(30), kept);
    kept.await.expect("the route is never kept");
}

#[tokio::test]
async fn law_5_a_new_leader_lists_routes_again_before_it_relies_on_them() {
    let server = StandIn::new();
    let path = format!("{HTTP_ROUTES}/web");
    let web = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "name": "web" }, "spec": {},
    });
    server.put(&path, web.clone());
    // No watch ever reports anything.
    let is_watch = |request: &RecordedRequest| request.query.contains("watch=true");
    server.fails(move |request| is_watch(request).then_some(Fault::Hang));
    let (store, mut claims) = reflector::store();
    report(&mut claims, "web", &http_route("web"));
    let (send, mut triggers) = mpsc::unbounded_channel();
    let telemetry = Arc::new(Telemetry::new());
    let routes = watch_routes(&server.client(), &telemetry, &store, &send);
    let cache = routes.of("HTTPRoute");
    triggers.recv().await.unwrap();
    while !cache.is_complete() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(cache.get("shop", "web"), None, "this replica does not lead");

    // Another leader writes last.
    server.put(&path, web);
    routes.lead();
    until_kept(&cache, "2").await;
}
