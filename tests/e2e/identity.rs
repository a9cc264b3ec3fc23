//! Authorization by the API server itself: sign-offs, interventions, freezes, the operator's statuses,
//! and the roles of the chart.

mod freeze;
pub mod installed;
mod intervention;
mod roles;
mod sign_off;
mod stamp;
pub mod user;

use countersign_cluster::wait_for;
use serde_json::{Value, json};

use crate::support::{App, Scene, TIMEOUT, merge, risky};
use user::{Answer, User, path, until_enforced};

/// A scene in which the policies are enforced.
async fn enforced(name: &str) -> Scene {
    let scene = Scene::new(name).await;
    until_enforced(&scene).await;
    scene
}

/// A Rollout with a risky change in progress, and the fields that identify it in a decision.
struct Pending {
    scene: Scene,
    app: App,
    change: Value,
}

impl Pending {
    async fn new(name: &str) -> Self {
        let scene = enforced(name).await;
        let mut app = App::new("shop");
        app.replicas = 1;
        let app = scene.serving(app).await;
        let mut pending = Self {
            scene,
            app,
            change: Value::Null,
        };
        pending.change_to("v2").await;
        pending
    }

    /// Makes another change, and reads it.
    async fn change_to(&mut self, version: &str) {
        let app = self.app.version(version).provenance(risky());
        let before = self.change["digest"].clone();
        self.scene.apply(&app).await;
        let seen = |rollout: &countersign_api::Rollout| {
            let change = rollout.status.as_ref()?.change.as_ref()?;
            Some(json!({
                "rollout": self.app.name, "rolloutUid": rollout.metadata.uid,
                "run": change.run, "digest": change.digest,
            }))
            .filter(|change| change["digest"] != before)
        };
        let what = "the change is under way";
        let rollout = self
            .scene
            .until(&app, what, |rollout| seen(rollout).is_some())
            .await;
        self.change = seen(&rollout).unwrap();
        // The API server's policies observe it a moment later.
        let admin = User::admin(&self.scene);
        let dry = path(&self.scene, "interventions") + "?dryRun=All";
        let pause = self.decision("Intervention", "probe", json!({ "action": "Pause" }));
        let pause = admin.decision(&self.scene, pause).await;
        let poll = async || admin.create(&dry, &pause).await;
        wait_for("the policies know the change", TIMEOUT, poll)
            .await
            .unwrap();
    }

    /// A sign-off on the change, with these spec fields overridden.
    async fn sign(&self, user: &User, name: &str, words: Value) -> Answer {
        let words = with(json!({ "decision": "Approve" }), words);
        self.decide(user, "SignOff", name, words).await
    }

    /// An intervention in the change, with these spec fields overridden.
    async fn intervene(&self, user: &User, name: &str, words: Value) -> Answer {
        self.decide(user, "Intervention", name, words).await
    }

    async fn decide(&self, user: &User, kind: &str, name: &str, words: Value) -> Answer {
        let resource = format!("{}s", kind.to_lowercase());
        let object = self.decision(kind, name, words);
        let object = user.decision(&self.scene, object).await;
        user.create(&path(&self.scene, &resource), &object).await
    }

    fn decision(&self, kind: &str, name: &str, words: Value) -> Value {
        json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": kind, "metadata": { "name": name },
            "spec": with(self.change.clone(), words),
        })
    }
}

/// One value with another one merged into it.
fn with(value: Value, other: Value) -> Value {
    let mut whole = json!({});
    for part in [value, other] {
        merge(&mut whole, &part);
    }
    whole
}
