//! A Rollout in deletion that somebody keeps.

use countersign_api::Rollout;
use countersign_api::rollout::{Outcome, Stage};

use super::*;
use crate::identity::user::path;

/// Finding F14: a finalizer of somebody's own kept the canary's share, as nobody reconciled the Rollout.
#[tokio::test]
async fn a_rollout_in_deletion_that_another_finalizer_keeps_is_rolled_back() {
    let scene = Scene::new("kept-deletion").await;
    let app = scene.serving(App::new("shop")).await;
    let (next, baking) = scene.baking(&app).await;
    let status = baking.status.unwrap();
    let hashes = [
        status.stable.unwrap().pod_template_hash,
        status.change.unwrap().pod_template_hash,
    ];
    assert!(scene.pods(&hashes[1]).await > 0);

    let (admin, own) = (User::admin(&scene), path(&scene, "rollouts/shop"));
    let kept = json!({ "metadata": { "finalizers": ["example.org/keep"] } });
    admin.merge(&own, &kept).await.unwrap();
    admin.delete(&own).await.unwrap();
    let over = |it: &Rollout| {
        let change = it.status.as_ref().and_then(|it| it.change.as_ref());
        change.is_some_and(|it| {
            (it.outcome, it.stage) == (Some(Outcome::RolledBack), Stage::RolledBack)
        })
    };
    let rollout = scene.until(&next, "its change is rolled back", over).await;
    assert!(rollout.metadata.deletion_timestamp.is_some());
    assert_eq!(
        rollout.metadata.finalizers,
        Some(vec!["example.org/keep".into()])
    );
    let pods = (scene.pods(&hashes[0]).await, scene.pods(&hashes[1]).await);
    assert_eq!(pods, (app.replicas, 0));

    let none = json!({ "metadata": { "finalizers": null } });
    admin.merge(&own, &none).await.unwrap();
    let poll = async || match admin.get(&own).await {
        Ok(there) => Err(there.to_string()),
        Err(gone) => Ok(gone),
    };
    let gone = wait_for("it is deleted", TIMEOUT, poll).await.unwrap();
    assert_eq!(gone.code, 404);
}
