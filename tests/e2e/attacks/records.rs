//! Records of changes that a team would rather not have.

use countersign_api::{KEEP_FOR_LABEL, ROLLOUT_LABEL};
use countersign_cluster::wait_for;
use kube::ResourceExt;
use serde_json::json;

use super::editor;
use crate::identity::user::{assert_refused, path, until_enforced};
use crate::support::{App, Scene, TIMEOUT};

#[tokio::test]
async fn a_record_outlives_its_rollout_for_as_long_as_a_policy_says() {
    let scene = Scene::alone("records").await;
    until_enforced(&scene).await;
    scene
        .policy(json!({ "history": { "keepFor": "1s" } }))
        .await;
    let app = scene.serving(App::new("shop")).await;
    let poll = async || scene.records(&app).await.pop();
    let record = wait_for("a record", TIMEOUT, poll).await.unwrap();
    assert!(record.owner_references().is_empty());
    assert_eq!(record.labels()[ROLLOUT_LABEL], "shop");
    assert_eq!(record.labels()[KEEP_FOR_LABEL], "1s");

    let user = editor(&scene).await;
    let own = path(&scene, &format!("rolloutruns/{}", record.name_any()));
    let words = ["403", "\"rolloutruns\""];
    assert_refused(&user.delete(&own).await, &words);
    user.delete(&path(&scene, "rollouts/shop")).await.unwrap();
    let poll = async || {
        let rollout = scene.rollouts().get_opt(&app.name).await;
        let gone = rollout.is_ok_and(|it| it.is_none());
        gone.then_some(())
    };
    wait_for("the Rollout is gone", TIMEOUT, poll)
        .await
        .unwrap();
    assert_eq!(scene.records(&app).await.len(), 1);

    // A new leader removes those whose time is over.
    scene.cluster.kill_operator().await.unwrap();
    let poll = async || {
        let left = scene.records(&app).await.len();
        (left == 0).then_some(()).ok_or(left)
    };
    wait_for("the record is removed", TIMEOUT, poll)
        .await
        .unwrap();
    scene.remove_policy().await;
}
