//! Objects of Kubernetes: manifests, stored objects, schedules and routes of others.

use super::*;

/// A freeze's schedule, time zone and length; the length also as a duration of its own.
pub fn schedule(data: &[u8]) {
    let [schedule, time_zone, length] = parts(data);
    let Ok(duration) = length.parse::<Duration>() else {
        return;
    };
    let again: Duration = duration.to_string().parse().unwrap_or_default();
    let millis = |it: Duration| it.std().as_millis();
    assert_eq!(millis(again), millis(duration), "{length}");
    let window = FreezeWindow {
        name: "w".into(),
        schedule,
        time_zone,
        duration,
        ..FreezeWindow::default()
    };
    for now in [now(), Timestamp::MIN, far(), Timestamp::UNIX_EPOCH] {
        if let Ok(Some(until)) = freeze::ends_at(&window, now) {
            assert!(until > now || duration == Duration::default());
        }
    }
}

/// As far from now as any time that matters.
fn far() -> Timestamp {
    "9000-01-01T00:00:00Z".parse().unwrap()
}

/// Manifests as they are given to the plugin: linted, converted, and explained as far as they are sound.
pub fn manifest(data: &[u8]) {
    let [text] = parts(data);
    let source = Source {
        name: "a.yaml".into(),
        text,
    };
    for finding in lint::check(&[lint::Read::source(&source)], now()) {
        is_harmless(finding.render().trim_end_matches('\n'), 8000);
    }
    let sources = [source];
    let conversion = convert::conversion(&sources);
    for line in conversion.report().lines() {
        is_harmless(line, 8000);
    }
    assert!(
        conversion.render().is_ok(),
        "what is converted can be written"
    );
    let observed = Manifests::of(&sources)
        .and_then(|manifests| manifests.observations(None, &BTreeMap::new(), now()));
    match observed {
        Ok(observed) => observed.iter().for_each(|it| is_decided(&it.observation)),
        Err(error) => is_harmless(&error.to_string(), 8000),
    }
}

/// Objects as another version may have stored them: read, and written as they were read.
pub fn object(data: &[u8]) {
    fn kept<T: Serialize + DeserializeOwned>(object: &Value) -> Option<T> {
        let read: T = serde_json::from_value(object.clone()).ok()?;
        let written = serde_json::to_value(&read).ok();
        assert!(
            written.is_some_and(|it| serde_json::from_value::<T>(it).is_ok()),
            "{object}"
        );
        Some(read)
    }
    let Ok(object) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    let _ = kept::<RolloutPolicy>(&object);
    if let Some(template) = kept::<AnalysisTemplate>(&object) {
        let _ = countersign_core::acceptance::template::acceptance(&Ok(template.spec));
    }
    let _ = (
        kept::<SignOff>(&object),
        kept::<Intervention>(&object),
        kept::<Freeze>(&object),
    );
    let _ = kept::<RolloutRun>(&object);
    if let Some(rollout) = kept::<Rollout>(&object) {
        let around = countersign_core::simulation::manifest::Surroundings::default();
        let mut observation =
            countersign_core::simulation::manifest::observe(&rollout, &template(), around, now());
        is_decided(&observation);
        if let Some(status) = rollout.status {
            observation.status = status;
            is_decided(&observation);
        }
    }
}

/// A route of somebody else: its kind, then the object.
pub fn route(data: &[u8]) {
    let [kind, object] = parts(data);
    let Ok(kind) = serde_json::from_value::<RouteKind>(json!(kind.trim())) else {
        return;
    };
    let Ok(object) = serde_json::from_str(&object) else {
        return;
    };
    let route = RouteObject {
        object,
        last_writer: None,
    };
    let subsets = Subsets {
        name: "web".into(),
        stable_subset: "stable".into(),
        canary_subset: "canary".into(),
    };
    let testers = Testers {
        headers: vec![HeaderMatch {
            name: "x".into(),
            value: "y".into(),
        }],
        cookie: None,
    };
    let namespace = "shop";
    let sides = [
        Sides::Services {
            namespace,
            stable: "web",
            canary: "web-canary",
        },
        Sides::Subsets {
            namespace,
            host: Some("web"),
            subsets: &subsets,
        },
    ];
    let _ = status::acceptance(kind, &route);
    for sides in sides {
        let Ok(rules) = rule::rules(kind, &route, &[], sides) else {
            continue;
        };
        let share = rule::share(&rules);
        assert!((0..=100).contains(&share), "{share}");
        let _ = testers::testers(kind, &route, &rules, &testers);
        for (share, mirror) in [(0, None), (7, Some(20)), (100, None)] {
            let Ok(operations) = patch::patch(kind, &route, &rules, share, mirror) else {
                continue;
            };
            let Some(after) = patched(&route, &operations) else {
                continue;
            };
            let Ok(rules) = rule::rules(kind, &after, &[], sides) else {
                panic!("the rules are gone: {}", after.object);
            };
            assert!(
                rules.iter().all(|rule| rule.is_at(share)),
                "{}",
                after.object
            );
        }
    }
    let _ = subsets::selected(&route, &subsets);
    for operations in [
        subsets::select(&route, &subsets, Some("a"), Some("b")),
        subsets::release(&route, &subsets),
    ] {
        if let Ok(operations) = &operations {
            patched(&route, operations);
        }
    }
}

/// The route as the API server makes it of a patch; `None` where it would refuse it.
fn patched(route: &RouteObject, operations: &[Value]) -> Option<RouteObject> {
    let patch = serde_json::from_value::<json_patch::Patch>(json!(operations));
    assert!(patch.is_ok(), "{operations:?}");
    let mut object = route.object.clone();
    json_patch::patch(&mut object, &patch.ok()?).ok()?;
    Some(RouteObject {
        object,
        last_writer: None,
    })
}
