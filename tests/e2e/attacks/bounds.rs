//! How large an Intervention may be, and when it goes.

use countersign_api::Rollout;
use countersign_cluster::wait_for;
use serde_json::{Value, json};

use super::{editor, refused, serving};
use crate::identity::user::{User, path};
use crate::support::TIMEOUT;

/// A command on the change under way, with this metadata.
fn pause(rollout: &Rollout, metadata: Value) -> Value {
    let status = rollout.status.as_ref().unwrap();
    let change = status.change.as_ref().unwrap();
    json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "Intervention", "metadata": metadata,
        "spec": {
            "rollout": rollout.metadata.name, "rolloutUid": rollout.metadata.uid,
            "run": change.run, "digest": change.digest, "action": "Pause",
        },
    })
}

/// Waits until these Interventions are left, by name.
async fn left(user: &User, path: &str, expected: &[&str]) {
    let poll = async || {
        let found = user
            .get(path)
            .await
            .map_err(|refusal| refusal.to_string())?;
        let items = found["items"].as_array().unwrap();
        let names: Vec<_> = items
            .iter()
            .map(|it| it["metadata"]["name"].as_str().unwrap())
            .collect();
        if names == expected {
            Ok(())
        } else {
            Err(format!("{names:?}"))
        }
    };
    let what = format!("{expected:?} is left of {path}");
    wait_for(&what, TIMEOUT, poll).await.unwrap();
}

#[tokio::test]
async fn an_intervention_is_small_and_goes_with_its_rollout() {
    let (scene, app) = serving("bounds").await;
    let user = editor(&scene).await;
    let (_, rollout) = scene.baking(&app).await;
    let all = path(&scene, "interventions");
    let small = pause(
        &rollout,
        json!({ "name": "small", "annotations": { "note": "seen" } }),
    );
    // The API server's policies observe the change a moment later.
    let poll = async || user.create(&all, &small).await;
    let made = wait_for("an intervention is made", TIMEOUT, poll).await;
    let owner = &made.unwrap()["metadata"]["ownerReferences"][0];
    assert_eq!(owner["uid"], json!(rollout.metadata.uid));
    assert_eq!(owner["name"], "shop");

    let long = json!({ "name": "long", "annotations": { "note": "x".repeat(5_000) } });
    let words = ["422", "at most 4096 characters"];
    refused(&user, "POST", &all, &pause(&rollout, long), &words).await;
    let labels = (0..20).map(|number| (format!("label-{number}"), json!("x")));
    let labels: serde_json::Map<_, _> = labels.collect();
    let many = json!({ "name": "many", "labels": labels });
    let words = ["422", "at most 16 labels"];
    refused(&user, "POST", &all, &pause(&rollout, many), &words).await;

    // One of a Rollout that does not exist is found by no selector, and is collected.
    let mut stray = pause(&rollout, json!({ "name": "stray" }));
    (stray["spec"]["rollout"], stray["spec"]["rolloutUid"]) = (json!("none"), json!("none"));
    user.create(&all, &stray).await.unwrap();
    let uid = rollout.metadata.uid.as_deref().unwrap();
    let own = format!("{all}?fieldSelector=spec.rolloutUid%3D{uid}");
    left(&user, &own, &["small"]).await;
    left(&user, &all, &["small"]).await;

    user.delete(&path(&scene, "rollouts/shop")).await.unwrap();
    left(&user, &all, &[]).await;
}
