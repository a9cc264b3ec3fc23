//! What was promoted and is watched on, and the way back.

use countersign_api::objective::OnBurn;
use countersign_api::rollout::{Change, Outcome, RolloutStatus};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::analysis::verdict::{self, Verdict};
use crate::analysis::{budget, summary};
use crate::reason;
use crate::rollout::context::Turn;

impl Turn<'_> {
    /// After its promotion a change is watched by what needs no comparison: where that breaks, or the
    /// template goes back, the previous revision is the stable one again, without steps.
    pub(super) fn watch(&mut self, status: &mut RolloutStatus, change: &mut Change) {
        let Some(previous) = &change.previous else {
            return;
        };
        if previous.template_digest == self.proposal.template_digest {
            let message = "the template went back to the previous revision".into();
            self.come_back(status, change, Outcome::Reverted, reason::REVERTED, message);
            return;
        }
        self.keep_previous(change);
        let Some(until) = change.watched_until.clone() else {
            return;
        };
        let verdict = self.judge(change);
        let broken = match verdict {
            Verdict::Fail { message } => Some(message),
            _ => budget::burns(change, OnBurn::RollBack),
        };
        if let Some(message) = broken {
            self.come_back(
                status,
                change,
                Outcome::RolledBack,
                reason::REGRESSED,
                message,
            );
            return;
        }
        self.look_for_evidence(change);
        if self.observation.now < until.0 {
            self.look_again(until.0);
            return;
        }
        let judged = verdict::has_counted_until(change, until.0);
        let patience = self.patience();
        let patience = patience.saturating_add(self.observation.lag.signed());
        let latest = until.0.saturating_add(patience).unwrap_or(Timestamp::MAX);
        if !judged && self.observation.now < latest {
            return; // its last windows are still to come
        }
        change.watched_until = None;
        self.keep_previous(change);
        let message = if judged {
            format!("nothing broke for {}", change.post_promotion)
        } else {
            let seen = summary::line(&change.evidence);
            format!(
                "it could not be judged to the end of {}: {seen}",
                change.post_promotion
            )
        };
        self.tell(change, reason::WATCHED, message);
    }

    /// The previous revision is known for as long as it is kept or the change is watched.
    fn keep_previous(&mut self, change: &mut Change) {
        match &change.kept_until {
            Some(until) if until.0 > self.observation.now => self.look_again(until.0),
            _ => change.kept_until = None,
        }
        if change.kept_until.is_none() && change.watched_until.is_none() {
            change.previous = None;
        }
    }

    /// Makes the previous revision the stable one again, if it is still there.
    fn come_back(
        &mut self,
        status: &mut RolloutStatus,
        change: &mut Change,
        outcome: Outcome,
        why: &str,
        message: String,
    ) {
        (change.watched_until, change.kept_until) = (None, None);
        let Some(previous) = change.previous.take() else {
            return;
        };
        let is_kept = self.observation.replica_sets.iter().any(|set| {
            set.owned
                && set.hash == previous.pod_template_hash
                && set.template_digest == previous.template_digest
        });
        let recorded = &self.observation.promoted;
        if is_kept || recorded.contains_key(&previous.template_digest) {
            let available = self.available(&previous.pod_template_hash);
            status.stable = Some(previous);
            self.end(change, outcome, why, message);
            change.progress.available = available;
        } else {
            let message = format!("the previous revision is not kept any more: {message}");
            self.tell(change, reason::PREVIOUS_MISSING, message);
        }
        self.look_again_after(SignedDuration::ZERO);
    }
}
