//! Rollouts that are taken as their watch has reported them, since their status is written on that version.

use super::*;

#[tokio::test]
async fn what_surrounds_a_first_revision_is_read_at_its_start() {
    let mut scene = Scene::new();
    scene.deploy("web", "app:1");
    let none: &[&str] = &[];
    for (ready, phase, reads) in [
        (false, "Progressing", &["replicasets", "rolloutruns"][..]),
        (false, "Progressing", none),
        (true, "Stable", none),
        (true, "Stable", none),
    ] {
        if ready {
            scene.pods_are_ready();
        }
        scene.watches().await;
        kinds_read(&scene);
        scene.reconcile_reported("web").await.unwrap();
        assert_eq!(kinds_read(&scene), reads);
        assert_eq!(scene.status("web")["phase"], phase);
    }
}

#[tokio::test]
async fn law_5_a_first_revision_that_served_is_stable_although_its_watch_is_late() {
    let mut scene = Scene::new();
    scene.deploy("web", "app:1");
    scene.watches().await;
    scene.reconcile_reported("web").await.unwrap();
    scene.pods_are_ready();
    scene.watches().await;
    // Nobody reports it: the event is late, or was lost.
    let mut edited = rollout(&scene);
    edited["spec"]["template"]["spec"]["containers"][0]["image"] = json!("app:2");
    scene.server.put(&format!("{ROLLOUTS}/web"), edited);
    let refused = scene.reconcile_reported("web").await.unwrap_err();
    assert_eq!(refused.class(), Class::Conflict, "{refused}");
    let records = scene.server.paths("rolloutruns");
    assert_eq!(records.len(), 1, "written before the status");
    for _ in 0..2 {
        scene.reconcile_reported("web").await.unwrap();
    }
    let status = scene.status("web");
    assert_eq!(status["stable"]["revision"], 1, "{status}");
    assert_eq!(status["change"]["revision"], 2, "{status}");
    let record = scene.server.get(&records[0]).unwrap();
    assert_eq!(record["spec"]["progress"]["outcome"], "Promoted");
}

#[tokio::test]
async fn what_surrounds_a_rollout_is_read_before_its_status_is_written() {
    let mut scene = at_rest().await;
    scale(&scene, 2);
    scene.reconcile_reported("web").await.unwrap();
    assert_eq!(only_set(&scene).1["spec"]["replicas"], 2);
    assert_eq!(kinds_read(&scene), ["replicasets"]);
}

#[tokio::test]
async fn another_selector_holds_a_rollout_that_is_decided_on_its_caches() {
    let mut scene = at_rest().await;
    let mut edited = rollout(&scene);
    edited["spec"]["selector"] = json!({ "matchLabels": { "app": "other" } });
    edited["spec"]["template"]["metadata"]["labels"]["app"] = json!("other");
    scene.server.put(&format!("{ROLLOUTS}/web"), edited);
    let caches = scene.context.observer.caches.clone();
    caches.report_rollout(rollout(&scene));
    for _ in 0..2 {
        scene.reconcile_reported("web").await.unwrap();
        caches.report_rollout(rollout(&scene));
        assert_eq!(scene.status("web")["waitingFor"], "Conflict");
    }
}

#[tokio::test]
async fn law_5_nothing_follows_from_a_rollout_that_its_watch_has_not_reported() {
    let mut scene = at_rest().await;
    scale(&scene, 2);
    // Nobody reports it: the event is late, or was lost.
    let mut edited = rollout(&scene);
    edited["spec"]["replicas"] = json!(3);
    scene.server.put(&format!("{ROLLOUTS}/web"), edited);
    let refused = scene.reconcile_reported("web").await.unwrap_err();
    assert_eq!(refused.class(), Class::Conflict, "{refused}");
    assert_eq!(only_set(&scene).1["spec"]["replicas"], 1);
    kinds_read(&scene);
    scene.reconcile_reported("web").await.unwrap();
    assert_eq!(only_set(&scene).1["spec"]["replicas"], 3);
    assert_eq!(kinds_read(&scene), ["replicasets", "rollouts"]);
}
