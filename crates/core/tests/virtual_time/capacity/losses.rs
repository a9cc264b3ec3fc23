//! What was lost: a stable revision or a canary without its pods.

use super::*;

fn lose(world: &mut World, version: &str) {
    let name = of(&world.observation, version).unwrap().name.clone();
    let sets = &mut world.observation.replica_sets;
    sets.retain(|set| set.name != name);
}

#[test]
pub(crate) fn law_4_a_stable_replica_set_that_is_deleted_in_mid_change_is_made_again() {
    let worlds = [
        routed(|_| {}),
        routed(|seen| seen.spec.strategy.canary.dynamic_stable = true),
        directed(|seen| seen.spec.replicas = 20),
    ];
    for world in worlds {
        for at in [Stage::Stepping, Stage::Promoting, Stage::RolledBack] {
            let mut world = world.clone();
            push(&mut world, "v2");
            let errors = if at == Stage::RolledBack { 0.9 } else { 0.0 };
            let mut traffic = steady(5_000.0, errors, 0.0);
            let begun = world.run(after(DAYS), &mut traffic, |seen| {
                let there = available(seen, "v2") > 0 || at == Stage::RolledBack;
                stage(seen) == Some(at) && there
            });
            assert!(begun, "{at:?}: {:?}", world.observation.status);
            lose(&mut world, "v1");
            let again = world.run(after(DAYS), &mut traffic, |seen| {
                available(seen, "v1") > 0 || is_stable(seen, "v2")
            });
            assert!(again, "{at:?}: {:?}", world.observation.status);
            assert_eq!(world.broken, [], "{at:?}");
            if at == Stage::RolledBack {
                let whole = |seen: &Observation| available(seen, "v1") == 20;
                assert!(world.run(after(DAYS), &mut traffic, whole));
                continue;
            }
            let done = world.run(after(DAYS), &mut traffic, |seen| {
                is_stable(seen, "v2") && World::at_rest(seen)
            });
            assert!(done, "{at:?}: {:?}", world.observation.status);
        }
    }
}

#[test]
pub(crate) fn law_4_a_newer_change_leaves_the_requests_with_pods_where_stable_has_lost_its_own() {
    for (newer, promoting) in [("v3", false), ("v3", true), ("v1", false), ("v1", true)] {
        let mut world = routed(|_| {});
        push(&mut world, "v2");
        let begun = world.run(after(DAYS), &mut steady(5_000.0, 0.0, 0.0), |seen| {
            let begun = !promoting || stage(seen) == Some(Stage::Promoting);
            begun && weights(seen).1 >= 50
        });
        assert!(begun, "{:?}", world.observation.status);
        world.pods_ready_after = Some(SignedDuration::from_mins(4));
        lose(&mut world, "v1");
        push(&mut world, newer);
        let mut without_pods = 0;
        let mut reconciles = 0;
        let done = world.run(after(DAYS), &mut steady(5_000.0, 0.0, 0.0), |seen| {
            let (stable, _) = weights(seen);
            let serves = behind_stable(seen).is_some_and(|it| it.available > 0);
            reconciles += 1;
            without_pods += i32::from(reconciles > 2 && stable > 0 && !serves);
            is_stable(seen, newer) && World::at_rest(seen)
        });
        assert!(done, "{newer}: {:?}", world.observation.status);
        assert_eq!(without_pods, 0, "{newer}, promoting: {promoting}");
        assert_eq!(world.broken, [], "{newer}");
    }
}

#[test]
pub(crate) fn a_canary_with_traffic_serves_in_place_of_a_stable_revision_without_pods_and_no_other_does()
 {
    for weight in [0, 50] {
        let mut world = routed(|seen| {
            let step = |weight: i32| Step {
                weight,
                scale: Some(50),
                bake: Duration::minutes(30),
                ..Step::default()
            };
            seen.spec.strategy.canary.steps = vec![step(0), step(5), step(50)];
        });
        push(&mut world, "v2");
        let reached = world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), |seen| {
            let change = seen.status.change.as_ref();
            change.is_some_and(|it| it.weight == weight && it.available_at.is_some())
        });
        assert!(reached, "{:?}", world.observation.status);
        lose(&mut world, "v1");
        world.pods_ready_after = Some(SignedDuration::from_mins(1));
        let decision = world.reconcile(&mut steady(500.0, 0.0, 0.0));
        world.carry_out(&decision, usize::MAX);
        let served = behind_stable(&world.observation).unwrap();
        let (set, warned) = (
            served.template.images()[0].to_owned(),
            decision
                .notices
                .iter()
                .any(|it| it.reason == "StableUnavailable"),
        );
        if weight == 0 {
            assert_eq!((set.as_str(), warned), ("example.org/shop:v1", false));
            continue;
        }
        assert_eq!((set.as_str(), warned), ("example.org/shop:v2", true));
        let back = world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), |seen| {
            let served = behind_stable(seen).unwrap();
            assert!(served.available > 0);
            served.template.images() == ["example.org/shop:v1"]
        });
        assert!(back, "{:?}", world.observation.status);
        assert!(available(&world.observation, "v1") >= available(&world.observation, "v2"));
    }
}

#[test]
pub(crate) fn without_its_record_a_lost_stable_revision_is_named_after_a_rollback_too() {
    let mut world = routed(|_| {});
    push(&mut world, "v2");
    let mut bad = steady(5_000.0, 0.9, 0.0);
    let rejected = |seen: &Observation| stage(seen) == Some(Stage::RolledBack);
    assert!(world.run(after(DAYS), &mut bad, rejected));
    lose(&mut world, "v1");
    world.observation.status.stable.as_mut().unwrap().run = None;
    let until = after(world_minutes(&world) + 5);
    world.run(until, &mut bad, |_| false);
    let status = &world.observation.status;
    assert_eq!(status.waiting_for.as_deref(), Some("StableMissing"));
    assert!(
        status.message.contains("apply that template"),
        "{}",
        status.message
    );
}

#[test]
pub(crate) fn a_canary_that_loses_its_pods_keeps_no_more_traffic_than_they_carry() {
    let mut world = routed(|seen| {
        let step = |weight: i32| Step {
            weight,
            bake: Duration::minutes(600),
            ..Step::default()
        };
        seen.spec.strategy.canary.steps = vec![step(5), step(50)];
        surge(seen, 20, 5);
    });
    world.observation.spec.progress_deadline_seconds = 100_000;
    push(&mut world, "v2");
    let mut traffic = steady(500.0, 0.0, 0.0);
    let halved = |seen: &Observation| {
        let split = seen.status.traffic.as_ref().unwrap();
        split.settled_at.is_some() && split.settled_weight == 50
    };
    assert!(world.run(after(DAYS), &mut traffic, halved));
    world.pods_ready_after = None;
    for (left, share) in [(8, 50), (1, 5)] {
        let sets = &mut world.observation.replica_sets;
        let canary = sets.iter_mut().find(|set| set.revision == 2).unwrap();
        (canary.available, canary.ready) = (left, left);
        for _ in 0..30 {
            let decision = world.reconcile(&mut traffic);
            world.carry_out(&decision, usize::MAX);
            world.observation.now += SignedDuration::from_secs(1);
        }
        assert_eq!(weights(&world.observation).1, share, "{left} pods are left");
    }
    assert_eq!((world.outcome(), world.broken), (None, vec![]));
}

/// Pods of the revision before, which no longer receive requests, hold the room until routers have followed.
#[test]
pub(crate) fn law_4_a_lost_stable_replica_set_is_made_again_though_old_pods_hold_the_room() {
    let mut world = routed(|seen| seen.spec.replicas = 4);
    push(&mut world, "v2");
    let promoted = |seen: &Observation| {
        let old = seen.replica_sets.iter().find(|it| it.revision == 1);
        stage(seen) == Some(Stage::Promoted) && old.is_some_and(|it| it.available > 0)
    };
    assert!(world.run(after(DAYS), &mut steady(5_000.0, 0.0, 0.0), promoted));
    lose(&mut world, "v2");
    world.observation.spec.replicas = 2;
    push(&mut world, "v3");
    let makes = |it: &Action| matches!(it, Action::Workload(WorkloadAction::CreateReplicaSet(_)));
    let mut reconcile = || {
        let decision = world.reconcile(&mut steady(5_000.0, 0.0, 0.0));
        world.carry_out(&decision, usize::MAX);
        decision.actions.iter().any(makes)
    };
    assert!(
        reconcile() || reconcile(),
        "at once, and not after the drain"
    );
    let done = world.run(after(DAYS), &mut steady(5_000.0, 0.0, 0.0), |seen| {
        is_stable(seen, "v3") && World::at_rest(seen)
    });
    assert!(done, "{:?}", world.observation.status);
    assert_eq!(world.broken, []);
}
