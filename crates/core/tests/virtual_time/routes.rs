//! Routes in virtual time: every share is reached, and no router ever sends to pods that are not there.

mod edits;
mod routers;

use countersign_api::rollout::{Outcome, Stage};
use countersign_api::{Duration, Phase, RouteReference, Step, Traffic};
use countersign_core::analysis::statistics::Counts;
use countersign_core::decide;
use countersign_core::observation::Observation;
use countersign_core::observation::traffic::{Absence, Route, RouteObject};
use countersign_core::observation::windows::WindowOutcome;
use countersign_core::observation::workload::Service;
use countersign_core::simulation::router::accept;
use countersign_core::simulation::world::World;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{after, begin, observation, steady, template};

pub(crate) use routers::*;

/// Long after everything has ended.
const DAYS: i64 = 60 * 24 * 10;

pub const SERVICES: [&str; 2] = ["web", "web-canary"];

fn route() -> Value {
    let backend = |name: &str, weight: i32| json!({ "name": name, "port": 80, "weight": weight });
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "name": "web", "uid": "u", "generation": 1 },
        "spec": { "parentRefs": [{ "name": "gate" }], "rules": [
            { "backendRefs": [backend("search", 1)] },
            { "backendRefs": [backend(SERVICES[0], 1), backend(SERVICES[1], 0)] },
        ] },
    })
}

/// A Rollout behind an HTTPRoute, whose first revision serves.
pub(crate) fn routed(edit: impl Fn(&mut Observation)) -> World {
    let mut seen = observation("v1");
    for name in SERVICES {
        let service = Service {
            kind: "ClusterIP".into(),
            selector: [("app".into(), "shop".into())].into(),
        };
        seen.traffic.services.insert(name.into(), Some(service));
    }
    let canary = &mut seen.spec.strategy.canary;
    canary.stable_service = Some(SERVICES[0].into());
    canary.canary_service = Some(SERVICES[1].into());
    let reference = RouteReference {
        name: "web".into(),
        ..RouteReference::default()
    };
    canary.traffic = Some(Traffic {
        routes: vec![reference.clone()],
        testers: None,
    });
    seen.traffic.routes = vec![Route {
        reference,
        object: Ok(RouteObject {
            object: route(),
            last_writer: None,
        }),
        destination_rule: None,
        testers: None,
    }];
    edit(&mut seen);
    let mut world = begin(seen);
    let rests = world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), World::at_rest);
    assert!(rests, "{:?}", world.observation.status);
    assert_eq!(world.broken, []);
    // What came before is not what is tested.
    let until = world.observation.now + SignedDuration::from_mins(1);
    world.run(until, &mut steady(500.0, 0.0, 0.0), |_| false);
    world.lost.clear();
    world
}

/// The same with so much room for pods.
fn crowded(replicas: i32, surge: i32, unavailable: i32, dynamic: bool) -> World {
    routed(|seen| {
        let canary = &mut seen.spec.strategy.canary;
        canary.dynamic_stable = dynamic;
        canary.max_surge = IntOrString::Int(surge);
        canary.max_unavailable = IntOrString::Int(unavailable);
        seen.spec.replicas = replicas;
    })
}

pub fn weights(observation: &Observation) -> (i64, i64) {
    let object = observation.traffic.routes[0].object.as_ref().unwrap();
    let weight = |n: usize| {
        object.object["spec"]["rules"][1]["backendRefs"][n]["weight"]
            .as_i64()
            .unwrap()
    };
    (weight(0), weight(1))
}

fn change(world: &mut World, version: &str) {
    world.observation.spec.template.0 = template(version);
    world.observation.annotations = crate::of_version(crate::harmless(), version);
    world.observation.generation += 1;
}

/// Finding F3: an Ingress of the team's own sends to the canary's Service, past the steps.
#[test]
pub(super) fn law_1_a_canary_with_far_more_than_its_weight_is_held_and_then_rolled_back() {
    let mut world = routed(|seen| {
        let checks = json!([{ "name": "errors", "preset": "Traefik" }]);
        let analysis = json!({ "interval": "10s", "checks": checks });
        seen.spec.strategy.canary.analysis = serde_json::from_value(analysis).unwrap();
    });
    let mut fair = world.clone();
    change(&mut world, "v2");
    let clean = |requests| Counts {
        requests,
        errors: 0.0,
    };
    let mut past = |_: Timestamp, _: f64| WindowOutcome::Counted {
        canary: clean(900.0),
        stable: clean(100.0),
    };
    let held = |it: &Observation| it.status.waiting_for.as_deref() == Some("AboveWeight");
    assert!(world.run(after(DAYS), &mut past, held));
    let status = &world.observation.status;
    assert!(
        status.message.contains("the canary had 90% of"),
        "{}",
        status.message
    );
    assert_eq!(status.change.as_ref().unwrap().step, 1);
    let ended = |it: &Observation| it.status.phase == Phase::Degraded;
    assert!(world.run(after(DAYS), &mut past, ended));
    let change_of = |world: &World| world.observation.status.change.clone().unwrap();
    let mut lines = change_of(&world).transitions.into_iter();
    let line = lines.find(|line| line.reason == "ProgressDeadlineExceeded");
    let line = line.unwrap();
    assert!(line.message.contains("AboveWeight"), "{}", line.message);
    assert_eq!(world.broken, []);

    // The same change with the share of its weight is promoted.
    change(&mut fair, "v2");
    let promoted = |it: &Observation| {
        assert!(!held(it), "{}", it.status.message);
        World::at_rest(it) && it.status.revision == 2
    };
    assert!(fair.run(after(DAYS), &mut steady(5_000.0, 0.0, 0.0), promoted));
}

/// Blue-green is one switch: all of the traffic is on one side or on the other, and never between.
#[test]
pub(super) fn blue_green_switches_from_nothing_to_all_at_once() {
    let mut world = routed(|seen| {
        let steps = json!([{ "weight": 0, "scale": 100, "bake": "5m" }]);
        seen.spec.strategy.canary.steps = serde_json::from_value(steps).unwrap();
        seen.policies[0].spec.tiers.low.min_final_weight = Some(0);
    });
    change(&mut world, "v2");
    let mut seen = vec![];
    let rests = world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), |observation| {
        let share = weights(observation);
        if seen.last() != Some(&share) {
            seen.push(share);
        }
        let stable = observation.status.stable.as_ref();
        stable.is_some_and(|it| it.revision == 2) && World::at_rest(observation)
    });
    assert!(rests, "{:?}", world.observation.status);
    // The last is the Service of what is stable now.
    assert_eq!(seen, [(100, 0), (0, 100), (100, 0)]);
    assert_eq!((world.broken.clone(), world.lost.clone()), (vec![], vec![]));
}

#[test]
pub(super) fn a_healthy_change_takes_each_weight_exactly_and_all_at_last() {
    let mut world = routed(|_| {});
    change(&mut world, "v2");
    let mut seen = vec![];
    let rests = world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), |observation| {
        let share = weights(observation);
        if seen.last() != Some(&share) {
            seen.push(share);
        }
        let promoted = observation
            .status
            .stable
            .as_ref()
            .is_some_and(|it| it.revision == 2);
        promoted && World::at_rest(observation)
    });
    assert!(rests, "{:?}", world.observation.status);
    assert_eq!(
        seen,
        [(100, 0), (95, 5), (75, 25), (50, 50), (0, 100), (100, 0)]
    );
    assert_eq!((world.broken.clone(), world.lost.clone()), (vec![], vec![]));
    let old = world
        .observation
        .replica_sets
        .iter()
        .find(|set| set.revision == 1)
        .unwrap();
    assert_eq!(old.replicas, 0);
    assert_eq!(
        world.observation.traffic.routes[0]
            .object
            .as_ref()
            .unwrap()
            .object["spec"]["rules"][0],
        route()["spec"]["rules"][0]
    );
}

#[test]
pub(super) fn a_canary_at_full_size_keeps_its_pods_as_its_traffic_comes() {
    let mut world = routed(|seen| {
        let step = |weight: i32, scale: Option<i32>| Step {
            weight,
            scale,
            ..Step::default()
        };
        let canary = &mut seen.spec.strategy.canary;
        canary.steps = vec![step(0, Some(100)), step(50, None)];
        canary.max_surge = IntOrString::String("100%".into());
    });
    change(&mut world, "v2");
    let mut sizes = vec![];
    let rests = world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), |observation| {
        let mut sets = observation.replica_sets.iter();
        let canary = sets.find(|set| set.revision == 2);
        sizes.extend(canary.map(|set| set.replicas));
        let stable = observation.status.stable.as_ref();
        stable.is_some_and(|it| it.revision == 2) && World::at_rest(observation)
    });
    assert!(rests, "{:?}", world.observation.status);
    sizes.dedup();
    assert_eq!(sizes, [20]);
}

#[test]
pub(super) fn law_3_a_bad_change_loses_its_share_in_the_decision_that_rejects_it() {
    let mut world = routed(|_| {});
    change(&mut world, "v2");
    let mut traffic = steady(500.0, 0.3, 0.0);
    loop {
        let decision = world.reconcile(&mut traffic);
        let rejected = decision
            .status
            .change
            .as_ref()
            .is_some_and(|it| it.outcome == Some(Outcome::RolledBack));
        world.carry_out(&decision, usize::MAX);
        if rejected {
            assert_eq!(weights(&world.observation), (100, 0));
            break;
        }
        world.observation.now += SignedDuration::from_secs(1);
        for set in &mut world.observation.replica_sets {
            (set.available, set.ready) = (set.replicas, set.replicas);
        }
        assert!(world.observation.now < after(DAYS));
    }
    assert!(world.run(after(DAYS), &mut traffic, World::at_rest));
    assert_eq!((world.broken, world.lost), (vec![], vec![]));
}

#[test]
pub(super) fn with_a_dynamic_stable_side_an_abort_gives_it_what_it_can_carry_and_the_rest_as_it_grows()
 {
    let mut world = routed(|seen| seen.spec.strategy.canary.dynamic_stable = true);
    change(&mut world, "v2");
    let mut traffic = steady(500.0, 0.0, 0.0);
    assert!(world.run(after(DAYS), &mut traffic, |observation| {
        let stable = observation
            .replica_sets
            .iter()
            .find(|set| set.revision == 1)
            .unwrap();
        weights(observation) == (50, 50) && stable.replicas == 10
    }));
    let mut bad = steady(5_000.0, 0.9, 0.0);
    let mut shares = vec![];
    assert!(world.run(after(DAYS), &mut bad, |observation| {
        let change = observation.status.change.as_ref().unwrap();
        let stable = observation
            .replica_sets
            .iter()
            .find(|set| set.revision == 1)
            .unwrap();
        if change.stage == Stage::RollingBack && shares.last() != Some(&weights(observation).1) {
            shares.push(weights(observation).1);
            let carried = i64::from(stable.available) * 100 / 20;
            assert!(
                weights(observation).0 <= carried.max(50),
                "{shares:?} {stable:?}"
            );
        }
        World::at_rest(observation)
    }));
    assert_eq!(shares.last(), Some(&0));
    assert_eq!((world.broken, world.lost), (vec![], vec![]));
}

#[test]
pub(super) fn law_4_a_dynamic_stable_side_that_carries_everything_again_keeps_its_pods() {
    let mut world = routed(|seen| seen.spec.strategy.canary.dynamic_stable = true);
    change(&mut world, "v2");
    let mut traffic = steady(500.0, 0.0, 0.0);
    assert!(world.run(after(DAYS), &mut traffic, |observation| {
        let change = observation.status.change.as_ref();
        change.is_some_and(|it| it.stage == Stage::Promoting)
    }));
    // The canary's pods go, which takes its share away; then all pods come before the next reconcile.
    for comes in [false, true] {
        for set in &mut world.observation.replica_sets {
            if comes || set.revision == 2 {
                set.available = if comes { set.replicas } else { 0 };
                set.ready = set.available;
            }
        }
        let decision = world.reconcile(&mut traffic);
        world.carry_out(&decision, usize::MAX);
        assert_eq!(weights(&world.observation), (100, 0));
    }
    assert_eq!(world.broken, []);
    assert!(world.run(after(DAYS), &mut traffic, World::at_rest));
    assert_eq!(world.outcome(), None);
    assert_eq!(world.broken, []);
}

#[test]
pub(super) fn law_4_a_dynamic_stable_side_without_pods_gets_back_no_traffic_that_it_cannot_carry() {
    let mut world = routed(|seen| seen.spec.strategy.canary.dynamic_stable = true);
    change(&mut world, "v2");
    let mut traffic = steady(500.0, 0.0, 0.0);
    let switched = |observation: &Observation| weights(observation) == (0, 100);
    assert!(world.run(after(DAYS), &mut traffic, switched));
    // Before the router has accepted it, stable's pods go, and a larger workload needs more of the canary.
    let mut sets = world.observation.replica_sets.iter_mut();
    let stable = sets.find(|set| set.revision == 1).unwrap();
    (stable.available, stable.ready) = (0, 0);
    world.observation.spec.replicas = 30;
    world.observation.generation += 1;
    assert!(world.run(after(DAYS), &mut traffic, |observation| {
        let change = observation.status.change.as_ref();
        let promoting = change.is_some_and(|it| it.stage == Stage::Promoting);
        assert!(!promoting || switched(observation));
        World::at_rest(observation)
    }));
    assert_eq!((world.outcome(), world.broken), (None, vec![]));
}

#[test]
pub(super) fn a_step_of_weight_0_has_a_pod_for_testers() {
    let mut world = routed(|seen| {
        let canary = &mut seen.spec.strategy.canary;
        canary.steps = serde_json::from_value(json!([{ "weight": 0, "bake": "10m" }])).unwrap();
    });
    change(&mut world, "v2");
    assert!(
        world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), |observation| {
            let canary = observation
                .replica_sets
                .iter()
                .find(|set| set.revision == 2);
            canary.is_some_and(|set| set.available == 1) && weights(observation) == (100, 0)
        })
    );
}

#[test]
pub(super) fn with_little_surge_the_traffic_moves_as_far_as_pods_carry_it_and_back_the_same_way() {
    for surge in [0, 5] {
        let mut world = routed(|seen| {
            let canary = &mut seen.spec.strategy.canary;
            canary.max_surge = IntOrString::Int(surge);
            seen.spec.replicas = 10;
        });
        change(&mut world, "v2");
        let at_half = |observation: &Observation| weights(observation) == (50, 50);
        let reached = world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), at_half);
        assert!(reached, "{surge}: {:?}", world.observation.status.message);
        let mut bad = steady(5_000.0, 0.9, 0.0);
        let mut shares = vec![];
        assert!(world.run(after(DAYS), &mut bad, |observation| {
            let change = observation.status.change.as_ref().unwrap();
            if change.stage == Stage::RollingBack {
                shares.push(weights(observation).1);
            }
            World::at_rest(observation)
        }));
        assert!(shares.is_sorted_by(|a, b| a >= b), "{shares:?}");
        assert_eq!(shares.last(), Some(&0));
        assert_eq!((world.broken, world.lost), (vec![], vec![]));
    }
}

#[test]
pub(super) fn with_little_surge_a_change_is_promoted_all_the_same_and_never_passes_it() {
    for dynamic in [false, true] {
        for replicas in [1, 2, 3, 6, 7, 11, 12] {
            for (surge, unavailable) in [(0, 0), (0, 1), (1, 0), (2, 0), (1, 2)] {
                let mut world = crowded(replicas, surge, unavailable, dynamic);
                change(&mut world, "v2");
                let mut most = 0;
                let rests = world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), |observation| {
                    let requested = observation
                        .replica_sets
                        .iter()
                        .map(|set| set.replicas)
                        .sum();
                    most = most.max(requested);
                    let stable = observation.status.stable.as_ref();
                    stable.is_some_and(|it| it.revision == 2) && World::at_rest(observation)
                });
                let case = format!("{replicas} pods, {surge}, {unavailable}, {dynamic}");
                assert!(rests, "{case}: {:?}", world.observation.status.message);
                // Pods for both shares, rounded up, may be one more.
                assert!(most <= replicas + surge + 1, "{case}: {most} pods");
                assert_eq!((&world.broken, &world.lost), (&vec![], &vec![]), "{case}");
            }
        }
    }
}

#[test]
pub(super) fn a_preview_has_all_its_pods_and_no_share_and_one_switch_follows_where_the_policy_allows_it()
 {
    let mut world = routed(|seen| {
        let low = &mut seen.policies[0].spec.tiers.low;
        low.min_final_weight = Some(0);
        let canary = &mut seen.spec.strategy.canary;
        canary.steps =
            serde_json::from_value(json!([{ "weight": 0, "scale": 100, "bake": "10m" }])).unwrap();
        canary.scale_down_delay = Duration::minutes(30);
    });
    let old = world.observation.spec.template.clone();
    change(&mut world, "v2");
    let mut traffic = steady(500.0, 0.0, 0.0);
    let mut seen = vec![];
    let promoted = |observation: &Observation| {
        observation.status.phase == countersign_api::Phase::Stable
            && observation
                .status
                .stable
                .as_ref()
                .is_some_and(|it| it.revision == 2)
    };
    assert!(
        world.run(after(DAYS), &mut traffic, |observation| {
            let canary = observation
                .replica_sets
                .iter()
                .find(|set| set.revision == 2);
            seen.push((
                weights(observation).1,
                canary.map_or(0, |set| set.available),
            ));
            promoted(observation)
        }),
        "{:?}",
        world.observation.status
    );
    assert!(
        seen.iter()
            .all(|(weight, available)| *weight == 0 || *available == 20),
        "{seen:?}"
    );
    assert!(seen.contains(&(0, 20)) && seen.contains(&(100, 20)));
    let kept = world
        .observation
        .replica_sets
        .iter()
        .find(|set| set.revision == 1)
        .unwrap();
    assert_eq!(kept.available, 20, "the old side is kept");

    // The way back is at once.
    world.observation.spec.template = old;
    let before = world.observation.now;
    assert!(world.run(after(DAYS), &mut traffic, |observation| {
        observation
            .status
            .stable
            .as_ref()
            .is_some_and(|it| it.revision == 1)
            && World::at_rest(observation)
    }));
    assert!(world.observation.now.duration_since(before) < SignedDuration::from_secs(30));
    assert_eq!((world.broken, world.lost), (vec![], vec![]));
}

/// Endpoints are not watched: nothing else would wake a change whose last pod is ready before its endpoint.
#[test]
fn a_change_that_waits_for_endpoints_reads_them_again_soon() {
    let mut world = routed(|_| ());
    change(&mut world, "v2");
    let promoting = |observation: &Observation| {
        let change = observation.status.change.as_ref();
        change.is_some_and(|it| it.stage == Stage::Promoting)
    };
    assert!(world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), promoting));
    let mut seen = world.observation;
    let hash = seen
        .status
        .change
        .as_ref()
        .unwrap()
        .pod_template_hash
        .clone();
    assert!(!decide(&seen).awaits_traffic, "its pods are watched");
    let mut sets = seen.replica_sets.iter_mut();
    let canary = sets.find(|it| it.hash == hash).unwrap();
    assert!(canary.available < canary.replicas);
    canary.available = canary.replicas;
    let behind = [(hash, canary.replicas - 1)].into();
    seen.traffic.endpoints.insert(SERVICES[1].into(), behind);
    let decision = decide(&seen);
    assert!(decision.awaits_traffic);
    let settled = decision.status.traffic.as_ref().unwrap();
    assert!(settled.settled_at.is_some(), "nothing else moves");
    let due = decision.requeue_at.unwrap().duration_since(seen.now);
    assert!(due <= SignedDuration::from_secs(2), "{due}");
}

/// No event tells that a router which reports no generation has had its time.
#[test]
fn a_change_that_takes_the_place_of_another_does_not_wait_for_an_event() {
    let mut world = routed(|_| ());
    world.routers_take = SignedDuration::from_mins(10);
    change(&mut world, "v2");
    let canary = |seen: &Observation| {
        let split = seen.status.traffic.as_ref();
        weights(seen).1 > 0 && split.is_some_and(|it| it.settled_weight > 0)
    };
    assert!(world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), canary));
    change(&mut world, "v3");
    for _ in 0..3 {
        let decision = world.reconcile(&mut steady(500.0, 0.0, 0.0));
        world.carry_out(&decision, usize::MAX);
        let due = decision
            .requeue_at
            .map(|at| at.duration_since(world.observation.now));
        let soon = SignedDuration::from_secs(5);
        assert!(due.is_some_and(|due| due <= soon), "{due:?}");
        assert_eq!(world.outcome(), Some(Outcome::Superseded));
        world.observation.now += SignedDuration::from_millis(100);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_router_ever_sends_to_pods_that_are_not_there(
        replicas in 1..12i32, surge in 0..=12i32, unavailable in 0..3i32, dynamic in any::<bool>(),
        bad in any::<bool>(), take in 0..2_000i64, ready in 0..20i64, superseded_after in 0..400usize, crash in 0..4usize,
    ) {
        let mut world = crowded(replicas, surge, unavailable, dynamic);
        world.routers_take = SignedDuration::from_millis(take);
        world.pods_ready_after = Some(SignedDuration::from_secs(ready));
        change(&mut world, "v2");
        let mut traffic = steady(500.0, if bad { 0.3 } else { 0.0 }, 0.0);
        let mut reconciles = 0;
        world.run(after(DAYS), &mut traffic, |_| { reconciles += 1; reconciles > superseded_after });
        // A crash in the middle of a decision, and another change on top.
        let decision = world.reconcile(&mut traffic);
        world.carry_out(&decision, crash);
        change(&mut world, "v3");
        let mut traffic = steady(500.0, 0.0, 0.0);
        let rests = world.run(after(DAYS), &mut traffic, |observation| {
            let last = observation.status.stable.as_ref().map(|it| it.template_digest.clone());
            let requested = countersign_core::provenance::digest::template_digest(&observation.spec.template);
            last == Some(requested) && World::at_rest(observation)
        });
        prop_assert!(rests, "{:?}", world.observation.status);
        prop_assert_eq!(world.broken, vec![]);
        prop_assert_eq!(world.lost, Vec::<String>::new());
        prop_assert_eq!(weights(&world.observation), (100, 0));
    }
}
