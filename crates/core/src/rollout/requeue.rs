//! When to requeue.

use countersign_api::rollout::{Change, Outcome, Stage};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::analysis::{checks, gather};
use crate::decision::{Action, WorkloadAction};
use crate::intervals::{POLL_INTERVAL, RESYNC_INTERVAL};
use crate::observation::Observation;
use crate::rollout::context::{FIRST_PODS, LONGEST_SPREAD, TRAFFIC};
use crate::rollout::gates;
use crate::traffic::view::View;
use crate::traffic::{corrections, settle};

/// The earliest time at which another reconcile is due.
#[derive(Debug)]
pub(super) struct Requeue {
    now: Timestamp,
    earliest: Option<Timestamp>,
    awaits_traffic: bool,
}

impl Requeue {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            now,
            earliest: None,
            awaits_traffic: false,
        }
    }

    pub(super) fn earliest(&self) -> Option<Timestamp> {
        self.earliest
    }

    pub(super) fn awaits_traffic(&self) -> bool {
        self.awaits_traffic
    }

    pub(super) fn at(&mut self, at: Timestamp) {
        self.earliest = Some(self.earliest.map_or(at, |earlier| earlier.min(at)));
    }

    pub(super) fn after(&mut self, delay: SignedDuration) {
        self.at(self.now.saturating_add(delay).unwrap_or(Timestamp::MAX));
    }

    /// No reconcile is due until an event arrives.
    pub(super) fn clear(&mut self) {
        self.earliest = None;
    }

    /// The next window is due one interval and the lag after the last one, and is read a little later; a
    /// window without an answer is queried again at the next interval. Budgets are queried as often.
    pub(super) fn for_evidence(&mut self, observation: &Observation, change: &Change) {
        let Some(from) = &change.evidence.from else {
            return;
        };
        let interval = change.interval.signed();
        if !change.objectives.is_empty() {
            self.after(interval);
        }
        if change.checks.is_empty() {
            return;
        }
        let counted =
            checks::active(change).filter_map(|(name, _)| gather::counted_until(change, name));
        let due = counted
            .min()
            .unwrap_or(from.0)
            .saturating_add(interval)
            .and_then(|end| end.saturating_add(observation.analysis.lag.signed()))
            .and_then(|due| due.saturating_add(spread(&observation.uid, interval)));
        let due = due.unwrap_or(Timestamp::MAX);
        if due > self.now {
            self.at(due);
        } else {
            self.after(interval);
        }
    }

    /// No event shows the end of a drain, and one of endpoints may be missed, so the Rollout is requeued soon.
    pub(super) fn for_traffic(&mut self, view: &View) {
        let (Some(split), Some(change)) = (view.split, view.change) else {
            return;
        };
        if let Some(at) = corrections::postponed(view) {
            self.at(at);
        }
        let failed =
            change.stage == Stage::RolledBack && change.outcome == Some(Outcome::RolledBack);
        if failed || change.stage == Stage::Waiting {
            return;
        }
        let moving = self.progressed_lately(change) && view.routes.problem.is_none();
        let served = matches!(change.stage, Stage::Stepping | Stage::Promoting) && !change.initial;
        // Pods are watched.
        let grown = view.fleet.pods.canary.available >= gates::pods_needed(view, change);
        let awaited = served && grown && settle::awaited(view, change).is_some();
        if split.settled_at.is_none() || awaited {
            self.awaits_traffic = true;
            self.after(if moving { TRAFFIC } else { POLL_INTERVAL });
        }
        if let Some(since) = split.settled_at.as_ref().filter(|_| !settle::drained(view)) {
            self.at(settle::drained_at(view.observation, since.0));
        }
    }

    pub(super) fn progressed_lately(&self, change: &Change) -> bool {
        let since = change.progressed_at.as_ref();
        since.is_some_and(|at| self.now.duration_since(at.0) < RESYNC_INTERVAL)
    }

    /// Actions just taken are checked soon, except for the pods of a first revision.
    pub(super) fn after_acting(&mut self, view: &View, actions: &[Action], went_on: bool) {
        let first = view.change.is_some_and(|it| it.initial);
        let starts = first && view.observation.status.change.is_none();
        let makes_pods =
            |it: &Action| matches!(it, Action::Workload(WorkloadAction::CreateReplicaSet(_)));
        if first && !actions.is_empty() && actions.iter().all(makes_pods) {
            self.after(FIRST_PODS);
        } else if starts {
            self.after(SignedDuration::ZERO); // the pods are held by something else
        } else if went_on || !actions.is_empty() {
            self.after(POLL_INTERVAL);
        }
    }
}

/// The delay of a Rollout's evidence reads, constant per UID, so that Rollouts that began together do not
/// query at the same time. Short intervals get a short delay.
pub(super) fn spread(uid: &str, interval: SignedDuration) -> SignedDuration {
    let part = if interval < LONGEST_SPREAD { 20 } else { 3 };
    let most = (interval / part).min(LONGEST_SPREAD).as_millis();
    let most = u64::try_from(most).unwrap_or_default();
    // FNV-1a: stable across builds.
    let hash = uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    SignedDuration::from_millis(i64::try_from(hash % (most + 1)).unwrap_or_default())
}
