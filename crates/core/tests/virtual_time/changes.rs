//! What becomes of a change: promoted, rolled back, replaced, or tried again.

use super::*;

#[test]
pub(super) fn a_healthy_low_risk_change_is_promoted_in_the_sum_of_its_bakes() {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    let began = world.observation.now;
    assert!(world.run(
        after(120),
        &mut steady(5_000.0, 0.001, 0.001),
        |o| World::at_rest(o) && o.status.revision == 2
    ));
    lawful(&world);
    assert_eq!(stable_image(&world), "example.org/shop:v2");
    let took = world.observation.now.duration_since(began);
    assert!(
        (15 * 60..17 * 60).contains(&took.as_secs()),
        "three bakes of 5 minutes took {took:#}"
    );
    let pods: i32 = world
        .observation
        .replica_sets
        .iter()
        .map(|set| set.replicas)
        .sum();
    assert_eq!(pods, 20);
}

#[test]
pub(super) fn a_change_without_provenance_takes_the_smaller_steps_of_a_high_tier() {
    let mut world = serving();
    change(&mut world, "v2", BTreeMap::new());
    world.run(after(12), &mut steady(5_000.0, 0.0, 0.0), |o| {
        o.status.step.is_some()
    });
    let change = world.observation.status.change.clone().unwrap();
    assert!(change.tier >= Tier::High, "{change:?}");
    assert_eq!(change.plan.steps[0].weight, 1);
}

#[test]
pub(super) fn law_3_errors_roll_back_within_one_interval_of_sufficient_evidence_and_law_8_they_stay_back()
 {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    assert!(world.run(
        after(60),
        &mut steady(5_000.0, 0.2, 0.001),
        |o| o.status.phase == Phase::Degraded
    ));
    lawful(&world);
    assert_eq!(stable_image(&world), "example.org/shop:v1");
    let change = world.observation.status.change.clone().unwrap();
    assert_eq!(change.outcome, Some(Outcome::RolledBack));
    let failed = change
        .transitions
        .iter()
        .find(|line| line.reason == "AnalysisFailed")
        .unwrap();
    let first = change
        .transitions
        .iter()
        .find(|line| line.reason == "StepStarted")
        .unwrap();
    let took = failed
        .at
        .as_ref()
        .unwrap()
        .0
        .duration_since(first.at.as_ref().unwrap().0);
    assert!(
        took.as_secs() <= 10 + 30 + 10,
        "one window, the lag and one interval: {took:#}"
    );
    let attempts = world.observation.status.attempts;
    world.run(after(300), &mut steady(5_000.0, 0.0, 0.0), |_| false);
    assert_eq!(
        world.observation.status.attempts, attempts,
        "what failed stays failed"
    );
    lawful(&world);
}

#[test]
pub(super) fn pods_that_never_come_are_rolled_back_at_the_deadline_and_stable_is_untouched() {
    let mut world = serving();
    world.pods_ready_after = None;
    change(&mut world, "v2", harmless());
    assert!(world.run(
        after(30),
        &mut steady(5_000.0, 0.0, 0.0),
        |o| o.status.phase == Phase::Degraded
    ));
    lawful(&world);
    assert_eq!(world.observation.status.available_replicas, 20);
}

#[test]
pub(super) fn a_newer_change_supersedes_and_the_stable_template_reverts() {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    world.run(after(20), &mut steady(5_000.0, 0.0, 0.0), |o| {
        o.status.step.as_deref() == Some("1/3")
    });
    change(&mut world, "v3", harmless());
    world.run(after(20), &mut steady(5_000.0, 0.0, 0.0), |o| {
        o.status.revision == 3 && o.status.step.as_deref() == Some("1/3")
    });
    change(&mut world, "v1", harmless());
    let now = world.observation.now;
    assert!(world.run(after(40), &mut steady(5_000.0, 0.0, 0.0), World::at_rest));
    assert!(
        world.observation.now.duration_since(now).as_secs() <= 15,
        "the return takes no steps"
    );
    assert_eq!(world.observation.status.phase, Phase::Stable);
    assert_eq!(stable_image(&world), "example.org/shop:v1");
    let mut outcomes = world.outcomes();
    outcomes.sort_by_key(|outcome| format!("{outcome:?}"));
    assert_eq!(
        outcomes,
        [
            Some(Outcome::Promoted),
            Some(Outcome::Reverted),
            Some(Outcome::Superseded)
        ]
    );
    lawful(&world);
}

#[test]
pub(super) fn a_blip_after_a_long_wait_for_people_does_not_roll_a_healthy_canary_back() {
    let mut world = serving();
    let mut policy = unattended();
    policy.spec.tiers.low.promotion_sign_off =
        Some(serde_json::from_value(json!([{ "count": 1 }])).unwrap());
    world.observation.policies = vec![policy];
    change(&mut world, "v2", harmless());
    world.run(after(300), &mut steady(5_000.0, 0.0, 0.0), |_| false);
    assert_eq!(
        world.observation.status.waiting_for.as_deref(),
        Some("AwaitingSignOff")
    );
    world.run(after(305), &mut *uncounted(Uncounted::NoSeries), |_| false);
    assert_eq!(
        world.observation.status.waiting_for.as_deref(),
        Some("NoSeries")
    );
    world.run(after(320), &mut steady(5_000.0, 0.0, 0.0), |_| false);
    assert_eq!(
        world.observation.status.waiting_for.as_deref(),
        Some("AwaitingSignOff")
    );
    // The people's own clock ran on all the while.
    assert!(
        world.run(after(60 * 25), &mut steady(5_000.0, 0.0, 0.0), |o| {
            o.status.phase == Phase::Degraded
        })
    );
    lawful(&world);
}

#[test]
pub(super) fn law_3_a_canary_whose_service_another_rollout_claims_is_still_judged_and_rolled_back()
{
    let mut world = serving();
    change(&mut world, "v2", harmless());
    world.run(after(20), &mut steady(5_000.0, 0.0, 0.0), |o| {
        o.status.step.as_deref() == Some("1/3")
    });
    world.observation.conflicts = vec!["Rollout other already claims Service shop".into()];
    assert!(world.run(after(25), &mut steady(5_000.0, 0.4, 0.0), |o| {
        o.status
            .change
            .as_ref()
            .is_some_and(|change| change.outcome.is_some())
    }));
    let change = world.observation.status.change.clone().unwrap();
    assert!(
        change
            .transitions
            .iter()
            .any(|line| line.reason == "AnalysisFailed")
    );
    world.run(after(26), &mut steady(5_000.0, 0.0, 0.0), |_| false);
    assert_eq!(world.observation.status.replicas, 20);
    lawful(&world);
}

#[test]
pub(super) fn a_rollout_made_with_no_replicas_can_be_changed_and_scaled_up() {
    let mut first = observation("v1");
    first.spec.replicas = 0;
    let mut world = begin(first);
    assert!(world.run(after(5), &mut steady(0.0, 0.0, 0.0), World::at_rest));
    change(&mut world, "v2", harmless());
    world.run(after(30), &mut steady(0.0, 0.0, 0.0), |_| false);
    assert_eq!(
        world.observation.status.waiting_for.as_deref(),
        Some("ScaledToZero")
    );
    world.observation.spec.replicas = 20;
    let mut stalled = false;
    assert!(world.run(after(90), &mut steady(5_000.0, 0.0, 0.0), |o| {
        let mut conditions = o.status.conditions.iter();
        stalled |= conditions.any(|it| it.type_ == "Stalled" && it.status == "True");
        World::at_rest(o) && o.status.revision == 2
    }));
    assert!(!stalled, "nobody has scaled stable down");
    assert_eq!(stable_image(&world), "example.org/shop:v2");
    lawful(&world);
}

#[test]
pub(super) fn a_change_that_was_reverted_and_applied_again_starts_from_the_first_step() {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    world.run(after(20), &mut steady(5_000.0, 0.0, 0.0), |o| {
        o.status.step.as_deref() == Some("1/3")
    });
    change(&mut world, "v1", harmless());
    let decision = world.reconcile(&mut steady(5_000.0, 0.0, 0.0));
    world.carry_out(&decision, usize::MAX);
    assert_eq!(world.outcome(), Some(Outcome::Reverted));
    change(&mut world, "v2", harmless());
    assert!(world.run(after(60), &mut steady(5_000.0, 0.0, 0.0), |o| {
        World::at_rest(o)
            && o.status
                .stable
                .as_ref()
                .is_some_and(|stable| stable.revision == 3)
    }));
    lawful(&world);
}

#[test]
pub(super) fn law_5_an_operator_that_was_away_for_hours_catches_up_before_it_judges_the_time() {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    world.run(after(4), &mut steady(5_000.0, 0.0, 0.0), |_| false);
    world.observation.now = after(60 * 5);
    assert!(
        world.run(after(60 * 6), &mut steady(5_000.0, 0.0, 0.0), |o| {
            World::at_rest(o) && o.status.revision == 2
        })
    );
    assert_eq!(stable_image(&world), "example.org/shop:v2");
    lawful(&world);
}

/// Otherwise each change could take the place of a first revision that never becomes complete, past all gates.
#[test]
pub(super) fn law_1_a_first_revision_that_has_served_is_stable_for_the_next_change() {
    // Beside pods of others a Service would move to an incomplete revision.
    let foreign = || Some(vec!["ReplicaSet old".to_owned()]);
    for (ready, foreign, first_again) in [(0, None, true), (1, foreign(), true), (1, None, false)] {
        let mut world = begin(observation("v1"));
        world.observation.foreign_replica_sets = foreign;
        world.pods_ready_after = None;
        let traffic = &mut steady(1_000.0, 0.0, 0.0);
        let has_pods = |o: &Observation| o.replica_sets.iter().any(|set| set.current > 0);
        assert!(world.run(after(1), traffic, has_pods));
        world.observation.replica_sets[0].ready = ready;
        world.observation.status = countersign_core::decide(&world.observation).status;
        // The pod is lost before the newer change comes.
        world.observation.replica_sets[0].ready = 0;
        change(&mut world, "v2", harmless());
        let record = countersign_core::decide(&world.observation).record;
        let kept = record.is_some_and(|it| it.spec.template.is_some());
        assert!(kept, "its ReplicaSet can be made again");
        let begins = |o: &Observation| {
            let change = o.status.change.as_ref();
            change.is_some_and(|it| it.revision == 2 && it.outcome.is_none())
        };
        assert!(
            world.run(after(5), traffic, begins),
            "{:?}",
            world.observation.status
        );
        let status = &world.observation.status;
        let (change, stable) = (status.change.as_ref().unwrap(), status.stable.as_ref());
        assert_eq!(change.initial, first_again);
        assert_eq!(stable.map(|it| it.revision), (!first_again).then_some(1));
        assert_eq!(change.weight, if change.initial { 100 } else { 0 });
        lawful(&world);
    }
}

/// Without a Service or a route of its own the previous revision would keep its part of the requests.
#[test]
fn a_previous_revision_without_services_or_routes_is_not_kept() {
    let mut world = serving();
    let canary = &mut world.observation.spec.strategy.canary;
    canary.scale_down_delay = countersign_api::Duration::minutes(30);
    change(&mut world, "v2", harmless());
    let promoted = |o: &Observation| o.status.stable.as_ref().is_some_and(|it| it.revision == 2);
    assert!(world.run(after(60), &mut steady(5_000.0, 0.0, 0.0), promoted));
    let until = world.observation.now + SignedDuration::from_mins(2);
    world.run(until, &mut steady(5_000.0, 0.0, 0.0), |_| false);
    let sets = world.observation.replica_sets.iter();
    let pods: Vec<_> = sets.map(|it| (it.revision, it.replicas)).collect();
    assert_eq!(pods, [(1, 0), (2, 20)]);
    lawful(&world);
}
