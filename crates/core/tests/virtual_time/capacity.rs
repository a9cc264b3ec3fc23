//! Pods and Services in virtual time: whatever comes next, what serves keeps the pods that it needs.

mod drains;
mod losses;

use countersign_api::rollout::{Outcome, Stage};
use countersign_api::{Duration, HASH_LABEL, Step};
use countersign_core::decision::{Action, TrafficAction, WorkloadAction};
use countersign_core::observation::Observation;
use countersign_core::observation::workload::{ReplicaSet, Service};
use countersign_core::simulation::world::World;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::SignedDuration;

use crate::routes::{self, routed, weights};
use crate::{after, begin, observation, steady, template};

pub(crate) use drains::*;
pub(crate) use losses::*;

/// Long after everything has ended.
const DAYS: i64 = 60 * 24 * 10;

/// A Rollout whose stable Service carries everything, and whose first revision serves.
fn directed(edit: impl Fn(&mut Observation)) -> World {
    let mut seen = observation("v1");
    for name in routes::SERVICES {
        let service = Service {
            kind: "ClusterIP".into(),
            selector: [("app".into(), "shop".into())].into(),
        };
        seen.traffic.services.insert(name.into(), Some(service));
    }
    let canary = &mut seen.spec.strategy.canary;
    canary.stable_service = Some(routes::SERVICES[0].into());
    canary.canary_service = Some(routes::SERVICES[1].into());
    canary.steps = vec![Step {
        weight: 0,
        scale: Some(100),
        bake: Duration::minutes(1),
        ..Step::default()
    }];
    seen.spec.replicas = 10;
    edit(&mut seen);
    let mut world = begin(seen);
    let rests = world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), |seen| {
        World::at_rest(seen) && behind_stable(seen).is_some()
    });
    assert!(rests, "{:?}", world.observation.status);
    world
}

fn surge(observation: &mut Observation, surge: i32, unavailable: i32) {
    let canary = &mut observation.spec.strategy.canary;
    // All of the workload at any size, or so many pods.
    canary.max_surge = if surge == observation.spec.replicas {
        IntOrString::String("100%".into())
    } else {
        IntOrString::Int(surge)
    };
    canary.max_unavailable = IntOrString::Int(unavailable);
}

fn push(world: &mut World, version: &str) {
    world.observation.spec.template.0 = template(version);
    world.observation.annotations = crate::of_version(crate::harmless(), version);
    world.observation.generation += 1;
}

fn of<'a>(observation: &'a Observation, version: &str) -> Option<&'a ReplicaSet> {
    let image = format!("example.org/shop:{version}");
    let mut sets = observation.replica_sets.iter();
    sets.find(|set| set.template.images() == [image.as_str()])
}

fn available(observation: &Observation, version: &str) -> i32 {
    of(observation, version).map_or(0, |set| set.available)
}

/// The ReplicaSet that the stable Service selects.
fn behind_stable(observation: &Observation) -> Option<&ReplicaSet> {
    let service = observation.traffic.services[routes::SERVICES[0]].as_ref()?;
    let hash = service.selector.get(HASH_LABEL)?;
    observation
        .replica_sets
        .iter()
        .find(|set| set.hash == *hash)
}

fn is_stable(observation: &Observation, version: &str) -> bool {
    let stable = observation.status.stable.as_ref();
    let hash = of(observation, version).map(|set| &set.hash);
    stable.map(|it| &it.pod_template_hash) == hash && hash.is_some()
}

fn stage(observation: &Observation) -> Option<Stage> {
    observation.status.change.as_ref().map(|it| it.stage)
}

#[test]
pub(super) fn law_4_a_stable_service_without_routes_keeps_its_pods_until_it_moves() {
    for (replicas, more, fewer) in [(10, 3, 0), (10, 1, 0), (10, 0, 1), (1, 0, 1), (4, 4, 1)] {
        let mut world = directed(|seen| {
            seen.spec.replicas = replicas;
            surge(seen, more, fewer);
        });
        push(&mut world, "v2");
        let case = format!("{replicas} pods, surge {more}, {fewer} unavailable");
        let least = (replicas - fewer).max(1);
        let promoted = world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), |seen| {
            let served = behind_stable(seen).unwrap().available;
            assert!(served >= least, "{case}: {served} pods behind the Service");
            is_stable(seen, "v2") && World::at_rest(seen)
        });
        assert!(promoted, "{case}: {:?}", world.observation.status.message);
        assert_eq!(of(&world.observation, "v1").unwrap().replicas, 0);
        assert_eq!(world.broken, [], "{case}");
    }
}

/// v2 was promoted and regressed just now, v1 is stable again and has no pods yet.
fn regressed(mut world: World) -> World {
    let analysis = world.observation.spec.strategy.canary.analysis.as_mut();
    let analysis = analysis.unwrap();
    analysis.post_promotion = Some(Duration::minutes(30));
    analysis.checks[0].ceiling = Some(0.02);
    push(&mut world, "v2");
    let watched = world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), |seen| {
        let gone = of(seen, "v1").is_some_and(|set| set.current == 0);
        is_stable(seen, "v2") && gone
    });
    assert!(watched, "{:?}", world.observation.status);
    world.pods_ready_after = Some(SignedDuration::from_mins(2));
    let back = world.run(after(DAYS), &mut steady(5_000.0, 0.9, 0.0), |seen| {
        is_stable(seen, "v1")
    });
    assert!(back, "{:?}", world.observation.status);
    assert_eq!(available(&world.observation, "v1"), 0);
    world
}

#[test]
pub(super) fn law_4_a_newer_change_does_not_move_the_stable_service_to_a_revision_without_pods() {
    let worlds = vec![
        directed(|_| {}),
        directed(|seen| surge(seen, 2, 0)),
        routed(|_| {}),
        routed(|seen| surge(seen, 4, 0)),
    ];
    for world in worlds {
        for version in ["v3", "v1"] {
            let mut world = regressed(world.clone());
            push(&mut world, version);
            let least = world.observation.spec.replicas;
            let mut moved = false;
            let done = world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), |seen| {
                let served = behind_stable(seen).unwrap();
                let pods = served.available;
                assert!(
                    moved || pods >= least,
                    "{version}: {pods} pods behind the Service"
                );
                moved |= served.template.images() == ["example.org/shop:v1"];
                is_stable(seen, version) && World::at_rest(seen)
            });
            assert!(done && moved, "{version}: {:?}", world.observation.status);
            assert_eq!(world.broken, []);
        }
    }
}

#[test]
pub(super) fn law_4_a_rollout_that_is_deleted_in_a_return_keeps_its_service_where_pods_are() {
    let mut world = regressed(directed(|_| {}));
    push(&mut world, "v3");
    world.observation.deleting = true;
    for _ in 0..60 {
        let decision = world.reconcile(&mut steady(500.0, 0.0, 0.0));
        world.carry_out(&decision, usize::MAX);
        assert!(behind_stable(&world.observation).unwrap().available > 0);
        world.observation.now += SignedDuration::from_secs(1);
    }
}

#[test]
pub(super) fn law_4_a_newer_change_gives_a_dynamic_stable_side_no_more_than_it_can_carry() {
    for version in ["v3", "v1"] {
        let mut world = routed(|seen| seen.spec.strategy.canary.dynamic_stable = true);
        push(&mut world, "v2");
        let halved = |seen: &Observation| {
            weights(seen) == (50, 50) && of(seen, "v1").unwrap().replicas == 10
        };
        assert!(world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), halved));
        world.pods_ready_after = Some(SignedDuration::from_mins(4));
        push(&mut world, version);
        let done = world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), |seen| {
            let carried = i64::from(available(seen, "v1")) * 100 / 20;
            let whole = available(seen, "v2") == 0 || is_stable(seen, "v3");
            assert!(
                whole || weights(seen).0 <= carried.max(50),
                "{version}: {:?} for {} pods of stable",
                weights(seen),
                available(seen, "v1")
            );
            is_stable(seen, version) && World::at_rest(seen)
        });
        assert!(done, "{version}: {:?}", world.observation.status);
        assert_eq!((world.broken, world.lost), (vec![], vec![]));
    }
}

/// A promotion in its midst, held by `spec.paused`.
fn held(mut world: World) -> World {
    push(&mut world, "v2");
    let begun = world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), |seen| {
        stage(seen) == Some(Stage::Promoting)
    });
    assert!(begun, "{:?}", world.observation.status);
    world.observation.spec.paused = true;
    world.observation.generation += 1;
    world.run(
        after(world_minutes(&world) + 2),
        &mut steady(500.0, 0.0, 0.0),
        |_| false,
    );
    assert_eq!(stage(&world.observation), Some(Stage::Promoting));
    world
}

fn world_minutes(world: &World) -> i64 {
    world.observation.now.as_second() / 60
}

fn share_of_pods(observation: &Observation) -> f64 {
    let (stable, canary) = (of(observation, "v1"), of(observation, "v2"));
    let of = |set: Option<&ReplicaSet>| f64::from(set.map_or(0, |set| set.replicas));
    of(canary) / (of(stable) + of(canary))
}

#[test]
pub(super) fn a_held_promotion_follows_the_rollout_and_keeps_its_split() {
    let unrouted = |more: i32| {
        let mut seen = observation("v1");
        surge(&mut seen, more, 0);
        let mut world = begin(seen);
        assert!(world.run(after(10), &mut steady(500.0, 0.0, 0.0), World::at_rest));
        world
    };
    let worlds = vec![
        unrouted(20),
        unrouted(5),
        directed(|seen| seen.spec.replicas = 20),
        routed(|_| {}),
        routed(|seen| surge(seen, 5, 0)),
        routed(|seen| seen.spec.strategy.canary.dynamic_stable = true),
    ];
    for (place, world) in worlds.into_iter().enumerate() {
        let world = held(world);
        let (share, routed) = (share_of_pods(&world.observation), place >= 3);
        let before = routed.then(|| weights(&world.observation));
        let resting = world.observation.replica_sets.clone();
        for replicas in [40, 20, 10, 1, 0, 20] {
            let mut world = world.clone();
            world.observation.spec.replicas = replicas;
            world.observation.generation += 1;
            let until = after(world_minutes(&world) + 20);
            world.run(until, &mut steady(500.0, 0.0, 0.0), |_| false);
            let seen = &world.observation;
            let case = format!("{place}: {replicas}: {:?}", seen.status.message);
            assert_eq!(stage(seen), Some(Stage::Promoting), "{case}");
            let all = available(seen, "v1") + available(seen, "v2");
            assert!(all >= replicas, "{case}: {all} pods");
            let most = replicas + if [1, 4].contains(&place) { 5 } else { replicas };
            assert!(all <= most, "{case}: {all} pods");
            if replicas == 20 {
                let now: Vec<_> = seen.replica_sets.iter().map(|it| it.replicas).collect();
                let then: Vec<_> = resting.iter().map(|it| it.replicas).collect();
                assert_eq!(now, then, "{case}: what nobody scaled moved");
            }
            if replicas >= 10 && place < 2 {
                let now = share_of_pods(seen);
                assert!((now - share).abs() < 0.1, "{case}: {share} to {now}");
            }
            if let Some(before) = before {
                assert!(weights(seen).1 <= before.1, "{case}: the share rose");
            }
            assert_eq!(world.broken, [], "{case}");
        }
    }
}

#[test]
pub(super) fn a_promotion_with_a_closed_gate_gets_no_more_traffic() {
    let mut world = routed(|_| {});
    push(&mut world, "v2");
    let begun = |seen: &Observation| stage(seen) == Some(Stage::Promoting);
    assert!(world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), begun));
    let share = weights(&world.observation);
    world.observation.unreadable_policies = vec!["RolloutPolicy x cannot be read".into()];
    let until = after(world_minutes(&world) + 5);
    world.run(until, &mut steady(500.0, 0.0, 0.0), |seen| {
        assert_eq!(weights(seen), share);
        false
    });
    assert_eq!(stage(&world.observation), Some(Stage::Promoting));
    world.observation.unreadable_policies.clear();
    assert!(
        world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), |seen| {
            is_stable(seen, "v2") && World::at_rest(seen)
        })
    );
    assert_eq!((world.broken, world.lost), (vec![], vec![]));
}

#[test]
pub(super) fn the_history_keeps_the_revisions_that_were_used_last() {
    let mut world = begin(observation("v1"));
    world.observation.spec.revision_history_limit = 2;
    let mut traffic = steady(5_000.0, 0.0, 0.0);
    for version in ["v1", "v2", "v3", "v1", "v5"] {
        push(&mut world, version);
        let done = world.run(after(DAYS), &mut traffic, |seen| {
            let alone = seen.replica_sets.iter().filter(|set| set.current > 0);
            is_stable(seen, version) && World::at_rest(seen) && alone.count() == 1
        });
        assert!(done, "{version}: {:?}", world.observation.status);
    }
    let until = after(world_minutes(&world) + 5);
    world.run(until, &mut traffic, |_| false);
    let mut kept: Vec<_> = world.observation.replica_sets.iter().collect();
    kept.sort_by_key(|set| set.revision);
    let kept: Vec<_> = kept
        .iter()
        .map(|set| (set.template.images()[0], set.revision))
        .collect();
    let image = |version: &str| format!("example.org/shop:{version}");
    assert_eq!(
        kept,
        [
            (image("v3").as_str(), 3),
            (image("v1").as_str(), 4),
            (image("v5").as_str(), 5)
        ]
    );
}

/// `undo` goes back to what was stable, and not to a change that was replaced before it served.
#[test]
pub(super) fn the_history_keeps_what_was_stable_last_rather_than_what_was_tried_last() {
    let mut world = begin(observation("v1"));
    world.observation.spec.revision_history_limit = 1;
    let mut traffic = steady(5_000.0, 0.0, 0.0);
    for version in ["v1", "v2", "v1", "v3"] {
        if version == "v3" {
            push(&mut world, "v2");
            let begun = |seen: &Observation| stage(seen) == Some(Stage::Stepping);
            assert!(world.run(after(DAYS), &mut traffic, begun));
        }
        push(&mut world, version);
        let done = world.run(after(DAYS), &mut traffic, |seen| {
            let alone = seen.replica_sets.iter().filter(|set| set.current > 0);
            is_stable(seen, version) && World::at_rest(seen) && alone.count() == 1
        });
        assert!(done, "{version}: {:?}", world.observation.status);
    }
    let until = after(world_minutes(&world) + 5);
    world.run(until, &mut traffic, |_| false);
    let kept = world.observation.replica_sets.iter();
    let mut kept: Vec<_> = kept.map(|set| set.template.images()[0]).collect();
    kept.sort_unstable();
    assert_eq!(kept, ["example.org/shop:v1", "example.org/shop:v3"]);
}

#[test]
pub(super) fn a_service_that_the_spec_names_no_more_is_released() {
    let mut world = directed(|_| {});
    let name = routes::SERVICES[0].to_owned();
    assert!(world.observation.status.services.contains(&name));
    world.observation.spec.strategy.canary.stable_service = None;
    let service = world
        .observation
        .traffic
        .services
        .remove(&name)
        .flatten()
        .unwrap();
    world
        .observation
        .traffic
        .former_services
        .insert(name.clone(), service);
    let decision = world.reconcile(&mut steady(500.0, 0.0, 0.0));
    let release = Action::Traffic(TrafficAction::ReleaseService {
        service: name.clone(),
    });
    assert!(
        decision.actions.contains(&release),
        "{:?}",
        decision.actions
    );
    assert!(
        decision
            .notices
            .iter()
            .any(|it| it.reason == "ServiceReleased")
    );
    assert!(
        decision.status.services.contains(&name),
        "until it was seen released"
    );
    world.carry_out(&decision, usize::MAX);
    let decision = world.reconcile(&mut steady(500.0, 0.0, 0.0));
    assert!(!decision.status.services.contains(&name));
    assert_eq!(decision.actions, []);

    // What another Rollout keeps on its own revision is not touched.
    let other = Service {
        kind: "ClusterIP".into(),
        selector: [(HASH_LABEL.into(), "another".into())].into(),
    };
    world
        .observation
        .traffic
        .former_services
        .insert(name, other);
    let decision = world.reconcile(&mut steady(500.0, 0.0, 0.0));
    assert_eq!(decision.actions, []);
    assert_eq!(world.outcomes(), [Some(Outcome::Promoted)]);
}

#[test]
pub(super) fn a_replica_set_whose_labels_were_taken_off_gets_them_again_and_is_kept() {
    let mut world = directed(|_| {});
    world.observation.replica_sets[0].labels_missing = true;
    let decision = world.reconcile(&mut steady(500.0, 0.0, 0.0));
    let replica_set = world.observation.replica_sets[0].name.clone();
    let adopt = WorkloadAction::Adopt { replica_set };
    assert_eq!(decision.actions, [Action::Workload(adopt)]);
}
