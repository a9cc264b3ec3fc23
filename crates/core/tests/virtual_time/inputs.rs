//! Inputs as people have them in virtual time: templates that no API server takes, `minReadySeconds` of a
//! Rollout that serves, and the words of a status that is reconciled at any moment.

use countersign_api::rollout::{Outcome, RolloutStatus};
use countersign_core::observation::Observation;
use countersign_core::observation::windows::WindowOutcome;
use countersign_core::observation::workload::ReplicaSet;
use countersign_core::simulation::world::World;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{after, begin, change, harmless, lawful, observation, serving, steady, unattended};

/// The ReplicaSet that runs this version.
fn set<'a>(observation: &'a Observation, version: &str) -> &'a ReplicaSet {
    let image = format!("example.org/shop:{version}");
    let mut sets = observation.replica_sets.iter();
    sets.find(|set| set.template.images() == [image.as_str()])
        .unwrap()
}

fn ready_seconds(world: &World, versions: [&str; 2]) -> [i32; 2] {
    versions.map(|version| set(&world.observation, version).min_ready_seconds)
}

fn set_ready_seconds(world: &mut World, seconds: i32) {
    world.observation.spec.min_ready_seconds = seconds;
    world.observation.generation += 1;
}

fn run_for(world: &mut World, seconds: i64) {
    let until = world.observation.now + SignedDuration::from_secs(seconds);
    world.run(until, &mut steady(5_000.0, 0.0, 0.0), |_| false);
}

fn promoted(world: &mut World, revision: i64) {
    let mut traffic = steady(5_000.0, 0.0, 0.0);
    let done = world.run(after(60 * 24), &mut traffic, |seen| {
        let stable = seen.status.stable.as_ref();
        World::at_rest(seen) && stable.is_some_and(|it| it.revision == revision)
    });
    assert!(done, "{:?}", world.observation.status);
}

#[test]
pub(super) fn min_ready_seconds_reach_the_replica_sets_that_are_there() {
    let mut world = serving();
    set_ready_seconds(&mut world, 30);
    run_for(&mut world, 61);
    assert_eq!(set(&world.observation, "v1").min_ready_seconds, 30);

    change(&mut world, "v2", harmless());
    let stepping = |seen: &Observation| seen.status.weight.is_some_and(|weight| weight > 0);
    assert!(world.run(after(60), &mut steady(5_000.0, 0.0, 0.0), stepping));
    assert_eq!(ready_seconds(&world, ["v1", "v2"]), [30, 30]);
    // Pods that serve must not count as unavailable in mid-change,
    set_ready_seconds(&mut world, 90);
    run_for(&mut world, 61);
    assert_eq!(ready_seconds(&world, ["v1", "v2"]), [30, 30]);
    // while a shorter time makes none of them so.
    set_ready_seconds(&mut world, 10);
    run_for(&mut world, 1);
    assert_eq!(ready_seconds(&world, ["v1", "v2"]), [10, 10]);
    set_ready_seconds(&mut world, 90);
    promoted(&mut world, 2);
    run_for(&mut world, 61);
    assert_eq!(ready_seconds(&world, ["v1", "v2"]), [10, 90]);

    // One that is used again has the present value before it has pods.
    change(&mut world, "v1", harmless());
    let mut traffic = steady(5_000.0, 0.0, 0.0);
    let has_pods = world.run(after(60 * 24), &mut traffic, |seen| {
        set(seen, "v1").replicas > 0
    });
    assert!(has_pods);
    assert_eq!(ready_seconds(&world, ["v1", "v2"]), [90, 90]);
    lawful(&world);
}

const REFUSAL: &str = r#"ReplicaSet.apps "shop-v2" is invalid: spec.template.spec.restartPolicy: Unsupported value: "OnFailure""#;

#[test]
pub(super) fn a_template_that_no_replica_set_may_have_is_rolled_back_at_once() {
    let mut world = serving();
    world.template_refusal = Some(REFUSAL.into());
    change(&mut world, "v2", harmless());
    let began = world.observation.now;
    let mut traffic = steady(5_000.0, 0.0, 0.0);
    let ended = world.run(after(60), &mut traffic, |seen| {
        let change = seen.status.change.as_ref();
        change.is_some_and(|it| it.outcome == Some(Outcome::RolledBack))
    });
    assert!(ended, "{:?}", world.observation.status);
    let took = world.observation.now.duration_since(began);
    assert!(took < SignedDuration::from_secs(20), "{took:#}");
    let change = world.observation.status.change.as_ref().unwrap();
    let line = change
        .transitions
        .iter()
        .find(|it| it.reason == "TemplateInvalid");
    let message = &line.unwrap().message;
    assert!(message.starts_with(REFUSAL), "{message}");
    assert!(message.ends_with("correct the pod template"), "{message}");
    // What failed stays failed, and what corrects it continues.
    run_for(&mut world, 600);
    assert_eq!(world.observation.status.waiting_for, None);
    world.template_refusal = None;
    crate::change(&mut world, "v3", harmless());
    promoted(&mut world, 3);
    lawful(&world);
}

#[test]
pub(super) fn a_first_revision_that_no_replica_set_may_have_is_reported_at_once() {
    let mut world = begin(observation("v1"));
    world.template_refusal = Some(REFUSAL.into());
    run_for(&mut world, 20);
    let status = &world.observation.status;
    assert_eq!(status.waiting_for.as_deref(), Some("TemplateInvalid"));
    assert!(status.message.starts_with(REFUSAL), "{}", status.message);
    let mut conditions = status.conditions.iter();
    let stalled = conditions.find(|it| it.type_ == "Stalled").unwrap();
    assert_eq!(stalled.status, "True");
    world.template_refusal = None;
    crate::change(&mut world, "v2", harmless());
    promoted(&mut world, 2);
    lawful(&world);
}

/// What is not true of a status at the moment at which it is read.
fn falsehood(seen: &Observation) -> Option<String> {
    let status: &RolloutStatus = &seen.status;
    let texts = status.conditions.iter().map(|it| &it.message);
    for text in texts.chain([&status.message]) {
        let times = text.split("until ").skip(1).filter_map(|rest| {
            let word = rest.split([' ', ',', ';']).next()?;
            word.parse::<Timestamp>().ok()
        });
        for at in times {
            if at <= seen.now {
                return Some(format!("{at} has passed: {text}"));
            }
        }
        let mut windows = seen.analysis.windows.values().flat_map(|it| &it.due);
        let counted = windows.any(|it| matches!(it.outcome, WindowOutcome::Counted { .. }));
        if counted && text.contains("no window has ended yet") {
            return Some(format!("a window has ended: {text}"));
        }
        // Counts are those of a moment, which is named, and which is no later than that of the words.
        if text.contains(" requests against stable ") && text == &status.message {
            let shown = text.split("as of ").nth(1).and_then(|it| it.get(..20));
            let as_of = shown.and_then(|it| it.parse::<Timestamp>().ok());
            if status.waiting_for.is_some() && as_of.is_none_or(|at| at > seen.now) {
                return Some(format!("as of when? {text}"));
            }
        }
    }
    None
}

#[test]
pub(super) fn no_message_of_a_status_outlives_its_time() {
    for (bake, requests) in [
        ("5m", 5_000.0),
        ("20s", 100.0),
        ("90s", 300.0),
        ("0s", 40.0),
    ] {
        let mut world = serving();
        let mut policy = unattended();
        policy.spec.tiers.low.steps = serde_json::from_value(serde_json::json!([
            { "weight": 5, "bake": bake }, { "weight": 25, "bake": bake }, { "weight": 50, "bake": bake },
        ]))
        .unwrap();
        policy.spec.tiers.low.min_bake = None;
        world.observation.policies = vec![policy];
        world.observation.spec.strategy.canary.scale_down_delay = "3m".parse().unwrap();
        let analysis = world.observation.spec.strategy.canary.analysis.as_mut();
        analysis.unwrap().post_promotion = Some("4m".parse().unwrap());
        change(&mut world, "v2", harmless());
        let (mut reconciles, mut waits) = (0, std::collections::BTreeSet::new());
        let mut traffic = steady(requests, 0.0, 0.0);
        let done = world.run(after(60 * 24), &mut traffic, |seen| {
            reconciles += 1;
            waits.extend(seen.status.waiting_for.clone());
            assert_eq!(falsehood(seen), None, "bake {bake} at {}", seen.now);
            World::at_rest(seen) && seen.status.revision == 2
        });
        assert!(done, "{:?}", world.observation.status);
        assert!(reconciles > 20, "{reconciles} reconciles");
        if bake == "5m" {
            assert!(waits.contains("Baking"), "{waits:?}");
        }
        lawful(&world);
    }
}
