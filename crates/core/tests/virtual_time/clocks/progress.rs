//! Which pods are progress, and so put the deadline off.

use super::*;

/// Each row ended in a rollback at the deadline, always at the last step (FOUND.md C1, R4).
#[test]
pub(crate) fn each_available_pod_is_progress_however_long_all_of_them_take() {
    for (replicas, surge, deadline, ready_after) in [
        (20, 1, 60, 2),
        (8, 1, 60, 20),
        (20, 1, 600, 90),
        (50, 1, 600, 20),
        (200, 1, 600, 4),
        (100, 10, 600, 150),
        (1_000, 100, 600, 150),
        (10, 1, 20, 12),
    ] {
        let mut world = crowded(replicas, surge, deadline);
        world.pods_ready_after = Some(SignedDuration::from_secs(ready_after));
        change(&mut world, "v2", harmless());
        let until = minutes_on(&world, 24 * 60);
        let ended = world.run(
            until,
            &mut steady(5_000.0, 0.001, 0.001),
            rolled_back_or_promoted,
        );
        let row = (replicas, surge, deadline, ready_after);
        assert!(ended, "{row:?}: {}", world.observation.status.message);
        lawful(&world);
        assert_eq!(
            stable_image(&world),
            "example.org/shop:v2",
            "{row:?}: {}",
            world.observation.status.message
        );
    }
}

#[test]
pub(crate) fn a_first_revision_whose_pods_come_one_by_one_is_not_stalled() {
    let mut first = observation("v1");
    first.spec.progress_deadline_seconds = 60;
    let mut world = begin(first);
    world.pods_ready_after = None;
    for pod in 1..=20 {
        let until = world.observation.now + SignedDuration::from_secs(40);
        world.run(until, &mut steady(0.0, 0.0, 0.0), |_| false);
        assert!(!is_true(&world, "Stalled"), "{pod} pods");
        world.observation.replica_sets[0].available = pod;
        world.observation.replica_sets[0].ready = pod;
    }
    world.run(after(20), &mut steady(0.0, 0.0, 0.0), |_| false);
    assert_eq!(world.observation.status.phase, Phase::Stable);
}

fn is_true(world: &World, kind: &str) -> bool {
    let mut conditions = world.observation.status.conditions.iter();
    conditions.any(|it| it.type_ == kind && it.status == "True")
}

#[test]
pub(crate) fn pods_that_stop_coming_end_the_change_one_deadline_after_the_last_of_them() {
    let mut world = crowded(40, 1, 300);
    world.pods_ready_after = Some(SignedDuration::from_secs(60));
    change(&mut world, "v2", harmless());
    let until = minutes_on(&world, 600);
    let canary = |o: &Observation| {
        let change = o.status.change.as_ref()?;
        let set = o.replica_sets.iter();
        let mut set = set.filter(|set| set.hash == change.pod_template_hash);
        Some(set.next()?.available)
    };
    let enough = |o: &Observation| {
        let change = o.status.change.as_ref();
        change.is_some_and(|it| it.stage == Stage::Promoting) && canary(o) >= Some(30)
    };
    assert!(world.run(until, &mut steady(5_000.0, 0.0, 0.0), enough));
    world.pods_ready_after = None;
    let mut last = (canary(&world.observation), world.observation.now);
    assert!(world.run(until, &mut steady(5_000.0, 0.0, 0.0), |o| {
        if o.status.phase != Phase::Degraded && canary(o) > last.0 {
            last = (canary(o), o.now);
        }
        o.status.phase == Phase::Degraded
    }));
    lawful(&world);
    let ended = at(&world.observation, "ProgressDeadlineExceeded");
    let took = ended.duration_since(last.1).as_secs();
    assert!((300..=335).contains(&took), "{took} s");
}

/// A Deployment counts the pods that it creates as progress, too.
#[test]
pub(crate) fn a_rollout_that_is_scaled_up_while_pods_are_awaited_has_its_whole_deadline_again() {
    let mut world = serving();
    halves(&mut world, "1m");
    world.pods_ready_after = None;
    change(&mut world, "v2", harmless());
    let until = minutes_on(&world, 8);
    world.run(until, &mut steady(1_000.0, 0.0, 0.0), |_| false);
    assert_eq!(waits_for(&world), Some("AwaitingPods"));
    world.observation.spec.replicas = 40;
    let until = minutes_on(&world, 1);
    world.run(until, &mut steady(1_000.0, 0.0, 0.0), |_| false);
    // Stable's come, so that more of the canary's are created beside them.
    let stable = world.observation.status.stable.as_ref();
    let stable = stable.map(|it| it.pod_template_hash.clone());
    for set in &mut world.observation.replica_sets {
        if Some(&set.hash) == stable.as_ref() {
            (set.available, set.ready) = (set.replicas, set.replicas);
        }
    }
    let grown = world.observation.now;
    let until = minutes_on(&world, 60);
    assert!(world.run(until, &mut steady(1_000.0, 0.0, 0.0), |o| {
        o.status.phase == Phase::Degraded
    }));
    lawful(&world);
    let took = at(&world.observation, "ProgressDeadlineExceeded").duration_since(grown);
    assert!((600..=635).contains(&took.as_secs()), "{took}");
}

/// Pods that came while the operator was away are seen, though fewer are requested by then.
#[test]
pub(crate) fn pods_that_came_unseen_are_progress_though_the_rollout_is_scaled_down() {
    let mut world = super::routes::routed(|seen| {
        seen.spec.strategy.canary.dynamic_stable = true;
        seen.spec.replicas = 4;
    });
    halves(&mut world, "1m");
    change(&mut world, "v2", harmless());
    let until = minutes_on(&world, 60);
    let promoting = |o: &Observation| {
        let change = o.status.change.as_ref();
        change.is_some_and(|it| it.stage == Stage::Promoting) && o.replica_sets[1].replicas == 4
    };
    assert!(world.run(until, &mut steady(5_000.0, 0.0, 0.0), promoting));
    let canary = &mut world.observation.replica_sets[1];
    assert!(canary.available < 4);
    (canary.current, canary.available, canary.ready) = (4, 4, 4);
    world.observation.now = minutes_on(&world, 11);
    world.observation.spec.replicas = 2;
    let until = minutes_on(&world, 30);
    assert!(world.run(
        until,
        &mut steady(5_000.0, 0.0, 0.0),
        rolled_back_or_promoted
    ));
    lawful(&world);
    assert_eq!(world.observation.status.phase, Phase::Stable);
}

/// Pods that another writer requests are no progress.
#[test]
pub(crate) fn a_foreign_scaler_does_not_put_the_deadline_off() {
    let mut world = serving();
    world.pods_ready_after = None;
    halves(&mut world, "5m");
    change(&mut world, "v2", harmless());
    let began = world.observation.now;
    for _ in 1..30 {
        let until = minutes_on(&world, 1);
        if world.run(until, &mut steady(5_000.0, 0.0, 0.0), |o| {
            o.status.phase == Phase::Degraded
        }) {
            break;
        }
        for set in world.observation.replica_sets.iter_mut().skip(1) {
            set.replicas += 1;
            set.current = set.replicas;
        }
    }
    assert_eq!(world.observation.status.phase, Phase::Degraded);
    let took = world.observation.now.duration_since(began).as_mins();
    assert!((10..=13).contains(&took), "{took} min");
}

/// One pod that comes and goes is no progress: it only delays what must end.
#[test]
pub(crate) fn a_pod_that_comes_and_goes_does_not_put_the_deadline_off() {
    let mut world = serving();
    world.pods_ready_after = None;
    halves(&mut world, "5m");
    change(&mut world, "v2", harmless());
    let began = world.observation.now;
    for minute in 1..30 {
        let until = minutes_on(&world, 1);
        if world.run(until, &mut steady(5_000.0, 0.0, 0.0), |o| {
            o.status.phase == Phase::Degraded
        }) {
            break;
        }
        for set in world.observation.replica_sets.iter_mut().skip(1) {
            set.available = minute % 2;
            set.ready = set.available;
        }
    }
    assert_eq!(world.observation.status.phase, Phase::Degraded);
    let took = world.observation.now.duration_since(began).as_mins();
    assert!((10..=13).contains(&took), "{took} min");
}
