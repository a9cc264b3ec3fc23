//! Provenance that others declare.

use serde_json::{Value, json};

use super::{allow, editor, label, refused, serving, tried};
use crate::identity::user::{User, path};

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
