//! Separate duties, in a namespace whose label requires them.

use serde_json::json;

use super::{allow, label};
use crate::identity::user::{User, assert_refused};
use crate::sign_off::Checkpoint;

#[tokio::test]
async fn who_may_write_a_rollout_or_act_as_its_accounts_does_not_approve() {
    let mut checkpoint = Checkpoint::new("duties", json!({})).await;
    let next = checkpoint.baking("v2");
    checkpoint.deploy(&next).await;
    let scene = &checkpoint.scene;
    scene.grant("bob", "edit").await;
    let approved = checkpoint.approve(&checkpoint.bob, json!({})).await;
    approved.unwrap();

    label(scene, "countersign.dev/separate-duties", "required").await;
    for decision in ["Approve", "BreakGlass"] {
        let words = json!({ "decision": decision });
        let user = if decision == "Approve" { "bob" } else { "dave" };
        scene.grant(user, "edit").await;
        let user = User::known(scene, user).await;
        let refused = checkpoint.until_refused(&user, &words).await;
        assert_refused(
            &refused,
            &["403", "may write Rollout", "duties are separate"],
        );
    }
    for (resource, verb) in [
        ("serviceaccounts", "impersonate"),
        ("serviceaccounts/token", "create"),
    ] {
        let name = format!("{verb}-of-{}", scene.namespace);
        scene.grant(&name, "countersign-approver").await;
        let user = User::impersonated(scene, &name, &["approvers".to_owned()]).await;
        allow(scene, &user, "", resource, &[verb]).await;
        let refused = checkpoint.until_refused(&user, &json!({})).await;
        let words = ["403", "may act as a ServiceAccount", "duties are separate"];
        assert_refused(&refused, &words);
    }
    let approved = checkpoint.approve(&checkpoint.carol, json!({})).await;
    approved.unwrap();
    let no = json!({ "decision": "Reject", "reason": "it breaks refunds" });
    let rejected = checkpoint.sign(&checkpoint.bob, no).await;
    checkpoint.answered(&rejected.unwrap(), "Counts").await;
    checkpoint.until_degraded().await;
    scene.remove_policy().await;
}
