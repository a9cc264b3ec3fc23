//! What the policies that only observe would have demanded of a change: worked out when the change begins
//! and at each of its steps, and recorded.
//!
//! Invariant: nothing here holds a change.

use countersign_api::policy::OnScarceEvidence;
use countersign_api::rollout::{Change, Observed, Plan, Stage, WouldHave};
use countersign_api::step::{SignOffDemand, Tier};

use crate::analysis::verdict::Verdict;
use crate::analysis::{budget, checks};
use crate::change;
use crate::limits::{FOREIGN_TEXT, MAX_OBSERVED_DEMANDS, MAX_POLICIES, MAX_WOULD};
use crate::observation::{self, Observation};
use crate::people::{freeze, sign_off};
use crate::plan;
use crate::policy::sign_off_demand;
use crate::proposal::{self, Enforced};
use crate::reason::Reason;
use crate::rollout::context::{Context, Judgement};
use crate::rollout::{gates, transition};
use crate::text;

/// What a change with this plan would have waited for if every policy were enforced.
pub(super) fn at_start(
    observation: &Observation,
    demands: &proposal::Observed,
    plan: &Plan,
    enforced: &Enforced,
) -> Observed {
    let mut observed = Observed {
        policies: demands
            .policies
            .iter()
            .take(MAX_POLICIES)
            .cloned()
            .collect(),
        score: enforced.risk.score,
        tier: enforced.risk.tier,
        steps: count(&enforced.plan),
        least_time: plan::least_time(&enforced.plan),
        ..Observed::default()
    };
    note_sign_offs(&mut observed, plan, &enforced.plan);
    let (least, steps) = (plan::least_time(plan), count(plan));
    if (steps, least) != (observed.steps, observed.least_time) {
        let message = format!(
            "would have taken {} over at least {} instead of {steps} over {least}",
            number(observed.steps, "step"),
            observed.least_time
        );
        note(&mut observed, Reason::Baking, &message);
    }
    let tier = observed.tier;
    let of_tier = demands.effective.tiers.get(tier);
    if of_tier.require_router == Some(true) && !observation::is_routed(observation) {
        let message = format!(
            "would have waited for routes: tier {tier} requires them (requireRouter), and spec.strategy.canary.traffic names none"
        );
        note(&mut observed, Reason::RouterRequired, &message);
    }
    if of_tier.require_digest == Some(true)
        && let Some(image) = gates::not_pinned(observation)
    {
        let message = format!(
            "would have waited for image digests: tier {tier} requires them (requireDigest), and {image} is named without"
        );
        note(&mut observed, Reason::ImageNotPinned, &message);
    }
    if of_tier.require_immutable_config == Some(true)
        && let Some(name) = gates::not_hashed(observation)
    {
        let message = format!(
            "would have waited for immutable configuration: tier {tier} requires it (requireImmutableConfig), and {name} is not named by a hash"
        );
        note(&mut observed, Reason::ConfigNotImmutable, &message);
    }
    let checks = checks::checks(observation, &demands.effective);
    if of_tier.require_policy_check == Some(true) && !checks.are_independent(&demands.effective) {
        let message = format!(
            "would have waited for a check of a policy or of a router: tier {tier} requires one (requirePolicyCheck)"
        );
        note(&mut observed, Reason::PolicyCheckRequired, &message);
    }
    for (policy, limit) in &demands.effective.concurrency {
        if limit.from_tier <= tier && demands.only_observes(policy) {
            let message = format!(
                "would have waited in the queue: policy {policy} limits how many changes of tier {} or above are under way at once",
                limit.from_tier
            );
            note(&mut observed, Reason::Queued, &message);
        }
    }
    observed
}

/// What a first revision would have waited for if every policy were enforced; `None` if for nobody.
pub(super) fn first_at_start(
    demands: &proposal::Observed,
    plan: &Plan,
    enforced: &Enforced,
) -> Option<Observed> {
    let known: Vec<_> = plan.first_revision.iter().collect();
    let missing = missing(&enforced.plan.first_revision, &known);
    if missing.is_empty() {
        return None;
    }
    let policies = demands.policies.iter().take(MAX_POLICIES);
    let mut observed = Observed {
        policies: policies.cloned().collect(),
        score: enforced.risk.score,
        tier: enforced.risk.tier,
        ..Observed::default()
    };
    for demand in missing {
        note_people(&mut observed, demand, "before the first pod");
    }
    Some(observed)
}

/// The sign-offs of the stricter plan that the plan in force does not ask for.
fn note_sign_offs(observed: &mut Observed, plan: &Plan, enforced: &Plan) {
    let mut known: Vec<&SignOffDemand> = plan.steps.iter().flat_map(|it| &it.sign_off).collect();
    for (step, next) in enforced.steps.iter().zip(1..) {
        for demand in missing(&step.sign_off, &known) {
            note_people(observed, demand, &before_step(next));
            observed.sign_off.push(demand.clone());
        }
        known.extend(&step.sign_off);
    }
    let known: Vec<_> = plan.promotion_sign_off.iter().collect();
    for demand in missing(&enforced.promotion_sign_off, &known) {
        note_people(observed, demand, "before the promotion");
        observed.promotion_sign_off.push(demand.clone());
    }
    observed.sign_off.truncate(MAX_OBSERVED_DEMANDS);
    observed.promotion_sign_off.truncate(MAX_OBSERVED_DEMANDS);
}

fn missing<'a>(demands: &'a [SignOffDemand], known: &[&SignOffDemand]) -> Vec<&'a SignOffDemand> {
    let is_known = |demand: &SignOffDemand| {
        let mut known = known.iter();
        known.any(|other| sign_off_demand::includes(other, demand))
    };
    demands.iter().filter(|it| !is_known(it)).collect()
}

fn note_people(observed: &mut Observed, demand: &SignOffDemand, when: &str) {
    let people = sign_off::describe(demand, &[]);
    let message = format!("would have waited for {people} {when}");
    note(observed, Reason::AwaitingSignOff, &message);
}

/// Records once which policies observe the change, and what they would have demanded.
pub(super) fn announce(context: &Context, change: &mut Change) {
    let Some(observed) = &change.observed else {
        return;
    };
    let mut lines = change.transitions.iter();
    if lines.any(|line| line.reason == Reason::Observed) {
        return;
    }
    let would: Vec<_> = observed
        .would
        .iter()
        .map(|it| it.message.as_str())
        .collect();
    let would = match would.as_slice() {
        [] => "would have gone the same way".to_owned(),
        would => would.join("; "),
    };
    let message = format!(
        "not enforced: {}; with tier {} and {:.1} points the change {would}",
        observed.policies.join(", "),
        observed.tier,
        observed.score
    );
    transition::record(context, change, Reason::Observed, message);
}

/// Notes what would have held a change that takes its next step now.
pub(super) fn at_step(context: &Context, change: &mut Change, judgement: &Judgement) {
    let (Some(observed), Some(demands)) = (&change.observed, &context.proposal.observed) else {
        return;
    };
    if !matches!(change.stage, Stage::Waiting | Stage::Stepping) {
        return;
    }
    let held = [
        frozen(context, change, demands, observed, judgement),
        budget_spent(change, demands, observed),
        unchecked(change, observed, &judgement.verdict),
        scarce(change, demands, observed, judgement),
    ];
    let mut observed = observed.clone();
    for (reason, message) in held.into_iter().flatten() {
        note(&mut observed, reason, &message);
    }
    change.observed = Some(observed);
}

type Held = Option<(Reason, String)>;

/// Windows and incidents of the policies; a Freeze that a person created is in force.
fn frozen(
    context: &Context,
    change: &Change,
    demands: &proposal::Observed,
    observed: &Observed,
    judgement: &Judgement,
) -> Held {
    if judgement.sign_offs.has_break_glass() {
        return None;
    }
    let freezes = freeze::of_policies(context.observation, &demands.effective, observed.tier);
    let when = before_next(change);
    let held = |reason, why: &str| Some((reason, format!("would have waited {when}: {why}")));
    match (freezes.in_force.as_slice(), freezes.unknown.first()) {
        ([], None) => None,
        ([], Some(unknown)) => held(Reason::FreezeUnknown, unknown),
        (in_force, _) => held(Reason::Frozen, &in_force.join("; ")),
    }
}

fn budget_spent(change: &Change, demands: &proposal::Observed, observed: &Observed) -> Held {
    let gated = demands.effective.budget_tiers.contains(&observed.tier);
    let spent = budget::spent(change).filter(|_| gated && change.stage == Stage::Waiting)?;
    let message = format!("would have waited before the first step: {spent}");
    Some((Reason::ErrorBudgetSpent, message))
}

fn unchecked(change: &Change, observed: &Observed, verdict: &Verdict) -> Held {
    let judged = change.stage == Stage::Stepping && change::wants_evidence(change);
    let held = *verdict == Verdict::NoChecks && observed.tier > Tier::Low;
    (judged && held).then(|| {
        let message = format!(
            "would have been held in step {}: no check runs in it, and tier {} requires one",
            change.step, observed.tier
        );
        (Reason::NoChecks, message)
    })
}

fn scarce(
    change: &Change,
    demands: &proposal::Observed,
    observed: &Observed,
    judgement: &Judgement,
) -> Held {
    let by_itself = change.plan.strictness.on_scarce_evidence == OnScarceEvidence::Promote;
    if !judgement.scarce_accepted || !by_itself {
        return None;
    }
    let demands = demands.effective.tiers.get(observed.tier);
    let step = change.step;
    match demands.on_scarce_evidence.unwrap_or_default() {
        OnScarceEvidence::Promote => None,
        OnScarceEvidence::Hold => {
            let message = format!(
                "would have waited for 1 person to accept the scarce evidence of step {step}"
            );
            Some((Reason::AwaitingPerson, message))
        }
        OnScarceEvidence::RollBack => {
            let message = format!("would have been rolled back for scarce evidence in step {step}");
            Some((Reason::ProgressDeadlineExceeded, message))
        }
    }
}

fn note(observed: &mut Observed, reason: Reason, message: &str) {
    let would = WouldHave {
        reason: reason.into(),
        message: text::sanitize_to(message, FOREIGN_TEXT),
    };
    if observed.would.len() < MAX_WOULD && !observed.would.contains(&would) {
        observed.would.push(would);
    }
}

fn before_next(change: &Change) -> String {
    match usize::try_from(change.step) {
        Ok(step) if step < change.plan.steps.len() => before_step(change.step + 1),
        _ => "before the promotion".to_owned(),
    }
}

fn before_step(step: i32) -> String {
    match step {
        1 => "before the first step".to_owned(),
        step => format!("before step {step}"),
    }
}

fn count(plan: &Plan) -> i32 {
    i32::try_from(plan.steps.len()).unwrap_or(i32::MAX)
}

fn number(count: i32, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}
