//! Freezes: what they hold, what they let through, and when they end.

use super::*;

#[test]
pub(crate) fn a_freeze_holds_promotions_and_its_end_resumes_where_it_stopped() {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    go_on(&mut world, 6);
    assert_eq!(step(&world), 2);
    world.observation.people.freezes = vec![freeze(|_| {})];
    go_on(&mut world, 600);
    assert_eq!((step(&world), waits_for(&world)), (2, Some("Frozen")));
    let message = world.observation.status.message.clone();
    assert_eq!(message, "Freeze incident by dave: checkout is down");
    world.observation.people.freezes.clear();
    go_on(&mut world, 60);
    assert_eq!(stable_image(&world), "example.org/shop:v2");
}

#[test]
pub(crate) fn a_freeze_ends_at_its_time_and_concerns_its_tiers_alone() {
    let mut world = serving();
    let end = minutes_on(&world, 300);
    world.observation.people.freezes = vec![
        freeze(|spec| spec.until = Some(Time(end))),
        freeze(|spec| spec.tiers = vec![Tier::High, Tier::Critical]),
    ];
    change(&mut world, "v2", harmless());
    go_on(&mut world, 299);
    assert_eq!((step(&world), waits_for(&world)), (0, Some("Frozen")));
    go_on(&mut world, 60);
    assert_eq!(stable_image(&world), "example.org/shop:v2");
}

#[test]
pub(crate) fn law_3_a_bad_canary_is_rolled_back_during_a_freeze() {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    go_on(&mut world, 1);
    world.observation.people.freezes = vec![freeze(|_| {})];
    go_on(&mut world, 30);
    let until = minutes_on(&world, 5);
    assert!(
        world.run(until, &mut steady(5_000.0, 0.3, 0.0), |o| o.status.phase
            == Phase::Degraded)
    );
    lawful(&world);
    message(&world, "AnalysisFailed");
}

#[test]
pub(crate) fn a_freeze_can_roll_back_what_is_under_way_and_only_holds_what_has_not_begun() {
    let rolls_back = || vec![freeze(|spec| spec.action = FreezeAction::RollBack)];
    let mut world = serving();
    change(&mut world, "v2", harmless());
    go_on(&mut world, 6);
    world.observation.people.freezes = rolls_back();
    go_on(&mut world, 5);
    assert_eq!(world.observation.status.phase, Phase::Degraded);
    message(&world, "RolledBackByFreeze");

    change(&mut world, "v3", harmless());
    go_on(&mut world, 60);
    assert_eq!((step(&world), waits_for(&world)), (0, Some("Frozen")));
}

#[test]
pub(crate) fn a_window_of_a_policy_freezes_at_its_times() {
    let mut world = serving();
    // Virtual time begins at midnight UTC, and the first revision serves soon after.
    let window = FreezeWindow {
        name: "night".into(),
        schedule: "0 0 * * *".into(),
        time_zone: "UTC".into(),
        duration: Duration::minutes(60),
        reason: Some("nobody is up".into()),
        ..FreezeWindow::default()
    };
    world.observation.policies[0].spec.freeze.windows = vec![window];
    change(&mut world, "v2", harmless());
    world.run(after(59), &mut steady(5_000.0, 0.001, 0.001), |_| false);
    assert_eq!((step(&world), waits_for(&world)), (0, Some("Frozen")));
    assert!(
        world
            .observation
            .status
            .message
            .contains("window unattended/night: nobody is up, until 1970-01-01T01:00:00Z")
    );
    world.run(after(120), &mut steady(5_000.0, 0.001, 0.001), |_| false);
    assert_eq!(stable_image(&world), "example.org/shop:v2");
    lawful(&world);
}

#[test]
pub(crate) fn law_6_a_window_or_an_incident_query_that_cannot_be_read_holds() {
    let mut world = serving();
    let policy = &mut world.observation.policies[0];
    policy.spec.freeze.windows = vec![FreezeWindow {
        name: "w".into(),
        schedule: "0 25 * * *".into(),
        ..FreezeWindow::default()
    }];
    change(&mut world, "v2", harmless());
    go_on(&mut world, 5);
    assert_eq!(
        (step(&world), waits_for(&world)),
        (0, Some("FreezeUnknown"))
    );

    let policy = &mut world.observation.policies[0];
    policy.spec.freeze.windows.clear();
    policy.spec.freeze.incident = Some(IncidentQuery {
        query: "x".into(),
        ..IncidentQuery::default()
    });
    let answer = |world: &mut World, answer| {
        world.observation.people.incidents = [("unattended".to_owned(), answer)].into();
    };
    answer(
        &mut world,
        IncidentAnswer::Unknown {
            message: "it gave no number".into(),
        },
    );
    go_on(&mut world, 5);
    assert_eq!(
        (step(&world), waits_for(&world)),
        (0, Some("FreezeUnknown"))
    );
    answer(&mut world, IncidentAnswer::Incident { value: 2.0 });
    go_on(&mut world, 5);
    assert_eq!((step(&world), waits_for(&world)), (0, Some("Frozen")));
    answer(&mut world, IncidentAnswer::None);
    go_on(&mut world, 60);
    assert_eq!(stable_image(&world), "example.org/shop:v2");
}

#[test]
pub(crate) fn a_freeze_does_not_use_up_the_time_that_people_have() {
    let mut world = waiting(requiring(&[(1, &[])], |_| {}));
    world.observation.people.freezes = vec![freeze(|_| {})];
    go_on(&mut world, 60 * 48);
    world.observation.people.freezes.clear();
    go_on(&mut world, 5);
    assert_eq!(waits_for(&world), Some("AwaitingSignOff"));
    approve(&mut world, "bob", &[]);
    go_on(&mut world, 1);
    assert_eq!(step(&world), 1);
}

#[test]
pub(crate) fn law_6_requests_that_cannot_be_read_hold_and_never_keep_a_bad_canary() {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    go_on(&mut world, 1);
    world.observation.people.unreadable_requests = vec!["interventions cannot be read".into()];
    go_on(&mut world, 8);
    assert_eq!(
        (step(&world), waits_for(&world)),
        (1, Some("RequestsUnreadable"))
    );
    let until = minutes_on(&world, 2);
    assert!(
        world.run(until, &mut steady(5_000.0, 0.3, 0.0), |o| o.status.phase
            == Phase::Degraded)
    );
    message(&world, "AnalysisFailed");
    lawful(&world);
}

#[test]
pub(crate) fn a_fix_behind_broken_glass_is_not_rolled_back_by_a_freeze_while_nothing_is_proven() {
    let mut world = waiting(requiring(&[(1, &[])], |_| {}));
    sign(&mut world, person("dave", &[]), |spec| {
        spec.decision = SignOffDecision::BreakGlass;
    });
    go_on(&mut world, 1);
    assert!(step(&world) > 0);
    world.observation.people.freezes = vec![freeze(|spec| spec.action = FreezeAction::RollBack)];
    world.observation.people.admission.problems = vec!["the API server is slow".into()];
    go_on(&mut world, 3);
    assert_eq!(
        waits_for(&world),
        Some("Frozen"),
        "{}",
        world.observation.status.message
    );
    world.observation.people.admission.problems.clear();
    go_on(&mut world, 20);
    assert_eq!(stable_image(&world), "example.org/shop:v2");
}

#[test]
pub(crate) fn a_pause_and_a_freeze_hold_the_pods_of_a_full_promotion() {
    for by_freeze in [false, true] {
        let mut world = serving();
        world.pods_ready_after = Some(SignedDuration::from_mins(2));
        change(&mut world, "v2", harmless());
        let until = minutes_on(&world, 60);
        let promoting = |o: &Observation| {
            let change = o.status.change.as_ref();
            change.is_some_and(|it| it.stage == countersign_api::rollout::Stage::Promoting)
        };
        assert!(world.run(until, &mut steady(5_000.0, 0.001, 0.001), promoting));
        if by_freeze {
            world.observation.people.freezes = vec![freeze(|_| {})];
        } else {
            command(&mut world, "alice", InterventionAction::Pause);
        }
        let pods = |world: &World| -> Vec<i32> {
            world
                .observation
                .replica_sets
                .iter()
                .map(|set| set.replicas)
                .collect()
        };
        let decision = world.reconcile(&mut steady(5_000.0, 0.001, 0.001));
        world.carry_out(&decision, usize::MAX);
        let before = pods(&world);
        go_on(&mut world, 20);
        assert_eq!(pods(&world), before);
    }
}
