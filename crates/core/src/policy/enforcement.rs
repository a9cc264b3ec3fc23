//! Which policies are enforced for a change, and which only observe it.
//!
//! A change keeps the mode that it began with, whatever is edited meanwhile: see [`observes`]. Start with
//! [`demands`].
//!
//! Invariant: `analysis`, `people` and `history` of every policy are in force, so that observing changes neither
//! what rolls a change back, nor who may sign, nor what is recorded.

use std::collections::BTreeSet;
use std::time::Duration as StdDuration;

use countersign_api::Duration;
use countersign_api::policy::{Enforcement, OnScarceEvidence, TierDemands, Tiers};
use countersign_api::rollout::Change;
use countersign_api::step::Step;

use crate::observation::people::NamedPolicy;
use crate::policy::defaults::built_in;
use crate::policy::{Effective, effective, is_named};

/// Share of the traffic after the last step, in percent.
const PROMOTED: i32 = 100;

/// The demands of the policies that govern a Rollout.
#[derive(Clone, Debug, PartialEq)]
pub struct Demands {
    /// `Observe` if no policy is enforced, because all of them only observe.
    pub enforcement: Enforcement,
    /// The demands in force.
    pub enforced: Effective,
    /// The demands of all policies together; `None` if none of them only observes.
    pub observed: Option<Observed>,
}

/// The demands of all policies together, some of which only observe.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The merged policies.
    pub effective: Effective,
    /// Those that only observe, each as `name@generation`.
    pub policies: Vec<String>,
}

/// What the policies demand of the change under way, or of the next one if none is.
#[must_use]
pub fn demands(policies: &[NamedPolicy], change: Option<&Change>) -> Demands {
    let change = change.filter(|change| change.outcome.is_none());
    let observing = policies.iter().filter(|policy| observes(policy, change));
    let sources = observing.map(|it| format!("{}@{}", it.name, it.generation));
    let sources: Vec<_> = sources.collect();
    let all_observe = !policies.is_empty() && sources.len() == policies.len();
    let enforcement = match change {
        Some(change) => change.enforcement,
        None if all_observe => Enforcement::Observe,
        None => Enforcement::Enforce,
    };
    let all = effective(policies);
    let enforced = match enforcement {
        Enforcement::Enforce if sources.is_empty() => {
            return Demands {
                enforcement,
                enforced: all,
                observed: None,
            };
        }
        Enforcement::Enforce => {
            let enforcing = policies.iter().filter(|policy| !observes(policy, change));
            let enforcing: Vec<_> = enforcing.cloned().collect();
            judged_by(&all, effective(&enforcing))
        }
        Enforcement::Observe => nothing_but_judged_by(&all),
    };
    Demands {
        enforcement,
        enforced,
        observed: Some(Observed {
            effective: all,
            policies: sources,
        }),
    }
}

/// Whether a policy only observes a change: as when the change began. For a policy that governed it then,
/// an edit of `enforcement` takes effect with the next change; no policy is enforced for a change that
/// began without one that was.
#[must_use]
pub fn observes(policy: &NamedPolicy, change: Option<&Change>) -> bool {
    let declared = policy.spec.enforcement == Enforcement::Observe;
    let Some(change) = change else {
        return declared;
    };
    let named = |sources: &[String]| is_named(&policy.name, sources);
    let observed = change.observed.as_ref();
    change.enforcement == Enforcement::Observe
        || observed.is_some_and(|it| named(&it.policies))
        || (declared && !named(&change.plan.policies))
}

/// The demands of the policies that enforce, with the checks, the people and the history of all.
fn judged_by(all: &Effective, enforcing: Effective) -> Effective {
    Effective {
        checks: all.checks.clone(),
        objectives: all.objectives.clone(),
        interval: all.interval,
        warm_up: all.warm_up,
        post_promotion: all.post_promotion,
        people: all.people.clone(),
        history: all.history,
        ..enforcing
    }
}

/// No demand on how a change proceeds, in any tier; its risk and its evidence are judged as all policies
/// demand.
fn nothing_but_judged_by(all: &Effective) -> Effective {
    let tiers = &all.tiers;
    Effective {
        tiers: Tiers {
            low: undemanding(&tiers.low),
            medium: undemanding(&tiers.medium),
            high: undemanding(&tiers.high),
            critical: undemanding(&tiers.critical),
        },
        first_revision: Vec::new(),
        budget_tiers: BTreeSet::new(),
        windows: Vec::new(),
        incidents: Vec::new(),
        concurrency: Vec::new(),
        ..all.clone()
    }
}

/// The thresholds of a tier without anything that a change would wait for.
fn undemanding(demands: &TierDemands) -> TierDemands {
    TierDemands {
        steps: plain_steps(demands),
        max_first_weight: Some(100),
        max_increase: Some(100),
        min_final_weight: Some(0),
        min_bake: Some(Duration::default()),
        min_requests: Some(0),
        sign_off: Some(Vec::new()),
        promotion_sign_off: Some(Vec::new()),
        testers_before_sign_off: Some(true),
        // No person is required: the change continues, as in the lowest tier.
        on_scarce_evidence: Some(OnScarceEvidence::Promote),
        require_router: Some(false),
        require_digest: Some(false),
        require_immutable_config: Some(false),
        require_policy_check: Some(false),
        ..demands.clone()
    }
}

/// The steps of an observed Rollout that names none: those of the built-in tier `low`, or sooner ones of the
/// tier, since observing never takes longer than enforcing. How many requests they need is up to the
/// thresholds of the evidence.
fn plain_steps(demands: &TierDemands) -> Vec<Step> {
    let own = demands.steps.iter().map(|step| Step {
        weight: step.weight,
        bake: step.bake.max(demands.min_bake.unwrap_or_default()),
        ..Step::default()
    });
    let own: Vec<_> = own.collect();
    let soonest = soonest(&own, &built_in().tiers.low.steps);
    // Steps that take no time are still steps.
    if soonest.is_empty() { own } else { soonest }
}

/// The steps that give each weight as soon as either list does.
fn soonest(a: &[Step], b: &[Step]) -> Vec<Step> {
    let (a, b) = (ends(a), ends(b));
    let times: BTreeSet<_> = a.iter().chain(&b).map(|(end, _)| *end).collect();
    let weight_at = |ends: &[(StdDuration, i32)], at: StdDuration| {
        let present = ends.iter().find(|(end, _)| *end > at);
        present.map_or(PROMOTED, |(_, weight)| *weight)
    };
    let mut steps: Vec<Step> = Vec::new();
    let mut from = StdDuration::ZERO;
    for end in times {
        let weight = weight_at(&a, from).max(weight_at(&b, from));
        let bake = end.saturating_sub(from);
        match steps.last_mut() {
            _ if weight == PROMOTED || bake.is_zero() => {}
            Some(last) if last.weight == weight => {
                last.bake = last.bake.std().saturating_add(bake).into();
            }
            _ => steps.push(Step {
                weight,
                bake: bake.into(),
                ..Step::default()
            }),
        }
        from = end;
    }
    steps
}

/// When each step ends, and its weight.
fn ends(steps: &[Step]) -> Vec<(StdDuration, i32)> {
    let ends = steps.iter().scan(StdDuration::ZERO, |end, step| {
        *end = end.saturating_add(step.bake.std());
        Some((*end, step.weight))
    });
    ends.collect()
}

#[cfg(test)]
mod tests;
