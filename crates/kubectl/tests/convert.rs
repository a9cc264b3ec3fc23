//! `convert` on small manifests of Argo Rollouts and Flagger.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use countersign_api::{AnalysisTemplate, Rollout, RolloutPolicy};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-countersign"));
    command
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/convert"));
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn fed(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// The output of `convert`, which passes `lint`.
struct Converted {
    code: Option<i32>,
    report: String,
    text: String,
    documents: Vec<Value>,
}

impl Converted {
    fn of(file: &str) -> Self {
        let output = command(&["convert", "-f", file]).output().unwrap();
        let report = text(&output.stderr).to_owned();
        let lint = fed(&["lint", "-f", "-"], &output.stdout);
        assert_eq!(lint.status.code(), Some(0), "{}", text(&lint.stdout));
        let text = text(&output.stdout).to_owned();
        Self {
            code: output.status.code(),
            report,
            documents: serde_saphyr::from_multiple(&text).unwrap(),
            text,
        }
    }

    /// An object of this API group by its place.
    fn object<T: DeserializeOwned>(&self, index: usize) -> T {
        let document = &self.documents[index];
        let group = document["apiVersion"].as_str().unwrap();
        assert_eq!(group, "countersign.dev/v1alpha1", "{document}");
        serde_json::from_value(document.clone()).unwrap()
    }

    fn kinds(&self) -> Vec<&str> {
        let kinds = self.documents.iter().map(|it| it["kind"].as_str().unwrap());
        kinds.collect()
    }

    fn canary(&self) -> &Value {
        &self.documents[0]["spec"]["strategy"]["canary"]
    }

    fn assert_reports(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.report.contains(part), "{part} in\n{}", self.report);
        }
    }
}

#[test]
fn steps_of_argo_rollouts_become_weights_bakes_and_sign_offs() {
    let converted = Converted::of("argo-canary.yaml");
    assert_eq!(converted.code, Some(0), "{}", converted.report);
    assert_eq!(converted.kinds(), ["Rollout"]);
    let rollout: Rollout = converted.object(0);
    assert_eq!(rollout.metadata.namespace.as_deref(), Some("shop"));
    assert_eq!(rollout.spec.replicas, 4);
    assert_eq!(rollout.spec.min_ready_seconds, 10);
    let annotations = rollout.metadata.annotations.unwrap();
    let annotations: Vec<_> = annotations.keys().collect();
    assert_eq!(annotations, ["team"], "those of the controller stay behind");

    let canary = converted.canary();
    let one = json!([{ "count": 1 }]);
    assert_eq!(
        canary["steps"],
        json!([
            { "weight": 0, "scale": 50, "bake": "1m" },
            { "weight": 20 },
            { "weight": 60, "bake": "7m", "signOff": one },
        ])
    );
    assert_eq!(
        canary["traffic"],
        json!({
            "routes": [{ "kind": "HTTPRoute", "name": "web" }],
            "testers": { "headers": [{ "name": "x-canary", "value": "yes" }] },
        })
    );
    assert!(canary.get("maxSurge").is_none(), "unused with a router");
    converted.assert_reports(&[
        "argo-canary.yaml:25:7: decide: spec.strategy.canary: an indefinite pause is a sign-off by one person",
        "decide: spec.scaleTargetRef: let it target the Rollout of countersign.dev/v1alpha1",
        "decide: spec.strategy.canary: check restarts: its query selects no revision",
        "1 document: 0 lost, 0 dropped, 3 to decide\n",
    ]);
    let comment = "---\n# decide: spec.strategy.canary: an indefinite pause is a sign-off";
    assert!(converted.text.starts_with(comment), "{}", converted.text);
}

#[test]
fn metrics_of_argo_rollouts_become_checks_of_each_revision() {
    let converted = Converted::of("argo-canary.yaml");
    let requests = r#"istio_requests_total{reporter="source",destination_service=~"{{service}}.shop.svc.cluster.local"#;
    assert_eq!(
        converted.canary()["analysis"],
        json!({
            "interval": "30s",
            "checks": [
                {
                    "name": "success-rate",
                    "errors": format!(r#"{requests}",response_code=~"5.*"}}"#),
                    "total": format!(r#"{requests}"}}"#),
                    "ceiling": 0.05,
                    "weights": { "from": 20, "to": 100 },
                },
                {
                    "name": "restarts",
                    "metric": {
                        "query": r#"sum(increase(kube_pod_container_status_restarts_total{namespace="shop"}[5m]))"#,
                        "max": 5.5,
                        "failures": 1,
                    },
                    "weights": { "from": 60, "to": 60 },
                },
            ],
        })
    );
}

#[test]
fn what_held_a_promotion_and_has_no_counterpart_is_lost_with_status_1() {
    let converted = Converted::of("argo-lossy.yaml");
    assert_eq!(converted.code, Some(1));
    converted.assert_reports(&[
        "lost: spec.strategy.canary.trafficRouting.nginx: this router is not supported",
        "lost: spec.strategy.canary.steps[1].experiment: experiments have no counterpart",
        "lost: spec.strategy.canary.steps[2].plugin: step plugins have no counterpart",
        "argo-lossy.yaml:29:11: lost: spec.strategy.canary.steps[3] is not known here, and may have held promotions",
        "lost: spec.strategy.canary.analysis.templates[0]: a part of this template has no counterpart",
        "lost: spec.strategy.canary.analysis.templates[1]: this template is not in the files",
        "lost: spec.metrics[0]: only Prometheus is queried here",
        "dropped: spec.strategy.canary.canaryMetadata: has no counterpart",
        "dropped: spec.strategy.canary.maxSurge: Argo Rollouts ignores it with trafficRouting",
        "decide: metadata.annotations[notifications.argoproj.io/subscribe.on-rollout-completed.slack]: set the annotation countersign.dev/notify to channels of `countersign notify`",
    ]);
    let comment = "# lost: spec.strategy.canary.steps[1].experiment: ";
    assert!(converted.text.contains(comment), "{}", converted.text);
    assert_eq!(converted.canary()["steps"], json!([{ "weight": 10 }]));
    assert_eq!(converted.canary().get("analysis"), None);
}

#[test]
fn blue_green_is_a_step_of_weight_0_and_its_job_a_smoke_check() {
    let converted = Converted::of("argo-blue-green.yaml");
    assert_eq!(converted.code, Some(0), "{}", converted.report);
    let rollout: Rollout = converted.object(0);
    let canary = &rollout.spec.strategy.canary;
    assert_eq!(canary.stable_service.as_deref(), Some("invoice"));
    assert_eq!(canary.canary_service.as_deref(), Some("invoice-preview"));
    assert_eq!(canary.promotion_sign_off.len(), 1);
    assert_eq!(canary.scale_down_delay.to_string(), "10m");
    let smoke = canary.smoke.as_ref().unwrap();
    assert_eq!(smoke.timeout.to_string(), "1m30s");
    assert_eq!(
        smoke.template.0["spec"]["containers"][0]["args"],
        json!(["--level=full"])
    );
    assert_eq!(
        converted.canary()["steps"],
        json!([{ "weight": 0, "scale": 50 }])
    );
    converted.assert_reports(&["minFinalWeight: 0", "it cannot call the canary"]);
}

#[test]
fn templates_alone_stay_templates_and_those_of_the_cluster_become_policies() {
    let converted = Converted::of("argo-templates.yaml");
    assert_eq!(converted.code, Some(0), "{}", converted.report);
    assert_eq!(converted.kinds(), ["RolloutPolicy", "AnalysisTemplate"]);
    let policy: RolloutPolicy = converted.object(0);
    let analysis = policy.spec.analysis.unwrap();
    let check = &analysis.checks[0];
    assert_eq!(
        check.errors.as_deref(),
        Some(r#"http_requests_total{code=~"5..",pod_template_hash="{{revision}}"}"#)
    );
    assert_eq!(check.ceiling, Some(0.01));
    let selector = policy.spec.rollout_selector.unwrap();
    assert_eq!(selector.to_string(), "analysis=errors");

    let template: AnalysisTemplate = converted.object(1);
    assert_eq!(template.spec.args[0].name, "route");
    let latency = template.spec.checks[0].latency.clone().unwrap();
    assert_eq!(latency.within.to_string(), "300ms");
    assert_eq!(latency.quantile, Some(0.95));
    assert_eq!(
        latency.buckets.as_deref(),
        Some(
            r#"http_request_duration_seconds_bucket{route="{{args.route}}",pod_template_hash="{{revision}}"}"#
        )
    );
    converted.assert_reports(&["its query selected no revision"]);
}

/// The exit code, the report and the output for a template with one metric.
fn template(conditions: &str) -> (Option<i32>, String, String) {
    let query = "provider: { prometheus: { query: scalar(depth) } }";
    let metric = format!("{{ name: depth, {conditions}, {query} }}");
    let metadata = "metadata: { name: depth, namespace: shop }";
    let kind = "apiVersion: argoproj.io/v1alpha1\nkind: AnalysisTemplate";
    let template = format!("{kind}\n{metadata}\nspec: {{ metrics: [{metric}] }}\n");
    let output = fed(&["convert", "-f", "-"], template.as_bytes());
    let [report, converted] = [&output.stderr, &output.stdout].map(|it| text(it).to_owned());
    (output.status.code(), report, converted)
}

#[test]
fn of_two_conditions_neither_is_left_out() {
    let (success, failure) = ("successCondition: 'result[0] >= 1'", "failureCondition: ");
    let (code, report, converted) = template(&format!("{success}, {failure}'result[0] > 9'"));
    assert_eq!(code, Some(0), "{report}");
    let document: Value = serde_saphyr::from_str(&converted).unwrap();
    let metric = &document["spec"]["checks"][0]["metric"];
    assert_eq!([&metric["min"], &metric["max"]], [1.0, 9.0], "{converted}");
    let (code, report, converted) = template(&format!("{success}, {failure}isInf(result)"));
    assert_eq!(code, Some(1), "{converted}");
    let lost = "lost: spec.metrics[0]: a condition of it is not a comparison";
    assert!(report.contains(lost), "{report}");
}

#[test]
fn a_canary_becomes_a_rollout_that_adopts_with_its_services_and_its_route() {
    let converted = Converted::of("flagger-canary.yaml");
    assert_eq!(converted.code, Some(0), "{}", converted.report);
    assert_eq!(
        converted.kinds(),
        ["Rollout", "Service", "Service", "HTTPRoute"]
    );
    let rollout: Rollout = converted.object(0);
    assert_eq!(rollout.spec.workload_ref.unwrap().name, "podinfo");
    assert_eq!(rollout.spec.replicas, 3);
    assert_eq!(rollout.spec.progress_deadline_seconds, 60);
    let canary = converted.canary();
    let step = |weight| json!({ "weight": weight, "bake": "1m" });
    assert_eq!(canary["steps"], json!([step(20), step(40), step(60)]));
    assert_eq!(canary["promotionSignOff"], json!([{ "count": 1 }]));
    let buckets = r#"istio_request_duration_milliseconds_bucket{reporter="source",destination_workload_namespace=~"{{namespace}}",destination_workload=~"{{rollout}}",pod_template_hash="{{revision}}"}"#;
    assert_eq!(
        canary["analysis"],
        json!({
            "interval": "1m",
            "checks": [
                { "name": "request-success-rate", "preset": "HttpRequestsTotal", "ceiling": 0.01 },
                {
                    "name": "latency",
                    "latency": {
                        "buckets": buckets,
                        "within": "500ms",
                        "quantile": 0.99,
                        "unit": "Milliseconds",
                    },
                },
            ],
        })
    );
    assert_eq!(
        converted.documents[3]["spec"],
        json!({
            "parentRefs": [{ "name": "gateway", "namespace": "ingress" }],
            "hostnames": ["www.example.com"],
            "rules": [{
                "matches": [{ "path": { "type": "PathPrefix", "value": "/api" } }],
                "timeouts": { "request": "5s" },
                "backendRefs": [
                    { "name": "podinfo", "port": 9898, "weight": 100 },
                    { "name": "podinfo-canary", "port": 9898, "weight": 0 },
                ],
            }],
        })
    );
    converted.assert_reports(&[
        "dropped: spec.analysis.webhooks[1]: it only starts load",
        "decide: spec.autoscalerRef: let it target the Rollout",
        "name the preset of your router",
    ]);
}

#[test]
fn an_a_b_test_is_a_step_of_weight_0_and_a_test_before_it_is_lost() {
    let converted = Converted::of("flagger-ab.yaml");
    assert_eq!(converted.code, Some(1));
    assert_eq!(
        converted.kinds(),
        ["Rollout", "Service", "Service", "VirtualService"]
    );
    let canary = converted.canary();
    assert_eq!(
        canary["steps"],
        json!([{
            "weight": 0,
            "scale": 100,
            "bake": "2m30s",
            "minRequests": 1,
            "signOff": [{ "count": 1 }],
        }])
    );
    assert_eq!(
        canary["analysis"]["checks"],
        json!([
            { "name": "request-success-rate", "preset": "Istio", "ceiling": 0.01 },
            {
                "name": "request-duration",
                "preset": "Istio",
                "latency": { "within": "500ms", "quantile": 0.99 },
            },
        ])
    );
    let to = |host: &str, weight: i32| json!({ "destination": { "host": host }, "weight": weight });
    assert_eq!(
        converted.documents[3]["spec"]["http"],
        json!([
            {
                "match": [{ "uri": { "prefix": "/" }, "headers": { "x-canary": { "regex": ".*insider.*" } } }],
                "rewrite": { "uri": "/" },
                "route": [to("podinfo-canary", 100)],
            },
            {
                "match": [{ "uri": { "prefix": "/" } }],
                "rewrite": { "uri": "/" },
                "route": [to("podinfo", 100), to("podinfo-canary", 0)],
            },
        ])
    );
    converted.assert_reports(&[
        "lost: spec.analysis.webhooks[1]: write what it tests as a smoke check",
        "decide: spec.analysis.alerts[0]: set the annotation countersign.dev/notify",
        "decide: spec.analysis.webhooks[2]: set the annotation countersign.dev/notify",
        "dropped: spec.service.trafficPolicy: ",
        "decide: spec: set spec.replicas of the Rollout",
        "decide: spec: set revertOnDeletion: true",
    ]);
}

#[test]
fn the_standard_input_is_read_and_files_with_nothing_to_convert_are_refused() {
    let canary = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/convert/argo-blue-green.yaml"
    ));
    let output = fed(&["convert", "-f", "-"], &canary.unwrap());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("kind: Rollout"));

    let service = b"apiVersion: v1\nkind: Service\nmetadata: { name: web }\n";
    let output = fed(&["convert", "-f", "-"], service);
    assert_eq!(output.status.code(), Some(1));
    let expected =
        "there is no Rollout, AnalysisTemplate or ClusterAnalysisTemplate of argoproj.io";
    assert!(text(&output.stderr).contains(expected));

    let output = fed(&["convert", "-f", "-"], b"a: b: c\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("<stdin>:1:"));
}
