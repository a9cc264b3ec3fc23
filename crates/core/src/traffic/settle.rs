//! Whether routers and endpoints have followed, and when old pods are no longer sent to.

use std::collections::BTreeMap;

use countersign_api::rollout::{Change, RolloutStatus, Split, Stage};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::observation::{self, Observation};
use crate::replicas::{self, present};
use crate::traffic::route::patch;
use crate::traffic::route::status::{self, Acceptance};
use crate::traffic::{corrections, routes, services, share, testers};

/// Why the traffic is not yet as the status asks for, in a sentence; `None` where it is.
#[must_use]
pub fn unsettled(observation: &Observation, status: &RolloutStatus) -> Option<String> {
    if !observation::is_directed(observation) {
        return None;
    }
    if !services::selections(observation, status).is_empty() {
        return Some("a Service does not select its revision yet".into());
    }
    if let Some(service) = lagging_service(observation) {
        return Some(format!(
            "the endpoints of Service {service} still have pods of another revision"
        ));
    }
    if let Some((_, problem)) = routes::problem(observation) {
        return Some(problem);
    }
    if observation::is_routed(observation) && observation.routes.is_empty() {
        return Some("the routes have not been read yet".into());
    }
    let share = share::wanted(observation, status);
    let mirror = share::mirror(observation, status);
    for route in &observation.routes {
        let (kind, name) = (route.reference.kind, &route.reference.name);
        let (Ok(object), Ok(rules)) = (&route.object, routes::rules_of(observation, route)) else {
            continue;
        };
        if let Err(problem) = patch::patch(kind, object, &rules, share, mirror) {
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
        if let Some(why) = routes::unaccepted(observation, kind, object, share) {
            return Some(format!("{kind} {name} at {share}%: {why}"));
        }
        if testers::wanted_testers(observation, status, route, object, &rules).is_some() {
            let own = route.testers.as_ref();
            let why = match own.map(|own| status::acceptance(kind, own)) {
                None => Some("it is not there yet".into()),
                Some(Acceptance::Pending(why)) => Some(why),
                Some(Acceptance::Accepted | Acceptance::Undated(_)) => None,
            };
            if let Some(why) = why {
                return Some(format!(
                    "{kind} {} for testers: {why}",
                    routes::testers_name(name)
                ));
            }
        }
        if testers::select_subsets(observation, status, route).is_some() {
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
            let selected = present::selected(observation, service);
            let behind = observation.endpoints.get(*service);
            let mut revisions = behind.into_iter().flat_map(BTreeMap::keys);
            revisions.any(|hash| !hash.is_empty() && selected.is_some_and(|it| it != hash))
        })
        .map(String::as_str)
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
    let wanted = share::wanted(observation, status);
    let limits = present::limits(observation);
    let present = present::present(observation, status);
    if wanted < change.weight || !share::can_take(observation, change, limits, &present, 0) {
        let service = observation
            .spec
            .strategy
            .canary
            .canary_service
            .as_deref()
            .unwrap_or("of the subset");
        let ready = share::ready(observation, service, &change.pod_template_hash);
        let needed = replicas::canary_for(limits, change.weight);
        let selects = present::selected(observation, service)
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
        share::wanted(observation, status)
    } else {
        0
    };
    let settled = unsettled(observation, status).is_none();
    let same = before.settled_weight == wanted;
    let corrected = corrections::correction(observation, status).map(|_| Time(observation.now));
    let settled_at = settled.then(|| {
        let since = before.settled_at.clone().filter(|_| same);
        since.unwrap_or(Time(observation.now))
    });
    let at_weights = observation.routes.iter().all(|route| {
        routes::rules_of(observation, route)
            .is_ok_and(|rules| rules.iter().all(|it| it.is_at(wanted)))
    });
    let weighed_at = (at_weights && !routes::undated_parents(observation).is_empty()).then(|| {
        let since = routes::weighed_at(observation, wanted).cloned();
        since.unwrap_or(Time(observation.now))
    });
    let limits = present::limits(observation);
    let drained = settled_at
        .as_ref()
        .is_some_and(|since| drained_at(observation, since) <= observation.now);
    // Only where pods follow the share, and before all of it is back, does anything depend on the drain. What
    // this decision writes may be followed before it is seen.
    let stage = status.change.as_ref().map(|change| change.stage);
    let is_back = settled && matches!(stage, Some(Stage::Waiting | Stage::RolledBack));
    let over = (drained || is_back) && share::pods_follow(limits);
    let weight = routes::share(observation).unwrap_or(before.weight);
    status.traffic = Some(Split {
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
        settled_weight: if settled || corrected.is_some() {
            wanted
        } else {
            before.settled_weight
        },
        corrected_at: corrected.or_else(|| before.corrected_at.filter(|_| same)),
    });
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
        || routes::problem(observation).is_some()
        || (share::wanted(observation, status) == 0 && unsettled(observation, status).is_none())
}
