//! What people have signed and commanded.

use countersign_api::intervention::InterventionAction;
use countersign_api::rollout::{Change, Outcome, Stage};
use countersign_api::sign_off::SignOffDecision;
use k8s_openapi::jiff::SignedDuration;

use crate::observation::people::SeenIntervention;
use crate::people::intervention;
use crate::people::sign_off::SignOffs;
use crate::rollout::context::{
    LAST_LINES, LOUD_LINES, MAX_HEARD, MAX_LOUD, MAX_PAUSES, MAX_PEOPLE, MAX_TRANSITIONS, Turn,
};
use crate::workload::smoke;
use crate::{change, reason};

impl Turn<'_> {
    /// What people command is done once, in the order in which they did; an abort comes before all.
    pub(super) fn hear_interventions(&mut self, change: &mut Change) {
        let unheard = intervention::unheard(self.observation, change);
        let abort = |it: &&&SeenIntervention| it.spec.action == InterventionAction::Abort;
        if let Some(abort) = unheard.iter().find(abort).filter(|_| !change.initial) {
            change.heard.insert(abort.uid.clone());
            let message = format!("aborted by {}", intervention::words(abort));
            self.roll_back(change, reason::ABORTED, message);
            return;
        }
        for it in unheard {
            let followed = self.follow(change, it);
            self.remember(change, it, followed);
        }
    }

    /// What was answered need not be remembered. More than fits is followed again at the next look, to the
    /// same end: the last command counts.
    fn remember(&self, change: &mut Change, it: &SeenIntervention, followed: bool) {
        let uids = if followed {
            &mut change.heard
        } else {
            &mut change.in_vain
        };
        if uids.len() >= MAX_HEARD && self.observation.unreadable_wishes.is_empty() {
            let mut seen = self.observation.interventions.iter();
            let answered = seen.by_ref().filter(|it| it.answered);
            for it in answered {
                uids.remove(&it.uid);
            }
        }
        if uids.len() < MAX_HEARD {
            uids.insert(it.uid.clone());
        }
    }

    /// Follows one command; `false` where there is nothing to do.
    fn follow(&self, change: &mut Change, it: &SeenIntervention) -> bool {
        let words = intervention::words(it);
        match it.spec.action {
            InterventionAction::Pause if change.paused_by.is_none() => {
                change.paused_by = Some(it.spec.person.username.clone());
                self.tell(
                    change,
                    reason::PAUSED_BY_PERSON,
                    format!("paused by {words}"),
                );
            }
            InterventionAction::Resume if change.paused_by.is_some() => {
                change.paused_by = None;
                self.tell(change, reason::RESUMED, format!("resumed by {words}"));
            }
            InterventionAction::Promote
                if self.bakes(change) && it.spec.step == Some(change.step) =>
            {
                change.bake_skipped = Some(change.step);
                let message = format!("the rest of the bake is skipped by {words}");
                self.tell(change, reason::BAKE_SKIPPED, message);
            }
            _ => return false,
        }
        true
    }

    fn bakes(&self, change: &Change) -> bool {
        let stepping = change.stage == Stage::Stepping && change.bake_skipped != Some(change.step);
        stepping && change::bake_ends(change).is_none_or(|end| end > self.observation.now)
    }

    /// Every sign-off that counts is told once, with the evidence that the person could see.
    pub(super) fn hear_sign_offs(&self, change: &mut Change, sign_offs: &SignOffs) {
        for it in sign_offs.all().filter(|it| it.refused.is_none()) {
            let it = it.sign_off;
            let loud = it.spec.decision == SignOffDecision::BreakGlass;
            let full = change.heard.len() >= MAX_HEARD && !loud;
            if full || change.heard.len() >= MAX_LOUD || !change.heard.insert(it.uid.clone()) {
                continue;
            }
            let said = intervention::said(&it.spec.approver.username, it.spec.reason.as_deref());
            let gate = it.spec.gate.as_deref().unwrap_or("all gates");
            match it.spec.decision {
                SignOffDecision::Approve => {
                    self.tell(
                        change,
                        reason::SIGNED_OFF,
                        format!("{gate} signed off by {said}"),
                    );
                }
                SignOffDecision::BreakGlass => {
                    let message =
                        format!("waiting and sign-off are skipped, analysis is not, by {said}");
                    self.tell(change, reason::BREAK_GLASS, message);
                }
                SignOffDecision::Reject => {} // the rollback tells it
            }
        }
    }

    /// A smoke check that has succeeded is told once, and is not asked for again.
    pub(super) fn hear_smoke(&self, change: &mut Change) {
        if let Some(message) = smoke::success(self.observation, change) {
            change.smoke.get_or_insert_default().passed = true;
            self.tell(change, reason::SMOKE_PASSED, message);
        }
    }

    /// Whether a person asked to try a rolled-back change once more: first it is told, so that the
    /// record of this attempt holds it, and at the next look the new attempt begins.
    pub(super) fn is_retried(&mut self, change: &mut Change) -> bool {
        if is_to_be_retried(change) {
            return true;
        }
        let unheard = intervention::unheard(self.observation, change);
        let mut retries = unheard
            .into_iter()
            .filter(|it| it.spec.action == InterventionAction::Retry);
        if let Some(retry) = retries.next() {
            change.heard.insert(retry.uid.clone());
            self.tell(
                change,
                reason::RETRIED,
                format!("retried by {}", intervention::words(retry)),
            );
            self.look_again_after(SignedDuration::ZERO);
        }
        false
    }

    /// A change that has ended can be retried, and nothing else.
    pub(super) fn ignore_interventions(&self, change: &mut Change) {
        for it in intervention::unheard(self.observation, change) {
            if it.spec.action != InterventionAction::Retry
                || change.outcome != Some(Outcome::RolledBack)
            {
                self.remember(change, it, false);
            }
        }
    }
}

pub(super) fn is_to_be_retried(change: &Change) -> bool {
    let last = change.transitions.last();
    last.is_some_and(|line| line.reason == reason::RETRIED)
}

/// Whether there is room for a line. No step and no end is ever without one: for these it is kept free.
pub(super) fn has_room(change: &Change, why: &str) -> bool {
    let pauses = [reason::PAUSED_BY_PERSON, reason::RESUMED];
    let people = [reason::SIGNED_OFF, reason::BAKE_SKIPPED];
    let lines = |reasons: &[&str]| {
        let lines = change.transitions.iter();
        lines
            .filter(|line| reasons.contains(&line.reason.as_str()))
            .count()
    };
    let step = usize::try_from(change.step).unwrap_or(0);
    let to_come = change.plan.steps.len().saturating_sub(step) + LAST_LINES;
    let most = MAX_TRANSITIONS.saturating_sub(to_come);
    let total = change.transitions.len();
    match why {
        reason::CHANGE_STARTED | reason::STEP_STARTED | reason::PROMOTING => true,
        reason::BREAK_GLASS => total < most,
        _ if pauses.contains(&why) && lines(&pauses) >= MAX_PAUSES => false,
        _ if pauses.contains(&why) || people.contains(&why) => {
            total + LOUD_LINES < most && lines(&pauses) + lines(&people) < MAX_PEOPLE
        }
        reason::ADVISORY_FAILED => total + LOUD_LINES < most,
        _ => change.outcome.is_some() || total + LOUD_LINES < most,
    }
}
