//! Attempts on what belongs to a Rollout and on how its changes are approved, by a user with the built-in role
//! `edit`, a `ServiceAccount` with it, or the operator's token. The API server refuses them, and ordinary work
//! continues.

mod attestation;
mod beside;
mod bounds;
mod change;
mod content;
mod deletion;
mod duties;
mod first;
mod operator;
mod owned;
mod pods;
mod provenance;
mod records;
mod scale;
mod status;
mod tampered;
mod traffic;

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;

use countersign_cluster::wait_for;
use futures::FutureExt as _;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::identity::user::{Answer, JSON, User, assert_refused, until_enforced};
use crate::support::{App, Scene, TIMEOUT};

const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
const OPERATOR: &str = "system:serviceaccount:countersign-system:countersign";

/// A scene in which the policies are enforced, and an application that serves there.
async fn serving(name: &str) -> (Scene, App) {
    let scene = Scene::new(name).await;
    until_enforced(&scene).await;
    let app = scene.serving(App::new("shop")).await;
    (scene, app)
}

/// A user of the service team, with the built-in role `edit`.
async fn editor(scene: &Scene) -> User {
    let name = format!("editor-of-{}", scene.namespace);
    scene.grant(&name, "edit").await;
    User::impersonated(scene, &name, &["service-team".to_owned()]).await
}

/// An agent's `ServiceAccount`, with the same role.
async fn agent(scene: &Scene) -> User {
    let agent = User::service_account(scene, "agent").await;
    scene.grant(&agent.name, "edit").await;
    agent
}

/// Grants verbs on a resource to a user; returns once they are in force.
async fn allow(scene: &Scene, user: &User, group: &str, resource: &str, verbs: &[&str]) {
    let rule = json!({ "apiGroups": [group], "resources": [resource], "verbs": verbs });
    scene.grant_rules(&user.name, json!([rule])).await;
}

/// Labels the scene's namespace, as a platform team does.
async fn label(scene: &Scene, name: &str, value: &str) {
    let labels = json!({ "metadata": { "labels": { name: value } } });
    let namespace = format!("/api/v1/namespaces/{}", scene.namespace);
    let admin = User::admin(scene);
    admin.merge(&namespace, &labels).await.unwrap();
}

/// The specs of the bindings whose policies refuse nothing now, and how many stories need that.
static LIFTED: Mutex<BTreeMap<String, (Value, usize)>> = Mutex::const_new(BTreeMap::new());

/// Runs a story while these policies refuse nothing. They are restored afterwards, even if the story fails; the result
/// is its panic. The scene has to be alone, or beside others that do without the same policies.
async fn unenforced(
    scene: &Scene,
    policies: &[&str],
    story: impl AsyncFnOnce(),
) -> Result<(), Box<dyn Any + Send>> {
    let admin = User::admin(scene);
    let bindings = policies.iter();
    let bindings: Vec<_> = bindings
        .map(|it| format!("{BINDINGS}/{it}.countersign.dev"))
        .collect();
    for binding in &bindings {
        lift(&admin, binding).await;
    }
    let result = AssertUnwindSafe(story()).catch_unwind().await;
    for binding in &bindings {
        restore(&admin, binding).await;
    }
    result
}

async fn lift(admin: &User, binding: &str) {
    let mut lifted = LIFTED.lock().await;
    if let Some((_, stories)) = lifted.get_mut(binding) {
        *stories += 1;
        return;
    }
    let spec = admin.get(binding).await.unwrap()["spec"].clone();
    let audit = json!({ "spec": { "validationActions": ["Audit"] } });
    admin.merge(binding, &audit).await.unwrap();
    lifted.insert(binding.to_owned(), (spec, 1));
}

/// Puts a binding back once no story needs its policy to refuse nothing.
async fn restore(admin: &User, binding: &str) {
    let mut lifted = LIFTED.lock().await;
    let Some((spec, stories)) = lifted.get_mut(binding) else {
        return;
    };
    *stories -= 1;
    if *stories == 0 {
        let before = json!({ "spec": spec });
        admin.merge(binding, &before).await.unwrap();
        lifted.remove(binding);
    }
}

/// The path of objects in the scene's namespace.
fn at(scene: &Scene, version: &str, resource: &str) -> String {
    let root = if version.contains('/') { "apis" } else { "api" };
    let namespace = &scene.namespace;
    format!("/{root}/{version}/namespaces/{namespace}/{resource}")
}

/// The ReplicaSet of a scene that has one.
async fn own_set(scene: &Scene) -> Value {
    let sets = at(scene, "apps/v1", "replicasets");
    let sets = User::admin(scene).get(&sets).await.unwrap();
    sets["items"][0].clone()
}

/// The owner reference by which the garbage collector and the operator know what belongs to a Rollout.
async fn owner(scene: &Scene, app: &App) -> Value {
    let uid = scene.get(app).await.metadata.uid;
    json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "Rollout", "name": app.name, "uid": uid,
        "controller": true,
    })
}

/// The response to a request that has no effect.
async fn tried(user: &User, method: &str, path: &str, body: &Value) -> Answer {
    let dry = format!("{path}?dryRun=All");
    match method {
        "DELETE" => {
            let options = json!({ "dryRun": ["All"] });
            user.send(method, path, JSON, &options).await
        }
        "PATCH" => user.merge(&dry, body).await,
        _ => user.send(method, &dry, JSON, body).await,
    }
}

/// Waits until the API server refuses a request, which it does a moment after a policy or a label is there,
/// and asserts these words.
async fn refused(user: &User, method: &str, path: &str, body: &Value, words: &[&str]) {
    let what = format!("{method} {path} by {} is refused: {body}", user.name);
    let poll = async || match tried(user, method, path, body).await {
        Ok(accepted) => Err(accepted),
        refusal => Ok(refusal),
    };
    let answer = wait_for(&what, TIMEOUT, poll).await.unwrap();
    assert_refused(&answer, words);
}
