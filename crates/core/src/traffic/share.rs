//! The desired share of the canary.

use std::collections::BTreeMap;

use countersign_api::rollout::{Change, Stage};

use crate::change;
use crate::observation::{self, Observation};
use crate::replicas::{self, Limits, Share, present};
use crate::traffic::routes::ParsedRoute;
use crate::traffic::view::View;

/// One of the two sides between which the traffic is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The side of the stable revision.
    Stable,
    /// The side of the canary.
    Canary,
}

impl Side {
    /// The named Service of this side.
    pub(super) fn service(self, observation: &Observation) -> Option<&str> {
        let canary = &observation.spec.strategy.canary;
        match self {
            Self::Stable => canary.stable_service.as_deref(),
            Self::Canary => canary.canary_service.as_deref(),
        }
    }

    /// The revisions that its subsets select, one per route with subsets.
    pub(super) fn subsets<'a>(self, view: &View<'a>) -> impl Iterator<Item = Option<&'a str>> {
        let all = view.routes.all.iter();
        let pairs: Vec<_> = all.filter_map(|it: &ParsedRoute<'a>| it.subsets).collect();
        pairs.into_iter().map(move |(stable, canary)| match self {
            Self::Stable => stable,
            Self::Canary => canary,
        })
    }

    /// Whether at least `needed` ready pods of a revision are behind this side's Service and subsets.
    fn sends_to(self, view: &View, hash: &str, needed: i32) -> bool {
        let by_service = self.service(view.observation).is_none_or(|name| {
            let selects = present::selected(view.observation, name) == Some(hash);
            selects && ready(view.observation, name, hash) >= needed
        });
        by_service && self.subsets(view).all(|selected| selected == Some(hash))
    }
}

/// The desired canary share of the routes, in percent.
pub(super) fn desired(view: &View) -> i32 {
    let now = view.routes.present_share;
    let Some(change) = view.change else {
        return 0;
    };
    match change.stage {
        // Right after a promotion the stable side may not have moved yet.
        Stage::Waiting if !stable_is_there(view) => now,
        Stage::Waiting | Stage::RolledBack => 0,
        Stage::Stepping => step_share(view, change, change.weight),
        Stage::Promoting if change.initial => 0,
        Stage::Promoting => step_share(view, change, 100),
        Stage::Promoted if stable_has_moved(view, change) => 0,
        Stage::Promoted => now,
        Stage::RollingBack => rollback_share(view, change, now),
    }
}

/// Keeps the present share until the canary can carry the whole of `target`. If `maxSurge` leaves no room for
/// that, raises the share with the pods.
fn step_share(view: &View, change: &Change, target: i32) -> i32 {
    let (limits, available) = (view.fleet.limits, view.fleet.pods.canary.available);
    if available == 0 {
        return 0; // or stable's pods would answer for the canary
    }
    if can_take(view, change, target) {
        return target;
    }
    // A share that was raised by another writer is not kept, but stable does not get back more than it can
    // carry.
    let uncovered = uncovered_share(view);
    let split = view.observation.status.traffic.as_ref();
    let settled = split.map_or(0, |it| it.settled_weight);
    let before = view.routes.present_share;
    let before = before.min(target).min(settled.max(uncovered));
    // A canary that has lost more pods than may be unavailable keeps what it can carry, and stable what it
    // can carry of the rest.
    let capacity = replicas::carried(available, limits);
    if replicas::is_short(limits, before, available) {
        return before.min(capacity.max(uncovered));
    }
    let carried = capacity.min(target);
    let crowded = limits.surge < limits.desired;
    if crowded && can_take(view, change, carried) {
        return carried.max(before);
    }
    before
}

/// The share that stable cannot carry yet if it gave up capacity; the rejected pods serve it until then.
fn rollback_share(view: &View, change: &Change, now: i32) -> i32 {
    let pods = &view.fleet.pods;
    if pods.canary.available == 0 {
        return 0;
    }
    if pods.stable.available == 0 {
        return now; // rejected pods are better than none
    }
    if !pods_follow(view.fleet.limits) || change::is_overdue(view.observation, change) {
        return 0;
    }
    uncovered_share(view).clamp(0, now)
}

/// The share that stable has too few pods to carry, in percent.
fn uncovered_share(view: &View) -> i32 {
    100 - replicas::carried(view.fleet.pods.stable.available, view.fleet.limits)
}

/// Whether the canary's pods for a share are ready behind its Service or subset.
pub(super) fn can_take(view: &View, change: &Change, share: i32) -> bool {
    let needed = replicas::canary_for(view.fleet.limits, share);
    view.fleet.pods.canary.available >= needed
        && Side::Canary.sends_to(view, &change.pod_template_hash, needed)
}

/// Ready pods of a revision behind a Service; pods of an unknown revision count.
pub(super) fn ready(observation: &Observation, service: &str, hash: &str) -> i32 {
    let endpoints = observation.traffic.endpoints.get(service);
    let of = |hash: &str| endpoints.and_then(|it| it.get(hash)).copied().unwrap_or(0);
    of(hash) + of("")
}

/// Whether requests still reach pods that a Service no longer selects.
pub(super) fn lags(observation: &Observation, service: &str) -> bool {
    let selected = present::selected(observation, service);
    let behind = observation.traffic.endpoints.get(service);
    let mut revisions = behind.into_iter().flat_map(BTreeMap::keys);
    revisions.any(|hash| !hash.is_empty() && selected.is_some_and(|it| it != hash))
}

/// Whether the stable side has ready pods of the stable revision.
fn stable_is_there(view: &View) -> bool {
    let least = view.observation.spec.replicas.min(1);
    view.stable
        .is_none_or(|stable| Side::Stable.sends_to(view, &stable.pod_template_hash, least))
}

/// Whether the stable side sends to the promoted revision only.
fn stable_has_moved(view: &View, change: &Change) -> bool {
    let least = view.observation.spec.replicas.min(1);
    let service = Side::Stable.service(view.observation);
    Side::Stable.sends_to(view, &change.pod_template_hash, least)
        && service.is_none_or(|service| !lags(view.observation, service))
}

/// Whether the number of stable pods follows its share, so that stable cannot take all requests at once.
#[must_use]
pub fn pods_follow(limits: Limits) -> bool {
    limits.share == Share::RoutesAlone
        || (limits.share == Share::Routes && limits.surge < limits.desired)
}

/// Whether the canary's side may select the canary's pods: only once the change has begun, since an earlier attempt may
/// have left pods of the same template; and only if no route gives it more than the status allows.
pub(super) fn may_point_at_canary(view: &View, change: &Change) -> bool {
    let allowed = view.routes.share.is_some_and(|it| it <= change.weight);
    change.stage != Stage::Waiting && (allowed || !observation::is_routed(view.observation))
}

/// Whether the canary's side must stay on the rejected pods, which serve what stable cannot carry yet.
pub(super) fn still_serves(view: &View) -> bool {
    observation::is_routed(view.observation) && view.share > 0
}

/// The percentage of requests that the present step mirrors.
pub(super) fn mirror(view: &View) -> Option<i32> {
    let change = view.change.filter(|it| it.stage == Stage::Stepping)?;
    let step = change::present_step(change)?;
    step.mirror.filter(|_| can_take(view, change, 0))
}
