//! Clocks: what counts as progress, and which deadline runs during which hold.

use countersign::api::rollout::Stage;

use super::people::{approve, asking, command, go_on, minutes_on, step, waits_for};
use super::*;

/// A world in which v1 serves with so many pods, of which one more at a time may be replaced.
fn crowded(replicas: i32, surge: i32, deadline: i32) -> World {
    let mut first = observation("v1");
    first.spec.replicas = replicas;
    first.spec.progress_deadline_seconds = deadline;
    let canary = &mut first.spec.strategy.canary;
    canary.max_surge = k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(surge);
    let mut world = World::new(first);
    assert!(world.run(after(20), &mut steady(1_000.0, 0.0, 0.0), World::at_rest));
    world
}

fn rolled_back_or_promoted(o: &Observation) -> bool {
    o.status.phase == Phase::Degraded || (World::at_rest(o) && o.status.revision == 2)
}

fn stage(world: &World) -> Stage {
    world.observation.status.change.as_ref().unwrap().stage
}

fn at(o: &Observation, reason: &str) -> Timestamp {
    let change = o.status.change.as_ref().unwrap();
    let line = change.transitions.iter().find(|line| line.reason == reason);
    let line = line.unwrap_or_else(|| panic!("{reason} in {:?}", change.transitions));
    line.at.as_ref().unwrap().0
}

/// Each row ended in a rollback at the deadline, always at the last step (FOUND.md C1, R4).
#[test]
fn each_available_pod_is_progress_however_long_all_of_them_take() {
    for (replicas, surge, deadline, ready_after) in [
        (20, 1, 60, 2),
        (8, 1, 60, 20),
        (20, 1, 600, 90),
        (50, 1, 600, 20),
        (200, 1, 600, 4),
        (100, 10, 600, 150),
        (1_000, 100, 600, 150),
        (10, 1, 10, 8),
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
fn a_first_revision_whose_pods_come_one_by_one_is_not_stalled() {
    let mut first = observation("v1");
    first.spec.progress_deadline_seconds = 60;
    let mut world = World::new(first);
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
fn pods_that_stop_coming_end_the_change_one_deadline_after_the_last_of_them() {
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

/// One pod that comes and goes is no progress: it only delays what must end.
#[test]
fn a_pod_that_comes_and_goes_does_not_put_the_deadline_off() {
    let mut world = serving();
    world.pods_ready_after = None;
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

/// While people are waited for, one error after hours makes what had passed scarce (FOUND.md C6).
#[test]
fn evidence_that_becomes_scarce_after_a_long_sign_off_wait_has_its_whole_time() {
    use countersign::api::policy::OnScarceEvidence;
    for on_scarce in [
        OnScarceEvidence::RollBack,
        OnScarceEvidence::Hold,
        OnScarceEvidence::Extend,
    ] {
        let mut world = serving();
        let mut policy = unattended();
        let low = &mut policy.spec.tiers.low;
        low.promotion_sign_off = Some(serde_json::from_value(json!([{ "count": 1 }])).unwrap());
        low.on_scarce_evidence = Some(on_scarce);
        world.observation.policies = vec![policy];
        change(&mut world, "v2", harmless());
        let until = minutes_on(&world, 180);
        world.run(until, &mut steady(40.0, 0.0, 0.0), |_| false);
        assert_eq!(waits_for(&world), Some("AwaitingSignOff"));
        // Some errors on either side: nothing to roll back for, and too little to go on by.
        let mut errors = steady(40.0, 0.06, 0.02);
        let scarce = |o: &Observation| o.status.waiting_for.as_deref() == Some("AwaitingEvidence");
        let until = minutes_on(&world, 30);
        assert!(world.run(until, &mut errors, scarce), "{on_scarce:?}");
        let since = world.observation.now;
        let over = |o: &Observation| o.status.waiting_for.as_deref() != Some("AwaitingEvidence");
        let until = minutes_on(&world, 60);
        world.run(until, &mut steady(1.0, 0.0, 0.0), over);
        let took = world.observation.now.duration_since(since).as_secs();
        assert!(took >= 570, "{on_scarce:?}: {took} s");
        lawful(&world);
    }
}
