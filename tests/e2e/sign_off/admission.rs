//! Sign-offs count only while the admission policies are as installed.

use super::*;

impl Checkpoint {
    /// Carol signs in bob's name as soon as the API server permits it; the sign-off does not count.
    async fn is_forged(&self) -> Value {
        let in_bobs_name = json!({ "approver": { "username": "bob", "groups": ["approvers"] } });
        let poll = async || self.approve(&self.carol, in_bobs_name.clone()).await;
        let forged = wait_for("a sign-off is forged", TIMEOUT, poll)
            .await
            .unwrap();
        assert_eq!(forged["spec"]["approver"]["username"], "bob");
        self.answered(&forged, "Unproven").await;

        let rollout = self.scene.get(&self.app).await;
        let (proven, reason, message) = condition(&rollout, "SignOffsProven").unwrap();
        assert_eq!((proven, reason), ("False", "Unproven"));
        assert!(message.contains("sign-off.countersign.dev"), "{message}");
        let message = self.waits("AwaitingSignOff").await;
        assert!(message.contains("no sign-off counts now"), "{message}");
        let log = self.scene.cluster.operator_log_tail(200).unwrap();
        let logged = |line: &str| line.contains("no sign-off counts") && line.contains("ERROR");
        assert!(log.lines().any(logged), "{log}");
        later(1).await;
        forged
    }

    /// Waits until nobody can sign in another's name.
    async fn until_forgeries_are_refused(&self) {
        let in_bobs_name = json!({ "approver": { "username": "bob" } });
        let refused = self.until_refused(&self.carol, &in_bobs_name).await;
        assert_refused(&refused, &["403", "you are \"carol\""]);
    }
}

/// A sign-off made while an admission object is altered does not count, even after its restoration, which
/// happens even if the test fails.
async fn proves_nothing(
    name: &str,
    object: &str,
    tamper: impl AsyncFnOnce(&User),
    put_back: impl AsyncFnOnce(&User, &Value),
) {
    let mut checkpoint = Checkpoint::at(Scene::alone(name).await, requiring(1, &nobody())).await;
    let next = checkpoint.risky("v2");
    checkpoint.deploy(&next).await;
    checkpoint
        .until_message("gate step-1 requires 1 person")
        .await;
    checkpoint.until_forgeries_are_refused().await;

    let kept = checkpoint.admin.get(object).await.unwrap();
    tamper(&checkpoint.admin).await;
    let story = AssertUnwindSafe(checkpoint.is_forged())
        .catch_unwind()
        .await;
    put_back(&checkpoint.admin, &kept).await;
    checkpoint.until_forgeries_are_refused().await;
    let forged = story.unwrap_or_else(|panic| resume_unwind(panic));

    // A policy counts as enforced five seconds after it was written.
    later(7).await;
    let signed = checkpoint.approve(&checkpoint.bob, json!({})).await;
    checkpoint.answered(&signed.unwrap(), "Counts").await;
    checkpoint.answered(&forged, "Unproven").await;
    let run = checkpoint.scene.records(&next).await.pop().unwrap();
    let message = &line(&run, "SignedOff").message;
    assert_eq!(message, "all gates signed off by bob: looks good");
    checkpoint.scene.remove_policy().await;
}

#[tokio::test]
async fn a_deleted_admission_policy_makes_sign_offs_count_for_nothing() {
    let delete = async |admin: &User| {
        admin.delete(POLICY).await.unwrap();
    };
    let make_again = async |admin: &User, kept: &Value| {
        let metadata = &kept["metadata"];
        let policy = json!({
            "apiVersion": kept["apiVersion"], "kind": kept["kind"], "spec": kept["spec"],
            "metadata": {
                "name": metadata["name"], "labels": metadata["labels"], "annotations": metadata["annotations"],
            },
        });
        let (all, _) = POLICY.rsplit_once('/').unwrap();
        admin.create(all, &policy).await.unwrap();
    };
    proves_nothing("deleted", POLICY, delete, make_again).await;
}

#[tokio::test]
async fn an_altered_admission_policy_makes_sign_offs_count_for_nothing() {
    let alter = async |admin: &User| {
        let audit = json!({ "spec": { "validationActions": ["Audit"] } });
        admin.merge(BINDING, &audit).await.unwrap();
    };
    let undo = async |admin: &User, kept: &Value| {
        let before = json!({ "spec": kept["spec"] });
        admin.merge(BINDING, &before).await.unwrap();
    };
    proves_nothing("altered", BINDING, alter, undo).await;
}
