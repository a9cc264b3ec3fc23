//! Interventions: in the user's own name, with the right; machines may only stop changes.

use serde_json::{Value, json};

use super::Pending;
use super::user::{User, assert_refused, path};

fn action(name: &str) -> Value {
    match name {
        "Promote" => json!({ "action": name, "step": 1 }),
        name => json!({ "action": name }),
    }
}

#[tokio::test]
async fn a_service_team_aborts_and_retries_but_does_not_promote() {
    let pending = Pending::new("act-edit").await;
    pending.scene.grant("alice", "edit").await;
    let alice = User::known(&pending.scene, "alice").await;
    let promote = pending
        .intervene(&alice, "promote", action("Promote"))
        .await;
    let words = ["403", "\"alice\" may not promote Rollout", "shop"];
    assert_refused(&promote, &words);
    for name in ["Pause", "Resume", "Retry", "Abort"] {
        let made = pending
            .intervene(&alice, &name.to_lowercase(), action(name))
            .await
            .unwrap();
        let person =
            json!({ "username": "alice", "groups": ["service-team", "system:authenticated"] });
        assert_eq!(made["spec"]["person"], person, "{name}");
    }
}

#[tokio::test]
async fn nobody_acts_in_anothers_name_nor_without_the_verb() {
    let pending = Pending::new("act-name").await;
    let scene = &pending.scene;
    let create = json!({ "apiGroups": ["countersign.dev"], "resources": ["interventions"], "verbs": ["create"] });
    scene.grant_rules("bob", json!([create])).await;
    scene.grant("dave", "countersign-on-call").await;
    let (bob, dave) = (
        User::known(scene, "bob").await,
        User::known(scene, "dave").await,
    );
    for name in ["Abort", "Retry", "Promote", "Pause", "Resume"] {
        let refused = pending.intervene(&bob, "bob", action(name)).await;
        let words = format!("\"bob\" may not {} Rollout", name.to_lowercase());
        assert_refused(&refused, &["403", &words]);
    }
    let other = json!({ "action": "Pause", "person": { "username": "alice" } });
    let other = pending.intervene(&dave, "other", other).await;
    assert_refused(&other, &["403", "you are \"dave\""]);
    let group =
        json!({ "action": "Pause", "person": { "username": "dave", "groups": ["senior"] } });
    let group = pending.intervene(&dave, "group", group).await;
    assert_refused(&group, &["403", "\"dave\" is not in senior"]);
    pending
        .intervene(&dave, "promote", action("Promote"))
        .await
        .unwrap();
}

#[tokio::test]
async fn machines_may_stop_a_change_but_not_make_it_go_on() {
    let pending = Pending::new("act-machine").await;
    let robot = User::service_account(&pending.scene, "robot").await;
    pending
        .scene
        .grant(&robot.name, "countersign-on-call")
        .await;
    for name in ["Retry", "Promote", "Resume"] {
        let refused = pending.intervene(&robot, "robot", action(name)).await;
        assert_refused(&refused, &["403", "is no person", &name.to_lowercase()]);
    }
    for name in ["Pause", "Abort"] {
        pending
            .intervene(&robot, &name.to_lowercase(), action(name))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn an_intervention_is_for_the_change_that_was_seen_and_is_never_edited() {
    let mut pending = Pending::new("act-change").await;
    pending.scene.grant("dave", "countersign-on-call").await;
    let dave = User::known(&pending.scene, "dave").await;
    let seen = pending.change.clone();
    let pause = pending.intervene(&dave, "seen", action("Pause")).await;
    pause.unwrap();
    let admin = User::admin(&pending.scene);
    let own = path(&pending.scene, "interventions/seen");
    let edit = json!({ "spec": { "action": "Resume" } });
    assert_refused(&dave.merge(&own, &edit).await, &["403", "\"dave\" cannot"]);
    assert_refused(
        &admin.merge(&own, &edit).await,
        &["422", "cannot be edited"],
    );
    assert_refused(&dave.delete(&own).await, &["403", "\"dave\" cannot"]);

    pending.change_to("v3").await;
    let outdated = super::with(seen, action("Resume"));
    let outdated = pending.intervene(&dave, "outdated", outdated).await;
    assert_refused(&outdated, &["422", "check it again"]);
}
