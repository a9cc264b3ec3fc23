//! Records of changes that a team would rather not have.

use countersign_api::rollout::Outcome;
use countersign_api::{
    DELETED_AT_ANNOTATION, KEEP_FOR_LABEL, Phase, ROLLOUT_LABEL, Rollout, RolloutRun,
};
use countersign_cluster::wait_for;
use kube::ResourceExt;
use serde_json::json;

use super::editor;
use crate::identity::user::{assert_refused, path, until_enforced};
use crate::support::{App, Scene, TIMEOUT, ended, phase};

/// Finding F11: `revisionHistoryLimit` belongs to those whom the records accuse.
#[tokio::test]
async fn a_team_that_keeps_no_history_does_not_lose_the_record_of_its_rollback() {
    let scene = Scene::new("no-history").await;
    until_enforced(&scene).await;
    scene.policy(json!({ "history": { "runs": 10 } })).await;
    let app = scene.serving(App::new("shop")).await;
    let _load = scene.load(&app, 200).await;
    let bad = app.version("v2").failing(0.4);
    scene.apply(&bad).await;
    let degraded = |it: &Rollout| phase(it) == Phase::Degraded;
    scene.until(&bad, "it is rolled back", degraded).await;
    let rejected = scene.outcome(&bad).await;
    assert!(ended(&rejected, Outcome::RolledBack));

    let user = editor(&scene).await;
    let own = path(&scene, "rollouts/shop");
    let nothing = json!({ "spec": { "revisionHistoryLimit": 0 } });
    user.merge(&own, &nothing).await.unwrap();
    let fix = app.version("v3");
    scene
        .apply(&fix.spec(json!({ "revisionHistoryLimit": 0 })))
        .await;
    let promoted = |it: &Rollout| {
        let status = it.status.as_ref();
        phase(it) == Phase::Stable && status.is_some_and(|it| it.revision == 3)
    };
    let after = scene.until(&fix, "the next one is promoted", promoted);
    let after = after.await.status.unwrap();
    assert!(after.last_rollback_at.is_some());
    let left = scene.records(&app).await;
    let kept = |it: &RolloutRun| it.name_any() == rejected.name_any();
    assert!(left.iter().any(kept), "{left:?}");
    scene.remove_policy().await;
}

#[tokio::test]
#[ignore = "make e2e-alone runs it"]
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

    // Its time begins when a leader finds the Rollout deleted.
    scene.cluster.kill_operator().await.unwrap();
    let poll = async || {
        let record = scene.records(&app).await.pop()?;
        let annotations = record.annotations();
        annotations
            .contains_key(DELETED_AT_ANNOTATION)
            .then_some(())
    };
    wait_for("the time of the record begins", TIMEOUT, poll)
        .await
        .unwrap();
    let poll = async || {
        let left = scene.records(&app).await.len();
        (left == 0).then_some(()).ok_or(left)
    };
    wait_for("the record is removed", TIMEOUT, poll)
        .await
        .unwrap();
    scene.remove_policy().await;
}
