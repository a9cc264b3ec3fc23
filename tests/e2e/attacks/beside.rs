//! Workloads beside Rollouts, in a namespace whose label forbids those that the platform team does not list.

use countersign_api::rollout::Outcome;
use countersign_cluster::wait_for;
use serde_json::{Value, json};

use super::{agent, at, editor, label, refused, serving, tried};
use crate::identity::user::{APPLY, User, path};
use crate::support::{App, Scene, TIMEOUT, ended};

const BESIDE: &[&str] = &["403", "runs Rollouts alone"];

/// A pod template with the labels of an application.
fn template(app: &str, restarts: &str) -> Value {
    let mut template = App::new(app).manifest()["spec"]["template"].clone();
    template["spec"]["restartPolicy"] = restarts.into();
    template
}

fn workload(version: &str, kind: &str, name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name }, "spec": spec })
}

fn deployment(name: &str, replicas: i32) -> Value {
    let spec = json!({
        "replicas": replicas, "selector": { "matchLabels": { "app": name } },
        "template": template(name, "Always"),
    });
    workload("apps/v1", "Deployment", name, &spec)
}

/// One workload of each kind that runs pods.
fn each_kind() -> Vec<(&'static str, &'static str, Value)> {
    let (labels, serving) = (json!({ "app": "beside" }), template("beside", "Always"));
    let serves = json!({ "selector": { "matchLabels": labels }, "template": serving });
    let replicated = json!({ "replicas": 1, "selector": labels, "template": serving });
    let ends = json!({ "template": template("beside", "Never") });
    let daily = json!({ "schedule": "@daily", "jobTemplate": { "spec": ends } });
    let mut stateful = serves.clone();
    stateful["serviceName"] = "shop".into();
    let mut all = vec![("apps/v1", "deployments", deployment("beside", 1))];
    for (version, resource, kind, spec) in [
        ("apps/v1", "statefulsets", "StatefulSet", &stateful),
        ("apps/v1", "daemonsets", "DaemonSet", &serves),
        ("apps/v1", "replicasets", "ReplicaSet", &serves),
        (
            "v1",
            "replicationcontrollers",
            "ReplicationController",
            &replicated,
        ),
        ("batch/v1", "jobs", "Job", &ends),
        ("batch/v1", "cronjobs", "CronJob", &daily),
        ("v1", "pods", "Pod", &serving["spec"]),
    ] {
        all.push((version, resource, workload(version, kind, "beside", spec)));
    }
    all
}

/// Lists what may run beside Rollouts in the scene's namespace.
async fn list(scene: &Scene, allowed: &str) {
    let annotations = json!({ "countersign.dev/allowed-workloads": allowed });
    let namespace = format!("/api/v1/namespaces/{}", scene.namespace);
    let listed = json!({ "metadata": { "annotations": annotations } });
    User::admin(scene).merge(&namespace, &listed).await.unwrap();
}

fn autoscaler((version, kind, name): (&str, &str, &str)) -> Value {
    let target = json!({ "apiVersion": version, "kind": kind, "name": name });
    let spec = json!({ "scaleTargetRef": target, "maxReplicas": 3 });
    workload("autoscaling/v2", "HorizontalPodAutoscaler", "scaler", &spec)
}

fn replicas(count: i32) -> Value {
    json!({ "spec": { "replicas": count } })
}

#[tokio::test]
async fn nothing_runs_beside_rollouts_but_what_the_platform_lists() {
    let (scene, _app) = serving("beside").await;
    let deployments = at(&scene, "apps/v1", "deployments");
    let admin = User::admin(&scene);
    let before = deployment("earlier", 2);
    admin.create(&deployments, &before).await.unwrap();
    label(&scene, "countersign.dev/workloads", "rollouts-only").await;

    let own = format!("{deployments}/earlier");
    let scale = format!("{own}/scale");
    let mut other = template("earlier", "Always");
    other["spec"]["containers"][0]["image"] = "example.org/other:v1".into();
    let other = json!({ "spec": { "template": other } });
    let noted = json!({ "metadata": { "labels": { "seen": "yes" } } });
    for user in [editor(&scene).await, agent(&scene).await] {
        for (version, resource, object) in &each_kind() {
            let all = at(&scene, version, resource);
            refused(&user, "POST", &all, object, BESIDE).await;
        }
        // Kubernetes' own account scales what it targets.
        let scalers = at(&scene, "autoscaling/v2", "horizontalpodautoscalers");
        for target in [
            ("apps/v1", "Deployment", "earlier"),
            ("argoproj.io/v1alpha1", "Rollout", "shop"),
        ] {
            refused(&user, "POST", &scalers, &autoscaler(target), BESIDE).await;
        }
        let own_scaler = autoscaler(("countersign.dev/v1alpha1", "Rollout", "shop"));
        tried(&user, "POST", &scalers, &own_scaler).await.unwrap();
        // A workload from before the label stays: it gets no other template and no more pods.
        for (path, edit) in [(&own, &other), (&own, &replicas(3)), (&scale, &replicas(3))] {
            refused(&user, "PATCH", path, edit, BESIDE).await;
        }
        for (path, edit) in [(&own, &noted), (&own, &replicas(1)), (&scale, &replicas(0))] {
            tried(&user, "PATCH", path, edit).await.unwrap();
        }
        tried(&user, "DELETE", &own, &Value::Null).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_listed_and_an_adopted_deployment_go_on() {
    let (scene, app) = serving("listed").await;
    let _load = scene.load(&app, 100).await;
    label(&scene, "countersign.dev/workloads", "rollouts-only").await;
    let user = editor(&scene).await;
    let deployments = at(&scene, "apps/v1", "deployments");
    let tool = deployment("tool", 1);
    refused(&user, "POST", &deployments, &tool, BESIDE).await;

    // Without pods, as a Rollout that adopts it leaves it, and with another template; never with pods.
    let adopted = deployment("adopted", 0);
    user.create(&deployments, &adopted).await.unwrap();
    let own = format!("{deployments}/adopted");
    let next = App::new("adopted").version("v2").manifest()["spec"]["template"].clone();
    let next = json!({ "spec": { "template": next } });
    user.merge(&own, &next).await.unwrap();
    for path in [&own, &format!("{own}/scale")] {
        refused(&user, "PATCH", path, &replicas(1), BESIDE).await;
    }

    list(&scene, "CronJob/backup, Deployment/tool").await;
    let poll = async || tried(&user, "POST", &deployments, &tool).await;
    wait_for("it is listed", TIMEOUT, poll).await.unwrap();
    let scalers = at(&scene, "autoscaling/v2", "horizontalpodautoscalers");
    let scaler = autoscaler(("apps/v1", "Deployment", "tool"));
    tried(&user, "POST", &scalers, &scaler).await.unwrap();
    refused(&user, "PATCH", &own, &replicas(1), BESIDE).await;
    // Kubernetes' controllers create the ReplicaSet and the pods of what is listed.
    user.create(&deployments, &tool).await.unwrap();
    let poll = async || {
        let tool = user.get(&format!("{deployments}/tool")).await.unwrap();
        let status = tool["status"].clone();
        (status["availableReplicas"] == 1)
            .then_some(())
            .ok_or(status)
    };
    wait_for("it serves", TIMEOUT, poll).await.unwrap();

    // The operator works on.
    let apply = path(&scene, "rollouts/shop?fieldManager=service-team&force=true");
    let next = app.version("v2").manifest();
    user.send("PATCH", &apply, APPLY, &next).await.unwrap();
    assert!(ended(&scene.outcome(&app).await, Outcome::Promoted));
}
