//! Bad input is refused at admission or named in a condition; running pods keep serving.

use countersign_api::{Phase, RolloutPolicy};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{App, Scene, condition, phase, waits_for};

/// Applies as kubectl does, with strict field validation; returns the API server's refusal.
async fn refusal(scene: &Scene, manifest: &Value) -> String {
    let parameters = PatchParams::apply("service-team")
        .force()
        .validation_strict();
    let name = manifest["metadata"]["name"].as_str().unwrap();
    match scene
        .rollouts()
        .patch(name, &parameters, &Patch::Apply(manifest))
        .await
    {
        Ok(_) => panic!("it was admitted: {manifest}"),
        Err(kube::Error::Api(status)) => status.message.clone(),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_rollout_with_bad_input_is_refused_with_a_message_that_names_the_field() {
    let scene = Scene::new("refused").await;
    let steps = |steps: Value| json!({ "strategy": { "canary": { "steps": steps } } });
    let check =
        |check: Value| json!({ "strategy": { "canary": { "analysis": { "checks": [check] } } } });
    let cases: Vec<(&str, Value, &[&str])> = vec![
        (
            "an unknown field",
            json!({ "replica": 3 }),
            &["spec.replica"],
        ),
        (
            "a selector that does not match",
            json!({ "selector": { "matchLabels": { "app": "other" } } }),
            &["spec.selector.matchLabels", "spec.template.metadata.labels"],
        ),
        (
            "an empty selector",
            json!({ "selector": { "matchLabels": null } }),
            &["matchLabels"],
        ),
        (
            "decreasing weights",
            steps(json!([{ "weight": 20 }, { "weight": 5 }])),
            &["strategy.canary.steps", "must not decrease"],
        ),
        (
            "a weight above 100",
            steps(json!([{ "weight": 120 }])),
            &["steps[0].weight"],
        ),
        (
            "a weight below 0",
            steps(json!([{ "weight": -1 }])),
            &["steps[0].weight"],
        ),
        (
            "a weight of 0 where nothing keeps requests away",
            steps(json!([{ "weight": 0 }])),
            &["steps of weight 0 need traffic"],
        ),
        (
            "too many steps",
            steps(json!(vec![json!({ "weight": 5 }); 51])),
            &["steps", "51"],
        ),
        (
            "a negative bake",
            steps(json!([{ "weight": 5, "bake": "-5m" }])),
            &["steps[0].bake"],
        ),
        (
            "an absurd bake",
            steps(json!([{ "weight": 5, "bake": "1e9h" }])),
            &["steps[0].bake"],
        ),
        (
            "a bake in words",
            steps(json!([{ "weight": 5, "bake": "5 minutes" }])),
            &["steps[0].bake"],
        ),
        (
            "negative replicas",
            json!({ "replicas": -1 }),
            &["spec.replicas"],
        ),
        (
            "no surge and nothing unavailable",
            json!({ "strategy": { "canary": { "maxSurge": 0, "maxUnavailable": "0%" } } }),
            &["maxSurge and maxUnavailable"],
        ),
        (
            "a surge that is no number",
            json!({ "strategy": { "canary": { "maxSurge": "many" } } }),
            &["maxSurge"],
        ),
        (
            "one Service for both",
            json!({ "strategy": { "canary": { "stableService": "a", "canaryService": "a" } } }),
            &["stableService and canaryService"],
        ),
        (
            "a check without a query",
            check(json!({ "name": "x" })),
            &["checks[0]", "preset"],
        ),
        (
            "a check with both",
            check(
                json!({ "name": "x", "preset": "HttpRequestsTotal", "errors": "a", "total": "b" }),
            ),
            &["checks[0]", "preset"],
        ),
        (
            "an unknown preset",
            check(json!({ "name": "x", "preset": "Magic" })),
            &["preset", "Magic"],
        ),
        (
            "a query of a megabyte",
            check(json!({ "name": "x", "errors": "a".repeat(1 << 20), "total": "b" })),
            &["errors"],
        ),
        (
            "an interval of nothing",
            json!({ "strategy": { "canary": { "analysis": { "interval": "0s" } } } }),
            &["interval"],
        ),
        (
            "ports of a wrong type",
            json!({ "template": { "spec": { "containers": [{ "name": "a", "ports": [{ "containerPort": "http" }] }] } } }),
            &["containerPort"],
        ),
    ];
    for (what, spec, words) in cases {
        let message = refusal(&scene, &App::new("bad").spec(spec).manifest()).await;
        for word in words {
            assert!(
                message.contains(word),
                "{what}: the message does not name {word}: {message}"
            );
        }
    }
    let mut huge = App::new("bad").manifest();
    huge["metadata"]["annotations"]["provenance.countersign.dev/agents"] =
        json!("x".repeat(300 << 10));
    assert!(refusal(&scene, &huge).await.contains("annotations"));

    // The selector is immutable.
    let mut app = App::new("shop").manifest();
    scene.apply_manifest(&app).await;
    app["spec"]["selector"]["matchLabels"]["tier"] = json!("front");
    app["spec"]["template"]["metadata"]["labels"]["tier"] = json!("front");
    let message = refusal(&scene, &app).await;
    assert!(
        message.contains("spec.selector cannot be changed"),
        "{message}"
    );
}

#[tokio::test]
async fn a_name_as_long_as_a_name_may_be_is_staged_like_any_other() {
    let scene = Scene::new("long").await;
    // Cut at a character that no name may end with.
    let name = format!("{}.{}", "a".repeat(206), "b".repeat(46));
    let long = App {
        checks: false,
        ..App::new(&name)
    };
    let manifest = |version: &str| {
        let short = App {
            checks: false,
            ..App::new("shop").version(version)
        };
        let mut manifest = short.manifest();
        manifest["metadata"]["name"] = json!(name);
        manifest
    };
    scene.apply_manifest(&manifest("v1")).await;
    let is_stable = |rollout: &countersign_api::Rollout| phase(rollout) == Phase::Stable;
    scene
        .until(&long, "the first revision serves", is_stable)
        .await;
    scene.apply_manifest(&manifest("v2")).await;
    let run = scene.outcome(&long).await;
    assert!(crate::support::ended(
        &run,
        countersign_api::rollout::Outcome::Promoted
    ));
}

#[tokio::test]
async fn a_field_newer_than_this_build_survives_and_lists_merge_by_key() {
    let scene = Scene::new("template").await;
    let mut manifest = App::new("newer").manifest();
    manifest["spec"]["template"]["spec"]["fieldOfTomorrow"] = json!({ "a": [1, 2] });
    let rollouts = scene.rollouts();
    let apply = PatchParams::apply("service-team").force();
    rollouts
        .patch("newer", &apply, &Patch::Apply(&manifest))
        .await
        .unwrap();
    let sidecar = json!({ "apiVersion": "countersign.dev/v1alpha1", "kind": "Rollout", "metadata": { "name": "newer" },
        "spec": { "template": { "spec": { "containers": [{ "name": "sidecar", "image": "registry.example/sidecar:1" }] } } } });
    let stored = rollouts
        .patch(
            "newer",
            &PatchParams::apply("other-team"),
            &Patch::Apply(&sidecar),
        )
        .await
        .unwrap();
    let template = &stored.spec.template.0;
    assert_eq!(template["spec"]["fieldOfTomorrow"], json!({ "a": [1, 2] }));
    let containers = template["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 2, "the lists were merged: {containers:?}");
}

#[tokio::test]
async fn a_policy_with_thresholds_out_of_order_or_a_loose_tier_is_refused() {
    let scene = Scene::new("policy").await;
    let policies: Api<RolloutPolicy> = Api::all(scene.cluster.client());
    for (spec, word) in [
        (
            json!({ "risk": { "thresholds": { "medium": 30, "high": 20 } } }),
            "medium must not be above high",
        ),
        (
            json!({ "risk": { "size": [{ "from": 100, "points": 5 }, { "from": 10, "points": 9 }] } }),
            "in order of `from`",
        ),
        (
            json!({ "tiers": { "high": { "onScarceEvidence": "Promote" } } }),
            "only tier low may promote",
        ),
        (
            json!({ "tiers": { "low": { "maxFalseRollback": 0.9 } } }),
            "maxFalseRollback",
        ),
        (
            json!({ "risk": { "points": { "noReveiw": 8 } } }),
            "noReveiw",
        ),
    ] {
        let manifest = json!({ "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutPolicy", "metadata": { "name": "bad" }, "spec": spec });
        let parameters = PatchParams::apply("platform-team")
            .force()
            .validation_strict();
        let error = policies
            .patch("bad", &parameters, &Patch::Apply(manifest))
            .await
            .unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[tokio::test]
async fn a_missing_service_holds_the_change_until_it_appears() {
    let scene = Scene::new("missing").await;
    let app = scene.serving(App::new("shop")).await;
    let _load = scene.load(&app, 100).await;
    let next = app
        .version("v2")
        .spec(json!({ "strategy": { "canary": { "stableService": "not-there" } } }));
    scene.apply(&next).await;
    let held = scene
        .until(&next, "the change is held", |rollout| {
            waits_for(rollout, "ServiceNotFound")
        })
        .await;
    let (status, _, message) = condition(&held, "Stalled").unwrap();
    assert_eq!(status, "True");
    assert!(
        message.contains("not-there") && message.contains("spec.strategy.canary"),
        "{message}"
    );
    assert_eq!(
        held.status.unwrap().available_replicas,
        4,
        "what runs keeps running"
    );
    scene.event_once(&next, "ServiceNotFound").await;
    scene.service("not-there", "shop").await;
    assert!(crate::support::ended(
        &scene.outcome(&next).await,
        countersign_api::rollout::Outcome::Promoted
    ));
}

#[tokio::test]
async fn of_two_rollouts_that_claim_the_same_service_the_second_does_nothing() {
    let scene = Scene::new("service-claims").await;
    scene.service("front", "shop").await;
    let claim = json!({ "strategy": { "canary": { "stableService": "front" } } });
    let first = scene.serving(App::new("shop").spec(claim.clone())).await;
    scene.younger(&first).await;
    let thief = App::new("thief").spec(claim);
    scene.apply(&thief).await;
    let refused = scene
        .until(&thief, "the conflict is named", |rollout| {
            waits_for(rollout, "Conflict")
        })
        .await;
    let (_, _, message) = condition(&refused, "Stalled").unwrap();
    assert!(
        message.contains("Rollout shop already claims Service front"),
        "{message}"
    );
    assert_eq!(refused.status.unwrap().replicas, 0);
    scene.event_once(&thief, "Conflict").await;
    assert_eq!(phase(&scene.get(&first).await), Phase::Stable);
}

#[tokio::test]
async fn of_two_rollouts_that_claim_the_same_pods_the_second_does_nothing() {
    let scene = Scene::new("claims").await;
    let first = scene.serving(App::new("shop")).await;
    scene.younger(&first).await;
    let second = App {
        name: "thief".into(),
        ..first.clone()
    };
    let mut manifest = second.manifest();
    manifest["spec"]["selector"]["matchLabels"]["app"] = json!("shop");
    manifest["spec"]["template"]["metadata"]["labels"]["app"] = json!("shop");
    scene.apply_manifest(&manifest).await;
    let thief = scene
        .until(&second, "the conflict is named", |rollout| {
            waits_for(rollout, "Conflict")
        })
        .await;
    assert!(
        condition(&thief, "Stalled")
            .unwrap()
            .2
            .contains("Rollout shop already claims the same pods")
    );
    assert_eq!(
        scene
            .replica_sets()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    assert_eq!(phase(&scene.get(&first).await), Phase::Stable);
}

#[tokio::test]
async fn a_query_that_is_not_promql_holds_and_names_the_check() {
    let scene = Scene::new("promql").await;
    let app = scene.serving(App::new("shop")).await;
    let check = json!({ "name": "errors", "errors": "sum(rate(x{", "total": "x{revision=\"{{revision}}\"}" });
    let next = app.version("v2").spec(json!({ "strategy": { "canary": { "analysis": { "interval": "1s", "checks": [check] } } } }));
    let mut manifest = next.manifest();
    manifest["spec"]["strategy"]["canary"]["analysis"]["checks"] = json!([check]);
    scene.apply_manifest(&manifest).await;
    let held = scene
        .until(&next, "the change is held", |rollout| {
            waits_for(rollout, "CheckInvalid")
        })
        .await;
    let status = held.status.unwrap();
    assert!(
        status.message.contains("field `errors` of check `errors`"),
        "{}",
        status.message
    );
    assert_eq!(
        status.change.unwrap().step,
        0,
        "no pod is made for what cannot be judged"
    );
}

#[tokio::test]
async fn garbage_in_an_annotation_is_named_and_never_lowers_the_risk() {
    let scene = Scene::new("garbage").await;
    let app = scene.serving(App::new("shop")).await;
    let mut garbage = crate::support::harmless();
    garbage["ai-share"] = json!("lots");
    garbage["tests"] = json!("\u{1b}[31mPASSED");
    garbage["risk"] = json!("low");
    let next = app.version("v2").provenance(garbage);
    scene.apply(&next).await;
    let rollout = scene
        .until(&next, "the change is seen", |rollout| {
            condition(rollout, "Provenance").is_some_and(|(status, ..)| status == "False")
        })
        .await;
    let (_, reason, message) = condition(&rollout, "Provenance").unwrap();
    assert_eq!(reason, "Malformed");
    assert!(
        message.contains("ai-share") && message.contains("tests"),
        "{message}"
    );
    assert!(!message.contains('\u{1b}'));
}

#[tokio::test]
async fn an_annotation_of_200_kib_is_named_and_the_change_counts_as_unknown() {
    let scene = Scene::new("huge").await;
    let app = scene.serving(App::new("shop")).await;
    let mut huge = crate::support::harmless();
    huge["agents"] = json!("x".repeat(200 << 10));
    let next = app.version("v2").provenance(huge);
    scene.apply(&next).await;
    let rollout = scene
        .until(&next, "the change is under way", |rollout| {
            rollout
                .status
                .as_ref()
                .is_some_and(|status| status.step.is_some())
        })
        .await;
    let (_, reason, message) = condition(&rollout, "Provenance").unwrap();
    assert_eq!(reason, "Malformed");
    assert!(
        message.len() < 2_048,
        "the message is cut: {}",
        message.len()
    );
    assert!(rollout.status.unwrap().tier >= Some(countersign_api::Tier::High));
}

#[tokio::test]
async fn a_template_that_the_api_server_refuses_is_named_and_stable_keeps_running() {
    let scene = Scene::new("invalid-template").await;
    let app = scene.serving(App::new("shop")).await;
    let mut manifest = app
        .version("v2")
        .spec(json!({ "progressDeadlineSeconds": 4 }))
        .manifest();
    manifest["spec"]["template"]["spec"]["containers"][0]["image"] = json!(" not an image ");
    manifest["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
    scene.apply_manifest(&manifest).await;
    let rollout = scene
        .until(&app, "the refusal is named", |rollout| {
            rollout
                .status
                .as_ref()
                .is_some_and(|status| status.message.contains("restartPolicy"))
        })
        .await;
    assert_eq!(rollout.status.unwrap().available_replicas, 4);
    scene
        .until(&app, "the change is rolled back", |rollout| {
            phase(rollout) == Phase::Degraded
        })
        .await;
}
