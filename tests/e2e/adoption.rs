//! Deployments that Rollouts adopt, and what Rollouts leave behind.

use std::collections::BTreeMap;

use countersign_api::rollout::Outcome;
use countersign_api::{KEEP_FINALIZER, Phase, Rollout, Tier};
use countersign_cluster::{Load, wait_for};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::plugin::{Person, member};
use crate::support::{App, Scene, TIMEOUT, condition, ended, merge, phase, tier, waits_for};

fn deployments(scene: &Scene) -> Api<Deployment> {
    Api::namespaced(scene.cluster.client(), &scene.namespace)
}

/// The application as a Deployment, with its provenance.
fn deployment(app: &App) -> Value {
    let rollout = app.manifest();
    let (metadata, spec) = (&rollout["metadata"], &rollout["spec"]);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
        "spec": { "replicas": app.replicas, "selector": spec["selector"], "template": spec["template"] },
    })
}

/// A Rollout that adopts the application's Deployment.
fn adopting(app: &App, name: &str) -> Value {
    let mut spec = json!({
        "replicas": app.replicas, "progressDeadlineSeconds": 30,
        "workloadRef": { "kind": "Deployment", "name": app.name },
        "strategy": app.manifest()["spec"]["strategy"],
    });
    merge(&mut spec, &app.spec);
    json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "Rollout",
        "metadata": { "name": name }, "spec": spec,
    })
}

async fn deploy(scene: &Scene, app: &App) {
    let apply = PatchParams::apply("service-team").force();
    let manifest = Patch::Apply(deployment(app));
    deployments(scene)
        .patch(&app.name, &apply, &manifest)
        .await
        .unwrap();
}

/// Requested and available pods of the Deployment.
async fn pods(scene: &Scene, app: &App) -> (i32, i32) {
    let deployment = deployments(scene).get(&app.name).await.unwrap();
    let available = deployment.status.and_then(|it| it.available_replicas);
    (deployment.spec.replicas.unwrap(), available.unwrap_or(0))
}

async fn until_pods(scene: &Scene, app: &App, wanted: (i32, i32)) {
    let poll = async || {
        let found = pods(scene, app).await;
        if found == wanted {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    };
    wait_for("the Deployment has its pods", TIMEOUT, poll)
        .await
        .unwrap();
}

/// A Deployment that serves behind a Service, under constant load.
async fn serving_deployment(scene: &Scene, app: &App) -> Load {
    scene.service(&app.name, &app.name).await;
    deploy(scene, app).await;
    until_pods(scene, app, (app.replicas, app.replicas)).await;
    scene.load(app, 100).await
}

fn has_taken_over(rollout: &Rollout) -> bool {
    condition(rollout, "Adopted").is_some_and(|(status, ..)| status == "True")
}

async fn until_taken_over(scene: &Scene, app: &App) -> Rollout {
    let rollout = scene
        .until(app, "the Rollout has taken over", has_taken_over)
        .await;
    until_pods(scene, app, (0, 0)).await;
    rollout
}

async fn until_gone(scene: &Scene, app: &App) {
    let poll = async || match scene.rollouts().get_opt(&app.name).await.unwrap() {
        None => Ok(()),
        Some(rollout) => Err(format!("{:?}", rollout.status.map(|it| it.message))),
    };
    wait_for("the Rollout is gone", TIMEOUT, poll)
        .await
        .unwrap();
}

/// The selector of a Service, without the application's own label.
async fn revision_of(scene: &Scene, service: &str) -> Option<String> {
    let services: Api<Service> = Api::namespaced(scene.cluster.client(), &scene.namespace);
    let service = services.get(service).await.unwrap();
    let selector: BTreeMap<_, _> = service.spec.unwrap().selector.unwrap();
    selector.get("pod-template-hash").cloned()
}

/// ReplicaSets of Rollouts, with any owner.
async fn own_sets(scene: &Scene) -> Vec<k8s_openapi::api::apps::v1::ReplicaSet> {
    let own = ListParams::default().labels("app.kubernetes.io/managed-by=countersign");
    scene.replica_sets().list(&own).await.unwrap().items
}

async fn until_own_sets_are_gone(scene: &Scene) {
    let poll = async || {
        let left = own_sets(scene).await.len();
        (left == 0).then_some(()).ok_or(left)
    };
    wait_for("the Rollout's pods go with it", TIMEOUT, poll)
        .await
        .unwrap();
}

async fn all_well(load: Load) {
    let report = load.stop().await;
    let failed = (report.http_errors, report.connection_errors);
    assert_eq!(failed, (0, 0), "{:?}: {report:?}", report.last_failure);
}

async fn until_event(scene: &Scene, app: &App, reason: &str, parts: &[&str]) {
    let poll = async || {
        let events = scene.events(app, reason).await;
        let found = events
            .iter()
            .any(|it| parts.iter().all(|part| it.contains(part)));
        if found {
            Ok(())
        } else {
            Err(format!("{events:?}"))
        }
    };
    wait_for("the Event is published", TIMEOUT, poll)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_deployment_is_adopted_without_a_lost_request_and_its_edits_are_staged() {
    let scene = Scene::new("adopts").await;
    let app = App::new("shop");
    let load = serving_deployment(&scene, &app).await;
    scene.apply_manifest(&adopting(&app, "shop")).await;
    let rollout = until_taken_over(&scene, &app).await;
    let status = rollout.status.unwrap();
    assert_eq!(
        (status.available_replicas, status.selector.as_str()),
        (4, "app=shop")
    );
    assert!(
        rollout.spec.template.is_absent(),
        "the spec is as it was written"
    );

    // People still edit the Deployment, without `replicas`, and their pipeline writes what the change is.
    let reviewed = json!({
        "provenance.countersign.dev/revision": "2222222", "provenance.countersign.dev/approved-revision": "2222222",
    });
    let image = json!({ "metadata": { "annotations": reviewed }, "spec": { "template": { "spec": { "containers": [
        { "name": "app", "image": "example.org/shop:v2" },
    ] } } } });
    deployments(&scene)
        .patch("shop", &PatchParams::default(), &Patch::Strategic(image))
        .await
        .unwrap();
    let run = scene.outcome(&app).await;
    assert!(ended(&run, Outcome::Promoted));
    assert_eq!(run.spec.images, ["example.org/shop:v2"]);
    assert_eq!(tier(&run), Tier::Low, "the Deployment's provenance counts");
    let steps: Vec<_> = run
        .spec
        .progress
        .transitions
        .iter()
        .map(|it| it.step)
        .collect();
    assert!(steps.contains(&1) && steps.contains(&2), "{steps:?}");
    assert_eq!(pods(&scene, &app).await, (0, 0));
    all_well(load).await;
}

#[tokio::test]
async fn a_deployment_serves_again_without_a_lost_request_when_the_rollout_is_deleted() {
    let scene = Scene::new("gives-back").await;
    let named = json!({ "strategy": { "canary": { "stableService": "shop" } } });
    let app = App::new("shop").spec(named);
    let load = serving_deployment(&scene, &app).await;
    scene.apply_manifest(&adopting(&app, "shop")).await;
    let rollout = until_taken_over(&scene, &app).await;
    let stable = rollout.status.unwrap().stable.unwrap();
    let revision = revision_of(&scene, "shop").await;
    assert_eq!(revision, Some(stable.pod_template_hash));

    let rollouts = scene.rollouts();
    rollouts
        .delete("shop", &DeleteParams::background())
        .await
        .unwrap();
    until_gone(&scene, &app).await;
    assert_eq!(pods(&scene, &app).await, (4, 4));
    assert_eq!(revision_of(&scene, "shop").await, None);
    until_own_sets_are_gone(&scene).await;
    all_well(load).await;
}

#[tokio::test]
async fn a_deployment_that_no_rollout_names_keeps_its_pods_though_their_labels_match() {
    let scene = Scene::new("foreign").await;
    let app = App::new("shop");
    deploy(&scene, &app).await;
    let of_deployment = async || {
        let sets = scene.replica_sets().list(&ListParams::default()).await;
        let mut sets = sets.unwrap().items.into_iter();
        let owned = sets.find(|set| set.owner_references()[0].kind == "Deployment")?;
        let serves = owned.status.as_ref()?.available_replicas == Some(app.replicas);
        serves.then_some(owned)
    };
    let before = wait_for("the Deployment serves", TIMEOUT, of_deployment)
        .await
        .unwrap();
    let next = app.version("v2");
    scene.apply(&next).await;
    let rollout = scene
        .until(&next, "the Rollout serves beside it", |rollout| {
            phase(rollout) == Phase::Stable
        })
        .await;
    let (status, reason, message) = condition(&rollout, "ForeignPods").unwrap();
    assert_eq!((status, reason), ("True", "NotOwned"));
    let named = format!("ReplicaSet {} of Deployment shop", before.name_any());
    assert!(message.contains(&named), "{message}");
    let after = of_deployment().await.unwrap();
    assert_eq!(after.metadata.uid, before.metadata.uid);
    assert_eq!(after.metadata.generation, before.metadata.generation);
    assert_eq!(after.labels(), before.labels());
    assert_eq!(after.owner_references().len(), 1);
    // Nothing reports the deletion, so the next change finds it.
    let background = DeleteParams::background();
    deployments(&scene)
        .delete("shop", &background)
        .await
        .unwrap();
    let gone = async || of_deployment().await.is_none().then_some(());
    wait_for("the Deployment is gone", TIMEOUT, gone)
        .await
        .unwrap();
    let next = app.version("v3");
    scene.apply(&next).await;
    scene
        .until(&next, "other pods are no longer reported", |rollout| {
            condition(rollout, "ForeignPods").is_none()
        })
        .await;
}

#[tokio::test]
async fn somebody_who_scales_the_deployment_up_is_named_and_it_is_scaled_down_again() {
    let scene = Scene::new("scales-up").await;
    let app = App::new("shop");
    let _load = serving_deployment(&scene, &app).await;
    scene.apply_manifest(&adopting(&app, "shop")).await;
    until_taken_over(&scene, &app).await;
    let argo = PatchParams {
        field_manager: Some("argocd-controller".into()),
        ..PatchParams::default()
    };
    // As a GitOps tool does; the API server records no manager for writes to `scale`.
    let scale = Patch::Merge(json!({ "spec": { "replicas": 3 } }));
    deployments(&scene)
        .patch("shop", &argo, &scale)
        .await
        .unwrap();
    let parts = [
        "argocd-controller scaled Deployment shop to 3 pods",
        "remove `replicas`",
    ];
    until_event(&scene, &app, "WorkloadScaledDown", &parts).await;
    until_taken_over(&scene, &app).await;
    let rollout = scene.get(&app).await;
    assert_eq!(phase(&rollout), Phase::Stable);
    let adopted = rollout.status.unwrap().adopted.unwrap();
    assert!(adopted.scaled_down && adopted.corrected_at.is_some());
}

#[tokio::test]
async fn of_two_rollouts_that_adopt_one_deployment_the_second_does_nothing() {
    let scene = Scene::new("adopts-twice").await;
    let app = App::new("shop");
    let _load = serving_deployment(&scene, &app).await;
    scene.apply_manifest(&adopting(&app, "shop")).await;
    until_taken_over(&scene, &app).await;
    scene.younger(&app).await;
    scene.apply_manifest(&adopting(&app, "thief")).await;
    let thief = App::new("thief");
    let refused = scene
        .until(&thief, "the conflict is named", |rollout| {
            waits_for(rollout, "Conflict")
        })
        .await;
    for kind in ["Stalled", "Adopted"] {
        let (_, _, message) = condition(&refused, kind).unwrap();
        assert!(
            message.contains("Rollout shop already adopts Deployment shop"),
            "{message}"
        );
    }
    assert_eq!(refused.status.unwrap().replicas, 0);
    // Its deletion does not affect the first.
    let rollouts = scene.rollouts();
    rollouts
        .delete("thief", &DeleteParams::default())
        .await
        .unwrap();
    until_gone(&scene, &thief).await;
    assert_eq!(pods(&scene, &app).await, (0, 0));
    assert!(has_taken_over(&scene.get(&app).await));
}

#[tokio::test]
async fn a_deployment_that_is_missing_or_unfit_is_named_and_picked_up_when_it_is_fixed() {
    let scene = Scene::new("adopts-later").await;
    let app = App::new("shop");
    scene.service("shop", "shop").await;
    scene.apply_manifest(&adopting(&app, "shop")).await;
    let held = scene
        .until(&app, "it is missing", |rollout| {
            waits_for(rollout, "WorkloadInvalid")
        })
        .await;
    let (status, _, message) = condition(&held, "Stalled").unwrap();
    assert_eq!(status, "True");
    assert!(
        message.contains("Deployment shop") && message.contains("create it"),
        "{message}"
    );
    scene.event_once(&app, "WorkloadInvalid").await;
    assert!(scene.records(&app).await.is_empty(), "no change was begun");

    let mut unfit = deployment(&app);
    unfit["spec"]["selector"]["matchExpressions"] = json!([{ "key": "app", "operator": "Exists" }]);
    let unfit = serde_json::from_value(unfit).unwrap();
    let deployments = deployments(&scene);
    deployments
        .create(&PostParams::default(), &unfit)
        .await
        .unwrap();
    scene
        .until(&app, "it is unfit", |rollout| {
            condition(rollout, "Adopted").is_some_and(|it| it.2.contains("matchLabels alone"))
        })
        .await;
    deployments
        .delete("shop", &DeleteParams::background())
        .await
        .unwrap();
    let gone = async || {
        deployments
            .get_opt("shop")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    };
    wait_for("the Deployment is gone", TIMEOUT, gone)
        .await
        .unwrap();
    deploy(&scene, &app).await;
    until_taken_over(&scene, &app).await;
}

#[tokio::test]
async fn an_autoscaler_that_targets_the_deployment_is_named() {
    let scene = Scene::new("adopts-scaled").await;
    let app = App::new("shop");
    let _load = serving_deployment(&scene, &app).await;
    let autoscaler = json!({
        "metadata": { "name": "shop" },
        "spec": {
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "shop" },
            "minReplicas": 4, "maxReplicas": 8,
        },
    });
    let autoscalers: Api<HorizontalPodAutoscaler> =
        Api::namespaced(scene.cluster.client(), &scene.namespace);
    let autoscaler = serde_json::from_value(autoscaler).unwrap();
    autoscalers
        .create(&PostParams::default(), &autoscaler)
        .await
        .unwrap();
    scene.apply_manifest(&adopting(&app, "shop")).await;
    let rollout = until_taken_over(&scene, &app).await;
    let sentence = "HorizontalPodAutoscaler shop targets Deployment shop, which gives up its pods: set its target to Rollout shop";
    let (_, reason, message) = condition(&rollout, "Adopted").unwrap();
    assert_eq!(reason, "AutoscalerMisdirected");
    assert!(message.starts_with(sentence), "{message}");
    scene.event_once(&app, "AutoscalerMisdirected").await;
}

#[tokio::test]
async fn kept_pods_serve_on_when_their_rollout_is_deleted_and_others_go_with_it() {
    let scene = Scene::new("keeps").await;
    let keep = json!({ "deletionPolicy": "Keep" });
    let app = scene.serving(App::new("shop").spec(keep)).await;
    let load = scene.load(&app, 100).await;
    scene
        .until(&app, "the finalizer is set", |rollout| {
            rollout.finalizers().iter().any(|it| it == KEEP_FINALIZER)
        })
        .await;
    let delete = DeleteParams::background();
    scene.rollouts().delete("shop", &delete).await.unwrap();
    until_gone(&scene, &app).await;
    let left = own_sets(&scene).await;
    assert_eq!(left.len(), 1);
    assert!(left[0].owner_references().is_empty());
    assert_eq!(left[0].spec.replicas, Some(4));
    all_well(load).await;

    // Recreated, the Rollout takes the pods back; with deletionPolicy Delete they are deleted.
    let app = app.spec(json!({}));
    scene.apply(&app).await;
    let rollout = scene
        .until(&app, "it serves again", |rollout| {
            phase(rollout) == Phase::Stable
        })
        .await;
    assert!(rollout.finalizers().is_empty());
    let again = own_sets(&scene).await;
    assert_eq!((again.len(), again[0].uid()), (1, left[0].uid()));
    scene.rollouts().delete("shop", &delete).await.unwrap();
    until_own_sets_are_gone(&scene).await;
}

#[tokio::test]
async fn migrate_and_unmigrate_show_what_they_do_and_do_it_without_a_lost_request() {
    let scene = Scene::new("migrates").await;
    let app = App::new("shop");
    let load = serving_deployment(&scene, &app).await;
    let rules = vec![
        json!({ "apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list", "watch"] }),
        json!({ "apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["list"] }),
        json!({ "apiGroups": ["countersign.dev"], "resources": ["rollouts"], "verbs": ["create", "delete"] }),
    ];
    let alice = Person::new(&scene, "alice", &member(rules)).await;

    let shown = [
        "1. Rollout shop is created",
        "starts 4 pods",
        "workloadRef:",
        "unmigrate shop",
    ];
    alice
        .runs("migrate shop --dry-run")
        .await
        .exits(0)
        .out(&shown);
    let unasked = alice.runs("migrate shop").await.exits(1);
    unasked.err(&["without a terminal: add --yes"]);
    let missing = alice.runs("migrate shopp --yes").await.exits(1);
    missing.err(&["there is no Deployment \"shopp\""]);
    let none = scene.rollouts().list(&ListParams::default()).await.unwrap();
    assert!(none.items.is_empty(), "nothing was done yet");

    let migrated = alice
        .runs("migrate shop --yes --timeout 90s")
        .await
        .exits(0);
    migrated.out(&["rollout shop serves; deployment shop has given up its pods"]);
    assert_eq!(pods(&scene, &app).await.0, 0);
    let again = alice.runs("migrate shop --yes").await.exits(1);
    again.err(&["rollout shop adopts deployment shop already"]);
    let restart = alice.runs("restart shop").await.exits(1);
    restart.err(&["kubectl rollout restart deployment/shop"]);
    alice.runs("status shop").await.exits(0).out(&["shop"]);

    let shown = ["scales Deployment shop to 4", "the pods of the Rollout go"];
    alice
        .runs("unmigrate shop --dry-run")
        .await
        .exits(0)
        .out(&shown);
    let back = alice
        .runs("unmigrate shop --yes --timeout 90s")
        .await
        .exits(0);
    back.out(&["deployment shop serves; rollout shop deleted"]);
    assert_eq!(pods(&scene, &app).await, (4, 4));
    until_own_sets_are_gone(&scene).await;
    all_well(load).await;
}
