//! When to look again.

use countersign_api::rollout::{Change, RolloutStatus, Stage};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::analysis::{checks, gather};
use crate::decision::Action;
use crate::rollout::context::{FIRST_PODS, LATER, LONGEST_SPREAD, SOON, TRAFFIC, Turn};
use crate::traffic::{routes, settle};

impl Turn<'_> {
    /// The next window is due one interval and the lag after the last one, and is looked for a little
    /// later; an unanswered one is asked again at the next interval. Budgets are asked as often.
    pub(super) fn look_for_evidence(&mut self, change: &Change) {
        let Some(from) = &change.evidence.from else {
            return;
        };
        let interval = change.interval.signed();
        if !change.objectives.is_empty() {
            self.look_again_after(interval);
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
            .and_then(|end| end.saturating_add(self.observation.lag.signed()))
            .and_then(|due| due.saturating_add(spread(&self.observation.uid, interval)));
        let due = due.unwrap_or(Timestamp::MAX);
        if due > self.observation.now {
            self.look_again(due);
        } else {
            self.look_again_after(interval);
        }
    }

    /// What no watch reports of the traffic is looked at again soon: endpoints, and the end of a drain.
    pub(super) fn look_at_traffic(&mut self, status: &RolloutStatus) {
        let (Some(split), Some(change)) = (&status.traffic, &status.change) else {
            return;
        };
        if matches!(change.stage, Stage::Waiting | Stage::RolledBack) {
            return;
        }
        let now = self.observation.now;
        let moving = change.progressed_at.as_ref();
        let moving = moving.is_some_and(|at| now.duration_since(at.0) < LATER)
            && routes::problem(self.observation).is_none();
        match &split.settled_at {
            None => self.look_again_after(if moving { TRAFFIC } else { SOON }),
            Some(since) if !settle::drained(self.observation, status) => {
                self.look_again(settle::drained_at(self.observation, since));
            }
            Some(_) => {}
        }
    }

    /// What was begun is looked at soon, but for the pods of a first revision.
    pub(super) fn look_again_after_acting(&mut self, status: &RolloutStatus, actions: &[Action]) {
        let first = status.change.as_ref().is_some_and(|it| it.initial);
        let starts = first && self.observation.status.change.is_none();
        let makes_pods = |it: &Action| matches!(it, Action::CreateReplicaSet { .. });
        if first && !actions.is_empty() && actions.iter().all(makes_pods) {
            self.look_again_after(FIRST_PODS);
        } else if starts {
            self.look_again_after(SignedDuration::ZERO); // something keeps its pods waiting
        } else if (self.went_on && self.ended.is_none()) || !actions.is_empty() {
            self.look_again_after(SOON);
        }
    }

    pub(super) fn look_again(&mut self, at: Timestamp) {
        self.look_again_at = Some(self.look_again_at.map_or(at, |earlier| earlier.min(at)));
    }

    pub(super) fn look_again_after(&mut self, delay: SignedDuration) {
        self.look_again(
            self.observation
                .now
                .saturating_add(delay)
                .unwrap_or(Timestamp::MAX),
        );
    }
}

/// How much later than it could a Rollout looks for its evidence, which is always the same. Rollouts that
/// began together would otherwise all ask at the same moments. Short intervals ask for haste.
pub(super) fn spread(uid: &str, interval: SignedDuration) -> SignedDuration {
    let part = if interval < LONGEST_SPREAD { 10 } else { 3 };
    let most = (interval / part).min(LONGEST_SPREAD).as_millis();
    let most = u64::try_from(most).unwrap_or_default();
    // FNV-1a, which is the same in every build.
    let hash = uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    SignedDuration::from_millis(i64::try_from(hash % (most + 1)).unwrap_or_default())
}
