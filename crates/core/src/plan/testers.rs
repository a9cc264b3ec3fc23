//! Testers of a Rollout reach its canary whatever its weight.

use countersign_api::rollout::Plan;
use countersign_api::step::Tier;

use crate::limits::MAX_SENTENCES;
use crate::plan::steps;
use crate::policy::Effective;

/// Demands before the first step everybody whom the plan demands later. From the first step on the requests of
/// testers are the canary's, and what marks them may be on each request; so the step counts as all of the traffic.
/// What is demanded later stays: a sign-off may be for one gate alone.
pub fn sign_first(plan: &mut Plan, tier: Tier, effective: &Effective) {
    let demands = effective.tiers.get(tier);
    let Some((first, later)) = plan.steps.split_first_mut() else {
        return;
    };
    if demands.testers_before_sign_off == Some(true) {
        return;
    }
    let later = later.iter().flat_map(|step| &step.sign_off);
    let later: Vec<_> = later.chain(&plan.promotion_sign_off).cloned().collect();
    if steps::add_demands(&mut first.sign_off, &later) {
        plan.tightened.truncate(MAX_SENTENCES - 1);
        plan.tightened.push(
            "step 1: the later sign-offs are required before it, as traffic.testers reach the canary at every weight: added".to_owned(),
        );
    }
}

#[cfg(test)]
mod tests {
    use countersign_api::RolloutPolicySpec;
    use countersign_api::step::{SignOffDemand, Step};
    use serde_json::{Value, json};

    use super::*;
    use crate::observation::people::NamedPolicy;
    use crate::plan::plan_for;
    use crate::policy::effective;

    fn under(spec: Value) -> Effective {
        let spec: RolloutPolicySpec = serde_json::from_value(spec).unwrap();
        effective(&[NamedPolicy {
            name: "people".into(),
            generation: 1,
            spec,
        }])
    }

    /// The plan of a Rollout with these steps and with testers.
    fn with_testers(tier: Tier, own: &[Step], effective: &Effective) -> Plan {
        let mut plan = plan_for(tier, own, &[], effective);
        sign_first(&mut plan, tier, effective);
        plan
    }

    fn demands(of: Value) -> Vec<SignOffDemand> {
        serde_json::from_value(of).unwrap()
    }

    #[test]
    fn everybody_signs_before_testers_reach_the_canary() {
        let mut tier = json!({
            "signOff": [{ "count": 1 }],
            "promotionSignOff": [{ "count": 1, "groups": ["senior"] }],
        });
        let own = json!([{ "weight": 1 }, { "weight": 50, "signOff": [{ "count": 2 }] }]);
        let own: Vec<Step> = serde_json::from_value(own).unwrap();
        let effective = under(json!({ "tiers": { "critical": tier } }));
        let plan = with_testers(Tier::Critical, &own, &effective);
        let all = json!([{ "count": 2 }, { "count": 1, "groups": ["senior"] }]);
        assert_eq!(plan.steps[0].sign_off, demands(all));
        let senior = json!([{ "count": 1, "groups": ["senior"] }]);
        assert_eq!(plan.promotion_sign_off, demands(senior));
        let mut sentences = plan.tightened.iter();
        assert!(sentences.any(|it| it.contains("traffic.testers")));

        tier["testersBeforeSignOff"] = json!(true);
        let tiers = json!({ "low": tier, "medium": tier, "high": tier, "critical": tier });
        let plan = with_testers(Tier::Critical, &own, &under(json!({ "tiers": tiers })));
        assert_eq!(plan.steps[0].sign_off, demands(json!([{ "count": 1 }])));
    }

    #[test]
    fn who_requires_nobody_waits_for_nobody() {
        let high = json!({ "signOff": [{ "count": 1 }], "promotionSignOff": [{ "count": 2 }] });
        let effective = under(json!({ "tiers": { "high": high } }));
        for tier in [Tier::Low, Tier::Medium] {
            let plan = with_testers(tier, &[], &effective);
            assert_eq!(plan, plan_for(tier, &[], &[], &effective));
            assert!(plan.steps.iter().all(|step| step.sign_off.is_empty()));
        }
    }
}
