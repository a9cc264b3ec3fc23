//! Sign-offs: in the user's own name, with the right, by people, on the exact change, immutable.

use countersign_cluster::wait_for;
use serde_json::json;

use super::user::{User, assert_refused, path};
use super::{Pending, enforced};
use crate::support::TIMEOUT;

#[tokio::test]
async fn nobody_signs_in_anothers_name_nor_claims_a_group() {
    let pending = Pending::new("sign-name").await;
    pending.scene.grant("bob", "countersign-approver").await;
    let bob = User::known(&pending.scene, "bob").await;

    let name = json!({ "approver": { "username": "carol" } });
    let words = ["403", "you are \"bob\"", "sign in your own name"];
    assert_refused(&pending.sign(&bob, "name", name).await, &words);

    let group = json!({ "approver": { "username": "bob", "groups": ["approvers", "senior"] } });
    let words = ["403", "\"bob\" is not in senior", "leave spec.approver out"];
    assert_refused(&pending.sign(&bob, "group", group).await, &words);

    let own = json!({ "approver": { "username": "bob", "groups": ["system:authenticated", "approvers"] } });
    let signed = pending.sign(&bob, "own", own.clone()).await.unwrap();
    assert_eq!(signed["spec"]["approver"], own["approver"]);
}

#[tokio::test]
async fn approver_and_groups_are_filled_in_where_left_out() {
    let pending = Pending::new("sign-filled").await;
    pending.scene.grant("carol", "countersign-approver").await;
    let carol = User::known(&pending.scene, "carol").await;
    let all =
        json!({ "username": "carol", "groups": ["approvers", "senior", "system:authenticated"] });
    for (name, words) in [
        ("nothing", json!({})),
        (
            "no-name",
            json!({ "approver": { "groups": all["groups"] } }),
        ),
        ("no-groups", json!({ "approver": { "username": "carol" } })),
    ] {
        let signed = pending.sign(&carol, name, words).await.unwrap();
        assert_eq!(signed["spec"]["approver"], all, "{name}");
    }
}

#[tokio::test]
async fn nobody_leaves_one_of_their_groups_out() {
    let pending = Pending::new("sign-fewer").await;
    let agent = format!("agent-of-{}", pending.scene.namespace);
    pending.scene.grant(&agent, "countersign-approver").await;
    let groups = ["agents".to_owned(), "approvers".to_owned()];
    let agent = User::impersonated(&pending.scene, &agent, &groups).await;
    for (named, left_out) in [
        (json!(["approvers", "system:authenticated"]), "agents"),
        (json!(["agents", "system:authenticated"]), "approvers"),
        (json!([]), "agents, approvers, system:authenticated"),
    ] {
        let fewer = json!({ "approver": { "username": agent.name, "groups": named } });
        let words = [
            "403",
            &format!("is also in {left_out}, and"),
            "leave spec.approver out",
        ];
        assert_refused(&pending.sign(&agent, "fewer", fewer).await, &words);
    }
}

#[tokio::test]
async fn a_thousand_groups_do_not_keep_anybody_from_signing() {
    let pending = Pending::new("sign-groups").await;
    let name = format!("joiner-of-{}", pending.scene.namespace);
    pending.scene.grant(&name, "countersign-approver").await;
    let groups: Vec<_> = (0..1000).map(|n| format!("group-number-{n}")).collect();
    let joiner = User::impersonated(&pending.scene, &name, &groups).await;
    let signed = pending.sign(&joiner, "joiner", json!({})).await.unwrap();
    let named = signed["spec"]["approver"]["groups"].as_array().unwrap();
    assert!(named.len() >= groups.len());
}

#[tokio::test]
async fn nobody_signs_without_the_verb_on_that_very_rollout() {
    let pending = Pending::new("sign-verb").await;
    let scene = &pending.scene;
    let create =
        json!({ "apiGroups": ["countersign.dev"], "resources": ["signoffs"], "verbs": ["create"] });
    let approve = |rollout: &str| {
        json!([{
            "apiGroups": ["countersign.dev"], "resources": ["rollouts"], "verbs": ["approve"],
            "resourceNames": [rollout],
        }])
    };
    scene.grant_rules("bob", json!([create])).await;
    let bob = User::known(scene, "bob").await;
    let refused = format!("\"bob\" may not approve Rollout {}/shop", scene.namespace);
    assert_refused(
        &pending.sign(&bob, "no-verb", json!({})).await,
        &["403", &refused],
    );

    scene.grant_rules("bob", approve("cart")).await;
    let other = pending.sign(&bob, "other-rollout", json!({})).await;
    assert_refused(&other, &["403", &refused]);

    scene.grant_rules("bob", approve("shop")).await;
    pending.sign(&bob, "this-rollout", json!({})).await.unwrap();
    let reject = json!({ "decision": "Reject", "reason": "not this one" });
    pending.sign(&bob, "reject", reject).await.unwrap();
}

#[tokio::test]
async fn breaking_glass_needs_its_own_verb_and_a_reason() {
    let pending = Pending::new("sign-glass").await;
    let (bob, dave) = (
        User::known(&pending.scene, "bob").await,
        User::known(&pending.scene, "dave").await,
    );
    pending.scene.grant("bob", "countersign-approver").await;
    pending.scene.grant("dave", "countersign-on-call").await;
    let glass = json!({ "decision": "BreakGlass", "reason": "incident 42" });

    let refused = pending.sign(&bob, "approver", glass.clone()).await;
    assert_refused(&refused, &["403", "\"bob\" may not breakglass Rollout"]);
    let approved = pending.sign(&dave, "on-call-approves", json!({})).await;
    assert_refused(&approved, &["403", "\"dave\" may not approve Rollout"]);
    let silent = json!({ "decision": "BreakGlass" });
    let silent = pending.sign(&dave, "silent", silent).await;
    assert_refused(&silent, &["422", "say why"]);
    pending.sign(&dave, "on-call", glass).await.unwrap();
}

#[tokio::test]
async fn a_service_account_signs_nothing_though_it_has_the_verb() {
    let pending = Pending::new("sign-machine").await;
    let robot = User::service_account(&pending.scene, "robot").await;
    pending
        .scene
        .grant(&robot.name, "countersign-approver")
        .await;
    let words = ["403", "is no person", "ask one to sign off"];
    assert_refused(&pending.sign(&robot, "robot", json!({})).await, &words);

    let node = "system:node:node-1";
    pending.scene.grant(node, "countersign-approver").await;
    let node = User::impersonated(&pending.scene, node, &[]).await;
    assert_refused(&pending.sign(&node, "node", json!({})).await, &words);

    // A machine with another name is recognized by its group.
    let alias = format!("robot-of-{}", pending.scene.namespace);
    pending.scene.grant(&alias, "countersign-approver").await;
    let groups = ["system:serviceaccounts".to_owned()];
    let alias = User::impersonated(&pending.scene, &alias, &groups).await;
    assert_refused(&pending.sign(&alias, "alias", json!({})).await, &words);
}

#[tokio::test]
async fn a_sign_off_is_for_the_change_that_was_seen() {
    let mut pending = Pending::new("sign-change").await;
    pending.scene.grant("bob", "countersign-approver").await;
    let bob = User::known(&pending.scene, "bob").await;
    let invented = "0123456789abcdef".repeat(4);
    for (name, words, message) in [
        (
            "digest",
            json!({ "digest": invented }),
            "has another change",
        ),
        (
            "run",
            json!({ "run": "another-run" }),
            "is at another attempt",
        ),
        (
            "uid",
            json!({ "rolloutUid": "another" }),
            "was created again",
        ),
    ] {
        let answer = pending.sign(&bob, name, words).await;
        assert_refused(&answer, &["422", message, "check it again"]);
    }
    let seen = pending.change.clone();
    pending.sign(&bob, "seen", json!({})).await.unwrap();

    pending.change_to("v3").await;
    let outdated = pending.sign(&bob, "outdated", seen).await;
    assert_refused(&outdated, &["422", "check it again"]);
    pending
        .sign(&bob, "checked-again", json!({}))
        .await
        .unwrap();
}

#[tokio::test]
async fn nobody_signs_a_change_that_has_ended_but_it_can_be_tried_again() {
    let pending = Pending::new("sign-ended").await;
    let scene = &pending.scene;
    scene.grant("bob", "countersign-approver").await;
    scene.grant("alice", "edit").await;
    let (bob, alice) = (
        User::known(scene, "bob").await,
        User::known(scene, "alice").await,
    );
    let abort = json!({ "action": "Abort" });
    pending.intervene(&alice, "abort", abort).await.unwrap();
    scene.outcome(&pending.app).await;
    for (name, words) in [
        ("approve", json!({})),
        ("reject", json!({ "decision": "Reject", "reason": "no" })),
    ] {
        let answer = pending.sign(&bob, name, words).await;
        assert_refused(&answer, &["422", "has ended", "nothing to sign off"]);
    }
    let retry = json!({ "action": "Retry" });
    pending.intervene(&alice, "retry", retry).await.unwrap();
}

#[tokio::test]
async fn nothing_is_signed_where_there_is_no_rollout() {
    let scene = enforced("sign-nothing").await;
    scene.grant("bob", "countersign-approver").await;
    let bob = User::known(&scene, "bob").await;
    let sign_off = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "SignOff", "metadata": { "name": "nothing" },
        "spec": { "rollout": "shop", "rolloutUid": "none", "run": "none", "digest": "0".repeat(64), "decision": "Approve" },
    });
    let answer = bob.create(&path(&scene, "signoffs"), &sign_off).await;
    assert_refused(
        &answer,
        &["exact-change.countersign.dev", "no params found"],
    );
}

#[tokio::test]
async fn who_had_a_hand_in_a_change_does_not_sign_it_off() {
    let pending = Pending::new("sign-excluded").await;
    let scene = &pending.scene;
    // Two further names: in the status they are in lower case.
    let author = format!("Author-of-{}", scene.namespace);
    let agent = format!("agent-of-{}", scene.namespace);
    for user in [&author, &agent] {
        scene.grant(user, "countersign-approver").await;
    }
    let agents = ["agents".to_owned()];
    let (author, agent) = (
        User::impersonated(scene, &author, &[]).await,
        User::impersonated(scene, &agent, &agents).await,
    );
    let admin = User::admin(scene);
    let excluded_approvers = json!({ "status": { "change": { "excludedApprovers": {
        "users": [author.name.to_lowercase()], "groups": agents,
    } } } });
    // The operator may write its own list at any time, so both are written until both refuse.
    let poll = async || {
        let status = path(scene, "rollouts/shop/status");
        admin.merge(&status, &excluded_approvers).await.unwrap();
        let dry = path(scene, "signoffs") + "?dryRun=All";
        let sign_off = super::with(pending.change.clone(), json!({ "decision": "Approve" }));
        let sign_off = json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "SignOff", "metadata": { "name": "excluded" },
            "spec": sign_off,
        });
        let user = author.create(&dry, &sign_off).await.err();
        let group = agent.create(&dry, &sign_off).await.err();
        match (user, group) {
            (Some(user), Some(group)) => Ok((user, group)),
            accepted => Err(format!("{accepted:?}")),
        }
    };
    let (user, group) = wait_for("both are refused", TIMEOUT, poll).await.unwrap();
    assert_refused(
        &Err(user),
        &["403", "had a hand in", "ask somebody else", "shop"],
    );
    assert_refused(&Err(group), &["403", "AI agents", "ask a person"]);

    let dry = path(scene, "signoffs") + "?dryRun=All";
    let no = json!({ "decision": "Reject", "reason": "it has a fault" });
    let no = pending.decision("SignOff", "excluded", no);
    for user in [&author, &agent] {
        user.create(&dry, &no).await.unwrap();
    }
}

#[tokio::test]
async fn a_sign_off_cannot_be_edited_by_anybody() {
    let pending = Pending::new("sign-edit").await;
    let scene = &pending.scene;
    for role in ["countersign-approver", "countersign-on-call", "admin"] {
        scene.grant("bob", role).await;
    }
    let bob = User::known(scene, "bob").await;
    let signed = pending.sign(&bob, "bob", json!({})).await.unwrap();
    let own = path(scene, "signoffs/bob");
    let edit = json!({ "spec": { "decision": "Reject", "reason": "I changed my mind" } });
    for answer in [
        bob.merge(&own, &edit).await,
        bob.delete(&own).await,
        bob.delete(&path(scene, "signoffs")).await,
    ] {
        assert_refused(&answer, &["403", "\"bob\" cannot"]);
    }
    let admin = User::admin(scene);
    assert_refused(
        &admin.merge(&own, &edit).await,
        &["422", "cannot be edited: make another one"],
    );
    assert_eq!(admin.get(&own).await.unwrap()["spec"], signed["spec"]);
}
