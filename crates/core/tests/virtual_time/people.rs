//! People: sign-offs, interventions, freezes, in virtual time.

use countersign_api::freeze::{FreezeAction, FreezeSpec, FreezeWindow, IncidentQuery};
use countersign_api::intervention::{InterventionAction, InterventionSpec};
use countersign_api::policy::{Alias, People};
use countersign_api::sign_off::{SignOffDecision, SignOffSpec};
use countersign_api::{CHANGED_BY_ANNOTATION, Person, SignOffDemand};
use countersign_core::decide;
use countersign_core::decision::Decision;
use countersign_core::observation::people::{
    IncidentAnswer, NamedFreeze, SeenIntervention, SeenSignOff,
};
use countersign_core::text::is_invisible;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

pub(crate) fn person(user: &str, groups: &[&str]) -> Person {
    Person {
        username: user.into(),
        groups: groups.iter().map(|it| (*it).to_owned()).collect(),
    }
}

/// A sign-off of the change that is under way, by this person, as if made now.
pub(crate) fn sign(world: &mut World, by: Person, edit: impl FnOnce(&mut SignOffSpec)) {
    let change = world
        .observation
        .status
        .change
        .clone()
        .expect("a change is under way");
    let mut spec = SignOffSpec {
        rollout: "shop".into(),
        rollout_uid: "uid".into(),
        run: change.run,
        digest: change.digest,
        decision: SignOffDecision::Approve,
        gate: None,
        reason: Some("looks good".into()),
        approver: by,
        expires_at: None,
    };
    edit(&mut spec);
    let number = world.observation.people.sign_offs.len();
    world.observation.people.sign_offs.push(SeenSignOff {
        name: format!("shop-{number}"),
        uid: format!("sign-off-{number}"),
        created_at: world.observation.now,
        spec,
        answer: None,
    });
}

pub(crate) fn approve(world: &mut World, user: &str, groups: &[&str]) {
    sign(world, person(user, groups), |_| {});
}

pub(crate) fn command(world: &mut World, user: &str, action: InterventionAction) {
    let change = world
        .observation
        .status
        .change
        .clone()
        .expect("a change is in the status");
    let number = world.observation.people.interventions.len();
    world
        .observation
        .people
        .interventions
        .push(SeenIntervention {
            name: format!("shop-{number}"),
            uid: format!("intervention-{number}"),
            created_at: world.observation.now,
            version: u64::try_from(number).unwrap(),
            spec: InterventionSpec {
                rollout: "shop".into(),
                rollout_uid: "uid".into(),
                run: change.run,
                digest: change.digest,
                action,
                step: (action == InterventionAction::Promote).then_some(change.step),
                reason: None,
                person: person(user, &[]),
            },
            answered: false,
        });
}

pub(crate) fn freeze(edit: impl FnOnce(&mut FreezeSpec)) -> NamedFreeze {
    let mut spec = FreezeSpec {
        reason: "checkout is down".into(),
        namespace_selector: None,
        rollout_selector: None,
        tiers: vec![],
        until: None,
        action: FreezeAction::Hold,
        person: person("dave", &[]),
    };
    edit(&mut spec);
    NamedFreeze {
        name: "incident".into(),
        spec,
    }
}

/// A policy whose harmless tier asks for these sign-offs before its first step.
pub(crate) fn asking(
    demands: &[(i32, &[&str])],
    edit: impl FnOnce(&mut RolloutPolicySpec),
) -> NamedPolicy {
    let mut policy = unattended();
    let demands = demands.iter().map(|(count, groups)| SignOffDemand {
        count: *count,
        groups: groups.iter().map(|it| (*it).to_owned()).collect(),
    });
    policy.spec.tiers.low.sign_off = Some(demands.collect());
    edit(&mut policy.spec);
    policy
}

/// A change that waits before its first step for what a policy asks for.
fn waiting(policy: NamedPolicy) -> World {
    let mut world = serving();
    world.observation.policies = vec![policy];
    change(&mut world, "v2", harmless());
    go_on(&mut world, 2);
    assert_eq!(
        waits_for(&world),
        Some("AwaitingSignOff"),
        "{}",
        world.observation.status.message
    );
    world
}

pub(crate) fn waits_for(world: &World) -> Option<&str> {
    world.observation.status.waiting_for.as_deref()
}

pub(crate) fn minutes_on(world: &World, minutes: i64) -> Timestamp {
    world
        .observation
        .now
        .saturating_add(SignedDuration::from_mins(minutes))
        .unwrap()
}

pub(crate) fn go_on(world: &mut World, minutes: i64) {
    let until = minutes_on(world, minutes);
    world.run(until, &mut steady(5_000.0, 0.001, 0.001), |_| false);
    lawful(world);
}

pub(crate) fn step(world: &World) -> i32 {
    world
        .observation
        .status
        .change
        .as_ref()
        .map_or(0, |change| change.step)
}

fn said(world: &World, number: usize) -> (bool, String) {
    world.observation.people.sign_offs[number]
        .answer
        .clone()
        .expect("the sign-off was answered")
}

pub(crate) fn told(world: &World) -> Vec<String> {
    let change = world.observation.status.change.as_ref().unwrap();
    change
        .transitions
        .iter()
        .map(|line| line.reason.clone())
        .collect()
}

pub(crate) fn message(world: &World, reason: &str) -> String {
    let change = world.observation.status.change.as_ref().unwrap();
    let line = change.transitions.iter().find(|line| line.reason == reason);
    line.unwrap_or_else(|| panic!("{reason} in {:?}", told(world)))
        .message
        .clone()
}

#[test]
pub(super) fn a_sign_off_opens_its_gate_and_the_record_holds_what_the_approver_saw() {
    let mut world = waiting(asking(&[(1, &[])], |_| {}));
    approve(&mut world, "bob", &[]);
    go_on(&mut world, 1);
    assert_eq!(step(&world), 1);
    assert_eq!(said(&world, 0), (true, "Counts".into()));
    assert_eq!(
        message(&world, "SignedOff"),
        "all gates signed off by bob: looks good"
    );
}

#[test]
pub(super) fn an_approver_in_mid_rollout_is_recorded_with_the_evidence_so_far() {
    let mut policy = unattended();
    policy.spec.tiers.low.promotion_sign_off = Some(vec![SignOffDemand {
        count: 1,
        groups: vec![],
    }]);
    let mut world = serving();
    world.observation.policies = vec![policy];
    change(&mut world, "v2", harmless());
    go_on(&mut world, 30);
    assert_eq!(waits_for(&world), Some("AwaitingSignOff"));
    sign(&mut world, person("bob", &[]), |spec| {
        spec.gate = Some("promotion".into());
    });
    let decision = world.look(&mut steady(5_000.0, 0.001, 0.001));
    world.carry_out(&decision, usize::MAX);
    lawful(&world);
    let change = world.observation.status.change.clone().unwrap();
    let line = change
        .transitions
        .iter()
        .find(|line| line.reason == "SignedOff")
        .unwrap();
    assert!(
        line.evidence[0].canary.requests > 1_000.0,
        "{:?}",
        line.evidence
    );
}

#[test]
pub(super) fn law_2_only_the_right_people_count_and_everybody_is_told_why_not() {
    let policy = asking(&[(1, &["approvers"])], |spec| {
        spec.people = People {
            aliases: vec![Alias {
                user: "al".into(),
                identities: vec!["Alice".into()],
            }],
            agent_groups: vec!["agents".into()],
        };
    });
    let mut world = waiting(policy);
    let now = world.observation.now;
    world
        .observation
        .annotations
        .insert(CHANGED_BY_ANNOTATION.into(), "Erin".into());
    let group = &["approvers"][..];
    approve(&mut world, "ALICE", group);
    approve(&mut world, "al", group);
    approve(&mut world, "erin", group);
    approve(&mut world, "robot", &["approvers", "agents"]);
    approve(&mut world, "system:serviceaccount:ci:deployer", group);
    sign(&mut world, person("bob", group), |spec| {
        spec.digest = "0".repeat(64);
    });
    sign(&mut world, person("bob", group), |spec| {
        spec.run = "shop-other-1".into();
    });
    sign(&mut world, person("bob", group), |spec| {
        spec.rollout_uid = "another".into();
    });
    sign(&mut world, person("bob", group), |spec| {
        spec.expires_at = Some(Time(now));
    });
    sign(&mut world, person("bob", group), |spec| {
        spec.gate = Some("step-99".into());
    });
    sign(&mut world, person("bob", group), |spec| {
        spec.gate = Some("promotion".into());
    });
    approve(&mut world, "carol", &["senior"]);
    go_on(&mut world, 2);
    assert_eq!(step(&world), 0, "nobody who may has signed this gate");
    let reasons: Vec<_> = (0..12).map(|number| said(&world, number).1).collect();
    let expected = [
        "ByAuthor",
        "ByAuthor",
        "ByAuthor",
        "ByAgent",
        "NotAPerson",
        "OtherChange",
        "OtherChange",
        "OtherChange",
        "Expired",
        "NoSuchGate",
        "Counts",
        "Counts",
    ];
    assert_eq!(reasons, expected);
    approve(&mut world, "bob", group);
    go_on(&mut world, 1);
    assert_eq!(step(&world), 1);
}

#[test]
pub(super) fn two_people_are_two_people() {
    let policy = asking(&[(2, &[]), (1, &["senior"])], |spec| {
        let bob = Alias {
            user: "bob".into(),
            identities: vec!["bob-admin".into()],
        };
        spec.people.aliases = vec![bob];
    });
    let mut world = waiting(policy);
    approve(&mut world, "bob", &[]);
    approve(&mut world, "Bob", &[]);
    approve(&mut world, "bob-admin", &["senior"]);
    go_on(&mut world, 2);
    assert_eq!(step(&world), 0);
    assert_eq!(said(&world, 1).1, "SamePerson");
    let message = world.observation.status.message.clone();
    assert!(message.contains("2 people (1 so far: bob)"), "{message}");
    approve(&mut world, "carol", &["senior"]);
    go_on(&mut world, 1);
    assert_eq!(step(&world), 1);
}

#[test]
pub(super) fn a_sign_off_ends_with_its_expiry() {
    let mut world = waiting(asking(&[(2, &[])], |_| {}));
    let end = minutes_on(&world, 10);
    sign(&mut world, person("bob", &[]), |spec| {
        spec.expires_at = Some(Time(end));
    });
    go_on(&mut world, 1);
    assert_eq!(said(&world, 0), (true, "Counts".into()));
    go_on(&mut world, 15);
    assert_eq!(said(&world, 0), (false, "Expired".into()));
    approve(&mut world, "carol", &[]);
    go_on(&mut world, 1);
    assert_eq!(step(&world), 0, "bob's was over when carol signed");
}

#[test]
pub(super) fn law_6_without_admission_policies_no_sign_off_counts() {
    let mut world = waiting(asking(&[(1, &[])], |_| {}));
    world.observation.people.admission.problems =
        vec!["ValidatingAdmissionPolicy x is missing".into()];
    approve(&mut world, "bob", &[]);
    go_on(&mut world, 2);
    assert_eq!((step(&world), said(&world, 0).1), (0, "Unproven".into()));
    let conditions = &world.observation.status.conditions;
    let proven = conditions
        .iter()
        .find(|it| it.type_ == "SignOffsProven")
        .unwrap();
    assert_eq!(
        (proven.status.as_str(), proven.reason.as_str()),
        ("False", "Unproven")
    );
    assert!(proven.message.contains("is missing"));

    // They come back: what was signed meanwhile stays unproven.
    world.observation.people.admission.problems.clear();
    world.observation.people.admission.since = Some(world.observation.now);
    go_on(&mut world, 2);
    assert_eq!((step(&world), said(&world, 0).1), (0, "Unproven".into()));
    approve(&mut world, "bob", &[]);
    go_on(&mut world, 1);
    assert_eq!(step(&world), 1);
}

/// AR#4728: approve A, replace it by B at every moment around the approval; B never uses it.
#[test]
pub(super) fn an_approval_of_one_change_never_lets_another_through() {
    for approved in 0..4 {
        for replaced in 0..6 {
            let mut world = waiting(asking(&[(1, &[])], |_| {}));
            let seen = world.observation.status.change.clone().unwrap();
            for moment in 0..6 {
                if moment == approved {
                    sign(&mut world, person("bob", &[]), |spec| {
                        (spec.run, spec.digest) = (seen.run.clone(), seen.digest.clone());
                    });
                }
                if moment == replaced {
                    change(&mut world, "v3", harmless());
                }
                let decision = world.look(&mut steady(5_000.0, 0.0, 0.0));
                world.carry_out(&decision, usize::MAX);
            }
            change(&mut world, "v3", harmless());
            go_on(&mut world, 5);
            let change = world.observation.status.change.clone().unwrap();
            let template = countersign_core::provenance::digest::template_digest(
                &world.observation.spec.template,
            );
            assert_eq!(change.template_digest, template, "v3 is under way");
            assert_eq!(
                change.step, 0,
                "approved at {approved}, replaced at {replaced}"
            );
            assert_eq!(waits_for(&world), Some("AwaitingSignOff"));
        }
    }
}

#[test]
pub(super) fn an_edit_of_the_provenance_voids_the_approval() {
    let mut world = waiting(asking(&[(2, &[])], |_| {}));
    approve(&mut world, "bob", &[]);
    go_on(&mut world, 1);
    let mut edited = harmless();
    edited.extend(annotations(&[("lines-added", "4")]));
    world.observation.annotations = edited;
    go_on(&mut world, 2);
    approve(&mut world, "carol", &[]);
    go_on(&mut world, 2);
    assert_eq!(step(&world), 0, "bob signed another change");
    assert_eq!(waits_for(&world), Some("AwaitingSignOff"));
}

#[test]
pub(super) fn a_rejection_rolls_back_and_wins_over_approvals() {
    let mut world = waiting(asking(&[(1, &[])], |_| {}));
    approve(&mut world, "bob", &[]);
    sign(&mut world, person("carol", &[]), |spec| {
        spec.decision = SignOffDecision::Reject;
    });
    go_on(&mut world, 5);
    assert_eq!(world.observation.status.phase, Phase::Degraded);
    assert_eq!(message(&world, "Rejected"), "rejected by carol: looks good");
    go_on(&mut world, 600);
    assert_eq!(world.observation.status.phase, Phase::Degraded, "law 8");
}

#[test]
pub(super) fn break_glass_skips_waiting_and_sign_off_but_not_analysis() {
    let break_glass = |world: &mut World| {
        world.observation.people.freezes = vec![freeze(|_| {})];
        sign(world, person("dave", &[]), |spec| {
            spec.decision = SignOffDecision::BreakGlass;
        });
    };
    let mut world = waiting(asking(&[(2, &[])], |_| {}));
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
    assert!(told(&world).contains(&"BreakGlass".to_owned()));

    let mut world = waiting(asking(&[(2, &[])], |_| {}));
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
pub(super) fn a_person_may_accept_scarce_evidence_of_one_step_and_of_that_step_only() {
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
pub(super) fn abort_wins_at_every_moment_and_over_every_other_command() {
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
        let decision = world.look(&mut steady(5_000.0, 0.0, 0.0));
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
pub(super) fn abort_with_nothing_under_way_does_nothing() {
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
pub(super) fn another_change_in_the_midst_of_an_abort_is_staged_after_it() {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    go_on(&mut world, 1);
    command(&mut world, "alice", InterventionAction::Abort);
    let decision = world.look(&mut steady(5_000.0, 0.0, 0.0));
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
pub(super) fn law_8_a_rolled_back_change_is_tried_again_only_where_a_person_says_so() {
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
    let decision = world.look(&mut steady(5_000.0, 0.0, 0.0));
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
pub(super) fn a_sign_off_of_one_attempt_is_none_of_the_next() {
    let mut world = waiting(asking(&[(1, &[])], |_| {}));
    approve(&mut world, "bob", &[]);
    let until = minutes_on(&world, 60);
    assert!(
        world.run(until, &mut steady(5_000.0, 0.3, 0.0), |o| o.status.phase
            == Phase::Degraded)
    );
    command(&mut world, "alice", InterventionAction::Retry);
    go_on(&mut world, 10);
    assert_eq!(
        (step(&world), waits_for(&world)),
        (0, Some("AwaitingSignOff"))
    );
}

#[test]
pub(super) fn promote_skips_the_rest_of_one_bake_and_nothing_else() {
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
pub(super) fn a_pause_holds_until_it_is_resumed_and_never_keeps_a_bad_canary() {
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
pub(super) fn machines_may_stop_but_not_promote_resume_or_retry() {
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
pub(super) fn a_freeze_holds_promotions_and_its_end_resumes_where_it_stopped() {
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
pub(super) fn a_freeze_ends_by_itself_and_concerns_its_tiers_alone() {
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
pub(super) fn law_3_a_bad_canary_is_rolled_back_during_a_freeze() {
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
pub(super) fn a_freeze_can_roll_back_what_is_under_way_and_only_holds_what_has_not_begun() {
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
pub(super) fn a_window_of_a_policy_freezes_at_its_times() {
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
pub(super) fn law_6_a_window_or_an_incident_query_that_cannot_be_read_holds() {
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
pub(super) fn a_freeze_does_not_use_up_the_time_that_people_have() {
    let mut world = waiting(asking(&[(1, &[])], |_| {}));
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
pub(super) fn whoever_brought_the_pods_in_does_not_sign_whatever_the_provenance_becomes() {
    let mut world = serving();
    world.observation.policies = vec![asking(&[(1, &[])], |_| {})];
    change(
        &mut world,
        "v2",
        annotations(&[("contributor", "human"), ("authors", "zoe")]),
    );
    world
        .observation
        .annotations
        .insert(CHANGED_BY_ANNOTATION.into(), "mallory".into());
    go_on(&mut world, 1);
    // The pipeline adds what it knows, which is another change by another user.
    let mut known = harmless();
    known.insert(CHANGED_BY_ANNOTATION.into(), "pipeline".into());
    world.observation.annotations = known;
    go_on(&mut world, 2);
    approve(&mut world, "mallory", &[]);
    go_on(&mut world, 2);
    assert_eq!((step(&world), said(&world, 0).1), (0, "ByAuthor".into()));
}

#[test]
pub(super) fn authors_that_cannot_be_read_may_be_anybody() {
    let mut world = serving();
    world.observation.policies = vec![asking(&[(1, &[])], |spec| {
        let high = spec.tiers.low.clone();
        spec.tiers.high = high.clone();
        spec.tiers.critical = high;
    })];
    let mut hidden = harmless();
    hidden.extend(annotations(&[(
        "authors",
        &format!("alice{}", ", x".repeat(2_000)),
    )]));
    change(&mut world, "v2", hidden);
    go_on(&mut world, 1);
    approve(&mut world, "bob", &[]);
    go_on(&mut world, 2);
    assert_eq!((step(&world), said(&world, 0).1), (0, "ByAuthor".into()));
}

#[test]
pub(super) fn law_6_what_people_want_and_cannot_be_read_holds_and_never_keeps_a_bad_canary() {
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
pub(super) fn a_fix_behind_broken_glass_is_not_rolled_back_by_a_freeze_while_nothing_is_proven() {
    let mut world = waiting(asking(&[(1, &[])], |_| {}));
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
pub(super) fn a_pause_and_a_freeze_hold_the_pods_of_a_full_promotion() {
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
        let decision = world.look(&mut steady(5_000.0, 0.001, 0.001));
        world.carry_out(&decision, usize::MAX);
        let before = pods(&world);
        go_on(&mut world, 20);
        assert_eq!(pods(&world), before);
    }
}

#[test]
pub(super) fn many_pauses_neither_outgrow_the_status_nor_silence_broken_glass() {
    let mut world = waiting(asking(&[(1, &[])], |_| {}));
    for _ in 0..150 {
        for action in [InterventionAction::Pause, InterventionAction::Resume] {
            command(&mut world, "alice", action);
            let decision = world.look(&mut steady(5_000.0, 0.0, 0.0));
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

/// Something that people do.
#[derive(Clone, Debug)]
enum Deed {
    Sign(usize, SignOffDecision, Option<&'static str>),
    Command(usize, InterventionAction),
    Freeze(Option<FreezeAction>),
    Tamper(bool),
    Unreadable(bool),
    Incident(bool),
    Change(u8),
    Fail,
}

fn deed() -> impl Strategy<Value = Deed> {
    let decision = prop_oneof![
        6 => Just(SignOffDecision::Approve),
        1 => Just(SignOffDecision::Reject),
        1 => Just(SignOffDecision::BreakGlass),
    ];
    let gate = prop_oneof![
        Just(None),
        Just(Some("step-1")),
        Just(Some("promotion")),
        Just(Some("evidence-1"))
    ];
    let action = prop_oneof![
        Just(InterventionAction::Abort),
        Just(InterventionAction::Retry),
        Just(InterventionAction::Promote),
        Just(InterventionAction::Pause),
        Just(InterventionAction::Resume),
    ];
    prop_oneof![
        4 => (0..USERS.len(), decision, gate).prop_map(|(user, decision, gate)| {
            Deed::Sign(user, decision, gate.filter(|_| decision == SignOffDecision::Approve))
        }),
        3 => (0..USERS.len(), action).prop_map(|(user, action)| Deed::Command(user, action)),
        1 => prop_oneof![Just(None), Just(Some(FreezeAction::Hold)), Just(Some(FreezeAction::RollBack))].prop_map(Deed::Freeze),
        1 => any::<bool>().prop_map(Deed::Tamper),
        1 => any::<bool>().prop_map(Deed::Unreadable),
        1 => any::<bool>().prop_map(Deed::Incident),
        2 => (1..4_u8).prop_map(Deed::Change),
        1 => Just(Deed::Fail),
    ]
}

const USERS: [(&str, &[&str]); 6] = [
    ("alice", &["approvers"]),
    ("bob", &["approvers"]),
    ("carol", &["approvers", "senior"]),
    (
        "system:serviceaccount:ci:robot",
        &["approvers", "system:serviceaccounts"],
    ),
    ("agent", &["approvers", "agents"]),
    ("mallory", &[]),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Laws 1, 2, 3, 6, 8 and 9 in every state that people can bring about, with crashes in between.
    #[test]
    fn the_laws_hold_whatever_people_do(
        deeds in prop::collection::vec((deed(), 0..20_i64, 0..3_usize), 1..25),
    ) {
        let policy = asking(&[(1, &["approvers"])], |spec| {
            spec.people.agent_groups = vec!["agents".into()];
            spec.freeze.incident = Some(IncidentQuery { query: "x".into(), ..IncidentQuery::default() });
            spec.tiers.low.promotion_sign_off = Some(vec![
                SignOffDemand { count: 2, groups: vec![] },
                SignOffDemand { count: 1, groups: vec!["senior".into()] },
            ]);
        });
        let mut world = serving();
        world.observation.policies = vec![policy];
        world.observation.people.incidents = [("unattended".to_owned(), IncidentAnswer::None)].into();
        change(&mut world, "v2", harmless());
        go_on(&mut world, 1);
        for (deed, minutes, crash) in deeds {
            let has_change = world.observation.status.change.is_some();
            let mut errors = 0.001;
            match deed {
                Deed::Sign(user, decision, gate) if has_change => {
                    let (user, groups) = USERS[user];
                    sign(&mut world, person(user, groups), |spec| {
                        (spec.decision, spec.gate) = (decision, gate.map(ToOwned::to_owned));
                    });
                }
                Deed::Command(user, action) if has_change => command(&mut world, USERS[user].0, action),
                Deed::Freeze(action) => world.observation.people.freezes = action.map(|action| freeze(|it| it.action = action)).into_iter().collect(),
                Deed::Unreadable(unreadable) => world.observation.people.unreadable_requests = if unreadable { vec!["slow".into()] } else { vec![] },
                Deed::Incident(incident) => {
                    let answer = if incident { IncidentAnswer::Incident { value: 1.0 } } else { IncidentAnswer::None };
                    world.observation.people.incidents = [("unattended".to_owned(), answer)].into();
                }
                Deed::Tamper(tampered) => world.observation.people.admission.problems = if tampered { vec!["altered".into()] } else { vec![] },
                Deed::Change(version) => change(&mut world, &format!("v{version}"), harmless()),
                Deed::Fail => errors = 0.3,
                Deed::Sign(..) | Deed::Command(..) => {}
            }
            let decision = world.look(&mut steady(5_000.0, errors, 0.001));
            world.carry_out(&decision, crash);
            let until = minutes_on(&world, minutes);
            world.run(until, &mut steady(5_000.0, errors, 0.001), |_| false);
            prop_assert!(world.broken.is_empty(), "{:?}", world.broken);
        }
    }
}

/// What clears a terminal, sets its title, turns the direction of a line, begins another, hides, or never ends.
fn evil() -> String {
    format!(
        "x\u{1b}[2J\u{1b}]0;t\u{7}\u{202e}\u{9b}31m\r\nRoll\u{ad}out\u{2063} shop\u{3164}\u{fe0f} is fine\u{e0041}{}",
        "!".repeat(50_000)
    )
}

/// Everything that a decision says to people.
fn words(decision: &Decision) -> Vec<String> {
    let status = &decision.status;
    let lines = status.change.iter().flat_map(|it| &it.transitions);
    let mut words: Vec<_> = lines.map(|it| it.message.clone()).collect();
    words.extend(status.conditions.iter().map(|it| it.message.clone()));
    words.extend(decision.notices.iter().map(|it| it.message.clone()));
    words.extend(decision.answers.iter().map(|it| it.message.clone()));
    words.push(status.message.clone());
    words
}

/// What somebody does to a world.
type Edit = fn(&mut World);

/// Whoever writes it: people, the API server, a webhook, a kubelet, another controller.
#[test]
pub(super) fn nothing_that_others_write_acts_on_a_terminal_or_fills_a_page() {
    let hostile: [(&str, Edit); 8] = [
        ("a freeze", |world| {
            world.observation.people.freezes = vec![freeze(|it| it.reason = evil())];
        }),
        ("who freezes", |world| {
            world.observation.people.freezes = vec![freeze(|it| it.person = person(&evil(), &[]))];
        }),
        ("a freeze that cannot be read", |world| {
            world.observation.people.unreadable_freezes = vec![evil()];
        }),
        ("a wish that cannot be read", |world| {
            world.observation.people.unreadable_requests = vec![evil()];
        }),
        ("a rejection", |world| {
            sign(world, person("bob", &[]), |it| {
                it.decision = SignOffDecision::Reject;
                it.reason = Some(evil());
            });
        }),
        ("who approves", |world| {
            approve(world, &format!("system:{}", evil()), &[]);
        }),
        ("who aborts", |world| {
            command(world, &evil(), InterventionAction::Abort);
        }),
        ("a policy that cannot be read", |world| {
            world.observation.unreadable_policies = vec![evil()];
        }),
    ];
    let mut worlds: Vec<_> = hostile
        .iter()
        .map(|(who, edit)| {
            let mut world = waiting(asking(&[(1, &[])], |_| {}));
            edit(&mut world);
            (*who, world)
        })
        .collect();
    // Where pods are waited for, those who keep them from starting have their say.
    for (who, edit) in [
        (
            "a refused write",
            (|it: &mut Observation| it.write_failure = Some(evil())) as fn(&mut Observation),
        ),
        ("a ReplicaSet", |it| {
            it.replica_sets
                .iter_mut()
                .for_each(|set| set.failure = Some(evil()));
        }),
        ("a pod", |it| {
            it.new_pods.get_or_insert_default().trouble = Some(evil());
        }),
    ] {
        let mut world = serving();
        change(&mut world, "v2", harmless());
        go_on(&mut world, 2);
        let status = world.observation.status.clone();
        let hash = status.change.unwrap().pod_template_hash;
        let sets = world.observation.replica_sets.iter_mut();
        for set in sets.filter(|set| set.hash == hash) {
            (set.available, set.ready) = (0, 0);
        }
        edit(&mut world.observation);
        worlds.push((who, world));
    }
    for (who, world) in worlds {
        let told = words(&decide(&world.observation));
        let quoted = told.iter().filter(|it| it.contains("x\\u{1b}[2J"));
        assert!(quoted.count() > 0, "{who} is not quoted: {told:?}");
        for text in told {
            assert!(
                text.chars().count() < 2_100,
                "{who}: {} characters",
                text.chars().count()
            );
            assert!(!text.contains(is_invisible), "{who}: {text:?}");
        }
    }
}
