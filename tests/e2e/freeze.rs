//! Freezes: promotions wait during an incident or a change freeze; rollbacks never do.

use countersign::clock;
use countersign_api::Phase;
use countersign_api::rollout::Outcome;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::identity::user::JSON;
use crate::sign_off::{Checkpoint, line};
use crate::support::{ended, merge, phase, waits_for};

const FREEZES: &str = "/apis/countersign.dev/v1alpha1/freezes";

/// Dave freezes the namespace of a test, with other words in the spec.
async fn freeze(checkpoint: &Checkpoint, words: Value) {
    let scene = &checkpoint.scene;
    scene.grant_everywhere("dave", "countersign-on-call").await;
    let labels = json!({ "kubernetes.io/metadata.name": scene.namespace });
    let mut spec = json!({
        "reason": "checkout is down", "namespaceSelector": { "matchLabels": labels },
    });
    merge(&mut spec, &words);
    let freeze = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "Freeze",
        "metadata": { "name": scene.namespace }, "spec": spec,
    });
    let dave = &checkpoint.dave;
    let freeze = dave.decision(scene, freeze).await;
    dave.create(FREEZES, &freeze).await.unwrap();
}

async fn unfreeze(checkpoint: &Checkpoint) {
    let freeze = format!("{FREEZES}/{}", checkpoint.scene.namespace);
    checkpoint.dave.delete(&freeze).await.unwrap();
}

/// A policy with an incident query.
fn incident(query: &str) -> Value {
    json!({ "freeze": { "incident": { "query": query, "reason": "the pager went off" } } })
}

/// A policy with a window.
fn window(schedule: &str, time_zone: &str) -> Value {
    let window = json!({
        "name": "release", "schedule": schedule, "timeZone": time_zone, "duration": "2h",
    });
    json!({ "freeze": { "windows": [window] } })
}

#[tokio::test]
async fn a_freeze_holds_promotions_and_its_end_resumes_where_it_stopped() {
    let mut checkpoint = Checkpoint::new("freeze", json!({})).await;
    let _load = checkpoint.scene.load(&checkpoint.app, 150).await;
    let next = checkpoint.baking("v2");
    checkpoint.deploy(&next).await;
    checkpoint.waits("Baking").await;
    freeze(&checkpoint, json!({})).await;
    let message = checkpoint.waits("Frozen").await;
    let namespace = &checkpoint.scene.namespace;
    let expected = format!("Freeze {namespace} by dave: checkout is down");
    assert_eq!(message, expected);

    // Nothing else is waited for.
    let promote = json!({ "action": "Promote", "step": 1 });
    let promote = checkpoint.intervene(&checkpoint.dave, promote).await;
    checkpoint.answered(&promote.unwrap(), "Applied").await;
    let rollout = checkpoint.scene.get(&next).await;
    assert!(waits_for(&rollout, "Frozen"));
    assert_eq!(phase(&rollout), Phase::Held);
    assert_eq!(checkpoint.step().await, "1/2");

    unfreeze(&checkpoint).await;
    let run = checkpoint.outcome().await;
    assert!(ended(&run, Outcome::Promoted));
    let steps = run.spec.progress.transitions.iter();
    let steps: Vec<_> = steps
        .map(|line| (line.reason.as_str(), line.step))
        .collect();
    let expected = [
        ("ChangeStarted", 0),
        ("StepStarted", 1),
        ("BakeSkipped", 1),
        ("StepStarted", 2),
        ("Promoting", 2),
        ("Promoted", 2),
    ];
    assert_eq!(steps, expected);
    checkpoint.scene.remove_policy().await;
}

#[tokio::test]
async fn a_bad_canary_is_rolled_back_during_a_freeze() {
    let mut checkpoint = Checkpoint::new("freeze-bad", json!({})).await;
    // The canary gets no requests before the freeze.
    let bad = checkpoint.baking("v2").failing(0.4);
    checkpoint.deploy(&bad).await;
    checkpoint.waits("Baking").await;
    freeze(&checkpoint, json!({})).await;
    checkpoint.waits("Frozen").await;

    let _load = checkpoint.scene.load(&bad, 200).await;
    checkpoint.until_degraded().await;
    let run = checkpoint.outcome().await;
    assert!(ended(&run, Outcome::RolledBack));
    line(&run, "AnalysisFailed");
    let hash = &run.spec.pod_template_hash;
    assert_eq!(checkpoint.scene.pods(hash).await, 0);
    unfreeze(&checkpoint).await;
    checkpoint.scene.remove_policy().await;
}

#[tokio::test]
async fn a_freeze_ends_by_itself() {
    let mut checkpoint = Checkpoint::new("freeze-until", json!({})).await;
    let _load = checkpoint.scene.load(&checkpoint.app, 150).await;
    let until = Timestamp::from_second(clock::now().as_second() + 15).unwrap();
    freeze(&checkpoint, json!({ "until": until.to_string() })).await;
    let next = checkpoint.app.version("v2");
    checkpoint.deploy(&next).await;
    let message = checkpoint.waits("Frozen").await;
    assert!(
        message.ends_with(&format!(", until {until:.0}")),
        "{message}"
    );
    assert_eq!(checkpoint.step().await, "0/2");

    let run = checkpoint.outcome().await;
    assert!(ended(&run, Outcome::Promoted));
    let began = line(&run, "StepStarted").at.clone().unwrap().0;
    assert!(began >= until, "it began at {began}, before {until}");
    unfreeze(&checkpoint).await;
    checkpoint.scene.remove_policy().await;
}

#[tokio::test]
async fn a_freeze_that_rolls_back() {
    let mut checkpoint = Checkpoint::new("freeze-back", json!({})).await;
    let next = checkpoint.baking("v2");
    checkpoint.deploy(&next).await;
    checkpoint.waits("Baking").await;
    freeze(&checkpoint, json!({ "action": "RollBack" })).await;
    checkpoint.until_degraded().await;

    let scene = &checkpoint.scene;
    let run = checkpoint.outcome().await;
    assert!(ended(&run, Outcome::RolledBack));
    let why = &line(&run, "RolledBackByFreeze").message;
    assert!(why.contains("by dave: checkout is down"), "{why}");
    let events = scene.events(&next, "RolledBackByFreeze").await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(scene.pods(&run.spec.pod_template_hash).await, 0);
    unfreeze(&checkpoint).await;
    scene.remove_policy().await;
}

/// The incident is a pod that Prometheus scrapes.
#[tokio::test]
async fn an_incident_query_begins_and_ends() {
    let mut checkpoint = Checkpoint::new("incident", json!({})).await;
    let namespace = checkpoint.scene.namespace.clone();
    let query = format!(r#"count(up{{namespace="{namespace}",pod="pager"}} == 1) or vector(0)"#);
    checkpoint.scene.policy(incident(&query)).await;
    let _load = checkpoint.scene.load(&checkpoint.app, 150).await;
    let next = checkpoint.baking("v2");
    checkpoint.deploy(&next).await;
    checkpoint.waits("Baking").await;

    let mut pod = next.manifest()["spec"]["template"].clone();
    let own = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "pager", "labels": { "app": "pager" } },
    });
    merge(&mut pod, &own);
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    checkpoint.admin.create(&pods, &pod).await.unwrap();
    let message = checkpoint.waits("Frozen").await;
    let expected =
        format!("incident by the query of policy {namespace} (it gives 1): the pager went off");
    assert_eq!(message, expected);
    assert_eq!(checkpoint.step().await, "1/2");

    let at_once = json!({ "gracePeriodSeconds": 0 });
    let pager = format!("{pods}/pager");
    let deleted = checkpoint.admin.send("DELETE", &pager, JSON, &at_once);
    deleted.await.unwrap();
    checkpoint.waits("Baking").await;
    assert_eq!(checkpoint.step().await, "1/2");
    checkpoint.scene.remove_policy().await;
}

#[tokio::test]
async fn an_incident_query_that_cannot_be_answered_holds() {
    let mut checkpoint = Checkpoint::new("no-answer", incident("sum(")).await;
    let _load = checkpoint.scene.load(&checkpoint.app, 150).await;
    let next = checkpoint.app.version("v2");
    checkpoint.deploy(&next).await;
    let message = checkpoint.waits("FreezeUnknown").await;
    let policy = &checkpoint.scene.namespace;
    let named = format!("the incident query of policy {policy}: ");
    assert!(message.starts_with(&named), "{message}");

    // An empty result is no answer either: perhaps no alerts are evaluated.
    let empty = incident("count(nothing_is_called_this)");
    checkpoint.scene.policy(empty).await;
    let rollout = checkpoint.until_message("end it with `or vector(0)`").await;
    assert!(waits_for(&rollout, "FreezeUnknown"));
    assert_eq!(phase(&rollout), Phase::Held);
    assert_eq!(checkpoint.step().await, "0/2");

    checkpoint.scene.policy(incident("vector(0)")).await;
    assert!(ended(&checkpoint.outcome().await, Outcome::Promoted));
    checkpoint.scene.remove_policy().await;
}

#[tokio::test]
async fn a_window_of_a_policy_freezes() {
    let mut checkpoint = Checkpoint::new("window", window("* * * * *", "Europe/Berlin")).await;
    let _load = checkpoint.scene.load(&checkpoint.app, 150).await;
    let next = checkpoint.app.version("v2");
    checkpoint.deploy(&next).await;
    let message = checkpoint.waits("Frozen").await;
    let named = format!("window {}/release, until ", checkpoint.scene.namespace);
    assert!(message.starts_with(&named), "{message}");
    assert_eq!(checkpoint.step().await, "0/2");

    checkpoint.scene.policy(json!({})).await;
    assert!(ended(&checkpoint.outcome().await, Outcome::Promoted));
    checkpoint.scene.remove_policy().await;
}

#[tokio::test]
async fn a_bad_cron_holds_and_is_reported() {
    let mut checkpoint = Checkpoint::new("bad-cron", window("0 25 * * *", "UTC")).await;
    let _load = checkpoint.scene.load(&checkpoint.app, 150).await;
    let next = checkpoint.app.version("v2");
    checkpoint.deploy(&next).await;
    let message = checkpoint.waits("FreezeUnknown").await;
    let named = format!("freeze.windows[{}/release]", checkpoint.scene.namespace);
    assert!(message.contains(&named), "{message}");
    assert!(message.contains("`0 25 * * *`"), "{message}");

    let nowhere = window("0 18 * * FRI", "Europe/Atlantis");
    checkpoint.scene.policy(nowhere).await;
    let rollout = checkpoint.until_message("`Europe/Atlantis`").await;
    assert!(waits_for(&rollout, "FreezeUnknown"));
    assert_eq!(checkpoint.step().await, "0/2");

    checkpoint.scene.policy(json!({})).await;
    assert!(ended(&checkpoint.outcome().await, Outcome::Promoted));
    checkpoint.scene.remove_policy().await;
}
