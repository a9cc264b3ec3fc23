//! Sign-offs count only while the admission policies are as installed.

use std::time::{Duration, Instant};

use super::*;
use crate::identity::installed;

/// The policies that prove who wrote an object; the others are compared once a minute.
const PROOF: [&str; 7] = [
    "changed-by",
    "controller-only",
    "exact-change",
    "intervention",
    "separate-duties",
    "sign-off",
    "stamped",
];

/// A binding as it was, and whether it was deleted or altered since.
struct Disturbed {
    path: String,
    before: Value,
    deleted: bool,
}

impl Disturbed {
    async fn new(admin: &User, path: String, deleted: bool) -> Self {
        let before = admin.get(&path).await.unwrap();
        if deleted {
            admin.delete(&path).await.unwrap();
        } else {
            let audit = json!({ "spec": { "validationActions": ["Audit"] } });
            admin.merge(&path, &audit).await.unwrap();
        }
        Self {
            path,
            before,
            deleted,
        }
    }

    async fn put_back(&self, admin: &User) {
        if self.deleted {
            make_again(admin, &self.path, &self.before).await;
        } else {
            let before = json!({ "spec": self.before["spec"] });
            admin.merge(&self.path, &before).await.unwrap();
        }
    }

    /// What the operator reports of it.
    fn problem(&self) -> String {
        let what = if self.deleted { "missing" } else { "not what" };
        let name = self.before["metadata"]["name"].as_str().unwrap();
        format!("ValidatingAdmissionPolicyBinding {name} is {what}")
    }
}

/// The bindings of the policies that prove no author.
fn others() -> Vec<String> {
    let files = installed::files().into_iter();
    let bindings = files.filter(|it| it["kind"] == "ValidatingAdmissionPolicyBinding");
    let is_proof = |it: &Value| {
        let name = it["metadata"]["name"].as_str().unwrap();
        PROOF.contains(&name.trim_end_matches(".countersign.dev"))
    };
    let others = bindings.filter(|it| !is_proof(it));
    others.map(|it| installed::path(&it)).collect()
}

/// Creates a deleted object as it was.
async fn make_again(admin: &User, path: &str, kept: &Value) {
    let metadata = &kept["metadata"];
    let object = json!({
        "apiVersion": kept["apiVersion"], "kind": kept["kind"], "spec": kept["spec"],
        "metadata": {
            "name": metadata["name"], "labels": metadata["labels"], "annotations": metadata["annotations"],
        },
    });
    let (all, _) = path.rsplit_once('/').unwrap();
    admin.create(all, &object).await.unwrap();
}

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

    /// Waits until the operator has reported each of them, and the Rollout that no sign-off counts.
    async fn are_named(&self, all: &[Disturbed]) {
        let began = Instant::now();
        let poll = async || {
            let log = self.scene.cluster.operator_log_tail(500).unwrap();
            let errors = log.lines().filter(|it| it.contains("no sign-off counts"));
            let errors: Vec<_> = errors.collect();
            let problems = all.iter().map(Disturbed::problem);
            let unnamed: Vec<_> = problems
                .filter(|it| !errors.iter().any(|line| line.contains(it)))
                .collect();
            unnamed.is_empty().then_some(()).ok_or(unnamed.join(", "))
        };
        wait_for("all are named", TIMEOUT, poll).await.unwrap();
        let unproven = |rollout: &Rollout| {
            let proven = condition(rollout, "SignOffsProven");
            proven.is_some_and(|(_, reason, message)| {
                reason == "Unproven" && all.iter().any(|it| message.contains(&it.problem()))
            })
        };
        let what = "the Rollout names one";
        self.scene.until(&self.app, what, unproven).await;
        // A minute, what it takes to alter them all, and what a loaded machine needs.
        let took = began.elapsed();
        assert!(took < Duration::from_secs(100), "it took {took:?}");
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
#[ignore = "make e2e-alone runs it"]
async fn a_deleted_admission_policy_makes_sign_offs_count_for_nothing() {
    let delete = async |admin: &User| {
        admin.delete(POLICY).await.unwrap();
    };
    let undo = async |admin: &User, kept: &Value| make_again(admin, POLICY, kept).await;
    proves_nothing("deleted", POLICY, delete, undo).await;
}

#[tokio::test]
#[ignore = "make e2e-alone runs it"]
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

#[tokio::test]
#[ignore = "make e2e-alone runs it"]
async fn whatever_policy_is_altered_or_deleted_is_named() {
    let people = json!({ "promotionSignOff": [{ "count": 1, "groups": ["approvers"] }] });
    let tiers = json!({ "low": people, "medium": people, "high": people, "critical": people });
    let scene = Scene::alone("others").await;
    let mut checkpoint = Checkpoint::at(scene, json!({ "tiers": tiers })).await;
    let _load = checkpoint.scene.load(&checkpoint.app, 50).await;
    let next = checkpoint.baking("v2");
    checkpoint.deploy(&next).await;
    let proven = |rollout: &Rollout| {
        let proven = condition(rollout, "SignOffsProven");
        proven.is_some_and(|(status, _, _)| status == "True")
    };
    let what = "sign-offs are proven";
    checkpoint.scene.until(&next, what, proven).await;
    // Each is deleted in one round and altered in the other. The second follows at once: while something is wrong, the
    // policies are compared every ten seconds.
    for round in 0..2 {
        let mut all = Vec::new();
        for (index, path) in others().into_iter().enumerate() {
            all.push(Disturbed::new(&checkpoint.admin, path, index % 2 == round).await);
        }
        assert!(all.len() >= 10, "{} of them", all.len());
        let story = AssertUnwindSafe(checkpoint.are_named(&all))
            .catch_unwind()
            .await;
        for disturbed in &all {
            disturbed.put_back(&checkpoint.admin).await;
        }
        story.unwrap_or_else(|panic| resume_unwind(panic));
    }
    checkpoint.scene.until(&next, what, proven).await;
    checkpoint.scene.remove_policy().await;
}
