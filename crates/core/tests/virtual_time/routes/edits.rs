//! Others edit the route for testers and subsets: the edit is put right, and its writer is named.

use countersign_api::traffic::Subsets;
use countersign_api::{HASH_LABEL, RouteKind};
use countersign_core::Decision;
use countersign_core::decision::{Action, TrafficAction};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

/// The writes to the route for testers and to subsets.
fn writes(decision: &Decision) -> Vec<&TrafficAction> {
    let traffic = decision.actions.iter().filter_map(|it| match it {
        Action::Traffic(write) => Some(write),
        _ => None,
    });
    let written = traffic.filter(|it| {
        matches!(
            it,
            TrafficAction::ApplyTesters(_) | TrafficAction::SelectSubsets { .. }
        )
    });
    written.collect()
}

/// The messages of the warnings with a reason.
fn warnings(decision: &Decision, reason: &str) -> Vec<String> {
    let notices = decision.notices.iter();
    let warnings = notices.filter(|it| it.warning && it.reason == reason);
    warnings.map(|it| it.message.clone()).collect()
}

/// A reconcile half a second after the last one, with pods that are ready at once. The writes that the world does not
/// carry out are carried out here.
fn reconciled(world: &mut World) -> Decision {
    world.observation.now += SignedDuration::from_millis(500);
    for set in &mut world.observation.replica_sets {
        (set.available, set.ready) = (set.replicas, set.replicas);
    }
    let decision = world.reconcile(&mut steady(500.0, 0.0, 0.0));
    world.carry_out(&decision, usize::MAX);
    for write in writes(&decision) {
        match write {
            TrafficAction::ApplyTesters(own) => {
                let metadata = json!({ "name": own.name, "generation": 1 });
                let mut object = json!({ "metadata": metadata, "spec": own.spec });
                accept(&mut object);
                world.observation.traffic.routes[0].testers = Some(RouteObject {
                    object,
                    last_writer: None,
                });
            }
            TrafficAction::SelectSubsets { operations, .. } => {
                let patch: json_patch::Patch = serde_json::from_value(json!(operations)).unwrap();
                let rule = rule(world);
                json_patch::patch(&mut rule.object, &patch).unwrap();
                // The subsets are one value: who changes it takes it over.
                rule.last_writer = None;
            }
            _ => unreachable!(),
        }
    }
    decision
}

/// Begins a change; returns the decisions until its first step serves.
fn stepping(world: &mut World) -> Vec<Decision> {
    change(world, "v2");
    let mut decisions = Vec::new();
    let serves = |seen: &Observation| {
        let change = seen.status.change.as_ref();
        let split = seen.status.traffic.as_ref();
        change.is_some_and(|it| it.step == 1 && it.available_at.is_some())
            && split.is_some_and(|it| it.settled_at.is_some())
    };
    while !serves(&world.observation) {
        let status = &world.observation.status;
        assert!(decisions.len() < 1_000, "{status:?}");
        decisions.push(reconciled(world));
    }
    decisions
}

fn step(world: &World) -> i32 {
    world.observation.status.change.as_ref().unwrap().step
}

/// The edit is put right in one reconcile, with a warning that has these words, and then nothing is left to do.
fn corrected(world: &mut World, edit: impl Fn(&mut World), reason: &str, words: &[&str]) {
    edit(world);
    let decision = reconciled(world);
    assert_eq!(writes(&decision).len(), 1, "{:?}", decision.actions);
    let found = warnings(&decision, reason);
    let [message] = &found[..] else {
        panic!("{:?}", decision.notices);
    };
    for word in words {
        assert!(message.contains(word), "{word} is not in: {message}");
    }
    let split = decision.status.traffic.as_ref().unwrap();
    assert_eq!(split.settled_at, None, "what is edited is not settled");
    let again = reconciled(world);
    assert!(writes(&again).is_empty(), "{:?}", again.actions);
    assert_eq!(warnings(&again, reason), [""; 0]);
    let split = again.status.traffic.as_ref().unwrap();
    assert!(split.settled_at.is_some(), "{}", again.status.message);
}

/// Another controller edits it every second for a minute.
fn fought(world: &mut World, edit: impl Fn(&mut World), reason: &str) {
    let mut corrections = 0;
    for second in 0..60 {
        edit(world);
        world.observation.now += SignedDuration::from_millis(500);
        let decision = reconciled(world);
        let named = warnings(&decision, reason).len();
        assert_eq!(writes(&decision).len(), named, "after {second} s");
        let due = decision.requeue_at.unwrap();
        let due = due.duration_since(world.observation.now);
        assert!(due <= SignedDuration::from_secs(5), "{due}");
        corrections += named;
    }
    assert!((10..=13).contains(&corrections), "{corrections}");
}

fn own(world: &mut World) -> &mut RouteObject {
    let routes = &mut world.observation.traffic.routes;
    routes[0].testers.as_mut().unwrap()
}

#[test]
fn law_11_a_route_for_testers_that_somebody_edits_is_put_right_and_the_writer_named() {
    let reason = "TestersCorrected";
    let mut world = routed(|seen| {
        let traffic = seen.spec.strategy.canary.traffic.as_mut().unwrap();
        let testers = json!({ "headers": [{ "name": "x-tester", "value": "yes" }] });
        traffic.testers = serde_json::from_value(testers).unwrap();
    });
    let begun = stepping(&mut world);
    let made = begun.iter().filter(|it| !writes(it).is_empty());
    assert_eq!(made.count(), 1);
    let decided = own(&mut world).object["spec"].clone();
    // Neither field is in what was decided.
    let edit = |world: &mut World| {
        let own = own(world);
        let rewrite = json!({ "type": "URLRewrite", "urlRewrite": { "hostname": "other" } });
        own.object["spec"]["hostnames"] = json!(["everybody.example.org"]);
        own.object["spec"]["rules"][0]["filters"] = json!([rewrite]);
        own.last_writer = Some("mallory".into());
    };
    let words = ["HTTPRoute web-testers", "mallory", "hostnames, rules"];
    corrected(&mut world, edit, reason, &words);
    assert_eq!(own(&mut world).object["spec"], decided);

    // Its team edits the route that it is made of.
    let route = world.observation.traffic.routes[0].object.as_mut().unwrap();
    route.object["spec"]["rules"][1]["timeouts"] = json!({ "request": "5s" });
    route.last_writer = Some("team".into());
    let decision = reconciled(&mut world);
    assert_eq!(writes(&decision).len(), 1);
    assert_eq!(warnings(&decision, reason), [""; 0]);
    let rule = &own(&mut world).object["spec"]["rules"][0];
    assert_eq!(rule["timeouts"], json!({ "request": "5s" }));

    fought(&mut world, edit, reason);
    assert_eq!((step(&world), world.broken), (1, vec![]));
}

fn rule(world: &mut World) -> &mut RouteObject {
    let route = &mut world.observation.traffic.routes[0];
    route.destination_rule.as_mut().unwrap().as_mut().unwrap()
}

/// A Rollout behind a VirtualService with subsets.
fn meshed() -> World {
    let version = "networking.istio.io/v1";
    let to = |subset: &str, weight: i32| json!({ "destination": { "host": "web", "subset": subset }, "weight": weight });
    let service = json!({
        "apiVersion": version, "kind": "VirtualService", "metadata": { "name": "web", "uid": "u", "generation": 1 },
        "spec": { "http": [{ "route": [to("stable", 100), to("canary", 0)] }] },
    });
    let rule = json!({
        "apiVersion": version, "kind": "DestinationRule", "metadata": { "name": "web", "uid": "d" },
        "spec": { "host": "web", "subsets": [
            { "name": "stable", "labels": { "app": "shop" } }, { "name": "canary" },
        ] },
    });
    let by_team = |object: &Value| RouteObject {
        object: object.clone(),
        last_writer: Some("team".into()),
    };
    routed(|seen| {
        let reference = RouteReference {
            kind: RouteKind::VirtualService,
            name: "web".into(),
            destination_rule: Some(Subsets {
                name: "web".into(),
                stable_subset: "stable".into(),
                canary_subset: "canary".into(),
            }),
            ..RouteReference::default()
        };
        let traffic = seen.spec.strategy.canary.traffic.as_mut().unwrap();
        traffic.routes = vec![reference.clone()];
        seen.traffic.routes = vec![Route {
            reference,
            object: Ok(by_team(&service)),
            destination_rule: Some(Ok(by_team(&rule))),
            testers: None,
        }];
    })
}

#[test]
fn law_11_a_subset_that_somebody_points_at_the_canary_is_put_right_and_the_writer_named() {
    let reason = "SubsetsCorrected";
    let mut world = meshed();
    // The weights of the first revision are settled, and its subsets are as in their manifest.
    let split = world.observation.status.traffic.get_or_insert_default();
    split.settled_at = Some(Time(world.observation.now));
    let begun = stepping(&mut world);
    let moved = begun.iter().filter(|it| !writes(it).is_empty());
    assert!(
        moved.count() > 1,
        "to stable, and one of them to the canary"
    );
    assert!(begun.iter().all(|it| warnings(it, reason).is_empty()));
    let status = &world.observation.status;
    let stable = status.stable.as_ref().unwrap().pod_template_hash.clone();
    let canary = status.change.as_ref().unwrap().pod_template_hash.clone();
    let labels = |world: &mut World, n: usize| {
        let rule = rule(world);
        rule.object["spec"]["subsets"][n]["labels"].clone()
    };
    assert_eq!(labels(&mut world, 1), json!({ HASH_LABEL: canary }));

    let edit = |world: &mut World| {
        let rule = rule(world);
        rule.object["spec"]["subsets"][0]["labels"][HASH_LABEL] = json!(canary);
        rule.last_writer = Some("mallory".into());
    };
    let found = format!("stable selects revision {canary} and is set to revision {stable}");
    let words = ["DestinationRule web", "mallory", &found];
    corrected(&mut world, edit, reason, &words);
    let expected = json!({ "app": "shop", HASH_LABEL: stable });
    assert_eq!(labels(&mut world, 0), expected);

    fought(&mut world, edit, reason);
    assert_eq!(step(&world), 1);

    // What is edited again soon after a correction waits, but not once the traffic goes back.
    edit(&mut world);
    let waiting = reconciled(&mut world);
    assert!(writes(&waiting).is_empty(), "{:?}", waiting.actions);
    change(&mut world, "v1");
    let decision = reconciled(&mut world);
    assert_eq!(warnings(&decision, reason).len(), 1);
    assert_eq!(labels(&mut world, 0), expected);
    assert_eq!(world.broken, []);
}
