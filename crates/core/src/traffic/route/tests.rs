use countersign_api::traffic::{RouteKind, Subsets, Testers};
use serde_json::{Value, json};

use crate::observation::traffic::RouteObject;
use crate::traffic::route::patch::patch;
use crate::traffic::route::rule::{Sides, is_host, rules, share};
use crate::traffic::route::status::{Acceptance, acceptance};
use crate::traffic::route::subsets::{select, selected};
use crate::traffic::route::testers::testers;

const SIDES: Sides = Sides::Services {
    namespace: "shop",
    stable: "web",
    canary: "web-canary",
};

fn by_subsets(subsets: &Subsets) -> Sides<'_> {
    Sides::Subsets {
        namespace: "shop",
        host: Some("web.shop.svc.cluster.local"),
        subsets,
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is made for the call")]
fn object(spec: Value) -> RouteObject {
    RouteObject {
        object: json!({ "metadata": { "uid": "u", "generation": 3 }, "spec": spec }),
        last_writer: None,
    }
}

fn backend(name: &str, weight: i32) -> Value {
    json!({ "group": "", "kind": "Service", "name": name, "port": 80, "weight": weight })
}

/// Carries out a patch as the API server does, as far as ours go.
fn patched(object: &RouteObject, operations: &[Value]) -> Value {
    let patch: json_patch::Patch = serde_json::from_value(json!(operations)).unwrap();
    let mut value = object.object.clone();
    json_patch::patch(&mut value, &patch).unwrap();
    value
}

#[test]
fn of_a_route_with_many_rules_only_two_weights_change() {
    let mine = json!({
        "name": "main", "timeouts": { "request": "5s" },
        "filters": [{ "type": "RequestHeaderModifier", "requestHeaderModifier": { "remove": ["x"] } }],
        "matches": [{ "path": { "type": "PathPrefix", "value": "/" } }],
        "backendRefs": [backend("web", 1), backend("web-canary", 0)],
    });
    let other = json!({ "backendRefs": [backend("search", 3), backend("search-canary", 1)] });
    let alone = json!({ "backendRefs": [backend("web-canary", 1)] });
    let route = object(json!({ "rules": [other, mine, alone, other, alone] }));
    let rules = rules(RouteKind::HTTPRoute, &route, &[], SIDES).unwrap();
    assert_eq!(rules.len(), 1);
    assert_eq!(rules[0].label, "rule 2 (main)");
    assert_eq!(share(&rules), 0);
    let operations = patch(RouteKind::HTTPRoute, &route, &rules, 7, None).unwrap();
    let mut wanted = route.object.clone();
    wanted["spec"]["rules"][1]["backendRefs"][0]["weight"] = json!(93);
    wanted["spec"]["rules"][1]["backendRefs"][1]["weight"] = json!(7);
    assert_eq!(patched(&route, &operations), wanted);
}

#[test]
fn a_patch_does_not_apply_to_what_has_changed_since() {
    let route = object(
        json!({ "rules": [{ "backendRefs": [backend("web", 100), backend("web-canary", 0)] }] }),
    );
    let rules = rules(RouteKind::HTTPRoute, &route, &[], SIDES).unwrap();
    let operations = patch(RouteKind::HTTPRoute, &route, &rules, 7, None).unwrap();
    let patch: json_patch::Patch = serde_json::from_value(json!(operations)).unwrap();
    for (path, value) in [
        ("/metadata/uid", json!("another")),
        ("/spec/rules/0/backendRefs/0/weight", json!(1)),
        ("/spec/rules/0/backendRefs/1/name", json!("search")),
        ("/spec/rules", json!([])),
    ] {
        let mut edited = route.object.clone();
        *edited.pointer_mut(path).unwrap() = value;
        assert!(json_patch::patch(&mut edited, &patch).is_err(), "{path}");
    }
}

#[test]
fn beside_other_backends_the_sum_stays() {
    let shared = |stable, canary| {
        object(json!({ "rules": [{ "backendRefs": [
                backend("legacy", 40), backend("web", stable), backend("web-canary", canary),
            ] }] }))
    };
    let route = shared(60, 0);
    let found = rules(RouteKind::HTTPRoute, &route, &[], SIDES).unwrap();
    let operations = patch(RouteKind::HTTPRoute, &route, &found, 50, None).unwrap();
    let spec = patched(&route, &operations)["spec"].clone();
    assert_eq!(spec, shared(30, 30).object["spec"]);

    let route = shared(3, 0);
    let found = rules(RouteKind::HTTPRoute, &route, &[], SIDES).unwrap();
    let problem = patch(RouteKind::HTTPRoute, &route, &found, 5, None).unwrap_err();
    assert!(problem.contains("too few for 5%"), "{problem}");
    assert!(patch(RouteKind::HTTPRoute, &route, &found, 0, None).is_ok());
}

#[test]
fn what_cannot_be_split_is_refused_with_the_reason() {
    let of = |rules_: Value, wanted: &[&str]| {
        let wanted: Vec<_> = wanted.iter().map(|it| (*it).to_owned()).collect();
        let route = object(json!({ "rules": rules_ }));
        rules(RouteKind::HTTPRoute, &route, &wanted, SIDES)
            .map(|rules| rules.len())
            .unwrap_err()
    };
    let both = json!([backend("web", 1), backend("web-canary", 0)]);
    assert!(of(json!([]), &[]).starts_with("none of its rules sends to both Service web and"));
    let foreign = json!({ "name": "web-canary", "namespace": "other", "port": 80 });
    let rule = json!([{ "backendRefs": [backend("web", 1), foreign] }]);
    assert!(of(rule, &[]).starts_with("none of its rules"));
    assert_eq!(
        of(json!([{ "backendRefs": both }]), &["a"]),
        "it has no rule named a"
    );
    let rule = json!([{ "name": "a", "backendRefs": [backend("web", 1)] }]);
    assert!(of(rule, &["a"]).starts_with("rule 1 sends to both"));
    let twice = json!([
        backend("web", 1),
        backend("web-canary", 0),
        backend("web", 1)
    ]);
    assert!(of(json!([{ "backendRefs": twice }]), &[]).contains("one side twice"));
}

#[test]
fn a_share_that_is_not_quite_0_is_not_0() {
    let at = |stable, canary| {
        let route = object(
            json!({ "rules": [{ "backendRefs": [backend("web", stable), backend("web-canary", canary)] }] }),
        );
        let rules = rules(RouteKind::HTTPRoute, &route, &[], SIDES).unwrap();
        share(&rules)
    };
    assert_eq!(
        (at(100, 0), at(999, 1), at(0, 0), at(0, 5), at(1, 1)),
        (0, 1, 0, 100, 50)
    );
}

#[test]
fn weights_that_no_router_takes_are_a_share_all_the_same() {
    for (stable, canary, wanted) in [
        (i64::MAX, i64::MAX, 50),
        (i64::MIN, i64::MAX, 0),
        (-1, 2, 100),
        (100, -5, 0),
    ] {
        let mut of_stable = backend("web", 0);
        of_stable["weight"] = json!(stable);
        let mut of_canary = backend("web-canary", 0);
        of_canary["weight"] = json!(canary);
        let route = object(json!({ "rules": [{ "backendRefs": [of_stable, of_canary] }] }));
        let found = rules(RouteKind::HTTPRoute, &route, &[], SIDES).unwrap();
        assert_eq!(share(&found), wanted, "{stable} {canary}");
        let operations = patch(RouteKind::HTTPRoute, &route, &found, 7, None).unwrap();
        let weights = patched(&route, &operations)["spec"]["rules"][0]["backendRefs"].clone();
        assert_eq!(
            weights,
            json!([backend("web", 93), backend("web-canary", 7)])
        );
    }
}

#[test]
fn an_istio_host_is_a_service_by_more_and_more_of_its_domain() {
    for host in [
        "web",
        "web.shop",
        "web.shop.svc",
        "web.shop.svc.cluster.local",
    ] {
        assert!(is_host(host, "web", "shop"), "{host}");
    }
    for host in [
        "web-canary",
        "web.other",
        "web.shop.example.org",
        "web.shopping",
        "we",
    ] {
        assert!(!is_host(host, "web", "shop"), "{host}");
    }
}

#[test]
fn a_virtual_service_is_split_by_hosts_or_by_subsets() {
    let to = |host: &str, subset: Option<&str>, weight: Option<i32>| {
        let mut route = json!({ "destination": { "host": host } });
        if let Some(subset) = subset {
            route["destination"]["subset"] = json!(subset);
        }
        if let Some(weight) = weight {
            route["weight"] = json!(weight);
        }
        route
    };
    let by_host = object(json!({
        "http": [{ "match": [{ "headers": {} }], "route": [to("web-canary", None, None)] },
            { "name": "main", "route": [to("web.shop.svc", None, Some(100)), to("web-canary", None, None)] }],
        "tcp": [{ "route": [to("web", None, Some(100)), to("web-canary", None, Some(0))] }],
    }));
    let rules_ = rules(RouteKind::VirtualService, &by_host, &[], SIDES).unwrap();
    assert_eq!(rules_.len(), 2);
    let operations = patch(RouteKind::VirtualService, &by_host, &rules_, 5, None).unwrap();
    let after = patched(&by_host, &operations);
    assert_eq!(
        after.pointer("/spec/http/1/route/1/weight"),
        Some(&json!(5))
    );
    assert_eq!(
        after.pointer("/spec/tcp/0/route/0/weight"),
        Some(&json!(95))
    );

    let subsets = Subsets {
        name: "web".into(),
        stable_subset: "stable".into(),
        canary_subset: "canary".into(),
    };
    let by_subset = object(json!({ "http": [{ "route": [
            to("web", Some("stable"), Some(100)), to("web", Some("canary"), Some(0)),
        ] }] }));
    let found = rules(
        RouteKind::VirtualService,
        &by_subset,
        &[],
        by_subsets(&subsets),
    );
    let found = found.unwrap();
    let operations = patch(RouteKind::VirtualService, &by_subset, &found, 5, Some(20)).unwrap();
    let after = patched(&by_subset, &operations);
    assert_eq!(
        after.pointer("/spec/http/0/mirror/subset"),
        Some(&json!("canary"))
    );
    let after = RouteObject {
        object: after,
        last_writer: None,
    };
    let found = rules(RouteKind::VirtualService, &after, &[], by_subsets(&subsets)).unwrap();
    assert!(found[0].mirrors(RouteKind::VirtualService, Some(20)) && found[0].is_at(5));
    let operations = patch(RouteKind::VirtualService, &after, &found, 0, None).unwrap();
    assert_eq!(
        patched(&after, &operations)["spec"],
        by_subset.object["spec"]
    );

    let rule = object(json!({ "host": "web", "subsets": [
            { "name": "stable", "labels": { "pod-template-hash": "a" } }, { "name": "canary" },
        ] }));
    assert_eq!(selected(&rule, &subsets), Ok((Some("a"), None)));
    let operations = select(&rule, &subsets, Some("a"), Some("b")).unwrap();
    let after = RouteObject {
        object: patched(&rule, &operations),
        last_writer: None,
    };
    assert_eq!(selected(&after, &subsets), Ok((Some("a"), Some("b"))));
    assert_eq!(select(&after, &subsets, Some("a"), Some("b")), Ok(vec![]));
}

#[test]
fn a_mirror_is_a_filter_of_its_own_that_comes_and_goes() {
    let filters = json!([{ "type": "RequestHeaderModifier" }]);
    for filters in [Some(filters), None] {
        let mut rule = json!({ "backendRefs": [backend("web", 100), backend("web-canary", 0)] });
        if let Some(filters) = filters {
            rule["filters"] = filters;
        }
        let before = object(json!({ "rules": [rule] }));
        let found = rules(RouteKind::HTTPRoute, &before, &[], SIDES).unwrap();
        assert!(found[0].mirrors(RouteKind::HTTPRoute, None));
        let operations = patch(RouteKind::HTTPRoute, &before, &found, 0, Some(100)).unwrap();
        let after = RouteObject {
            object: patched(&before, &operations),
            last_writer: None,
        };
        let found = rules(RouteKind::HTTPRoute, &after, &[], SIDES).unwrap();
        assert!(found[0].mirrors(RouteKind::HTTPRoute, Some(100)));
        let operations = patch(RouteKind::HTTPRoute, &after, &found, 0, None).unwrap();
        assert_eq!(patched(&after, &operations), before.object);
    }
}

fn condition(kind: &str, status: &str, generation: Option<i64>) -> Value {
    let mut condition = json!({ "type": kind, "status": status, "reason": "R", "message": "m" });
    if let Some(generation) = generation {
        condition["observedGeneration"] = json!(generation);
    }
    condition
}

/// An `HTTPRoute` with these parents, and entries of its status about parents with these conditions.
#[allow(clippy::needless_pass_by_value, reason = "it is made for the call")]
fn answered(references: Value, entries: Vec<(Value, Vec<Value>)>) -> Acceptance {
    let mut route = object(json!({ "parentRefs": references }));
    route.object["metadata"]["namespace"] = json!("shop");
    let entry = |(of, conditions)| json!({ "parentRef": of, "conditions": conditions });
    let entries: Vec<_> = entries.into_iter().map(entry).collect();
    route.object["status"] = json!({ "parents": entries });
    acceptance(RouteKind::HTTPRoute, &route)
}

fn pending(acceptance: Acceptance) -> String {
    match acceptance {
        Acceptance::Pending(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_route_is_accepted_when_every_parent_accepts_this_generation() {
    let gate = json!({ "name": "gate" });
    let with = |conditions: Vec<Value>| {
        let of = json!({ "name": "gate", "namespace": "shop" });
        answered(json!([gate]), vec![(of, conditions)])
    };
    let both = |generation, resolved: &str| {
        vec![
            condition("Accepted", "True", generation),
            condition("ResolvedRefs", resolved, generation),
        ]
    };
    assert_eq!(with(both(Some(3), "True")), Acceptance::Accepted);
    let old = pending(with(both(Some(2), "True")));
    assert!(
        old.contains("Gateway gate has not observed the present generation"),
        "{old}"
    );
    let undated = Acceptance::Undated("Gateway gate".into());
    assert_eq!(with(both(None, "True")), undated);
    for generation in [Some(3), None] {
        let refused = pending(with(both(generation, "False")));
        assert!(refused.ends_with("ResolvedRefs is not True: R: m"));
    }
    let silent = pending(answered(json!([gate]), vec![]));
    assert!(silent.contains("Gateway gate has not reported"), "{silent}");
    let orphan = object(json!({}));
    pending(acceptance(RouteKind::HTTPRoute, &orphan));
    let istio = acceptance(RouteKind::VirtualService, &orphan);
    assert_eq!(istio, Acceptance::Accepted);
}

#[test]
fn an_entry_with_neither_accepted_nor_resolved_does_not_confirm_the_weights() {
    let gate = json!({ "name": "gate" });
    let both = |status: &str| {
        vec![
            condition("Accepted", status, Some(3)),
            condition("ResolvedRefs", "True", Some(3)),
        ]
    };
    let policy = || vec![condition("example.org/PolicyAffected", "True", Some(1))];
    let of = |entries: Vec<Vec<Value>>| {
        let entries = entries.into_iter().map(|it| (gate.clone(), it));
        answered(json!([gate]), entries.collect())
    };
    assert_eq!(of(vec![both("True"), policy()]), Acceptance::Accepted);
    assert_eq!(of(vec![policy(), both("True")]), Acceptance::Accepted);
    pending(of(vec![policy()]));
    pending(of(vec![vec![]]));
    pending(of(vec![both("True"), both("False")]));
    // Half of what is needed, which another entry completes.
    let half = || vec![condition("Accepted", "True", Some(3))];
    let why = pending(of(vec![half()]));
    assert!(why.contains("both Accepted and ResolvedRefs"), "{why}");
    assert_eq!(of(vec![half(), both("True")]), Acceptance::Accepted);
}

#[test]
fn what_a_parent_reference_leaves_out_has_the_default_of_the_gateway_api() {
    let both = || {
        vec![
            condition("Accepted", "True", Some(3)),
            condition("ResolvedRefs", "True", Some(3)),
        ]
    };
    let full = json!({
        "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "shop", "name": "gate",
    });
    let brief = json!({ "name": "gate" });
    let section = json!({ "name": "gate", "sectionName": "https", "port": 443 });
    let mesh = json!({ "group": "", "kind": "Service", "name": "gate" });
    let accepted = |reference: &Value, of: &[&Value]| {
        let entries = of.iter().map(|of| ((*of).clone(), both())).collect();
        answered(json!([reference]), entries) == Acceptance::Accepted
    };
    assert!(accepted(&full, &[&brief]) && accepted(&brief, &[&full]));
    assert!(accepted(&brief, &[&section]) && accepted(&section, &[&section]));
    assert!(!accepted(&section, &[&brief]));
    assert!(accepted(&mesh, &[&mesh]));
    // A Gateway and a Service of one name are two parents.
    assert!(!accepted(&mesh, &[&brief]) && !accepted(&brief, &[&mesh]));
    let two = |of: Vec<(Value, Vec<Value>)>| answered(json!([brief, mesh]), of);
    let why = pending(two(vec![(brief.clone(), both())]));
    assert!(why.contains("Service gate has not reported"), "{why}");
    let all = vec![(brief.clone(), both()), (mesh.clone(), both())];
    assert_eq!(two(all), Acceptance::Accepted);
}

#[test]
fn testers_are_matched_more_exactly_than_the_rule_that_they_leave() {
    let route = object(json!({
        "parentRefs": [{ "name": "gate" }], "hostnames": ["shop.example"],
        "rules": [{ "matches": [{ "path": { "value": "/a" }, "headers": [{ "name": "x", "value": "1" }] }],
            "timeouts": { "request": "5s" },
            "backendRefs": [backend("web", 100), backend("web-canary", 0)] }],
    }));
    let found = rules(RouteKind::HTTPRoute, &route, &[], SIDES).unwrap();
    let who = Testers {
        headers: vec![],
        cookie: Some(countersign_api::traffic::CookieMatch {
            name: "beta".into(),
            value: "yes".into(),
        }),
    };
    let spec = testers(RouteKind::HTTPRoute, &route, &found, &who).unwrap();
    assert_eq!(spec["hostnames"], json!(["shop.example"]));
    assert_eq!(spec["rules"][0]["timeouts"], json!({ "request": "5s" }));
    assert_eq!(
        spec["rules"][0]["matches"][0]["headers"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let backends = spec["rules"][0]["backendRefs"].as_array().unwrap();
    assert_eq!(backends.len(), 1);
    assert_eq!(backends[0]["name"], "web-canary");
}

/// What is stored is compared with this, so the API server has nothing to fill in.
#[test]
fn the_route_for_testers_repeats_all_that_its_owners_holds() {
    let mark = json!({ "type": "Exact", "name": "x-tester", "value": "yes" });
    let header = countersign_api::traffic::HeaderMatch {
        name: "x-tester".into(),
        value: "yes".into(),
    };
    let who = Testers {
        headers: vec![header],
        cookie: None,
    };
    let add =
        json!({ "type": "RequestHeaderModifier", "requestHeaderModifier": { "remove": ["x"] } });
    let mirror = json!({ "type": "RequestMirror", "requestMirror": { "backendRef": { "name": "web-canary", "port": 80 } } });
    let spec = |kind: RouteKind, rule: Value| {
        let route = object(json!({
            "parentRefs": [{ "name": "gate" }], "useDefaultGateways": "All",
            "rules": [{ "backendRefs": [backend("search", 1)] }, rule],
        }));
        let found = rules(kind, &route, &[], SIDES).unwrap();
        testers(kind, &route, &found, &who).unwrap()
    };
    let rule = |matches: Value, filters: Value| {
        json!({
            "name": "main", "retry": { "attempts": 2 }, "matches": matches, "filters": filters,
            "backendRefs": [backend("web", 95), backend("web-canary", 5)],
        })
    };
    let path = json!({ "path": { "type": "PathPrefix", "value": "/" } });
    let filtered = rule(json!([path]), json!([mirror, add]));
    let expected = json!({
        "parentRefs": [{ "name": "gate" }], "useDefaultGateways": "All",
        "rules": [{
            "name": "main", "retry": { "attempts": 2 }, "filters": [add],
            "matches": [{ "path": path["path"], "headers": [mark] }],
            "backendRefs": [backend("web-canary", 1)],
        }],
    });
    assert_eq!(spec(RouteKind::HTTPRoute, filtered), expected);
    // To a match without a path the API server adds one.
    let empty = || rule(json!([]), json!([mirror]));
    let own = spec(RouteKind::HTTPRoute, empty())["rules"][0].take();
    assert_eq!(own["matches"], expected["rules"][0]["matches"]);
    assert_eq!(own.get("filters"), None);
    let own = spec(RouteKind::GRPCRoute, empty())["rules"][0].take();
    assert_eq!(own["matches"], json!([{ "headers": [mark] }]));
}

/// Of a match's headers each may stand once, or the API server refuses the route.
#[test]
fn testers_are_selected_by_a_header_that_the_rule_matches_too() {
    let header = |name: &str, value: &str| json!({ "name": name, "value": value });
    let pattern = json!({ "type": "RegularExpression", "name": "x-user", "value": "a.*" });
    let with = |matches: Value| {
        let route = object(json!({ "rules": [{
                "matches": matches, "backendRefs": [backend("web", 100), backend("web-canary", 0)],
            }] }));
        let found = rules(RouteKind::HTTPRoute, &route, &[], SIDES).unwrap();
        let mark = countersign_api::traffic::HeaderMatch {
            name: "X-User".into(),
            value: "anna".into(),
        };
        let who = Testers {
            headers: vec![mark],
            cookie: None,
        };
        let spec = testers(RouteKind::HTTPRoute, &route, &found, &who);
        spec.map(|spec| spec["rules"][0]["matches"].clone())
    };
    let marked = json!({ "type": "Exact", "name": "X-User", "value": "anna" });
    let same = json!([{ "headers": [header("x-user", "anna")] }]);
    assert_eq!(with(same.clone()), Some(same));
    let other = json!({ "headers": [header("x-user", "bert")] });
    assert_eq!(with(json!([other])), None);
    let one_of_two = with(json!([other, { "headers": [pattern] }]));
    assert_eq!(one_of_two, Some(json!([{ "headers": [marked] }])));
}
