//! Checks by the metrics of a running router: only its counts for the Services of the two revisions
//! decide, since these pods export no metrics.

use std::collections::BTreeSet;
use std::time::Duration;

use countersign_api::Phase;
use countersign_api::rollout::Outcome;
use countersign_cluster::{Gateway, Limits, Load};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, PostParams};
use serde_json::{Value, json};

use crate::support::{App, Scene, ended, phase};

/// What Traefik printed when this was written.
const TRAEFIK: &str = include_str!("../../crates/core/tests/presets/Traefik.live.prom");

#[tokio::test]
async fn a_canary_that_fails_behind_traefik_is_rolled_back_by_traefiks_metrics() {
    let scene = Scene::new("traefik-bad").await;
    let (app, gateway) = behind_traefik(&scene).await;
    let _load = load(&scene, gateway).await;
    let bad = app.version("v2").failing(0.4);
    scene.apply(&bad).await;
    scene
        .until(&bad, "the change is rolled back", |rollout| {
            phase(rollout) == Phase::Degraded
        })
        .await;

    let run = scene.outcome(&bad).await;
    assert!(ended(&run, Outcome::RolledBack));
    let why = run
        .spec
        .progress
        .transitions
        .iter()
        .find(|line| line.reason == "AnalysisFailed")
        .unwrap();
    let evidence = &why.evidence[0];
    assert!(
        evidence.canary.errors > 0.0 && evidence.stable.requests > 0.0,
        "{evidence:?}"
    );
    assert_eq!(evidence.stable.errors, 0.0, "{evidence:?}");

    let failed = |service: &str| {
        let service = format!("{}-{service}-http-80@kubernetesgateway", scene.namespace);
        format!(r#"traefik_service_requests_total{{service="{service}",code="500"}}"#)
    };
    let canary = scene.cluster.query(&failed("shop-canary")).await.unwrap();
    assert_eq!(canary.len(), 1, "one series for each Service and code");
    assert!(canary[0].1 >= evidence.canary.errors, "{canary:?}");
    let stable = scene.cluster.query(&failed("shop-stable")).await.unwrap();
    assert_eq!(stable, [], "stable never failed");

    let live = gateway.metrics().await.unwrap();
    let missing: Vec<_> = shapes(TRAEFIK)
        .difference(&shapes(&live))
        .cloned()
        .collect();
    assert!(missing.is_empty(), "no longer printed: {missing:?}\n{live}");
}

#[tokio::test]
async fn a_healthy_canary_behind_traefik_is_promoted_by_traefiks_metrics() {
    let scene = Scene::new("traefik-good").await;
    let (app, gateway) = behind_traefik(&scene).await;
    let _load = load(&scene, gateway).await;
    let next = app.version("v2");
    scene.apply(&next).await;

    let run = scene.outcome(&next).await;
    assert!(ended(&run, Outcome::Promoted), "{:?}", run.spec.progress);
    let promoting = run
        .spec
        .progress
        .transitions
        .iter()
        .find(|line| line.reason == "Promoting")
        .unwrap();
    let evidence = &promoting.evidence[0];
    assert!(evidence.canary.requests >= 20.0, "{evidence:?}");
    // One pod in four or two gets every other request, as the router counted.
    let share = evidence.canary.requests / (evidence.canary.requests + evidence.stable.requests);
    assert!((0.4..0.6).contains(&share), "{evidence:?}");
}

/// An application whose Services always share the requests for [`host`] evenly, and whose check queries
/// Traefik's counters.
async fn behind_traefik(scene: &Scene) -> (App, Gateway) {
    let gateway = scene.cluster.gateway().await.unwrap();
    let names = ["shop-stable", "shop-canary"];
    for name in names {
        scene.service(name, "shop").await;
    }
    let latency = json!({ "name": "latency", "preset": "Traefik", "latency": { "within": "5s" } });
    let checks = json!([{ "name": "errors", "preset": "Traefik" }, latency]);
    let app = App {
        scraped: false,
        ..App::new("shop")
    };
    let app = app.spec(json!({ "strategy": { "canary": {
        "stableService": names[0], "canaryService": names[1],
        "analysis": { "interval": "1s", "checks": checks },
    } } }));
    let app = scene.serving(app).await;
    let backends = names.map(|name| json!({ "name": name, "port": 80, "weight": 50 }));
    route(scene, gateway, &json!([{ "backendRefs": backends }])).await;
    (app, gateway)
}

/// Makes an `HTTPRoute` for the scene's host.
async fn route(scene: &Scene, gateway: Gateway, rules: &Value) {
    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
    let kind = ApiResource::from_gvk(&kind);
    let route: DynamicObject = serde_json::from_value(json!({
        "apiVersion": kind.api_version, "kind": kind.kind, "metadata": { "name": "shop" },
        "spec": {
            "parentRefs": [gateway.parent_ref()], "hostnames": [host(scene)], "rules": rules,
        },
    }))
    .unwrap();
    let routes: Api<DynamicObject> =
        Api::namespaced_with(scene.cluster.client(), &scene.namespace, &kind);
    routes.create(&PostParams::default(), &route).await.unwrap();
}

fn host(scene: &Scene) -> String {
    format!("{}.example.org", scene.namespace)
}

async fn load(scene: &Scene, gateway: Gateway) -> Load {
    let limits = Limits {
        max_requests: 200_000,
        max_time: Duration::from_mins(5),
    };
    Load::through(gateway, &host(scene), 100, limits)
        .await
        .unwrap()
}

/// The series of a text exposition by Service: names with their labels, without values except code and
/// bucket.
fn shapes(exposition: &str) -> BTreeSet<String> {
    let shape = |line: &str| {
        let (name, labels) = line.strip_prefix("traefik_service_")?.split_once('{')?;
        let labels = labels.split_once('}')?.0.split("\",").map(|label| {
            let (key, value) = label.split_once("=\"").unwrap_or_default();
            let value = value.trim_end_matches('"');
            match key {
                "code" | "le" => format!("{key}={value}"),
                // `80@kubernetesgateway`
                "service" => format!(
                    "{key}={}",
                    value.rsplit_once("-http-").unwrap_or_default().1
                ),
                _ => key.to_owned(),
            }
        });
        Some(format!("{name} {}", labels.collect::<Vec<_>>().join(" ")))
    };
    exposition.lines().filter_map(shape).collect()
}
