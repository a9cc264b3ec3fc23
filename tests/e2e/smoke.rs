//! Smoke checks: a Job of the real Job controller decides before a change has any pod.
//!
//! No kubelet runs these pods, so the tests end them by writing the status as a kubelet would.

use countersign_api::Phase;
use countersign_api::rollout::Outcome;
use countersign_cluster::wait_for;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::sign_off::{Checkpoint, line};
use crate::support::{App, Scene, TIMEOUT, condition, ended, merge, phase, waits_for};

/// An application with a smoke check.
pub fn checked(app: &App, words: &Value) -> App {
    let restricted =
        json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } });
    let container = json!({
        "name": "smoke", "image": "{{image}}", "command": ["/app", "--self-test"], "securityContext": restricted,
    });
    let pods = json!({ "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } });
    let mut smoke = json!({
        "timeout": "5m", "template": {
            "metadata": { "annotations": { "cluster.test/ends": "never" } },
            "spec": { "securityContext": pods, "containers": [container] },
        },
    });
    merge(&mut smoke, words);
    let mut spec = app.spec.clone();
    merge(
        &mut spec,
        &json!({ "strategy": { "canary": { "smoke": smoke } } }),
    );
    app.spec(spec)
}

fn jobs(scene: &Scene) -> Api<Job> {
    Api::namespaced(scene.cluster.client(), &scene.namespace)
}

fn pods(scene: &Scene) -> Api<Pod> {
    Api::namespaced(scene.cluster.client(), &scene.namespace)
}

async fn all_jobs(scene: &Scene) -> Vec<Job> {
    jobs(scene)
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
}

/// Waits until the change waits for its smoke check alone and the pod of its Job runs.
async fn running(scene: &Scene, app: &App) -> (Job, Pod) {
    scene
        .until(app, "the smoke check is waited for", |rollout| {
            waits_for(rollout, "AwaitingSmoke")
        })
        .await;
    let poll = async || {
        let found = all_jobs(scene).await;
        let job = found.first().ok_or("there is no Job")?.clone();
        let own = format!("batch.kubernetes.io/controller-uid={}", job.uid().unwrap());
        let own = ListParams::default().labels(&own);
        let pod = pods(scene).list(&own).await.unwrap().items.pop();
        let pod = pod.ok_or("its Job has no pod")?;
        let status = pod.status.clone().unwrap_or_default();
        let runs = status.phase.as_deref() == Some("Running");
        runs.then_some((job, pod)).ok_or("its pod does not run")
    };
    wait_for("the smoke check runs", TIMEOUT, poll)
        .await
        .unwrap()
}

/// Ends a pod as a kubelet does: with the end of the log where it has failed.
async fn end(scene: &Scene, pod: &Pod, code: i32, log: &str) {
    let message = if code == 0 { "" } else { log };
    let state = json!({ "terminated": {
        "exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" }, "message": message,
    } });
    let status = json!({ "status": {
        "phase": if code == 0 { "Succeeded" } else { "Failed" },
        "containerStatuses": [{
            "name": "smoke", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state,
        }],
    } });
    pods(scene)
        .patch_status(
            &pod.name_any(),
            &PatchParams::default(),
            &Patch::Merge(status),
        )
        .await
        .unwrap();
}

/// Only stable has ever had pods.
async fn untouched(scene: &Scene) {
    let sets = scene.replica_sets().list(&ListParams::default()).await;
    assert_eq!(sets.unwrap().items.len(), 1, "no ReplicaSet was made");
}

#[tokio::test]
async fn a_failing_smoke_check_ends_the_change_before_any_pod_and_shows_the_last_output() {
    let scene = Scene::new("smoke-fails").await;
    let app = scene.serving(App::new("shop")).await;
    let next = checked(&app.version("v2"), &json!({}));
    scene.apply(&next).await;
    let (job, pod) = running(&scene, &next).await;
    let spec = pod.spec.as_ref().unwrap();
    let container = &spec.containers[0];
    assert_eq!(container.image.as_deref(), Some("example.org/shop:v2"));
    assert_eq!(
        container.termination_message_policy.as_deref(),
        Some("FallbackToLogsOnError")
    );
    let env = container.env.as_ref().unwrap().iter();
    let names: Vec<_> = env.map(|it| it.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "COUNTERSIGN_ROLLOUT",
            "COUNTERSIGN_REVISION",
            "COUNTERSIGN_DIGEST"
        ]
    );
    assert_eq!(job.spec.as_ref().unwrap().backoff_limit, Some(0));
    untouched(&scene).await;

    end(
        &scene,
        &pod,
        3,
        "GET / 200\nGET /cart 500\nFAIL: 1 of 2 \u{1b}[31mred\n",
    )
    .await;
    let rollout = scene
        .until(&next, "the change is rolled back", |rollout| {
            phase(rollout) == Phase::Degraded
        })
        .await;
    let run = scene.outcome(&next).await;
    assert!(ended(&run, Outcome::RolledBack));
    let why = &line(&run, "SmokeFailed").message;
    let expected = format!(
        "Job {} failed: container smoke exited with 3 (Error); its last output: GET / 200 | GET /cart 500 | FAIL: 1 of 2 \\u{{1b}}[31mred",
        job.name_any()
    );
    assert_eq!(*why, expected);
    assert_eq!(scene.events(&next, "SmokeFailed").await, [expected]);
    assert_eq!(condition(&rollout, "Stalled").unwrap().0, "True");
    untouched(&scene).await;
    let status = rollout.status.unwrap();
    assert_eq!((status.replicas, status.available_replicas), (4, 4));

    // Law 8, also without its Job and after another reconcile.
    jobs(&scene)
        .delete(&job.name_any(), &DeleteParams::background())
        .await
        .unwrap();
    scene
        .apply(&App {
            replicas: 5,
            ..next.clone()
        })
        .await;
    scene
        .until(&next, "stable has another pod", |rollout| {
            rollout
                .status
                .as_ref()
                .is_some_and(|status| status.available_replicas == 5)
        })
        .await;
    assert_eq!(scene.records(&next).await.len(), 2);
    untouched(&scene).await;
}

#[tokio::test]
async fn a_passing_smoke_check_lets_the_change_go_on_and_is_made_again_if_it_vanishes() {
    let scene = Scene::new("smoke-passes").await;
    let app = scene.serving(App::new("shop")).await;
    let _load = scene.load(&app, 100).await;
    let next = checked(&app.version("v2"), &json!({}));
    scene.apply(&next).await;
    let (first, _) = running(&scene, &next).await;
    let name = first.name_any();
    jobs(&scene)
        .delete(&name, &DeleteParams::background())
        .await
        .unwrap();
    let poll = async || {
        let job = jobs(&scene).get_opt(&name).await.unwrap();
        job.is_some_and(|job| job.uid() != first.uid())
            .then_some(())
    };
    wait_for("the Job is made again", TIMEOUT, poll)
        .await
        .unwrap();
    let (_, pod) = running(&scene, &next).await;
    untouched(&scene).await;

    end(&scene, &pod, 0, "").await;
    let run = scene.outcome(&next).await;
    assert!(ended(&run, Outcome::Promoted));
    let reasons: Vec<_> = run
        .spec
        .progress
        .transitions
        .iter()
        .map(|line| line.reason.as_str())
        .collect();
    assert_eq!(
        reasons[..3],
        ["ChangeStarted", "SmokePassed", "StepStarted"]
    );
    scene.event_once(&next, "SmokePassed").await;
}

#[tokio::test]
async fn an_abort_stops_a_smoke_check_that_runs() {
    let mut checkpoint = Checkpoint::new("smoke-abort", json!({})).await;
    let next = checked(&checkpoint.app.version("v2"), &json!({}));
    checkpoint.deploy(&next).await;
    running(&checkpoint.scene, &next).await;
    let words = json!({ "action": "Abort", "reason": "wrong branch" });
    let abort = checkpoint.intervene(&checkpoint.alice, words).await;
    checkpoint.answered(&abort.unwrap(), "Applied").await;
    checkpoint.until_degraded().await;
    let gone = async || {
        let jobs = all_jobs(&checkpoint.scene).await;
        jobs.is_empty().then_some(()).ok_or(jobs.len())
    };
    wait_for("its Job is gone", TIMEOUT, gone).await.unwrap();
    untouched(&checkpoint.scene).await;
    checkpoint.scene.remove_policy().await;
}

#[tokio::test]
async fn a_smoke_check_that_takes_too_long_has_failed() {
    let scene = Scene::new("smoke-time").await;
    let app = scene.serving(App::new("shop")).await;
    let next = checked(&app.version("v2"), &json!({ "timeout": "1s" }));
    scene.apply(&next).await;
    // No kubelet stops the pod, so the Job fails by its own deadline, ten seconds later.
    running(&scene, &next).await;
    let run = scene.outcome(&next).await;
    assert!(ended(&run, Outcome::RolledBack));
    let why = &line(&run, "SmokeFailed").message;
    assert!(
        why.contains("took longer than 1s: DeadlineExceeded"),
        "{why}"
    );
    untouched(&scene).await;
}

#[tokio::test]
async fn a_job_that_the_api_server_refuses_is_named_and_never_passes() {
    let scene = Scene::new("smoke-quota").await;
    let app = scene.serving(App::new("shop")).await;
    let quotas: Api<ResourceQuota> = Api::namespaced(scene.cluster.client(), &scene.namespace);
    let quota = json!({ "metadata": { "name": "no-jobs" }, "spec": { "hard": { "count/jobs.batch": "0" } } });
    let quota = serde_json::from_value(quota).unwrap();
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    let poll = async || {
        let status = quotas.get("no-jobs").await.unwrap().status;
        status.and_then(|status| status.hard)
    };
    wait_for("the quota is in force", TIMEOUT, poll)
        .await
        .unwrap();

    let mut next = checked(&app.version("v2"), &json!({}));
    merge(&mut next.spec, &json!({ "progressDeadlineSeconds": 5 }));
    scene.apply(&next).await;
    scene
        .until(&next, "the refusal is named", |rollout| {
            let status = rollout.status.as_ref();
            waits_for(rollout, "AwaitingSmoke")
                && status.is_some_and(|status| status.message.contains("exceeded quota: no-jobs"))
        })
        .await;
    let run = scene.outcome(&next).await;
    assert!(ended(&run, Outcome::RolledBack));
    let why = &line(&run, "ProgressDeadlineExceeded").message;
    assert!(why.contains("exceeded quota: no-jobs"), "{why}");
    untouched(&scene).await;
}

#[tokio::test]
async fn the_pods_of_a_smoke_check_are_never_served_by_the_rollouts_service() {
    let scene = Scene::new("smoke-service").await;
    let two = json!({
        "selector": { "matchLabels": { "tier": "web" } },
        "template": { "metadata": { "labels": { "tier": "web" } } },
    });
    let app = scene.serving(App::new("shop").spec(two)).await;
    let load = scene.load(&app, 100).await;

    // All labels of the selector are refused; those of the Service alone are not known to be its.
    let labels = |labels: Value| json!({ "template": { "metadata": { "labels": labels } } });
    let all = checked(
        &app.version("v2"),
        &labels(json!({ "app": "shop", "tier": "web" })),
    );
    let refused = scene
        .rollouts()
        .patch(
            "shop",
            &PatchParams::apply("service-team").force(),
            &Patch::Apply(all.manifest()),
        )
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("must not have all labels"),
        "{refused}"
    );

    let ports = json!([{ "name": "smoke", "image": "{{image}}", "ports": [{ "containerPort": 8080 }], "securityContext":
        { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } } }]);
    let mut words = labels(json!({ "app": "shop" }));
    words["template"]["spec"] = json!({ "containers": ports });
    let next = checked(&app.version("v2"), &words);
    scene.apply(&next).await;
    let (_, pod) = running(&scene, &next).await;
    let slices: Api<EndpointSlice> = Api::namespaced(scene.cluster.client(), &scene.namespace);
    let uid = pod.uid();
    let poll = async || {
        let slices = slices.list(&ListParams::default()).await.unwrap().items;
        let endpoints = slices.into_iter().filter_map(|slice| slice.endpoints);
        let mut own = endpoints.flatten().filter(|it| {
            it.target_ref
                .as_ref()
                .is_some_and(|target| target.uid == uid)
        });
        own.next().ok_or("the Service does not select it")
    };
    let endpoint = wait_for("the Service selects it", TIMEOUT, poll)
        .await
        .unwrap();
    let ready = endpoint.conditions.and_then(|conditions| conditions.ready);
    assert_eq!(ready, Some(false), "and does not serve it");
    let before = load.report().requests;
    let poll = async || (load.report().requests > before + 300).then_some(());
    wait_for("requests are answered", TIMEOUT, poll)
        .await
        .unwrap();
    let report = load.report();
    assert_eq!(report.by_revision.len(), 1, "{report:?}");
    assert_eq!(report.connection_errors, 0, "{report:?}");
    end(&scene, &pod, 1, "enough").await;
    scene.outcome(&next).await;
}
