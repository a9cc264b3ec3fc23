//! The workload around a change: scaling, Services, ownership, history.

use std::time::{Duration, Instant};

use countersign::api::Rollout;
use countersign::api::rollout::Outcome;
use countersign_cluster::wait_for;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::support::{App, SOON, Scene, ended, waits_for};

#[tokio::test]
async fn scaling_in_mid_rollout_takes_effect_and_is_no_change() {
    let scene = Scene::new("scale").await;
    let app = scene.serving(App::new("shop")).await;
    let _load = scene.load(&app, 100).await;
    let slow = json!({ "strategy": { "canary": { "steps": [{ "weight": 50, "bake": "10m" }] } } });
    scene.apply(&app.version("v2").spec(slow)).await;
    scene
        .until(&app, "both revisions serve", |rollout| {
            rollout
                .status
                .as_ref()
                .is_some_and(|status| status.available_replicas == 8)
        })
        .await;

    // As an autoscaler and `kubectl scale` do it.
    let scale = json!({ "spec": { "replicas": 6 } });
    scene
        .rollouts()
        .patch_scale(&app.name, &PatchParams::default(), &Patch::Merge(scale))
        .await
        .unwrap();
    scene
        .until(&app, "both revisions are larger", |rollout| {
            rollout
                .status
                .as_ref()
                .is_some_and(|status| status.available_replicas == 12)
        })
        .await;
    let scale = scene.rollouts().get_scale(&app.name).await.unwrap();
    assert_eq!(scale.status.unwrap().selector.as_deref(), Some("app=shop"));
    assert_eq!(scene.records(&app).await.len(), 2, "scaling is no change");
}

#[tokio::test]
async fn replica_sets_that_somebody_scales_or_deletes_are_mended_and_no_step_is_lost() {
    let scene = Scene::new("meddled").await;
    let app = scene.serving(App::new("shop")).await;
    let slow = json!({
        "progressDeadlineSeconds": 600,
        "strategy": { "canary": { "steps": [{ "weight": 50, "bake": "10m" }] } },
    });
    let next = app.version("v2").spec(slow);
    scene.apply(&next).await;
    let both_serve = |rollout: &Rollout| {
        let status = rollout.status.as_ref();
        status.is_some_and(|it| {
            it.available_replicas == 8 && it.waiting_for.as_deref() == Some("Baking")
        })
    };
    let rollout = scene.until(&app, "both revisions serve", both_serve).await;
    let status = rollout.status.unwrap();
    let (stable, canary) = (status.stable.unwrap(), status.change.unwrap());
    let set_of = async |hash: &str| {
        let sets = sets(&scene).await.into_iter();
        let mut sets = sets.filter(|set| set.labels()["pod-template-hash"] == *hash);
        sets.next().ok_or("it is not there")
    };

    let api = scene.replica_sets();
    let set = set_of(&canary.pod_template_hash).await.unwrap();
    let scaled_back = async || {
        let set = set_of(&canary.pod_template_hash).await?;
        (set.spec.replicas == Some(4))
            .then_some(())
            .ok_or("it is smaller")
    };
    let mut answers = Vec::new();
    for _ in 0..3 {
        let scale = Patch::Merge(json!({ "spec": { "replicas": 1 } }));
        api.patch(&set.name_any(), &PatchParams::default(), &scale)
            .await
            .unwrap();
        wait_for("it is scaled back", SOON, scaled_back)
            .await
            .unwrap();
        answers.push(Instant::now());
    }
    // Whoever does it again and again is answered with patience.
    let took = answers[2].duration_since(answers[0]);
    assert!(took >= Duration::from_secs(9), "{took:?}");
    api.delete(&set.name_any(), &DeleteParams::default())
        .await
        .unwrap();
    let made_again = async || {
        let new = set_of(&canary.pod_template_hash).await?;
        let all = new.status.as_ref().and_then(|it| it.available_replicas) == Some(4);
        (all && new.uid() != set.uid())
            .then_some(())
            .ok_or("it has no pods yet")
    };
    wait_for("it is made again", SOON, made_again)
        .await
        .unwrap();
    let again = scene.get(&app).await.status.unwrap().change.unwrap();
    assert_eq!(
        (again.run, again.step, again.outcome),
        (canary.run, 1, None)
    );

    // The stable revision's template is not in the spec any more: people must say what to do.
    let set = set_of(&stable.pod_template_hash).await.unwrap();
    api.delete(&set.name_any(), &DeleteParams::default())
        .await
        .unwrap();
    let held = |rollout: &Rollout| waits_for(rollout, "StableMissing");
    scene.until(&app, "the change is held", held).await;
    assert_eq!(scene.pods(&canary.pod_template_hash).await, 4);
}

#[tokio::test]
async fn named_services_follow_their_revisions() {
    let scene = Scene::new("services").await;
    scene.service("shop-stable", "shop").await;
    scene.service("shop-canary", "shop").await;
    let named = json!({ "strategy": { "canary": { "stableService": "shop-stable", "canaryService": "shop-canary" } } });
    let app = scene.serving(App::new("shop").spec(named.clone())).await;
    let _load = scene.load(&app, 100).await;
    let stable = scene
        .get(&app)
        .await
        .status
        .unwrap()
        .stable
        .unwrap()
        .pod_template_hash;
    let services: Api<Service> = Api::namespaced(scene.cluster.client(), &scene.namespace);
    let selected = async |name: &str| {
        let service = services.get(name).await.unwrap();
        service
            .spec
            .unwrap()
            .selector
            .unwrap()
            .get("pod-template-hash")
            .cloned()
            .unwrap_or_default()
    };
    assert_eq!(
        (selected("shop-stable").await, selected("shop-canary").await),
        (stable.clone(), stable.clone())
    );

    let mut slow = named;
    slow["strategy"]["canary"]["steps"] =
        json!([{ "weight": 25, "bake": "5s" }, { "weight": 50, "bake": "2s" }]);
    let next = app.version("v2").spec(slow);
    scene.apply(&next).await;
    let look = async || {
        let canary = selected("shop-canary").await;
        (canary != stable)
            .then_some(canary)
            .ok_or("the canary's Service still selects stable")
    };
    let canary = wait_for("the canary's Service follows", SOON, look)
        .await
        .unwrap();
    assert_eq!(selected("shop-stable").await, stable);
    assert!(ended(&scene.outcome(&next).await, Outcome::Promoted));
    let look = async || {
        (selected("shop-stable").await == canary)
            .then_some(())
            .ok_or("the stable Service has not moved")
    };
    wait_for("the stable Service follows", SOON, look)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_rollout_deleted_without_its_pods_and_made_anew_adopts_them() {
    let scene = Scene::new("adopt").await;
    let app = scene.serving(App::new("shop")).await;
    let before = sets(&scene).await;
    scene
        .rollouts()
        .delete(
            &app.name,
            &DeleteParams {
                propagation_policy: Some(kube::api::PropagationPolicy::Orphan),
                ..DeleteParams::default()
            },
        )
        .await
        .unwrap();
    let gone = async || {
        scene
            .rollouts()
            .get_opt(&app.name)
            .await
            .unwrap()
            .is_none()
            .then_some(())
    };
    wait_for("the Rollout is gone", SOON, gone).await.unwrap();
    scene.apply(&app).await;
    let rollout = scene
        .until(&app, "the Rollout is stable", |rollout| {
            crate::support::phase(rollout) == countersign::api::Phase::Stable
        })
        .await;
    let after = sets(&scene).await;
    assert_eq!(after[0].uid(), before[0].uid(), "the same ReplicaSet");
    assert_eq!(after.len(), 1);
    assert_eq!(after[0].owner_references()[0].uid, rollout.uid().unwrap());
}

#[tokio::test]
async fn only_as_many_old_revisions_and_records_are_kept_as_asked_for() {
    let scene = Scene::new("history").await;
    let one = json!({ "revisionHistoryLimit": 1 });
    let mut app = App::new("shop").spec(one);
    app.checks = false;
    let app = scene.serving(app).await;
    for version in ["v2", "v3", "v4"] {
        let next = app.version(version);
        scene.apply(&next).await;
        scene
            .until(&next, "it is stable", |rollout| {
                crate::support::phase(rollout) == countersign::api::Phase::Stable
                    && rollout
                        .status
                        .as_ref()
                        .and_then(|status| status.stable.as_ref())
                        .is_some_and(|stable| format!("v{}", stable.revision) == version)
            })
            .await;
    }
    let look = async || {
        let (sets, runs) = (sets(&scene).await.len(), scene.records(&app).await.len());
        if sets <= 2 && runs <= 2 {
            Ok(())
        } else {
            Err(format!("{sets} ReplicaSets, {runs} records"))
        }
    };
    wait_for("old ones are pruned", SOON, look).await.unwrap();
}

async fn sets(scene: &Scene) -> Vec<ReplicaSet> {
    scene
        .replica_sets()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
}
