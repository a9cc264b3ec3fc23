//! The plan of a change: its steps, and how they are tightened to what a tier demands.
//!
//! Start with [`plan_for`], which makes the plan when a change begins.
//! [`tightened`](crate::plan::tighten::tightened) is called repeatedly while the change is under way.
//! [`strictest_steps`](crate::policy::steps::strictest_steps) merges the steps of several policies.
//!
//! Invariant: tightening never makes a step larger, shorter or earlier, and never drops a sign-off.

pub mod first_revision;
pub mod floors;
pub mod steps;
pub mod testers;
pub mod tighten;

use countersign_api::Duration;
use countersign_api::policy::TierDemands;
use countersign_api::rollout::{Plan, Strictness};
use countersign_api::step::{SignOffDemand, Step, Tier};

use crate::limits::{MAX_POLICIES, MAX_SENTENCES};
use crate::plan::floors::Floors;
use crate::plan::tighten::UnderWay;
use crate::policy::Effective;

/// The plan for a change of this tier: the Rollout's own steps, or else the tier's, tightened to the
/// tier's floors.
///
/// The owner's steps are kept as far as allowed. If one is too large, smaller ones are inserted before it,
/// and its sign-offs move before the first of those. Every tightening is a sentence in `tightened`. The
/// owner's sign-offs before promotion are demanded beside the tier's: an owner can ask for more people than a
/// policy, never for fewer.
///
/// Law 7: a higher tier lets no weight be passed sooner, on fewer requests or with fewer people. For the
/// same own steps that follows from the floors: inserted steps are counted up from below in increases as
/// large as allowed, and appended ones continue in the same way until they reach `minFinalWeight` instead
/// of stopping at it, so a larger floor only adds steps. If each tier has its own steps, those of a lower
/// one are added if they demand more.
#[must_use]
pub fn plan_for(
    tier: Tier,
    own_steps: &[Step],
    own_promotion_sign_off: &[SignOffDemand],
    effective: &Effective,
) -> Plan {
    let demands = effective.tiers.get(tier);
    let (steps, mut tightened) = Tier::ALL
        .into_iter()
        .filter(|it| *it <= tier)
        .fold(<(Vec<Step>, Vec<String>)>::default(), |(lower, _), tier| {
            steps_for(tier, own_steps, &lower, effective)
        });
    let mut promotion_sign_off = Vec::new();
    let owner_requires = steps::add_demands(&mut promotion_sign_off, own_promotion_sign_off);
    let policy_requires = steps::add_demands(
        &mut promotion_sign_off,
        demands.promotion_sign_off.as_deref().unwrap_or_default(),
    );
    if owner_requires && policy_requires {
        let policies = floors::named(&effective.sources);
        tightened.push(format!(
            "promotion: sign-off is required by tier {tier} ({policies}): added"
        ));
    }
    tightened.truncate(MAX_SENTENCES);
    if steps.is_empty() {
        // A plan without steps has no step before which to demand sign-offs.
        steps::add_demands(
            &mut promotion_sign_off,
            demands.sign_off.as_deref().unwrap_or_default(),
        );
    }
    Plan {
        steps,
        shares: Vec::new(),
        promotion_sign_off,
        first_revision: Vec::new(),
        strictness: strictness(demands),
        tightened,
        policies: effective
            .sources
            .iter()
            .take(MAX_POLICIES)
            .cloned()
            .collect(),
    }
}

/// The least time that the steps of a plan take: the sum of their bakes.
#[must_use]
pub fn least_time(plan: &Plan) -> Duration {
    let bakes = plan.steps.iter().map(|step| step.bake.std());
    bakes
        .fold(
            std::time::Duration::ZERO,
            std::time::Duration::saturating_add,
        )
        .into()
}

/// The steps of a tier, and how they were tightened, in sentences; `lower` are those of the tier below.
fn steps_for(
    tier: Tier,
    own_steps: &[Step],
    lower: &[Step],
    effective: &Effective,
) -> (Vec<Step>, Vec<String>) {
    let demands = effective.tiers.get(tier);
    let floors = Floors::of(tier, effective);
    let given = if own_steps.is_empty() {
        &demands.steps
    } else {
        own_steps
    };
    let (mut steps, mut sentences) = floors.tighten(&steps::without_many_repeats(given));
    if let Some(first) = steps.first_mut() {
        let added = steps::add_demands(
            &mut first.sign_off,
            demands.sign_off.as_deref().unwrap_or_default(),
        );
        let sentence = format!("step 1: sign-off is required by {}: added", floors.source);
        sentences.extend((added && !own_steps.is_empty()).then_some(sentence));
    }
    if steps::is_as_strict(&steps, lower, 0) {
        return (steps, sentences);
    }
    let (joined, _) = floors.tighten(&UnderWay::new(&steps, 0, lower).steps());
    let by = format!("below {}, as a lower tier requires it", floors.source);
    sentences.extend(tighten::describe_changes(&steps, &joined, 0, &by));
    (joined, sentences)
}

/// How strictly a tier judges evidence. [`Effective`](crate::policy::Effective) has all of these fields.
fn strictness(demands: &TierDemands) -> Strictness {
    Strictness {
        max_false_rollback: demands.max_false_rollback.unwrap_or_default(),
        max_false_promotion: demands.max_false_promotion.unwrap_or_default(),
        tolerated_ratio: demands.tolerated_ratio.unwrap_or_default(),
        tolerated_difference: demands.tolerated_difference.unwrap_or_default(),
        margin_ratio: demands.margin_ratio.unwrap_or_default(),
        margin_difference: demands.margin_difference.unwrap_or_default(),
        extend_at_most: demands.extend_at_most.unwrap_or_default(),
        on_scarce_evidence: demands.on_scarce_evidence.unwrap_or_default(),
        switch_without_evidence: demands.switch_without_evidence.unwrap_or_default(),
        wait_at_most: demands.wait_at_most.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
