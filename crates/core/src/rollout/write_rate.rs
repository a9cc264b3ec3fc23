//! Limits how often a status is written that differs only in messages or evidence.

use countersign_api::rollout::{
    CheckEvidence, CheckVerdict, Outcome, Phase, RolloutStatus, Stage, WindowState,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::change;
use crate::decision::Decision;
use crate::hold::Hold;
use crate::observation::Observation;
use crate::reason::{Reason, SETTLE};

impl Decision {
    /// Whether the decision does nothing except write counted evidence.
    #[must_use]
    pub fn only_updates_evidence(&self, observation: &Observation) -> bool {
        self.writes_nothing_but_the_status()
            && only_evidence_moved(&observation.status, &self.status)
    }

    /// Whether a change is rolled back because of its windows alone.
    #[must_use]
    pub fn rolls_back_on_analysis(&self) -> bool {
        let change = self.status.change.as_ref();
        change.is_some_and(|change| {
            let last = change.transitions.last();
            let failed = last.is_some_and(|line| line.reason == Reason::AnalysisFailed);
            change.outcome == Some(Outcome::RolledBack) && failed
        })
    }
}

/// Least time between two writes of evidence alone; bounds the writes to etcd.
const REFRESH: SignedDuration = SignedDuration::from_mins(1);

/// Keeps the old status if it differs only in evidence that was written lately (it is rebuilt from
/// Prometheus after a restart), or in a routine wait that has just begun. An untrue message is never kept.
/// Returns when the message of such a wait is due.
pub fn throttle_status_write(
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
    // A better place in the queue is news.
    let moved_up = change::waits_for(new, Reason::Queued) && old.message != new.message;
    if lately && !moved_up && only_evidence_moved(old, new) {
        new.clone_from(old);
        return None;
    }
    let due = match hold {
        Some(hold) => routine_until(observation, new, hold),
        None => leaving_until(observation, new),
    }?;
    if without_messages(old) == without_messages(new) {
        new.clone_from(old);
        return Some(due);
    }
    None
}

/// Whether a status names a wait that is over, or a time that has passed or has changed.
fn is_outlived(old: &RolloutStatus, new: &RolloutStatus, now: Timestamp) -> bool {
    let wait_is_over = old.waiting_for.is_some() && old.waiting_for != new.waiting_for;
    let named = times(&old.message);
    let time_is_over = named.iter().any(|at| *at <= now);
    wait_is_over || time_is_over || (!named.is_empty() && named != times(&new.message))
}

/// The times that a message names as the end of something.
fn times(message: &str) -> Vec<Timestamp> {
    let after = message.split("until ").skip(1);
    let words = after.filter_map(|rest| rest.split([' ', ',', ';', ')']).next());
    words.filter_map(|word| word.parse().ok()).collect()
}

/// Until when a wait is routine: every change waits for this, and nothing is wrong.
fn routine_until(
    observation: &Observation,
    status: &RolloutStatus,
    hold: &Hold,
) -> Option<Timestamp> {
    let change = status.change.as_ref()?;
    let under_way = matches!(change.stage, Stage::Stepping | Stage::Promoting);
    let settle = hold.reason.class().routine?;
    let pods = observation.new_pods.as_ref();
    let trouble = pods.is_some_and(|it| it.trouble.is_some())
        || observation
            .replica_sets
            .iter()
            .any(|set| set.failure.is_some());
    if !under_way || trouble {
        return None;
    }
    let last_transition = change.transitions.last().and_then(|line| line.at.as_ref());
    let moments = [
        last_transition,
        change.started_at.as_ref(),
        change.available_at.as_ref(),
    ];
    let moments = moments.into_iter().flatten().map(|at| at.0);
    let bake = change::bake_ends(change).filter(|end| *end <= observation.now);
    let until = moments.chain(bake).max()?.saturating_add(settle).ok()?;
    (until > observation.now).then_some(until)
}

/// Until when the number of remaining pods of an ended change is routine.
fn leaving_until(observation: &Observation, status: &RolloutStatus) -> Option<Timestamp> {
    let change = status.change.as_ref()?;
    let leaving = [Phase::Promoted, Phase::RollingBack].contains(&status.phase);
    let leaves = leaving && status.phase == observation.status.phase;
    let last_transition = change.transitions.last()?.at.as_ref()?;
    let until = last_transition.0.saturating_add(SETTLE).ok()?;
    (leaves && until > observation.now).then_some(until)
}

/// The status without messages: what decisions are made from.
fn without_messages(status: &RolloutStatus) -> RolloutStatus {
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

/// Whether two statuses differ only in numbers of the evidence.
#[must_use]
pub fn only_evidence_moved(old: &RolloutStatus, new: &RolloutStatus) -> bool {
    without_evidence(old) == without_evidence(new)
}

/// The status without the numbers that change with every window or pod.
fn without_evidence(status: &RolloutStatus) -> RolloutStatus {
    let without_numbers =
        |text: &mut String| text.retain(|c| !c.is_ascii_digit() && !['.', ','].contains(&c));
    let mut status = status.clone();
    let awaited = change::waits_for(&status, Reason::AwaitingEvidence);
    if awaited {
        status.message.clear(); // contains the missing count
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
        let counts =
            condition.type_ == "Analysis" && condition.reason == WindowState::Counted.as_str();
        if counts || (awaited && condition.reason == Reason::AwaitingEvidence) {
            condition.message.clear();
        }
        without_numbers(&mut condition.message);
    }
    status
}
