//! Changes that wait for other Rollouts, with what the watches have reported of those.

use kube::core::ObjectMeta;

use super::costs::kinds_read;
use super::*;

fn stored(scene: &Scene, name: &str) -> Value {
    scene.server.get(&format!("{ROLLOUTS}/{name}")).unwrap()
}

/// The watches report everything as it is now.
async fn report_all(scene: &mut Scene) {
    for path in scene.server.paths("rollouts") {
        scene.claim(path.rsplit('/').next().unwrap());
    }
    scene.watches().await;
    kinds_read(scene);
}

/// Reconciles a Rollout until two passes have changed nothing.
async fn settle(scene: &mut Scene, name: &str) {
    let mut unchanged = 0;
    for _ in 0..20 {
        let before = stored(scene, name);
        scene.reconcile(name).await.unwrap();
        let same = stored(scene, name) == before;
        unchanged = if same { unchanged + 1 } else { 0 };
        if unchanged == 2 {
            return;
        }
    }
    panic!("{name} does not come to rest: {}", stored(scene, name));
}

/// A scene with two Rollouts that serve, and a change of `api` under way, which may be the only one at a time.
pub(super) async fn with_a_change_under_way(is_only: bool) -> Scene {
    let mut scene = Scene::new();
    if is_only {
        let policy = json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutPolicy",
            "metadata": { "name": "limit", "generation": 1 },
            "spec": { "concurrency": { "fromTier": "low", "perNamespace": 1 } },
        });
        scene.govern(policy);
    }
    for name in ["api", "web"] {
        scene.deploy(name, "app:1");
        for _ in 0..3 {
            scene.reconcile(name).await.unwrap();
            scene.pods_are_ready();
        }
        settle(&mut scene, name).await;
        assert_eq!(scene.status(name)["phase"], "Stable");
    }
    scene.deploy("api", "app:2");
    for _ in 0..2 {
        settle(&mut scene, "api").await;
        scene.pods_are_ready();
    }
    settle(&mut scene, "api").await;
    assert_eq!(scene.status("api")["change"]["stage"], "Stepping");
    scene
}

/// A scene with a change of `web` that waits for its turn.
async fn queued() -> Scene {
    let mut scene = with_a_change_under_way(true).await;
    scene.deploy("web", "app:2");
    settle(&mut scene, "web").await;
    let status = scene.status("web");
    assert_eq!(status["waitingFor"], "Queued");
    let message = status["message"].as_str().unwrap();
    assert!(message.contains("under way: shop/api"), "{message}");
    report_all(&mut scene).await;
    scene
}

/// Makes a Rollout depend on `api`.
fn depend(scene: &Scene, name: &str) {
    let mut rollout = stored(scene, name);
    rollout["spec"]["dependsOn"] = json!(["api"]);
    scene.server.put(&format!("{ROLLOUTS}/{name}"), rollout);
}

/// A scene with a change of `web` that waits for the end of one of `api`.
async fn dependent() -> Scene {
    let mut scene = with_a_change_under_way(false).await;
    scene.deploy("web", "app:2");
    depend(&scene, "web");
    settle(&mut scene, "web").await;
    assert_eq!(scene.status("web")["waitingFor"], "AwaitingDependency");
    report_all(&mut scene).await;
    scene
}

/// The change of `api` ends; returns what was stored before.
fn end(scene: &Scene) -> Value {
    let before = stored(scene, "api");
    let mut ended = before.clone();
    let status = ended["status"].as_object_mut().unwrap();
    status.remove("change").unwrap();
    status.remove("waitingFor");
    scene.server.put(&format!("{ROLLOUTS}/api"), ended);
    before
}

/// The change of `api` ends as its watch reports, and another begins before anybody knows.
async fn seem_to_end(scene: &mut Scene) {
    let under_way = end(scene);
    report_all(scene).await;
    scene.server.put(&format!("{ROLLOUTS}/api"), under_way);
}

/// How often Rollouts were read since the last call.
fn reads_of_rollouts(scene: &Scene) -> usize {
    let reads = kinds_read(scene).into_iter();
    reads.filter(|it| it == "rollouts").count()
}

#[tokio::test]
async fn who_goes_on_waiting_for_others_reads_and_writes_nothing() {
    for mut scene in [queued().await, dependent().await] {
        let before = stored(&scene, "web");
        scene.reconcile_reported("web").await.unwrap();
        assert_eq!(kinds_read(&scene), [""; 0]);
        assert_eq!(stored(&scene, "web"), before);
    }
}

#[tokio::test]
async fn who_is_next_begins_after_everything_was_read() {
    for mut scene in [queued().await, dependent().await] {
        end(&scene);
        report_all(&mut scene).await;
        scene.reconcile_reported("web").await.unwrap();
        let why = "the others, before anything is written";
        assert_eq!(reads_of_rollouts(&scene), 1, "{why}");
        assert_eq!(scene.status("web")["change"]["stage"], "Stepping");
    }
}

#[tokio::test]
async fn law_5_nothing_begins_because_a_watch_is_late() {
    for mut scene in [queued().await, dependent().await] {
        let before = scene.status("web");
        seem_to_end(&mut scene).await;
        scene.reconcile_reported("web").await.unwrap();
        let why = "the others, and its own with the others";
        assert_eq!(reads_of_rollouts(&scene), 3, "{why}");
        assert_eq!(scene.status("web"), before);
    }
}

#[tokio::test]
async fn nobody_waits_for_a_change_whose_end_the_operator_has_just_written() {
    for mut scene in [queued().await, dependent().await] {
        end(&scene);
        let written: ObjectMeta =
            serde_json::from_value(stored(&scene, "api")["metadata"].clone()).unwrap();
        let uid = written.uid.clone().unwrap();
        scene.context.actor.written.rollouts.reaches(&uid, &written);
        scene.reconcile_reported("web").await.unwrap();
        assert_eq!(scene.status("web")["change"]["stage"], "Stepping");
    }
}

#[tokio::test]
async fn law_5_a_first_revision_begins_after_what_it_depends_on_as_that_is_read() {
    let mut scene = with_a_change_under_way(false).await;
    scene.deploy("new", "app:1");
    depend(&scene, "new");
    settle(&mut scene, "new").await;
    let before = scene.status("new");
    assert_eq!(before["waitingFor"], "AwaitingDependency");
    assert_eq!(before["change"]["initial"], true);
    report_all(&mut scene).await;
    scene.reconcile_reported("new").await.unwrap();
    assert_eq!(kinds_read(&scene), [""; 0]);

    seem_to_end(&mut scene).await;
    scene.reconcile_reported("new").await.unwrap();
    assert_ne!(reads_of_rollouts(&scene), 0);
    assert_eq!(scene.status("new"), before);
}
