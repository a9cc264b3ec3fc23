//! What routers and other writers do to a route, and what cannot be read of it.

use super::*;

#[test]
pub(crate) fn weights_that_somebody_else_sets_are_set_back_and_are_no_progress() {
    let mut world = routed(|_| {});
    change(&mut world, "v2");
    let at_five = |observation: &Observation| {
        weights(observation) == (95, 5)
            && observation
                .status
                .traffic
                .as_ref()
                .is_some_and(|it| it.settled_at.is_some())
    };
    let mut traffic = steady(500.0, 0.0, 0.0);
    assert!(world.run(after(DAYS), &mut traffic, at_five));
    let step = world.observation.status.change.as_ref().unwrap().step;
    let mut corrections = 0;
    for second in 0..60 {
        let route = world.observation.traffic.routes[0].object.as_mut().unwrap();
        route.last_writer = Some("argocd".into());
        route.object["spec"]["rules"][1]["backendRefs"][1]["weight"] = json!(50);
        let decision = world.reconcile(&mut traffic);
        assert_eq!(
            decision.status.change.as_ref().unwrap().step,
            step,
            "{second}"
        );
        let notices = decision
            .notices
            .iter()
            .filter(|it| it.reason == "WeightsCorrected");
        for notice in notices {
            assert!(
                notice
                    .message
                    .contains("argocd set the canary's weight to 35%"),
                "{}",
                notice.message
            );
            corrections += 1;
        }
        world.carry_out(&decision, usize::MAX);
        world.observation.now += SignedDuration::from_secs(1);
    }
    assert!((10..=13).contains(&corrections), "{corrections}");

    // A clock that is set back does not leave the canary with more than its weight until the old time comes.
    world.observation.now -= SignedDuration::from_hours(1);
    let decision = world.reconcile(&mut traffic);
    world.carry_out(&decision, usize::MAX);
    assert_eq!(weights(&world.observation), (95, 5));
}

#[test]
pub(crate) fn weights_that_are_set_again_after_a_rollback_are_set_back_without_an_event() {
    let mut world = routed(|_| {});
    change(&mut world, "v2");
    let mut traffic = steady(500.0, 0.3, 0.0);
    assert!(world.run(after(DAYS), &mut traffic, World::at_rest));
    assert_eq!(world.outcome(), Some(Outcome::RolledBack));
    let edit = |world: &mut World| {
        let route = world.observation.traffic.routes[0].object.as_mut().unwrap();
        route.object["spec"]["rules"][1]["backendRefs"][1]["weight"] = json!(50);
    };
    let mut reconcile = |world: &mut World| {
        let decision = world.reconcile(&mut traffic);
        world.carry_out(&decision, usize::MAX);
        decision
    };
    edit(&mut world);
    let corrected = reconcile(&mut world);
    assert_eq!(corrected.notices[0].reason, "WeightsCorrected");
    edit(&mut world);
    let waits = reconcile(&mut world);
    assert_eq!(waits.notices.len(), 0, "{:?}", waits.notices);
    let due = waits.requeue_at.expect("no event may come");
    world.observation.now = due;
    let corrected = reconcile(&mut world);
    assert_eq!(corrected.notices[0].reason, "WeightsCorrected");
    assert_eq!(weights(&world.observation), (100, 0));
}

/// `observedGeneration` is optional in the Gateway API, and Linkerd and APISIX leave it out.
#[test]
pub(crate) fn a_router_that_reports_no_generation_is_trusted_a_while_after_each_change() {
    fn undated(route: &mut Value) {
        accept(route);
        let conditions = route.pointer_mut("/status/parents/0/conditions").unwrap();
        for condition in conditions.as_array_mut().unwrap() {
            condition
                .as_object_mut()
                .unwrap()
                .remove("observedGeneration");
        }
    }
    let mut world = routed(|seen| {
        undated(&mut seen.traffic.routes[0].object.as_mut().unwrap().object);
    });
    world.routers_report = undated;
    change(&mut world, "v2");
    let (mut weighed, mut begun, mut reported) = (None, None, false);
    let promoted = world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), |observation| {
        if weights(observation).1 == 5 {
            weighed.get_or_insert(observation.now);
        }
        let change = observation.status.change.as_ref();
        if begun.is_none() && change.is_some_and(|it| it.available_at.is_some()) {
            begun = Some(observation.now);
        }
        let mut conditions = observation.status.conditions.iter();
        reported |= conditions.any(|it| it.type_ == "WeightsConfirmed");
        let stable = observation.status.stable.as_ref();
        stable.is_some_and(|it| it.revision == 2) && World::at_rest(observation)
    });
    assert!(promoted, "{:?}", world.observation.status);
    assert!(reported);
    let settled = begun.unwrap().duration_since(weighed.unwrap());
    assert!(settled >= SignedDuration::from_secs(5), "{settled}");
    assert!(settled < SignedDuration::from_secs(8), "{settled}");
    assert_eq!((world.broken.clone(), world.lost.clone()), (vec![], vec![]));
}

/// Such as one that attaches policies to routes, and reports it in an entry of its own for the same parent.
#[test]
pub(crate) fn another_controller_beside_the_router_is_not_waited_for() {
    fn beside(route: &mut Value) {
        accept(route);
        let policy = json!({ "type": "example.org/PolicyAffected", "status": "True" });
        let entry = json!({ "parentRef": { "name": "gate" }, "conditions": [policy] });
        let parents = route.pointer_mut("/status/parents").unwrap();
        parents.as_array_mut().unwrap().push(entry);
    }
    let mut world = routed(|_| {});
    world.routers_report = beside;
    change(&mut world, "v2");
    let promoted = world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), |observation| {
        let stable = observation.status.stable.as_ref();
        stable.is_some_and(|it| it.revision == 2) && World::at_rest(observation)
    });
    assert!(promoted, "{:?}", world.observation.status);
    assert_eq!((world.broken.clone(), world.lost.clone()), (vec![], vec![]));
}

#[test]
pub(crate) fn a_route_that_nobody_accepts_holds_and_is_rolled_back_at_the_deadline() {
    let mut world = routed(|_| {});
    world.routers_take = SignedDuration::from_hours(1000);
    change(&mut world, "v2");
    assert!(
        world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), |observation| {
            observation.status.waiting_for.as_deref() == Some("AwaitingTraffic")
        })
    );
    assert!(world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), World::at_rest));
    assert_eq!(world.outcome(), Some(Outcome::RolledBack));
    assert_eq!(world.broken, []);
}

#[test]
pub(crate) fn law_3_a_conflict_does_not_keep_a_bad_change_in_the_traffic() {
    let mut world = routed(|_| {});
    change(&mut world, "v2");
    let at_five = |observation: &Observation| weights(observation) == (95, 5);
    assert!(world.run(after(DAYS), &mut steady(500.0, 0.0, 0.0), at_five));
    world.observation.conflicts = vec!["Rollout blog already claims Service web".into()];
    let mut bad = steady(5_000.0, 0.9, 0.0);
    let rejected = |observation: &Observation| {
        let change = observation.status.change.as_ref();
        change.is_some_and(|it| it.outcome == Some(Outcome::RolledBack))
    };
    assert!(world.run(after(DAYS), &mut bad, rejected));
    assert_eq!(weights(&world.observation), (100, 0));
    assert_eq!(world.broken, []);
}

#[test]
pub(crate) fn a_route_that_cannot_be_read_for_a_moment_moves_nothing() {
    let mut world = routed(|_| {});
    change(&mut world, "v2");
    let mut traffic = steady(500.0, 0.0, 0.0);
    let at_five = |observation: &Observation| {
        let split = observation.status.traffic.as_ref();
        weights(observation) == (95, 5) && split.is_some_and(|it| it.settled_at.is_some())
    };
    assert!(world.run(after(DAYS), &mut traffic, at_five));
    let object = world.observation.traffic.routes[0].object.clone();
    world.observation.traffic.routes[0].object = Err(Absence::Unreadable {
        message: "429".into(),
    });
    let services = world.observation.traffic.services.clone();
    let decision = world.reconcile(&mut traffic);
    world.carry_out(&decision, usize::MAX);
    world.observation.traffic.routes[0].object = object;
    assert_eq!(world.observation.traffic.services, services);
    assert_eq!(weights(&world.observation), (95, 5));
    assert_eq!(world.broken, []);
}

#[test]
pub(crate) fn what_a_change_needs_and_is_deleted_in_its_midst_holds_it_until_it_is_back() {
    let mut world = routed(|_| {});
    change(&mut world, "v2");
    let mut traffic = steady(500.0, 0.0, 0.0);
    let at_five = |observation: &Observation| weights(observation) == (95, 5);
    assert!(world.run(after(DAYS), &mut traffic, at_five));
    let minutes_on = |world: &World, minutes| {
        let until = world.observation.now;
        until
            .checked_add(SignedDuration::from_mins(minutes))
            .unwrap()
    };
    let waits = |world: &World| world.observation.status.waiting_for.clone();

    let route = world.observation.traffic.routes[0].object.clone();
    world.observation.traffic.routes[0].object = Err(Absence::NotFound);
    let until = minutes_on(&world, 3);
    assert!(!world.run(until, &mut traffic, World::at_rest));
    assert_eq!(waits(&world).as_deref(), Some("RouteNotFound"));
    world.observation.traffic.routes[0].object = route;
    let until = minutes_on(&world, 1);
    assert!(!world.run(until, &mut traffic, World::at_rest));

    let service = world
        .observation
        .traffic
        .services
        .insert("web-canary".into(), None);
    let until = minutes_on(&world, 3);
    assert!(!world.run(until, &mut traffic, World::at_rest));
    assert_eq!(waits(&world).as_deref(), Some("ServiceNotFound"));
    let back = service.unwrap();
    world
        .observation
        .traffic
        .services
        .insert("web-canary".into(), back);
    assert!(world.run(after(DAYS), &mut traffic, |observation| {
        let stable = observation.status.stable.as_ref();
        stable.is_some_and(|it| it.revision == 2) && World::at_rest(observation)
    }));
    assert_eq!(world.broken, []);
}
