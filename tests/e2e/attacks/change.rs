//! Past the gates by what a change inherits, by where traffic goes, and by first revisions without end.

use countersign_api::rollout::{Change, Outcome};
use countersign_api::{Rollout, Tier};

use super::*;
use crate::identity::user::path;
use crate::support::{ended, merge, waits_for};

/// The tiers from `high` on wait for people.
async fn people_are_required(scene: &Scene) {
    let demand = json!({ "signOff": [{ "count": 1, "groups": ["approvers"] }] });
    let tiers = json!({ "high": demand, "critical": demand });
    scene.policy(json!({ "tiers": tiers })).await;
}

async fn until_people_are_awaited(scene: &Scene, app: &App) -> Change {
    let waiting = scene
        .until(app, "it waits for people", |it| {
            waits_for(it, "AwaitingSignOff")
        })
        .await;
    let change = waiting.status.unwrap().change.unwrap();
    assert_eq!((change.step, change.weight), (0, 0));
    change
}

/// Finding F2: the annotations of the last change are left as they are.
#[tokio::test]
async fn an_image_that_is_edited_alone_does_not_inherit_what_was_said_of_the_last_one() {
    let scene = Scene::new("inherits").await;
    people_are_required(&scene).await;
    let app = scene.serving(App::new("shop")).await;
    let alice = editor(&scene).await;
    let at = path(&scene, "rollouts/shop");
    let mut template = app.version("evil").manifest()["spec"]["template"].clone();
    let edit = json!({ "spec": { "template": template } });
    alice.merge(&at, &edit).await.unwrap();
    let change = until_people_are_awaited(&scene, &app).await;
    assert!(change.inherited_provenance, "{change:?}");

    // Nor does the one that takes its place.
    template["spec"]["serviceAccountName"] = json!("default");
    let edit = json!({ "spec": { "template": template } });
    alice.merge(&at, &edit).await.unwrap();
    let poll = async || {
        let status = scene.get(&app).await.status.unwrap();
        let next = status.change.filter(|it| it.digest != change.digest);
        next.filter(|it| it.outcome.is_none())
            .ok_or("the change before")
    };
    let next = wait_for("another change", TIMEOUT, poll).await.unwrap();
    assert!(
        next.inherited_provenance && next.tier >= Tier::High,
        "{next:?}"
    );
    assert_eq!(next.weight, 0);
}

/// Finding F2: no image changes, so nothing that is declared about code is asked for.
#[tokio::test]
async fn another_service_account_waits_for_people_whatever_is_declared() {
    let scene = Scene::new("manifest-only").await;
    people_are_required(&scene).await;
    let app = scene.serving(App::new("shop")).await;
    let alice = editor(&scene).await;
    let account =
        json!({ "spec": { "template": { "spec": { "serviceAccountName": "default" } } } });
    let reviewed = json!({ "metadata": { "annotations": {
        "provenance.countersign.dev/revision": "3333333", "provenance.countersign.dev/approved-revision": "3333333",
    } } });
    let mut edit = account;
    merge(&mut edit, &reviewed);
    let at = path(&scene, "rollouts/shop");
    alice.merge(&at, &edit).await.unwrap();
    let change = until_people_are_awaited(&scene, &app).await;
    assert_eq!(change.tier, Tier::High);
}

/// Finding F4: no pod is available for a day, so no first revision would ever be complete.
#[tokio::test]
async fn a_first_revision_that_never_becomes_complete_lets_no_other_one_in() {
    let scene = Scene::new("for-ever-first").await;
    people_are_required(&scene).await;
    scene.service("shop", "shop").await;
    let app = App::new("shop").spec(json!({
        "minReadySeconds": 86_400, "progressDeadlineSeconds": 90_000,
    }));
    scene.apply(&app).await;
    let serves = |it: &Rollout| {
        let change = it.status.as_ref().and_then(|it| it.change.as_ref());
        change.is_some_and(|it| it.initial && it.served)
    };
    scene
        .until(&app, "the first revision has served", serves)
        .await;
    let next = app.version("evil").provenance(json!({}));
    scene.apply(&next).await;
    let change = until_people_are_awaited(&scene, &next).await;
    assert!(!change.initial);
    assert_eq!(scene.pods(&change.pod_template_hash).await, 0);
}

/// Finding F8: what a tag names can change after it was signed.
#[tokio::test]
async fn a_tag_is_held_where_the_tier_requires_digests() {
    let scene = Scene::new("tags").await;
    let tiers = json!({ "low": { "requireDigest": true } });
    scene.policy(json!({ "tiers": tiers })).await;
    let app = scene.serving(App::new("shop")).await;
    let next = app.version("v2");
    scene.apply(&next).await;
    let held = scene
        .until(&next, "the tag is named", |it| {
            waits_for(it, "ImageNotPinned")
        })
        .await;
    let status = held.status.unwrap();
    assert!(
        status.message.contains("example.org/shop:v2"),
        "{}",
        status.message
    );
    assert_eq!(status.change.unwrap().weight, 0);
}

/// Finding F8: the content of a ConfigMap can change after it was signed.
#[tokio::test]
async fn a_name_without_a_hash_is_held_where_the_tier_requires_immutable_configuration() {
    let scene = Scene::new("plain-config").await;
    let tiers = json!({ "low": { "requireImmutableConfig": true } });
    scene.policy(json!({ "tiers": tiers })).await;
    let app = scene.serving(App::new("shop")).await;
    let next = app.version("v2");
    let mut manifest = next.manifest();
    manifest["spec"]["template"]["spec"]["containers"][0]["envFrom"] =
        json!([{ "configMapRef": { "name": "settings" } }]);
    scene.apply_manifest(&manifest).await;
    let held = scene
        .until(&next, "the name is named", |it| {
            waits_for(it, "ConfigNotImmutable")
        })
        .await;
    let status = held.status.unwrap();
    assert!(
        status.message.contains("settings is not"),
        "{}",
        status.message
    );
    assert_eq!(status.change.unwrap().weight, 0);
}

/// Finding F13: pods count their own requests, and the team writes the queries.
#[tokio::test]
async fn evidence_of_the_pods_alone_is_held_where_the_tier_requires_another() {
    let scene = Scene::new("own-exam").await;
    let tiers = json!({ "low": { "requirePolicyCheck": true } });
    let own = json!({ "name": "errors", "preset": "HttpRequestsTotal" });
    scene.policy(json!({ "tiers": tiers })).await;
    let app = scene.serving(App::new("shop")).await;
    let _load = scene.load(&app, 150).await;
    let next = app.version("v2");
    scene.apply(&next).await;
    scene
        .until(&next, "no check is independent", |it| {
            waits_for(it, "PolicyCheckRequired")
        })
        .await;
    let analysis = json!({ "checks": [own] });
    scene
        .policy(json!({ "tiers": tiers, "analysis": analysis }))
        .await;
    assert!(ended(&scene.outcome(&next).await, Outcome::Promoted));
}

/// Finding F14: the selector cannot be edited, but by way of an adopted workload it could.
#[tokio::test]
async fn a_selector_that_changes_by_a_detour_releases_no_pod() {
    let scene = Scene::new("detour").await;
    let app = scene.serving(App::new("shop")).await;
    let alice = editor(&scene).await;
    let at = path(&scene, "rollouts/shop");
    let before = own_set(&scene).await;
    let adopts = json!({ "spec": {
        "workloadRef": { "name": "none" }, "selector": null, "template": null,
    } });
    alice.merge(&at, &adopts).await.unwrap();
    let mut template = app.version("evil").manifest()["spec"]["template"].clone();
    template["metadata"]["labels"]["app"] = json!("other");
    let selector = json!({ "matchLabels": { "app": "other" } });
    let back = json!({ "spec": {
        "workloadRef": null, "selector": selector, "template": template,
    } });
    alice.merge(&at, &back).await.unwrap();
    let held = scene
        .until(&app, "the other selector is named", |it| {
            waits_for(it, "Conflict")
        })
        .await;
    let status = held.status.unwrap();
    assert!(status.message.contains("app=other"), "{}", status.message);
    assert_eq!(status.selector, "app=shop");
    let after = own_set(&scene).await;
    let owned = |set: &Value| {
        let metadata = &set["metadata"];
        let replicas = set["spec"]["replicas"].clone();
        (
            metadata["uid"].clone(),
            metadata["ownerReferences"].clone(),
            replicas,
        )
    };
    assert_eq!(owned(&after), owned(&before));
}
