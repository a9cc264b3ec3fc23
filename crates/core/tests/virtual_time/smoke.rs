//! Smoke checks in virtual time: a Job that must succeed before a change gets its first pod.

use countersign_api::intervention::InterventionAction;
use countersign_api::sign_off::SignOffDecision;
use countersign_core::decision::JobAction;
use countersign_core::observation::workload::{Edit, Integrity, Job, JobEnd};
use countersign_core::simulation::world::Jobs;

use super::people::*;
use super::*;

fn check() -> Option<countersign_api::Smoke> {
    let template = json!({ "spec": { "containers": [{ "name": "smoke", "image": "{{image}}" }] } });
    serde_json::from_value(json!({ "timeout": "2m", "template": template })).unwrap()
}

/// A world in which a change with a smoke check is about to begin.
fn about_to_begin(jobs: Jobs) -> World {
    let mut world = serving();
    world.jobs = jobs;
    world.observation.spec.strategy.canary.smoke = check();
    change(&mut world, "v2", harmless());
    world
}

fn succeeds_after(seconds: i64) -> Jobs {
    Jobs::End(SignedDuration::from_secs(seconds), JobEnd::Succeeded)
}

fn fails_after(seconds: i64) -> Jobs {
    let end = JobEnd::Failed {
        reason: "BackoffLimitExceeded".into(),
        message: "Job has reached the specified backoff limit".into(),
    };
    Jobs::End(SignedDuration::from_secs(seconds), end)
}

/// No pod of the new revision was ever requested.
fn untouched(world: &World) {
    let images: Vec<_> = world
        .observation
        .replica_sets
        .iter()
        .map(|set| set.template.images()[0])
        .collect();
    assert_eq!(images, ["example.org/shop:v1"]);
}

#[test]
pub(super) fn a_change_waits_for_its_smoke_check_and_goes_on_once_it_has_passed() {
    let mut world = about_to_begin(succeeds_after(90));
    go_on(&mut world, 1);
    assert_eq!(waits_for(&world), Some("AwaitingSmoke"));
    assert_eq!(world.observation.status.phase, Phase::Progressing);
    untouched(&world);
    go_on(&mut world, 1);
    let line = message(&world, "SmokePassed");
    assert!(line.ends_with("-2-smoke has succeeded"), "{line}");
    assert_eq!(
        transition_reasons(&world)[..3],
        ["ChangeStarted", "SmokePassed", "StepStarted"]
    );

    // It is remembered: a Job that goes after its success is not run again.
    world.observation.jobs = None;
    go_on(&mut world, 30);
    assert_eq!(stable_image(&world), "example.org/shop:v2");
    assert_eq!(world.jobs_made, 1);
}

#[test]
pub(super) fn law_3_a_failed_smoke_check_ends_the_change_before_there_is_any_pod() {
    let mut world = about_to_begin(fails_after(5));
    go_on(&mut world, 3);
    untouched(&world);
    assert_eq!(world.outcome(), Some(Outcome::RolledBack));
    assert_eq!(world.observation.status.phase, Phase::Degraded);
    assert!(message(&world, "SmokeFailed").contains("failed: BackoffLimitExceeded"));

    // Law 8: it stays back, and a retry is another attempt with a check of its own.
    go_on(&mut world, 60);
    assert_eq!(world.jobs_made, 1);
    world.jobs = succeeds_after(5);
    command(&mut world, "bob", InterventionAction::Retry);
    go_on(&mut world, 30);
    assert_eq!(world.jobs_made, 2);
    assert_eq!(stable_image(&world), "example.org/shop:v2");
}

#[test]
pub(super) fn a_smoke_check_of_any_other_end_holds_and_rolls_back_in_bounded_time() {
    let refused = || Jobs::Refused("exceeded quota: no-jobs".into());
    // Ten minutes is the progress deadline, two the check's own.
    for (jobs, minutes, reason, words) in [
        (Jobs::Hang, 3, "SmokeFailed", "took longer than 2m"),
        (succeeds_after(600), 3, "SmokeFailed", "took longer than 2m"),
        (
            Jobs::Stick,
            13,
            "ProgressDeadlineExceeded",
            "the smoke check runs",
        ),
        (
            Jobs::Idle,
            11,
            "ProgressDeadlineExceeded",
            "no container of the smoke check's Job",
        ),
        (
            refused(),
            11,
            "ProgressDeadlineExceeded",
            "is not created yet: exceeded quota: no-jobs",
        ),
    ] {
        let mut world = about_to_begin(jobs.clone());
        go_on(&mut world, 1);
        assert_eq!(waits_for(&world), Some("AwaitingSmoke"), "{jobs:?}");
        go_on(&mut world, minutes - 1);
        assert_eq!(world.outcome(), Some(Outcome::RolledBack), "{jobs:?}");
        assert!(
            message(&world, reason).contains(words),
            "{jobs:?}: {}",
            message(&world, reason)
        );
        untouched(&world);
    }
}

#[test]
pub(super) fn law_6_a_job_that_somebody_removes_before_its_end_is_made_again() {
    let mut world = about_to_begin(succeeds_after(60));
    for made in 1..4 {
        world.run(minutes_on(&world, 5), &mut steady(5_000.0, 0.0, 0.0), |o| {
            !o.jobs().is_empty()
        });
        assert_eq!(world.jobs_made, made);
        world.observation.jobs = None;
        assert_eq!(waits_for(&world), Some("AwaitingSmoke"));
    }
    untouched(&world);
    go_on(&mut world, 2);
    assert!(transition_reasons(&world).contains(&"SmokePassed".into()));
    lawful(&world);
}

#[test]
pub(super) fn law_6_jobs_that_cannot_be_read_hold() {
    let mut world = about_to_begin(succeeds_after(10));
    world.observation.jobs = Some(Err("jobs.batch is forbidden".into()));
    go_on(&mut world, 5);
    assert_eq!(world.jobs_made, 0);
    assert!(world.observation.status.message.contains("is forbidden"));
    world.observation.jobs = None;
    go_on(&mut world, 1);
    assert!(transition_reasons(&world).contains(&"SmokePassed".into()));
}

#[test]
pub(super) fn nothing_is_begun_while_somebody_wants_to_wait_and_the_time_does_not_run() {
    let mut world = about_to_begin(Jobs::Idle);
    world.observation.spec.paused = true;
    go_on(&mut world, 5);
    assert_eq!((world.jobs_made, waits_for(&world)), (0, Some("Paused")));
    world.observation.spec.paused = false;
    go_on(&mut world, 5);
    assert_eq!(
        (world.jobs_made, waits_for(&world)),
        (1, Some("AwaitingSmoke"))
    );
    world.observation.people.freezes = vec![freeze(|_| {})];
    go_on(&mut world, 60);
    assert_eq!(waits_for(&world), Some("Frozen"));
    world.observation.people.freezes.clear();
    go_on(&mut world, 9);
    assert_eq!(waits_for(&world), Some("AwaitingSmoke"));
    go_on(&mut world, 2);
    assert_eq!(world.outcome(), Some(Outcome::RolledBack));
}

#[test]
pub(super) fn a_failure_counts_during_a_pause() {
    let mut world = about_to_begin(fails_after(120));
    go_on(&mut world, 1);
    world.observation.spec.paused = true;
    go_on(&mut world, 5);
    assert_eq!(world.outcome(), Some(Outcome::RolledBack));
    message(&world, "SmokeFailed");
}

#[test]
pub(super) fn people_see_what_came_of_the_check_before_they_are_waited_for() {
    let mut world = about_to_begin(succeeds_after(90));
    world.observation.policies = vec![requiring(&[(1, &[])], |_| {})];
    go_on(&mut world, 1);
    assert_eq!(waits_for(&world), Some("AwaitingSmoke"));
    go_on(&mut world, 1);
    assert_eq!(waits_for(&world), Some("AwaitingSignOff"));
    message(&world, "SmokePassed");
    approve(&mut world, "bob", &[]);
    go_on(&mut world, 1);
    assert_eq!(step(&world), 1);

    // Who signs earlier need not sign again.
    let mut world = about_to_begin(succeeds_after(90));
    world.observation.policies = vec![requiring(&[(1, &[])], |_| {})];
    go_on(&mut world, 1);
    approve(&mut world, "bob", &[]);
    go_on(&mut world, 1);
    assert_eq!(step(&world), 1);
}

#[test]
pub(super) fn broken_glass_does_not_skip_the_check() {
    let mut world = about_to_begin(fails_after(90));
    world.observation.people.freezes = vec![freeze(|_| {})];
    world.observation.policies = vec![requiring(&[(1, &[])], |_| {})];
    go_on(&mut world, 1);
    assert_eq!((world.jobs_made, waits_for(&world)), (0, Some("Frozen")));
    sign(&mut world, person("bob", &[]), |spec| {
        spec.decision = SignOffDecision::BreakGlass;
    });
    go_on(&mut world, 1);
    assert_eq!(waits_for(&world), Some("AwaitingSmoke"));
    go_on(&mut world, 2);
    message(&world, "SmokeFailed");
    untouched(&world);
}

#[test]
pub(super) fn a_job_that_nobody_waits_for_any_more_is_stopped() {
    let mut world = about_to_begin(Jobs::Stick);
    go_on(&mut world, 1);
    command(&mut world, "bob", InterventionAction::Abort);
    go_on(&mut world, 1);
    message(&world, "Aborted");
    assert_eq!(world.observation.jobs(), []);

    // A newer change has a Job of its own.
    let mut world = about_to_begin(Jobs::Stick);
    go_on(&mut world, 1);
    let first = world.observation.jobs()[0].name.clone();
    world.jobs = succeeds_after(5);
    change(&mut world, "v3", harmless());
    go_on(&mut world, 30);
    let jobs: Vec<_> = world
        .observation
        .jobs()
        .iter()
        .map(|job| &job.name)
        .collect();
    assert_eq!((jobs.len(), jobs.contains(&&first)), (1, false));
    assert_eq!(stable_image(&world), "example.org/shop:v3");
}

#[test]
pub(super) fn a_check_that_is_taken_out_of_the_spec_once_it_was_begun_is_waited_for_all_the_same() {
    let mut world = about_to_begin(succeeds_after(90));
    go_on(&mut world, 1);
    world.observation.spec.strategy.canary.smoke = None;
    world.observation.jobs = None;
    go_on(&mut world, 5);
    assert_eq!(waits_for(&world), Some("AwaitingSmoke"));
    world.observation.spec.strategy.canary.smoke = check();
    go_on(&mut world, 2);
    assert!(transition_reasons(&world).contains(&"SmokePassed".into()));
}

#[test]
pub(super) fn a_first_revision_has_no_check() {
    let mut first = observation("v1");
    first.spec.strategy.canary.smoke = check();
    let mut world = begin(first);
    assert!(world.run(after(10), &mut steady(1_000.0, 0.0, 0.0), World::at_rest));
    assert_eq!(world.jobs_made, 0);
    lawful(&world);
}

/// What a hostile world does to a smoke check.
#[derive(Clone, Debug)]
enum Twist {
    Jobs(Jobs),
    Vanish,
    Unreadable(bool),
    Pause(bool),
    Freeze(bool),
    Require(bool),
    Change(u8),
    Command(InterventionAction),
    Crash(usize),
}

fn twist() -> impl Strategy<Value = Twist> {
    let jobs = prop_oneof![
        4 => (0..200_i64).prop_map(succeeds_after),
        2 => (0..200_i64).prop_map(fails_after),
        1 => Just(Jobs::Hang),
        1 => Just(Jobs::Stick),
        1 => Just(Jobs::Idle),
        1 => Just(Jobs::Refused("quota".into())),
    ];
    let action = prop_oneof![
        Just(InterventionAction::Abort),
        Just(InterventionAction::Retry),
        Just(InterventionAction::Pause),
        Just(InterventionAction::Resume),
    ];
    prop_oneof![
        4 => jobs.prop_map(Twist::Jobs),
        2 => Just(Twist::Vanish),
        1 => any::<bool>().prop_map(Twist::Unreadable),
        1 => any::<bool>().prop_map(Twist::Pause),
        1 => any::<bool>().prop_map(Twist::Freeze),
        1 => any::<bool>().prop_map(Twist::Require),
        3 => (1..4_u8).prop_map(Twist::Change),
        2 => action.prop_map(Twist::Command),
        2 => (0..3_usize).prop_map(Twist::Crash),
    ]
}

type Listed = Option<Result<Vec<Job>, String>>;

/// The Jobs cannot be read, or can be again: what was hidden meanwhile is there again.
fn hide(world: &mut World, hidden: Option<Listed>, hides: bool) -> Option<Listed> {
    let jobs = &mut world.observation.jobs;
    match hidden {
        Some(listed) if !hides => {
            *jobs = listed;
            None
        }
        None if hides => Some(jobs.replace(Err("slow".into()))),
        hidden => hidden,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Laws 1, 3, 6, 8 and 9 whatever becomes of the Jobs, and afterwards every rollout comes to an end.
    #[test]
    fn the_laws_hold_whatever_becomes_of_smoke_checks(
        twists in prop::collection::vec((twist(), 0..300_i64), 1..25),
    ) {
        let mut world = about_to_begin(succeeds_after(30));
        let mut hidden = None;
        for (twist, seconds) in twists {
            match &twist {
                Twist::Jobs(jobs) => world.jobs = jobs.clone(),
                Twist::Vanish => world.observation.jobs = None,
                Twist::Unreadable(it) => hidden = hide(&mut world, hidden, *it),
                Twist::Pause(paused) => world.observation.spec.paused = *paused,
                Twist::Freeze(frozen) => world.observation.people.freezes = frozen.then(|| freeze(|_| {})).into_iter().collect(),
                Twist::Require(required) => world.observation.spec.strategy.canary.smoke = check().filter(|_| *required),
                Twist::Change(version) => change(&mut world, &format!("v{version}"), harmless()),
                Twist::Command(action) if world.observation.status.change.is_some() => command(&mut world, "bob", *action),
                Twist::Command(_) => {}
                Twist::Crash(actions) => {
                    let decision = world.reconcile(&mut steady(5_000.0, 0.001, 0.001));
                    world.carry_out(&decision, *actions);
                }
            }
            let until = world.observation.now.saturating_add(SignedDuration::from_secs(seconds)).unwrap();
            world.run(until, &mut steady(5_000.0, 0.001, 0.001), |_| false);
            prop_assert!(world.broken.is_empty(), "after {twist:?}: {:?}", world.broken);
        }
        world.jobs = succeeds_after(30);
        hide(&mut world, hidden, false);
        world.observation.spec.paused = false;
        world.observation.people.freezes.clear();
        world.observation.spec.strategy.canary.smoke = check();
        if world.observation.status.change.is_some() {
            command(&mut world, "bob", InterventionAction::Resume);
        }
        let until = minutes_on(&world, 600);
        let ended = world.run(until, &mut steady(5_000.0, 0.001, 0.001), World::at_rest);
        prop_assert!(ended, "it never came to an end: {:?}", world.observation.status);
        prop_assert!(world.broken.is_empty(), "{:?}", world.broken);
    }
}

#[test]
fn law_11_a_job_that_the_controller_did_not_make_passes_no_smoke_check_and_is_made_again() {
    let mut world = about_to_begin(Jobs::Stick);
    go_on(&mut world, 1);
    let jobs = world.observation.jobs.as_mut().unwrap().as_mut().unwrap();
    let planted = &mut jobs[0];
    planted.end = Some(JobEnd::Succeeded);
    planted.integrity = Integrity::Edited(Edit {
        what: "template (command)".into(),
        writer: Some("mallory".into()),
        at: None,
    });
    let uid = planted.uid.clone();
    world.jobs = succeeds_after(5);
    let decision = world.reconcile(&mut steady(1_000.0, 0.0, 0.0));
    let mut notices = decision.notices.iter();
    let named = notices.find(|it| it.reason == "Tampered").unwrap();
    for word in ["mallory", "template (command)", "-2-smoke"] {
        assert!(named.message.contains(word), "{named:?}");
    }
    let mut actions = decision.actions.iter();
    let deletes = actions.any(
        |it| matches!(it, Action::Job(JobAction::DeleteJob { uid: deleted, .. }) if *deleted == uid),
    );
    assert!(deletes, "{:?}", decision.actions);
    world.carry_out(&decision, usize::MAX);
    untouched(&world);
    assert_eq!(waits_for(&world), Some("AwaitingSmoke"));
    go_on(&mut world, 30);
    assert_eq!(world.jobs_made, 2);
    assert_eq!(stable_image(&world), "example.org/shop:v2");
}

/// A world whose smoke check has ended, with a Job that cannot be verified.
fn unverified(end: JobEnd) -> World {
    let mut world = about_to_begin(Jobs::Stick);
    go_on(&mut world, 1);
    let jobs = world.observation.jobs.as_mut().unwrap().as_mut().unwrap();
    jobs[0].end = Some(end);
    jobs[0].integrity = Integrity::Unverified {
        message: "a dry run failed".into(),
    };
    world
}

#[test]
fn law_6_a_job_that_cannot_be_verified_passes_no_smoke_check() {
    let mut world = unverified(JobEnd::Succeeded);
    go_on(&mut world, 3);
    assert_eq!(waits_for(&world), Some("AwaitingSmoke"));
    let status = &world.observation.status;
    assert!(status.message.contains("a dry run failed"));
    untouched(&world);
}

#[test]
fn a_job_that_cannot_be_verified_fails_a_smoke_check() {
    let mut world = unverified(JobEnd::Failed {
        reason: "BackoffLimitExceeded".into(),
        message: String::new(),
    });
    go_on(&mut world, 3);
    assert!(message(&world, "SmokeFailed").contains("failed: BackoffLimitExceeded"));
    untouched(&world);
}

#[test]
fn a_job_that_is_edited_each_time_is_replaced_three_times_and_then_waits_for_people() {
    let mut world = about_to_begin(Jobs::Stick);
    for _ in 0..40 {
        for job in world.observation.jobs.iter_mut().flatten().flatten() {
            job.integrity = Integrity::Edited(Edit {
                what: "template (command)".into(),
                writer: Some("mallory".into()),
                at: None,
            });
        }
        let decision = world.reconcile(&mut steady(1_000.0, 0.0, 0.0));
        world.carry_out(&decision, usize::MAX);
        world.observation.now += SignedDuration::from_secs(1);
    }
    assert_eq!(world.jobs_made, 4);
    assert_eq!(waits_for(&world), Some("AwaitingSmoke"));
    let message = &world.observation.status.message;
    for words in ["as mallory wrote", "3 before it", "exempt Jobs"] {
        assert!(message.contains(words), "{message}");
    }
    untouched(&world);

    // The user who has exempted them deletes the last one.
    world.observation.jobs = None;
    world.jobs = succeeds_after(5);
    go_on(&mut world, 30);
    assert_eq!(world.jobs_made, 5);
    assert_eq!(stable_image(&world), "example.org/shop:v2");
    lawful(&world);
}
