//! The share that the canary should have now.

use countersign_api::rollout::{Change, RolloutStatus, Stage};

use crate::change;
use crate::observation::{self, Observation};
use crate::replicas::{self, Limits, Present, Share, present};
use crate::traffic::routes;

/// The share that the routes should give the canary now, in percent.
#[must_use]
pub fn wanted(observation: &Observation, status: &RolloutStatus) -> i32 {
    let now = routes::present_share(observation);
    let Some(change) = &status.change else {
        return 0;
    };
    let limits = present::limits(observation);
    let present = present::present(observation, status);
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
    let before = routes::present_share(observation)
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
pub(super) fn can_take(
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
            routes::subsets(route)
                .is_none_or(|(_, canary)| canary == Some(&change.pod_template_hash))
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
    let selects = present::selected(observation, name) == Some(hash);
    selects && ready(observation, name, hash) >= needed
}

/// Ready pods of a revision behind a Service; those of which the revision cannot be told count.
pub(super) fn ready(observation: &Observation, service: &str, hash: &str) -> i32 {
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
        .all(|route| routes::subsets(route).is_none_or(|(stable, _)| stable == Some(hash)))
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
            routes::subsets(route)
                .is_none_or(|(stable, _)| stable == Some(&change.pod_template_hash))
        })
}

/// Whether the number of stable pods follows its share, so that it cannot take everything at once.
#[must_use]
pub fn pods_follow(limits: Limits) -> bool {
    limits.share == Share::RoutesAlone
        || (limits.share == Share::Routes && limits.surge < limits.desired)
}

/// Whether the canary's side may be pointed at the canary's pods: only where no route gives it more
/// than the status allows it.
#[must_use]
pub fn may_point_at_canary(observation: &Observation, change: &Change) -> bool {
    !observation::is_routed(observation)
        || routes::share(observation).is_some_and(|share| share <= change.weight)
}

/// Whether the canary's side must stay on the rejected pods, which serve what stable cannot carry yet.
#[must_use]
pub fn still_serves(observation: &Observation, status: &RolloutStatus) -> bool {
    observation::is_routed(observation) && wanted(observation, status) > 0
}

/// The copy of requests that the present step asks for, in percent.
pub(super) fn mirror(observation: &Observation, status: &RolloutStatus) -> Option<i32> {
    let change = status
        .change
        .as_ref()
        .filter(|it| it.stage == Stage::Stepping)?;
    let present = present::present(observation, status);
    let limits = present::limits(observation);
    let step = change::present_step(change)?;
    can_take(observation, change, limits, &present, 0)
        .then_some(step.mirror)
        .flatten()
}
