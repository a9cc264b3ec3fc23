//! Checks of every kind: templates with arguments, latency, metrics, advisory checks and checks of single
//! steps.

use countersign_api::rollout::{CheckVerdict, Outcome};
use countersign_api::{AnalysisTemplate, Phase};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{App, Scene, ended, phase, waits_for};

/// The requests of the pods of one revision, as a selector without its closing brace.
const REQUESTS: &str =
    r#"http_requests_total{namespace="{{namespace}}",pod_template_hash="{{revision}}""#;
/// The buckets of their latency.
const BUCKETS: &str = r#"http_request_duration_seconds_bucket{namespace="{{namespace}}",pod_template_hash="{{revision}}"}"#;

fn errors() -> Value {
    json!({ "name": "errors", "preset": "HttpRequestsTotal" })
}

fn analysed(app: &App, analysis: Value) -> App {
    app.spec(json!({ "strategy": { "canary": { "analysis": analysis } } }))
}

fn slow(app: &App, latency: &str) -> App {
    let mut slow = app.clone();
    latency.clone_into(&mut slow.latency);
    slow
}

async fn template(scene: &Scene, name: &str, spec: Value) {
    let templates: Api<AnalysisTemplate> =
        Api::namespaced(scene.cluster.client(), &scene.namespace);
    let template = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "AnalysisTemplate",
        "metadata": { "name": name }, "spec": spec,
    });
    let apply = PatchParams::apply("platform-team").force();
    templates
        .patch(name, &apply, &Patch::Apply(&template))
        .await
        .unwrap();
}

/// The message with which a change was rolled back.
async fn why(scene: &Scene, app: &App) -> String {
    let run = scene.outcome(app).await;
    assert!(ended(&run, Outcome::RolledBack), "{:?}", run.spec.progress);
    run.spec.progress.message
}

#[tokio::test]
async fn a_slow_canary_is_rolled_back_by_its_latency() {
    let scene = Scene::new("latency").await;
    let latency = json!({ "name": "latency", "latency": { "within": "100ms", "quantile": 0.95, "buckets": BUCKETS } });
    let app = analysed(
        &App::new("shop"),
        json!({ "interval": "1s", "checks": [latency] }),
    );
    let app = scene.serving(app).await;
    let _load = scene.load(&app, 60).await;
    scene.apply(&slow(&app.version("v2"), "1ms")).await;
    assert!(ended(&scene.outcome(&app).await, Outcome::Promoted));

    let bad = slow(&app.version("v3"), "200ms");
    scene.apply(&bad).await;
    scene
        .until(&bad, "the slow change is rolled back", |rollout| {
            phase(rollout) == Phase::Degraded
        })
        .await;
    let message = why(&scene, &bad).await;
    assert!(message.contains("check latency: canary 100%"), "{message}");
}

#[tokio::test]
async fn a_bound_without_a_bucket_holds_and_is_reported() {
    let scene = Scene::new("no-bucket").await;
    let latency =
        json!({ "name": "latency", "latency": { "within": "123ms", "buckets": BUCKETS } });
    let app = analysed(
        &App::new("shop"),
        json!({ "interval": "1s", "checks": [errors(), latency] }),
    );
    let app = scene.serving(app).await;
    let _load = scene.load(&app, 60).await;
    let next = app.version("v2");
    scene.apply(&next).await;
    let held = scene
        .until(&next, "the change is held for the bucket", |rollout| {
            waits_for(rollout, "NoBucket")
        })
        .await;
    let message = held.status.unwrap().message;
    assert!(message.contains("check latency"), "{message}");
}

#[tokio::test]
async fn a_template_is_used_with_its_arguments_and_its_end_holds() {
    let scene = Scene::new("template").await;
    let codes = format!("{REQUESTS},code=~\"{{{{args.code}}}}..\"}}");
    let spec = json!({
        "args": [{ "name": "code", "default": "9" }],
        "checks": [{ "name": "codes", "errors": codes, "total": format!("{REQUESTS}}}") }],
    });
    template(&scene, "http", spec).await;
    let with = |args: Value| {
        let used = json!([{ "name": "http", "args": args }]);
        analysed(
            &App::new("shop"),
            json!({ "interval": "1s", "checks": [], "templates": used }),
        )
    };
    let app = scene
        .serving(with(json!([{ "name": "code", "value": "5" }])))
        .await;
    let _load = scene.load(&app, 100).await;

    // An argument that the template does not have holds before any pod is made.
    let unknown = with(json!([{ "name": "codes", "value": "5" }])).version("v2");
    scene.apply(&unknown).await;
    let held = scene
        .until(&unknown, "the argument is refused", |rollout| {
            waits_for(rollout, "CheckInvalid")
        })
        .await;
    let message = held.status.unwrap().message;
    assert!(message.contains("no argument `codes`"), "{message}");
    scene.event_once(&unknown, "CheckInvalid").await;

    // With the right one the change continues automatically, and the argument defines an error.
    let bad = app.version("v2").failing(0.5);
    scene.apply(&bad).await;
    scene
        .until(&bad, "the change is rolled back", |rollout| {
            phase(rollout) == Phase::Degraded
        })
        .await;
    assert!(why(&scene, &bad).await.contains("check http:codes"));

    // A template that is deleted during the rollout holds the change, regardless of the evidence, and at
    // the deadline the change is rolled back.
    let next = app.version("v3");
    let mut next_spec = next.spec.clone();
    next_spec["progressDeadlineSeconds"] = json!(8);
    let next = next.spec(next_spec);
    scene.apply(&next).await;
    scene
        .until(&next, "the canary has traffic", |rollout| {
            let change = rollout.status.as_ref().and_then(|it| it.change.as_ref());
            change.is_some_and(|change| change.outcome.is_none() && change.step == 1)
        })
        .await;
    let templates: Api<AnalysisTemplate> =
        Api::namespaced(scene.cluster.client(), &scene.namespace);
    templates
        .delete("http", &DeleteParams::default())
        .await
        .unwrap();
    scene
        .until(&next, "the change is held for its template", |rollout| {
            waits_for(rollout, "CheckInvalid")
        })
        .await;
    let message = why(&scene, &next).await;
    assert!(
        message.contains("AnalysisTemplate http does not exist"),
        "{message}"
    );
}

#[tokio::test]
async fn a_metric_out_of_bounds_rolls_back_and_an_advisory_one_only_warns() {
    let scene = Scene::new("metric").await;
    let up = r#"count(up{namespace="{{namespace}}",pod_template_hash="{{revision}}"})"#;
    let metric = |mode: &str, max: f64| json!({ "name": "pods", "mode": mode, "metric": { "query": up, "max": max, "failures": 2 } });
    let with = |metric: Value| {
        analysed(
            &App::new("shop"),
            json!({ "interval": "1s", "checks": [errors(), metric] }),
        )
    };
    let app = scene.serving(with(metric("Advisory", 0.5))).await;
    let _load = scene.load(&app, 100).await;
    let advisory = app.version("v2");
    scene.apply(&advisory).await;
    let run = scene.outcome(&advisory).await;
    assert!(ended(&run, Outcome::Promoted), "{:?}", run.spec.progress);
    let failures = run.spec.progress.transitions.iter();
    let failures = failures
        .filter(|line| line.reason == "AdvisoryFailed")
        .count();
    assert_eq!(failures, 1);
    scene.event_once(&advisory, "AdvisoryFailed").await;

    let required = with(metric("Required", 0.5)).version("v3");
    scene.apply(&required).await;
    scene
        .until(&required, "the change is rolled back", |rollout| {
            phase(rollout) == Phase::Degraded
        })
        .await;
    let message = why(&scene, &required).await;
    assert!(
        message.contains("check pods: 1, out of bounds (at most 0.5) in 2 of 2 windows in a row"),
        "{message}"
    );
}

#[tokio::test]
async fn a_check_of_later_steps_begins_there() {
    let scene = Scene::new("step-check").await;
    let mut late = errors();
    late["name"] = json!("late");
    late["weights"] = json!({ "from": 50 });
    let app = analysed(
        &App::new("shop"),
        json!({ "interval": "1s", "checks": [errors(), late] }),
    );
    let app = scene.serving(app).await;
    let _load = scene.load(&app, 100).await;
    let next = app.version("v2");
    scene.apply(&next).await;
    let run = scene.outcome(&next).await;
    assert!(ended(&run, Outcome::Promoted));
    let evidence = |step: i32, reason: &str| {
        let mut lines = run.spec.progress.transitions.iter();
        let line = lines.find(|line| line.step == step && line.reason == reason);
        let checks = line.unwrap().evidence.iter();
        checks
            .map(|check| (check.check.clone(), check.clone()))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let second = evidence(2, "StepStarted");
    assert_eq!(second["late"].verdict, CheckVerdict::Waiting);
    assert_eq!(second["late"].canary.requests, 0.0);
    let last = evidence(2, "Promoting");
    assert!(last["late"].canary.requests > 0.0);
    assert!(last["late"].canary.requests < last["errors"].canary.requests);
}

#[tokio::test]
async fn the_one_error_in_the_first_scrape_of_a_pod_counts() {
    let scene = Scene::new("first-scrape").await;
    let app = scene.serving(App::new("shop")).await;
    let _load = scene.load(&app, 100).await;
    let mut next = app.version("v2");
    next.fail_first = 1;
    scene.apply(&next).await;
    let evidence = scene
        .until(&next, "the second step has begun", |rollout| {
            let change = rollout.status.as_ref().and_then(|it| it.change.as_ref());
            change.is_some_and(|change| change.step >= 2)
        })
        .await;
    let change = evidence.status.unwrap().change.unwrap();
    let step = change.transitions.iter().find(|line| line.step == 2);
    let errors = &step.unwrap().evidence[0];
    // One pod served the first step, and its first answer was an error.
    assert_eq!(errors.canary.errors, 1.0, "{errors:?}");
    assert!(
        errors
            .canary_rate
            .is_some_and(|rate| rate.low < rate.rate && rate.rate < rate.high)
    );
}

#[tokio::test]
async fn what_breaks_the_schema_is_refused_at_admission() {
    let scene = Scene::new("refused").await;
    let refused = async |check: Value, expected: &str| {
        let app = analysed(&App::new("shop"), json!({ "checks": [check] }));
        let apply = PatchParams::apply("service-team").force();
        let answer = scene
            .rollouts()
            .patch("shop", &apply, &Patch::Apply(app.manifest()))
            .await;
        let error = answer.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let named = |mut check: Value| {
        check["name"] = json!("a");
        check
    };
    refused(
        named(json!({ "metric": { "query": "a", "min": 2, "max": 1 } })),
        "metric.min must not be above metric.max",
    )
    .await;
    refused(
        named(json!({ "metric": { "query": "a" } })),
        "name min, max or both",
    )
    .await;
    refused(named(json!({ "preset": "Trafik" })), "Unsupported value").await;
    refused(
        named(json!({ "latency": { "within": "1s" } })),
        "either a preset or latency.buckets",
    )
    .await;
    refused(
        named(json!({ "preset": "Traefik", "weights": { "from": 50, "to": 20 } })),
        "weights.from must not be above weights.to",
    )
    .await;
}
