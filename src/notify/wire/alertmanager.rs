//! Alerts for the API of Prometheus' Alertmanager (v2), which routes, groups and silences them.
//!
//! An alert is what its labels are. It is repeated with its end a few minutes ahead, so that it ends even if this
//! process does, and ends at once when what it says is over.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::notify::message::{Message, Subject};
use crate::notify::wire::request::Request;
use crate::timing::ALERT_REPEAT;

/// The labels of an alert, which identify it.
pub type Labels = BTreeMap<&'static str, String>;

/// One alert.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Its labels.
    pub labels: Labels,
    annotations: BTreeMap<&'static str, String>,
    starts_at: Timestamp,
}

/// The alert of a message.
#[must_use]
pub fn alert(message: &Message, cluster: &str) -> Alert {
    let mut labels = BTreeMap::from([
        (
            "alertname",
            format!("CountersignNotify{}", message.kind.as_str()),
        ),
        ("cluster", cluster.to_owned()),
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
            labels.insert("tier", attempt.tier.as_str().to_owned());
            annotations.insert("risk", attempt.risk.clone());
            annotations.insert("run", attempt.run.clone());
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
    Alert {
        labels,
        annotations,
        starts_at: message.at,
    }
}

/// One request for the alerts that fire and those that have ended.
#[must_use]
pub fn request(firing: &[Alert], ended: &[Alert], now: Timestamp) -> Request {
    let ahead = SignedDuration::try_from(ALERT_REPEAT * 3).unwrap_or(SignedDuration::ZERO);
    let later = now.saturating_add(ahead).unwrap_or(now);
    let firing = firing.iter().map(|alert| posted(alert, later));
    let ended = ended.iter().map(|alert| posted(alert, now));
    let alerts: Value = firing.chain(ended).collect();
    Request::json(&alerts)
}

fn posted(alert: &Alert, ends_at: Timestamp) -> Value {
    json!({
        "labels": alert.labels,
        "annotations": alert.annotations,
        // One that began in the future, by another clock, would be refused.
        "startsAt": alert.starts_at.min(ends_at).to_string(),
        "endsAt": ends_at.to_string(),
    })
}
