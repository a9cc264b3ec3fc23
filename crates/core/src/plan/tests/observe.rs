//! Plans of changes that policies only observe.

use countersign_api::policy::Enforcement;

use super::*;
use crate::observation::people::NamedPolicy;
use crate::policy::arbitrary;
use crate::policy::enforcement::demands;

fn observing(mut policy: NamedPolicy) -> NamedPolicy {
    policy.spec.enforcement = Enforcement::Observe;
    policy
}

fn some_tier() -> impl Strategy<Value = Tier> {
    proptest::sample::select(Tier::ALL.as_slice())
}

proptest! {
    #[test]
    fn law_7_an_observed_change_takes_its_own_steps_as_they_are(
        a in arbitrary::policy("a"), own in some_steps(1..6), tier in some_tier(),
    ) {
        let plan = plan_for(tier, &own, &[], &demands(&[observing(a)], None).enforced);
        prop_assert_eq!(plan.steps, own);
        prop_assert_eq!(plan.promotion_sign_off, vec![]);
        prop_assert_eq!(plan.tightened, Vec::<String>::new());
    }

    #[test]
    fn law_7_observing_requires_no_more_than_enforcing_and_judges_the_same(
        a in arbitrary::policy("a"), own in some_steps(0..6), tier in some_tier(),
    ) {
        let enforced = plan_for(tier, &own, &[], &policy::effective(std::slice::from_ref(&a)));
        let observed = plan_for(tier, &own, &[], &demands(&[observing(a)], None).enforced);
        takes_as_much_care(&enforced.steps, &observed.steps, 0)?;
        prop_assert!(!observed.steps.is_empty());
        let judged = crate::plan::tighten::as_strictly_judged(observed.strictness, enforced.strictness);
        prop_assert_eq!(judged, observed.strictness);
        prop_assert_eq!(
            Strictness {
                on_scarce_evidence: OnScarceEvidence::Promote,
                ..enforced.strictness
            },
            observed.strictness
        );
    }
}
