//! What each kind of channel is sent. Pure.

pub mod alertmanager;
mod cloudevents;
pub mod request;
mod slack;

use serde_json::{Map, Value, json};

use crate::notify::config::ChannelKind;
use crate::notify::message::Message;
use crate::notify::wire::request::Request;

/// The path that is added to the address of a channel.
#[must_use]
pub const fn endpoint(kind: ChannelKind) -> Option<&'static str> {
    match kind {
        ChannelKind::Alertmanager => Some("/api/v2/alerts"),
        ChannelKind::CloudEvents | ChannelKind::Slack | ChannelKind::Webhook => None,
    }
}

/// The requests by which a channel is sent a message once. An Alertmanager is sent all that is an alert together, by
/// [`alertmanager`].
#[must_use]
pub fn requests(kind: ChannelKind, message: &Message, cluster: &str) -> Vec<Request> {
    match kind {
        ChannelKind::Alertmanager => Vec::new(),
        ChannelKind::CloudEvents => {
            let events = cloudevents::events(message, cluster);
            events.iter().map(cloudevents::request).collect()
        }
        ChannelKind::Slack => vec![Request::json(&slack::body(message, cluster))],
        ChannelKind::Webhook => vec![Request::json(&webhook(message, cluster))],
    }
}

/// The fields of a message with its id, its type and its time.
fn webhook(message: &Message, cluster: &str) -> Value {
    let mut body = Map::new();
    body.insert("id".to_owned(), json!(message.id));
    body.insert("type".to_owned(), json!(message.kind.event_type()));
    body.insert("time".to_owned(), json!(message.at.to_string()));
    if let Value::Object(fields) = message.fields(cluster) {
        body.extend(fields);
    }
    Value::Object(body)
}

#[cfg(test)]
mod tests;
