//! The observed routes of a Rollout.

use std::collections::BTreeSet;

use countersign_api::traffic::RouteKind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;

use crate::names;
use crate::observation::traffic::{Absence, Route, RouteObject};
use crate::observation::{self, Observation};
use crate::reason::Reason;
use crate::traffic::route::rule::{self, Sides};
use crate::traffic::route::status::{self, Acceptance};
use crate::traffic::route::subsets;

/// Longest name of a route, in characters.
const MAX_NAME: usize = 253;
/// Time after which written weights count as accepted if the route's status does not report a generation.
const UNDATED: SignedDuration = SignedDuration::from_secs(5);

/// The observed routes of a Rollout.
#[derive(Clone, Debug)]
pub struct Routes<'a> {
    /// Each of them, in the Rollout's order.
    pub all: Vec<ParsedRoute<'a>>,
    /// Why the routes cannot be used at all, with its reason; `None` if they can.
    pub problem: Option<(Reason, String)>,
    /// The largest canary share of any route, in percent; `None` if it is unknown.
    pub share: Option<i32>,
    /// That share, or the last known one.
    pub present_share: i32,
}

/// A route with the parts that belong to the Rollout.
#[derive(Clone, Debug)]
pub struct ParsedRoute<'a> {
    /// The route as it was observed.
    pub route: &'a Route,
    /// The rules whose weights belong to the Rollout, or why the route cannot be split.
    pub rules: Result<Vec<rule::Rule<'a>>, rule::Problem>,
    /// The revisions that its subsets select, stable first; `None` if it has no subsets.
    pub subsets: Option<(Option<&'a str>, Option<&'a str>)>,
}

impl<'a> Routes<'a> {
    /// The routes of an observation.
    #[must_use]
    pub fn of(observation: &'a Observation) -> Self {
        let all = observation.traffic.routes.iter();
        let all: Vec<_> = all.map(|it| ParsedRoute::of(observation, it)).collect();
        let shares = all
            .iter()
            .map(|it| it.rules.as_deref().ok().map(rule::share));
        let share = shares.collect::<Option<Vec<_>>>();
        let share = share.and_then(|shares| shares.into_iter().max());
        let known = observation.status.traffic.as_ref();
        Self {
            problem: all.iter().find_map(ParsedRoute::problem),
            share,
            present_share: share.unwrap_or_else(|| known.map_or(0, |it| it.weight)),
            all,
        }
    }

    /// Whether a subset of a DestinationRule selects this revision.
    #[must_use]
    pub fn a_subset_selects(&self, hash: &str) -> bool {
        let mut selected = self.all.iter().filter_map(|it| it.subsets);
        selected.any(|(stable, canary)| [stable, canary].contains(&Some(hash)))
    }

    /// Whether all routes give the canary this share.
    pub(super) fn are_at(&self, share: i32) -> bool {
        self.all.iter().all(|it| it.is_at(share))
    }
}

impl<'a> ParsedRoute<'a> {
    fn of(observation: &'a Observation, route: &'a Route) -> Self {
        let subsets = || {
            let subsets = route.reference.destination_rule.as_ref()?;
            let rule = route.destination_rule.as_ref()?.as_ref().ok()?;
            subsets::selected(rule, subsets).ok()
        };
        Self {
            route,
            rules: rules_of(observation, route),
            subsets: subsets(),
        }
    }

    fn problem(&self) -> Option<(Reason, String)> {
        let route = self.route;
        let (kind, name) = (route.reference.kind, &route.reference.name);
        let found = absent(&route.object, kind.as_str(), name).or_else(|| {
            let problem = self.rules.as_ref().err()?;
            Some((Reason::RouteInvalid, format!("{kind} {name}: {problem}")))
        });
        found.or_else(|| {
            let subsets = route.reference.destination_rule.as_ref()?;
            let rule = route.destination_rule.as_ref()?;
            absent(rule, "DestinationRule", &subsets.name).or_else(|| {
                let problem = subsets::selected(rule.as_ref().ok()?, subsets).err()?;
                Some((
                    Reason::RouteInvalid,
                    format!("DestinationRule {}: {problem}", subsets.name),
                ))
            })
        })
    }

    /// The stored route and its rules; `None` if it does not exist or cannot be split.
    pub(super) fn readable(&self) -> Option<(&'a RouteObject, &[rule::Rule<'a>])> {
        let object = self.route.object.as_ref().ok()?;
        Some((object, self.rules.as_deref().ok()?))
    }

    /// Whether the route gives the canary this share.
    pub(super) fn is_at(&self, share: i32) -> bool {
        let rules = self.rules.as_ref();
        rules.is_ok_and(|rules| rules.iter().all(|rule| rule.is_at(share)))
    }
}

fn absent(
    object: &Result<RouteObject, Absence>,
    kind: &str,
    name: &str,
) -> Option<(Reason, String)> {
    Some(match object.as_ref().err()? {
        Absence::NotInstalled => (
            Reason::RouterNotInstalled,
            format!(
                "the cluster has no {kind}: install its definition, or remove {name} from spec.strategy.canary.traffic.routes"
            ),
        ),
        Absence::NotFound => (
            Reason::RouteNotFound,
            format!(
                "{kind} {name}, which spec.strategy.canary.traffic names, does not exist in this namespace: create it or remove the name"
            ),
        ),
        Absence::Unreadable { message } => (
            Reason::RouteNotFound,
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

/// The rules of a route whose weights belong to the Rollout.
fn rules_of<'a>(
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

/// The rules that also send to a Service that matches the predicate, by name.
#[must_use]
pub fn shared_rules(observation: &Observation, holds: impl Fn(&str) -> bool) -> Vec<String> {
    let routes = Routes::of(observation).all;
    let shared = routes.iter().flat_map(|it| {
        let (kind, name) = (it.route.reference.kind, &it.route.reference.name);
        let rules = it.rules.as_deref().unwrap_or_default();
        let shared = rules
            .iter()
            .filter(|rule| rule.others.iter().any(|it| holds(it)));
        shared.map(move |rule| format!("{} of {kind} {name}", rule.label))
    });
    shared.collect()
}

/// Whether the canary's share is unknown.
pub(super) fn is_unknown(observation: &Observation, routes: &Routes) -> bool {
    observation::is_routed(observation) && routes.share.is_none()
}

/// Name of the controller's own route for testers.
#[must_use]
pub fn testers_name(route: &str) -> String {
    names::ending(route, "testers", MAX_NAME)
}

/// Why the routers have not accepted a route with the canary's present share; `None` if they have. A status
/// without a generation counts a while after the weights were observed.
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
            "{parent} does not report which generation it accepts (observedGeneration): the route counts as accepted {seconds} s after the weights were written"
        )
    })
}

/// Since when the routes have given the canary this share, according to the status.
pub(super) fn weighed_at(observation: &Observation, share: i32) -> Option<&Time> {
    let before = observation.status.traffic.as_ref()?;
    before
        .weighed_at
        .as_ref()
        .filter(|_| before.weight == share)
}

/// Parents of routes that do not report which generation they accept, such as `Service mesh`.
#[must_use]
pub fn undated_parents(observation: &Observation) -> BTreeSet<String> {
    let parent = |route: &Route| {
        let object = route.object.as_ref().ok()?;
        match status::acceptance(route.reference.kind, object) {
            Acceptance::Undated(parent) => Some(parent),
            Acceptance::Accepted | Acceptance::Pending(_) => None,
        }
    };
    observation
        .traffic
        .routes
        .iter()
        .filter_map(parent)
        .collect()
}
