//! The workload around a change: scaling, Services, ownership, history.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use countersign_api::Rollout;
use countersign_api::rollout::Outcome;
use countersign_cluster::wait_for;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::support::{App, Scene, TIMEOUT, ended};

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

    // As an autoscaler and `kubectl scale` do.
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
async fn replica_sets_that_somebody_scales_or_deletes_are_restored_and_no_step_is_lost() {
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
        wait_for("it is scaled back", TIMEOUT, scaled_back)
            .await
            .unwrap();
        answers.push(Instant::now());
    }
    // Repeated foreign scaling is corrected with backoff.
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
    wait_for("it is made again", TIMEOUT, made_again)
        .await
        .unwrap();
    let again = scene.get(&app).await.status.unwrap().change.unwrap();
    assert_eq!(
        (again.run, again.step, again.outcome),
        (canary.run.clone(), 1, None)
    );

    // The stable revision's template is no longer in the spec: its record keeps it.
    let set = set_of(&stable.pod_template_hash).await.unwrap();
    api.delete(&set.name_any(), &DeleteParams::default())
        .await
        .unwrap();
    let made_again = async || {
        let new = set_of(&stable.pod_template_hash).await?;
        let all = new.status.as_ref().and_then(|it| it.available_replicas) == Some(4);
        (all && new.uid() != set.uid())
            .then_some(new)
            .ok_or("it has no pods yet")
    };
    let new = wait_for("stable is made again", TIMEOUT, made_again)
        .await
        .unwrap();
    let image = |set: &ReplicaSet| {
        let template = set.spec.template.as_ref().unwrap();
        template.spec.as_ref().unwrap().containers[0].image.clone()
    };
    assert_eq!(image(&new), image(&set));
    assert_eq!(scene.pods(&canary.pod_template_hash).await, 4);
    let again = scene.get(&app).await.status.unwrap();
    let change = again.change.unwrap();
    assert_eq!(
        (again.stable.unwrap().pod_template_hash, change.run),
        (stable.pod_template_hash, canary.run)
    );
    assert_eq!((change.step, change.outcome), (1, None));
}

/// The fewest available pods of the revision that a Service selected at any time, and all revisions that it
/// selected, in order.
struct Behind {
    stop: tokio::sync::oneshot::Sender<()>,
    seen: tokio::task::JoinHandle<(i32, Vec<String>)>,
}

impl Behind {
    fn watch(scene: &Scene, service: &str) -> Self {
        let services: Api<Service> = Api::namespaced(scene.cluster.client(), &scene.namespace);
        let (sets, service) = (scene.replica_sets(), service.to_owned());
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let seen = tokio::spawn(async move {
            let (mut fewest, mut selected) = (i32::MAX, Vec::new());
            let selects = async || {
                let found = services.get(&service).await.unwrap().spec.unwrap();
                found.selector.unwrap().get("pod-template-hash").cloned()
            };
            while stopped.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
                let before = selects().await;
                let all = sets.list(&ListParams::default()).await.unwrap().items;
                // Only if the selection did not change meanwhile.
                let Some(hash) = before else { continue };
                if selects().await.as_ref() != Some(&hash) {
                    continue;
                }
                let mut all = all.iter();
                let set = all.find(|set| set.labels()["pod-template-hash"] == hash);
                let status = set.and_then(|set| set.status.as_ref());
                let available = status.and_then(|it| it.available_replicas).unwrap_or(0);
                fewest = fewest.min(available);
                if selected.last() != Some(&hash) {
                    selected.push(hash);
                }
            }
            (fewest, selected)
        });
        Self { stop, seen }
    }

    async fn stop(self) -> (i32, Vec<String>) {
        self.stop.send(()).unwrap();
        self.seen.await.unwrap()
    }
}

#[tokio::test]
async fn law_4_a_stable_service_without_routes_keeps_its_pods_until_it_moves() {
    let scene = Scene::new("plain-services").await;
    scene.service("shop-preview", "shop").await;
    let canary = json!({
        "stableService": "shop", "canaryService": "shop-preview", "maxSurge": 1, "maxUnavailable": 0,
        "steps": [{ "weight": 0, "scale": 100, "bake": "1s" }],
    });
    let mut app = App::new("shop").spec(json!({ "strategy": { "canary": canary } }));
    app.checks = false;
    let app = scene.serving(app).await;
    let load = scene.load(&app, 50).await;
    let behind = Behind::watch(&scene, "shop");
    let next = app.version("v2");
    scene.apply(&next).await;
    assert!(ended(&scene.outcome(&next).await, Outcome::Promoted));
    // And a newer change during a rollback, before the pods of the old revision are available again.
    scene.apply(&app).await;
    scene.apply(&app.version("v3")).await;
    let promoted = |rollout: &Rollout| {
        let status = rollout.status.as_ref();
        let stable = status.and_then(|it| it.stable.as_ref());
        let spec = countersign_core::provenance::digest::template_digest(&rollout.spec.template);
        let settled = crate::support::phase(rollout) == countersign_api::Phase::Stable;
        settled && stable.is_some_and(|it| it.template_digest == spec)
    };
    scene
        .until(&app, "the newest change is stable", promoted)
        .await;
    let (fewest, selected) = behind.stop().await;
    assert!(selected.len() >= 3, "{selected:?}");
    assert!(
        fewest >= 4,
        "{fewest} pods behind the Service, {selected:?}"
    );
    let report = load.stop().await;
    let failed = report.http_errors + report.connection_errors;
    assert!(report.requests > 0 && failed == 0, "{report:?}");
}

#[tokio::test]
async fn a_service_that_is_named_no_more_selects_every_revision_again() {
    let scene = Scene::new("released").await;
    scene.service("shop-stable", "shop").await;
    let named = json!({ "strategy": { "canary": { "stableService": "shop-stable" } } });
    let app = scene.serving(App::new("shop").spec(named)).await;
    let services: Api<Service> = Api::namespaced(scene.cluster.client(), &scene.namespace);
    let selects = async |kept: bool| {
        let found = services.get("shop-stable").await.unwrap().spec.unwrap();
        let selector = found.selector.unwrap();
        (selector.contains_key("pod-template-hash") == kept && selector["app"] == "shop")
            .then_some(())
            .ok_or(format!("{selector:?}"))
    };
    wait_for("it selects one revision", TIMEOUT, async || {
        selects(true).await
    })
    .await
    .unwrap();
    let unnamed = json!([{ "op": "remove", "path": "/spec/strategy/canary/stableService" }]);
    let unnamed: json_patch::Patch = serde_json::from_value(unnamed).unwrap();
    let rollouts = scene.rollouts();
    rollouts
        .patch(
            &app.name,
            &PatchParams::default(),
            &Patch::Json::<()>(unnamed),
        )
        .await
        .unwrap();
    wait_for("it is released", TIMEOUT, async || selects(false).await)
        .await
        .unwrap();
    let forgotten = |rollout: &Rollout| {
        let status = rollout.status.as_ref();
        status.is_some_and(|it| it.services.is_empty())
    };
    scene.until(&app, "its name is forgotten", forgotten).await;
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
    let poll = async || {
        let canary = selected("shop-canary").await;
        (canary != stable)
            .then_some(canary)
            .ok_or("the canary's Service still selects stable")
    };
    let canary = wait_for("the canary's Service follows", TIMEOUT, poll)
        .await
        .unwrap();
    assert_eq!(selected("shop-stable").await, stable);
    assert!(ended(&scene.outcome(&next).await, Outcome::Promoted));
    let poll = async || {
        (selected("shop-stable").await == canary)
            .then_some(())
            .ok_or("the stable Service has not moved")
    };
    wait_for("the stable Service follows", TIMEOUT, poll)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_rollout_deleted_without_its_pods_and_created_again_adopts_them() {
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
    wait_for("the Rollout is gone", TIMEOUT, gone)
        .await
        .unwrap();
    let other = owned_by_another(&scene, &before[0].name_any()).await;
    scene.apply(&app).await;
    let rollout = scene
        .until(&app, "the Rollout is stable", |rollout| {
            crate::support::phase(rollout) == countersign_api::Phase::Stable
        })
        .await;
    let after = sets(&scene).await;
    assert_eq!(after[0].uid(), before[0].uid(), "the same ReplicaSet");
    assert_eq!(after.len(), 1);
    let owners = after[0].owner_references().iter().map(|it| &it.uid);
    let owners: BTreeSet<_> = owners.collect();
    assert!(owners.contains(&rollout.uid().unwrap()), "{owners:?}");
    assert!(
        owners.contains(&other),
        "others' references stay: {owners:?}"
    );
}

/// Adds a foreign owner to a ReplicaSet; returns its uid.
async fn owned_by_another(scene: &Scene, set: &str) -> String {
    let objects: Api<ConfigMap> = Api::namespaced(scene.cluster.client(), &scene.namespace);
    let object = json!({ "metadata": { "name": "another" } });
    let object = serde_json::from_value(object).unwrap();
    let made = objects.create(&PostParams::default(), &object).await;
    let uid = made.unwrap().uid().unwrap();
    let owner = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "another", "uid": uid });
    let patch = Patch::Strategic(json!({ "metadata": { "ownerReferences": [owner] } }));
    let (sets, parameters) = (scene.replica_sets(), PatchParams::default());
    sets.patch(set, &parameters, &patch).await.unwrap();
    uid
}

#[tokio::test]
async fn only_as_many_old_revisions_and_records_are_kept_as_configured() {
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
                crate::support::phase(rollout) == countersign_api::Phase::Stable
                    && rollout
                        .status
                        .as_ref()
                        .and_then(|status| status.stable.as_ref())
                        .is_some_and(|stable| format!("v{}", stable.revision) == version)
            })
            .await;
    }
    let poll = async || {
        let (sets, runs) = (sets(&scene).await.len(), scene.records(&app).await.len());
        if sets <= 2 && runs <= 2 {
            Ok(())
        } else {
            Err(format!("{sets} ReplicaSets, {runs} records"))
        }
    };
    wait_for("old ones are pruned", TIMEOUT, poll)
        .await
        .unwrap();
}

async fn sets(scene: &Scene) -> Vec<ReplicaSet> {
    scene
        .replica_sets()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
}
