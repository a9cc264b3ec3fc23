//! The status of a Rollout for people and tools: phase, message, counters and conditions.
//!
//! Everything here follows from the state; no decision depends on it.

use countersign_api::rollout::{Adopted, Outcome, Phase, RolloutStatus, Stage};

use crate::change;
use crate::condition::cut;
use crate::hold::{Hold, HoldKind};
use crate::observation;
use crate::proposal::Proposal;
use crate::reason::Wait;
use crate::replicas;
use crate::rollout::conditions;
use crate::traffic::view::View;
use crate::workload::cleanup;

/// Sets the derived fields of a status and no others.
#[must_use]
pub fn describe(
    view: &View,
    proposal: &Proposal,
    adopted: Option<&Adopted>,
    hold: Option<&Hold>,
) -> RolloutStatus {
    let observation = view.observation;
    let (phase, message) = phase(view, hold);
    let under_way = view
        .change
        .filter(|change| change.outcome.is_none() && !change.initial);
    let steps = under_way.map(|change| format!("{}/{}", change.step, change.plan.steps.len()));
    let routed = observation::is_routed(observation);
    let by_routes = view.split.filter(|_| routed).map(|split| split.weight);
    let (stable, canary) = (view.fleet.pods.stable, view.fleet.pods.canary);
    let by_pods = || replicas::achieved(stable.available, canary.available);
    let owned = || observation.replica_sets.iter().filter(|set| set.owned);
    let updated = owned().filter(|set| set.hash == proposal.hash);
    let mut status = RolloutStatus {
        observed_generation: observation.generation,
        phase,
        message: cut(&message),
        waiting_for: hold.map(|hold| hold.reason.into()),
        step: steps,
        weight: under_way.map(|_| by_routes.unwrap_or_else(by_pods)),
        tier: view.change.map(|it| it.tier).or(observation.status.tier),
        replicas: total(owned().map(|set| set.current)),
        updated_replicas: total(updated.map(|set| set.current)),
        ready_replicas: total(owned().map(|set| set.ready)),
        available_replicas: total(owned().map(|set| set.available)),
        selector: observation.spec.selector.to_string(),
        ..RolloutStatus::default()
    };
    status.conditions = conditions::conditions(view, proposal, &status, adopted, hold);
    status
}

/// What was decided, with the description of it. Each field is listed, so that one that is added is not lost.
pub(super) fn with_description(decided: RolloutStatus, described: RolloutStatus) -> RolloutStatus {
    RolloutStatus {
        revision: decided.revision,
        attempts: decided.attempts,
        collision_count: decided.collision_count,
        waiting_kind: decided.waiting_kind,
        stable: decided.stable,
        change: decided.change,
        traffic: decided.traffic,
        services: decided.services,
        adopted: decided.adopted,
        last_rollback_at: decided.last_rollback_at,
        observed_generation: described.observed_generation,
        phase: described.phase,
        message: described.message,
        waiting_for: described.waiting_for,
        step: described.step,
        weight: described.weight,
        tier: described.tier,
        conditions: described.conditions,
        replicas: described.replicas,
        updated_replicas: described.updated_replicas,
        ready_replicas: described.ready_replicas,
        available_replicas: described.available_replicas,
        selector: described.selector,
    }
}

fn phase(view: &View, hold: Option<&Hold>) -> (Phase, String) {
    if let Some(hold) = hold {
        let class = hold.reason.class();
        let phase = match hold.kind {
            HoldKind::People => Phase::AwaitingSignOff,
            HoldKind::Time(_) => Phase::Progressing,
            HoldKind::Requested | HoldKind::Doubt | HoldKind::Scarce => class.phase,
        };
        let change = view.change.filter(|_| class.wait == Wait::Evidence);
        let message = match change {
            Some(change) => conditions::as_of(change, &hold.message),
            None => hold.message.clone(),
        };
        return (phase, message);
    }
    let Some(change) = view.change else {
        let revision = view.stable.map_or(0, |stable| stable.revision);
        return (Phase::Stable, format!("revision {revision} serves"));
    };
    let message = change::last_cause(change).map_or_else(
        || "nothing serves yet: this is the first revision".to_owned(),
        |line| format!("{}: {}", line.reason, line.message),
    );
    let message = match (&change.watched_until, &change.kept_until) {
        (Some(until), _) if until.0 <= view.observation.now => format!(
            "revision {} serves; the last windows of its watch are still to be judged",
            change.revision
        ),
        (Some(until), _) => format!(
            "revision {} serves, watched until {:.0}",
            change.revision, until.0
        ),
        (None, Some(until)) => format!(
            "revision {} serves, the one before is kept until {:.0}",
            change.revision, until.0
        ),
        (None, None) => message,
    };
    let phase = match (change.stage, change.outcome) {
        (_, Some(Outcome::Promoted)) if cleanup::serves_alone(view) => Phase::Stable,
        (_, Some(Outcome::Promoted)) => Phase::Promoted,
        (Stage::RollingBack, _) => Phase::RollingBack,
        (_, Some(Outcome::RolledBack)) => Phase::Degraded,
        _ => Phase::Progressing,
    };
    (phase, message)
}

/// Pods of several ReplicaSets together; a made-up status may have more than can be counted.
fn total(pods: impl Iterator<Item = i32>) -> i32 {
    pods.fold(0, i32::saturating_add)
}
