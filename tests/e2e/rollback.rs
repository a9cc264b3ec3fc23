//! A bad change is rolled back automatically, with the reason, and is not retried.

use std::time::Duration;

use countersign_api::Phase;
use countersign_api::rollout::Outcome;
use countersign_cluster::wait_for;
use serde_json::json;

use crate::support::{App, Scene, condition, ended, phase, risky};

#[tokio::test]
#[ignore = "make e2e-alone runs it"]
async fn errors_roll_a_change_back_and_the_numbers_say_why() {
    let scene = Scene::alone("errors").await;
    let app = scene
        .serving(App {
            replicas: 10,
            ..App::new("shop")
        })
        .await;
    let load = scene.load(&app, 200).await;

    let bad = app.version("v2").failing(0.4).provenance(risky());
    scene.apply(&bad).await;
    let rollout = scene
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
    assert!(why.message.contains("certain to 1 in"), "{}", why.message);
    assert!(why.evidence[0].log10_worse >= why.evidence[0].rollback_at);
    assert_eq!(condition(&rollout, "Stalled").unwrap().0, "True");
    assert_eq!(condition(&rollout, "Analysis").unwrap().0, "False");
    assert_eq!(
        scene.pods(&run.spec.pod_template_hash).await,
        0,
        "the rejected revision has no pods"
    );
    scene.event_once(&bad, "AnalysisFailed").await;

    // Law 8: it stays rolled back, also after a restart of the operator.
    scene.cluster.kill_operator().await.unwrap();
    let before = load
        .report()
        .by_revision
        .get(&run.spec.pod_template_hash)
        .map_or(0, |count| count.requests);
    wait_for(
        "stable serves everything",
        Duration::from_secs(20),
        async || {
            let report = load.report();
            let stable = report.requests
                - report
                    .by_revision
                    .get(&run.spec.pod_template_hash)
                    .map_or(0, |count| count.requests);
            (stable > 1_000).then_some(())
        },
    )
    .await
    .unwrap();
    let after = load
        .report()
        .by_revision
        .get(&run.spec.pod_template_hash)
        .map_or(0, |count| count.requests);
    assert_eq!(before, after);
    assert_eq!(
        scene.records(&bad).await.len(),
        2,
        "the first revision's and one attempt"
    );
}

#[tokio::test]
async fn going_back_to_the_stable_template_needs_no_canary() {
    let scene = Scene::new("return").await;
    let app = scene
        .serving(App {
            replicas: 4,
            ..App::new("shop")
        })
        .await;
    let _load = scene.load(&app, 100).await;
    scene.baking(&app).await;

    scene.apply(&app).await;
    let rollout = scene
        .until(&app, "stable serves alone", |rollout| {
            phase(rollout) == Phase::Stable
        })
        .await;
    assert!(ended(&scene.outcome(&app).await, Outcome::Reverted));
    assert_eq!(rollout.status.unwrap().replicas, 4);
    assert_eq!(
        scene.records(&app).await.len(),
        2,
        "no third change was started"
    );
}

#[tokio::test]
async fn pods_that_never_become_available_are_rolled_back_at_the_progress_deadline() {
    let scene = Scene::new("deadline").await;
    let app = scene.serving(App::new("shop")).await;
    let mut stuck = app
        .version("v2")
        .spec(json!({ "progressDeadlineSeconds": 3 }));
    stuck.pod_annotations = json!({ "cluster.test/ready": "never" });
    scene.apply(&stuck).await;
    scene
        .until(&stuck, "the change is rolled back", |rollout| {
            phase(rollout) == Phase::Degraded
        })
        .await;
    let run = scene.outcome(&stuck).await;
    let last = run
        .spec
        .progress
        .transitions
        .iter()
        .find(|line| line.reason == "ProgressDeadlineExceeded")
        .unwrap();
    assert!(
        last.message
            .contains("0 of 1 pods of the new revision are available"),
        "{}",
        last.message
    );
    let status = scene.get(&stuck).await.status.unwrap();
    assert_eq!(
        (status.replicas, status.available_replicas),
        (4, 4),
        "stable was never touched"
    );
}
