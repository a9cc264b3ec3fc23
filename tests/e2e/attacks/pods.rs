//! Pods of a Rollout, and pods that its ReplicaSets would adopt.

use serde_json::{Value, json};

use super::{agent, allow, at, editor, refused, serving, tried};
use crate::identity::user::User;
use crate::support::App;

const OWNED: &[&str] = &["403", "made of its template alone"];

/// What pods need where `restricted` is enforced.
fn container(name: &str) -> Value {
    json!({
        "name": name, "image": "example.org/other:v1",
        "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
    })
}

#[tokio::test]
async fn a_pod_of_a_rollout_runs_its_template_alone() {
    let (scene, _app) = serving("own-pods").await;
    let pods = at(&scene, "v1", "pods");
    let pod = User::admin(&scene).get(&pods).await.unwrap()["items"][0].clone();
    let own = format!("{pods}/{}", pod["metadata"]["name"].as_str().unwrap());
    let mut containers = pod["spec"]["containers"].clone();
    containers[0]["image"] = "example.org/other:v1".into();
    let metadata = |fields: Value| json!({ "metadata": fields });
    let edits = [
        json!({ "spec": { "containers": containers } }),
        metadata(json!({ "labels": { "pod-template-hash": null } })),
        metadata(json!({ "labels": { "pod-template-hash": "another" } })),
        metadata(json!({ "labels": { "app": "other" } })),
        metadata(json!({ "ownerReferences": null })),
    ];
    let debugger = json!({ "spec": { "ephemeralContainers": [container("debugger")] } });
    for user in [editor(&scene).await, agent(&scene).await] {
        for edit in &edits {
            refused(&user, "PATCH", &own, edit, OWNED).await;
        }
        let resource = "pods/ephemeralcontainers";
        allow(&scene, &user, "", resource, &["patch"]).await;
        let path = format!("{own}/ephemeralcontainers");
        refused(&user, "PATCH", &path, &debugger, OWNED).await;
        for harmless in [
            metadata(json!({ "labels": { "seen": "yes" } })),
            metadata(json!({ "annotations": { "note": "seen" } })),
        ] {
            tried(&user, "PATCH", &own, &harmless).await.unwrap();
        }
        tried(&user, "DELETE", &own, &Value::Null).await.unwrap();
    }
}

#[tokio::test]
async fn nobody_makes_a_pod_that_a_replica_set_would_adopt() {
    let (scene, _app) = serving("adopted-pods").await;
    let pods = at(&scene, "v1", "pods");
    let pod = User::admin(&scene).get(&pods).await.unwrap()["items"][0].clone();
    let labels = &pod["metadata"]["labels"];
    let template = |labels: &Value, restarts: &str| {
        let mut spec = App::new("shop").manifest()["spec"]["template"]["spec"].clone();
        spec["restartPolicy"] = restarts.into();
        json!({ "metadata": { "labels": labels }, "spec": spec })
    };
    // With the labels that the Rollout selects alone, or the hash of a Deployment, it is beside the Rollout's.
    let (beside, other) = (json!({ "app": "shop" }), json!({ "app": "other" }));
    let of_deployment = json!({ "app": "shop", "pod-template-hash": "7d9fb6c5f4" });
    let planted = |labels: &Value| {
        let mut pod = template(labels, "Always");
        pod["apiVersion"] = "v1".into();
        pod["kind"] = "Pod".into();
        pod["metadata"]["name"] = "planted".into();
        pod
    };
    let serves =
        json!({ "selector": { "matchLabels": labels }, "template": template(labels, "Always") });
    let ends = json!({ "template": template(labels, "Never") });
    let daily = json!({ "schedule": "@daily", "jobTemplate": { "spec": ends } });
    // A pod whose owner is deleted without it is adopted.
    let workloads = [
        ("apps/v1", "ReplicaSet", &serves),
        ("apps/v1", "DaemonSet", &serves),
        ("batch/v1", "Job", &ends),
        ("batch/v1", "CronJob", &daily),
    ];
    for user in [editor(&scene).await, agent(&scene).await] {
        refused(&user, "POST", &pods, &planted(labels), OWNED).await;
        for labels in [&beside, &other, &of_deployment] {
            tried(&user, "POST", &pods, &planted(labels)).await.unwrap();
        }
        for (version, kind, spec) in workloads {
            let all = at(&scene, version, &format!("{}s", kind.to_lowercase()));
            let workload = json!({
                "apiVersion": version, "kind": kind, "metadata": { "name": "planted" }, "spec": spec,
            });
            refused(&user, "POST", &all, &workload, OWNED).await;
        }
    }
}

/// Pods with a hash of ten characters are those of earlier builds and of adopted Deployments.
#[tokio::test]
async fn a_pod_with_the_hash_of_an_earlier_build_stays_one_of_its_revision() {
    let (scene, _app) = serving("old-pods").await;
    let pods = at(&scene, "v1", "pods");
    let spec = App::new("shop").manifest()["spec"]["template"]["spec"].clone();
    let labels = json!({ "app": "shop", "pod-template-hash": "7d9fb6c5f4" });
    let old = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "old", "labels": labels }, "spec": spec,
    });
    let old = User::admin(&scene).create(&pods, &old).await.unwrap();
    let own = format!("{pods}/old");
    let mut containers = old["spec"]["containers"].clone();
    containers[0]["image"] = "example.org/other:v1".into();
    let edits = [
        json!({ "metadata": { "labels": { "pod-template-hash": "6c9fb6c5f4" } } }),
        json!({ "metadata": { "labels": { "app": "other" } } }),
        json!({ "spec": { "containers": containers } }),
    ];
    let user = editor(&scene).await;
    for edit in &edits {
        refused(&user, "PATCH", &own, edit, OWNED).await;
    }
    let noted = json!({ "metadata": { "annotations": { "note": "seen" } } });
    tried(&user, "PATCH", &own, &noted).await.unwrap();
}
