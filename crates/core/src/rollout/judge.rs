//! Evidence of a change under way, and policies that are tightened meanwhile.

use countersign_api::analysis::CheckMode;
use countersign_api::freeze::FreezeAction;
use countersign_api::objective::OnBurn;
use countersign_api::policy::OnScarceEvidence;
use countersign_api::rollout::{Change, CheckVerdict, Evidence, Stage, Strictness};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::analysis::checks::{self, Checks};
use crate::analysis::verdict::{self, Verdict};
use crate::analysis::{budget, gather};
use crate::intervals::POLL_INTERVAL;
use crate::observation::{self, Observation};
use crate::people::freeze::Freezes;
use crate::people::intervention;
use crate::people::sign_off::{self, SignOffs};
use crate::plan::tighten;
use crate::reason::Reason;
use crate::replicas::present;
use crate::rollout::context::Context;
use crate::rollout::requeue::Requeue;
use crate::rollout::{deadlines, gates, transition};
use crate::workload::{pods, smoke, tampering};

/// What ends a change at once: an edited ReplicaSet, failing evidence, a rejection, a failed smoke check, pods that
/// all crash, or a freeze that rolls back.
pub(super) fn verdict_against(
    context: &Context,
    change: &Change,
    verdict: &Verdict,
    sign_offs: &SignOffs,
    freezes: &Freezes,
) -> Option<(Reason, String)> {
    let observation = context.observation;
    if let Some(message) = tampering::of_canary(observation, change) {
        return Some((Reason::Tampered, message));
    }
    if let Verdict::Fail { message } = verdict {
        return Some((Reason::AnalysisFailed, message.clone()));
    }
    if change.initial {
        return None;
    }
    if let Some(message) = budget::burns(change, OnBurn::RollBack) {
        return Some((Reason::ErrorBudgetBurn, message));
    }
    if let Some(no) = sign_offs.rejection() {
        let by =
            intervention::author_and_reason(&no.spec.approver.username, no.spec.reason.as_deref());
        return Some((Reason::Rejected, format!("rejected by {by}")));
    }
    if let Some(message) = smoke::failure(observation, change) {
        return Some((Reason::SmokeFailed, message));
    }
    if let Some(message) = gates::invalid_template(observation, change) {
        return Some((Reason::TemplateInvalid, message));
    }
    if let Some(message) = pods::crash_loop(observation, change) {
        return Some((Reason::CrashLooping, message));
    }
    let under_way = matches!(change.stage, Stage::Stepping | Stage::Promoting);
    // If the break-glass sign-offs cannot be read, the change is held and not rolled back.
    let break_glass =
        sign_offs.may_have_break_glass() || !observation.people.unreadable_requests.is_empty();
    let rolls_back = freezes.action == FreezeAction::RollBack && !break_glass;
    (under_way && rolls_back).then(|| (Reason::RolledBackByFreeze, freezes.in_force.join("; ")))
}

/// A tightened policy, or a stricter Rollout, applies to the change under way; a loosened one does not.
pub(super) fn tighten(context: &Context, change: &mut Change) {
    let (observation, proposal) = (context.observation, context.proposal);
    // A template and annotations that cannot be read at present are not a riskier change.
    if observation::is_unreadable(observation) {
        return;
    }
    let risk = proposal.risk(observation, change.after_rollback);
    let tier = risk.tier.max(change.tier);
    let raised = tier > change.tier;
    let enforced = proposal.if_enforced(observation, change.after_rollback);
    let current = proposal.plan(observation, tier, enforced.as_ref());
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
        let margin = |it: &Strictness| (it.margin_ratio, it.margin_difference);
        if margin(&plan.strictness) != margin(&change.plan.strictness) {
            // What was ruled out was ruled out for the looser margin.
            let checks = change.evidence.checks.iter_mut();
            checks.for_each(|check| check.gates.clear());
        }
        change.plan = plan;
        if sign_off::next_gate(change).1 != before {
            change.awaited_gates.remove(&gate); // a newly demanded sign-off has its whole deadline
        }
    }
    let message = format!("the Rollout or its policies require more now ({policies}); tier {tier}");
    transition::record(context, change, Reason::Tightened, message);
}

pub(super) fn judge(context: &Context, change: &mut Change, requeue: &mut Requeue) -> Verdict {
    let observation = context.observation;
    change.plan.shares = present::shares(observation, &change.plan.steps);
    if change.initial {
        return Verdict::NoChecks;
    }
    let checks = checks::in_force(change, &context.proposal.checks);
    change.evidence.objectives = budget::budgets(change, &checks, observation);
    if change.evidence.from.is_none() {
        return Verdict::NoChecks;
    }
    change.checks.clone_from(&checks.checks);
    change.objectives.clone_from(&checks.objectives);
    let evidence = gather::gather(change, &checks, &observation.analysis.windows);
    let caught_up = change.evidence.checks != evidence.checks;
    let before = std::mem::replace(&mut change.evidence, evidence);
    record_advisory_failures(context, change, &before, &checks);
    let verdict = verdict::judge(change, &checks, observation.now, observation.analysis.lag);
    // After a long absence of the operator, windows that are read late are progress.
    let behind =
        matches!(&verdict, Verdict::NoData { reason, .. } if *reason == Reason::EvidenceOutdated);
    if behind && caught_up {
        change.progressed_at = Some(Time(observation.now));
        change.evidence_since = Some(Time(observation.now));
        requeue.after(POLL_INTERVAL);
    }
    verdict
}

/// Edited pods may have been counted as stable's: what speaks for a promotion is void, and what speaks against it
/// stays.
pub(super) fn void_if_edited(observation: &Observation, change: &mut Change) {
    if tampering::is_present(observation) {
        for check in &mut change.evidence.checks {
            check.gates.clear();
            (check.step_requests, check.step_windows) = (0.0, 0);
        }
    }
}

/// An advisory check that begins to fail is recorded once and does not end the change.
fn record_advisory_failures(
    context: &Context,
    change: &mut Change,
    before: &Evidence,
    checks: &Checks,
) {
    let fails = |evidence: &Evidence, name: &str| {
        let mut checks = evidence.checks.iter();
        checks.any(|it| it.name == name && it.summary.verdict == CheckVerdict::Failing)
    };
    let recorded = |change: &Change, name: &str| {
        let line = format!("check {name}: ");
        let mut lines = change.transitions.iter();
        lines.any(|it| it.reason == Reason::AdvisoryFailed && it.message.starts_with(&line))
    };
    let advisory = checks
        .checks
        .iter()
        .filter(|(_, check)| check.mode == CheckMode::Advisory);
    for (name, _) in advisory {
        if !fails(&change.evidence, name) || fails(before, name) || recorded(change, name) {
            continue;
        }
        let mut evidence = change.evidence.checks.iter();
        let evidence = evidence.find(|it| it.name == *name);
        let sentence = evidence.map_or("", |it| it.summary.sentence.as_str());
        let message = format!("check {name}: {sentence}; it is advisory, so the change continues");
        transition::record(context, change, Reason::AdvisoryFailed, message);
    }
}

/// Scarce evidence is accepted by the tier at the deadline, or by a person if the tier leaves that to
/// people.
pub(super) fn accepts_scarcity(
    observation: &Observation,
    change: &Change,
    verdict: &Verdict,
    sign_offs: &SignOffs,
) -> bool {
    let accepted = match change.plan.strictness.on_scarce_evidence {
        OnScarceEvidence::Promote => {
            observation.now >= deadlines::evidence_deadline(observation, change)
        }
        OnScarceEvidence::Hold => sign_offs.accepts_evidence_of(change.step),
        OnScarceEvidence::RollBack => false,
    };
    matches!(verdict, Verdict::Scarce { .. }) && accepted
}
