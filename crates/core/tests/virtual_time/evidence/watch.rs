//! The watch after a promotion, and the way back to the previous revision.

use super::*;

#[test]
pub(crate) fn law_3_what_breaks_after_its_promotion_gives_way_to_the_previous_revision() {
    let mut world = watched();
    let services = [("shop", "v2 hash")].map(|(name, _)| name);
    for name in services {
        let hash = now_changing(&world).pod_template_hash;
        let selector = [("pod-template-hash".to_owned(), hash)].into();
        let service = Service {
            kind: "ClusterIP".into(),
            selector,
        };
        world
            .observation
            .traffic
            .services
            .insert(name.into(), Some(service));
        world.observation.spec.strategy.canary.stable_service = Some(name.into());
    }
    let broken_at = world.observation.now;
    let mut least = i32::MAX;
    assert!(
        world.run(after(120), &mut steady(5_000.0, 0.3, 0.001), |o| {
            let service = o.traffic.services["shop"].as_ref().unwrap();
            let selected = &service.selector["pod-template-hash"];
            let sets = o.replica_sets.iter().filter(|set| set.hash == *selected);
            least = least.min(sets.map(|set| set.available).sum());
            o.status.phase == Phase::Degraded
        })
    );
    lawful(&world);
    assert_eq!(stable_image(&world), "example.org/shop:v1");
    let change = now_changing(&world);
    assert_eq!(change.outcome, Some(Outcome::RolledBack));
    assert!(reasons(&change).contains(&"Regressed"));
    let regressed = change
        .transitions
        .iter()
        .find(|it| it.reason == "Regressed");
    let took = regressed
        .unwrap()
        .at
        .as_ref()
        .unwrap()
        .0
        .duration_since(broken_at);
    assert!(took.as_secs() <= 60, "{took:#}");
    assert!(
        least >= 20,
        "the Service never had fewer pods than it needs: {least}"
    );
    let pods = |image: &str| {
        let sets = world.observation.replica_sets.iter();
        let sets = sets.filter(|set| set.template.images() == [image]);
        sets.map(|set| set.replicas).sum::<i32>()
    };
    assert_eq!(
        (pods("example.org/shop:v1"), pods("example.org/shop:v2")),
        (20, 0)
    );
}

#[test]
pub(crate) fn a_watch_ends_by_itself_and_a_return_during_it_takes_no_steps() {
    let mut world = watched();
    assert!(world.run(after(180), &mut steady(5_000.0, 0.001, 0.001), settled));
    assert_eq!(stable_image(&world), "example.org/shop:v2");

    let mut world = watched();
    change(&mut world, "v1", harmless());
    let began = world.observation.now;
    assert!(
        world.run(after(180), &mut steady(5_000.0, 0.001, 0.001), |o| {
            o.status
                .stable
                .as_ref()
                .is_some_and(|stable| stable.revision == 1)
        })
    );
    let took = world.observation.now.duration_since(began);
    assert!(took.as_secs() <= 10, "{took:#}");
    assert!(world.run(
        after(180),
        &mut steady(5_000.0, 0.001, 0.001),
        World::at_rest
    ));
    lawful(&world);
    assert_eq!(stable_image(&world), "example.org/shop:v1");
    assert_eq!(
        world.observation.status.revision, 2,
        "it is no change of its own"
    );
}

/// A watched change whose previous revision has lost its ReplicaSet, and its record unless it is `kept`.
fn previous_lost(kept: bool) -> World {
    let mut world = watched();
    let status = &mut world.observation.status;
    let stable = status.stable.clone().unwrap();
    let change = status.change.as_mut().unwrap();
    if !kept {
        change.previous.as_mut().unwrap().run = None;
    }
    let sets = &mut world.observation.replica_sets;
    sets.retain(|set| set.hash == stable.pod_template_hash);
    world
}

#[test]
pub(crate) fn without_the_previous_revision_a_regression_is_reported_and_nothing_moves() {
    let mut world = previous_lost(false);
    assert!(
        world.run(after(180), &mut steady(5_000.0, 0.3, 0.001), |o| {
            let change = o.status.change.as_ref();
            change.is_none_or(|change| reasons(change).contains(&"PreviousMissing"))
        })
    );
    lawful(&world);
    assert_eq!(stable_image(&world), "example.org/shop:v2");
}

#[test]
pub(crate) fn a_previous_revision_that_lost_its_replica_set_comes_back_from_its_record() {
    let mut world = previous_lost(true);
    let back = |o: &Observation| o.status.stable.as_ref().is_some_and(|it| it.revision == 1);
    assert!(world.run(after(180), &mut steady(5_000.0, 0.3, 0.001), back));
    let mut traffic = steady(5_000.0, 0.001, 0.001);
    assert!(world.run(after(240), &mut traffic, World::at_rest));
    lawful(&world);
    assert_eq!(stable_image(&world), "example.org/shop:v1");
}

#[test]
pub(crate) fn law_8_provenance_that_is_edited_in_a_watch_does_not_start_what_regressed_again() {
    let mut world = watched();
    let mut edited = harmless();
    edited.extend(annotations(&[("lines-added", "4")]));
    world.observation.annotations = edited;
    assert!(world.run(
        after(180),
        &mut steady(5_000.0, 0.3, 0.001),
        |o| o.status.phase == Phase::Degraded
    ));
    let attempts = world.observation.status.attempts;
    world.run(after(300), &mut steady(5_000.0, 0.0, 0.0), |_| false);
    lawful(&world);
    assert_eq!(world.observation.status.attempts, attempts);
    assert_eq!(stable_image(&world), "example.org/shop:v1");
    assert!(reasons(&now_changing(&world)).contains(&"Regressed"));
}

#[test]
pub(crate) fn the_previous_revision_is_kept_as_long_as_it_may_come_back() {
    let mut ceiling = errors();
    ceiling["ceiling"] = json!(0.02);
    let mut world =
        analysed(json!({ "interval": "10s", "postPromotion": "1h", "checks": [ceiling] }));
    world.observation.spec.revision_history_limit = 0;
    change(&mut world, "v2", harmless());
    assert!(
        world.run(after(60), &mut steady(5_000.0, 0.001, 0.001), |o| {
            o.status.phase == Phase::Stable && o.status.revision == 2
        })
    );
    assert!(world.run(
        after(180),
        &mut steady(5_000.0, 0.3, 0.001),
        |o| o.status.phase == Phase::Degraded
    ));
    lawful(&world);
    assert_eq!(stable_image(&world), "example.org/shop:v1");
}

/// The available pods of the revision that the stable Service selects.
fn behind_stable(observation: &Observation) -> i32 {
    let hash = selected(observation, "stable");
    let sets = observation.replica_sets.iter();
    let sets = sets.filter(|set| set.hash == hash);
    sets.map(|set| set.available).sum()
}

fn stable_hash(world: &World) -> String {
    let stable = world.observation.status.stable.as_ref().unwrap();
    stable.pod_template_hash.clone()
}

#[test]
fn law_3_too_many_replica_sets_do_not_keep_the_service_on_what_regressed() {
    let mut world = watched();
    with_services(&mut world);
    let unread = "there are more ReplicaSets than are read";
    world.observation.unread_replica_sets = Some(unread.into());
    let mut traffic = steady(5_000.0, 0.3, 0.001);
    let back = world.run(after(180), &mut traffic, |seen| {
        let pods = behind_stable(seen);
        assert!(pods >= 20, "the Service has {pods} pods");
        World::at_rest(seen)
    });
    assert!(back, "{:?}", world.observation.status);
    lawful(&world);
    assert_eq!(stable_image(&world), "example.org/shop:v1");
    assert_eq!(selected(&world.observation, "stable"), stable_hash(&world));

    // A change begins only once all are read.
    change(&mut world, "v3", harmless());
    let mut traffic = steady(5_000.0, 0.0, 0.0);
    let held = world.run(after(360), &mut traffic, |seen| waits_for(seen, "Conflict"));
    assert!(held, "{:?}", world.observation.status);
    let message = &world.observation.status.message;
    assert!(message.contains(unread), "{message}");
}

/// The pods that its Service selects are better than none, and it is not the Rollout's to move.
#[test]
fn law_4_what_regressed_keeps_its_pods_while_another_rollout_claims_its_service() {
    let mut world = watched();
    with_services(&mut world);
    let claimed = "Rollout other already claims Service stable";
    world.observation.conflicts = vec![claimed.into()];
    let mut traffic = steady(5_000.0, 0.3, 0.001);
    let serves = |seen: &Observation| {
        let pods = behind_stable(seen);
        assert!(pods >= 20, "the Service has {pods} pods");
    };
    // Longer than two progress deadlines.
    let until = world.observation.now + SignedDuration::from_mins(25);
    world.run(until, &mut traffic, |seen| {
        serves(seen);
        false
    });
    assert_eq!(stable_image(&world), "example.org/shop:v1");
    assert_ne!(selected(&world.observation, "stable"), stable_hash(&world));

    world.observation.conflicts.clear();
    let until = until + SignedDuration::from_mins(5);
    let back = world.run(until, &mut traffic, |seen| {
        serves(seen);
        World::at_rest(seen)
    });
    assert!(back, "{:?}", world.observation.status);
    assert_eq!(selected(&world.observation, "stable"), stable_hash(&world));
    lawful(&world);
}

/// Until the promotion the Service of the stable side sent to the previous revision.
#[test]
pub(crate) fn what_the_previous_revision_did_to_the_stable_service_is_no_regression() {
    for check in [
        json!({ "name": "errors", "preset": "Traefik" }),
        json!({ "name": "queue", "metric": { "query": "queue{service=\"{{service}}\"}", "max": 1 } }),
    ] {
        let mut world =
            analysed(json!({ "interval": "10s", "postPromotion": "1h", "checks": [check] }));
        with_services(&mut world);
        change(&mut world, "v2", harmless());
        let promoted =
            |o: &Observation| o.status.stable.as_ref().is_some_and(|it| it.revision == 2);
        let metric = check["metric"].is_object();
        let mut traffic: Box<dyn FnMut(Timestamp, f64) -> WindowOutcome> = if metric {
            Box::new(|_, _| WindowOutcome::Measured { value: 0.0 })
        } else {
            Box::new(steady(5_000.0, 0.001, 0.001))
        };
        let ended = world.run(after(60), &mut traffic, promoted);
        assert!(ended, "{:?}", world.observation.status);
        let change = now_changing(&world);
        let name = check["name"].as_str().unwrap();
        let counted = gather::counted_until(&change, name).unwrap();
        assert!(counted >= world.observation.now, "{name}: {counted}");
    }
}

#[test]
pub(crate) fn an_outage_of_both_sides_that_is_over_is_not_held_against_the_canary() {
    let mut ceiling = errors();
    ceiling["ceiling"] = json!(0.0144);
    let analysis =
        |watch: &str| json!({ "interval": "15s", "postPromotion": watch, "checks": [ceiling] });
    let mut world = analysed(analysis("0s"));
    change(&mut world, "v2", harmless());
    let begun = |o: &Observation| o.status.change.as_ref().is_some_and(|it| it.weight >= 25);
    let mut healthy = steady(5_000.0, 0.001, 0.001);
    assert!(world.run(after(60), &mut healthy, begun));
    let mut held = false;
    let until = world.observation.now + SignedDuration::from_mins(3);
    let blameless = |o: &Observation| {
        let mut conditions = o.status.conditions.iter();
        conditions.any(|it| it.message.contains("stable breaks the ceiling too"))
    };
    world.run(until, &mut steady(5_000.0, 0.5, 0.5), |o| {
        held |= blameless(o);
        false
    });
    assert!(held, "{:?}", world.observation.status);
    let until = world.observation.now + SignedDuration::from_mins(2);
    world.run(until, &mut healthy, |_| false);
    assert!(!blameless(&world.observation));
    assert!(world.run(after(180), &mut healthy, settled));
    lawful(&world);

    // A promotion does not ask the evidence any more.
    let mut world = analysed(analysis("1h"));
    change(&mut world, "v2", harmless());
    let promoting = |o: &Observation| {
        let change = o.status.change.as_ref();
        change.is_some_and(|it| it.stage == Stage::Promoting)
    };
    assert!(world.run(after(60), &mut healthy, begun));
    assert!(world.run(after(120), &mut healthy, promoting));
    let promoted = |o: &Observation| o.status.stable.as_ref().is_some_and(|it| it.revision == 2);
    let mut outage = steady(5_000.0, 0.5, 0.5);
    assert!(world.run(after(120), &mut outage, promoted));
    assert!(world.run(after(240), &mut healthy, settled));
    assert_eq!(stable_image(&world), "example.org/shop:v2");
    lawful(&world);
}
