//! Provenance that others declare, and provenance of another change.

use std::process::Command;

use countersign_cluster::wait_for;
use serde_json::{Value, json};

use super::{allow, at, editor, label, refused, serving, tried};
use crate::identity::user::{User, path};
use crate::support::TIMEOUT;

fn declared(key: &str, value: Value) -> Value {
    let key = format!("provenance.countersign.dev/{key}");
    json!({ "metadata": { "annotations": { key: value } } })
}

#[tokio::test]
async fn where_declaring_is_restricted_it_needs_the_verb() {
    let (scene, _app) = serving("declared").await;
    let user = editor(&scene).await;
    label(&scene, "countersign.dev/declare", "restricted").await;
    let own = path(&scene, "rollouts/shop");
    let words = ["403", "may not declare the provenance of Rollout"];
    for edit in [
        declared("lines-added", json!("1")),
        declared("ai-share", json!("0")),
        declared("tests", Value::Null),
    ] {
        refused(&user, "PATCH", &own, &edit, &words).await;
    }
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "adopted", "annotations": { "provenance.countersign.dev/tests": "PASSED" } },
        "spec": { "selector": { "matchLabels": { "app": "adopted" } }, "template": {
            "metadata": { "labels": { "app": "adopted" } },
            "spec": { "containers": [{ "name": "app", "image": "example.org/shop:v1" }] },
        } },
    });
    let deployments = at(&scene, "apps/v1", "deployments");
    let words_of_it = ["403", "may not declare the provenance of Deployment"];
    refused(&user, "POST", &deployments, &deployment, &words_of_it).await;
    let unknown = json!({ "metadata": { "annotations": null } });
    tried(&user, "PATCH", &own, &unknown).await.unwrap();
    let larger = json!({ "spec": { "replicas": 5 } });
    tried(&user, "PATCH", &own, &larger).await.unwrap();

    let ci = User::service_account(&scene, "ci").await;
    scene.grant(&ci.name, "edit").await;
    let group = countersign_api::GROUP;
    allow(&scene, &ci, group, "rollouts", &["declare"]).await;
    let edit = declared("lines-added", json!("1"));
    tried(&ci, "PATCH", &own, &edit).await.unwrap();
}

#[tokio::test]
async fn kubectl_warns_of_an_edit_that_leaves_the_provenance_as_it_was() {
    let (scene, _app) = serving("stale").await;
    scene.grant("alice", "edit").await;
    let image = json!({ "op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "example.org/shop:v2" });
    let revision = "/metadata/annotations/provenance.countersign.dev~1revision";
    let revision = json!({ "op": "replace", "path": revision, "value": "3333333" });
    let patch = |operations: Value| {
        let output = Command::new("timeout")
            .args(["60", "kubectl", "--context", "alice"])
            .args(["--namespace", &scene.namespace, "patch", "cro/shop"])
            .args(["--dry-run=server", "--type=json", "--patch"])
            .arg(operations.to_string())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        stderr
    };
    let words = "change and its provenance does not: stamp the change again";
    let poll = async || {
        let stderr = patch(json!([image]));
        stderr.contains(words).then_some(()).ok_or(stderr)
    };
    wait_for("kubectl warns", TIMEOUT, poll).await.unwrap();
    let more = "/metadata/annotations/provenance.countersign.dev~1note";
    let more = json!({ "op": "add", "path": more, "value": "something else" });
    let stderr = patch(json!([image, more]));
    assert!(stderr.contains(words), "{stderr}");
    let stderr = patch(json!([image, revision]));
    assert!(!stderr.contains(words), "{stderr}");
}
