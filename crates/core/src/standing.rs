//! How a Rollout stands, for people and tools: phase, message, counters and conditions.
//!
//! Everything here follows from the state; nothing is decided on it.

use countersign_api::rollout::{
    Change, CheckEvidence, CheckVerdict, Outcome, Phase, RolloutStatus, Stage,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::analysis::summary;
use crate::hold::{Hold, HoldKind};
use crate::observation::{self, Observation};
use crate::people::sign_off;
use crate::proposal::Proposal;
use crate::provenance::State;
use crate::replicas::present;
use crate::text::shown;
use crate::traffic::routes;
use crate::workload::adoption::{condition, step};
use crate::workload::cleanup;
use crate::{change, decide, reason, replicas};

/// How often evidence alone, without a transition, is written to the status.
const REFRESH: SignedDuration = SignedDuration::from_mins(1);

/// For how long a routine wait after a transition, or after the end of a bake, is left unsaid: most are
/// over by then, and each costs a write and an Event.
const SETTLE: SignedDuration = SignedDuration::from_secs(30);
/// The same for routers, which are quick, or there is something to be mended.
const ROUTED: SignedDuration = SignedDuration::from_secs(10);

/// The condition that tells of pods of others.
const FOREIGN_PODS: &str = "ForeignPods";

/// Longest message of a condition.
const MAX_MESSAGE: usize = 1_024;

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
    status.message = cut(&message);
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
    set_conditions(observation, proposal, status, hold);
}

/// Keeps the old status where only words moved whose time has not come: evidence alone, which was written
/// lately and is rebuilt from Prometheus after a restart, or a routine wait that has just begun. Words that
/// are not true any more are never kept. Returns when such a wait is to be told.
pub fn keep_quiet(
    observation: &Observation,
    new: &mut RolloutStatus,
    hold: Option<&Hold>,
) -> Option<Timestamp> {
    let old = &observation.status;
    if is_outlived(old, new, observation.now) {
        return None;
    }
    let counted = |status: &RolloutStatus| -> Option<Timestamp> {
        let evidence = &status.change.as_ref()?.evidence;
        let ends = evidence.checks.iter();
        let ends = ends.filter_map(|check| check.last_window_end.as_ref());
        ends.chain(&evidence.from).map(|end| end.0).max()
    };
    let watched = new.change.as_ref().is_some_and(change::is_watched);
    let refresh = if watched { REFRESH * 10 } else { REFRESH };
    let lately = match (counted(old), counted(new)) {
        (Some(old), Some(new)) => new.duration_since(old) < refresh,
        (None, Some(_)) => false,
        (_, None) => true,
    };
    // A place in the queue is a number that says something.
    let moved_up = change::hold_reason(new) == Some(reason::QUEUED) && old.message != new.message;
    if lately && !moved_up && only_evidence_moved(old, new) {
        new.clone_from(old);
        return None;
    }
    let told_at = match hold {
        Some(hold) => routine_until(observation, new, hold),
        None => leaving_until(observation, new),
    }?;
    if without_words(old) == without_words(new) {
        new.clone_from(old);
        return Some(told_at);
    }
    None
}

/// Whether a status names a wait that is over, or a time that has passed or is another one by now.
fn is_outlived(old: &RolloutStatus, new: &RolloutStatus, now: Timestamp) -> bool {
    let wait_is_over =
        change::hold_reason(old).is_some() && change::hold_reason(old) != change::hold_reason(new);
    let named = times(&old.message);
    let time_is_over = named.iter().any(|at| *at <= now);
    wait_is_over || time_is_over || (!named.is_empty() && named != times(&new.message))
}

/// The times until which a message says that something lasts.
fn times(message: &str) -> Vec<Timestamp> {
    let after = message.split("until ").skip(1);
    let words = after.filter_map(|rest| rest.split([' ', ',', ';', ')']).next());
    words.filter_map(|word| word.parse().ok()).collect()
}

/// Until when a wait is no news: what every change waits for, and nothing that goes wrong.
fn routine_until(
    observation: &Observation,
    status: &RolloutStatus,
    hold: &Hold,
) -> Option<Timestamp> {
    let change = status.change.as_ref()?;
    let under_way = matches!(change.stage, Stage::Stepping | Stage::Promoting);
    let routine = [
        reason::AWAITING_PODS,
        reason::AWAITING_TRAFFIC,
        reason::BAKING,
        reason::WARMING_UP,
        reason::AWAITING_EVIDENCE,
        "Waiting",
    ];
    let trouble = observation.new_pods.trouble.is_some()
        || observation
            .replica_sets
            .iter()
            .any(|set| set.failure.is_some());
    if !under_way || trouble || !routine.contains(&hold.reason.as_str()) {
        return None;
    }
    let told = change.transitions.last().and_then(|line| line.at.as_ref());
    let moments = [
        told,
        change.started_at.as_ref(),
        change.available_at.as_ref(),
    ];
    let moments = moments.into_iter().flatten().map(|at| at.0);
    let bake = change::bake_ends(change).filter(|end| *end <= observation.now);
    let settle = if hold.reason == reason::AWAITING_TRAFFIC {
        ROUTED
    } else {
        SETTLE
    };
    let until = moments.chain(bake).max()?.saturating_add(settle).ok()?;
    (until > observation.now).then_some(until)
}

/// Until when it is no news how many pods of what has ended are left.
fn leaving_until(observation: &Observation, status: &RolloutStatus) -> Option<Timestamp> {
    let change = status.change.as_ref()?;
    let leaving = [Phase::Promoted, Phase::RollingBack].contains(&status.phase);
    let leaves = leaving && status.phase == observation.status.phase;
    let told = change.transitions.last()?.at.as_ref()?;
    let until = told.0.saturating_add(SETTLE).ok()?;
    (leaves && until > observation.now).then_some(until)
}

/// The status without what is said of it: what is left is what decisions are made from.
fn without_words(status: &RolloutStatus) -> RolloutStatus {
    RolloutStatus {
        phase: Phase::default(),
        message: String::new(),
        waiting_for: None,
        waiting_kind: None,
        weight: None,
        conditions: Vec::new(),
        replicas: 0,
        updated_replicas: 0,
        ready_replicas: 0,
        available_replicas: 0,
        ..without_evidence(status)
    }
}

/// Whether two statuses differ in numbers of the evidence alone.
#[must_use]
pub fn only_evidence_moved(old: &RolloutStatus, new: &RolloutStatus) -> bool {
    without_evidence(old) == without_evidence(new)
}

/// The status with the numbers that change with every window or pod left out.
fn without_evidence(status: &RolloutStatus) -> RolloutStatus {
    let without_numbers =
        |text: &mut String| text.retain(|c| !c.is_ascii_digit() && !['.', ','].contains(&c));
    let mut status = status.clone();
    let awaited = change::hold_reason(&status) == Some(reason::AWAITING_EVIDENCE);
    if awaited {
        status.message.clear(); // how much is missing, in words that depend on it
    }
    without_numbers(&mut status.message);
    if let Some(change) = &mut status.change {
        let failing = |check: &CheckEvidence| check.summary.verdict == CheckVerdict::Failing;
        let checks = std::mem::take(&mut change.evidence.checks);
        let names = checks.into_iter().filter(failing).map(|check| check.name);
        change.evidence.checks = names
            .map(|name| CheckEvidence {
                name,
                ..CheckEvidence::default()
            })
            .collect();
        for budget in &mut change.evidence.objectives {
            budget.spent = None;
            budget.message.clear();
        }
    }
    for condition in &mut status.conditions {
        let counts = condition.type_ == "Analysis" && condition.reason == "Counted";
        if counts || (awaited && condition.reason == reason::AWAITING_EVIDENCE) {
            condition.message.clear();
        }
        without_numbers(&mut condition.message);
    }
    status
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
            Some(change) => as_of(change, &hold.message),
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

fn set_conditions(
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
        change.outcome == Some(Outcome::RolledBack) && decide::is_same(change, proposal)
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
fn as_of(change: &Change, message: &str) -> String {
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
fn cut(message: &str) -> String {
    shown(message, MAX_MESSAGE)
}
