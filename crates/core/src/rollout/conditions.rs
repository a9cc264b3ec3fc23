//! The conditions of the status.

use countersign_api::rollout::{Adopted, Change, Outcome, RolloutStatus, Stage, WindowState};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::analysis::summary;
use crate::change;
use crate::condition::{ConditionDraft, dated, fact};
use crate::hold::Hold;
use crate::observation::{self, Observation};
use crate::people::eligibility::ANYBODY;
use crate::people::sign_off;
use crate::proposal::Proposal;
use crate::provenance::State;
use crate::reason::{Reason, Wait};
use crate::rollout::context;
use crate::traffic::routes;
use crate::traffic::view::View;
use crate::workload::adoption::{condition, step};
use crate::workload::{cleanup, tampering};

const FOREIGN_PODS: &str = "ForeignPods";

/// Whether a status reports pods of others among those that the Rollout selects; they may be gone by now.
#[must_use]
pub fn reports_foreign_pods(status: &RolloutStatus) -> bool {
    let mut reported = status.conditions.iter();
    reported.any(|it| it.type_ == FOREIGN_PODS && it.status == "True")
}

/// Whether pods of others were found among those that the Rollout selects.
pub(super) fn has_foreign_pods(observation: &Observation) -> bool {
    let found = observation.foreign_replica_sets.as_ref();
    found.is_some_and(|found| !found.is_empty()) || reports_foreign_pods(&observation.status)
}

/// The conditions of a status whose pod counters and message are already set.
pub(super) fn conditions(
    view: &View,
    proposal: &Proposal,
    status: &RolloutStatus,
    adopted: Option<&Adopted>,
    hold: Option<&Hold>,
) -> Vec<Condition> {
    let observation = view.observation;
    let mut facts = workload_facts(view, proposal, status, hold);
    facts.push(provenance_fact(observation, proposal));
    facts.extend(adopted.map(|adopted| {
        let (serves, why, message) = condition::state(view, adopted, hold);
        fact(step::ADOPTED, serves, why, &message)
    }));
    facts.extend(tampered_fact(observation));
    facts.extend(foreign_fact(observation));
    facts.extend(undated_fact(observation));
    let change = view.change;
    facts.extend(change.and_then(|change| admission_fact(observation, change)));
    facts.extend(change.and_then(|change| analysis_fact(change, proposal)));
    let before = &observation.status.conditions;
    dated(facts, before, observation.generation, observation.now)
}

fn workload_facts(
    view: &View,
    proposal: &Proposal,
    status: &RolloutStatus,
    hold: Option<&Hold>,
) -> Vec<ConditionDraft> {
    let limits = view.fleet.limits;
    let least = limits.desired - limits.unavailable;
    let available = status.available_replicas >= least;
    let pods = match (status.available_replicas, limits.desired) {
        (available, desired) if available > desired => {
            format!("{available} pods are available, and spec.replicas is {desired}")
        }
        (available, desired) => format!("{available} of {desired} pods are available"),
    };
    let change = view.change;
    let rejected = change.is_some_and(|change| {
        change.outcome == Some(Outcome::RolledBack) && context::is_same(change, proposal)
    });
    // A change that has ended may wait for its record before the next change begins.
    let other = view
        .stable
        .is_none_or(|it| it.template_digest != proposal.template_digest);
    let moving = change.is_some_and(|change| {
        change.outcome.is_none() || matches!(change.stage, Stage::RollingBack | Stage::Promoted)
    }) && !cleanup::serves_alone(view)
        || (other && !rejected);
    // Waits that only a person can end; missing data or pods may arrive automatically.
    let wait = hold.map(|hold| hold.reason.class().wait);
    let refused = wait == Some(Wait::Refusal);
    let edited = tampering::is_present(view.observation);
    let stuck = matches!(wait, Some(Wait::Pods | Wait::Traffic))
        && change.is_some_and(|it| change::is_overdue(view.observation, it));
    let why = hold.map_or_else(|| last_reason(change), |hold| hold.reason.into());
    let ready = available && !moving && !rejected && !refused && !edited;
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
        fact("Progressing", moving && !refused, &*why, &status.message),
        fact("Ready", ready, &*why, &status.message),
        fact(
            "Reconciling",
            moving && !refused && !rejected && !stuck,
            &*why,
            &status.message,
        ),
        fact(
            "Stalled",
            rejected || refused || stuck,
            why,
            &status.message,
        ),
    ]
}

/// The reason of a Rollout that waits for nothing.
fn last_reason(change: Option<&Change>) -> String {
    let Some(change) = change else {
        return Reason::Stable.into();
    };
    change::last_cause(change)
        .map_or_else(|| Reason::FirstRevision.into(), |line| line.reason.clone())
}

fn provenance_fact(observation: &Observation, proposal: &Proposal) -> ConditionDraft {
    if observation::is_unreadable(observation) {
        let message = "it may be on the adopted workload, which cannot be used now";
        return fact("Provenance", None, Reason::WorkloadInvalid, message);
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
        provenance.state.to_string(),
        &message,
    )
}

/// Which ReplicaSets were edited by another writer, while pods of them may serve.
fn tampered_fact(observation: &Observation) -> Option<ConditionDraft> {
    let message = tampering::summary(observation)?;
    Some(fact("Tampered", true, Reason::Tampered, &message))
}

/// Whether a Service selects foreign pods, too; if pods were not read, the previous condition is kept.
fn foreign_fact(observation: &Observation) -> Option<ConditionDraft> {
    let Some(sets) = &observation.foreign_replica_sets else {
        let mut before = observation.status.conditions.iter();
        let before = before.find(|it| it.type_ == FOREIGN_PODS)?;
        return Some(fact(FOREIGN_PODS, true, &*before.reason, &before.message));
    };
    if sets.is_empty() {
        return None;
    }
    let message = format!(
        "spec.selector selects foreign pods, too, which are left alone: {}. Whatever selects by these labels counts them: give them other labels, or take a Deployment over by spec.workloadRef",
        sets.join(", ")
    );
    Some(fact(FOREIGN_PODS, true, Reason::NotOwned, &message))
}

/// The condition for a router that does not report which generation of a route it accepts.
fn undated_fact(observation: &Observation) -> Option<ConditionDraft> {
    let parents: Vec<_> = routes::undated_parents(observation).into_iter().collect();
    let message = format!(
        "the status of a route does not report its generation (observedGeneration), for {}: a new weight counts as accepted 5 s after it was written",
        parents.join(", ")
    );
    (!parents.is_empty()).then(|| fact("WeightsConfirmed", None, "NoObservedGeneration", &message))
}

/// Whether the API server verifies the author of a sign-off, if the plan demands sign-offs.
fn admission_fact(observation: &Observation, change: &Change) -> Option<ConditionDraft> {
    let asked = !change.initial || sign_off::awaits_first(change);
    if !sign_off::is_required(change) || !asked || change.outcome.is_some() {
        return None;
    }
    let admission = &observation.people.admission;
    Some(if !admission.problems.is_empty() {
        let problems = admission.problems.join("; ");
        let message = format!("no sign-off counts: {problems}");
        fact("SignOffsProven", false, Reason::Unproven, &message)
    } else if let Some(adopted) = &observation.spec.workload_ref {
        let message = format!(
            "it is not known who changed Deployment {}, as the API server stamps Rollouts alone; authors are known by provenance, and the user who changed the Rollout must not sign either",
            adopted.name
        );
        fact("SignOffsProven", None, "ChangerUnknown", &message)
    } else if change.changed_by.is_empty() {
        let message = if admission.stamps {
            "it is not known who changed the Rollout, as it was changed before the admission policies were in place; authors are known by provenance alone"
        } else {
            "it is not known who changed the Rollout, as it was changed before the admission policies were in place, or its namespace has the label countersign.dev/stamp=optional; authors are known by provenance alone"
        };
        fact("SignOffsProven", None, "ChangerUnknown", message)
    } else if change.excluded_approvers.users.contains(ANYBODY) {
        let message = "more people have a hand in the change than can be named, so no approval counts: apply the stable template, then the change again";
        fact("SignOffsProven", None, "ChangerUnknown", message)
    } else {
        let message = "the API server proves who signs, and who changed the Rollout";
        fact("SignOffsProven", true, "Proven", message)
    })
}

fn analysis_fact(change: &Change, proposal: &Proposal) -> Option<ConditionDraft> {
    change.evidence.from.as_ref()?;
    if proposal.checks.checks.is_empty() {
        return Some(fact(
            "Analysis",
            None,
            Reason::NoChecks,
            "there is no check",
        ));
    }
    let message = as_of(change, &summary::line(&change.evidence));
    if change.outcome == Some(Outcome::RolledBack) {
        let cause = change::last_cause(change);
        let why = cause.map_or(Reason::RolledBack.as_str(), |line| &line.reason);
        return Some(fact("Analysis", false, why, &message));
    }
    let odd = change
        .evidence
        .checks
        .iter()
        .find(|check| check.last != WindowState::Counted);
    Some(match odd {
        Some(check) => fact(
            "Analysis",
            None,
            check.last.as_str(),
            &format!("check {}: {}", check.name, check.message),
        ),
        None => fact("Analysis", true, WindowState::Counted.as_str(), &message),
    })
}

/// The message with the end of the newest counted window; the status is not written for each window.
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
