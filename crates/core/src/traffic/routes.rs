//! The routes that a Rollout names, as they are.

use std::collections::BTreeSet;

use countersign_api::traffic::RouteKind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;

use crate::observation::traffic::{Absence, Route, RouteObject};
use crate::observation::{self, Observation};
use crate::traffic::route::rule::{self, Sides};
use crate::traffic::route::status::{self, Acceptance};
use crate::traffic::route::subsets;
use crate::{names, reason};

/// Longest name of a route.
const MAX_NAME: usize = 253;
/// How long after its weights were written a route counts as accepted whose status does not say which
/// generation it means.
const UNDATED: SignedDuration = SignedDuration::from_secs(5);

/// Why the routes cannot be used at all, with the reason in one word; `None` where they can.
#[must_use]
pub fn problem(observation: &Observation) -> Option<(&'static str, String)> {
    observation.routes.iter().find_map(|route| {
        let (kind, name) = (route.reference.kind, &route.reference.name);
        let found = absent(&route.object, kind.as_str(), name).or_else(|| {
            rules_of(observation, route)
                .err()
                .map(|problem| (reason::ROUTE_INVALID, format!("{kind} {name}: {problem}")))
        });
        found.or_else(|| {
            let subsets = route.reference.destination_rule.as_ref()?;
            let rule = route.destination_rule.as_ref()?;
            absent(rule, "DestinationRule", &subsets.name).or_else(|| {
                let problem = subsets::selected(rule.as_ref().ok()?, subsets).err()?;
                Some((
                    reason::ROUTE_INVALID,
                    format!("DestinationRule {}: {problem}", subsets.name),
                ))
            })
        })
    })
}

fn absent(
    object: &Result<RouteObject, Absence>,
    kind: &str,
    name: &str,
) -> Option<(&'static str, String)> {
    Some(match object.as_ref().err()? {
        Absence::NotInstalled => (
            reason::ROUTER_NOT_INSTALLED,
            format!(
                "the cluster has no {kind}: install its definition, or remove {name} from spec.strategy.canary.traffic.routes"
            ),
        ),
        Absence::NotFound => (
            reason::ROUTE_NOT_FOUND,
            format!(
                "{kind} {name}, which spec.strategy.canary.traffic names, does not exist in this namespace: create it or remove the name"
            ),
        ),
        Absence::Unreadable { message } => (
            reason::ROUTE_NOT_FOUND,
            format!("{kind} {name} cannot be read: {message}"),
        ),
    })
}

fn sides<'a>(observation: &'a Observation, route: &'a Route) -> Option<Sides<'a>> {
    if let Some(subsets) = &route.reference.destination_rule {
        let rule = route.destination_rule.as_ref()?.as_ref().ok();
        return Some(Sides::Subsets {
            namespace: &observation.namespace,
            host: rule.and_then(|it| it.object.pointer("/spec/host")?.as_str()),
            subsets,
        });
    }
    let canary = &observation.spec.strategy.canary;
    Some(Sides::Services {
        namespace: &observation.namespace,
        stable: canary.stable_service.as_deref()?,
        canary: canary.canary_service.as_deref()?,
    })
}

/// The rules of a route whose weights are the Rollout's.
pub(super) fn rules_of<'a>(
    observation: &'a Observation,
    route: &'a Route,
) -> Result<Vec<rule::Rule<'a>>, rule::Problem> {
    let object = route
        .object
        .as_ref()
        .map_err(|_| "it is not there".to_owned())?;
    let sides =
        sides(observation, route).ok_or("stableService and canaryService are not both named")?;
    rule::rules(route.reference.kind, object, &route.reference.rules, sides)
}

/// The rules that also send to a Service for which this holds, each in words.
#[must_use]
pub fn shared_rules(observation: &Observation, holds: impl Fn(&str) -> bool) -> Vec<String> {
    let routes = observation.routes.iter().filter_map(|route| {
        let rules = rules_of(observation, route).ok()?;
        Some((route, rules))
    });
    let shared = routes.flat_map(|(route, rules)| {
        let (kind, name) = (route.reference.kind, &route.reference.name);
        let shared = rules
            .into_iter()
            .filter(|rule| rule.others.iter().any(|it| holds(it)));
        shared
            .map(move |rule| format!("{} of {kind} {name}", rule.label))
            .collect::<Vec<_>>()
    });
    shared.collect()
}

/// The largest share that a route gives the canary now, in percent; `None` where that cannot be told.
#[must_use]
pub fn share(observation: &Observation) -> Option<i32> {
    let shares = observation.routes.iter().map(|route| {
        let rules = rules_of(observation, route).ok()?;
        Some(rule::share(&rules))
    });
    shares.collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// The revisions that the subsets of a route select; `None` where it has none.
pub(super) fn subsets(route: &Route) -> Option<(Option<&str>, Option<&str>)> {
    let subsets = route.reference.destination_rule.as_ref()?;
    let rule = route.destination_rule.as_ref()?.as_ref().ok()?;
    subsets::selected(rule, subsets).ok()
}

/// The share that the routes give the canary, in percent, or the one that was last known.
#[must_use]
pub fn present_share(observation: &Observation) -> i32 {
    let known = observation.status.traffic.as_ref();
    share(observation).unwrap_or_else(|| known.map_or(0, |it| it.weight))
}

/// Whether it cannot be told what share the routes give the canary.
#[must_use]
pub fn is_unknown(observation: &Observation) -> bool {
    observation::is_routed(observation) && share(observation).is_none()
}

/// The revisions that the stable subsets of the routes select.
pub fn stable_subsets(observation: &Observation) -> impl Iterator<Item = &str> {
    let selected = observation.routes.iter().filter_map(subsets);
    selected.filter_map(|(stable, _)| stable)
}

/// The revisions that the canary subsets of the routes select.
pub fn canary_subsets(observation: &Observation) -> impl Iterator<Item = &str> {
    let selected = observation.routes.iter().filter_map(subsets);
    selected.filter_map(|(_, canary)| canary)
}

/// Whether a subset of a DestinationRule selects this revision.
#[must_use]
pub fn a_subset_selects(observation: &Observation, hash: &str) -> bool {
    let mut selected = observation.routes.iter().filter_map(subsets);
    selected.any(|(stable, canary)| [stable, canary].contains(&Some(hash)))
}

/// Name of the controller's own route for testers.
#[must_use]
pub fn testers_name(route: &str) -> String {
    names::ending(route, "testers", MAX_NAME)
}

/// Why the routers have not accepted a route with the canary's present share; `None` where they have.
/// Where a status does not say which generation it means, it counts a while after the weights were seen.
pub(super) fn unaccepted(
    observation: &Observation,
    kind: RouteKind,
    object: &RouteObject,
    share: i32,
) -> Option<String> {
    let parent = match status::acceptance(kind, object) {
        Acceptance::Accepted => return None,
        Acceptance::Pending(why) => return Some(why),
        Acceptance::Undated(parent) => parent,
    };
    let seconds = UNDATED.as_secs();
    let over = weighed_at(observation, share)
        .is_some_and(|since| observation.now.duration_since(since.0) >= UNDATED);
    (!over).then(|| {
        format!(
            "{parent} does not say which version of it it accepts (observedGeneration), so that counts {seconds} s after the weights were written"
        )
    })
}

/// Since when the routes have given the canary this share, as the status has it.
pub(super) fn weighed_at(observation: &Observation, share: i32) -> Option<&Time> {
    let before = observation.status.traffic.as_ref()?;
    before
        .weighed_at
        .as_ref()
        .filter(|_| before.weight == share)
}

/// Parents of routes that do not say which generation of a route they accept, such as `Service mesh`.
#[must_use]
pub fn undated_parents(observation: &Observation) -> BTreeSet<String> {
    let parent = |route: &Route| {
        let object = route.object.as_ref().ok()?;
        match status::acceptance(route.reference.kind, object) {
            Acceptance::Undated(parent) => Some(parent),
            Acceptance::Accepted | Acceptance::Pending(_) => None,
        }
    };
    observation.routes.iter().filter_map(parent).collect()
}
