//! Requests of testers, which reach the canary before anybody else.

use countersign_api::rollout::{RolloutStatus, Stage};
use countersign_api::traffic::RouteKind;
use serde_json::Value;

use crate::decision::Action;
use crate::observation::Observation;
use crate::observation::traffic::{Route, RouteObject};
use crate::replicas::present;
use crate::traffic::route::{rule, subsets, testers};
use crate::traffic::{routes, services, share};

/// The controller's own route for testers comes and goes with the pods that they test.
pub(super) fn testers(
    observation: &Observation,
    status: &RolloutStatus,
    route: &Route,
    object: &RouteObject,
    rules: &[rule::Rule],
) -> Option<Action> {
    let (kind, name) = (
        route.reference.kind,
        routes::testers_name(&route.reference.name),
    );
    match wanted_testers(observation, status, route, object, rules) {
        Some(spec) => {
            let there = route
                .testers
                .as_ref()
                .and_then(|own| own.object.get("spec"));
            let done = there.is_some_and(|there| includes(there, &spec));
            (!done).then(|| Action::ApplyTesters {
                kind,
                api_version: object.api_version(),
                exists: route.testers.is_some(),
                name,
                spec,
            })
        }
        // While it is tested a moment's doubt takes it from nobody.
        None if is_tested(status) => None,
        None => route.testers.as_ref().map(|own| Action::DeleteTesters {
            kind,
            api_version: own.api_version(),
            name,
        }),
    }
}

pub(super) fn wanted_testers(
    observation: &Observation,
    status: &RolloutStatus,
    route: &Route,
    object: &RouteObject,
    rules: &[rule::Rule],
) -> Option<Value> {
    let kind = route.reference.kind;
    let testers = observation
        .spec
        .strategy
        .canary
        .traffic
        .as_ref()?
        .testers
        .as_ref()?;
    let change = status.change.as_ref()?;
    let tested = is_tested(status);
    let able = matches!(kind, RouteKind::HTTPRoute | RouteKind::GRPCRoute);
    let (limits, present) = (
        present::limits(observation),
        present::present(observation, status),
    );
    let served = able && tested && share::can_take(observation, change, limits, &present, 0);
    served
        .then(|| testers::testers(kind, object, rules, testers))
        .flatten()
}

fn is_tested(status: &RolloutStatus) -> bool {
    let change = status.change.as_ref();
    change.is_some_and(|it| matches!(it.stage, Stage::Stepping | Stage::Promoting) && !it.initial)
}

/// Whether a stored value has all that was asked for; the API server adds defaults.
fn includes(stored: &Value, asked: &Value) -> bool {
    match (stored, asked) {
        (Value::Object(stored), Value::Object(asked)) => asked.iter().all(|(key, asked)| {
            stored
                .get(key)
                .is_some_and(|stored| includes(stored, asked))
        }),
        (Value::Array(stored), Value::Array(asked)) => {
            stored.len() == asked.len() && stored.iter().zip(asked).all(|(a, b)| includes(a, b))
        }
        (stored, asked) => stored == asked,
    }
}

/// Subsets follow their revisions as named Services do.
pub(super) fn select_subsets(
    observation: &Observation,
    status: &RolloutStatus,
    route: &Route,
) -> Option<Action> {
    let subsets = route.reference.destination_rule.as_ref()?;
    let rule = route.destination_rule.as_ref()?.as_ref().ok()?;
    let (stable, canary) = services::sides(observation, status);
    let operations = subsets::select(rule, subsets, stable, canary).ok()?;
    (!operations.is_empty()).then(|| Action::SelectSubsets {
        name: subsets.name.clone(),
        api_version: rule.api_version(),
        operations,
    })
}
