//! The laws hold through any history of one rollout.

use countersign_api::policy::Enforcement;

use super::*;

/// What a hostile world does to one rollout.
#[derive(Clone, Debug)]
enum Twist {
    Crash(usize),
    NoData,
    Unreachable,
    Errors(f64),
    Healthy,
    Pause(bool),
    Scale(i32),
    Template(u8),
    Provenance(bool),
    PodsReady(bool),
    Quiet,
    Observe(bool),
}

fn twist() -> impl Strategy<Value = Twist> {
    prop_oneof![
        (0..4_usize).prop_map(Twist::Crash),
        Just(Twist::NoData),
        Just(Twist::Unreachable),
        (0.0..0.5f64).prop_map(Twist::Errors),
        Just(Twist::Healthy),
        any::<bool>().prop_map(Twist::Pause),
        (0..40i32).prop_map(Twist::Scale),
        (1..5u8).prop_map(Twist::Template),
        any::<bool>().prop_map(Twist::Provenance),
        any::<bool>().prop_map(Twist::PodsReady),
        Just(Twist::Quiet),
        any::<bool>().prop_map(Twist::Observe),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Laws 1 to 4 and 6 to 10 in every state that a random history reaches, with crashes between
    /// any two writes (law 5), and afterwards every rollout comes to an end.
    #[test]
    fn the_laws_hold_through_any_history(
        twists in prop::collection::vec((twist(), 1..200_i64), 1..25),
        surge in prop_oneof![Just("100%"), Just("25%"), Just("0%")],
        seed in any::<u64>(),
    ) {
        let mut world = serving();
        world.observation.spec.strategy.canary.max_surge =
            k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String(surge.into());
        world.observation.spec.strategy.canary.max_unavailable =
            k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(1);
        let mut mode = Twist::Healthy;
        let mut draws = 0;
        for (twist, seconds) in twists {
            match &twist {
                Twist::Crash(actions) => {
                    let decision = world.reconcile(&mut steady(3_000.0, 0.0, 0.0));
                    world.carry_out(&decision, *actions);
                }
                Twist::Pause(paused) => world.observation.spec.paused = *paused,
                Twist::Scale(replicas) => world.observation.spec.replicas = *replicas,
                Twist::Template(version) => change(&mut world, &format!("v{version}"), harmless()),
                Twist::Provenance(known) => world.observation.annotations = if *known { harmless() } else { BTreeMap::new() },
                Twist::PodsReady(ready) => world.pods_ready_after = ready.then(|| SignedDuration::from_secs(2)),
                Twist::Observe(observes) => {
                    let enforcement = if *observes { Enforcement::Observe } else { Enforcement::Enforce };
                    world.observation.policies[0].spec.enforcement = enforcement;
                }
                other => mode = other.clone(),
            }
            let until = world.observation.now.saturating_add(SignedDuration::from_secs(seconds)).unwrap();
            draws += 1;
            run(&mut world, until, &mode, seed.wrapping_add(draws));
            prop_assert!(world.broken.is_empty(), "after {twist:?}: {:?}", world.broken);
        }
        world.observation.spec.paused = false;
        world.observation.spec.replicas = 10;
        world.pods_ready_after = Some(SignedDuration::from_secs(2));
        let until = world.observation.now.saturating_add(SignedDuration::from_hours(80)).unwrap();
        let pods = |o: &Observation| o.replica_sets.iter().map(|set| set.replicas).sum::<i32>();
        let ended = world.run(until, &mut steady(5_000.0, 0.0, 0.0), |o| World::at_rest(o) && pods(o) == 10);
        prop_assert!(ended, "it never came to an end: {:?}", world.observation.status);
        prop_assert!(world.broken.is_empty(), "{:?}", world.broken);
    }
}

fn run(world: &mut World, until: Timestamp, mode: &Twist, seed: u64) {
    match mode {
        Twist::NoData => world.run(until, &mut *uncounted(Uncounted::NoSeries), |_| false),
        Twist::Unreachable => world.run(
            until,
            &mut |_, _| WindowOutcome::Unanswered {
                reason: Unanswered::PrometheusUnreachable,
                message: String::new(),
            },
            |_| false,
        ),
        Twist::Errors(rate) => world.run(until, &mut noisy(seed, 3_000.0, *rate, 0.01), |_| false),
        Twist::Quiet => world.run(until, &mut steady(0.0, 0.0, 0.0), |_| false),
        _ => world.run(until, &mut noisy(seed, 3_000.0, 0.01, 0.01), |_| false),
    };
}
