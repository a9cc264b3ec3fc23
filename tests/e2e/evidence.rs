//! Doubt never promotes (law 6): missing data and a missing Prometheus hold the change until the
//! deadline.

use countersign_api::Phase;
use countersign_api::rollout::Outcome;
use serde_json::json;

use crate::support::{App, Scene, condition, ended, phase, waits_for};

#[tokio::test]
async fn no_data_holds_and_at_the_deadline_rolls_back() {
    let scene = Scene::new("no-data").await;
    let app = scene.serving(App::new("shop")).await;
    let _load = scene.load(&app, 100).await;
    let mut silent = app
        .version("v2")
        .spec(json!({ "progressDeadlineSeconds": 8 }));
    silent.scraped = false;
    scene.apply(&silent).await;
    let held = scene
        .until(&silent, "the change is held for data", |rollout| {
            waits_for(rollout, "NoSeries")
        })
        .await;
    let (status, reason, message) = condition(&held, "Analysis").unwrap();
    assert_eq!((status, reason), ("Unknown", "NoSeries"));
    assert!(
        message.contains("http_requests_total"),
        "the message names the query: {message}"
    );
    assert_eq!(phase(&held), Phase::Held);

    scene
        .until(&silent, "the change is rolled back", |rollout| {
            phase(rollout) == Phase::Degraded
        })
        .await;
    let run = scene.outcome(&silent).await;
    assert!(ended(&run, Outcome::RolledBack));
    assert!(
        run.spec.progress.message.contains("NoSeries"),
        "{}",
        run.spec.progress.message
    );
    assert!(
        run.spec
            .progress
            .transitions
            .iter()
            .all(|line| line.step <= 1),
        "it never went past its first step"
    );
}

#[tokio::test]
#[ignore = "make e2e-alone runs it"]
async fn prometheus_down_holds_and_resumes_by_itself() {
    let scene = Scene::alone("outage").await;
    let app = scene.serving(App::new("shop")).await;
    let _load = scene.load(&app, 100).await;
    scene.cluster.stop_prometheus().await.unwrap();
    let next = app
        .version("v2")
        .spec(json!({ "progressDeadlineSeconds": 60 }));
    scene.apply(&next).await;
    scene
        .until(&next, "the change is held", |rollout| {
            waits_for(rollout, "PrometheusUnreachable")
        })
        .await;
    scene.cluster.start_prometheus().await.unwrap();
    assert!(ended(&scene.outcome(&next).await, Outcome::Promoted));
}

#[tokio::test]
#[ignore = "make e2e-alone runs it"]
async fn prometheus_down_until_the_deadline_rolls_back() {
    let scene = Scene::alone("long-outage").await;
    let app = scene.serving(App::new("shop")).await;
    let _load = scene.load(&app, 100).await;
    scene.cluster.stop_prometheus().await.unwrap();
    let next = app
        .version("v2")
        .spec(json!({ "progressDeadlineSeconds": 4 }));
    scene.apply(&next).await;
    scene
        .until(&next, "the change is rolled back", |rollout| {
            phase(rollout) == Phase::Degraded
        })
        .await;
    scene.cluster.start_prometheus().await.unwrap();
    let run = scene.outcome(&next).await;
    assert!(ended(&run, Outcome::RolledBack));
    assert!(
        run.spec.progress.message.contains("PrometheusUnreachable"),
        "{}",
        run.spec.progress.message
    );
}

#[tokio::test]
async fn without_any_check_only_the_lowest_tier_goes_on() {
    let scene = Scene::new("no-checks").await;
    let mut app = App::new("low");
    app.checks = false;
    let low = scene.serving(app.clone()).await;
    let high = scene
        .serving(App {
            name: "high".into(),
            ..app
        })
        .await;
    scene.apply(&low.version("v2")).await;
    scene.apply(&high.version("v2").provenance(json!({}))).await;
    assert!(ended(&scene.outcome(&low).await, Outcome::Promoted));
    let held = scene
        .until(&high, "the change is held", |rollout| {
            waits_for(rollout, "NoChecks")
        })
        .await;
    assert_eq!(phase(&held), Phase::Held);
}
