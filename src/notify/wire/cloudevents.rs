//! CloudEvents 1.0 in the structured JSON mode; for a promotion and a rollback CDEvents 0.5.1 beside them.

use serde_json::{Value, json};

use crate::notify::message::{Attempt, Kind, Message, Subject};
use crate::notify::wire::request::Request;

/// The version of CDEvents.
const CDEVENTS: &str = "0.5.1";

/// The events of a message: our own, and the one of CDEvents that states the same, if there is one.
pub(super) fn events(message: &Message, cluster: &str) -> Vec<Value> {
    let source = source(message, cluster);
    let data = message.fields(cluster);
    let own = event(
        (message.id.as_str(), message.kind.event_type()),
        &source,
        message,
        &data,
    );
    let common = message
        .attempt()
        .and_then(|attempt| common(message, attempt, &source, cluster));
    std::iter::once(own).chain(common).collect()
}

/// The request for one event.
pub(super) fn request(event: &Value) -> Request {
    Request {
        content_type: "application/cloudevents+json; charset=utf-8",
        body: event.to_string(),
    }
}

fn event((id, kind): (&str, &str), source: &str, message: &Message, data: &Value) -> Value {
    let subject = match &message.subject {
        Subject::Attempt(attempt) => Some(&attempt.run),
        Subject::Freeze(name) => Some(name),
        Subject::Installation => None,
    };
    let mut event = json!({
        "specversion": "1.0",
        "id": id,
        "source": source,
        "type": kind,
        "time": message.at.to_string(),
        "datacontenttype": "application/json",
        "data": data,
    });
    // An attribute is left out, never null.
    if let (Some(event), Some(subject)) = (event.as_object_mut(), subject) {
        event.insert("subject".to_owned(), json!(subject));
    }
    event
}

fn source(message: &Message, cluster: &str) -> String {
    match &message.subject {
        Subject::Attempt(attempt) => {
            let (namespace, rollout) = (&attempt.namespace, &attempt.rollout);
            format!("/clusters/{cluster}/namespaces/{namespace}/rollouts/{rollout}")
        }
        Subject::Freeze(name) => format!("/clusters/{cluster}/freezes/{name}"),
        Subject::Installation => format!("/clusters/{cluster}"),
    }
}

/// The CDEvent that a service was deployed, upgraded or rolled back: of the first image, the one that a Rollout is
/// named after most often.
fn common(message: &Message, attempt: &Attempt, source: &str, cluster: &str) -> Option<Value> {
    let predicate = match message.kind {
        Kind::Promoted if attempt.is_first => "deployed",
        Kind::Promoted => "upgraded",
        Kind::RolledBack => "rolledback",
        _ => return None,
    };
    let id = format!("{}/cdevents", message.id);
    let kind = format!("dev.cdevents.service.{predicate}.0.3.0");
    let data = json!({
        "context": {
            "specversion": CDEVENTS,
            "id": id,
            "source": source,
            "type": kind,
            "timestamp": message.at.to_string(),
        },
        "subject": {
            "id": format!("{}/{}", attempt.namespace, attempt.rollout),
            "source": source,
            "type": "service",
            "content": {
                "environment": { "id": format!("{cluster}/{}", attempt.namespace) },
                "artifactId": package(attempt.images.first()?),
            },
        },
    });
    Some(event((id.as_str(), kind.as_str()), source, message, &data))
}

/// An image as a package URL: `pkg:oci/NAME@sha256%3A…?repository_url=…`, with its tag if it has no digest.
fn package(image: &str) -> String {
    let (place, digest) = match image.split_once('@') {
        Some((place, digest)) => (place, Some(digest)),
        None => (image, None),
    };
    let last = place.rfind('/').map_or(0, |at| at + 1);
    let (folder, name) = place.split_at(last);
    let (name, tag) = name.split_once(':').unwrap_or((name, ""));
    let repository = format!("{folder}{name}");
    let mut package = format!("pkg:oci/{}", encoded(&name.to_lowercase()));
    if let Some(digest) = digest {
        package.push('@');
        package.push_str(&encoded(digest));
    }
    package.push_str("?repository_url=");
    package.push_str(&encoded(&repository));
    if !tag.is_empty() {
        package.push_str("&tag=");
        package.push_str(&encoded(tag));
    }
    package
}

/// With percent signs, but for what package URLs have as it is.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~' | b'/') {
            encoded.push(char::from(byte));
        } else {
            encoded.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    encoded
}

fn digit(half: u8) -> char {
    let digit = char::from_digit(u32::from(half), 16);
    digit.unwrap_or('0').to_ascii_uppercase()
}
