//! How large an Intervention may be, and when it goes.

use countersign_api::Rollout;
use countersign_cluster::wait_for;
use serde_json::{Value, json};

use super::{editor, owner, refused, serving, tried};
use crate::identity::installed;
use crate::identity::user::{APPLY, User, path, until_enforced};
use crate::support::{App, Scene, TIMEOUT};

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

    // Another owner of the same uid does not take its place.
    let foreign = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "shop", "uid": rollout.metadata.uid });
    let foreign = json!({ "name": "foreign", "ownerReferences": [foreign] });
    let made = tried(&user, "POST", &all, &pause(&rollout, foreign)).await;
    let owner = &made.unwrap()["metadata"]["ownerReferences"][1];
    assert_eq!(owner["kind"], "Rollout");

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

/// Before Kubernetes 1.36 no API server does.
#[tokio::test]
#[ignore = "make e2e-alone runs it"]
async fn an_owner_is_demanded_where_the_api_server_fills_in_none() {
    let scene = Scene::alone("unowned").await;
    until_enforced(&scene).await;
    let app = scene.serving(App::new("shop")).await;
    let user = editor(&scene).await;
    let (_, rollout) = scene.baking(&app).await;
    let (admin, all) = (User::admin(&scene), path(&scene, "interventions"));
    let owned_by = |owners: Value| {
        let metadata = json!({ "name": "owned", "ownerReferences": owners });
        let mut pause = pause(&rollout, metadata);
        pause["spec"]["person"] = json!({ "username": user.name });
        pause
    };
    let own = owner(&scene, &app).await;
    let (mut other, mut foreign) = (own.clone(), own.clone());
    other["name"] = "other".into();
    foreign["apiVersion"] = "argoproj.io/v1alpha1".into();
    let owned = owned_by(json!([own]));
    // The API server's policies observe the change a moment later.
    let poll = async || tried(&user, "POST", &all, &owned).await;
    wait_for("the policies know the change", TIMEOUT, poll)
        .await
        .unwrap();

    let is_binding = |file: &Value| {
        file["kind"] == "MutatingAdmissionPolicyBinding"
            && file["metadata"]["name"] == "person.countersign.dev"
    };
    let binding = installed::files().into_iter().find(is_binding).unwrap();
    let at = installed::path(&binding);
    admin.delete(&at).await.unwrap();
    let words = ["422", "metadata.ownerReferences: name Rollout", "/shop of"];
    for owners in [json!([]), json!([other]), json!([foreign])] {
        refused(&user, "POST", &all, &owned_by(owners), &words).await;
    }
    let made = tried(&user, "POST", &all, &owned).await;
    let apply = format!("{at}?fieldManager=test&force=true");
    admin.send("PATCH", &apply, APPLY, &binding).await.unwrap();
    made.unwrap();
    let unowned = owned_by(json!([]));
    let poll = async || tried(&user, "POST", &all, &unowned).await;
    wait_for("the owner is filled in again", TIMEOUT, poll)
        .await
        .unwrap();
}
