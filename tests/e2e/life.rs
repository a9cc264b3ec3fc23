//! Events during a change: crashes, newer changes, pauses.

use countersign_api::rollout::Outcome;
use countersign_api::{MANAGER, Phase, Rollout};
use kube::api::{ListParams, ObjectMeta, PostParams};
use serde_json::json;

use crate::support::{App, Scene, ended, phase, waits_for};

/// By this kstatus reads it as in progress, even without an operator.
#[tokio::test]
async fn a_new_rollout_is_in_progress_before_the_operator_has_seen_it() {
    let scene = Scene::new("unseen").await;
    let app = App::new("shop");
    let made: Rollout = serde_json::from_value(app.manifest()).unwrap();
    let made = scene.rollouts().create(&PostParams::default(), &made).await;
    let made = made.unwrap();
    let observed = |it: &Rollout| it.status.as_ref().map(|status| status.observed_generation);
    assert_eq!(
        (made.metadata.generation, observed(&made)),
        (Some(1), Some(-1))
    );
    scene
        .until(&app, "the operator has seen it", |rollout| {
            observed(rollout) == Some(1) && phase(rollout) == Phase::Stable
        })
        .await;
}

/// The API server notes for every field who wrote it, unless the fields are one to it. Of what the operator alone
/// writes that would be a third of the object.
#[tokio::test]
async fn what_only_the_operator_writes_is_one_field_to_the_api_server() {
    let scene = Scene::new("one-field").await;
    let app = scene.serving(App::new("shop")).await;
    let rollout = scene.get(&app).await;
    let runs = scene.records(&app).await;
    let fields = |metadata: &ObjectMeta| {
        let mut managers = metadata.managed_fields.iter().flatten();
        let own = managers.find(|it| it.manager.as_deref() == Some(MANAGER));
        own.unwrap().fields_v1.as_ref().unwrap().0.clone()
    };
    assert_eq!(fields(&rollout.metadata), json!({ "f:status": {} }));
    let of_record = fields(&runs.first().unwrap().metadata);
    assert_eq!(of_record["f:spec"], json!({}));
}

#[tokio::test]
#[ignore = "make e2e-alone runs it"]
async fn an_operator_killed_in_mid_step_continues_where_it_was() {
    let scene = Scene::alone("crash").await;
    let app = scene
        .serving(App {
            replicas: 10,
            ..App::new("shop")
        })
        .await;
    let _load = scene.load(&app, 150).await;
    let next = app.version("v2");
    scene.apply(&next).await;
    for step in ["1/2", "2/2"] {
        scene
            .until(&next, "the step is reached", |rollout| {
                rollout
                    .status
                    .as_ref()
                    .and_then(|status| status.step.as_deref())
                    == Some(step)
            })
            .await;
        scene.cluster.kill_operator().await.unwrap();
    }
    let run = scene.outcome(&next).await;
    assert!(ended(&run, Outcome::Promoted));
    let steps: Vec<_> = run
        .spec
        .progress
        .transitions
        .iter()
        .map(|line| (line.reason.as_str(), line.step))
        .collect();
    assert_eq!(
        steps,
        [
            ("ChangeStarted", 0),
            ("StepStarted", 1),
            ("StepStarted", 2),
            ("Promoting", 2),
            ("Promoted", 2)
        ],
        "no step was skipped and none repeated"
    );
    let sets = scene
        .replica_sets()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items;
    assert_eq!(sets.len(), 2, "one ReplicaSet a revision");
}

#[tokio::test]
async fn a_newer_change_supersedes_the_one_under_way_and_starts_at_step_one() {
    let scene = Scene::new("supersede").await;
    let app = scene.serving(App::new("shop")).await;
    let _load = scene.load(&app, 100).await;
    let slow = json!({ "strategy": { "canary": { "steps": [{ "weight": 25, "bake": "10m" }, { "weight": 50 }] } } });
    scene.apply(&app.version("v2").spec(slow)).await;
    let first = scene
        .until(&app, "the first change is in its first step", |rollout| {
            rollout
                .status
                .as_ref()
                .is_some_and(|status| status.step.as_deref() == Some("1/2"))
        })
        .await;
    let first = first.status.unwrap().change.unwrap();

    scene.apply(&app.version("v3")).await;
    scene
        .until(&app, "the second change is promoted", |rollout| {
            phase(rollout) == Phase::Stable
        })
        .await;
    let runs = scene.records(&app).await;
    assert_eq!(runs.len(), 3);
    assert!(ended(&runs[1], Outcome::Superseded));
    assert!(ended(&runs[2], Outcome::Promoted));
    assert_eq!(runs[2].spec.progress.transitions[1].step, 1);
    assert_eq!(
        scene.pods(&first.pod_template_hash).await,
        0,
        "the superseded revision has no pods"
    );
}

#[tokio::test]
async fn editing_only_the_provenance_of_a_canary_starts_its_plan_again() {
    let scene = Scene::new("provenance").await;
    let app = scene.serving(App::new("shop")).await;
    let _load = scene.load(&app, 100).await;
    let (next, before) = scene.baking(&app).await;
    let before = before.status.unwrap().change.unwrap();
    scene.apply(&next.provenance(crate::support::risky())).await;
    let after = scene
        .until(&next, "another change is under way", |rollout| {
            rollout
                .status
                .as_ref()
                .and_then(|status| status.change.as_ref())
                .is_some_and(|change| change.digest != before.digest && change.step == 1)
        })
        .await;
    let after = after.status.unwrap().change.unwrap();
    assert_eq!(
        after.pod_template_hash, before.pod_template_hash,
        "the same pods"
    );
    assert!(after.tier > before.tier);
}

#[tokio::test]
async fn a_paused_change_waits_and_goes_on_when_resumed() {
    let scene = Scene::new("pause").await;
    let app = scene.serving(App::new("shop")).await;
    let _load = scene.load(&app, 100).await;
    let next = app.version("v2");
    scene
        .apply(&next.spec(json!({ "paused": true, "progressDeadlineSeconds": 2 })))
        .await;
    let held = scene
        .until(&next, "the change waits", |rollout| {
            waits_for(rollout, "Paused")
        })
        .await;
    assert_eq!(held.status.unwrap().replicas, 4, "no canary yet");
    scene.apply(&next).await;
    assert!(ended(&scene.outcome(&next).await, Outcome::Promoted));
}
