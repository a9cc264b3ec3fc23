//! The world in which a setup begins: its policy, its route, and what is observed first.

use super::*;

pub(super) fn freeze(action: FreezeAction) -> NamedFreeze {
    NamedFreeze {
        name: "incident".into(),
        spec: FreezeSpec {
            reason: "checkout is down".into(),
            namespace_selector: None,
            rollout_selector: None,
            tiers: vec![],
            until: None,
            action,
            person: person("dave"),
        },
    }
}

/// The built-in policy with short steps in the lowest tier, which the changes are in.
pub(super) fn policy(setup: &Setup, last_sign_offs: usize, generation: i64) -> NamedPolicy {
    let built_in = countersign_core::policy::defaults::built_in();
    let mut spec = serde_json::to_value(built_in).unwrap();
    let demand_of = |count: usize| match count {
        0 => json!([]),
        count => json!([{ "count": count }]),
    };
    for tier in ["low", "medium", "high", "critical"] {
        let demands = &mut spec["tiers"][tier];
        let weights = setup.weights.iter();
        let bake = format!("{}m", setup.bake);
        let steps = weights.map(|weight| {
            let mut step = json!({ "weight": weight, "bake": bake, "minRequests": 10 });
            if let Some(scale) = setup.scale {
                step["scale"] = json!(scale);
            }
            step
        });
        demands["steps"] = steps.collect();
        for (key, value) in [
            ("maxFirstWeight", json!(50)),
            ("minFinalWeight", json!(0)),
            ("maxIncrease", json!(100)),
            ("minBake", json!("1m")),
            ("minRequests", json!(0)),
            ("waitAtMost", json!(format!("{WAIT_AT_MOST}m"))),
            ("onScarceEvidence", json!(setup.scarce)),
            ("extendAtMost", json!(format!("{}m", setup.deadline))),
            ("signOff", demand_of(setup.first_sign_offs)),
            ("promotionSignOff", demand_of(last_sign_offs)),
        ] {
            demands[key] = value;
        }
    }
    // Records are removed as the Rollout says.
    spec["history"]["runs"] = json!(0);
    NamedPolicy {
        name: "model".into(),
        generation,
        spec: serde_json::from_value(spec).unwrap(),
    }
}

fn route() -> Value {
    let backend = |name: &str, weight: i32| json!({ "name": name, "port": 80, "weight": weight });
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "name": "web", "uid": "u", "generation": 1 },
        "spec": { "parentRefs": [{ "name": "gate" }], "rules": [
            { "backendRefs": [backend(SERVICES[0], 1), backend(SERVICES[1], 0)] },
        ] },
    })
}

fn first(setup: &Setup) -> Observation {
    let mut annotations: BTreeMap<_, _> = [
        ("revision", "1"),
        ("approved-revision", "1"),
        ("contributor", "human"),
        ("authors", "alice"),
        ("reviewers", "bob"),
        ("tests", "PASSED"),
        ("lines-added", "3"),
        ("lines-deleted", "1"),
        ("files-changed", "1"),
    ]
    .into_iter()
    .map(|(key, value)| {
        (
            format!("provenance.countersign.dev/{key}"),
            value.to_owned(),
        )
    })
    .collect();
    annotations.insert(CHANGED_BY_ANNOTATION.into(), "erin".into());
    let mut analysis = json!({
        "interval": "1m",
        "checks": [{ "name": world::CHECK, "preset": "HttpRequestsTotal", "dispersion": 1 }],
    });
    if setup.watched > 0 {
        // What is watched alone is compared with nothing.
        analysis["checks"][0]["ceiling"] = json!(0.02);
        analysis["postPromotion"] = json!(format!("{}m", setup.watched));
    }
    if setup.budget {
        analysis["objectives"] = json!([{
            "name": world::OBJECTIVE, "target": 0.999, "onBurn": "Hold",
            "errors": "requests{code=~\"5..\"}", "total": "requests",
        }]);
    }
    let spec = serde_json::from_value(json!({
        "replicas": setup.replicas,
        "selector": { "matchLabels": { "app": "shop" } },
        "template": template(1),
        "progressDeadlineSeconds": 60 * setup.deadline,
        "strategy": { "canary": { "analysis": analysis } },
    }));
    let mut seen = Observation {
        uid: "uid".into(),
        generation: 1,
        annotations,
        policies: vec![policy(setup, setup.last_sign_offs, 1)],
        concurrent_changes: Some(Ok(vec![])),
        ..Observation::of("team", "shop", spec.unwrap())
    };
    if setup.budget {
        let answer = Err("it was not sent yet".into());
        seen.analysis
            .objectives
            .insert(world::OBJECTIVE.into(), answer);
    }
    seen.spec.revision_history_limit = setup.history.unwrap_or(seen.spec.revision_history_limit);
    let canary = &mut seen.spec.strategy.canary;
    if setup.sends != Sends::Pods {
        for name in SERVICES {
            let service = Service {
                kind: "ClusterIP".into(),
                selector: [("app".into(), "shop".into())].into(),
            };
            seen.traffic.services.insert(name.into(), Some(service));
        }
        canary.stable_service = Some(SERVICES[0].into());
        canary.canary_service = Some(SERVICES[1].into());
    }
    if matches!(setup.sends, Sends::Routes | Sends::Dynamic) {
        let reference = RouteReference {
            name: "web".into(),
            ..RouteReference::default()
        };
        canary.traffic = Some(Traffic {
            routes: vec![reference.clone()],
            testers: None,
        });
        let object = RouteObject {
            object: route(),
            last_writer: None,
        };
        seen.traffic.routes = vec![Route {
            reference,
            object: Ok(object),
            destination_rule: None,
            testers: None,
        }];
    }
    canary.dynamic_stable = setup.sends == Sends::Dynamic;
    canary.scale_down_delay = Duration::minutes(setup.kept);
    if let Some(surge) = setup.surge {
        canary.max_surge = IntOrString::Int(surge);
    }
    seen
}

fn smoke() -> countersign_api::Smoke {
    let template = json!({ "spec": { "containers": [{ "name": "smoke", "image": "{{image}}" }] } });
    serde_json::from_value(json!({ "timeout": "1m", "template": template })).unwrap()
}

/// A world in which the last of these revisions serves, or is as far as the setup says, and nothing has
/// happened yet.
pub(super) fn serving(setup: &Setup, faults: usize) -> World {
    let mut world = World::new(first(setup), 0);
    world.requests = setup.requests;
    let mut versions = setup.before.iter();
    let begins = |world: &World| {
        let change = world.change().filter(|it| !it.initial);
        change.zip(setup.from).is_some_and(|(change, from)| {
            let live = change.outcome.is_none() || is_watched(change);
            live && match from {
                Moment::In(stage) => change.stage == stage,
                Moment::Awaiting(what) => world.seen.status.waiting_for.as_deref() == Some(what),
            }
        })
    };
    while !begins(&world) {
        world = match turn(setup, &world) {
            Ok(next) => next,
            Err(End::Serves(_)) => match versions.next() {
                Some(version) => world.push(*version),
                None => break,
            },
            Err(end) => panic!("{end:?}"),
        };
    }
    let mut seen = world.seen.clone();
    if setup.smoke {
        seen.spec.strategy.canary.smoke = Some(smoke());
    }
    world.begun(seen, faults)
}
