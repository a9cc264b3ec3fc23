//! Whether routers and endpoints have caught up, and when old pods no longer receive requests.

use countersign_api::RouteKind;
use countersign_api::rollout::{Change, Revision, Split, Stage};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::observation::traffic::RouteObject;
use crate::observation::{self, Observation};
use crate::replicas;
use crate::replicas::present::{self, Fleet};
use crate::traffic::route::patch;
use crate::traffic::route::rule::Rule;
use crate::traffic::route::status::{self, Acceptance};
use crate::traffic::routes::{ParsedRoute, Routes};
use crate::traffic::share::{self, Side};
use crate::traffic::view::View;
use crate::traffic::{corrections, routes, services, testers};

impl<'a> View<'a> {
    /// The view of an observation and these parts of a status.
    #[must_use]
    pub fn of(
        observation: &'a Observation,
        routes: &'a Routes<'a>,
        stable: Option<&'a Revision>,
        change: Option<&'a Change>,
        split: Option<&'a Split>,
    ) -> Self {
        let mut view = Self {
            observation,
            routes,
            stable,
            change,
            split,
            fleet: Fleet::of(observation, stable, change),
            share: 0,
            mirror: None,
            unsettled: None,
        };
        // Each field depends on those set before.
        view.share = share::desired(&view);
        view.mirror = share::mirror(&view);
        view.unsettled = change.and_then(|_| unsettled(&view));
        view
    }
}

/// Why the traffic differs from the status, in a sentence; `None` if it does not.
fn unsettled(view: &View) -> Option<String> {
    let observation = view.observation;
    if !observation::is_directed(observation) {
        return None;
    }
    if !services::selections(view).is_empty() {
        return Some("a Service does not select its revision yet".into());
    }
    let sides = [Side::Stable, Side::Canary].into_iter();
    let mut named = sides.filter_map(|side| side.service(observation));
    if let Some(service) = named.find(|service| share::lags(observation, service)) {
        return Some(format!(
            "the endpoints of Service {service} still have pods of another revision"
        ));
    }
    if let Some((_, problem)) = &view.routes.problem {
        return Some(problem.clone());
    }
    if observation::is_routed(observation) && observation.traffic.routes.is_empty() {
        return Some("the routes have not been read yet".into());
    }
    view.routes.all.iter().find_map(|route| {
        let (object, rules) = route.readable()?;
        unsettled_route(view, route, object, rules)
    })
}

fn unsettled_route(
    view: &View,
    parsed: &ParsedRoute,
    object: &RouteObject,
    rules: &[Rule],
) -> Option<String> {
    let (share, mirror, route) = (view.share, view.mirror, parsed.route);
    let (kind, name) = (route.reference.kind, &route.reference.name);
    if let Err(problem) = patch::patch(kind, object, rules, share, mirror) {
        return Some(format!("{kind} {name}: {problem}"));
    }
    let mut rules_there = rules.iter();
    let stray = rules_there.find(|rule| !rule.is_at(share) || !rule.mirrors(kind, mirror));
    if let Some(rule) = stray {
        return Some(format!(
            "{kind} {name}, {}, does not give the canary {share}% yet",
            rule.label
        ));
    }
    if let Some(why) = routes::unaccepted(view.observation, kind, object, share) {
        return Some(format!("{kind} {name} at {share}%: {why}"));
    }
    if let Some(decided) = testers::wanted_testers(view, route, object, rules) {
        let why = match route.testers.as_ref() {
            None => Some("it is not there yet".into()),
            Some(own) => untested(kind, own, &decided),
        };
        if let Some(why) = why {
            return Some(format!(
                "{kind} {} for testers: {why}",
                routes::testers_name(name)
            ));
        }
    }
    testers::select_subsets(view, route)
        .map(|_| format!("the subsets of {kind} {name} do not select their revisions yet"))
}

/// Why a route for testers does not count yet, in a sentence.
fn untested(kind: RouteKind, own: &RouteObject, decided: &Value) -> Option<String> {
    if let Some(edited) = testers::edited_fields(own, decided) {
        return Some(format!("its {edited} are not as decided yet"));
    }
    match status::acceptance(kind, own) {
        Acceptance::Pending(why) => Some(why),
        Acceptance::Accepted | Acceptance::Undated(_) => None,
    }
}

/// Why the present step has not begun although its pods are available, in a sentence.
#[must_use]
pub fn awaited(view: &View, change: &Change) -> Option<String> {
    if !observation::is_routed(view.observation) {
        return None;
    }
    if view.share < change.weight || !share::can_take(view, change, 0) {
        let service = Side::Canary.service(view.observation);
        let service = service.unwrap_or("of the subset");
        let hash = &change.pod_template_hash;
        let ready = share::ready(view.observation, service, hash);
        let needed = replicas::canary_for(view.fleet.limits, change.weight);
        let pods = if present::selected(view.observation, service) == Some(hash) {
            format!("has {ready} of {needed} ready pods of the new revision")
        } else {
            "does not select the new revision yet".into()
        };
        return Some(format!("the canary's Service {service} {pods}"));
    }
    view.unsettled.clone()
}

/// The state of the traffic for the status; `None` if the status has no change, or the traffic is not
/// split.
#[must_use]
pub fn split(view: &View) -> Option<Split> {
    let (observation, change) = (view.observation, view.change?);
    if !observation::is_directed(observation) {
        return None;
    }
    let before = observation.status.traffic.clone().unwrap_or_default();
    let wanted = if observation::is_routed(observation) {
        view.share
    } else {
        0
    };
    let settled = view.unsettled.is_none();
    let same = before.settled_weight == wanted;
    let reweighed = corrections::correction(view).is_some();
    let corrected = (reweighed || corrections::sets_back(view)).then_some(Time(observation.now));
    let settled_at = settled.then(|| {
        let since = before.settled_at.clone().filter(|_| same);
        since.unwrap_or(Time(observation.now))
    });
    let at_weights = view.routes.are_at(wanted);
    let weighed_at = (at_weights && !routes::undated_parents(observation).is_empty()).then(|| {
        let since = routes::weighed_at(observation, wanted).cloned();
        since.unwrap_or(Time(observation.now))
    });
    let drained = settled_at
        .as_ref()
        .is_some_and(|since| drained_at(observation, since.0) <= observation.now);
    // The drain matters only if pods follow the share, and until all of the traffic is back. Routers may
    // apply this decision's writes before that is observed.
    let is_back = settled && matches!(change.stage, Stage::Waiting | Stage::RolledBack);
    let over = (drained || is_back) && share::pods_follow(view.fleet.limits);
    let weight = view.routes.share.unwrap_or(before.weight);
    Some(Split {
        weight,
        settled_at,
        weighed_at,
        lowest_weight: if over {
            wanted
        } else {
            before.lowest_weight.min(weight).min(wanted)
        },
        highest_weight: if over {
            wanted
        } else {
            before.highest_weight.max(weight).max(wanted)
        },
        settled_weight: if settled || reweighed {
            wanted
        } else {
            before.settled_weight
        },
        corrected_at: corrected.or_else(|| {
            let kept = same || corrections::keeps_interval(view);
            before.corrected_at.filter(|_| kept)
        }),
    })
}

/// Whether nothing has sent to old revisions for the drain time, according to the previous status.
#[must_use]
pub fn drained(view: &View) -> bool {
    if !observation::is_directed(view.observation) {
        return true;
    }
    let since = view.split.and_then(|it| it.settled_at.as_ref());
    since.is_some_and(|since| view.observation.now >= drained_at(view.observation, since.0))
}

/// When pods that have received no requests since `since` may be removed.
#[must_use]
pub fn drained_at(observation: &Observation, since: Timestamp) -> Timestamp {
    let drain = observation.spec.strategy.canary.drain.signed();
    since.saturating_add(drain).unwrap_or(Timestamp::MAX)
}

/// Whether the traffic of an ended change needs no further writes.
#[must_use]
pub fn is_over(view: &View) -> bool {
    !observation::is_routed(view.observation)
        || view.routes.problem.is_some()
        || (view.share == 0 && view.unsettled.is_none())
}
