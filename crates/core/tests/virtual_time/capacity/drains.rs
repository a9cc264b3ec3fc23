//! Pods that have just left the traffic are kept until it has drained.

use super::*;

#[test]
pub(crate) fn pods_of_a_superseded_change_drain_though_the_stable_template_follows() {
    let mut world = routed(|_| {});
    push(&mut world, "v2");
    let halved = |seen: &Observation| weights(seen) == (50, 50) && available(seen, "v2") > 0;
    assert!(world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), halved));
    let mut traffic = steady(500.0, 0.0, 0.0);
    push(&mut world, "v3");
    let decision = world.reconcile(&mut traffic);
    world.carry_out(&decision, usize::MAX);
    push(&mut world, "v1");
    let mut accepted = None;
    let gone = world.run(after(DAYS), &mut traffic, |seen| {
        let object = &seen.traffic.routes[0].object.as_ref().unwrap().object;
        let taken = object["status"]["parents"][0]["conditions"][0]["observedGeneration"]
            == object["metadata"]["generation"];
        if taken && weights(seen) == (100, 0) {
            accepted.get_or_insert(seen.now);
        }
        of(seen, "v2").unwrap().replicas == 0
    });
    assert!(gone);
    let took = world.observation.now.duration_since(accepted.unwrap());
    assert!(took >= SignedDuration::from_secs(5), "{took:#}");
}

#[test]
pub(crate) fn pods_of_the_revision_before_drain_behind_plain_services_though_a_newer_change_comes()
{
    let mut world = directed(|_| {});
    push(&mut world, "v2");
    let moved = world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), |seen| {
        behind_stable(seen).unwrap().template.images() == ["example.org/shop:v2"]
    });
    assert!(moved);
    let at = world.observation.now;
    push(&mut world, "v3");
    let gone = world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), |seen| {
        of(seen, "v1").unwrap().replicas < 10
    });
    assert!(gone);
    let took = world.observation.now.duration_since(at);
    assert!(took >= SignedDuration::from_secs(5), "{took:#}");
}

#[test]
pub(crate) fn pods_that_are_kept_for_the_way_back_follow_the_rollout() {
    for (more, grown) in [(10, 20), (3, 10)] {
        let mut world = routed(|seen| {
            seen.spec.replicas = 10;
            surge(seen, more, 0);
            seen.spec.strategy.canary.scale_down_delay = Duration::minutes(600);
        });
        push(&mut world, "v2");
        let mut traffic = steady(500.0, 0.0, 0.0);
        assert!(world.run(after(DAYS), &mut traffic, |seen| is_stable(seen, "v2")));
        let kept = of(&world.observation, "v1").unwrap().replicas;
        for (replicas, wanted) in [(0, 0), (20, if more == 10 { 20 } else { 0 })] {
            world.observation.spec.replicas = replicas;
            world.observation.generation += 1;
            let until = after(world_minutes(&world) + 5);
            world.run(until, &mut traffic, |_| false);
            let seen = &world.observation;
            assert_eq!(available(seen, "v2"), replicas, "of {grown}");
            let left = of(seen, "v1").unwrap().replicas;
            assert_eq!(left, wanted, "{kept} were kept: {:?}", seen.status);
        }
        assert_eq!(world.broken, []);
    }
}

/// Whether any of v2's and v1's pods went before the drain, once the stable Service had left them.
fn drains(world: &mut World, left: &str) {
    let at = world.observation.now;
    let moved = |seen: &Observation| {
        behind_stable(seen).unwrap().template.images() != [format!("example.org/shop:{left}")]
    };
    let mut since = moved(&world.observation).then_some(at);
    let requested = of(&world.observation, left).unwrap().replicas;
    let gone = world.run(after(DAYS), &mut steady(5_000.0, 0.0, 0.0), |seen| {
        if moved(seen) {
            since.get_or_insert(seen.now);
        }
        of(seen, left).unwrap().replicas < requested
    });
    assert!(gone, "{:?}", world.observation.status);
    let took = world.observation.now.duration_since(since.unwrap());
    assert!(took >= SignedDuration::from_secs(5), "{left}: {took:#}");
    assert_eq!((world.broken.clone(), world.lost.clone()), (vec![], vec![]));
}

/// Found by the model: with the old pods still there, the rejected ones went in the very decision that moved
/// the Service off them.
#[test]
pub(crate) fn a_rejected_revision_that_was_promoted_drains_behind_plain_services() {
    let mut world = directed(|seen| {
        seen.spec.strategy.canary.scale_down_delay = Duration::minutes(30);
    });
    // The first revision took the Service over, which is not what is tested.
    let until = world.observation.now + SignedDuration::from_mins(1);
    world.run(until, &mut steady(500.0, 0.0, 0.0), |_| false);
    world.lost.clear();
    let analysis = world.observation.spec.strategy.canary.analysis.as_mut();
    let analysis = analysis.unwrap();
    analysis.post_promotion = Some(Duration::minutes(30));
    analysis.checks[0].ceiling = Some(0.02);
    push(&mut world, "v2");
    let promoted = world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), |seen| {
        is_stable(seen, "v2")
    });
    assert!(promoted, "{:?}", world.observation.status);
    let back = world.run(after(DAYS), &mut steady(5_000.0, 0.9, 0.0), |seen| {
        is_stable(seen, "v1")
    });
    assert!(back, "{:?}", world.observation.status);
    assert_eq!(available(&world.observation, "v2"), 10, "they drain");
    drains(&mut world, "v2");
}

/// Found by the model: a newer change that runs what was stable just before is not in a hurry either.
#[test]
pub(crate) fn the_revision_before_drains_though_the_newer_change_is_it_again() {
    let mut world = directed(|_| {});
    push(&mut world, "v2");
    let moved = world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), |seen| {
        behind_stable(seen).unwrap().template.images() == ["example.org/shop:v2"]
    });
    assert!(moved);
    push(&mut world, "v1");
    let drained = world.observation.now + SignedDuration::from_secs(5);
    let mut reconciles = 0;
    world.run(drained, &mut steady(500.0, 0.0, 0.0), |seen| {
        reconciles += 1;
        assert_eq!(available(seen, "v1"), 10, "after {reconciles} reconciles");
        false
    });
    assert!(reconciles > 1 && world.observation.status.change.is_some());
}
