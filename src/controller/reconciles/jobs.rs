//! Changes that wait for the Job of their smoke check, with what the watch has reported of it.

use super::costs::kinds_read;
use super::*;

/// A change that waits for its smoke check, at which all watches have listed everything, and the path of its Job.
async fn checking(scene: &mut Scene) -> String {
    scene.deploy("web", "app:2");
    let path = format!("{ROLLOUTS}/web");
    let mut rollout = scene.server.get(&path).unwrap();
    let pods = json!({ "spec": { "containers": [{ "name": "smoke", "image": "{{image}}" }] } });
    rollout["spec"]["strategy"] = json!({ "canary": { "smoke": { "template": pods } } });
    scene.server.put(&path, rollout);
    for _ in 0..6 {
        scene.reconcile("web").await.unwrap();
    }
    assert_eq!(scene.status("web")["waitingFor"], "AwaitingSmoke");
    let mut jobs = scene.server.paths("jobs");
    assert_eq!(jobs.len(), 1);
    scene.watches().await;
    scene.server.requests();
    jobs.remove(0)
}

fn edit(scene: &Scene, path: &str, edit: impl FnOnce(&mut Value)) -> Value {
    let mut job = scene.server.get(path).unwrap();
    edit(&mut job);
    scene.server.put(path, job);
    scene.server.get(path).unwrap()
}

fn end(job: &mut Value, kind: &str) {
    job["status"] = json!({ "conditions": [{ "type": kind, "status": "True" }] });
}

fn run_another_image(job: &mut Value) {
    job["spec"]["template"]["spec"]["containers"][0]["image"] = json!("evil:1");
}

/// A container of the Job starts.
fn start(scene: &Scene, path: &str) {
    let job = scene.server.get(path).unwrap();
    let owner = json!({
        "apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"],
        "uid": job["metadata"]["uid"], "controller": true,
    });
    let container = json!({
        "name": "smoke", "image": "app:2", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "running": {} },
    });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "one", "ownerReferences": [owner] },
        "status": { "phase": "Running", "containerStatuses": [container] },
    });
    scene.server.put("/api/v1/namespaces/shop/pods/one", pod);
}

/// The requests since the last call, but for Events, which are sent on the side.
fn requests(scene: &Scene) -> Vec<RecordedRequest> {
    let mut requests = scene.server.requests();
    requests.retain(|it| !to("events")(it));
    requests
}

/// How many Jobs the cache has of the Rollout, if it answers.
fn known(scene: &Scene) -> Option<usize> {
    let jobs = &scene.context.observer.caches.written.jobs;
    let own = jobs.of_rollout("shop", &format!("uid-of-{ROLLOUTS}/web"))?;
    Some(own.len())
}

#[tokio::test]
async fn an_awaited_job_costs_no_request_while_it_runs() {
    let mut scene = Scene::serving("web").await;
    let job = checking(&mut scene).await;
    scene.reconcile_reported("web").await.unwrap();
    let asked = requests(&scene);
    assert!(asked.is_empty(), "{asked:?}");

    start(&scene, &job);
    scene.reconcile("web").await.unwrap();
    let reads = kinds_read(&scene);
    assert!(reads.iter().any(|it| it == "pods"), "{reads:?}");
    let message = scene.status("web")["message"].clone();
    let message = message.as_str().unwrap();
    let expected = "the smoke check runs as Job";
    assert!(message.contains(expected), "{message}");
    scene.watches().await;
    scene.server.requests();
    scene.reconcile_reported("web").await.unwrap();
    let asked = requests(&scene);
    assert!(asked.is_empty(), "{asked:?}");
}

#[tokio::test]
async fn what_a_webhook_makes_of_a_job_is_known_after_one_dry_run() {
    let mut scene = Scene::serving("web").await;
    scene.server.admits(|object| {
        if object["kind"] == "Job" {
            object["spec"]["template"]["spec"]["containers"][0]["image"] = json!("proxy/app:2");
        }
    });
    checking(&mut scene).await;
    scene.reconcile_reported("web").await.unwrap();
    let asked = requests(&scene);
    assert!(asked.is_empty(), "{asked:?}");
    assert_eq!(scene.status("web")["change"]["smoke"]["replaced"], 0);
}

#[tokio::test]
async fn the_end_of_a_job_is_read_before_anything_follows_from_it() {
    for (kind, field, expected) in [
        ("Complete", "/change/smoke/passed", json!(true)),
        ("Failed", "/change/outcome", json!("RolledBack")),
    ] {
        let mut scene = Scene::serving("web").await;
        let path = checking(&mut scene).await;
        let ended = edit(&scene, &path, |job| end(job, kind));
        scene.context.observer.caches.report_job(ended);
        scene.reconcile_reported("web").await.unwrap();
        let reads = kinds_read(&scene);
        assert!(reads.iter().any(|it| it == "jobs"), "{reads:?}");
        let status = scene.status("web");
        assert_eq!(status.pointer(field), Some(&expected), "{status}");
    }
}

#[tokio::test]
async fn law_5_nothing_follows_from_an_end_that_only_the_watch_knows() {
    for kind in ["Complete", "Failed"] {
        let mut scene = Scene::serving("web").await;
        let path = checking(&mut scene).await;
        let before = scene.status("web");
        let mut ended = scene.server.get(&path).unwrap();
        end(&mut ended, kind);
        ended["metadata"]["resourceVersion"] = json!("1000000");
        scene.context.observer.caches.report_job(ended);
        scene.reconcile_reported("web").await.unwrap();
        let reads = kinds_read(&scene);
        assert!(reads.iter().any(|it| it == "jobs"), "{reads:?}");
        assert_eq!(scene.status("web"), before);
    }
}

#[tokio::test]
async fn law_11_a_job_that_is_not_the_operators_is_read_and_deleted() {
    let mut scene = Scene::serving("web").await;
    let path = checking(&mut scene).await;
    let edited = edit(&scene, &path, run_another_image);
    scene.context.observer.caches.report_job(edited);
    scene.reconcile_reported("web").await.unwrap();
    let reads = kinds_read(&scene);
    assert!(reads.iter().any(|it| it == "jobs"), "{reads:?}");
    assert_eq!(scene.server.get(&path), None);
}

#[tokio::test]
async fn law_5_the_cache_of_jobs_has_to_reach_own_writes() {
    let mut scene = Scene::serving("web").await;
    let path = checking(&mut scene).await;
    assert_eq!(known(&scene), Some(1));
    edit(&scene, &path, run_another_image);
    scene.reconcile("web").await.unwrap();
    assert_eq!(scene.server.get(&path), None);
    assert_eq!(known(&scene), None, "it is deleted");
    let caches = scene.context.observer.caches.clone();
    caches.list_jobs(Vec::new());
    assert_eq!(known(&scene), Some(0));

    scene.reconcile("web").await.unwrap();
    let made = scene.server.get(&path).unwrap();
    assert_eq!(known(&scene), None, "it is made again");
    caches.report_job(made);
    assert_eq!(known(&scene), Some(1));
}

#[tokio::test]
async fn law_5_a_new_leader_waits_for_the_jobs_that_another_one_has_made() {
    let mut scene = Scene::serving("web").await;
    let path = checking(&mut scene).await;
    let made = edit(&scene, &path, |_| ());
    let caches = scene.context.observer.caches.clone();
    caches.open(&scene.server.client()).await;
    assert_eq!(known(&scene), None);
    caches.report_job(made);
    assert_eq!(known(&scene), Some(1));
}
