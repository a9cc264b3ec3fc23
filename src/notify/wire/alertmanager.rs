//! Alerts for the API of Prometheus' Alertmanager (v2), which routes, groups and silences them.
//!
//! An alert is what its labels are; one of them is the id of its message, so that the second of two rollbacks is not
//! taken for the first. It is repeated with its end a few minutes ahead, so that it ends even if this process does, and
//! ends at once when what it says is over.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::notify::message::{Message, Subject};
use crate::notify::wire::request::Request;
use crate::timing::ALERT_REPEAT;

/// A message as an alert.
#[derive(Clone, Debug)]
pub struct Alert {
    /// What it says.
    pub message: Arc<Message>,
    /// Whether it is over.
    pub is_over: bool,
}

/// One request for these alerts.
#[must_use]
pub fn request(alerts: &[Alert], cluster: &str, now: Timestamp) -> Request {
    let ahead = SignedDuration::try_from(ALERT_REPEAT * 3).unwrap_or(SignedDuration::ZERO);
    let later = now.saturating_add(ahead).unwrap_or(now);
    let alerts = alerts.iter().map(|alert| {
        let ends_at = if alert.is_over { now } else { later };
        posted(&alert.message, cluster, ends_at)
    });
    let alerts: Value = alerts.collect();
    Request::json(&alerts)
}

fn posted(message: &Message, cluster: &str, ends_at: Timestamp) -> Value {
    let mut labels = BTreeMap::from([
        (
            "alertname",
            format!("CountersignNotify{}", message.kind.as_str()),
        ),
        ("cluster", cluster.to_owned()),
        ("id", message.id.clone()),
        ("severity", message.kind.severity().as_str().to_owned()),
    ]);
    let mut annotations = BTreeMap::from([
        ("summary", message.title()),
        ("description", message.text.clone()),
    ]);
    match &message.subject {
        Subject::Attempt(attempt) => {
            labels.insert("namespace", attempt.namespace.clone());
            labels.insert("rollout", attempt.rollout.clone());
            labels.insert("run", attempt.run.clone());
            labels.insert("tier", attempt.tier.as_str().to_owned());
            annotations.insert("risk", attempt.risk.clone());
            annotations.insert("digest", attempt.digest.clone());
        }
        Subject::Freeze(name) => {
            labels.insert("freeze", name.clone());
        }
        Subject::Installation => {}
    }
    if let Some(command) = &message.command {
        annotations.insert("command", command.clone());
    }
    json!({
        "labels": labels,
        "annotations": annotations,
        // One that began in the future, by another clock, would be refused.
        "startsAt": message.at.min(ends_at).to_string(),
        "endsAt": ends_at.to_string(),
    })
}
