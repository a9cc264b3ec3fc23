//! The statuses of RolloutPolicies, Freezes and AnalysisTemplates: what the operator makes of them.

use std::panic::{AssertUnwindSafe, resume_unwind};

use countersign::clock;
use countersign_cluster::wait_for;
use futures::FutureExt as _;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::identity::user::{User, path};
use crate::interfaces::run;
use crate::support::{App, Scene, TIMEOUT, waits_for};

const POLICIES: &str = "/apis/countersign.dev/v1alpha1/rolloutpolicies";
const FREEZES: &str = "/apis/countersign.dev/v1alpha1/freezes";

/// Waits until the status of an object is as wanted, and returns it.
async fn until(admin: &User, path: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let poll = async || {
        let object = admin.get(path).await.map_err(|it| it.to_string())?;
        let status = object["status"].clone();
        if wanted(&status) {
            Ok(status)
        } else {
            Err(status.to_string())
        }
    };
    wait_for(what, TIMEOUT, poll).await.unwrap()
}

/// Value, reason and message of a condition; empty if there is none.
fn condition<'a>(status: &'a Value, kind: &str) -> (&'a str, &'a str, &'a str) {
    let conditions = status["conditions"].as_array();
    let found = conditions.and_then(|all| all.iter().find(|it| it["type"] == kind));
    let text = |key: &str| found.and_then(|it| it[key].as_str()).unwrap_or_default();
    (text("status"), text("reason"), text("message"))
}

fn small(name: &str) -> App {
    App {
        replicas: 1,
        checks: false,
        ..App::new(name)
    }
}

fn of_namespace(scene: &Scene) -> Value {
    json!({ "matchLabels": { "kubernetes.io/metadata.name": scene.namespace } })
}

#[tokio::test]
async fn a_policy_says_whether_it_is_accepted_and_how_many_rollouts_it_governs() {
    let scene = Scene::new("policy-status").await;
    let (admin, own) = (
        User::admin(&scene),
        format!("{POLICIES}/{}", scene.namespace),
    );
    scene
        .policy(json!({ "risk": { "points": { "testsUnknown": 1 } } }))
        .await;
    let what = "the policy is accepted";
    let corrected = |status: &Value| condition(status, "Accepted").1 == "Corrected";
    let status = until(&admin, &own, what, corrected).await;
    let (value, _, message) = condition(&status, "Accepted");
    assert_eq!(value, "True");
    let counts = "risk.points.testsUnknown is 1 and counts as 3";
    assert!(message.contains(counts), "{message}");
    assert_eq!(condition(&status, "Stalled").0, "");

    scene.apply(&small("shop")).await;
    scene.apply(&small("bank")).await;
    let both = |status: &Value| status["governs"] == 2;
    until(&admin, &own, "both Rollouts are counted", both).await;
    let columns = run("kubectl", &["get", "crp", &scene.namespace]);
    for word in ["ENFORCEMENT", "ACCEPTED", "GOVERNS", "Corrected", " 2 "] {
        assert!(columns.contains(word), "{word} is not shown:\n{columns}");
    }

    let window = json!({ "name": "night", "schedule": "0 25 * * *", "duration": "2h" });
    scene
        .policy(json!({ "freeze": { "windows": [window] } }))
        .await;
    let invalid = |status: &Value| condition(status, "Accepted").1 == "Invalid";
    let status = until(&admin, &own, "the window is named", invalid).await;
    let (value, _, message) = condition(&status, "Accepted");
    assert_eq!(value, "False");
    assert!(
        message.contains("freeze.windows[night]: `0 25 * * *`"),
        "{message}"
    );
    assert_eq!(condition(&status, "Stalled").0, "True");
    let generation = admin.get(&own).await.unwrap()["metadata"]["generation"].clone();
    assert_eq!(status["observedGeneration"], generation);
    scene.remove_policy().await;
}

#[tokio::test]
#[ignore = "make e2e-alone runs it"]
async fn a_policy_that_cannot_be_read_says_that_it_holds_every_rollout() {
    let scene = Scene::alone("policy-unreadable").await;
    let app = scene.serving(small("shop")).await;
    let (admin, own) = (
        User::admin(&scene),
        format!("{POLICIES}/{}", scene.namespace),
    );
    // The API server accepts this UTC offset, which the operator cannot parse, like a newer operator's values.
    let key = json!({
        "name": "ci", "publicKey": "none", "notAfter": "2026-11-26T22:00:00+99:00",
    });
    let policy = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutPolicy",
        "metadata": { "name": scene.namespace },
        "spec": { "namespaceSelector": of_namespace(&scene), "provenance": { "keys": [key] } },
    });
    admin.create(POLICIES, &policy).await.unwrap();
    let next = app.version("v2");
    let story = async {
        let unreadable = |status: &Value| condition(status, "Accepted").1 == "Unreadable";
        let status = until(&admin, &own, "the policy is unreadable", unreadable).await;
        let (value, _, message) = condition(&status, "Accepted");
        assert_eq!(value, "False");
        assert!(
            message.contains("every Rollout waits (PolicyUnreadable): "),
            "{message}"
        );
        assert_eq!(condition(&status, "Stalled").0, "True");
        assert_eq!(status["governs"], Value::Null);
        scene.apply(&next).await;
        let held = |rollout: &countersign_api::Rollout| waits_for(rollout, "PolicyUnreadable");
        scene.until(&next, "the Rollout is held", held).await;
    };
    let story = AssertUnwindSafe(story).catch_unwind().await;
    // It would hold the Rollouts of all other tests.
    admin.delete(&own).await.unwrap();
    story.unwrap_or_else(|panic| resume_unwind(panic));
    let continues = |rollout: &countersign_api::Rollout| !waits_for(rollout, "PolicyUnreadable");
    scene.until(&next, "the Rollout continues", continues).await;
}

#[tokio::test]
async fn a_freeze_says_whether_it_is_in_force_and_until_when() {
    let scene = Scene::new("freeze-status").await;
    scene.grant_everywhere("dave", "countersign-on-call").await;
    let dave = User::known(&scene, "dave").await;
    let (admin, own) = (
        User::admin(&scene),
        format!("{FREEZES}/{}", scene.namespace),
    );
    let freeze = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "Freeze",
        "metadata": { "name": scene.namespace },
        "spec": { "reason": "stock-taking", "namespaceSelector": of_namespace(&scene) },
    });
    dave.create(FREEZES, &freeze).await.unwrap();
    let active = |status: &Value| condition(status, "Active").0 == "True";
    let status = until(&admin, &own, "the Freeze is in force", active).await;
    assert_eq!(condition(&status, "Active").1, "InForce");
    assert_eq!(condition(&status, "Accepted").0, "True");
    let columns = run("kubectl", &["get", "cfz", &scene.namespace]);
    for word in ["ACTIVE", "True", "stock-taking", "dave"] {
        assert!(columns.contains(word), "{word} is not shown:\n{columns}");
    }

    let end = Timestamp::from_second(clock::now().as_second() + 5).unwrap();
    let end_it = json!({ "spec": { "until": end.to_string() } });
    dave.merge(&own, &end_it).await.unwrap();
    let ended = |status: &Value| condition(status, "Active").0 == "False";
    let status = until(&admin, &own, "the Freeze has ended", ended).await;
    assert!(clock::now() >= end, "it ended before {end}");
    let message = format!("it ended at {end:.0}");
    let expected = ("False", "Ended", &*message);
    assert_eq!(condition(&status, "Active"), expected);
    dave.delete(&own).await.unwrap();
}

#[tokio::test]
async fn a_template_says_whether_it_is_accepted_and_how_many_rollouts_use_it() {
    let scene = Scene::new("template-status").await;
    let (admin, own) = (User::admin(&scene), path(&scene, "analysistemplates/http"));
    let spec = |errors: &str| {
        let total =
            r#"http_requests_total{pod_template_hash="{{revision}}",path="{{args.route}}"}"#;
        let check = json!({ "name": "errors", "errors": errors, "total": total });
        json!({ "args": [{ "name": "route" }], "checks": [check] })
    };
    let template = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "AnalysisTemplate",
        "metadata": { "name": "http" }, "spec": spec("sum("),
    });
    let templates = path(&scene, "analysistemplates");
    admin.create(&templates, &template).await.unwrap();
    let analysis = json!({ "templates": [{ "name": "http", "args": [{ "name": "route", "value": "/pay" }] }] });
    let using = |name: &str| {
        small(name).spec(json!({ "strategy": { "canary": { "analysis": analysis } } }))
    };
    scene.apply(&using("shop")).await;
    scene.apply(&using("bank")).await;
    let refused = |status: &Value| condition(status, "Accepted").1 == "Invalid";
    let status = until(&admin, &own, "the query is named", refused).await;
    let (value, _, message) = condition(&status, "Accepted");
    assert_eq!(value, "False");
    let words = "field `errors` of check `errors`: the query is not PromQL";
    assert!(message.contains(words), "{message}");
    assert_eq!(condition(&status, "Stalled").0, "True");

    let sound = r#"http_requests_total{pod_template_hash="{{revision}}",code=~"5.."}"#;
    let corrected = json!({ "spec": spec(sound) });
    admin.merge(&own, &corrected).await.unwrap();
    let used = |status: &Value| condition(status, "Accepted").0 == "True" && status["usedBy"] == 2;
    let status = until(&admin, &own, "it is accepted and used by both", used).await;
    assert_eq!(condition(&status, "Accepted").1, "Accepted");
    assert_eq!(condition(&status, "Stalled").0, "");
    let generation = admin.get(&own).await.unwrap()["metadata"]["generation"].clone();
    assert_eq!(status["observedGeneration"], generation);
    let columns = run("kubectl", &["-n", &scene.namespace, "get", "cat", "http"]);
    for word in ["CHECKS", "ACCEPTED", "USED BY", "Accepted", " 2 "] {
        assert!(columns.contains(word), "{word} is not shown:\n{columns}");
    }

    scene.apply(&small("bank")).await;
    let one = |status: &Value| status["usedBy"] == 1;
    until(&admin, &own, "one Rollout uses it no longer", one).await;
}
