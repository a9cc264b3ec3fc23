//! Where the traffic should go, and what brings it there.
//!
//! The state of record is the status; a route only follows it. The order that loses no request:
//! a share rises only once the receiving pods are ready behind their Service, a Service moves only
//! while no share depends on it, and pods go only once nothing has sent to them for the drain time.
//!
//! | stage | share of the canary |
//! |---|---|
//! | `Waiting` | 0 |
//! | `Stepping` | the step's weight, once its pods are ready behind the canary's Service |
//! | `Promoting` | the last step's weight, and all once the canary has its full size |
//! | `Promoted` | as it was, and 0 once the stable Service has moved to the same pods |
//! | `RollingBack` | 0, or what stable cannot carry yet where it gave up capacity |

use std::collections::{BTreeMap, BTreeSet};

use countersign_api::rollout::{Change, RolloutStatus, Split, Stage};
use countersign_api::traffic::RouteKind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::decision::{Action, Notice};
use crate::observation::traffic::{Absence, Route, RouteObject};
use crate::observation::{self, Observation};
use crate::replicas::{self, Limits, Present, Share};
use crate::route::{self, Acceptance, Sides};
use crate::{change, names, reason, workload};

/// Longest name of a route.
const MAX_NAME: usize = 253;
/// How long after its weights were written a route counts as accepted whose status does not say which
/// generation it means.
const UNDATED: SignedDuration = SignedDuration::from_secs(5);
/// Least time between two corrections of what somebody else sets.
const PATIENCE: SignedDuration = SignedDuration::from_secs(5);

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
                let problem = route::selected(rule.as_ref().ok()?, subsets).err()?;
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
fn rules_of<'a>(
    observation: &'a Observation,
    route: &'a Route,
) -> Result<Vec<route::Rule<'a>>, route::Problem> {
    let object = route
        .object
        .as_ref()
        .map_err(|_| "it is not there".to_owned())?;
    let sides =
        sides(observation, route).ok_or("stableService and canaryService are not both named")?;
    route::rules(route.reference.kind, object, &route.reference.rules, sides)
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
        Some(route::share(&rules))
    });
    shares.collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// The share that the routes should give the canary now, in percent.
#[must_use]
pub fn wanted(observation: &Observation, status: &RolloutStatus) -> i32 {
    let now = present_share(observation);
    let Some(change) = &status.change else {
        return 0;
    };
    let limits = workload::limits(observation);
    let present = workload::present(observation, status);
    match change.stage {
        // Right after a promotion the stable side may still be on its way.
        Stage::Waiting if !stable_is_there(observation, status) => now,
        Stage::Waiting | Stage::RolledBack => 0,
        Stage::Stepping => rising(observation, change, limits, &present, change.weight),
        Stage::Promoting if change.initial => 0,
        Stage::Promoting => rising(observation, change, limits, &present, 100),
        Stage::Promoted if stable_has_moved(observation, change) => 0,
        Stage::Promoted => now,
        Stage::RollingBack => remainder(observation, change, limits, &present, now),
    }
}

/// The share before, until the canary can carry the whole of the one that is asked for; where the surge
/// has no room for that beside stable, as much as it can carry at each moment.
fn rising(
    observation: &Observation,
    change: &Change,
    limits: Limits,
    present: &Present,
    asked: i32,
) -> i32 {
    if present.canary.available == 0 {
        return 0; // or stable would answer in its name
    }
    if can_take(observation, change, limits, present, asked) {
        return asked;
    }
    // What somebody else has raised it to is no share of before, but stable is not given back what it
    // cannot carry.
    let split = observation.status.traffic.as_ref();
    let settled = split.map_or(0, |it| it.settled_weight);
    let before = present_share(observation)
        .min(asked)
        .min(settled.max(beyond_stable(limits, present)));
    // A canary that has lost more pods than may be unavailable keeps what it can carry, and stable has what
    // it can carry of the rest.
    let capacity = replicas::carried(present.canary.available, limits);
    if replicas::is_short(limits, before, present.canary.available) {
        return before.min(capacity.max(beyond_stable(limits, present)));
    }
    let carried = capacity.min(asked);
    let crowded = limits.surge < limits.desired;
    if crowded && can_take(observation, change, limits, present, carried) {
        return carried.max(before);
    }
    before
}

/// What stable cannot carry yet, where it gave up capacity; the rejected pods serve that until then.
fn remainder(
    observation: &Observation,
    change: &Change,
    limits: Limits,
    present: &Present,
    now: i32,
) -> i32 {
    if present.canary.available == 0 {
        return 0;
    }
    if present.stable.available == 0 {
        return now; // better rejected pods than none
    }
    if !pods_follow(limits) || change::is_overdue(observation, change) {
        return 0;
    }
    beyond_stable(limits, present).clamp(0, now)
}

/// The share that stable has not the pods to carry, in percent.
fn beyond_stable(limits: Limits, present: &Present) -> i32 {
    100 - replicas::carried(present.stable.available, limits)
}

/// Whether the canary's pods for a share are ready, and its Service or subset sends to them.
fn can_take(
    observation: &Observation,
    change: &Change,
    limits: Limits,
    present: &Present,
    share: i32,
) -> bool {
    let needed = replicas::canary_for(limits, share);
    present.canary.available >= needed
        && side_is_ready(observation, &change.pod_template_hash, needed, |canary| {
            canary.canary_service.as_ref()
        })
        && observation.routes.iter().all(|route| {
            subsets(route).is_none_or(|(_, canary)| canary == Some(&change.pod_template_hash))
        })
}

/// Whether so many pods of a revision are ready behind a named Service, which selects them.
fn side_is_ready(
    observation: &Observation,
    hash: &str,
    needed: i32,
    service: impl Fn(&countersign_api::rollout::CanaryStrategy) -> Option<&String>,
) -> bool {
    let Some(name) = service(&observation.spec.strategy.canary) else {
        return true; // told apart by subsets
    };
    let selects = workload::selected(observation, name) == Some(hash);
    selects && ready(observation, name, hash) >= needed
}

/// Ready pods of a revision behind a Service; those of which the revision cannot be told count.
fn ready(observation: &Observation, service: &str, hash: &str) -> i32 {
    let endpoints = observation.endpoints.get(service);
    let of = |hash: &str| endpoints.and_then(|it| it.get(hash)).copied().unwrap_or(0);
    of(hash) + of("")
}

/// Whether the stable side has ready pods of the stable revision.
fn stable_is_there(observation: &Observation, status: &RolloutStatus) -> bool {
    let Some(stable) = &status.stable else {
        return true;
    };
    let least = observation.spec.replicas.min(1);
    let hash = &stable.pod_template_hash;
    side_is_ready(observation, hash, least, |canary| {
        canary.stable_service.as_ref()
    }) && observation
        .routes
        .iter()
        .all(|route| subsets(route).is_none_or(|(stable, _)| stable == Some(hash)))
}

/// Whether the stable Service sends to the promoted revision, and to nothing else any more.
fn stable_has_moved(observation: &Observation, change: &Change) -> bool {
    let alone = |name: &String| {
        let endpoints = observation.endpoints.get(name);
        let known = |hash: &String| hash.is_empty() || *hash == change.pod_template_hash;
        endpoints.is_none_or(|all| all.keys().all(known))
    };
    let service = observation.spec.strategy.canary.stable_service.as_ref();
    let least = observation.spec.replicas.min(1);
    side_is_ready(observation, &change.pod_template_hash, least, |canary| {
        canary.stable_service.as_ref()
    }) && service.is_none_or(alone)
        && observation.routes.iter().all(|route| {
            subsets(route).is_none_or(|(stable, _)| stable == Some(&change.pod_template_hash))
        })
}

/// The revisions that the subsets of a route select; `None` where it has none.
fn subsets(route: &Route) -> Option<(Option<&str>, Option<&str>)> {
    let subsets = route.reference.destination_rule.as_ref()?;
    let rule = route.destination_rule.as_ref()?.as_ref().ok()?;
    route::selected(rule, subsets).ok()
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

/// Whether the number of stable pods follows its share, so that it cannot take everything at once.
#[must_use]
pub fn pods_follow(limits: Limits) -> bool {
    limits.share == Share::RoutesAlone
        || (limits.share == Share::Routes && limits.surge < limits.desired)
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

/// Whether the canary's side may be pointed at the canary's pods: only where no route gives it more
/// than the status allows it.
#[must_use]
pub fn may_point_at_canary(observation: &Observation, change: &Change) -> bool {
    !observation::is_routed(observation)
        || share(observation).is_some_and(|share| share <= change.weight)
}

/// Whether the canary's side must stay on the rejected pods, which serve what stable cannot carry yet.
#[must_use]
pub fn still_serves(observation: &Observation, status: &RolloutStatus) -> bool {
    observation::is_routed(observation) && wanted(observation, status) > 0
}

/// The copy of requests that the present step asks for, in percent.
fn mirror(observation: &Observation, status: &RolloutStatus) -> Option<i32> {
    let change = status
        .change
        .as_ref()
        .filter(|it| it.stage == Stage::Stepping)?;
    let present = workload::present(observation, status);
    let limits = workload::limits(observation);
    let step = change::present_step(change)?;
    can_take(observation, change, limits, &present, 0)
        .then_some(step.mirror)
        .flatten()
}

/// The writes that bring the traffic nearer to what the status asks for: weights, testers, subsets.
#[must_use]
pub fn actions(observation: &Observation, status: &RolloutStatus, held: bool) -> Vec<Action> {
    let share = wanted(observation, status);
    // What another Rollout claims too may lose the canary's share, and get no other.
    if status.change.is_none() || (!observation.conflicts.is_empty() && share > 0) {
        return Vec::new();
    }
    let mirror = mirror(observation, status);
    let promoting = status
        .change
        .as_ref()
        .is_some_and(|it| it.stage == Stage::Promoting);
    // Who holds a promotion holds the switch of its traffic, too.
    let held = held && promoting && share > present_share(observation);
    let patient = held || is_patient(observation, status, share);
    let mut actions = Vec::new();
    for route in &observation.routes {
        let kind = route.reference.kind;
        actions.extend(select_subsets(observation, status, route));
        let (Ok(object), Ok(rules)) = (&route.object, rules_of(observation, route)) else {
            continue;
        };
        let done = rules
            .iter()
            .all(|rule| rule.is_at(share) && rule.mirrors(kind, mirror));
        if !done
            && !patient
            && let Ok(operations) = route::patch(kind, object, &rules, share, mirror)
        {
            actions.push(Action::PatchRoute {
                kind,
                name: route.reference.name.clone(),
                api_version: object.api_version(),
                weight: share,
                operations,
            });
        }
        actions.extend(testers(observation, status, route, object, &rules));
    }
    actions
}

/// Somebody who sets weights again and again is answered at most once in a while.
fn is_patient(observation: &Observation, status: &RolloutStatus, share: i32) -> bool {
    let before = observation.status.traffic.as_ref();
    before.is_some_and(|it| {
        let corrected = it
            .corrected_at
            .as_ref()
            .filter(|_| it.settled_weight == share);
        corrected.is_some_and(|at| observation.now.duration_since(at.0) < PATIENCE)
    }) && status.change.is_some()
}

/// The controller's own route for testers comes and goes with the pods that they test.
fn testers(
    observation: &Observation,
    status: &RolloutStatus,
    route: &Route,
    object: &RouteObject,
    rules: &[route::Rule],
) -> Option<Action> {
    let (kind, name) = (route.reference.kind, testers_name(&route.reference.name));
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

fn wanted_testers(
    observation: &Observation,
    status: &RolloutStatus,
    route: &Route,
    object: &RouteObject,
    rules: &[route::Rule],
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
        workload::limits(observation),
        workload::present(observation, status),
    );
    let served = able && tested && can_take(observation, change, limits, &present, 0);
    served
        .then(|| route::testers(kind, object, rules, testers))
        .flatten()
}

fn is_tested(status: &RolloutStatus) -> bool {
    let change = status.change.as_ref();
    change.is_some_and(|it| matches!(it.stage, Stage::Stepping | Stage::Promoting) && !it.initial)
}

/// Name of the controller's own route for testers.
#[must_use]
pub fn testers_name(route: &str) -> String {
    names::ending(route, "testers", MAX_NAME)
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
fn select_subsets(
    observation: &Observation,
    status: &RolloutStatus,
    route: &Route,
) -> Option<Action> {
    let subsets = route.reference.destination_rule.as_ref()?;
    let rule = route.destination_rule.as_ref()?.as_ref().ok()?;
    let (stable, canary) = workload::sides(observation, status);
    let operations = route::select(rule, subsets, stable, canary).ok()?;
    (!operations.is_empty()).then(|| Action::SelectSubsets {
        name: subsets.name.clone(),
        api_version: rule.api_version(),
        operations,
    })
}

/// Why the traffic is not yet as the status asks for, in a sentence; `None` where it is.
#[must_use]
pub fn unsettled(observation: &Observation, status: &RolloutStatus) -> Option<String> {
    if !observation::is_directed(observation) {
        return None;
    }
    if !workload::selections(observation, status).is_empty() {
        return Some("a Service does not select its revision yet".into());
    }
    if let Some(service) = lagging_service(observation) {
        return Some(format!(
            "the endpoints of Service {service} still have pods of another revision"
        ));
    }
    if let Some((_, problem)) = problem(observation) {
        return Some(problem);
    }
    if observation::is_routed(observation) && observation.routes.is_empty() {
        return Some("the routes have not been read yet".into());
    }
    let share = wanted(observation, status);
    let mirror = mirror(observation, status);
    for route in &observation.routes {
        let (kind, name) = (route.reference.kind, &route.reference.name);
        let (Ok(object), Ok(rules)) = (&route.object, rules_of(observation, route)) else {
            continue;
        };
        if let Err(problem) = route::patch(kind, object, &rules, share, mirror) {
            return Some(format!("{kind} {name}: {problem}"));
        }
        let stray = rules
            .iter()
            .find(|rule| !rule.is_at(share) || !rule.mirrors(kind, mirror));
        if let Some(rule) = stray {
            return Some(format!(
                "{kind} {name}, {}, does not give the canary {share}% yet",
                rule.label
            ));
        }
        if let Some(why) = unaccepted(observation, kind, object, share) {
            return Some(format!("{kind} {name} at {share}%: {why}"));
        }
        if wanted_testers(observation, status, route, object, &rules).is_some() {
            let own = route.testers.as_ref();
            let why = match own.map(|own| route::acceptance(kind, own)) {
                None => Some("it is not there yet".into()),
                Some(Acceptance::Pending(why)) => Some(why),
                Some(Acceptance::Accepted | Acceptance::Undated(_)) => None,
            };
            if let Some(why) = why {
                return Some(format!("{kind} {} for testers: {why}", testers_name(name)));
            }
        }
        if select_subsets(observation, status, route).is_some() {
            return Some(format!(
                "the subsets of {kind} {name} do not select their revisions yet"
            ));
        }
    }
    None
}

/// A named Service whose endpoints have not followed its selector yet: requests still reach the pods
/// that it selected before.
fn lagging_service(observation: &Observation) -> Option<&str> {
    let canary = &observation.spec.strategy.canary;
    let mut named = [&canary.stable_service, &canary.canary_service]
        .into_iter()
        .flatten();
    named
        .find(|service| {
            let selected = workload::selected(observation, service);
            let behind = observation.endpoints.get(*service);
            let mut revisions = behind.into_iter().flat_map(BTreeMap::keys);
            revisions.any(|hash| !hash.is_empty() && selected.is_some_and(|it| it != hash))
        })
        .map(String::as_str)
}

/// Why the routers have not accepted a route with the canary's present share; `None` where they have.
/// Where a status does not say which generation it means, it counts a while after the weights were seen.
fn unaccepted(
    observation: &Observation,
    kind: RouteKind,
    object: &RouteObject,
    share: i32,
) -> Option<String> {
    let parent = match route::acceptance(kind, object) {
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
fn weighed_at(observation: &Observation, share: i32) -> Option<&Time> {
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
        match route::acceptance(route.reference.kind, object) {
            Acceptance::Undated(parent) => Some(parent),
            Acceptance::Accepted | Acceptance::Pending(_) => None,
        }
    };
    observation.routes.iter().filter_map(parent).collect()
}

/// Why the present step has not begun though its pods are there, in a sentence.
#[must_use]
pub fn awaited(
    observation: &Observation,
    status: &RolloutStatus,
    change: &Change,
) -> Option<String> {
    if !observation::is_routed(observation) {
        return None;
    }
    let wanted = wanted(observation, status);
    let limits = workload::limits(observation);
    let present = workload::present(observation, status);
    if wanted < change.weight || !can_take(observation, change, limits, &present, 0) {
        let service = observation
            .spec
            .strategy
            .canary
            .canary_service
            .as_deref()
            .unwrap_or("of the subset");
        let ready = ready(observation, service, &change.pod_template_hash);
        let needed = replicas::canary_for(limits, change.weight);
        let selects = workload::selected(observation, service)
            .is_some_and(|it| it == change.pod_template_hash);
        let pods = if selects {
            format!("has {ready} of {needed} ready pods of the new revision")
        } else {
            "does not select the new revision yet".into()
        };
        return Some(format!("the canary's Service {service} {pods}"));
    }
    unsettled(observation, status)
}

/// Notes in the status how the traffic stands.
pub fn note(observation: &Observation, status: &mut RolloutStatus) {
    if status.change.is_none() || !observation::is_directed(observation) {
        status.traffic = None;
        return;
    }
    let before = observation.status.traffic.clone().unwrap_or_default();
    let wanted = if observation::is_routed(observation) {
        wanted(observation, status)
    } else {
        0
    };
    let settled = unsettled(observation, status).is_none();
    let same = before.settled_weight == wanted;
    let corrected = correction(observation, status).map(|_| Time(observation.now));
    let settled_at = settled.then(|| {
        let since = before.settled_at.clone().filter(|_| same);
        since.unwrap_or(Time(observation.now))
    });
    let at_weights = observation.routes.iter().all(|route| {
        rules_of(observation, route).is_ok_and(|rules| rules.iter().all(|it| it.is_at(wanted)))
    });
    let weighed_at = (at_weights && !undated_parents(observation).is_empty()).then(|| {
        let since = weighed_at(observation, wanted).cloned();
        since.unwrap_or(Time(observation.now))
    });
    let limits = workload::limits(observation);
    let drained = settled_at
        .as_ref()
        .is_some_and(|since| drained_at(observation, since) <= observation.now);
    // Only where pods follow the share, and before all of it is back, does anything depend on the drain.
    let stage = status.change.as_ref().map(|change| change.stage);
    let is_back = settled && matches!(stage, Some(Stage::Waiting | Stage::RolledBack));
    let over = (drained || is_back) && pods_follow(limits);
    let weight = share(observation).unwrap_or(before.weight);
    status.traffic = Some(Split {
        weight,
        settled_at,
        weighed_at,
        lowest_weight: if over {
            wanted
        } else {
            before.lowest_weight.min(weight)
        },
        highest_weight: if over {
            wanted
        } else {
            before.highest_weight.max(weight)
        },
        settled_weight: if settled || corrected.is_some() {
            wanted
        } else {
            before.settled_weight
        },
        corrected_at: corrected.or_else(|| before.corrected_at.filter(|_| same)),
    });
}

/// Whose weights are set back by this decision: that of a route that had been as it should be.
fn correction<'a>(observation: &'a Observation, status: &RolloutStatus) -> Option<&'a Route> {
    let before = observation.status.traffic.as_ref()?;
    let share = wanted(observation, status);
    let was_right = before.settled_at.is_some() || before.corrected_at.is_some();
    let mine = was_right && before.settled_weight == share;
    if !mine || is_patient(observation, status, share) {
        return None;
    }
    observation.routes.iter().find(|route| {
        rules_of(observation, route).is_ok_and(|rules| !rules.iter().all(|rule| rule.is_at(share)))
    })
}

/// What to say where somebody else had set the weights.
#[must_use]
pub fn correction_notice(observation: &Observation, status: &RolloutStatus) -> Option<Notice> {
    let route = correction(observation, status)?;
    let (kind, name) = (route.reference.kind, &route.reference.name);
    let object = route.object.as_ref().ok()?;
    let who = object.last_writer.as_deref().unwrap_or("somebody");
    let found = route::share(&rules_of(observation, route).ok()?);
    let share = Some(wanted(observation, status)).filter(|share| *share != found)?;
    Some(Notice {
        reason: reason::WEIGHTS_CORRECTED.into(),
        action: format!("SetWeight{share}"),
        message: format!(
            "{kind} {name}: {who} set the canary's weight to {found}%, and it is set back to {share}%: let whatever applies the route leave the weights of its two Services alone"
        ),
        warning: true,
    })
}

/// Since when nothing sends to revisions that serve no more, as far as the status of before knows.
#[must_use]
pub fn drained(observation: &Observation, status: &RolloutStatus) -> bool {
    if !observation::is_directed(observation) {
        return true;
    }
    let split = status.traffic.as_ref();
    let since = split.and_then(|it| it.settled_at.as_ref());
    since.is_some_and(|since| observation.now >= drained_at(observation, since))
}

/// When pods may go that are settled out of the traffic since then.
#[must_use]
pub fn drained_at(observation: &Observation, since: &Time) -> Timestamp {
    let drain = observation.spec.strategy.canary.drain.signed();
    since.0.saturating_add(drain).unwrap_or(Timestamp::MAX)
}

/// Whether an ended change leaves nothing to do for the traffic.
#[must_use]
pub fn is_over(observation: &Observation, status: &RolloutStatus) -> bool {
    !observation::is_routed(observation)
        || problem(observation).is_some()
        || (wanted(observation, status) == 0 && unsettled(observation, status).is_none())
}
