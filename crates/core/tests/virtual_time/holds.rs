//! What holds a change: no data, a pause, a missing sign-off, a policy.

use super::*;

#[test]
pub(super) fn law_6_without_data_a_change_is_held_and_rolled_back_at_the_deadline() {
    for (reason, mut traffic) in [
        ("NoSeries", uncounted(Uncounted::NoSeries)),
        ("StaleSamples", uncounted(Uncounted::StaleSamples)),
        ("NotANumber", uncounted(Uncounted::NotANumber)),
        (
            "PrometheusUnreachable",
            Box::new(|_, _| WindowOutcome::Unanswered {
                reason: Unanswered::PrometheusUnreachable,
                message: "connection refused".into(),
            }) as Box<dyn FnMut(Timestamp, f64) -> WindowOutcome>,
        ),
    ] {
        let mut world = serving();
        change(&mut world, "v2", harmless());
        assert!(
            world.run(after(30), &mut *traffic, |o| o.status.phase
                == Phase::Degraded),
            "{reason}"
        );
        lawful(&world);
        let change = world.observation.status.change.clone().unwrap();
        assert!(
            change.transitions.iter().all(|line| line.step <= 1),
            "{reason}: it never passed its first step"
        );
        assert!(
            change
                .transitions
                .iter()
                .any(|line| line.message.contains(reason)),
            "{reason}: {:?}",
            change.transitions
        );
    }
}

#[test]
pub(super) fn scarce_evidence_promotes_only_the_lowest_tier() {
    let mut low = serving();
    change(&mut low, "v2", harmless());
    assert!(
        low.run(after(600), &mut steady(10.0, 0.0, 0.0), |o| World::at_rest(
            o
        ) && o
            .status
            .revision
            == 2)
    );
    assert_eq!(stable_image(&low), "example.org/shop:v2");
    lawful(&low);

    let mut high = serving();
    change(&mut high, "v2", risky());
    high.run(after(120), &mut steady(10.0, 0.0, 0.0), |o| {
        o.status.phase == Phase::AwaitingSignOff
    });
    assert_eq!(
        high.observation.status.waiting_for.as_deref(),
        Some("AwaitingPerson")
    );
    assert!(high.run(
        after(60 * 50),
        &mut steady(10.0, 0.0, 0.0),
        |o| o.status.phase == Phase::Degraded
    ));
    assert_eq!(stable_image(&high), "example.org/shop:v1");
    lawful(&high);
}

#[test]
pub(super) fn a_pause_waits_without_a_deadline_but_a_failing_canary_is_rolled_back_all_the_same() {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    world.run(after(20), &mut steady(5_000.0, 0.0, 0.0), |o| {
        o.status.step.as_deref() == Some("1/3")
    });
    world.observation.spec.paused = true;
    world.run(after(300), &mut steady(5_000.0, 0.0, 0.0), |_| false);
    assert_eq!(
        world.observation.status.waiting_for.as_deref(),
        Some("Paused")
    );
    assert!(world.run(
        after(330),
        &mut steady(5_000.0, 0.3, 0.0),
        |o| o.status.phase == Phase::Degraded
    ));
    lawful(&world);
}

#[test]
pub(super) fn an_unmet_sign_off_holds_and_expires() {
    let mut world = serving();
    world.observation.policies = vec![attended()];
    change(&mut world, "v2", BTreeMap::new());
    world.run(after(60), &mut steady(5_000.0, 0.0, 0.0), |_| false);
    assert_eq!(world.observation.status.phase, Phase::AwaitingSignOff);
    assert_eq!(
        world.observation.status.replicas, 20,
        "no canary before the first gate"
    );
    assert!(world.run(
        after(60 * 26),
        &mut steady(5_000.0, 0.0, 0.0),
        |o| o.status.phase == Phase::Degraded
    ));
    lawful(&world);
}

#[test]
pub(super) fn tightening_a_policy_takes_effect_in_mid_rollout_and_loosening_does_not() {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    world.run(after(20), &mut steady(5_000.0, 0.0, 0.0), |o| {
        o.status.step.as_deref() == Some("1/3")
    });
    let before = world.observation.status.change.clone().unwrap().plan;
    let mut policy = unattended();
    policy.spec.tiers.low.steps.truncate(1);
    policy.spec.tiers.low.min_bake = Some(Duration::seconds(1));
    world.observation.policies = vec![policy];
    world.run(after(3), &mut steady(5_000.0, 0.0, 0.0), |_| false);
    assert_eq!(
        world.observation.status.change.clone().unwrap().plan.steps,
        before.steps
    );
    world.observation.policies.clear();
    world.run(after(4), &mut steady(5_000.0, 0.0, 0.0), |_| false);
    assert_eq!(
        world.observation.status.change.clone().unwrap().plan.steps,
        before.steps
    );
    let mut policy = unattended();
    policy.spec.tiers.low.min_bake = Some(Duration::minutes(20));
    world.observation.policies = vec![policy];
    world.run(after(5), &mut steady(5_000.0, 0.0, 0.0), |_| false);
    let plan = world.observation.status.change.clone().unwrap().plan;
    assert!(
        plan.steps[1..]
            .iter()
            .all(|step| step.bake >= Duration::minutes(20)),
        "{:?}",
        plan.steps
    );
    lawful(&world);
}

#[test]
pub(super) fn law_6_a_policy_that_cannot_be_read_holds_and_the_change_continues_once_it_can() {
    let mut world = serving();
    world.observation.unreadable_policies = vec!["RolloutPolicy x cannot be read".into()];
    change(&mut world, "v2", harmless());
    world.run(after(60), &mut steady(5_000.0, 0.0, 0.0), |_| false);
    assert_eq!(
        world.observation.status.waiting_for.as_deref(),
        Some("PolicyUnreadable")
    );
    assert_eq!(world.observation.status.replicas, 20, "no canary yet");
    world.observation.unreadable_policies.clear();
    assert!(world.run(after(120), &mut steady(5_000.0, 0.0, 0.0), |o| {
        World::at_rest(o) && o.status.revision == 2
    }));
    lawful(&world);
}

#[test]
pub(super) fn law_7_a_check_that_has_counted_is_neither_swapped_nor_removed() {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    world.run(after(5), &mut steady(5_000.0, 0.01, 0.01), |o| {
        let change = o.status.change.as_ref();
        change.is_some_and(|change| {
            change
                .evidence
                .checks
                .iter()
                .any(|check| check.canary.requests > 0.0)
        })
    });
    world.observation.spec.strategy.canary.analysis = None;
    assert!(world.run(after(30), &mut steady(5_000.0, 0.4, 0.01), |o| {
        o.status.phase == Phase::Degraded
    }));
    let change = world.observation.status.change.clone().unwrap();
    assert_eq!(change.outcome, Some(Outcome::RolledBack));
    assert!(
        change
            .transitions
            .iter()
            .any(|line| line.reason == "AnalysisFailed")
    );
    lawful(&world);
}
