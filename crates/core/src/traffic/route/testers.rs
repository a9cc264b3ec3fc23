//! Rules that route requests of testers.

use countersign_api::traffic::{RouteKind, Testers};
use serde_json::{Map, Value, json};

use crate::observation::traffic::RouteObject;
use crate::traffic::route::rule::{self, Rule};

/// The spec of the controller's own route for testers: the same parents and hostnames, and each rule's
/// matches with the testers' headers, all to the canary. A more specific match takes precedence, so the
/// owner's route is not changed. `None` if no rule can match a tester.
#[must_use]
pub fn testers(
    kind: RouteKind,
    object: &RouteObject,
    rules: &[Rule],
    testers: &Testers,
) -> Option<Value> {
    let mark = mark(kind, testers);
    let rule = |rule: &Rule| {
        let matches = rule.value.get("matches").and_then(Value::as_array);
        let mut matches = matches.cloned().unwrap_or_default();
        if matches.is_empty() {
            matches.push(json!({}));
        }
        matches.retain_mut(|it| it.as_object_mut().is_some_and(|it| is_marked(it, &mark)));
        if matches.is_empty() {
            return None;
        }
        let mut backend = rule.canary.value.clone();
        if let Some(backend) = backend.as_object_mut() {
            backend.insert("weight".into(), json!(1));
        }
        let mut own = json!({ "matches": matches, "backendRefs": [backend] });
        let mirror = rule::mirror_filter(rule).map(|(index, _)| index);
        let filters = rule.value.get("filters").and_then(Value::as_array);
        let filters: Vec<_> = filters
            .into_iter()
            .flatten()
            .enumerate()
            .filter(|(index, _)| Some(*index) != mirror)
            .map(|(_, filter)| filter.clone())
            .collect();
        if let Some(own) = own.as_object_mut() {
            if !filters.is_empty() {
                own.insert("filters".into(), json!(filters));
            }
            for key in ["timeouts", "retry", "sessionPersistence"] {
                if let Some(value) = rule.value.get(key) {
                    own.insert(key.into(), value.clone());
                }
            }
        }
        Some(own)
    };
    let rules: Vec<_> = rules.iter().filter_map(rule).collect();
    if rules.is_empty() {
        return None; // a route without rules would match every request
    }
    let mut spec = json!({ "rules": rules });
    for key in ["parentRefs", "hostnames"] {
        if let (Some(value), Some(spec)) = (
            object.object.pointer(&format!("/spec/{key}")),
            spec.as_object_mut(),
        ) {
            spec.insert(key.into(), value.clone());
        }
    }
    Some(spec)
}

/// Adds the testers' headers to one match of a rule; `false` if the match demands another value of one of
/// them, so that it never matched a tester. A header may appear only once in a match.
fn is_marked(one: &mut Map<String, Value>, mark: &[Value]) -> bool {
    let headers = one.entry("headers").or_insert_with(|| json!([]));
    let Some(headers) = headers.as_array_mut() else {
        return false;
    };
    let text = |header: &Value, key: &str| {
        let text = header.get(key).and_then(Value::as_str);
        text.map(str::to_owned)
    };
    let name = |header: &Value| text(header, "name").map(|name| name.to_ascii_lowercase());
    let is_exact = |header: &Value| text(header, "type").is_none_or(|kind| kind == "Exact");
    for header in mark {
        match headers.iter_mut().find(|it| name(it) == name(header)) {
            Some(own) if is_exact(own) && is_exact(header) => {
                if text(own, "value") != text(header, "value") {
                    return false;
                }
            }
            Some(own) => own.clone_from(header),
            None => headers.push(header.clone()),
        }
    }
    true
}

/// The header matches that identify testers.
fn mark(kind: RouteKind, testers: &Testers) -> Vec<Value> {
    let headers = testers
        .headers
        .iter()
        .map(|header| json!({ "type": "Exact", "name": header.name, "value": header.value }));
    let name = match kind {
        RouteKind::GRPCRoute => "cookie", // gRPC headers are in lower case
        RouteKind::HTTPRoute
        | RouteKind::TLSRoute
        | RouteKind::TCPRoute
        | RouteKind::VirtualService => "Cookie",
    };
    let cookie = testers.cookie.iter().map(|cookie| {
        let value = format!(r"(^|.*;\s*){}={}(;.*|$)", cookie.name, cookie.value);
        json!({ "type": "RegularExpression", "name": name, "value": value })
    });
    headers.chain(cookie).collect()
}
