//! The revisions that the named Services select.

use std::collections::BTreeSet;

use countersign_api::HASH_LABEL;
use countersign_api::rollout::{Outcome, Stage};

use crate::decision::{Action, Notice, TrafficAction};
use crate::observation::workload::ReplicaSet;
use crate::observation::{self, Observation};
use crate::reason::Reason;
use crate::replicas::present::{self, Roles};
use crate::traffic::routes;
use crate::traffic::share::{self, Side};
use crate::traffic::view::View;
use crate::{change, replicas};

/// The revisions that the two sides should select, stable first; `None` if a side stays unchanged. The
/// canary's side falls back to stable, so that it always has pods.
#[must_use]
pub fn sides<'a>(view: &View<'a>) -> (Option<&'a str>, Option<&'a str>) {
    let Roles { stable, canary } = present::roles(view.stable, view.change);
    let rejected = view.change.is_some_and(|change| change.outcome.is_some());
    let available = |hash| present::available(view.observation, hash);
    let alive = canary.filter(|_| stable.is_some() && available(canary) > 0);
    let canary_side = match view.change {
        // The routes that depend on this side are unknown, so it stays unchanged.
        Some(_)
            if alive.is_some()
                && !rejected
                && routes::is_unknown(view.observation, view.routes) =>
        {
            None
        }
        // No side selects a revision without available pods while the other has some.
        Some(_) if alive.is_some() && available(stable) == 0 => alive,
        Some(change) if !rejected && share::may_point_at_canary(view, change) => alive.or(stable),
        Some(_) if rejected && share::still_serves(view) => alive.or(stable),
        _ => stable,
    };
    let canary_side = canary_side.filter(|hash| !canary_side_waits(view, hash));
    let stable_side = if stands_in(view) {
        alive
    } else {
        // A first revision takes over a Service once it is stable, so that serving pods are not cut off.
        stable.filter(|_| !stable_side_waits(view))
    };
    (stable_side, canary_side)
}

/// Whether the canary serves in place of a stable revision without available pods. Only a canary with a
/// share may, or deleting stable's pods would pass the gates; and only if the stable side has no other pods, or
/// editing stable's ReplicaSet would. Behind a route a superseded or reverted change serves on; a rejected one does
/// not.
fn stands_in(view: &View) -> bool {
    let Roles { stable, canary } = present::roles(view.stable, view.change);
    let available = |hash| present::available(view.observation, hash);
    let may_serve = view.change.is_some_and(|change| match change.outcome {
        None => {
            let begun = matches!(change.stage, Stage::Stepping | Stage::Promoting);
            begun && change.weight > 0
        }
        Some(Outcome::Superseded | Outcome::Reverted) => view.routes.present_share > 0,
        Some(Outcome::Promoted | Outcome::RolledBack) => false,
    });
    let mut others = present_revisions(view, Side::Stable).into_iter();
    let others_serve = others.any(|hash| {
        let hash = Some(hash);
        ![stable, canary].contains(&hash) && available(hash) > 0
    });
    may_serve
        && stable.is_some()
        && available(stable) == 0
        && available(canary) > 0
        && !others_serve
}

/// The revisions that a side's Service and subsets select.
fn present_revisions<'a>(view: &View<'a>, side: Side) -> Vec<&'a str> {
    let service = side.service(view.observation);
    let selected = service.and_then(|name| present::selected(view.observation, name));
    let subsets = side.subsets(view).flatten();
    selected.into_iter().chain(subsets).collect()
}

/// Makes each named Service select the pods of its side.
#[must_use]
pub fn selections(view: &View) -> Vec<Action> {
    let (stable, canary) = sides(view);
    let selection = |(side, hash): (Side, Option<&str>)| {
        let (service, hash) = (side.service(view.observation)?, hash?);
        view.observation.traffic.services.get(service)?.as_ref()?;
        let moves = present::selected(view.observation, service) != Some(hash);
        moves.then(|| TrafficAction::SelectRevision {
            service: service.to_owned(),
            hash: hash.to_owned(),
        })
    };
    let wanted = [(Side::Stable, stable), (Side::Canary, canary)];
    let selections = wanted.into_iter().filter_map(selection);
    selections.map(Action::Traffic).collect()
}

/// The Event for a canary that serves in place of stable.
#[must_use]
pub fn canary_serves_notice(view: &View, actions: &[Action]) -> Option<Notice> {
    let service = Side::Stable.service(view.observation)?;
    let (change, stable) = (view.change?, view.stable?);
    let is_move = |it: &Action| {
        matches!(it, Action::Traffic(TrafficAction::SelectRevision { service: moved, hash })
            if moved == service && *hash == change.pod_template_hash)
    };
    let moved = stands_in(view) && actions.iter().any(is_move);
    moved.then(|| Notice {
        reason: Reason::StableUnavailable.into(),
        action: "SelectRevision".into(),
        message: format!(
            "no pod of revision {}, which is stable, is available: Service {service} sends to revision {} until one is",
            stable.revision, change.revision
        ),
        warning: true,
    })
}

/// The Event for each named Service whose selector another writer set, and that is moved back.
#[must_use]
pub fn correction_notices(view: &View, actions: &[Action]) -> Vec<Notice> {
    let observation = view.observation;
    let corrected = actions.iter().filter_map(|it| match it {
        Action::Traffic(TrafficAction::SelectRevision { service, hash }) => {
            let writer = observation.traffic.selected_by.get(service)?;
            // Until then it has the selector of its manifest.
            let is_kept = observation.status.services.contains(service);
            is_kept.then_some((service, hash, writer))
        }
        _ => None,
    });
    let notice = |(service, hash, writer): (&String, &String, &String)| {
        let found = present::selected(observation, service);
        let found = found.map_or_else(|| "all revisions".into(), |it| format!("revision {it}"));
        Notice {
            reason: Reason::SelectorCorrected.into(),
            action: "SelectRevision".into(),
            message: format!(
                "Service {service}: {writer} set its selector, by which it selects {found}, and it is set to revision {hash}: let whatever applies the Service leave its selector out"
            ),
            warning: true,
        }
    };
    corrected.map(notice).collect()
}

/// Whether the stable side stays on another revision with pods: stable has none yet, or fewer than needed.
/// A revision that becomes stable again has to scale up first, and pods that serve stay meanwhile, whatever
/// change comes next.
#[must_use]
pub fn stable_side_waits(view: &View) -> bool {
    let stable = present::roles(view.stable, view.change).stable;
    side_waits(view, Side::Stable, stable, 100)
}

/// Whether the canary side stays on another revision, as far as routes give it a share.
fn canary_side_waits(view: &View, next: &str) -> bool {
    let share = view.routes.present_share;
    let routed = observation::is_routed(view.observation);
    routed && share > 0 && side_waits(view, Side::Canary, Some(next), share)
}

/// Whether a side with this share of the requests, in percent, stays on its present revisions: the next
/// revision has fewer pods than the share needs and than the present ones have.
fn side_waits(view: &View, side: Side, next: Option<&str>, share: i32) -> bool {
    let (observation, limits) = (view.observation, view.fleet.limits);
    let serving = present_revisions(view, side)
        .into_iter()
        .filter(|hash| Some(*hash) != next)
        .map(|hash| present::available(observation, Some(hash)))
        .max()
        .unwrap_or(0);
    if serving == 0 || limits.desired == 0 {
        return false;
    }
    let needed = replicas::canary_for(limits, share);
    let ready = present::available(observation, next);
    let in_time = view
        .change
        .is_none_or(|it| it.outcome.is_none() || !change::is_overdue(observation, it));
    ready == 0 || (ready < serving.min(needed) && in_time)
}

/// The Services that select a revision. The status stores them, so that a Service that is removed from the
/// spec is released.
#[must_use]
pub fn kept_services(view: &View) -> BTreeSet<String> {
    let named = view.observation.traffic.services.iter();
    let named = named.filter(|(_, service)| service.is_some() && view.stable.is_some());
    let former = released(view);
    named.map(|(name, _)| name.clone()).chain(former).collect()
}

/// Services that were removed from the spec and still select one of the Rollout's revisions.
fn released(view: &View) -> Vec<String> {
    let stable = view.stable.map(|it| it.pod_template_hash.as_str());
    let own = |hash: &str| {
        let mut sets = view.observation.replica_sets.iter();
        stable == Some(hash) || sets.any(|set| set.hash == hash)
    };
    let former = view.observation.traffic.former_services.iter();
    let former = former.filter(|(_, service)| {
        let hash = service.selector.get(HASH_LABEL);
        hash.is_some_and(|hash| own(hash))
    });
    former.map(|(name, _)| name.clone()).collect()
}

/// Makes Services that were removed from the spec select the pods of every revision again; otherwise they
/// would have no endpoints after the next promotion.
pub(crate) fn former(view: &View) -> impl Iterator<Item = Action> {
    let released = released(view).into_iter();
    released.map(|service| Action::Traffic(TrafficAction::ReleaseService { service }))
}

/// The Event for each Service that is released.
#[must_use]
pub fn release_notices(actions: &[Action], observation: &Observation) -> Vec<Notice> {
    let released = actions.iter().filter_map(|it| match it {
        Action::Traffic(TrafficAction::ReleaseService { service }) => Some(service),
        _ => None,
    });
    let released = released.filter(|it| observation.traffic.former_services.contains_key(*it));
    released
        .map(|service| Notice {
            reason: Reason::ServiceReleased.into(),
            action: "ReleaseService".into(),
            message: format!(
                "spec.strategy.canary no longer names Service {service}: {HASH_LABEL} is removed from its selector, so that it selects the pods of every revision"
            ),
            warning: false,
        })
        .collect()
}

/// Whether the Service or a subset of the stable side selects this revision.
pub(crate) fn stable_selects(view: &View, hash: &str) -> bool {
    present_revisions(view, Side::Stable).contains(&hash)
}

/// Whether a Service of the Rollout selects this ReplicaSet, which then keeps its pods.
pub(crate) fn is_selected(view: &View, set: &ReplicaSet) -> bool {
    let sides = [Side::Stable, Side::Canary].into_iter();
    let mut services = sides.filter_map(|side| side.service(view.observation));
    services.any(|service| present::selected(view.observation, service) == Some(&set.hash))
        || view.routes.a_subset_selects(&set.hash)
}
