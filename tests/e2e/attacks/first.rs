//! First revisions: of a new Rollout, and of one that was deleted and made again.

use countersign_api::rollout::Outcome;
use countersign_api::{Phase, Rollout};

use super::*;
use crate::identity::user::path;
use crate::support::{ended, phase, waits_for};

/// Applies an application that is new; returns once its first revision waits for people, without any pod. It is
/// paused until the operator knows the policy.
async fn until_people_are_awaited(scene: &Scene, app: &App) -> Rollout {
    let paused = app.spec(json!({ "paused": true }));
    scene.apply(&paused).await;
    let demanded = |it: &Rollout| {
        let change = it.status.as_ref().and_then(|it| it.change.as_ref());
        change.is_some_and(|it| !it.plan.first_revision.is_empty())
    };
    scene.until(app, "the policy is known", demanded).await;
    scene.apply(&app.spec(json!({ "paused": false }))).await;
    let waiting = scene
        .until(app, "its first revision waits for people", |it| {
            waits_for(it, "AwaitingSignOff")
        })
        .await;
    let status = waiting.status.as_ref().unwrap();
    let change = status.change.as_ref().unwrap();
    assert!(change.initial && status.stable.is_none(), "{change:?}");
    assert_eq!(scene.pods(&change.pod_template_hash).await, 0);
    waiting
}

/// Bob approves the first revision, once the API server knows it.
async fn approve(scene: &Scene, rollout: &Rollout) {
    scene.grant("bob", "countersign-approver").await;
    let bob = User::known(scene, "bob").await;
    let change = rollout.status.as_ref().unwrap().change.as_ref().unwrap();
    let sign_off = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "SignOff", "metadata": { "generateName": "shop-" },
        "spec": {
            "rollout": rollout.metadata.name, "rolloutUid": rollout.metadata.uid, "run": change.run,
            "digest": change.digest, "decision": "Approve", "gate": "first-revision",
        },
    });
    let all = path(scene, "signoffs");
    let poll = async || bob.create(&all, &sign_off).await;
    wait_for("the API server knows the change", TIMEOUT, poll)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_first_revision_has_no_pod_before_its_people_have_signed() {
    let scene = Scene::new("first-signed").await;
    until_enforced(&scene).await;
    let demand = json!([{ "count": 1, "groups": ["approvers"] }]);
    scene
        .policy(json!({ "firstRevision": { "signOff": demand } }))
        .await;
    let app = App::new("shop");
    let waiting = until_people_are_awaited(&scene, &app).await;
    approve(&scene, &waiting).await;
    scene
        .until(&app, "it is stable", |it| phase(it) == Phase::Stable)
        .await;
    scene.remove_policy().await;
}

/// Finding F4, as its team does it: no policy has to say how long records are kept.
#[tokio::test]
async fn a_rollout_that_its_team_deletes_and_makes_again_has_no_pod_before_people_have_signed() {
    let scene = Scene::new("deleted").await;
    until_enforced(&scene).await;
    let demand = json!([{ "count": 1, "groups": ["approvers"] }]);
    scene
        .policy(json!({ "tiers": { "low": { "signOff": demand } } }))
        .await;
    let app = scene.serving(App::new("shop")).await;
    let poll = async || {
        let record = scene.records(&app).await.pop()?;
        ended(&record, Outcome::Promoted).then_some(())
    };
    wait_for("the first revision is recorded", TIMEOUT, poll)
        .await
        .unwrap();
    let (user, own) = (editor(&scene).await, path(&scene, "rollouts/shop"));
    user.delete(&own).await.unwrap();
    let poll = async || user.get(&own).await.err();
    let gone = wait_for("the Rollout is gone", TIMEOUT, poll).await;
    assert_refused(&Err(gone.unwrap()), &["404"]);

    let evil = app.version("evil");
    let waiting = until_people_are_awaited(&scene, &evil).await;
    let status = waiting.status.unwrap();
    assert!(status.change.unwrap().made_again);
    scene.remove_policy().await;
}

/// Finding F4: deleting a Rollout and making it again with another image passed all gates.
#[tokio::test]
async fn a_rollout_that_is_made_again_with_another_template_waits_as_its_changes_do() {
    let scene = Scene::new("made-again").await;
    until_enforced(&scene).await;
    let demand = json!([{ "count": 1, "groups": ["approvers"] }]);
    scene
        .policy(json!({ "tiers": { "low": { "signOff": demand } } }))
        .await;
    let app = App::new("shop");
    // The record that a deleted Rollout of this name has left.
    let former = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutRun",
        "metadata": { "name": "shop-former-1", "labels": {
            "countersign.dev/rollout-uid": "former", "countersign.dev/rollout": "shop",
        } },
        "spec": {
            "rollout": "shop", "digest": "f".repeat(64), "podTemplateHash": "former", "revision": 1,
            "templateDigest": "f".repeat(64),
            "progress": { "outcome": "Promoted", "endedAt": "2026-01-01T00:00:00Z" },
        },
    });
    let admin = User::admin(&scene);
    let runs = path(&scene, "rolloutruns");
    admin.create(&runs, &former).await.unwrap();
    let cached = format!("{runs}?resourceVersion=0");
    let poll = async || {
        let runs = admin.get(&cached).await.unwrap();
        (!runs["items"].as_array().unwrap().is_empty()).then_some(())
    };
    wait_for("the API server's cache has the record", TIMEOUT, poll)
        .await
        .unwrap();
    let waiting = until_people_are_awaited(&scene, &app).await;
    assert!(
        waiting
            .status
            .as_ref()
            .unwrap()
            .change
            .as_ref()
            .unwrap()
            .made_again
    );
    approve(&scene, &waiting).await;
    scene
        .until(&app, "it is stable", |it| phase(it) == Phase::Stable)
        .await;
    let labelled = format!("{runs}?labelSelector=countersign.dev%2Frollout%3Dshop");
    let records = admin.get(&labelled).await.unwrap();
    let records = records["items"].as_array().unwrap().len();
    assert_eq!(
        records, 2,
        "the record of the new one is found by its name, too"
    );
    scene.remove_policy().await;
}
