//! The order of changes among Rollouts, and pods that cannot start, in virtual time.

use countersign_api::policy::Concurrency;
use countersign_api::sign_off::SignOffDecision;
use countersign_core::laws;
use countersign_core::observation::people::{ConcurrentChange, Dependency};
use countersign_core::observation::workload::ContainerFailure;
use countersign_core::queue::dependencies::all_stable;

use super::people::{go_on, message, minutes_on, person, sign, step, waits_for};
use super::*;

/// A policy that allows one change of any tier at once in a namespace.
fn one_at_a_time() -> NamedPolicy {
    let mut policy = unattended();
    policy.spec.concurrency = Some(Concurrency {
        from_tier: Tier::Low,
        per_namespace: Some(1),
        per_cluster: None,
    });
    policy
}

/// A change of the same namespace; under way where it is not queued.
fn concurrent_change(queued_at: Option<Timestamp>) -> ConcurrentChange {
    ConcurrentChange {
        namespace: "team".into(),
        name: "login".into(),
        uid: "another".into(),
        policies: vec!["unattended".into()],
        tier: Tier::Low,
        queued_at,
    }
}

fn concurrent_changes(world: &mut World, concurrent_changes: &[ConcurrentChange]) {
    world.observation.concurrent_changes = Some(Ok(concurrent_changes.to_vec()));
}

/// A change that is queued, as another one is under way.
fn queued() -> World {
    let mut world = serving();
    world.observation.policies = vec![one_at_a_time()];
    concurrent_changes(&mut world, &[concurrent_change(None)]);
    change(&mut world, "v2", harmless());
    go_on(&mut world, 1);
    assert_eq!(
        waits_for(&world),
        Some("Queued"),
        "{}",
        world.observation.status.message
    );
    world
}

fn queued_at(world: &World) -> Option<Timestamp> {
    let change = world.observation.status.change.as_ref()?;
    change.queued_at.as_ref().map(|at| at.0)
}

fn awaited(world: &mut World, why: Option<&str>) {
    world.observation.spec.depends_on = vec!["db".into()];
    world.observation.dependencies = Some(vec![Dependency {
        name: "db".into(),
        awaited: why.map(Into::into),
    }]);
}

#[test]
pub(super) fn law_1_a_queued_change_has_no_pods_and_no_deadline() {
    let mut world = queued();
    go_on(&mut world, 120);
    assert_eq!(waits_for(&world), Some("Queued"));
    assert_eq!(world.observation.status.replicas, 20, "no canary");
    assert_eq!(
        world.observation.status.message,
        "place 1 in the queue: policy unattended allows 1 change of tier low or above at once in this namespace; under way: team/login"
    );
    // Another one that was queued later does not get before it.
    let later = world.observation.now;
    concurrent_changes(&mut world, &[concurrent_change(Some(later))]);
    go_on(&mut world, 1);
    assert_eq!(step(&world), 1);
    assert_eq!(queued_at(&world), None, "it no longer has a place");
    go_on(&mut world, 30);
    assert_eq!(stable_image(&world), "example.org/shop:v2");
}

#[test]
pub(super) fn first_queued_goes_first_and_the_place_in_the_message_follows() {
    let mut world = queued();
    let before = concurrent_change(Some(START));
    let mut under_way = concurrent_change(None);
    under_way.uid = "third".into();
    concurrent_changes(&mut world, &[under_way.clone(), before.clone()]);
    go_on(&mut world, 2);
    let message = world.observation.status.message.clone();
    assert!(message.starts_with("place 2 in the queue"), "{message}");
    concurrent_changes(&mut world, &[before]);
    go_on(&mut world, 2);
    assert_eq!(step(&world), 0, "the free place is the other's");
    concurrent_changes(&mut world, &[under_way]);
    go_on(&mut world, 2);
    let message = world.observation.status.message.clone();
    assert!(message.starts_with("place 1 in the queue"), "{message}");
}

#[test]
pub(super) fn law_6_the_place_in_the_queue_must_be_known() {
    for unknown in [None, Some(Err("no answer".to_owned()))] {
        let mut world = queued();
        world.observation.concurrent_changes = unknown;
        go_on(&mut world, 120);
        assert_eq!(step(&world), 0);
        concurrent_changes(&mut world, &[]);
        go_on(&mut world, 2);
        assert_eq!(step(&world), 1);
    }
}

#[test]
pub(super) fn another_hold_costs_no_place_and_the_broken_glass_needs_none() {
    let mut world = queued();
    let since = queued_at(&world);
    assert!(since.is_some());
    world.observation.spec.paused = true;
    go_on(&mut world, 10);
    assert_eq!(waits_for(&world), Some("Paused"));
    world.observation.spec.paused = false;
    go_on(&mut world, 10);
    assert_eq!(
        (waits_for(&world), queued_at(&world)),
        (Some("Queued"), since)
    );

    sign(&mut world, person("carol", &[]), |spec| {
        spec.decision = SignOffDecision::BreakGlass;
    });
    let begun = |o: &Observation| {
        let change = o.status.change.as_ref();
        change.is_some_and(|change| change.step == 1)
    };
    let until = minutes_on(&world, 1);
    assert!(world.run(until, &mut steady(5_000.0, 0.001, 0.001), begun));
    lawful(&world);
}

#[test]
pub(super) fn changes_below_the_tier_of_the_limit_wait_for_nobody() {
    let mut world = serving();
    let mut policy = one_at_a_time();
    policy.spec.concurrency.as_mut().unwrap().from_tier = Tier::Medium;
    world.observation.policies = vec![policy];
    concurrent_changes(&mut world, &[concurrent_change(None)]);
    change(&mut world, "v2", harmless());
    go_on(&mut world, 1);
    assert_eq!(step(&world), 1);
}

#[test]
pub(super) fn a_change_waits_for_what_it_depends_on_until_it_begins() {
    let mut world = serving();
    awaited(&mut world, Some("Rollout db has a change under way"));
    change(&mut world, "v2", harmless());
    go_on(&mut world, 120);
    assert_eq!(waits_for(&world), Some("AwaitingDependency"));
    assert_eq!(
        world.observation.status.message,
        "Rollout db has a change under way"
    );
    assert_eq!(world.observation.status.replicas, 20, "no canary");

    awaited(&mut world, None);
    go_on(&mut world, 1);
    assert_eq!(step(&world), 1);
    awaited(&mut world, Some("Rollout db has a change under way"));
    go_on(&mut world, 30);
    assert_eq!(stable_image(&world), "example.org/shop:v2");
}

#[test]
pub(super) fn a_first_revision_gets_no_pods_before_what_it_depends_on_is_stable() {
    let mut world = begin(observation("v1"));
    awaited(&mut world, Some("Rollout db does not exist"));
    go_on(&mut world, 60);
    let pods = |world: &World| {
        let sets = world.observation.replica_sets.iter();
        sets.map(|set| set.replicas).sum::<i32>()
    };
    assert_eq!(pods(&world), 0);
    assert_eq!(waits_for(&world), Some("AwaitingDependency"));
    assert_eq!(world.observation.status.phase, Phase::Held);

    awaited(&mut world, None);
    go_on(&mut world, 1);
    assert_eq!(pods(&world), 20);
    assert_eq!(world.observation.status.phase, Phase::Stable);
}

/// A change whose only new pod does not start.
fn stuck() -> World {
    let mut world = serving();
    world.pods_ready_after = None;
    change(&mut world, "v2", harmless());
    go_on(&mut world, 1);
    assert_eq!(waits_for(&world), Some("AwaitingPods"));
    world
}

fn crashing(existing: i32, crashing: i32) -> NewPods {
    NewPods {
        existing,
        crashing,
        trouble: Some("container app: CrashLoopBackOff: it exited with 3 (Error)".into()),
        crash: Some(ContainerFailure {
            container: "app".into(),
            exit_code: 3,
            reason: "Error".into(),
            message: "no such table: carts".into(),
        }),
    }
}

#[test]
pub(super) fn law_3_pods_that_all_crash_are_rolled_back_at_once_and_before_that_their_trouble_is_shown()
 {
    let mut world = stuck();
    world.observation.new_pods = Some(crashing(2, 1));
    go_on(&mut world, 1);
    assert_eq!(
        world.observation.status.message,
        "0 of 1 pods of the new revision are available: container app: CrashLoopBackOff: it exited with 3 (Error)"
    );
    world.observation.new_pods = Some(crashing(2, 2));
    world.observation.spec.paused = true;
    go_on(&mut world, 1);
    assert_eq!(world.outcome(), Some(Outcome::RolledBack));
    assert_eq!(
        message(&world, "CrashLooping"),
        "all 2 pods of the new revision crash repeatedly: container app exited with 3 (Error); its last output: no such table: carts"
    );
}

#[test]
pub(super) fn a_first_revision_that_crashes_is_named_and_kept() {
    let mut world = begin(observation("v1"));
    world.pods_ready_after = None;
    world.observation.new_pods = Some(crashing(20, 20));
    go_on(&mut world, 60);
    assert_eq!(world.outcome(), None);
    let message = &world.observation.status.message;
    assert!(message.contains("CrashLoopBackOff"), "{message}");
}

#[test]
pub(super) fn the_laws_see_a_step_beyond_the_concurrency_limit_or_before_its_dependency() {
    let mut world = queued();
    concurrent_changes(&mut world, &[]);
    let traffic = &mut steady(5_000.0, 0.001, 0.001);
    let decision = world.reconcile(traffic);
    let stage = |step: i32| decision.status.change.as_ref().map(|it| it.step) == Some(step);
    assert!(stage(1), "its place is free");
    let breaks = |observation: &Observation| {
        let broken = laws::broken(observation, &decision);
        broken.iter().any(|it| it.law == 1)
    };
    let lawful = world.observation.clone();
    assert!(!breaks(&lawful));
    let mut full = lawful.clone();
    full.concurrent_changes = Some(Ok(vec![concurrent_change(None)]));
    assert!(breaks(&full));
    let mut unread = lawful.clone();
    unread.concurrent_changes = None;
    assert!(breaks(&unread));
    let mut dependent = lawful.clone();
    dependent.spec.depends_on = vec!["db".into()];
    assert!(breaks(&dependent));
    dependent.dependencies = Some(all_stable(&dependent.spec.depends_on));
    assert!(!breaks(&dependent));

    let mut stuck = stuck();
    let decision = stuck.reconcile(traffic);
    stuck.observation.new_pods = Some(crashing(1, 1));
    let broken = laws::broken(&stuck.observation, &decision);
    assert!(broken.iter().any(|it| it.law == 3), "{broken:?}");
}

/// What becomes of others while a change waits for them.
#[derive(Clone, Debug)]
enum Twist {
    NoRival,
    ConcurrentChange(Option<i64>),
    Unknown(bool),
    Depends(Option<bool>),
    Crashing(bool),
    PodsReady(bool),
    Pause(bool),
    Change(u8),
    Crash(usize),
}

fn twist() -> impl Strategy<Value = Twist> {
    prop_oneof![
        Just(Twist::NoRival),
        prop::option::of(0..100_000_i64).prop_map(Twist::ConcurrentChange),
        any::<bool>().prop_map(Twist::Unknown),
        prop::option::of(any::<bool>()).prop_map(Twist::Depends),
        any::<bool>().prop_map(Twist::Crashing),
        any::<bool>().prop_map(Twist::PodsReady),
        any::<bool>().prop_map(Twist::Pause),
        (1..5_u8).prop_map(Twist::Change),
        (0..4_usize).prop_map(Twist::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The laws hold whatever becomes of others, and what waits for them comes to an end once they do.
    #[test]
    fn the_laws_hold_whatever_others_do(
        twists in prop::collection::vec((twist(), 1..200_i64), 1..25),
        first in any::<bool>(),
    ) {
        let mut world = if first { begin(observation("v1")) } else { serving() };
        world.observation.policies = vec![one_at_a_time()];
        let mut traffic = steady(5_000.0, 0.001, 0.001);
        for (twist, seconds) in twists {
            match &twist {
                Twist::NoRival => concurrent_changes(&mut world, &[]),
                Twist::ConcurrentChange(at) => {
                    let at = at.map(|at| Timestamp::from_second(at).unwrap());
                    concurrent_changes(&mut world, &[concurrent_change(at)]);
                }
                Twist::Unknown(unread) => {
                    world.observation.concurrent_changes = (!unread).then(|| Err("no answer".into()));
                }
                Twist::Depends(None) => world.observation.spec.depends_on.clear(),
                Twist::Depends(Some(stable)) => awaited(&mut world, (!stable).then_some("it moves")),
                Twist::Crashing(all) => {
                    world.observation.new_pods = all.then(|| crashing(3, 3));
                }
                Twist::PodsReady(ready) => world.pods_ready_after = ready.then(|| SignedDuration::from_secs(2)),
                Twist::Pause(paused) => world.observation.spec.paused = *paused,
                Twist::Change(version) => change(&mut world, &format!("v{version}"), harmless()),
                Twist::Crash(actions) => {
                    let decision = world.reconcile(&mut traffic);
                    world.carry_out(&decision, *actions);
                }
            }
            let until = world.observation.now.saturating_add(SignedDuration::from_secs(seconds)).unwrap();
            world.run(until, &mut traffic, |_| false);
            prop_assert!(world.broken.is_empty(), "after {twist:?}: {:?}", world.broken);
        }
        concurrent_changes(&mut world, &[]);
        world.observation.spec.depends_on.clear();
        world.observation.new_pods = None;
        world.observation.spec.paused = false;
        world.pods_ready_after = Some(SignedDuration::from_secs(2));
        change(&mut world, "v9", harmless());
        let until = minutes_on(&world, 600);
        let ended = world.run(until, &mut traffic, World::at_rest);
        prop_assert!(ended, "it never came to an end: {:?}", world.observation.status);
        prop_assert!(world.broken.is_empty(), "{:?}", world.broken);
    }
}
