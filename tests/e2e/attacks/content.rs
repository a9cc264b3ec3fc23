//! Content that is named by a template and can change without it, in namespaces whose labels forbid that.

use serde_json::{Value, json};

use super::{at, editor, label, refused, serving, tried};
use crate::identity::user::path;
use crate::support::App;

/// A Rollout whose container has these fields, too.
fn other(fields: &Value) -> Value {
    let mut manifest = App::new("other").manifest();
    let container = &mut manifest["spec"]["template"]["spec"]["containers"][0];
    crate::support::merge(container, fields);
    manifest
}

#[tokio::test]
async fn where_images_are_pinned_a_tag_is_refused() {
    let (scene, app) = serving("pinned").await;
    let user = editor(&scene).await;
    label(&scene, "countersign.dev/images", "pinned").await;
    let all = path(&scene, "rollouts");
    let tag = other(&json!({ "image": "example.org/other:v1" }));
    let words = ["422", "named by their digest", "example.org/other:v1"];
    refused(&user, "POST", &all, &tag, &words).await;
    let digest = format!("example.org/other:v1@sha256:{}", "0".repeat(64));
    let digest = other(&json!({ "image": digest }));
    tried(&user, "POST", &all, &digest).await.unwrap();

    // A Rollout from before the label works on, until its template is edited.
    let own = path(&scene, "rollouts/shop");
    let larger = json!({ "spec": { "replicas": 5 } });
    tried(&user, "PATCH", &own, &larger).await.unwrap();
    let template = app.version("v2").manifest()["spec"]["template"].clone();
    let next = json!({ "spec": { "template": template } });
    refused(&user, "PATCH", &own, &next, &["422", "example.org/shop:v2"]).await;
}

#[tokio::test]
async fn where_configuration_is_immutable_other_content_has_another_name() {
    let (scene, app) = serving("immutable").await;
    let user = editor(&scene).await;
    label(&scene, "countersign.dev/config", "immutable").await;
    let all = path(&scene, "rollouts");
    let hashed = "settings-2g5h8k9bcd";
    let config = |name: &str| json!({ "envFrom": [{ "configMapRef": { "name": name } }] });
    let secret = |name: &str| {
        let from = json!({ "secretKeyRef": { "name": name, "key": "password" } });
        json!({ "env": [{ "name": "PASSWORD", "valueFrom": from }] })
    };
    for (plain, named) in [
        (config("settings"), config(hashed)),
        (secret("settings"), secret(hashed)),
    ] {
        let words = ["422", "whose names end with the hash"];
        refused(&user, "POST", &all, &other(&plain), &words).await;
        tried(&user, "POST", &all, &other(&named)).await.unwrap();
    }
    for (resource, kind, field) in [
        ("configmaps", "ConfigMap", "data"),
        ("secrets", "Secret", "stringData"),
    ] {
        let object = |name: &str, immutable: bool| {
            json!({
                "apiVersion": "v1", "kind": kind, "metadata": { "name": name },
                "immutable": immutable, field: { "password": "secret" },
            })
        };
        let all = at(&scene, "v1", resource);
        let words = ["422", "set immutable", hashed];
        refused(&user, "POST", &all, &object(hashed, false), &words).await;
        for allowed in [object(hashed, true), object("settings", false)] {
            tried(&user, "POST", &all, &allowed).await.unwrap();
        }
    }

    // A Rollout from before the label works on, until its template is edited.
    let own = path(&scene, "rollouts/shop");
    let larger = json!({ "spec": { "replicas": 5 } });
    tried(&user, "PATCH", &own, &larger).await.unwrap();
    tried(&user, "PATCH", &own, &app.version("v2").manifest())
        .await
        .unwrap();
}
