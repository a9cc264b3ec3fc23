//! Transitions, and the lines that tell them.

use countersign_api::Duration;
use countersign_api::rollout::{Change, Outcome, Reached, Stage, Transition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;

use crate::analysis::verdict::Verdict;
use crate::analysis::{gather, summary};
use crate::replicas::present;
use crate::rollout::commands;
use crate::rollout::context::{MAX_EVIDENCE, MAX_MESSAGE, Turn};
use crate::traffic::share;
use crate::{reason, text};

impl Turn<'_> {
    pub(super) fn enter(&self, change: &mut Change, stage: Stage, weight: i32) {
        let now = Time(self.observation.now);
        let (before, checks) = (change.weight, &self.proposal.checks);
        if change.evidence.from.is_none() {
            change.evidence.from = Some(now.clone());
            change.interval = checks.interval;
            change.warm_up = checks.warm_up;
            change.post_promotion = checks.post_promotion;
            change.checks.clone_from(&checks.checks);
            change.objectives.clone_from(&checks.objectives);
            for budget in &mut change.evidence.objectives {
                budget.burnt_before = budget.burning;
            }
        } else {
            let shares = shares(change);
            gather::rearm(&mut change.evidence, shares);
        }
        gather::begin(change, before, weight, &now);
        change.stage = stage;
        change.weight = weight;
        change.step_started_at = Some(now.clone());
        change.progressed_at = Some(now);
        change.progress = Reached {
            available: self.available(&change.pod_template_hash),
            weight: before,
        };
        (change.available_at, change.lost, change.warm_from) = (None, None, None);
        change.evidence_since = None;
        change.awaited_gates.clear();
        change.extended = false;
    }

    pub(super) fn roll_back(&mut self, change: &mut Change, why: &str, message: String) {
        self.end(change, Outcome::RolledBack, why, message);
        self.look_again_after(SignedDuration::ZERO);
    }

    pub(super) fn end(&self, change: &mut Change, outcome: Outcome, why: &str, message: String) {
        change.outcome = Some(outcome);
        (change.stage, change.weight) = match outcome {
            Outcome::Promoted => (Stage::Promoted, 100),
            // Where stable gave up capacity it takes the traffic back bit by bit.
            Outcome::Superseded if share::pods_follow(present::limits(self.observation)) => {
                (Stage::RollingBack, 0)
            }
            Outcome::Superseded => (Stage::RolledBack, 0),
            Outcome::RolledBack | Outcome::Reverted => (Stage::RollingBack, 0),
        };
        change.progressed_at = Some(Time(self.observation.now));
        let stable = self.observation.status.stable.as_ref();
        change.progress = Reached {
            available: stable.map_or(0, |it| self.available(&it.pod_template_hash)),
            weight: 0,
        };
        self.tell(change, why, message);
    }

    /// Adds a line to the story of the change.
    // Each message is made for it alone.
    #[allow(clippy::needless_pass_by_value)]
    pub(super) fn tell(&self, change: &mut Change, why: &str, message: String) {
        if !commands::has_room(change, why) {
            return;
        }
        // A pause says nothing of the evidence, and anybody may make many.
        let shown = ![reason::PAUSED_BY_PERSON, reason::RESUMED].contains(&why)
            && (change.transitions.len() < MAX_EVIDENCE || change.outcome.is_some());
        let evidence = shown.then(|| summary::worst(&change.evidence));
        change.transitions.push(Transition {
            at: Some(Time(self.observation.now)),
            step: change.step,
            weight: change.weight,
            reason: why.to_owned(),
            message: text::shown(&message, MAX_MESSAGE),
            evidence: evidence.unwrap_or_default(),
        });
    }
}

/// How often the allowance is renewed: with each step, the promotion, and the watch after it.
pub(super) fn shares(change: &Change) -> usize {
    let watched = change.post_promotion > Duration::default();
    change.plan.steps.len() + usize::from(watched)
}

pub(super) fn verdict_line(verdict: &Verdict) -> String {
    match verdict {
        Verdict::NoChecks => "no checks are asked for".into(),
        Verdict::Fail { message }
        | Verdict::NoData { message, .. }
        | Verdict::Scarce { message }
        | Verdict::Pass { message } => message.clone(),
    }
}
