//! The records of earlier changes, as their watch has reported them.

use countersign_api::PodTemplate;
use countersign_core::provenance::digest;

use super::*;

/// The record of a change that has just ended, of a Rollout named `web` with this uid.
fn put_record(scene: &Scene, name: &str, uid: &str, template_digest: &str, outcome: &str) {
    let labels = json!({
        "countersign.dev/rollout": "web", "countersign.dev/rollout-uid": uid,
        "countersign.dev/keep-for": "168h",
    });
    let now = clock::now().to_string();
    let record = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutRun",
        "metadata": { "name": name, "labels": labels },
        "spec": {
            "rollout": "web", "digest": "d", "podTemplateHash": "h", "revision": 7,
            "templateDigest": template_digest,
            "progress": { "outcome": outcome, "startedAt": now, "endedAt": now },
        },
    });
    let folder = ROLLOUTS.replace("rollouts", "rolloutruns");
    scene.server.put(&format!("{folder}/{name}"), record);
}

/// How often objects of this kind were read since the last call.
fn read(scene: &Scene, kind: &str) -> usize {
    let reads = kinds_read(scene).into_iter();
    reads.filter(|it| it == kind).count()
}

/// A scene at rest after a rollback, which the status still shows. No watch has reported it.
async fn rolled_back() -> Scene {
    let mut scene = stepping().await;
    intervene(&scene, "Abort");
    scene.watches().await;
    for _ in 0..10 {
        scene.reconcile_reported("web").await.unwrap();
        scene.pods_are_ready();
    }
    assert_eq!(scene.status("web")["change"]["stage"], "RolledBack");
    kinds_read(&scene);
    scene
}

#[tokio::test]
async fn a_rollout_at_rest_after_a_rollback_reads_no_records_for_an_event() {
    let mut scene = rolled_back().await;
    scene.watches().await;
    kinds_read(&scene);
    let before = rollout(&scene);
    scene.reconcile_reported("web").await.unwrap();
    let reads = kinds_read(&scene);
    for kind in ["rollouts", "rolloutruns"] {
        assert!(!reads.iter().any(|it| it == kind), "{reads:?}");
    }
    assert_eq!(rollout(&scene), before, "nothing was written");
    // Without an event a watch may be silent.
    scene.reconcile("web").await.unwrap();
    assert_eq!(read(&scene, "rolloutruns"), 1, "they are needed");
}

#[tokio::test]
async fn law_5_records_are_read_until_an_own_write_to_one_is_reported() {
    let mut scene = rolled_back().await;
    let before = rollout(&scene);
    scene.reconcile_reported("web").await.unwrap();
    assert_eq!(read(&scene, "rolloutruns"), 1);
    let run = before["status"]["change"]["run"].as_str().unwrap();
    let path = format!("{}/{run}", ROLLOUTS.replace("rollouts", "rolloutruns"));
    let record = scene.server.get(&path).unwrap();
    assert_eq!(record["spec"]["progress"]["outcome"], "RolledBack");
    scene.context.observer.caches.report_record(record);
    scene.reconcile_reported("web").await.unwrap();
    assert_eq!(read(&scene, "rolloutruns"), 0);
    assert_eq!(rollout(&scene), before, "nothing was written");
}

#[tokio::test]
async fn law_5_a_record_that_no_watch_has_reported_counts_before_a_write() {
    let mut scene = at_rest().await;
    let uid = format!("uid-of-{ROLLOUTS}/web");
    put_record(&scene, "web-0123456789-9", &uid, "other", "RolledBack");
    scene.deploy("web", "app:2");
    let caches = scene.context.observer.caches.clone();
    caches.report_rollout(rollout(&scene));
    scene.reconcile_reported("web").await.unwrap();
    assert_eq!(read(&scene, "rolloutruns"), 1);
    assert_eq!(scene.status("web")["change"]["afterRollback"], true);
}

#[tokio::test]
async fn a_first_revision_counts_the_records_of_a_deleted_rollout_of_its_name() {
    let mut scene = Scene::new();
    scene.deploy("web", "app:1");
    let template = PodTemplate(rollout(&scene)["spec"]["template"].clone());
    let digest = digest::template_digest(&template);
    // The same template, so that nobody is asked.
    put_record(&scene, "web-0123456789-7", "former", &digest, "Promoted");
    scene.watches().await;
    scene.reconcile_reported("web").await.unwrap();
    let run = scene.status("web")["change"]["run"].clone();
    let run = run.as_str().unwrap();
    assert!(run.ends_with("-8"), "the next attempt: {run}");
}
