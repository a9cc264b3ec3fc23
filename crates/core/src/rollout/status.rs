//! How a Rollout stands, for people and tools: phase, message, counters and conditions.
//!
//! Everything here follows from the state; nothing is decided on it.

use countersign_api::rollout::{Outcome, Phase, RolloutStatus, Stage};

use crate::hold::{Hold, HoldKind};
use crate::observation::{self, Observation};
use crate::proposal::Proposal;
use crate::reason;
use crate::replicas::{self, present};
use crate::rollout::conditions;
use crate::workload::cleanup;

/// Fills in everything that people and tools read.
pub fn describe(
    observation: &Observation,
    proposal: &Proposal,
    status: &mut RolloutStatus,
    hold: Option<&Hold>,
) {
    status.observed_generation = observation.generation;
    count(observation, proposal, status);
    let (phase, message) = phase(observation, status, hold);
    status.phase = phase;
    status.message = conditions::cut(&message);
    status.waiting_for = hold.map(|hold| hold.reason.clone());
    let change = status.change.as_ref();
    let under_way = change.filter(|change| change.outcome.is_none() && !change.initial);
    status.step = under_way.map(|change| format!("{}/{}", change.step, change.plan.steps.len()));
    let routed = status
        .traffic
        .as_ref()
        .filter(|_| observation::is_routed(observation));
    let by_routes = routed.map(|split| split.weight);
    status.weight = under_way.map(|_| {
        if let Some(weight) = by_routes {
            return weight;
        }
        let present = present::present(observation, status);
        replicas::achieved(present.stable.available, present.canary.available)
    });
    if let Some(change) = change {
        status.tier = Some(change.tier);
    }
    conditions::set_conditions(observation, proposal, status, hold);
}

fn count(observation: &Observation, proposal: &Proposal, status: &mut RolloutStatus) {
    let owned = || observation.replica_sets.iter().filter(|set| set.owned);
    status.replicas = owned().map(|set| set.current).sum();
    status.ready_replicas = owned().map(|set| set.ready).sum();
    status.available_replicas = owned().map(|set| set.available).sum();
    status.updated_replicas = owned()
        .filter(|set| set.hash == proposal.hash)
        .map(|set| set.current)
        .sum();
    status.selector = observation.spec.selector.to_string();
}

fn phase(
    observation: &Observation,
    status: &RolloutStatus,
    hold: Option<&Hold>,
) -> (Phase, String) {
    if let Some(hold) = hold {
        let phase = match (&hold.kind, hold.reason.as_str()) {
            (_, reason::CONFLICT) => Phase::Degraded,
            (HoldKind::People, _) => Phase::AwaitingSignOff,
            (HoldKind::Time(_), _)
            | (
                _,
                reason::AWAITING_PODS
                | reason::AWAITING_SMOKE
                | reason::AWAITING_TRAFFIC
                | reason::GIVING_BACK,
            ) => Phase::Progressing,
            _ => Phase::Held,
        };
        let counts = [
            reason::AWAITING_EVIDENCE,
            reason::AWAITING_PERSON,
            reason::CHECK_FAILING,
            reason::OUT_OF_BOUNDS,
        ];
        let change = status.change.as_ref();
        let change = change.filter(|_| counts.contains(&hold.reason.as_str()));
        let message = match change {
            Some(change) => conditions::as_of(change, &hold.message),
            None => hold.message.clone(),
        };
        return (phase, message);
    }
    let Some(change) = &status.change else {
        let revision = status.stable.as_ref().map_or(0, |stable| stable.revision);
        return (Phase::Stable, format!("revision {revision} serves"));
    };
    let told = change
        .transitions
        .iter()
        .rev()
        .find(|line| line.reason != reason::ROLLED_BACK);
    let message = told.map_or_else(
        || "nothing serves yet: this is the first revision".to_owned(),
        |line| format!("{}: {}", line.reason, line.message),
    );
    let message = match (&change.watched_until, &change.kept_until) {
        (Some(until), _) if until.0 <= observation.now => format!(
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
        (_, Some(Outcome::Promoted)) if cleanup::serves_alone(observation, status) => Phase::Stable,
        (_, Some(Outcome::Promoted)) => Phase::Promoted,
        (Stage::RollingBack, _) => Phase::RollingBack,
        (_, Some(Outcome::RolledBack)) => Phase::Degraded,
        _ => Phase::Progressing,
    };
    (phase, message)
}
