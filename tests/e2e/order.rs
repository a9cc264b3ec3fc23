//! The order of changes of several Rollouts: dependencies and concurrency limits.

use countersign_api::rollout::Outcome;
use countersign_api::{Phase, Rollout};
use serde_json::json;

use crate::sign_off::line;
use crate::support::{App, Scene, ended, phase, risky, waits_for};

fn has_message(rollout: &Rollout, words: &str) -> bool {
    let status = rollout.status.as_ref();
    status.is_some_and(|status| status.message.contains(words))
}

/// Whether a change has taken its first step.
fn has_begun(rollout: &Rollout) -> bool {
    let status = rollout.status.as_ref();
    let change = status.and_then(|status| status.change.as_ref());
    change.is_some_and(|change| change.step >= 1 && change.outcome.is_none())
}

fn small(name: &str) -> App {
    App {
        replicas: 2,
        checks: false,
        ..App::new(name)
    }
}

#[tokio::test]
async fn a_client_waits_for_its_server() {
    let scene = Scene::new("depends").await;
    let depends = json!({ "dependsOn": ["server"] });
    let client = small("client").spec(depends);
    scene.apply(&client).await;
    let rollout = scene
        .until(&client, "its first revision waits", |rollout| {
            waits_for(rollout, "AwaitingDependency")
                && has_message(rollout, "Rollout server does not exist")
        })
        .await;
    assert_eq!(rollout.status.unwrap().replicas, 0, "it has no pods yet");
    let server = scene.serving(small("server")).await;
    scene
        .until(&client, "it serves after its server", |rollout| {
            phase(rollout) == Phase::Stable
        })
        .await;

    let slow = json!({ "strategy": { "canary": { "steps": [{ "weight": 50, "bake": "8s" }] } } });
    scene.apply(&server.version("v2").spec(slow)).await;
    scene.apply(&client.version("v2")).await;
    scene
        .until(&client, "its change waits", |rollout| {
            waits_for(rollout, "AwaitingDependency") && has_message(rollout, "Rollout server")
        })
        .await;
    let after = scene.outcome(&client).await;
    let before = scene.outcome(&server).await;
    assert!(ended(&before, Outcome::Promoted) && ended(&after, Outcome::Promoted));
    let began = line(&after, "StepStarted").at.clone().unwrap();
    assert!(before.spec.progress.ended_at.unwrap().0 <= began.0);
}

#[tokio::test]
async fn rollouts_that_depend_on_each_other_are_named() {
    let scene = Scene::new("circle").await;
    let [a, b] =
        [("a", "b"), ("b", "a")].map(|(name, on)| small(name).spec(json!({ "dependsOn": [on] })));
    scene.apply(&a).await;
    scene.apply(&b).await;
    for (app, words) in [(&a, "is a cycle: a, b, a"), (&b, "is a cycle: b, a, b")] {
        scene
            .until(app, "the circle is named", |rollout| {
                waits_for(rollout, "AwaitingDependency") && has_message(rollout, words)
            })
            .await;
    }
    // Once one of them is released, both proceed.
    scene.apply(&small("a")).await;
    for app in [&a, &b] {
        scene
            .until(app, "it serves", |rollout| phase(rollout) == Phase::Stable)
            .await;
    }
}

#[tokio::test]
async fn of_two_risky_changes_the_second_waits_for_its_turn() {
    let scene = Scene::new("turns").await;
    let mut apps = Vec::new();
    for name in ["login", "cart", "web"] {
        apps.push(scene.serving(small(name)).await);
    }
    let [login, cart, web] = <[App; 3]>::try_from(apps).unwrap();
    let limit = json!({ "concurrency": { "fromTier": "high", "perNamespace": 1 } });
    scene.policy(limit).await;
    // Its first step has no evidence, so it stays there.
    let patient = |app: &App| {
        let spec = json!({ "progressDeadlineSeconds": 600 });
        app.version("v2").provenance(risky()).spec(spec)
    };
    scene.apply(&patient(&login)).await;
    scene.until(&login, "the first one begins", has_begun).await;

    scene.apply(&patient(&cart)).await;
    let words = format!(
        "place 1 in the queue: policy {0} allows 1 change of tier high or above at once in this namespace; under way: {0}/login",
        scene.namespace
    );
    let rollout = scene
        .until(&cart, "the second one waits", |rollout| {
            waits_for(rollout, "Queued") && has_message(rollout, &words)
        })
        .await;
    let status = rollout.status.unwrap();
    assert_eq!(status.replicas, 2, "it has no canary");
    assert!(status.change.unwrap().queued_at.is_some());
    // A harmless change does not wait.
    scene.apply(&web.version("v2")).await;
    scene.outcome(&web).await;

    scene.apply(&login).await; // back to what is stable
    let rollout = scene.until(&cart, "its place is free", has_begun).await;
    assert_eq!(rollout.status.unwrap().change.unwrap().queued_at, None);
    scene.remove_policy().await;
}
