//! Which pods the named Services select.

use countersign_api::HASH_LABEL;
use countersign_api::rollout::{RolloutStatus, Stage};

use crate::decision::{Action, Notice};
use crate::observation::workload::ReplicaSet;
use crate::observation::{self, Observation};
use crate::replicas::present::{self, Roles};
use crate::traffic::{routes, share};
use crate::{change, reason, replicas};

/// The revisions that the two sides of the traffic should be on, stable's first; `None` for one that
/// stays as it is. The canary's side falls back to stable, so that it is never without pods.
#[must_use]
pub fn sides<'a>(
    observation: &'a Observation,
    status: &'a RolloutStatus,
) -> (Option<&'a str>, Option<&'a str>) {
    let Roles { stable, canary } = present::roles(status);
    let change = status.change.as_ref();
    let rejected = change.is_some_and(|change| change.outcome.is_some());
    let available = |hash| present::available(observation, hash);
    let alive = canary.filter(|_| stable.is_some() && available(canary) > 0);
    let canary_side = match change {
        // It cannot be told what depends on it: it stays as it is.
        Some(_) if alive.is_some() && !rejected && routes::is_unknown(observation) => None,
        // Nobody is sent to a revision without pods while the other one has some.
        Some(_) if alive.is_some() && available(stable) == 0 => alive,
        Some(change) if !rejected && share::may_point_at_canary(observation, change) => {
            alive.or(stable)
        }
        Some(_) if rejected && share::still_serves(observation, status) => alive.or(stable),
        _ => stable,
    };
    let canary_side = canary_side.filter(|hash| !canary_side_waits(observation, status, hash));
    let stable_side = if stands_in(observation, status) {
        alive
    } else {
        // A first revision takes a Service over once it is stable, so that nothing that serves is cut off.
        stable.filter(|_| !stable_side_waits(observation, status))
    };
    (stable_side, canary_side)
}

/// Whether the canary serves in place of a stable revision of which no pod is available: only one that may
/// have traffic, since stable's pods could otherwise be removed to get a change past its gates.
#[must_use]
pub fn stands_in(observation: &Observation, status: &RolloutStatus) -> bool {
    let Roles { stable, canary } = present::roles(status);
    let available = |hash| present::available(observation, hash);
    let may_serve = status.change.as_ref().is_some_and(|change| {
        let begun = matches!(change.stage, Stage::Stepping | Stage::Promoting);
        begun && change.outcome.is_none() && change.weight > 0
    });
    may_serve && stable.is_some() && available(stable) == 0 && available(canary) > 0
}

/// Each named Service selects its side's pods.
#[must_use]
pub fn selections(observation: &Observation, status: &RolloutStatus) -> Vec<Action> {
    let strategy = &observation.spec.strategy.canary;
    let (stable, canary) = sides(observation, status);
    let wanted = [
        (&strategy.stable_service, stable),
        (&strategy.canary_service, canary),
    ];
    let selection = |(service, hash): (&Option<String>, Option<&str>)| {
        let (service, hash) = (service.as_ref()?, hash?);
        observation.services.get(service)?.as_ref()?;
        let moves = present::selected(observation, service) != Some(hash);
        moves.then(|| Action::SelectRevision {
            service: service.clone(),
            hash: hash.to_owned(),
        })
    };
    wanted.into_iter().filter_map(selection).collect()
}

/// What to say where the canary takes the place of stable in the traffic.
#[must_use]
pub fn stand_in_notice(
    observation: &Observation,
    status: &RolloutStatus,
    actions: &[Action],
) -> Option<Notice> {
    let service = observation.spec.strategy.canary.stable_service.as_ref()?;
    let (change, stable) = (status.change.as_ref()?, status.stable.as_ref()?);
    let is_move = |it: &Action| {
        matches!(it, Action::SelectRevision { service: moved, hash }
            if moved == service && *hash == change.pod_template_hash)
    };
    let moved = stands_in(observation, status) && actions.iter().any(is_move);
    moved.then(|| Notice {
        reason: reason::STABLE_UNAVAILABLE.into(),
        action: "SelectRevision".into(),
        message: format!(
            "no pod of revision {}, which is stable, is available: Service {service} sends to revision {} until one is",
            stable.revision, change.revision
        ),
        warning: true,
    })
}

/// Whether the stable side of the traffic stays on another revision, which has pods: stable has none yet,
/// or fewer than are needed in their place. A revision that becomes stable again has to grow first, and
/// nothing that serves may lose pods meanwhile, whatever change comes next.
#[must_use]
pub fn stable_side_waits(observation: &Observation, status: &RolloutStatus) -> bool {
    let strategy = &observation.spec.strategy.canary;
    let service = strategy.stable_service.as_deref();
    let serving = service.and_then(|name| present::selected(observation, name));
    let serving = serving
        .into_iter()
        .chain(routes::stable_subsets(observation));
    side_waits(
        observation,
        status,
        serving,
        present::roles(status).stable,
        100,
    )
}

/// The same for the canary side, as far as routes give it a share.
fn canary_side_waits(observation: &Observation, status: &RolloutStatus, next: &str) -> bool {
    let share = if observation::is_routed(observation) {
        routes::present_share(observation)
    } else {
        0
    };
    let strategy = &observation.spec.strategy.canary;
    let service = strategy.canary_service.as_deref();
    let serving = service.and_then(|name| present::selected(observation, name));
    let serving = serving
        .into_iter()
        .chain(routes::canary_subsets(observation));
    share > 0 && side_waits(observation, status, serving, Some(next), share)
}

/// Whether a side with this share of the requests, in percent, stays on the revisions that serve it: the
/// next one has fewer pods than the share needs, and than they have.
fn side_waits<'a>(
    observation: &Observation,
    status: &RolloutStatus,
    serving: impl Iterator<Item = &'a str>,
    next: Option<&str>,
    share: i32,
) -> bool {
    let serving = serving
        .filter(|hash| Some(*hash) != next)
        .map(|hash| present::available(observation, Some(hash)))
        .max()
        .unwrap_or(0);
    let limits = present::limits(observation);
    if serving == 0 || limits.desired == 0 {
        return false;
    }
    let needed = replicas::canary_for(limits, share);
    let ready = present::available(observation, next);
    let patient = status
        .change
        .as_ref()
        .is_some_and(|it| it.outcome.is_none() || !change::is_overdue(observation, it));
    ready == 0 || (ready < serving.min(needed) && patient)
}

/// Notes in the status which Services are kept on a revision, so that one whose name leaves the spec is
/// released.
pub fn note_services(observation: &Observation, status: &mut RolloutStatus) {
    let named = observation.services.iter();
    let named = named.filter(|(_, service)| service.is_some() && status.stable.is_some());
    let former = released(observation, status);
    status.services = named.map(|(name, _)| name.clone()).chain(former).collect();
}

/// Services that the spec names no more and that still select one of the Rollout's revisions.
fn released(observation: &Observation, status: &RolloutStatus) -> Vec<String> {
    let stable = status
        .stable
        .as_ref()
        .map(|it| it.pod_template_hash.as_str());
    let own = |hash: &str| {
        stable == Some(hash) || observation.replica_sets.iter().any(|set| set.hash == hash)
    };
    let former = observation.former_services.iter();
    let former = former.filter(|(_, service)| {
        let hash = service.selector.get(HASH_LABEL);
        hash.is_some_and(|hash| own(hash))
    });
    former.map(|(name, _)| name.clone()).collect()
}

/// Lets Services that the spec names no more select the pods of every revision again: one that stayed on
/// a revision would have no endpoints after the next promotion.
pub(crate) fn former(
    observation: &Observation,
    status: &RolloutStatus,
) -> impl Iterator<Item = Action> {
    let released = released(observation, status).into_iter();
    released.map(|service| Action::ReleaseService { service })
}

/// What to say of each Service that is released.
#[must_use]
pub fn release_notices(actions: &[Action], observation: &Observation) -> Vec<Notice> {
    let released = actions.iter().filter_map(|it| match it {
        Action::ReleaseService { service } => Some(service),
        _ => None,
    });
    let released = released.filter(|it| observation.former_services.contains_key(*it));
    released
        .map(|service| Notice {
            reason: reason::SERVICE_RELEASED.into(),
            action: "ReleaseService".into(),
            message: format!(
                "spec.strategy.canary names Service {service} no more: {HASH_LABEL} is removed from its selector, so that it selects the pods of every revision"
            ),
            warning: false,
        })
        .collect()
}

/// Whether a Service of the Rollout selects this ReplicaSet, which then keeps its pods.
pub(crate) fn is_selected(observation: &Observation, set: &ReplicaSet) -> bool {
    let strategy = &observation.spec.strategy.canary;
    let services = [&strategy.stable_service, &strategy.canary_service];
    let mut services = services.into_iter().flatten();
    services.any(|service| present::selected(observation, service) == Some(&set.hash))
        || routes::a_subset_selects(observation, &set.hash)
}
