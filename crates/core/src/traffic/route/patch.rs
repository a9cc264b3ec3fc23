//! Patches of weights and mirrors, each after a test of the stored value.

use countersign_api::traffic::{RouteKind, Router};
use serde_json::{Map, Value, json};

use crate::observation::traffic::RouteObject;
use crate::traffic::route::rule::{self, Problem, Rule};

pub(super) fn test(path: &str, value: &Value) -> Value {
    json!({ "op": "test", "path": path, "value": value })
}

pub(super) fn add(path: &str, value: &Value) -> Value {
    json!({ "op": "add", "path": path, "value": value })
}

/// Tests that the object is the observed one, and not one of the same name created since.
pub(super) fn same(object: &RouteObject) -> Value {
    let uid = object.object.pointer("/metadata/uid");
    test("/metadata/uid", uid.unwrap_or(&Value::Null))
}

/// The patch that gives the canary this share, and mirrors `mirror` percent of the requests.
pub fn patch(
    kind: RouteKind,
    object: &RouteObject,
    rules: &[Rule],
    share: i32,
    mirror: Option<i32>,
) -> Result<Vec<Value>, Problem> {
    let mut operations = vec![same(object)];
    for rule in rules {
        let mirror = mirror.filter(|_| rule.can_mirror(kind));
        if rule.is_at(share) && rule.mirrors(kind, mirror) {
            continue;
        }
        // The whole rule is tested, since another rule may have moved to this index.
        operations.push(test(&rule.path, rule.value));
        if !rule.mirrors(kind, mirror) {
            mirror_patch(kind, rule, mirror, &mut operations)?;
        }
        let (stable, canary) = rule.weights(share)?;
        for (backend, weight) in [(&rule.stable, stable), (&rule.canary, canary)] {
            operations.push(add(&format!("{}/weight", backend.path), &json!(weight)));
        }
    }
    Ok(operations)
}

fn mirror_patch(
    kind: RouteKind,
    rule: &Rule,
    mirror: Option<i32>,
    operations: &mut Vec<Value>,
) -> Result<(), Problem> {
    match kind.router() {
        Router::GatewayApi => gateway_mirror_patch(rule, mirror, operations),
        Router::Istio => istio_mirror_patch(kind, rule, mirror, operations)?,
    }
    Ok(())
}

fn istio_mirror_patch(
    kind: RouteKind,
    rule: &Rule,
    mirror: Option<i32>,
    operations: &mut Vec<Value>,
) -> Result<(), Problem> {
    let path = &rule.path;
    let keys = ["mirror", "mirrorPercentage"];
    let Some(percent) = mirror else {
        let there = keys.iter().filter(|key| rule.value.get(**key).is_some());
        operations.extend(there.map(|key| remove(&format!("{path}/{key}"))));
        return Ok(());
    };
    if rule::mirrored(kind, rule).is_none() && rule.value.get("mirror").is_some() {
        return Err(format!("{} mirrors to something else already", rule.label));
    }
    let destination = rule.canary.value.get("destination").cloned();
    operations.push(add(
        &format!("{path}/mirror"),
        &destination.unwrap_or_default(),
    ));
    let percent = json!({ "value": percent });
    operations.push(add(&format!("{path}/mirrorPercentage"), &percent));
    Ok(())
}

fn gateway_mirror_patch(rule: &Rule, mirror: Option<i32>, operations: &mut Vec<Value>) {
    let path = &rule.path;
    if let Some((index, _)) = rule::mirror_filter(rule) {
        let filters = rule.value.get("filters").and_then(Value::as_array);
        let alone = filters.is_some_and(|all| all.len() == 1) && mirror.is_none();
        operations.push(remove(&if alone {
            format!("{path}/filters")
        } else {
            format!("{path}/filters/{index}")
        }));
    }
    let Some(percent) = mirror else {
        return;
    };
    let keys = ["name", "port"];
    let backend: Map<_, _> = keys
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), rule.canary.value.get(key)?.clone())))
        .collect();
    let mut request_mirror = json!({ "backendRef": backend });
    // Omitted for 100%, which routers without this field support too.
    if let Some(map) = request_mirror.as_object_mut().filter(|_| percent < 100) {
        map.insert("percent".into(), json!(percent));
    }
    let filter = json!({ "type": "RequestMirror", "requestMirror": request_mirror });
    if rule.value.get("filters").is_some() {
        operations.push(add(&format!("{path}/filters/-"), &filter));
    } else {
        operations.push(add(&format!("{path}/filters"), &json!([filter])));
    }
}

fn remove(path: &str) -> Value {
    json!({ "op": "remove", "path": path })
}
