//! Conditions of the status.

use countersign_api::rollout::{Change, Outcome, RolloutStatus, Stage};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::SignedDuration;

use crate::analysis::summary;
use crate::hold::Hold;
use crate::observation::{self, Observation};
use crate::people::sign_off;
use crate::proposal::Proposal;
use crate::provenance::State;
use crate::reason;
use crate::replicas::present;
use crate::rollout::context;
use crate::text::shown;
use crate::traffic::routes;
use crate::workload::adoption::{condition, step};
use crate::workload::cleanup;

/// For how long a routine wait after a transition, or after the end of a bake, is left unsaid: most are
/// over by then, and each costs a write and an Event.
pub(super) const SETTLE: SignedDuration = SignedDuration::from_secs(30);
/// The same for routers, which are quick, or there is something to be mended.
pub(super) const ROUTED: SignedDuration = SignedDuration::from_secs(10);

/// The condition that tells of pods of others.
const FOREIGN_PODS: &str = "ForeignPods";

/// Longest message of a condition.
const MAX_MESSAGE: usize = 1_024;

/// A condition in the making.
struct Fact {
    kind: &'static str,
    value: Option<bool>,
    reason: String,
    message: String,
}

fn fact(kind: &'static str, value: impl Into<Option<bool>>, reason: &str, message: &str) -> Fact {
    Fact {
        kind,
        value: value.into(),
        reason: reason.to_owned(),
        message: cut(message),
    }
}

pub(super) fn set_conditions(
    observation: &Observation,
    proposal: &Proposal,
    status: &mut RolloutStatus,
    hold: Option<&Hold>,
) {
    let mut facts = workload_facts(observation, proposal, status, hold);
    facts.push(provenance_fact(observation, proposal));
    if let Some((stands, why, message)) = condition::standing(observation, status, hold) {
        facts.push(fact(step::ADOPTED, stands, why, &message));
    }
    facts.extend(foreign_fact(observation));
    facts.extend(undated_fact(observation));
    facts.extend(
        status
            .change
            .as_ref()
            .and_then(|change| admission_fact(observation, change)),
    );
    facts.extend(
        status
            .change
            .as_ref()
            .and_then(|change| analysis_fact(change, proposal)),
    );
    let conditions = facts
        .into_iter()
        .map(|fact| condition(observation, &status.conditions, fact));
    status.conditions = conditions.collect();
    status.conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
}

fn workload_facts(
    observation: &Observation,
    proposal: &Proposal,
    status: &RolloutStatus,
    hold: Option<&Hold>,
) -> Vec<Fact> {
    let limits = present::limits(observation);
    let least = limits.desired - limits.unavailable;
    let available = status.available_replicas >= least;
    let pods = match (status.available_replicas, limits.desired) {
        (available, desired) if available > desired => {
            format!("{available} pods are available, and spec.replicas asks for {desired}")
        }
        (available, desired) => format!("{available} of {desired} pods are available"),
    };
    let change = status.change.as_ref();
    let rejected = change.is_some_and(|change| {
        change.outcome == Some(Outcome::RolledBack) && context::is_same(change, proposal)
    });
    // What has ended may wait for its record before what is asked for begins.
    let stable = status.stable.as_ref();
    let other = stable.is_none_or(|it| it.template_digest != proposal.template_digest);
    let moving = change.is_some_and(|change| {
        change.outcome.is_none() || matches!(change.stage, Stage::RollingBack | Stage::Promoted)
    }) && !cleanup::serves_alone(observation, status)
        || (other && !rejected);
    // What only a person can mend; missing data or pods may come by themselves.
    let refused = hold.is_some_and(|hold| {
        let refusals = [
            reason::CONFLICT,
            reason::WORKLOAD_INVALID,
            reason::TEMPLATE_INVALID,
            reason::SERVICE_NOT_FOUND,
            reason::ROUTER_NOT_INSTALLED,
            reason::ROUTE_NOT_FOUND,
            reason::ROUTE_INVALID,
            reason::ROUTER_REQUIRED,
            reason::POLICY_UNREADABLE,
            reason::STABLE_MISSING,
            reason::NO_CHECKS,
        ];
        refusals.contains(&hold.reason.as_str())
    });
    let stuck = hold.is_some_and(|hold| {
        [reason::AWAITING_PODS, reason::AWAITING_TRAFFIC].contains(&hold.reason.as_str())
    }) && overdue(observation, change);
    let why = hold.map_or_else(|| last_reason(status), |hold| hold.reason.clone());
    let ready = available && !moving && !rejected && !refused;
    vec![
        fact(
            "Available",
            available,
            if available {
                "EnoughPods"
            } else {
                "TooFewPods"
            },
            &pods,
        ),
        fact("Progressing", moving && !refused, &why, &status.message),
        fact("Ready", ready, &why, &status.message),
        fact(
            "Reconciling",
            moving && !refused && !rejected && !stuck,
            &why,
            &status.message,
        ),
        fact(
            "Stalled",
            rejected || refused || stuck,
            &why,
            &status.message,
        ),
    ]
}

/// Whether a first revision, which is never rolled back, has missed its deadline.
fn overdue(observation: &Observation, change: Option<&Change>) -> bool {
    let deadline = i64::from(observation.spec.progress_deadline_seconds);
    change
        .and_then(|change| change.progressed_at.as_ref())
        .is_some_and(|since| observation.now.duration_since(since.0).as_secs() >= deadline)
}

fn last_reason(status: &RolloutStatus) -> String {
    let told = status
        .change
        .iter()
        .flat_map(|change| change.transitions.iter().rev());
    let mut told = told.filter(|line| line.reason != reason::ROLLED_BACK);
    let nothing_told = match &status.change {
        Some(_) => reason::FIRST_REVISION,
        None => reason::STABLE,
    };
    told.next()
        .map_or_else(|| nothing_told.to_owned(), |line| line.reason.clone())
}

fn provenance_fact(observation: &Observation, proposal: &Proposal) -> Fact {
    if observation::is_unreadable(observation) {
        let message = "it may stand on the adopted workload, which cannot be used now";
        return fact("Provenance", None, reason::WORKLOAD_INVALID, message);
    }
    let provenance = &proposal.provenance;
    let problems: Vec<_> = provenance
        .problems
        .iter()
        .map(ToString::to_string)
        .collect();
    let declared = provenance.state == State::Declared;
    let message = match (declared, problems.is_empty()) {
        (true, true) => "the provenance annotations could all be read".to_owned(),
        (_, false) => problems.join("; "),
        (false, true) => {
            "there are no provenance annotations, so the change counts as unknown".to_owned()
        }
    };
    fact(
        "Provenance",
        declared && problems.is_empty(),
        &provenance.state.to_string(),
        &message,
    )
}

/// Whether pods of others are selected, too; where nobody has looked, what was said before holds.
fn foreign_fact(observation: &Observation) -> Option<Fact> {
    let Some(sets) = &observation.foreign_replica_sets else {
        let mut before = observation.status.conditions.iter();
        let before = before.find(|it| it.type_ == FOREIGN_PODS)?;
        return Some(fact(FOREIGN_PODS, true, &before.reason, &before.message));
    };
    if sets.is_empty() {
        return None;
    }
    let message = format!(
        "spec.selector selects pods of others, too, which are left alone: {}. Whatever selects by these labels counts them: give them other labels, or take a Deployment over by spec.workloadRef",
        sets.join(", ")
    );
    Some(fact(FOREIGN_PODS, true, reason::NOT_OWNED, &message))
}

/// That a router does not say which version of a route it accepts, where it does not.
fn undated_fact(observation: &Observation) -> Option<Fact> {
    let parents: Vec<_> = routes::undated_parents(observation).into_iter().collect();
    let message = format!(
        "the status of a route does not say which generation it means (observedGeneration), for {}: a new weight counts as accepted 5 s after it was written",
        parents.join(", ")
    );
    (!parents.is_empty()).then(|| fact("WeightsConfirmed", None, "NoObservedGeneration", &message))
}

/// Whether the API server proves who signs, where the plan asks for signatures.
fn admission_fact(observation: &Observation, change: &Change) -> Option<Fact> {
    if !sign_off::is_asked_for(change) || change.initial || change.outcome.is_some() {
        return None;
    }
    let admission = &observation.admission;
    Some(if !admission.problems.is_empty() {
        let problems = admission.problems.join("; ");
        let message = format!("no sign-off counts: {problems}");
        fact("SignOffsProven", false, reason::UNPROVEN, &message)
    } else if let Some(adopted) = &observation.spec.workload_ref {
        let message = format!(
            "it is not known who changed Deployment {}, as the API server stamps Rollouts alone; authors are known by provenance, and whoever changed the Rollout must not sign either",
            adopted.name
        );
        fact("SignOffsProven", None, "ChangerUnknown", &message)
    } else if change.changed_by.is_empty() {
        let message = if admission.stamps {
            "it is not known who changed the Rollout, as it was changed before the admission policies were in place; authors are known by provenance alone"
        } else {
            "it is not known who changed the Rollout, as this API server has no MutatingAdmissionPolicy; authors are known by provenance alone"
        };
        fact("SignOffsProven", None, "ChangerUnknown", message)
    } else {
        let message = "the API server proves who signs, and who changed the Rollout";
        fact("SignOffsProven", true, "Proven", message)
    })
}

fn analysis_fact(change: &Change, proposal: &Proposal) -> Option<Fact> {
    change.evidence.from.as_ref()?;
    if proposal.checks.checks.is_empty() {
        return Some(fact(
            "Analysis",
            None,
            reason::NO_CHECKS,
            "there is no check",
        ));
    }
    let message = as_of(change, &summary::line(&change.evidence));
    if change.outcome == Some(Outcome::RolledBack) {
        return Some(fact("Analysis", false, &last_end(change), &message));
    }
    let odd = change
        .evidence
        .checks
        .iter()
        .find(|check| check.last != "Counted");
    Some(match odd {
        Some(check) => fact(
            "Analysis",
            None,
            &check.last,
            &format!("check {}: {}", check.name, check.message),
        ),
        None => fact("Analysis", true, "Counted", &message),
    })
}

/// What was counted, with the end of the newest window that was: the status is not written with each.
pub(super) fn as_of(change: &Change, message: &str) -> String {
    let checks = change.evidence.checks.iter();
    let newest = checks
        .filter_map(|check| check.last_window_end.as_ref())
        .max();
    newest.map_or_else(
        || message.to_owned(),
        |end| format!("as of {:.0}: {message}", end.0),
    )
}

fn last_end(change: &Change) -> String {
    let told = change
        .transitions
        .iter()
        .rev()
        .find(|line| line.reason != reason::ROLLED_BACK);
    told.map_or_else(
        || reason::ROLLED_BACK.to_owned(),
        |line| line.reason.clone(),
    )
}

/// The transition time moves only with the status, as the API conventions ask.
fn condition(observation: &Observation, before: &[Condition], fact: Fact) -> Condition {
    let value = match fact.value {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let before = before
        .iter()
        .find(|condition| condition.type_ == fact.kind && condition.status == value);
    Condition {
        type_: fact.kind.to_owned(),
        status: value.to_owned(),
        reason: fact.reason,
        message: fact.message,
        observed_generation: Some(observation.generation),
        last_transition_time: before.map_or_else(
            || Time(observation.now),
            |condition| condition.last_transition_time.clone(),
        ),
    }
}

/// Much of what is told are the words of others.
pub(super) fn cut(message: &str) -> String {
    shown(message, MAX_MESSAGE)
}
