//! AnalysisTemplates, as their watch has reported them.

use super::*;

/// A scene with a canary that is analysed by an AnalysisTemplate, whose watches have listed everything.
async fn analysed() -> Scene {
    let mut scene = Scene::serving("web").await;
    let template = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "AnalysisTemplate",
        "metadata": { "name": "http" },
        "spec": { "checks": [{ "name": "errors", "preset": "HttpRequestsTotal" }] },
    });
    let path = ROLLOUTS.replace("rollouts", "analysistemplates/http");
    scene.server.put(&path, template);
    scene.deploy("web", "app:2");
    let mut deployed = rollout(&scene);
    deployed["spec"]["strategy"] =
        json!({ "canary": { "analysis": { "templates": [{ "name": "http" }] } } });
    scene.server.put(&format!("{ROLLOUTS}/web"), deployed);
    for _ in 0..4 {
        scene.reconcile("web").await.unwrap();
        scene.pods_are_ready();
    }
    for _ in 0..3 {
        scene.reconcile("web").await.unwrap();
    }
    let change = &scene.status("web")["change"];
    assert!(
        change.is_object() && change["outcome"].is_null(),
        "{change}"
    );
    scene.watches().await;
    kinds_read(&scene);
    scene
}

/// Whether an AnalysisTemplate was read since the last call.
fn is_read(scene: &Scene) -> bool {
    kinds_read(scene).iter().any(|it| it == "analysistemplates")
}

#[tokio::test]
async fn a_template_that_the_watch_has_reported_is_not_read_for_an_event() {
    let mut scene = analysed().await;
    scene.reconcile_reported("web").await.unwrap();
    assert!(!is_read(&scene));
    scene.context.read.lock().unwrap().clear();
    scene.reconcile("web").await.unwrap();
    assert!(is_read(&scene), "it is used");
}

#[tokio::test]
async fn a_template_is_read_before_anything_is_written() {
    let mut scene = analysed().await;
    scale(&scene, 2);
    scene.reconcile_reported("web").await.unwrap();
    assert!(is_read(&scene));
}

#[tokio::test]
async fn a_template_that_no_watch_has_reported_is_read() {
    let mut scene = analysed().await;
    let caches = scene.context.observer.caches.clone();
    caches.template_specs.list_templates(Vec::new());
    scene.reconcile_reported("web").await.unwrap();
    assert!(is_read(&scene));
}
