//! People: sign-offs, interventions, freezes, in virtual time.

mod approvers;
mod deeds;
mod first_revisions;
mod freezes;
mod interventions;
mod sign_offs;
mod texts;

use countersign_api::freeze::{FreezeAction, FreezeSpec, FreezeWindow, IncidentQuery};
use countersign_api::intervention::{InterventionAction, InterventionSpec};
use countersign_api::policy::{Alias, People};
use countersign_api::sign_off::{SignOffDecision, SignOffSpec};
use countersign_api::{CHANGED_BY_ANNOTATION, Person, SignOffDemand};
use countersign_core::decide;
use countersign_core::decision::Decision;
use countersign_core::observation::people::{
    IncidentAnswer, NamedFreeze, ObservedIntervention, ObservedSignOff,
};
use countersign_core::text::is_invisible;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

pub(crate) use approvers::*;
pub(crate) use freezes::*;
pub(crate) use interventions::*;
pub(crate) use sign_offs::*;
pub(crate) use texts::*;

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
    world.observation.people.sign_offs.push(ObservedSignOff {
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
        .push(ObservedIntervention {
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

/// A policy whose harmless tier requires these sign-offs before its first step.
pub(crate) fn requiring(
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

/// A change that waits before its first step for what a policy requires.
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

fn answer_of(world: &World, number: usize) -> (bool, String) {
    world.observation.people.sign_offs[number]
        .answer
        .clone()
        .expect("the sign-off was answered")
}

pub(crate) fn transition_reasons(world: &World) -> Vec<String> {
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
    line.unwrap_or_else(|| panic!("{reason} in {:?}", transition_reasons(world)))
        .message
        .clone()
}
