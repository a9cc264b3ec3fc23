//! Interventions: abort, retry, promote, pause, broken glass, and who may do what.

use super::*;

#[test]
pub(crate) fn break_glass_skips_waiting_and_sign_off_but_not_analysis() {
    let break_glass = |world: &mut World| {
        world.observation.people.freezes = vec![freeze(|_| {})];
        sign(world, person("dave", &[]), |spec| {
            spec.decision = SignOffDecision::BreakGlass;
        });
    };
    let mut world = waiting(requiring(&[(2, &[])], |_| {}));
    break_glass(&mut world);
    let began = world.observation.now;
    let until = minutes_on(&world, 30);
    let promoted = |o: &Observation| o.status.stable.as_ref().is_some_and(|it| it.revision == 2);
    assert!(world.run(until, &mut steady(50_000.0, 0.0, 0.0), promoted));
    lawful(&world);
    let took = world.observation.now.duration_since(began);
    assert!(
        took < SignedDuration::from_mins(5),
        "three bakes of 5 minutes were skipped: {took:#}"
    );
    assert!(transition_reasons(&world).contains(&"BreakGlass".to_owned()));

    let mut world = waiting(requiring(&[(2, &[])], |_| {}));
    break_glass(&mut world);
    let until = minutes_on(&world, 30);
    assert!(
        world.run(until, &mut steady(5_000.0, 0.3, 0.0), |o| o.status.phase
            == Phase::Degraded)
    );
    lawful(&world);
    message(&world, "AnalysisFailed");
}

#[test]
pub(crate) fn a_person_may_accept_scarce_evidence_of_one_step_and_of_that_step_only() {
    let mut policy = unattended();
    policy.spec.tiers.low.on_scarce_evidence =
        Some(countersign_api::policy::OnScarceEvidence::Hold);
    let mut world = serving();
    world.observation.policies = vec![policy];
    change(&mut world, "v2", harmless());
    let scarce = |world: &mut World, minutes| {
        let until = minutes_on(world, minutes);
        world.run(until, &mut steady(1.0, 0.0, 0.0), |_| false);
        lawful(world);
    };
    scarce(&mut world, 30);
    assert_eq!(
        (step(&world), waits_for(&world)),
        (1, Some("AwaitingPerson"))
    );
    approve(&mut world, "bob", &[]);
    sign(&mut world, person("carol", &[]), |spec| {
        spec.gate = Some("evidence-2".into());
    });
    scarce(&mut world, 5);
    assert_eq!(step(&world), 1, "neither is for the evidence of step 1");
    sign(&mut world, person("bob", &[]), |spec| {
        spec.gate = Some("evidence-1".into());
    });
    scarce(&mut world, 2);
    assert_eq!(step(&world), 2);
}

#[test]
pub(crate) fn abort_wins_at_every_moment_and_over_every_other_command() {
    for minutes in [0, 1, 4, 6, 11, 14, 16] {
        let mut world = serving();
        change(&mut world, "v2", harmless());
        go_on(&mut world, minutes.max(1));
        if world
            .observation
            .status
            .change
            .as_ref()
            .is_none_or(|it| it.outcome.is_some())
        {
            continue;
        }
        for action in [
            InterventionAction::Pause,
            InterventionAction::Promote,
            InterventionAction::Abort,
            InterventionAction::Resume,
        ] {
            command(&mut world, "alice", action);
        }
        let decision = world.reconcile(&mut steady(5_000.0, 0.0, 0.0));
        let change = decision.status.change.clone().unwrap();
        assert_eq!(
            (change.weight, change.outcome),
            (0, Some(Outcome::RolledBack)),
            "minute {minutes}"
        );
        world.carry_out(&decision, usize::MAX);
        go_on(&mut world, 600);
        assert_eq!(world.observation.status.phase, Phase::Degraded);
        assert_eq!(stable_image(&world), "example.org/shop:v1");
        assert!(
            world
                .observation
                .people
                .interventions
                .iter()
                .all(|it| it.answered)
        );
    }
}

#[test]
pub(crate) fn abort_with_nothing_under_way_does_nothing() {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    go_on(&mut world, 1);
    let stale = world.observation.status.change.clone().unwrap();
    go_on(&mut world, 60);
    assert_eq!(world.observation.status.phase, Phase::Stable);
    change(&mut world, "v3", harmless());
    go_on(&mut world, 1);
    command(&mut world, "alice", InterventionAction::Abort);
    let last = world.observation.people.interventions.last_mut().unwrap();
    (last.spec.run, last.spec.digest) = (stale.run, stale.digest);
    go_on(&mut world, 60);
    assert_eq!(
        stable_image(&world),
        "example.org/shop:v3",
        "an abort of v2 is none of v3"
    );
}

#[test]
pub(crate) fn another_change_in_the_midst_of_an_abort_is_staged_after_it() {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    go_on(&mut world, 1);
    command(&mut world, "alice", InterventionAction::Abort);
    let decision = world.reconcile(&mut steady(5_000.0, 0.0, 0.0));
    world.carry_out(&decision, usize::MAX);
    let aborted = world.observation.status.change.clone().unwrap();
    assert!(aborted.outcome.is_some(), "{aborted:?}");
    change(&mut world, "v3", harmless());
    go_on(&mut world, 2);
    let next = world.observation.status.change.clone().unwrap();
    assert_eq!((next.revision, next.step), (3, 1));
    assert_ne!(next.run, aborted.run);
    assert_eq!(stable_image(&world), "example.org/shop:v1");
    go_on(&mut world, 60);
    assert_eq!(stable_image(&world), "example.org/shop:v3");
}

#[test]
pub(crate) fn law_8_a_rolled_back_change_is_tried_again_only_if_a_person_retries_it() {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    let until = minutes_on(&world, 60);
    assert!(
        world.run(until, &mut steady(5_000.0, 0.3, 0.0), |o| o.status.phase
            == Phase::Degraded)
    );
    let first = world.observation.status.change.clone().unwrap();
    command(&mut world, "alice", InterventionAction::Resume);
    go_on(&mut world, 60);
    assert_eq!(
        world.observation.status.change.as_ref().unwrap().run,
        first.run
    );
    command(&mut world, "alice", InterventionAction::Retry);
    let decision = world.reconcile(&mut steady(5_000.0, 0.0, 0.0));
    assert!(
        decision.requeue_at.is_some(),
        "nothing else would begin the new attempt"
    );
    world.carry_out(&decision, usize::MAX);
    go_on(&mut world, 2);
    let second = world.observation.status.change.clone().unwrap();
    assert_ne!(second.run, first.run, "every attempt has its own identity");
    assert_eq!(second.digest, first.digest);
    go_on(&mut world, 200);
    assert_eq!(stable_image(&world), "example.org/shop:v2");
    assert!(
        world
            .observation
            .people
            .interventions
            .iter()
            .all(|it| it.answered)
    );
}

#[test]
pub(crate) fn promote_skips_the_rest_of_one_bake_and_nothing_else() {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    go_on(&mut world, 1);
    assert_eq!((step(&world), waits_for(&world)), (1, Some("Baking")));
    command(&mut world, "dave", InterventionAction::Promote);
    go_on(&mut world, 1);
    assert_eq!(
        (step(&world), waits_for(&world)),
        (2, Some("Baking")),
        "the next step bakes"
    );
    message(&world, "BakeSkipped");
    // One for a step that is over is in vain.
    command(&mut world, "dave", InterventionAction::Promote);
    world
        .observation
        .people
        .interventions
        .last_mut()
        .unwrap()
        .spec
        .step = Some(1);
    go_on(&mut world, 1);
    assert_eq!(step(&world), 2);

    // Missing evidence is not skipped.
    let mut world = serving();
    change(&mut world, "v2", harmless());
    go_on(&mut world, 1);
    command(&mut world, "dave", InterventionAction::Promote);
    let until = minutes_on(&world, 3);
    world.run(until, &mut *uncounted(Uncounted::NoSeries), |_| false);
    lawful(&world);
    assert_eq!(step(&world), 1);
}

#[test]
pub(crate) fn a_pause_holds_until_it_is_resumed_and_never_keeps_a_bad_canary() {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    go_on(&mut world, 1);
    command(&mut world, "alice", InterventionAction::Pause);
    go_on(&mut world, 120);
    assert_eq!((step(&world), waits_for(&world)), (1, Some("Paused")));
    let mut bad = world.clone();
    command(&mut world, "alice", InterventionAction::Resume);
    go_on(&mut world, 60);
    assert_eq!(stable_image(&world), "example.org/shop:v2");

    let until = minutes_on(&bad, 10);
    assert!(
        bad.run(until, &mut steady(5_000.0, 0.3, 0.0), |o| o.status.phase
            == Phase::Degraded)
    );
    lawful(&bad);
}

#[test]
pub(crate) fn machines_may_stop_but_not_promote_resume_or_retry() {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    go_on(&mut world, 1);
    let robot = "system:serviceaccount:ci:deployer";
    command(&mut world, robot, InterventionAction::Pause);
    command(&mut world, robot, InterventionAction::Resume);
    command(&mut world, robot, InterventionAction::Promote);
    go_on(&mut world, 60);
    assert_eq!((step(&world), waits_for(&world)), (1, Some("Paused")));
    command(&mut world, robot, InterventionAction::Abort);
    go_on(&mut world, 5);
    assert_eq!(world.observation.status.phase, Phase::Degraded);
}

#[test]
pub(crate) fn many_pauses_neither_outgrow_the_status_nor_silence_broken_glass() {
    let mut world = waiting(requiring(&[(1, &[])], |_| {}));
    for _ in 0..150 {
        for action in [InterventionAction::Pause, InterventionAction::Resume] {
            command(&mut world, "alice", action);
            let decision = world.reconcile(&mut steady(5_000.0, 0.0, 0.0));
            world.carry_out(&decision, usize::MAX);
        }
    }
    sign(&mut world, person("dave", &[]), |spec| {
        spec.decision = SignOffDecision::BreakGlass;
    });
    go_on(&mut world, 1);
    message(&world, "BreakGlass");
    let change = world.observation.status.change.clone().unwrap();
    assert!(change.transitions.len() <= 200 && change.handled_requests.len() <= 256);
    assert!(change.ignored_requests.len() <= 256);
    command(&mut world, "alice", InterventionAction::Abort);
    go_on(&mut world, 1);
    assert_eq!(world.observation.status.phase, Phase::Degraded);
}

/// Finding F14: a flood of one person leaves out no line about another.
#[test]
pub(crate) fn a_flood_of_pauses_by_one_person_silences_nobody_else() {
    let mut world = waiting(requiring(&[(1, &[])], |_| {}));
    for _ in 0..100 {
        for action in [InterventionAction::Pause, InterventionAction::Resume] {
            command(&mut world, "mallory", action);
            let decision = world.reconcile(&mut steady(5_000.0, 0.0, 0.0));
            world.carry_out(&decision, usize::MAX);
        }
    }
    let lines = |world: &World, by: &str| {
        let change = world.observation.status.change.as_ref().unwrap();
        let lines = change.transitions.iter();
        lines.filter(|line| line.message.contains(by)).count()
    };
    assert_eq!(lines(&world, "by mallory"), 10);
    command(&mut world, "dave", InterventionAction::Pause);
    approve(&mut world, "bob", &[]);
    go_on(&mut world, 1);
    assert_eq!(lines(&world, "paused by dave"), 1);
    assert_eq!(lines(&world, "signed off by bob"), 1);
    assert_eq!((step(&world), waits_for(&world)), (0, Some("Paused")));
    let status = &world.observation.status;
    assert!(
        status.message.contains("paused by dave"),
        "{}",
        status.message
    );
}
