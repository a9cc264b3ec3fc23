//! The watch after a promotion, and error budgets of the whole service.

use std::time::Duration;

use countersign::clock;
use countersign_api::rollout::Outcome;
use countersign_api::{Phase, Rollout};
use countersign_cluster::{LoadReport, wait_for};
use serde_json::{Value, json};

use crate::support::{App, Scene, TIMEOUT, ended, phase, waits_for};

fn watched(name: &str, post_promotion: &str) -> App {
    let errors = json!({ "name": "errors", "preset": "HttpRequestsTotal", "ceiling": 0.05 });
    let analysis = json!({ "interval": "1s", "postPromotion": post_promotion, "checks": [errors] });
    App::new(name).spec(json!({ "strategy": { "canary": { "analysis": analysis } } }))
}

/// Waits until a change is promoted and still watched.
async fn until_watched(scene: &Scene, app: &App) -> Rollout {
    scene
        .until(app, "the change is promoted and watched", |rollout| {
            phase(rollout) == Phase::Stable
                && rollout
                    .status
                    .as_ref()
                    .is_some_and(|it| it.change.is_some())
        })
        .await
}

#[tokio::test]
async fn what_breaks_after_its_promotion_goes_back_to_the_previous_revision() {
    let scene = Scene::new("watch").await;
    let app = scene.serving(watched("shop", "5m")).await;
    let load = scene.load(&app, 100).await;
    let next = app.version("v2");
    scene.apply(&next).await;
    let promoted = scene
        .until(&next, "the change is promoted and watched", |rollout| {
            phase(rollout) == Phase::Stable
                && rollout
                    .status
                    .as_ref()
                    .is_some_and(|it| it.change.is_some())
        })
        .await;
    let status = promoted.status.unwrap();
    assert!(
        status.message.contains("watched until"),
        "{}",
        status.message
    );
    let change = status.change.unwrap();
    let previous = change.previous.unwrap();

    scene
        .cluster
        .set_error_rate(&scene.namespace, &change.pod_template_hash, 0.5)
        .await
        .unwrap();
    let back = scene
        .until(&next, "the previous revision is back", |rollout| {
            phase(rollout) == Phase::Degraded
        })
        .await;
    let status = back.status.unwrap();
    assert_eq!(status.stable.unwrap(), previous);
    let run = scene.outcome(&next).await;
    assert!(ended(&run, Outcome::RolledBack));
    assert!(
        run.spec.progress.message.contains("above the ceiling"),
        "{}",
        run.spec.progress.message
    );
    scene.event_once(&next, "Regressed").await;
    assert_eq!(scene.pods(&change.pod_template_hash).await, 0);
    // The previous revision serves everything again, and only requests to the broken one failed: clients
    // may use its endpoints a moment longer.
    let served = |report: &LoadReport| {
        let revision = report.by_revision.get(&previous.pod_template_hash);
        revision.map_or(0, |it| it.requests)
    };
    let before = served(&load.report());
    wait_for(
        "the previous revision serves more requests",
        Duration::from_secs(20),
        async || (served(&load.report()) > before + 300).then_some(()),
    )
    .await
    .unwrap();
    let after = load.stop().await;
    let broken = after.by_revision[&change.pod_template_hash].errors;
    assert_eq!(after.http_errors, broken, "{:?}", after.last_failure);
    assert_eq!(after.connection_errors, 0, "{:?}", after.last_failure);
}

#[tokio::test]
async fn a_watch_ends_by_itself_and_a_return_in_it_is_immediate() {
    let scene = Scene::new("watch-ends").await;
    let app = scene.serving(watched("shop", "3s")).await;
    let _load = scene.load(&app, 100).await;
    let next = app.version("v2");
    scene.apply(&next).await;
    scene
        .until(&next, "the watch is over", |rollout| {
            phase(rollout) == Phase::Stable
                && rollout
                    .status
                    .as_ref()
                    .is_some_and(|it| it.change.is_none() && it.revision == 2)
        })
        .await;

    let long = watched("shop", "5m");
    scene.apply(&long.version("v3")).await;
    until_watched(&scene, &long).await;
    scene.apply(&long.version("v2")).await;
    scene
        .until(&long, "the previous revision is stable", |rollout| {
            phase(rollout) == Phase::Stable
                && rollout
                    .status
                    .as_ref()
                    .and_then(|it| it.stable.as_ref())
                    .is_some_and(|stable| stable.revision == 2)
        })
        .await;
    let records = scene.records(&long).await;
    let last = records.last().unwrap();
    assert!(ended(last, Outcome::Reverted), "{:?}", last.spec.progress);
    assert_eq!(records.len(), 3, "the way back is no change of its own");
}

fn objective(on_burn: &str) -> Value {
    let all = r#"http_requests_total{namespace="{{namespace}}""#;
    json!([{
        "name": "availability", "target": 0.99, "onBurn": on_burn,
        "errors": format!("{all},code=~\"5..\"}}"), "total": format!("{all}}}"),
    }])
}

/// The period is queried at full minutes, some seconds later.
async fn until_next_minute(since: i64) {
    let poll = async || ((clock::now().as_second() - 10) / 60 > since / 60).then_some(());
    wait_for("a minute has begun", TIMEOUT, poll).await.unwrap();
}

#[tokio::test]
async fn a_budget_that_begins_to_burn_rolls_back_and_a_spent_one_stops_the_tiers_of_the_policy() {
    let scene = Scene::new("budget").await;
    scene
        .policy(json!({ "errorBudget": { "tiers": ["low"] } }))
        .await;
    // Only the objective covers the errors; the check has another query.
    let blind = json!({ "name": "blind", "metric": { "query": "vector(1)", "min": 1 } });
    let analysis =
        json!({ "interval": "1s", "checks": [blind], "objectives": objective("RollBack") });
    let canary = json!({ "analysis": analysis, "steps": [{ "weight": 50, "bake": "60s" }] });
    let app = App::new("shop").spec(json!({ "strategy": { "canary": canary } }));
    let app = scene.serving(app).await;
    let _load = scene.load(&app, 100).await;
    let series = format!(r#"http_requests_total{{namespace="{}"}}"#, scene.namespace);
    let poll = async || (!scene.cluster.query(&series).await.unwrap().is_empty()).then_some(());
    wait_for("requests are counted", TIMEOUT, poll)
        .await
        .unwrap();
    until_next_minute(clock::now().as_second()).await;
    let bad = app.version("v2").failing(1.0);
    scene.apply(&bad).await;
    scene
        .until(&bad, "the change is rolled back", |rollout| {
            phase(rollout) == Phase::Degraded
        })
        .await;
    let run = scene.outcome(&bad).await;
    assert!(
        run.spec.progress.message.contains("objective availability"),
        "{}",
        run.spec.progress.message
    );
    scene.event_once(&bad, "ErrorBudgetBurn").await;

    until_next_minute(run.spec.progress.ended_at.unwrap().0.as_second()).await;
    let next = app.version("v3");
    scene.apply(&next).await;
    let held = scene
        .until(&next, "the change waits for the budget", |rollout| {
            waits_for(rollout, "ErrorBudgetSpent")
        })
        .await;
    let change = held.status.unwrap().change.unwrap();
    assert_eq!((change.step, change.weight), (0, 0));
}
