//! ReplicaSets that somebody edits: they are named, nothing continues with them, and what was decided replaces them.

use countersign_api::HASH_LABEL;
use countersign_api::rollout::{Change, Stage};
use countersign_core::observation::workload::{Edit, Integrity, ReplicaSet};
use countersign_core::proposal::Proposal;
use countersign_core::provenance::digest::template_digest;

use crate::routes::{SERVICES, routed};

use super::*;

fn edited() -> Integrity {
    Integrity::Edited(Edit {
        what: "template (image)".into(),
        writer: Some("kubectl-patch".into()),
        at: Some(START),
    })
}

fn set<'a>(world: &'a World, hash: &str) -> &'a ReplicaSet {
    let mut sets = world.observation.replica_sets.iter();
    sets.find(|set| set.hash == hash).unwrap()
}

fn make(world: &mut World, hash: &str, integrity: Integrity) {
    let mut sets = world.observation.replica_sets.iter_mut();
    sets.find(|set| set.hash == hash).unwrap().integrity = integrity;
}

fn stable(world: &World) -> String {
    let stable = world.observation.status.stable.as_ref().unwrap();
    stable.pod_template_hash.clone()
}

fn under_way(world: &World) -> &Change {
    world.observation.status.change.as_ref().unwrap()
}

fn available(seen: &Observation) -> i32 {
    seen.replica_sets.iter().map(|set| set.available).sum()
}

/// A change in its first step, whose pods serve.
fn stepping(mut world: World) -> World {
    change(&mut world, "v2", harmless());
    let serves = |seen: &Observation| {
        let change = seen.status.change.as_ref();
        change.is_some_and(|it| it.step == 1 && it.available_at.is_some())
    };
    assert!(world.run(after(60 * 24), &mut steady(5_000.0, 0.0, 0.0), serves));
    world
}

#[test]
fn law_11_an_edited_stable_replica_set_is_named_and_replaced_while_its_pods_serve() {
    for mut world in [serving(), routed(|_| {})] {
        let before = stable(&world);
        make(&mut world, &before, edited());
        let mut traffic = steady(5_000.0, 0.0, 0.0);
        let decision = world.reconcile(&mut traffic);
        let notices = &decision.notices;
        assert_eq!(notices.len(), 1, "{notices:?}");
        assert_eq!(
            (&*notices[0].reason, notices[0].warning),
            ("Tampered", true)
        );
        for word in [
            &*set(&world, &before).name,
            "kubectl-patch",
            "template (image)",
        ] {
            assert!(notices[0].message.contains(word), "{notices:?}");
        }
        let mut conditions = decision.status.conditions.iter();
        let named = conditions.find(|it| it.type_ == "Tampered").unwrap();
        assert_eq!(named.status, "True");
        world.carry_out(&decision, usize::MAX);
        let after_it = stable(&world);
        assert_ne!(after_it, before);
        let until = after(60 * 24);
        let replaced = world.run(until, &mut traffic, |seen| {
            assert!(available(seen) >= 20, "capacity is kept");
            let gone = |set: &ReplicaSet| set.hash != before || set.replicas == 0;
            seen.replica_sets.iter().all(gone) && seen.status.waiting_for.is_none()
        });
        assert!(replaced, "{:?}", world.observation.status);
        let replacement = set(&world, &after_it);
        let promoted = world.observation.status.stable.as_ref().unwrap();
        let digest = template_digest(&replacement.template);
        assert_eq!(
            (digest, replacement.available),
            (promoted.template_digest.clone(), 20)
        );
        let mut conditions = world.observation.status.conditions.iter();
        assert!(conditions.all(|it| it.type_ != "Tampered"));
        assert_eq!(
            (world.observation.status.attempts, &world.lost),
            (1, &vec![])
        );
        lawful(&world);
    }
}

/// A webhook whose answer differs each time, or a controller that edits ReplicaSets.
#[test]
fn law_11_what_edits_each_new_replica_set_gets_few_of_them() {
    let mut world = serving();
    let (until, mut made) = (after(60 * 24), 0);
    let is_new = |set: &ReplicaSet| set.integrity == Integrity::Sound;
    loop {
        for set in &mut world.observation.replica_sets {
            set.integrity = edited();
        }
        let mut traffic = steady(5_000.0, 0.0, 0.0);
        if !world.run(until, &mut traffic, |seen| {
            seen.replica_sets.iter().any(is_new)
        }) {
            break;
        }
        made += 1;
        assert!(made <= 3, "{:?}", world.observation.replica_sets);
    }
    assert_eq!((made, available(&world.observation)), (3, 20));
    let status = &world.observation.status;
    assert_eq!(status.waiting_for.as_deref(), Some("Tampered"));
    assert!(
        status.message.contains("exempt ReplicaSets"),
        "{}",
        status.message
    );
    lawful(&world);
}

#[test]
fn law_11_nothing_continues_while_the_stable_replica_set_is_edited() {
    for world in [serving(), routed(|_| {})] {
        let mut world = stepping(world);
        let (before, change) = (stable(&world), under_way(&world).clone());
        make(&mut world, &before, edited());
        world.pods_ready_after = Some(SignedDuration::from_mins(3));
        let mut traffic = steady(5_000.0, 0.0, 0.0);
        let replaced = world.run(after(60 * 24), &mut traffic, |seen| {
            let now = seen.status.change.as_ref().unwrap();
            assert_eq!((now.step, now.weight), (change.step, change.weight));
            assert_eq!(now.outcome, None);
            let old = seen.replica_sets.iter().find(|set| set.hash == before);
            let new = seen.status.stable.as_ref().unwrap();
            let new = seen
                .replica_sets
                .iter()
                .find(|set| set.hash == new.pod_template_hash);
            let serves = old.unwrap().available + new.map_or(0, |it| it.available);
            assert!(
                serves >= 10,
                "stable's pods serve until others do: {serves}"
            );
            old.unwrap().replicas == 0
        });
        assert!(replaced, "{:?}", world.observation.status);
        let lines = under_way(&world).transitions.iter();
        let lines: Vec<_> = lines.filter(|line| line.reason == "Tampered").collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].message.contains("kubectl-patch"), "{lines:?}");
        let done = world.run(after(60 * 24 * 2), &mut traffic, |seen| {
            seen.status
                .stable
                .as_ref()
                .is_some_and(|it| it.revision == 2)
                && World::at_rest(seen)
        });
        assert!(done, "{:?}", world.observation.status);
        assert_eq!(world.lost, [""; 0]);
        lawful(&world);
    }
}

#[test]
fn law_11_what_was_counted_beside_an_edited_stable_replica_set_promotes_nothing() {
    let mut world = stepping(serving());
    let until = world.observation.now + SignedDuration::from_mins(2);
    world.run(until, &mut steady(5_000.0, 0.0, 0.0), |_| false);
    let counted = |world: &World| under_way(world).evidence.checks[0].clone();
    assert!(!counted(&world).gates.is_empty() && counted(&world).step_windows > 0);
    let before = stable(&world);
    make(&mut world, &before, edited());
    let decision = world.reconcile(&mut steady(5_000.0, 0.0, 0.0));
    world.carry_out(&decision, usize::MAX);
    let now = counted(&world);
    assert!(now.gates.is_empty(), "{now:?}");
    assert!(now.step_requests < 1.0 && now.step_windows == 0, "{now:?}");
    assert!(now.last_window_end.is_some(), "the check stays as it was");
    lawful(&world);
}

#[test]
fn law_11_an_edited_canary_is_rolled_back_and_its_replica_set_is_taken_no_more() {
    let mut world = stepping(serving());
    let canary = under_way(&world).pod_template_hash.clone();
    make(&mut world, &canary, edited());
    let mut traffic = steady(5_000.0, 0.0, 0.0);
    let decision = world.reconcile(&mut traffic);
    world.carry_out(&decision, usize::MAX);
    let change = under_way(&world);
    assert_eq!(change.outcome, Some(Outcome::RolledBack));
    let line = change.transitions.last().unwrap();
    assert_eq!(line.reason, "Tampered");
    assert!(line.message.contains("kubectl-patch"), "{line:?}");
    let gone = |seen: &Observation| {
        let stage = seen.status.change.as_ref().map(|it| it.stage);
        stage == Some(Stage::RolledBack)
    };
    assert!(world.run(after(60 * 24), &mut traffic, gone));
    assert_eq!(world.observation.status.phase, Phase::Degraded);
    assert_eq!(stable_image(&world), "example.org/shop:v1");
    // What a retry would begin with.
    let next = Proposal::of(&world.observation).hash;
    assert_ne!(next, canary);
    lawful(&world);
}

/// A ReplicaSet that claims the template of the present change.
fn planted(world: &World) -> ReplicaSet {
    let template = world.observation.spec.template.clone();
    ReplicaSet {
        name: "planted".into(),
        uid: "planted".into(),
        hash: "planted".into(),
        template_digest: template_digest(&template),
        template,
        ..world.observation.replica_sets[0].clone()
    }
}

#[test]
fn law_11_a_planted_replica_set_is_never_taken() {
    for owned in [false, true] {
        let mut world = serving();
        change(&mut world, "v2", harmless());
        let mut planted = planted(&world);
        planted.integrity = edited();
        planted.owned = owned;
        (
            planted.replicas,
            planted.current,
            planted.ready,
            planted.available,
        ) = (0, 0, 0, 0);
        world.observation.replica_sets.push(planted);
        let done = world.run(after(60), &mut steady(5_000.0, 0.0, 0.0), |seen| {
            let change = seen.status.change.as_ref();
            assert!(change.is_none_or(|it| it.pod_template_hash != "planted"));
            World::at_rest(seen) && seen.status.revision == 2
        });
        assert!(done, "{:?}", world.observation.status);
        assert_eq!(set(&world, "planted").replicas, 0);
        lawful(&world);
    }
}

/// Its pods may be from a time at which its template was another one.
#[test]
fn law_11_a_planted_replica_set_of_the_right_template_is_not_taken_while_it_has_pods() {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    let planted = planted(&world);
    world.observation.replica_sets.push(planted);
    for (pods, is_taken) in [((3, 3), false), ((0, 3), false), ((0, 0), true)] {
        let planted = world.observation.replica_sets.last_mut().unwrap();
        (planted.replicas, planted.current) = pods;
        let hash = Proposal::of(&world.observation).hash;
        assert_eq!(hash == "planted", is_taken, "{pods:?}");
    }
    // What a Rollout before this one left is taken back with its pods.
    let planted = world.observation.replica_sets.last_mut().unwrap();
    (planted.replicas, planted.current) = (3, 3);
    world.observation.status.stable = None;
    assert_eq!(Proposal::of(&world.observation).hash, "planted");
}

#[test]
fn law_11_planted_replica_sets_keep_no_edited_one_from_being_replaced() {
    let mut world = serving();
    let before = stable(&world);
    for number in 0..3 {
        let mut planted = set(&world, &before).clone();
        planted.hash = format!("planted-{number}");
        (planted.name, planted.uid) = (planted.hash.clone(), planted.hash.clone());
        planted.integrity = edited();
        world.observation.replica_sets.push(planted);
    }
    make(&mut world, &before, edited());
    let decision = world.reconcile(&mut steady(5_000.0, 0.0, 0.0));
    let after = decision.status.stable.unwrap().pod_template_hash;
    assert_ne!(after, before);
}

#[test]
fn law_11_without_a_record_of_its_template_an_edited_stable_replica_set_holds_every_change() {
    let mut world = stepping(serving());
    let before = stable(&world);
    make(&mut world, &before, edited());
    let mut sets = world.observation.replica_sets.iter_mut();
    let of_stable = sets.find(|set| set.hash == before).unwrap();
    of_stable.template.0 = template("other");
    world.observation.status.stable.as_mut().unwrap().run = None;
    let until = world.observation.now + SignedDuration::from_mins(8);
    world.run(until, &mut steady(5_000.0, 0.0, 0.0), |_| false);
    let status = &world.observation.status;
    assert_eq!(stable(&world), before);
    assert_eq!(status.waiting_for.as_deref(), Some("Tampered"));
    assert!(
        status.message.contains("apply that template"),
        "{}",
        status.message
    );
    assert_eq!(under_way(&world).step, 1);
    lawful(&world);
    // At the deadline the change is rolled back, and the template that comes back is what replaces it.
    change(&mut world, "v1", harmless());
    let back = world.run(after(60 * 24), &mut steady(5_000.0, 0.0, 0.0), |seen| {
        let old = seen.replica_sets.iter().find(|set| set.hash == before);
        World::at_rest(seen) && old.is_none_or(|set| set.replicas == 0)
    });
    assert!(back, "{:?}", world.observation.status);
    assert_eq!(stable_image(&world), "example.org/shop:v1");
    lawful(&world);
}

#[test]
fn law_6_a_template_that_could_not_be_verified_holds_and_is_not_called_edited() {
    let mut world = stepping(serving());
    let canary = under_way(&world).pod_template_hash.clone();
    let message = "a dry run failed".to_owned();
    make(&mut world, &canary, Integrity::Unverified { message });
    let mut traffic = steady(5_000.0, 0.0, 0.0);
    let until = world.observation.now + SignedDuration::from_mins(8);
    world.run(until, &mut traffic, |_| false);
    let status = &world.observation.status;
    assert_eq!(status.waiting_for.as_deref(), Some("TemplateUnverified"));
    assert!(
        status.message.contains("a dry run failed"),
        "{}",
        status.message
    );
    assert!(status.conditions.iter().all(|it| it.type_ != "Tampered"));
    assert_eq!(
        (under_way(&world).step, under_way(&world).outcome),
        (1, None)
    );
    let digest = "what admission made of it".to_owned();
    make(
        &mut world,
        &canary,
        Integrity::Admitted {
            digest: digest.clone(),
        },
    );
    let done = world.run(after(60 * 24), &mut traffic, |seen| {
        World::at_rest(seen) && seen.status.revision == 2 && seen.status.change.is_none()
    });
    assert!(done, "{:?}", world.observation.status);
    let promoted = world.observation.status.stable.as_ref().unwrap();
    assert_eq!(promoted.pod_template_hash, canary);
    assert_eq!(promoted.stored_template_digest, Some(digest));
    lawful(&world);
}

#[test]
fn law_11_a_service_that_somebody_points_at_the_canary_is_put_right_and_the_writer_named() {
    let mut world = stepping(routed(|_| {}));
    let (stable, canary) = (stable(&world), under_way(&world).pod_template_hash.clone());
    let service = SERVICES[0];
    let services = &mut world.observation.traffic.services;
    let seen = services.get_mut(service).unwrap().as_mut().unwrap();
    let before = seen.selector.insert(HASH_LABEL.into(), canary.clone());
    assert_eq!(before.as_ref(), Some(&stable));
    let writers = &mut world.observation.traffic.selected_by;
    writers.insert(service.into(), "mallory".into());
    let corrections = |decision: &countersign_core::Decision| -> Vec<String> {
        let notices = decision.notices.iter();
        let corrections = notices.filter(|it| it.reason == "SelectorCorrected" && it.warning);
        corrections.map(|it| it.message.clone()).collect()
    };
    let mut traffic = steady(5_000.0, 0.0, 0.0);
    let decision = world.reconcile(&mut traffic);
    let found = corrections(&decision);
    let [message] = &found[..] else {
        panic!("{:?}", decision.notices);
    };
    for word in [service, "mallory", &canary, &stable] {
        assert!(message.contains(word), "{message}");
    }
    world.carry_out(&decision, usize::MAX);
    let seen = world.observation.traffic.services[service].as_ref();
    assert_eq!(seen.unwrap().selector.get(HASH_LABEL), Some(&stable));
    let again = world.reconcile(&mut traffic);
    assert_eq!(corrections(&again), [""; 0]);
}
