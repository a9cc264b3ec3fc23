//! What the gates between the steps need.

use countersign_api::policy::OnScarceEvidence;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::*;
use crate::clocks::always;
use crate::people::minutes_on;

/// A window without errors, of which the canary serves a share.
fn of_service(requests: f64, share: f64) -> WindowOutcome {
    let arm = |share: f64| Counts {
        requests: requests * share,
        errors: 0.0,
    };
    WindowOutcome::Counted {
        canary: arm(share),
        stable: arm(1.0 - share),
    }
}

/// A healthy change of a strict tier at a quiet service: at 1% of its requests the proof that the promotion
/// needs would take hours.
#[test]
pub(crate) fn a_step_needs_the_evidence_that_the_next_share_is_worth() {
    for (tier, minutes) in [(Tier::High, 240), (Tier::Critical, 720)] {
        let mut first = observation("v1");
        first.spec.replicas = 100;
        first.spec.strategy.canary.max_surge = IntOrString::String("100%".into());
        let mut world = begin(first);
        assert!(world.run(after(20), &mut steady(1_000.0, 0.0, 0.0), World::at_rest));
        let mut policy = always(tier);
        for demands in [&mut policy.spec.tiers.high, &mut policy.spec.tiers.critical] {
            demands.extend_at_most = Some(Duration::minutes(1_440));
        }
        world.observation.policies = vec![policy];
        change(&mut world, "v2", harmless());
        // 5 requests a second.
        let mut traffic = |_: Timestamp, share: f64| of_service(50.0, share);
        let promoted = |o: &Observation| World::at_rest(o) && o.status.revision == 2;
        let until = minutes_on(&world, minutes);
        assert!(
            world.run(until, &mut traffic, promoted),
            "{tier}: {:?}",
            world.observation.status.message
        );
        lawful(&world);
    }
}

/// One pod of four is a quarter of the traffic, whatever weight was requested, and so the gate to it needs the
/// evidence for a quarter.
#[test]
pub(crate) fn without_routes_the_plan_states_which_share_the_pods_really_are() {
    let mut first = observation("v1");
    first.spec.replicas = 3;
    let mut world = begin(first);
    assert!(world.run(after(20), &mut steady(1_000.0, 0.0, 0.0), World::at_rest));
    let canary = &mut world.observation.spec.strategy.canary;
    canary.steps = serde_json::from_value(json!([
        { "weight": 5, "bake": "1m" }, { "weight": 20, "bake": "1m" }, { "weight": 50, "bake": "1m" },
    ]))
    .unwrap();
    change(&mut world, "v2", harmless());
    let steps = |o: &Observation| o.status.change.as_ref().is_some_and(|it| it.step == 1);
    assert!(world.run(after(60), &mut steady(1_000.0, 0.0, 0.0), steps));
    let plan = &world.observation.status.change.as_ref().unwrap().plan;
    let weights: Vec<_> = plan.steps.iter().map(|step| step.weight).collect();
    assert_eq!(
        (weights, &*plan.shares),
        (vec![5, 20, 50], &[25, 25, 50][..])
    );
    lawful(&world);
}

/// All traffic at once, from weight 0, needs evidence on requests or a policy that waives it. A canary
/// without requests has no series.
#[test]
pub(crate) fn a_switch_of_all_traffic_needs_evidence_unless_the_policy_waives_it() {
    for (waived, series) in [(false, true), (false, false), (true, false)] {
        let mut world = serving();
        let low = &mut world.observation.policies[0].spec.tiers.low;
        low.min_final_weight = Some(0);
        low.switch_without_evidence = Some(waived);
        low.on_scarce_evidence = Some(OnScarceEvidence::Hold);
        low.extend_at_most = Some(Duration::minutes(60));
        let canary = &mut world.observation.spec.strategy.canary;
        canary.steps = serde_json::from_value(json!([{ "weight": 0, "bake": "2m" }])).unwrap();
        change(&mut world, "v2", harmless());
        let promoted = |o: &Observation| World::at_rest(o) && o.status.revision == 2;
        let until = minutes_on(&world, 30);
        let mut none = uncounted(Uncounted::NoSeries);
        let mut nobody_tests = |_: Timestamp, _: f64| of_service(1_000.0, 0.0);
        let traffic: &mut dyn FnMut(Timestamp, f64) -> WindowOutcome =
            if series { &mut nobody_tests } else { &mut none };
        let ended = world.run(until, traffic, promoted);
        let message = world.observation.status.message.clone();
        assert_eq!(ended, waived, "{message:?}");
        if !waived {
            let waiting = world.observation.status.waiting_for.as_deref();
            assert_eq!(waiting, Some("AwaitingEvidence"), "{message:?}");
        }
        if !series && !waived {
            assert!(message.contains("switchWithoutEvidence"), "{message:?}");
        }
        lawful(&world);
    }
}
