//! Whether a controller has accepted a route.

use countersign_api::traffic::{RouteKind, Router};
use serde_json::Value;

use crate::observation::traffic::RouteObject;

/// Whether the status of a route accepts its present generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// Every parent has accepted this generation.
    Accepted,
    /// Every parent has accepted it, but this one does not report the generation (`observedGeneration` is
    /// optional in the Gateway API).
    Undated(String),
    /// A parent has not accepted it; the reason in a sentence.
    Pending(String),
}

/// Conditions that a parent of a route must have.
const ACCEPTANCE: [&str; 2] = ["Accepted", "ResolvedRefs"];

/// Whether the parents of a route have accepted its present generation. Istio writes no status, so a
/// VirtualService counts as accepted once it is written.
#[must_use]
pub fn acceptance(kind: RouteKind, object: &RouteObject) -> Acceptance {
    match kind.router() {
        Router::GatewayApi => gateway_acceptance(&object.object),
        Router::Istio => Acceptance::Accepted,
    }
}

fn gateway_acceptance(route: &Value) -> Acceptance {
    let array = |path: &str| {
        let array = route.pointer(path).and_then(Value::as_array);
        array.into_iter().flatten()
    };
    let mut undated = None;
    let mut references = array("/spec/parentRefs").peekable();
    if references.peek().is_none() {
        return Acceptance::Pending(
            "no Gateway takes the route: it names none (spec.parentRefs)".to_owned(),
        );
    }
    for reference in references {
        let parent = parent_name(reference);
        // Entries of former parents are ignored, and so are entries of controllers that only attach an
        // object, such as a policy.
        let own = array("/status/parents").filter(|it| is_of(it, reference, route));
        let has_acceptance =
            |it: &&Value| ACCEPTANCE.iter().any(|kind| condition(it, kind).is_some());
        let entries: Vec<_> = own.filter(has_acceptance).collect();
        let complete = |it: &&Value| ACCEPTANCE.iter().all(|kind| condition(it, kind).is_some());
        for entry in &entries {
            match entry_acceptance(entry, &parent, route) {
                Acceptance::Accepted => {}
                Acceptance::Undated(parent) => undated = Some(parent),
                pending @ Acceptance::Pending(_) => return pending,
            }
        }
        if !entries.iter().any(complete) {
            let missing = if entries.is_empty() {
                "whether it accepts the route"
            } else {
                "both Accepted and ResolvedRefs of the route"
            };
            return Acceptance::Pending(format!("{parent} has not reported {missing}"));
        }
    }
    undated.map_or(Acceptance::Accepted, Acceptance::Undated)
}

/// A condition of one entry of a route's status.
fn condition<'a>(entry: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = entry.get("conditions").and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    conditions.find(|it| it.get("type").and_then(Value::as_str) == Some(kind))
}

/// Whether one entry of a route's status accepts the present generation.
fn entry_acceptance(entry: &Value, parent: &str, route: &Value) -> Acceptance {
    let generation = route
        .pointer("/metadata/generation")
        .and_then(Value::as_i64);
    let mut dated = true;
    for kind in ACCEPTANCE {
        let Some(found) = condition(entry, kind) else {
            continue;
        };
        let seen = found.get("observedGeneration").and_then(Value::as_i64);
        dated &= seen.is_some() || generation.is_none();
        if seen.is_some() && seen < generation {
            return Acceptance::Pending(format!(
                "{parent} has not observed the present generation of the route ({kind})"
            ));
        }
        let text = |key: &str| found.get(key).and_then(Value::as_str).unwrap_or_default();
        if text("status") != "True" {
            let (reason, message) = (text("reason"), text("message"));
            return Acceptance::Pending(format!(
                "{parent}: {kind} is not True: {reason}: {message}"
            ));
        }
    }
    if dated {
        Acceptance::Accepted
    } else {
        Acceptance::Undated(parent.to_owned())
    }
}

/// The name of a parent for messages, such as `Gateway public`.
fn parent_name(reference: &Value) -> String {
    let text = |key: &str| reference.get(key).and_then(Value::as_str);
    let kind = text("kind").unwrap_or("Gateway");
    format!("{kind} {}", text("name").unwrap_or_default())
}

/// Whether an entry of a route's status is about this parent reference. Omitted fields have the defaults of
/// the Gateway API; a reference without a section or a port matches all of them.
fn is_of(entry: &Value, reference: &Value, route: &Value) -> bool {
    let Some(of) = entry.get("parentRef") else {
        return false;
    };
    let namespace = route.pointer("/metadata/namespace").and_then(Value::as_str);
    let defaults = [
        ("group", Some("gateway.networking.k8s.io")),
        ("kind", Some("Gateway")),
        ("namespace", namespace),
        ("name", None),
    ];
    let same = |(key, default): &(&str, Option<&str>)| {
        let text = |it: &Value| it.get(*key).and_then(Value::as_str).map(str::to_owned);
        let default = || default.map(str::to_owned);
        text(of).or_else(default) == text(reference).or_else(default)
    };
    let part = |key: &&str| {
        let value = reference.get(*key);
        value.is_none() || value == of.get(*key)
    };
    defaults.iter().all(same) && ["sectionName", "port"].iter().all(part)
}
