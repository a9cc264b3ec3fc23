//! How a change ends and leaves.

use countersign_api::rollout::{Change, Outcome, Reached, RolloutStatus, Stage};
use k8s_openapi::jiff::SignedDuration;

use crate::hold::Hold;
use crate::replicas::present;
use crate::rollout::context::{self, Behind, LATER, SOON, Turn};
use crate::rollout::{commands, gates};
use crate::traffic::{services, settle};
use crate::workload::cleanup;
use crate::{change, observation, reason};

impl Turn<'_> {
    /// The Rollout is being deleted: what is under way ends, so that stable serves alone before pods are
    /// given back. A first revision stays as it is: there is nothing to go back to.
    pub(super) fn leave(&mut self, status: &mut RolloutStatus, mut change: Change) {
        if !change.initial {
            let message = "the Rollout is being deleted".into();
            self.roll_back(&mut change, reason::ABORTED, message);
        }
        status.change = Some(change);
    }

    /// The template changed while a change was under way.
    pub(super) fn replace(&mut self, status: &mut RolloutStatus, mut change: Change) {
        let back = status
            .stable
            .as_ref()
            .is_some_and(|stable| stable.template_digest == self.proposal.template_digest);
        if back {
            self.end(
                &mut change,
                Outcome::Reverted,
                reason::REVERTED,
                "the template went back to the stable one".into(),
            );
        } else {
            let message = format!(
                "another change took its place: {}",
                short(&self.proposal.digest)
            );
            self.end(
                &mut change,
                Outcome::Superseded,
                reason::SUPERSEDED,
                message,
            );
        }
        status.change = Some(change);
        self.look_again_after(SignedDuration::ZERO);
    }

    /// The change has ended: its pods go, and what follows waits until its record is complete.
    pub(super) fn conclude(
        &mut self,
        status: &mut RolloutStatus,
        mut change: Change,
    ) -> Option<Hold> {
        let promoted = change.outcome;
        // A retry that was asked for before there was anything to retry is none.
        if promoted == Some(Outcome::Promoted) {
            self.ignore_interventions(&mut change);
        }
        self.watch(status, &mut change);
        if change.outcome != promoted {
            status.change = Some(change); // it is told and recorded before anything else begins
            return None;
        }
        if change.stage == Stage::RollingBack {
            let stable = status.stable.as_ref();
            let available = stable.map_or(0, |it| self.available(&it.pod_template_hash));
            let available = available.min(present::limits(self.observation).desired);
            self.note_progress(
                &mut change,
                Reached {
                    available,
                    weight: 0,
                },
            );
        }
        let seen = RolloutStatus {
            change: Some(change.clone()),
            ..status.clone()
        };
        let gone = cleanup::stable_is_alone(self.observation, &seen);
        if gone && change.stage == Stage::RollingBack {
            change.stage = Stage::RolledBack;
            self.tell(
                &mut change,
                reason::ROLLED_BACK,
                "the rejected revision has no pods any more".into(),
            );
        }
        // What failed stays failed until the template or its provenance changes.
        let same = context::is_same(&change, self.proposal);
        let stable_again = status
            .stable
            .as_ref()
            .is_some_and(|stable| stable.template_digest == self.proposal.template_digest);
        let over = match change.outcome {
            Some(Outcome::Promoted) => {
                let replaced = change.template_digest != self.proposal.template_digest;
                replaced || (gone && !change::is_watched(&change) && change.kept_until.is_none())
            }
            Some(Outcome::RolledBack) if same => gone && self.is_retried(&mut change),
            _ => gone || !stable_again,
        };
        // Else the next change would begin with the share of this one, or before stable serves again.
        let traffic_is_back = change.outcome == Some(Outcome::Promoted)
            || (settle::is_over(self.observation, &seen)
                && !services::stable_side_waits(self.observation, &seen))
            || change::is_overdue(self.observation, &change);
        let over = over && traffic_is_back;
        // What comes next cannot be told while the adopted workload cannot be read.
        let unreadable = observation::is_unreadable(self.observation) && !self.observation.deleting;
        let over = over && (!unreadable || change.outcome == Some(Outcome::Promoted));
        if over && (self.observation.recorded || self.ended_long_ago(&change)) {
            self.behind = Behind::of(change, self.proposal);
            return self.rest_or_start(status);
        }
        self.ignore_interventions(&mut change);
        self.look_again_after(if over { SOON } else { LATER });
        if change.stage == Stage::RolledBack && !over && !commands::is_to_be_retried(&change) {
            self.look_again_at = None;
        }
        status.change = Some(change);
        gates::stable_lost(self.observation, status)
    }

    /// A record that cannot be written must not keep a fix from being deployed for ever.
    fn ended_long_ago(&self, change: &Change) -> bool {
        let ended = change.transitions.last().and_then(|line| line.at.as_ref());
        ended.is_none_or(|at| self.observation.now.duration_since(at.0) >= LATER)
    }
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}
