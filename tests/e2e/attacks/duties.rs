//! Separate duties, in a namespace whose label requires them.

use countersign_cluster::wait_for;
use serde_json::{Value, json};

use super::{agent, allow, at, label, refused};
use crate::identity::user::{APPLY, User, assert_refused, path, until_enforced};
use crate::sign_off::Checkpoint;
use crate::support::{App, Scene, TIMEOUT};

/// A user who may sign off in a scene and do nothing else.
async fn approver(scene: &Scene, name: &str) -> User {
    let name = format!("{name}-of-{}", scene.namespace);
    scene.grant(&name, "countersign-approver").await;
    User::impersonated(scene, &name, &["approvers".to_owned()]).await
}

/// Grants a user one verb on one object of this name.
async fn allow_one(
    scene: &Scene,
    user: &User,
    (group, resource, name): (&str, &str, &str),
    verb: &str,
) {
    let rule = json!({
        "apiGroups": [group], "resources": [resource], "resourceNames": [name], "verbs": [verb],
    });
    scene.grant_rules(&user.name, json!([rule])).await;
}

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
        let user = approver(scene, verb).await;
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

/// Finding F15: a RoleBinding of `cluster-admin`, as tenants often have one, holds the verb `approve`, too.
#[tokio::test]
async fn who_holds_every_verb_in_a_namespace_does_not_approve_there() {
    let mut checkpoint = Checkpoint::new("every-verb", json!({})).await;
    let next = checkpoint.baking("v2");
    checkpoint.deploy(&next).await;
    let scene = &checkpoint.scene;
    let name = format!("tenant-of-{}", scene.namespace);
    let everything =
        json!([{ "apiGroups": ["countersign.dev"], "resources": ["*"], "verbs": ["*"] }]);
    scene.grant_rules(&name, everything).await;
    let tenant = User::impersonated(scene, &name, &[]).await;
    let admitted = checkpoint.approve(&tenant, json!({})).await;
    admitted.unwrap();
    label(scene, "countersign.dev/separate-duties", "required").await;
    let refused = checkpoint.until_refused(&tenant, &json!({})).await;
    let words = ["403", "may write Rollout", "duties are separate"];
    assert_refused(&refused, &words);
    scene.remove_policy().await;
}

#[tokio::test]
async fn who_may_act_as_the_account_that_changed_the_rollout_does_not_approve() {
    let mut checkpoint = Checkpoint::new("duties-account", json!({})).await;
    let agent = agent(&checkpoint.scene).await;
    let next = checkpoint.baking("v2");
    let rollout = "rollouts/shop?fieldManager=service-team&force=true";
    let rollout = path(&checkpoint.scene, rollout);
    let manifest = next.manifest();
    let applied = agent.send("PATCH", &rollout, APPLY, &manifest);
    applied.await.unwrap();
    checkpoint.deploy(&next).await;
    let scene = &checkpoint.scene;
    let changed = scene.get(&next).await.status.unwrap().change.unwrap();
    assert!(changed.changed_by.contains(&agent.name), "{changed:?}");

    label(scene, "countersign.dev/separate-duties", "required").await;
    for (resource, verb) in [
        ("serviceaccounts", "impersonate"),
        ("serviceaccounts/token", "create"),
    ] {
        let user = approver(scene, verb).await;
        let approved = checkpoint.approve(&user, json!({})).await;
        approved.unwrap();
        allow_one(scene, &user, ("", resource, "agent"), verb).await;
        let refused = checkpoint.until_refused(&user, &json!({})).await;
        let words = ["403", "a ServiceAccount that changed Rollout"];
        assert_refused(&refused, &words);
    }
    scene.remove_policy().await;
}

#[tokio::test]
async fn who_may_write_the_adopted_deployment_does_not_approve() {
    let scene = Scene::new("duties-adopted").await;
    until_enforced(&scene).await;
    // Its first change lasts: its pods never start.
    let app = App {
        starts: Some("ImagePullBackOff".into()),
        ..App::new("shop")
    };
    let labels = json!({ "app": "legacy" });
    let mut template = app.manifest()["spec"]["template"].clone();
    template["metadata"]["labels"] = labels.clone();
    let legacy = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "legacy" },
        "spec": { "replicas": 0, "selector": { "matchLabels": labels }, "template": template },
    });
    let admin = User::admin(&scene);
    let deployments = at(&scene, "apps/v1", "deployments");
    admin.create(&deployments, &legacy).await.unwrap();
    let adopting = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "Rollout", "metadata": { "name": "shop" },
        "spec": { "replicas": 1, "workloadRef": { "kind": "Deployment", "name": "legacy" } },
    });
    scene.apply_manifest(&adopting).await;
    let begun = |rollout: &countersign_api::Rollout| {
        let status = rollout.status.as_ref();
        status.is_some_and(|it| it.change.is_some())
    };
    let rollout = scene.until(&app, "its change began", begun).await;
    let change = rollout.status.unwrap().change.unwrap();
    label(&scene, "countersign.dev/separate-duties", "required").await;

    let sign_off = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "SignOff",
        "metadata": { "generateName": "shop-" },
        "spec": {
            "rollout": "shop", "rolloutUid": rollout.metadata.uid, "run": change.run,
            "digest": change.digest, "decision": "Approve", "reason": "looks good",
        },
    });
    let signed = path(&scene, "signoffs?dryRun=All");
    let neither = approver(&scene, "neither").await;
    let poll = async || neither.create(&signed, &sign_off).await;
    wait_for("an approver may sign", TIMEOUT, poll)
        .await
        .unwrap();
    let all = path(&scene, "signoffs");
    let words = ["403", "may write Deployment", "duties are separate"];
    for verb in ["update", "patch"] {
        let user = approver(&scene, verb).await;
        allow_one(&scene, &user, ("apps", "deployments", "legacy"), verb).await;
        refused(&user, "POST", &all, &sign_off, &words).await;
        let mut rejection = sign_off.clone();
        rejection["spec"]["decision"] = "Reject".into();
        let rejected: Value = user.create(&signed, &rejection).await.unwrap();
        assert_eq!(rejected["spec"]["decision"], "Reject");
    }
}
