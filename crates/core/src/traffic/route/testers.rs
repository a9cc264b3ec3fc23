//! Rules that route requests of testers.

use countersign_api::traffic::{RouteKind, Testers};
use serde_json::{Map, Value, json};

use crate::observation::traffic::RouteObject;
use crate::traffic::route::rule::{self, Rule};

/// The spec of the controller's own route for testers: that of the owner's route, and of each of its rules the
/// matches with the testers' headers, all to the canary. A more specific match takes precedence, so the owner's
/// route is not changed. `None` if no rule can match a tester.
///
/// The API server has filled in its defaults in the owner's route, and would fill in none here: what it stores of
/// this spec is the same.
#[must_use]
pub fn testers(
    kind: RouteKind,
    object: &RouteObject,
    rules: &[Rule],
    testers: &Testers,
) -> Option<Value> {
    let mark = mark(kind, testers);
    let rules = rules.iter().filter_map(|it| own_rule(kind, it, &mark));
    let rules: Vec<_> = rules.collect();
    if rules.is_empty() {
        return None; // a route without rules would match every request
    }
    let mut spec = object.object.get("spec")?.as_object()?.clone();
    spec.insert("rules".into(), json!(rules));
    Some(Value::Object(spec))
}

/// A rule as it is for testers; `None` if it can match none of them.
fn own_rule(kind: RouteKind, rule: &Rule, mark: &[Value]) -> Option<Value> {
    let mut own = rule.value.as_object()?.clone();
    let mut matches = match own.get("matches").and_then(Value::as_array) {
        Some(matches) if !matches.is_empty() => matches.clone(),
        Some(_) => vec![every_request(kind)],
        None => vec![json!({})],
    };
    matches.retain_mut(|it| it.as_object_mut().is_some_and(|it| is_marked(it, mark)));
    if matches.is_empty() {
        return None;
    }
    own.insert("matches".into(), json!(matches));
    let mut backend = rule.canary.value.clone();
    if let Some(backend) = backend.as_object_mut() {
        backend.insert("weight".into(), json!(1));
    }
    own.insert("backendRefs".into(), json!([backend]));
    if let Some((index, _)) = rule::mirror_filter(rule)
        && let Some(filters) = own.get_mut("filters").and_then(Value::as_array_mut)
    {
        filters.remove(index);
    }
    if own.get("filters") == Some(&json!([])) {
        own.remove("filters");
    }
    Some(Value::Object(own))
}

/// A match of every request, for an empty list of matches: the API server would add the path to a match with headers.
fn every_request(kind: RouteKind) -> Value {
    match kind {
        RouteKind::HTTPRoute => json!({ "path": { "type": "PathPrefix", "value": "/" } }),
        RouteKind::GRPCRoute
        | RouteKind::TLSRoute
        | RouteKind::TCPRoute
        | RouteKind::VirtualService => json!({}),
    }
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
