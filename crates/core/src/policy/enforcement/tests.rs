use countersign_api::policy::Enforcement;
use countersign_api::rollout::{Change, Observed, Outcome, Plan};
use countersign_api::step::Tier;
use proptest::prelude::*;

use crate::observation::people::NamedPolicy;
use crate::policy::enforcement::{demands, observes};
use crate::policy::tests::{naming_all, no_looser, no_looser_demands, policy};
use crate::policy::{arbitrary, effective};

fn observing(policy: &NamedPolicy) -> NamedPolicy {
    let mut policy = policy.clone();
    policy.spec.enforcement = Enforcement::Observe;
    policy
}

/// A change that began under these policies.
fn begun(enforced: &[&str], observed: &[&str], enforcement: Enforcement) -> Change {
    let names = |of: &[&str]| of.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    let observed = names(observed);
    Change {
        enforcement,
        plan: Plan {
            policies: names(enforced),
            ..Plan::default()
        },
        observed: (!observed.is_empty()).then(|| Observed {
            policies: observed,
            ..Observed::default()
        }),
        ..Change::default()
    }
}

#[test]
fn without_a_policy_the_built_in_one_is_enforced() {
    let demands = demands(&[], None);
    assert_eq!(demands.enforcement, Enforcement::Enforce);
    assert_eq!((demands.enforced, demands.observed), (effective(&[]), None));
}

#[test]
fn a_policy_that_only_observes_holds_nothing_and_judges_as_it_states() {
    let a = policy(
        "a",
        "
enforcement: Observe
risk: {points: {noReview: 30}}
tiers:
  low: {minBake: 2h, signOff: [{count: 2}], requireRouter: true, marginRatio: 1.1, steps: [{weight: 1, bake: 3h}]}
analysis: {interval: 10s, checks: [{name: errors, preset: HttpRequestsTotal}]}
errorBudget: {tiers: [low]}
people: {agentGroups: [robots]}
freeze: {windows: [{name: w, schedule: '* * * * *', duration: 1h}], incident: {query: up}}
concurrency: {perCluster: 1}
",
    );
    let demands = demands(std::slice::from_ref(&a), None);
    let (enforced, all) = (demands.enforced, effective(std::slice::from_ref(&a)));
    assert_eq!(demands.enforcement, Enforcement::Observe);
    for tier in Tier::ALL {
        let low = enforced.tiers.get(tier);
        let weights: Vec<_> = low.steps.iter().map(|step| step.weight).collect();
        assert_eq!(weights, [5, 25, 50], "{tier}");
        assert_eq!(low.sign_off, Some(vec![]));
        assert_eq!(low.require_router, Some(false));
        assert_eq!(low.testers_before_sign_off, Some(true));
        assert_eq!(low.margin_ratio, Some(1.1));
    }
    assert!(enforced.windows.is_empty() && enforced.incidents.is_empty());
    assert!(enforced.concurrency.is_empty() && enforced.budget_tiers.is_empty());
    assert_eq!((&enforced.risk, &enforced.checks), (&all.risk, &all.checks));
    assert_eq!(
        (enforced.interval, &enforced.people),
        (all.interval, &all.people)
    );
    let observed = demands.observed.unwrap();
    assert_eq!(
        (observed.effective, observed.policies),
        (all, vec!["a@3".into()])
    );
}

#[test]
fn an_observed_change_takes_the_plain_steps_or_sooner_ones() {
    for (own, minutes) in [
        ("[{weight: 1, bake: 3h}]", vec![(5, 5), (25, 5), (50, 5)]),
        ("[{weight: 50, bake: 3h}]", vec![(50, 15)]),
        (
            "[{weight: 50, bake: 2m, signOff: [{count: 1}]}]",
            vec![(50, 2)],
        ),
        (
            "[{weight: 9, bake: 2m}, {weight: 10, bake: 9m}]",
            vec![(9, 2), (10, 3), (25, 5), (50, 1)],
        ),
    ] {
        let spec = format!("tiers: {{low: {{steps: {own}, minBake: 0s}}}}");
        let low = demands(&[observing(&policy("a", &spec))], None)
            .enforced
            .tiers
            .low;
        let steps = low.steps.iter().map(|step| {
            assert_eq!((step.min_requests, step.sign_off.len()), (0, 0));
            (step.weight, step.bake.std().as_secs() / 60)
        });
        assert_eq!(steps.collect::<Vec<_>>(), minutes, "{own}");
    }
}

#[test]
fn a_change_keeps_the_mode_that_it_began_with() {
    let (a, b) = (policy("a", "{}"), policy("b", "{}"));
    let (observed, enforced) = (Enforcement::Observe, Enforcement::Enforce);
    for (policy, change, expected) in [
        (&a, None, false),
        (&observing(&a), None, true),
        // whatever is enforced now, and by whichever policy: a change that no policy held is not held.
        (&a, Some(begun(&[], &["a@1"], observed)), true),
        (&b, Some(begun(&[], &["a@1"], observed)), true),
        // Beside a policy that enforces, one that observed at the start still does, and the other way round.
        (&a, Some(begun(&["b@1"], &["a@1"], enforced)), true),
        (
            &observing(&b),
            Some(begun(&["b@1"], &["a@1"], enforced)),
            false,
        ),
        // A policy that comes later has its own mode.
        (&a, Some(begun(&["b@1"], &[], enforced)), false),
        (&observing(&a), Some(begun(&["b@1"], &[], enforced)), true),
    ] {
        assert_eq!(observes(policy, change.as_ref()), expected, "{change:?}");
    }
    let over = Change {
        outcome: Some(Outcome::Promoted),
        ..begun(&[], &["a@1"], observed)
    };
    let next = demands(&[a], Some(&over));
    assert_eq!(
        next.enforcement, enforced,
        "the next change has the mode of its own start"
    );
}

proptest! {
    #[test]
    fn law_7_a_policy_that_only_observes_never_tightens_what_is_enforced(
        a in arbitrary::policy("a"), b in arbitrary::policy("b"),
    ) {
        let a = naming_all(&a);
        let all = effective(&[a.clone(), b.clone()]);
        let beside = demands(&[a.clone(), observing(&b)], None);
        prop_assert!(no_looser(&all, &beside.enforced));
        let none = demands(&[observing(&a), observing(&b)], None);
        prop_assert_eq!(none.enforcement, Enforcement::Observe);
        for tier in Tier::ALL {
            // Steps are compared as plans, with the floors: `plan/tests/observe.rs`.
            let mut demanded = all.tiers.get(tier).clone();
            demanded.steps.clone_from(&none.enforced.tiers.get(tier).steps);
            prop_assert!(no_looser_demands(&demanded, none.enforced.tiers.get(tier)), "{}", tier);
        }
    }

    #[test]
    fn law_7_a_policy_that_only_observes_never_loosens_what_others_enforce(
        a in arbitrary::policy("a"), b in arbitrary::policy("b"),
    ) {
        let alone = effective(std::slice::from_ref(&a));
        let beside = demands(&[a, observing(&b)], None);
        prop_assert_eq!(beside.enforcement, Enforcement::Enforce);
        prop_assert_eq!(&beside.enforced.tiers, &alone.tiers);
        prop_assert_eq!(&beside.enforced.risk, &alone.risk);
        prop_assert!(no_looser(&beside.enforced, &alone));
    }

    #[test]
    fn law_7_evidence_is_judged_as_strictly_as_if_every_policy_were_enforced(
        a in arbitrary::policy("a"), b in arbitrary::policy("b"),
    ) {
        let all = effective(&[a.clone(), b.clone()]);
        let none = demands(&[observing(&a), observing(&b)], None).enforced;
        prop_assert_eq!(&none.risk, &all.risk);
        prop_assert_eq!(&none.checks, &all.checks);
        for tier in Tier::ALL {
            let thresholds = |of: &crate::policy::Effective| {
                let it = of.tiers.get(tier);
                [
                    it.max_false_rollback, it.max_false_promotion, it.tolerated_ratio,
                    it.tolerated_difference, it.margin_ratio, it.margin_difference,
                ]
            };
            prop_assert_eq!(thresholds(&none), thresholds(&all), "{}", tier);
        }
    }
}
