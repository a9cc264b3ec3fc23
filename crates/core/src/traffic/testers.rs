//! Requests of testers, which reach the canary before other requests.

use std::collections::BTreeSet;

use countersign_api::rollout::Stage;
use serde_json::{Map, Value};

use crate::decision::{TestersRoute, TrafficAction};
use crate::observation::traffic::{Route, RouteObject};
use crate::traffic::route::{rule, subsets, testers};
use crate::traffic::view::View;
use crate::traffic::{routes, services, share};

/// Creates the controller's own route for testers with the pods under test, and deletes it with them.
pub(super) fn testers(
    view: &View,
    route: &Route,
    object: &RouteObject,
    rules: &[rule::Rule],
) -> Option<TrafficAction> {
    let (kind, name) = (
        route.reference.kind,
        routes::testers_name(&route.reference.name),
    );
    match wanted_testers(view, route, object, rules) {
        Some(spec) => {
            let own = route.testers.as_ref();
            let done = own.is_some_and(|own| edited_fields(own, &spec).is_none());
            let route = TestersRoute {
                kind,
                api_version: object.api_version(),
                exists: route.testers.is_some(),
                name,
                spec,
            };
            (!done).then_some(TrafficAction::ApplyTesters(route))
        }
        // A short interruption does not remove the route during a test.
        None if is_tested(view) => None,
        None => route
            .testers
            .as_ref()
            .map(|own| TrafficAction::DeleteTesters {
                kind,
                api_version: own.api_version(),
                name,
            }),
    }
}

pub(super) fn wanted_testers(
    view: &View,
    route: &Route,
    object: &RouteObject,
    rules: &[rule::Rule],
) -> Option<Value> {
    let kind = route.reference.kind;
    let traffic = view.observation.spec.strategy.canary.traffic.as_ref()?;
    let (testers, change) = (traffic.testers.as_ref()?, view.change?);
    let served = kind.matches_headers() && is_tested(view) && share::can_take(view, change, 0);
    served
        .then(|| testers::testers(kind, object, rules, testers))
        .flatten()
}

fn is_tested(view: &View) -> bool {
    view.change
        .is_some_and(|it| matches!(it.stage, Stage::Stepping | Stage::Promoting) && !it.initial)
}

/// The fields in the spec of a route for testers that differ from what was decided; `None` if none does. An added one
/// counts, too, since the API server adds none.
pub(super) fn edited_fields(own: &RouteObject, decided: &Value) -> Option<String> {
    let stored = own.object.get("spec").unwrap_or(&Value::Null);
    let specs = [stored, decided].into_iter().filter_map(Value::as_object);
    let fields: BTreeSet<_> = specs.flat_map(Map::keys).map(String::as_str).collect();
    let edited = fields
        .into_iter()
        .filter(|field| stored.get(*field) != decided.get(*field));
    let edited: Vec<_> = edited.collect();
    (!edited.is_empty()).then(|| edited.join(", "))
}

/// Makes subsets follow their revisions, as named Services do.
pub(super) fn select_subsets(view: &View, route: &Route) -> Option<TrafficAction> {
    let subsets = route.reference.destination_rule.as_ref()?;
    let rule = route.destination_rule.as_ref()?.as_ref().ok()?;
    let (stable, canary) = services::sides(view);
    let operations = subsets::select(rule, subsets, stable, canary).ok()?;
    (!operations.is_empty()).then(|| TrafficAction::SelectSubsets {
        name: subsets.name.clone(),
        api_version: rule.api_version(),
        operations,
    })
}
