//! Routers with a delay.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::observation::Observation;
use crate::traffic::routes::Routes;

/// A state that a router may act on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Belief {
    /// Services that get any requests.
    pub(super) used: BTreeSet<String>,
    /// Revisions with ready pods behind each Service.
    pub(super) behind: BTreeMap<String, BTreeSet<String>>,
}

/// The state that a router may act on now: Services with requests, and the pods behind them.
pub(super) fn belief(observation: &Observation) -> Belief {
    let mut used = BTreeSet::new();
    // Without routes the stable Service has all requests.
    let canary = &observation.spec.strategy.canary;
    let alone = canary.stable_service.iter();
    let alone = alone.filter(|_| canary.traffic.is_none());
    used.extend(
        alone
            .filter(|name| selects_a_revision(observation, name))
            .cloned(),
    );
    let objects = observation
        .traffic
        .routes
        .iter()
        .filter_map(|route| route.object.as_ref().ok());
    for object in objects {
        let rules = object
            .object
            .pointer("/spec/rules")
            .and_then(Value::as_array);
        let backends = rules
            .into_iter()
            .flatten()
            .filter_map(|rule| rule.get("backendRefs")?.as_array());
        for backend in backends.flatten() {
            let weight = backend.get("weight").and_then(Value::as_i64);
            let name = backend.get("name").and_then(Value::as_str);
            let selects = name.is_some_and(|name| selects_a_revision(observation, name));
            let sends = selects && weight > Some(0);
            used.extend(name.filter(|_| sends).map(ToOwned::to_owned));
        }
    }
    let behind = observation.traffic.endpoints.iter();
    let behind = behind.map(|(service, ready)| (service.clone(), ready.keys().cloned().collect()));
    Belief {
        used,
        behind: behind.collect(),
    }
}

/// Whether a Service selects pods of one revision: before a first revision is stable, it selects any pods
/// that existed.
fn selects_a_revision(observation: &Observation, service: &str) -> bool {
    let service = observation.traffic.services.get(service);
    let service = service.and_then(Option::as_ref);
    service.is_some_and(|it| it.selector.contains_key(countersign_api::HASH_LABEL))
}

/// Writes the status of an accepted route.
pub fn accept(route: &mut Value) {
    let generation = route
        .pointer("/metadata/generation")
        .cloned()
        .unwrap_or_default();
    let condition =
        |kind: &str| json!({ "type": kind, "status": "True", "observedGeneration": generation });
    let parents = route
        .pointer("/spec/parentRefs")
        .and_then(Value::as_array)
        .cloned();
    let parents: Vec<_> = parents
        .into_iter()
        .flatten()
        .map(|parent| json!({ "parentRef": parent, "conditions": [condition("Accepted"), condition("ResolvedRefs")] }))
        .collect();
    if let Some(route) = route.as_object_mut() {
        route.insert("status".into(), json!({ "parents": parents }));
    }
}

/// The canary's share of the requests by the routes, as a fraction; `None` without routes.
pub(super) fn routed_share(observation: &Observation) -> Option<f64> {
    crate::observation::is_routed(observation)
        .then(|| f64::from(Routes::of(observation).share.unwrap_or(0)) / 100.0)
}
