//! The people whom a first revision waits for.

use countersign_api::rollout::Plan;
use countersign_api::step::{SignOffDemand, Tier};

use crate::plan::steps;
use crate::policy::Effective;

/// The sign-offs before the first pod of a first revision of this tier: those that policies require of first
/// revisions. If the Rollout was deleted and made again with another template, those of all steps and of the
/// promotion as well: the new revision takes all of the traffic at once.
#[must_use]
pub fn sign_off(
    plan: &Plan,
    tier: Tier,
    effective: &Effective,
    made_again: bool,
) -> Vec<SignOffDemand> {
    let mut demands = Vec::new();
    steps::add_demands(&mut demands, &effective.first_sign_off(tier));
    if made_again {
        for step in &plan.steps {
            steps::add_demands(&mut demands, &step.sign_off);
        }
        steps::add_demands(&mut demands, &plan.promotion_sign_off);
    }
    demands
}

#[cfg(test)]
mod tests {
    use countersign_api::RolloutPolicySpec;
    use serde_json::json;

    use super::*;
    use crate::observation::people::NamedPolicy;
    use crate::plan::plan_for;
    use crate::policy::effective;

    fn policy(name: &str, spec: serde_json::Value) -> NamedPolicy {
        let spec: RolloutPolicySpec = serde_json::from_value(spec).unwrap();
        NamedPolicy {
            name: name.into(),
            generation: 1,
            spec,
        }
    }

    fn names(demands: &[SignOffDemand]) -> Vec<(i32, Vec<String>)> {
        let names = demands.iter().map(|it| (it.count, it.groups.clone()));
        names.collect()
    }

    #[test]
    fn every_policy_adds_its_people_from_its_tier_on() {
        let all = policy(
            "all",
            json!({ "firstRevision": { "signOff": [{ "count": 1, "groups": ["platform"] }] } }),
        );
        let high = policy(
            "high",
            json!({ "firstRevision": { "fromTier": "high", "signOff": [{ "count": 2 }] } }),
        );
        let effective = effective(&[all, high]);
        let of = |tier| {
            let plan = plan_for(tier, &[], &[], &effective);
            names(&sign_off(&plan, tier, &effective, false))
        };
        let platform = (1, vec!["platform".to_owned()]);
        assert_eq!(of(Tier::Medium), std::slice::from_ref(&platform));
        let both = [platform, (2, Vec::new())];
        for tier in [Tier::High, Tier::Critical] {
            let found = of(tier);
            assert!(both.iter().all(|it| found.contains(it)), "{found:?}");
        }
    }

    #[test]
    fn a_rollout_that_was_made_again_needs_the_people_of_all_steps() {
        let people = policy(
            "people",
            json!({ "tiers": { "high": {
                "signOff": [{ "count": 1, "groups": ["approvers"] }],
                "promotionSignOff": [{ "count": 1, "groups": ["senior"] }],
            } } }),
        );
        let effective = effective(&[people]);
        let plan = plan_for(Tier::High, &[], &[], &effective);
        assert_eq!(sign_off(&plan, Tier::High, &effective, false), []);
        let demands = names(&sign_off(&plan, Tier::High, &effective, true));
        let group = |name: &str| (1, vec![name.to_owned()]);
        assert_eq!(demands, [group("approvers"), group("senior")]);
        let low = plan_for(Tier::Low, &[], &[], &effective);
        assert_eq!(sign_off(&low, Tier::Low, &effective, true), []);
    }
}
