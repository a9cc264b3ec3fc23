//! What is written to the cluster: as seldom as possible, and under names that are free.

use super::*;

#[test]
pub(super) fn law_4_pods_that_are_to_go_count_no_more_while_they_are_still_there() {
    let mut world = serving();
    let mut traffic = steady(5_000.0, 0.0, 0.0);
    change(&mut world, "v2", harmless());
    world.run(after(30), &mut traffic, |o| o.status.weight == Some(50));
    world.run(after(30), &mut traffic, |o| {
        o.replica_sets.iter().all(|set| set.available == 20)
    });
    // Half of stable's pods are lost, and another change takes the place of the one under way.
    world.pods_ready_after = None;
    world.observation.replica_sets[0].available = 10;
    change(&mut world, "v3", harmless());
    for _ in 0..20 {
        let counted = world.observation.replica_sets.clone();
        let decision = world.reconcile(&mut traffic);
        world.carry_out(&decision, usize::MAX);
        world.observation.now += SignedDuration::from_secs(1);
        let sets = &mut world.observation.replica_sets;
        let stay = sets.iter_mut().map(|set| {
            // They have not been counted again since.
            let before = counted.iter().find(|before| before.name == set.name);
            set.available = before.map_or(0, |before| before.available);
            set.available.min(set.replicas)
        });
        assert_eq!(stay.sum::<i32>().min(20), 20, "{sets:?}");
    }
    assert_eq!(
        world.observation.replica_sets[1].replicas, 10,
        "what is not needed goes"
    );
}

#[test]
pub(super) fn a_first_revision_takes_two_reconciles_and_then_no_more() {
    let mut world = begin(observation("v1"));
    let mut traffic = steady(0.0, 0.0, 0.0);
    let decision = world.reconcile(&mut traffic);
    let poll = world.observation.now + SignedDuration::from_secs(15);
    assert_eq!(decision.requeue_at, Some(poll), "pods are waited for");
    world.carry_out(&decision, usize::MAX);
    for set in &mut world.observation.replica_sets {
        (set.available, set.ready) = (set.replicas, set.replicas);
    }
    let decision = world.reconcile(&mut traffic);
    assert!(decision.status.stable.is_some());
    assert_eq!(decision.requeue_at, None);
}

#[test]
pub(super) fn who_keeps_scaling_a_revision_is_answered_at_most_once_in_five_seconds() {
    let mut world = serving();
    let mut traffic = steady(5_000.0, 0.0, 0.0);
    let mut answers = 0;
    for second in 0..60 {
        world.observation.replica_sets[0].replicas = 1;
        let decision = world.reconcile(&mut traffic);
        let answered = scalings_to(20, &decision.actions);
        let soon = world.observation.now + SignedDuration::from_secs(5);
        assert!(
            answered == 1 || decision.requeue_at.is_some_and(|at| at <= soon),
            "{second}"
        );
        answers += answered;
        world.carry_out(&decision, usize::MAX);
        world.observation.now += SignedDuration::from_secs(1);
    }
    assert!((12..=13).contains(&answers), "{answers}");

    // A new request does not wait.
    world.observation.replica_sets[0].replicas = 1;
    world.observation.spec.replicas = 10;
    let decision = world.reconcile(&mut traffic);
    assert_eq!(scalings_to(10, &decision.actions), 1);
}

fn scalings_to(pods: i32, actions: &[Action]) -> usize {
    let scales = |it: &&Action| matches!(it, Action::Workload(WorkloadAction::Scale { replicas, .. }) if *replicas == pods);
    actions.iter().filter(scales).count()
}

#[test]
pub(super) fn a_five_step_rollout_writes_its_status_seldom() {
    let mut world = serving();
    let mut policy = unattended();
    policy.spec.tiers.low.steps = serde_json::from_value(json!([
        { "weight": 5, "bake": "5m" }, { "weight": 10, "bake": "5m" }, { "weight": 20, "bake": "5m" },
        { "weight": 35, "bake": "5m" }, { "weight": 50, "bake": "5m" },
    ]))
    .unwrap();
    world.observation.policies = vec![policy];
    change(&mut world, "v2", harmless());
    let before = world.status_writes;
    assert!(world.run(
        after(120),
        &mut steady(5_000.0, 0.001, 0.001),
        |o| World::at_rest(o) && o.status.revision == 2
    ));
    let writes = world.status_writes - before;
    println!("status writes of a five-step rollout: {writes}");
    assert!(writes <= 40, "{writes} writes of status");
}

#[test]
pub(super) fn a_hash_collision_gives_the_new_template_another_name() {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    let hash = countersign_core::provenance::digest::pod_template_hash(
        &world.observation.spec.template,
        0,
    );
    let mut other = world.observation.replica_sets[0].clone();
    other.name = format!("shop-{hash}");
    other.hash.clone_from(&hash);
    other.template_digest = "another template".into();
    (other.replicas, other.current, other.available) = (0, 0, 0);
    world.observation.replica_sets.push(other);
    assert!(world.run(after(60), &mut steady(5_000.0, 0.0, 0.0), |o| {
        World::at_rest(o) && o.status.revision == 2
    }));
    let stable = world.observation.status.stable.as_ref().unwrap();
    assert_ne!(stable.pod_template_hash, hash);
    assert_eq!(world.observation.status.collision_count, 1);
    world.run(after(70), &mut steady(5_000.0, 0.0, 0.0), |_| false);
    assert_eq!(
        world.observation.status.attempts, 2,
        "and starts no further change"
    );
    lawful(&world);
}
