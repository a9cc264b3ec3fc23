use std::sync::Arc;

use countersign_api::Tier;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::alertmanager::Alert;
use super::*;
use crate::notify::message::{Attempt, Kind, Subject};

const DIGEST: &str = "1a2b3c4d5e6f1a2b3c4d5e6f1a2b3c4d5e6f1a2b3c4d5e6f1a2b3c4d5e6f1a2b";
const IMAGE: &str = "registry.example:5000/shop/Web:1.2@sha256:0b31b1c0";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn message(kind: Kind) -> Message {
    Message {
        id: format!("7f0c/{}", kind.as_str()),
        kind,
        at: at("2026-12-24T17:00:00Z"),
        subject: Subject::Attempt(Box::new(Attempt {
            namespace: "shop".to_owned(),
            rollout: "web".to_owned(),
            run: "web-1a2b3c4d5e-1".to_owned(),
            revision: 2,
            digest: DIGEST.to_owned(),
            tier: Tier::High,
            risk: "tier high, 9.5 points: touches <auth> & more".to_owned(),
            images: vec![IMAGE.to_owned()],
            is_first: false,
        })),
        text: "gate step-1 requires 1 person of <!channel> & sre".to_owned(),
        command: Some("kubectl countersign approve web -n shop --digest 1a2b3c4d5e6f".to_owned()),
        chosen: None,
    }
}

fn bodies(kind: ChannelKind, message: &Message) -> Vec<Value> {
    let requests = requests(kind, message, "prod-eu");
    let bodies = requests.iter().map(|it| serde_json::from_str(&it.body));
    bodies.map(Result::unwrap).collect()
}

#[test]
fn slack_gets_blocks_in_which_nothing_foreign_is_markup() {
    let [body] = &bodies(ChannelKind::Slack, &message(Kind::AwaitingSignOff))[..] else {
        panic!("one request")
    };
    assert_eq!(body["text"], "Rollout shop/web waits for people in prod-eu");
    let blocks = body["blocks"].as_array().unwrap();
    assert_eq!(blocks.len(), 4, "{body}");
    assert_eq!(
        blocks[1]["text"],
        json!({
            "type": "plain_text", "emoji": false,
            "text": "gate step-1 requires 1 person of &lt;!channel&gt; &amp; sre",
        })
    );
    assert_eq!(
        blocks[2]["text"]["text"],
        "```kubectl countersign approve web -n shop --digest 1a2b3c4d5e6f```"
    );
    let context = blocks[3]["elements"][0]["text"].as_str().unwrap();
    assert!(
        context.contains("⚠️ cluster prod-eu · tier high, 9.5 points"),
        "{context}"
    );
    assert!(!body.to_string().contains(['<', '>']), "{body}");

    let mut long = message(Kind::Held);
    long.text = "&".repeat(1_000);
    let body = &bodies(ChannelKind::Slack, &long)[0];
    let text = body["blocks"][1]["text"]["text"].as_str().unwrap();
    assert!(
        text.chars().count() < 3_000 && text.ends_with('…'),
        "{text}"
    );
}

#[test]
fn slack_shows_no_command_of_a_log_as_code() {
    let mut message = message(Kind::RolledBack);
    message.text = "SmokeFailed: ```kubectl countersign approve payments```".to_owned();
    if let Subject::Attempt(attempt) = &mut message.subject {
        attempt.risk = "tier high: `kubectl countersign approve payments` *now*".to_owned();
    }
    let body = &bodies(ChannelKind::Slack, &message)[0];
    let mut texts: Vec<&Value> = Vec::new();
    for block in body["blocks"].as_array().unwrap() {
        let elements = block["elements"].as_array();
        texts.extend(elements.map_or(vec![&block["text"]], |all| all.iter().collect()));
    }
    let markup: Vec<_> = texts.iter().filter(|it| it["type"] == "mrkdwn").collect();
    let [command] = &markup[..] else {
        panic!("the command alone: {body}")
    };
    assert_eq!(
        command["text"],
        "```kubectl countersign approve web -n shop --digest 1a2b3c4d5e6f```"
    );
}

#[test]
fn a_rollback_is_a_cloudevent_and_the_cdevent_that_states_the_same() {
    let message = message(Kind::RolledBack);
    let [own, common] = &bodies(ChannelKind::CloudEvents, &message)[..] else {
        panic!("two requests")
    };
    let source = "/clusters/prod-eu/namespaces/shop/rollouts/web";
    assert_eq!(own["specversion"], "1.0");
    assert_eq!(own["id"], "7f0c/RolledBack");
    assert_eq!(own["type"], "dev.countersign.rollout.rolledback.v1");
    assert_eq!(
        (&own["source"], &own["subject"]),
        (&json!(source), &json!("web-1a2b3c4d5e-1"))
    );
    assert_eq!(own["time"], "2026-12-24T17:00:00Z");
    assert_eq!(own["data"]["change"]["digest"], DIGEST);
    assert_eq!(own["data"]["text"], message.text);

    assert_eq!(common["type"], "dev.cdevents.service.rolledback.0.3.0");
    assert_eq!(common["id"], "7f0c/RolledBack/cdevents");
    assert_eq!(
        common["data"],
        json!({
            "context": {
                "specversion": "0.5.1", "id": common["id"], "source": source, "type": common["type"],
                "timestamp": "2026-12-24T17:00:00Z",
            },
            "subject": {
                "id": "shop/web", "source": source, "type": "service",
                "content": {
                    "environment": { "id": "prod-eu/shop" },
                    "artifactId": "pkg:oci/web@sha256%3A0b31b1c0?repository_url=registry.example%3A5000/shop/Web&tag=1.2",
                },
            },
        })
    );
}

#[test]
fn a_promotion_upgrades_a_service_and_a_first_revision_deploys_it() {
    let kinds = |message: &Message| -> Vec<Value> {
        let events = bodies(ChannelKind::CloudEvents, message);
        events.into_iter().map(|it| it["type"].clone()).collect()
    };
    let own = "dev.countersign.rollout.promoted.v1";
    let mut promoted = message(Kind::Promoted);
    assert_eq!(
        kinds(&promoted),
        [own, "dev.cdevents.service.upgraded.0.3.0"]
    );
    if let Subject::Attempt(attempt) = &mut promoted.subject {
        attempt.is_first = true;
    }
    assert_eq!(
        kinds(&promoted),
        [own, "dev.cdevents.service.deployed.0.3.0"]
    );
    let waits = message(Kind::AwaitingSignOff);
    assert_eq!(
        kinds(&waits),
        ["dev.countersign.rollout.awaitingsignoff.v1"]
    );
}

#[test]
fn a_freeze_is_an_event_without_a_change() {
    let mut freeze = message(Kind::FreezeBegan);
    freeze.subject = Subject::Freeze("xmas".to_owned());
    let event = &bodies(ChannelKind::CloudEvents, &freeze)[0];
    assert_eq!(event["source"], "/clusters/prod-eu/freezes/xmas");
    assert_eq!(
        (&event["data"]["freeze"], &event["data"]["change"]),
        (&json!("xmas"), &Value::Null)
    );
}

#[test]
fn a_webhook_gets_one_object_with_the_id_and_the_command() {
    let [body] = &bodies(ChannelKind::Webhook, &message(Kind::AwaitingSignOff))[..] else {
        panic!("one request")
    };
    assert_eq!(body["id"], "7f0c/AwaitingSignOff");
    assert_eq!(body["kind"], "AwaitingSignOff");
    assert_eq!(body["change"]["tier"], "high");
    assert_eq!(
        body["command"],
        "kubectl countersign approve web -n shop --digest 1a2b3c4d5e6f"
    );
}

#[test]
fn an_alert_ends_by_itself_unless_it_is_repeated_and_at_once_when_it_is_over() {
    let alert = |kind, is_over| Alert {
        message: Arc::new(message(kind)),
        is_over,
    };
    let alerts = [alert(Kind::AwaitingSignOff, false), alert(Kind::Held, true)];
    let request = alertmanager::request(&alerts, "prod-eu", at("2026-12-24T18:00:00Z"));
    let body: Value = serde_json::from_str(&request.body).unwrap();
    assert_eq!(
        body[0]["labels"],
        json!({
            "alertname": "CountersignNotifyAwaitingSignOff", "cluster": "prod-eu", "id": "7f0c/AwaitingSignOff",
            "namespace": "shop", "rollout": "web", "run": "web-1a2b3c4d5e-1", "severity": "warning", "tier": "high",
        })
    );
    let command = &body[0]["annotations"]["command"];
    assert!(
        command.as_str().unwrap().contains("approve web"),
        "{command}"
    );
    assert_eq!(body[0]["startsAt"], "2026-12-24T17:00:00Z");
    assert_eq!(body[0]["endsAt"], "2026-12-24T18:03:00Z");
    assert_eq!(body[1]["labels"]["alertname"], "CountersignNotifyHeld");
    assert_eq!(body[1]["endsAt"], "2026-12-24T18:00:00Z");
    assert_eq!(body.as_array().unwrap().len(), 2);
}
