//! Evidence and policies that change under way.

use countersign_api::analysis::CheckMode;
use countersign_api::freeze::FreezeAction;
use countersign_api::objective::OnBurn;
use countersign_api::policy::OnScarceEvidence;
use countersign_api::rollout::{Change, CheckVerdict, Evidence, Stage};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::analysis::checks::{self, Checks};
use crate::analysis::verdict::{self, Verdict};
use crate::analysis::{budget, gather};
use crate::people::freeze::Freezes;
use crate::people::intervention;
use crate::people::sign_off::{self, SignOffs};
use crate::plan::tighten;
use crate::rollout::context::{SOON, Turn};
use crate::rollout::gates;
use crate::workload::{pods, smoke};
use crate::{observation, reason};

impl Turn<'_> {
    /// What ends a change at once: bad evidence, a person's rejection, a smoke check that has failed,
    /// pods that all crash, or a freeze that rolls back.
    pub(super) fn verdict_against(
        &self,
        change: &Change,
        verdict: &Verdict,
        sign_offs: &SignOffs,
        freezes: &Freezes,
    ) -> Option<(&'static str, String)> {
        if let Verdict::Fail { message } = verdict {
            return Some((reason::ANALYSIS_FAILED, message.clone()));
        }
        if change.initial {
            return None;
        }
        if let Some(message) = budget::burns(change, OnBurn::RollBack) {
            return Some((reason::ERROR_BUDGET_BURN, message));
        }
        if let Some(no) = sign_offs.rejection() {
            let said = intervention::said(&no.spec.approver.username, no.spec.reason.as_deref());
            return Some((reason::REJECTED, format!("rejected by {said}")));
        }
        if let Some(message) = smoke::failure(self.observation, change) {
            return Some((reason::SMOKE_FAILED, message));
        }
        if let Some(message) = gates::invalid_template(self.observation, change) {
            return Some((reason::TEMPLATE_INVALID, message));
        }
        if let Some(message) = pods::crash_loop(self.observation, change) {
            return Some((reason::CRASH_LOOPING, message));
        }
        let under_way = matches!(change.stage, Stage::Stepping | Stage::Promoting);
        // Where it cannot be told whether somebody broke the glass, it is held and not rolled back.
        let spared =
            sign_offs.glass_may_be_broken() || !self.observation.unreadable_wishes.is_empty();
        let rolls_back = freezes.action == FreezeAction::RollBack && !spared;
        (under_way && rolls_back)
            .then(|| (reason::ROLLED_BACK_BY_FREEZE, freezes.in_force.join("; ")))
    }

    /// Tightening a policy takes effect on what is under way; loosening it does not.
    pub(super) fn tighten(&self, change: &mut Change) {
        // A template and annotations that cannot be read just now are not a riskier change.
        if observation::is_unreadable(self.observation) {
            return;
        }
        let risk = self.proposal.risk(self.observation, change.after_rollback);
        let tier = risk.tier.max(change.tier);
        let raised = tier > change.tier;
        let current = self.proposal.plan(self.observation, tier);
        let step = usize::try_from(change.step).unwrap_or(0);
        let tightened = tighten::tightened(&change.plan, step, &current);
        if !raised && tightened.is_none() {
            return;
        }
        (change.tier, change.score) = (tier, change.score.max(risk.score));
        let policies = current.policies.join(", ");
        if let Some(plan) = tightened {
            let (gate, before) = sign_off::next_gate(change);
            let before = before.to_vec();
            change.plan = plan;
            if sign_off::next_gate(change).1 != before {
                change.awaited_gates.remove(&gate); // who is asked only now has the whole time
            }
        }
        let message = format!("policies ask for more now ({policies}); tier {tier}");
        self.tell(change, reason::TIGHTENED, message);
    }

    pub(super) fn judge(&mut self, change: &mut Change) -> Verdict {
        if change.initial {
            return Verdict::NoChecks;
        }
        let checks = checks::in_force(change, &self.proposal.checks);
        change.evidence.objectives = budget::budgets(change, &checks, self.observation);
        if change.evidence.from.is_none() {
            return Verdict::NoChecks;
        }
        change.checks.clone_from(&checks.checks);
        change.objectives.clone_from(&checks.objectives);
        let evidence = gather::gather(change, &checks, &self.observation.windows);
        let caught_up = change.evidence.checks != evidence.checks;
        let before = std::mem::replace(&mut change.evidence, evidence);
        self.tell_advisory_failures(change, &before, &checks);
        let verdict = verdict::judge(change, &checks, self.observation.now, self.observation.lag);
        // After a long absence of the operator the windows are caught up with, which is progress.
        let behind = matches!(&verdict, Verdict::NoData { reason, .. } if reason == reason::EVIDENCE_OUTDATED);
        if behind && caught_up {
            change.progressed_at = Some(Time(self.observation.now));
            change.evidence_since = Some(Time(self.observation.now));
            self.look_again_after(SOON);
        }
        verdict
    }

    /// An advisory check that begins to fail is told once, and ends nothing.
    fn tell_advisory_failures(&self, change: &mut Change, before: &Evidence, checks: &Checks) {
        let fails = |evidence: &Evidence, name: &str| {
            let mut checks = evidence.checks.iter();
            checks.any(|it| it.name == name && it.summary.verdict == CheckVerdict::Failing)
        };
        let told = |change: &Change, name: &str| {
            let line = format!("check {name}: ");
            let mut lines = change.transitions.iter();
            lines.any(|it| it.reason == reason::ADVISORY_FAILED && it.message.starts_with(&line))
        };
        let advisory = checks
            .checks
            .iter()
            .filter(|(_, check)| check.mode == CheckMode::Advisory);
        for (name, _) in advisory {
            if !fails(&change.evidence, name) || fails(before, name) || told(change, name) {
                continue;
            }
            let mut evidence = change.evidence.checks.iter();
            let evidence = evidence.find(|it| it.name == *name);
            let sentence = evidence.map_or("", |it| it.summary.sentence.as_str());
            let message =
                format!("check {name}: {sentence}; it is advisory, so the change goes on");
            self.tell(change, reason::ADVISORY_FAILED, message);
        }
    }

    /// The tier accepts scarce evidence at the deadline, or a person does where the tier leaves it to
    /// people.
    pub(super) fn accepts_scarcity(
        &self,
        change: &Change,
        verdict: &Verdict,
        sign_offs: &SignOffs,
    ) -> bool {
        let accepted = match change.plan.strictness.on_scarce_evidence {
            OnScarceEvidence::Promote => self.observation.now >= self.evidence_deadline(change),
            OnScarceEvidence::Extend | OnScarceEvidence::Hold => {
                sign_offs.accepts_evidence_of(change.step)
            }
            OnScarceEvidence::RollBack => false,
        };
        matches!(verdict, Verdict::Scarce { .. }) && accepted
    }
}
