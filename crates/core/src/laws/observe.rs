//! What observing a change may loosen (law 7): its steps and sign-offs, the freezes, turns, routes and
//! budgets that policies demand, and what follows from clean evidence that is scarce or was not required.
//! Never how strictly evidence is judged, who may sign, or that a failing change is rolled back.

use countersign_api::policy::Enforcement;
use countersign_api::rollout::{Change, Strictness};

use crate::observation::Observation;
use crate::observation::people::NamedPolicy;
use crate::policy;

/// Whether a policy's demands hold for a change, by what was recorded when the change began.
pub(super) fn is_enforced(policy: &NamedPolicy, change: &Change) -> bool {
    let named = |sources: &[String]| {
        let mut names = sources.iter().filter_map(|it| it.rsplit_once('@'));
        names.any(|(name, _)| name == policy.name)
    };
    let observed = change.observed.as_ref();
    let only_observes = observed.is_some_and(|it| named(&it.policies));
    let declared = policy.spec.enforcement == Enforcement::Enforce;
    change.enforcement == Enforcement::Enforce
        && !only_observes
        && (declared || named(&change.plan.policies))
}

/// Whether a change has the mode that it began with, and began with one that the policies named.
pub(super) fn unlawful_mode(
    observation: &Observation,
    before: Option<&Change>,
    after: &Change,
) -> Option<&'static str> {
    if let Some(before) = before.filter(|before| before.run == after.run) {
        let policies = |of: &Change| of.observed.as_ref().map(|it| it.policies.clone());
        let kept = before.enforcement == after.enforcement && policies(before) == policies(after);
        return (!kept).then_some("a change went on in another mode than it began with");
    }
    let policies = &observation.policies;
    let mut modes = policies.iter().map(|it| it.spec.enforcement);
    let all_observe = !policies.is_empty() && modes.all(|it| it == Enforcement::Observe);
    if all_observe != (after.enforcement == Enforcement::Observe) {
        return Some("a change began in another mode than its policies name");
    }
    if after.initial {
        return None; // there is nothing to compare it with
    }
    let demanded = policy::effective(policies);
    let observed = after.observed.as_ref();
    let tier = observed.map_or(after.tier, |observed| observed.tier);
    let demanded = demanded.tiers.get(tier);
    let Strictness {
        max_false_rollback,
        max_false_promotion,
        tolerated_ratio,
        tolerated_difference,
        margin_ratio,
        margin_difference,
        ..
    } = after.plan.strictness;
    let at_least = |own: f64, demanded: Option<f64>| demanded.is_none_or(|it| own >= it);
    let at_most = |own: f64, demanded: Option<f64>| demanded.is_none_or(|it| own <= it);
    let as_strict = at_least(max_false_rollback, demanded.max_false_rollback)
        && at_most(max_false_promotion, demanded.max_false_promotion)
        && at_most(tolerated_ratio, demanded.tolerated_ratio)
        && at_most(tolerated_difference, demanded.tolerated_difference)
        && at_most(margin_ratio, demanded.margin_ratio)
        && at_most(margin_difference, demanded.margin_difference);
    (!as_strict).then_some("observing loosened how strictly evidence is judged")
}
