use serde_json::json;

use super::forms::{is_duration, is_quantity};
use super::*;
use crate::manifests::finding::Severity;
use crate::manifests::yaml::documents;

fn checked(yaml: &str) -> Vec<(u64, Severity, String)> {
    let object = documents(yaml).unwrap().remove(0);
    let findings = check(&object).into_iter();
    findings
        .map(|finding| (finding.at.line, finding.severity, finding.message))
        .collect()
}

fn rollout(lines: &str) -> String {
    format!(
        "apiVersion: countersign.dev/v1alpha1
kind: Rollout
metadata:
  name: web
spec:
  selector:
    matchLabels: {{ app: web }}
  template:
    metadata:
      labels: {{ app: web }}
    spec:
      containers:
        - name: web
          image: example.org/web:1
{lines}"
    )
}

#[test]
fn a_sound_object_has_no_findings() {
    assert_eq!(checked(&rollout("  replicas: 3\n")), []);
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn each_fault_of_the_schema_is_found_at_its_line() {
    use crate::manifests::finding::Severity::{Error, Warning};
    for (lines, severity, message) in [
        (
            "  replica: 3\n",
            Error,
            "spec.replica is not a field: did you mean `replicas`?",
        ),
        (
            "  replicas: '3'\n",
            Error,
            "spec.replicas: `3` is not a whole number",
        ),
        (
            "  replicas: 2.5\n",
            Error,
            "spec.replicas: 2.5 is not a whole number",
        ),
        (
            "  replicas: -1\n",
            Error,
            "spec.replicas: -1 is too small: the least is 0",
        ),
        (
            "  replicas: 100001\n",
            Error,
            "spec.replicas: 100001 is too large: the most is 100000",
        ),
        (
            "  paused: 'yes'\n",
            Error,
            "spec.paused: `yes` is not true or false",
        ),
        (
            "  strategy: { canary: { stableService: '' } }\n",
            Error,
            "spec.strategy.canary.stableService has 0 characters: at least 1 must be given",
        ),
        (
            "  strategy: { canary: { steps: [{ bake: 5m }] } }\n",
            Error,
            "spec.strategy.canary.steps[0].weight is missing",
        ),
        (
            "  strategy: { canary: { steps: [{ weight: 5, bake: 5 m }] } }\n",
            Error,
            "spec.strategy.canary.steps[0].bake: `5 m` is not a duration: write hours, minutes and seconds such as 90s, 5m or 1h30m",
        ),
        (
            "  strategy: { canary: { analysis: { checks: [{ name: a, preset: Http }] } } }\n",
            Error,
            "spec.strategy.canary.analysis.checks[0].preset: `Http` is not known: write one of HttpRequestsTotal, Traefik, EnvoyGateway, Contour, Istio, IstioWaypoint, Linkerd, NginxGatewayFabric, Cilium, HAProxy, OtelHttpServer, GrpcServer, OtelRpcServer",
        ),
        (
            "  strategy: { canary: { analysis: { checks: [{ name: a, preset: HttpRequestsTotal }, { name: a, preset: HttpRequestsTotal }] } } }\n",
            Error,
            "spec.strategy.canary.analysis.checks: two members have the same name \"a\"",
        ),
        (
            "  strategy: { canary: { analysis: { checks: [{ name: A_, preset: HttpRequestsTotal }] } } }\n",
            Error,
            "spec.strategy.canary.analysis.checks[0].name: `A_` is not a name: write lower-case letters, digits and `-`",
        ),
        (
            "  strategy: { canary: { maxSurge: [] } }\n",
            Error,
            "spec.strategy.canary.maxSurge: a list is not a whole number or a text",
        ),
        (
            "  strategy: { canary: { steps: [{ weight: ~ }] } }\n",
            Error,
            "spec.strategy.canary.steps[0].weight is missing",
        ),
        (
            "          args: [~]\n",
            Error,
            "spec.template.spec.containers[0].args[0] has no value: give it one or remove it",
        ),
        (
            "          resources: { limits: { cpu: half } }\n",
            Error,
            "spec.template.spec.containers[0].resources.limits.cpu: `half` is not a quantity: write a number with at most one suffix, such as 500m, 0.5 or 1Gi",
        ),
        (
            "          resources: { limits: { cpu: true } }\n",
            Error,
            "spec.template.spec.containers[0].resources.limits.cpu: true is not a quantity such as 0.5, 500m or 1Gi",
        ),
        (
            "          imagePullPolicyy: Always\n",
            Warning,
            "spec.template.spec.containers[0].imagePullPolicyy is not a field that this build knows: did you mean `imagePullPolicy`?",
        ),
    ] {
        let findings = checked(&rollout(lines));
        assert_eq!(findings, [(15, severity, message.to_owned())], "{lines}");
    }
}

#[test]
fn what_is_set_to_nothing_is_stored_only_where_nothing_is_a_value() {
    let text = rollout("  strategy:\n    canary:\n").replace(
        "      labels: { app: web }",
        "      labels: { app: web }\n      creationTimestamp:",
    );
    let refused = |it: &(u64, Severity, String)| it.1 == Severity::Error;
    assert!(!checked(&text).iter().any(refused));
    let stored = stored(&documents(&text).unwrap()[0]);
    assert_eq!(stored["spec"]["strategy"], json!({}));
    let metadata = stored["spec"]["template"]["metadata"].as_object().unwrap();
    assert!(
        metadata.contains_key("creationTimestamp"),
        "unknown to the schema, so kept"
    );
}

#[test]
fn a_deadline_that_no_pod_can_meet_is_refused() {
    let refusal = "spec.progressDeadlineSeconds must be greater than spec.minReadySeconds, or it passes before any new pod counts as available";
    for (lines, refused) in [
        ("  minReadySeconds: 600\n", true),
        (
            "  minReadySeconds: 900\n  progressDeadlineSeconds: 900\n",
            true,
        ),
        (
            "  minReadySeconds: 900\n  progressDeadlineSeconds: 1800\n",
            false,
        ),
    ] {
        let messages: Vec<_> = checked(&rollout(lines))
            .into_iter()
            .map(|it| it.2)
            .collect();
        let expected: &[&str] = if refused { &[refusal] } else { &[] };
        assert_eq!(messages, expected, "{lines}");
    }
}

#[test]
fn quantities_are_those_of_kubernetes() {
    for good in [
        "1", "0.5", ".5", "5.", "+1", "-1", "500m", "1Gi", "1.5Gi", "1e3", "1E-3", "1E", "100k",
        "5u", "7n", "2Ei",
    ] {
        assert!(is_quantity(good), "{good}");
    }
    for bad in [
        "", ".", "Gi", "1 Gi", "1gi", "1K", "1mi", "1e", "1ee3", "1.2.3", "half", "1Gib", "0x10",
        "--1",
    ] {
        assert!(!is_quantity(bad), "{bad}");
    }
}

#[test]
fn a_rule_is_reported_with_the_path_of_what_breaks_it() {
    for (path, message, expected) in [
        (
            "spec.a.steps",
            "steps: must rise",
            "spec.a.steps: must rise",
        ),
        ("spec", "spec.x must be y", "spec.x must be y"),
        ("spec.a", "must be y", "spec.a: must be y"),
    ] {
        assert_eq!(at_path(path, message), expected);
    }
}

#[test]
fn metadata_is_checked_too() {
    let broken = "apiVersion: countersign.dev/v1alpha1
kind: Freeze
metadata:
  name: Web
  namespace: team
  labels: { a: 1 }
  annotation: {}
spec:
  reason: incident
  reason: again
";
    let findings = checked(broken);
    let messages: Vec<_> = findings
        .iter()
        .map(|(line, _, message)| (*line, message.as_str()))
        .collect();
    assert_eq!(
        messages,
        [
            (
                4,
                "metadata.name: `Web` is not a name: write lower-case letters, digits, `-` and `.`"
            ),
            (
                5,
                "metadata.namespace: this kind has no namespace: remove it"
            ),
            (6, "metadata.labels.a: 1 is not a text: write it in quotes"),
            (
                7,
                "metadata.annotation is not a field: did you mean `annotations`?"
            ),
            (10, "key `reason` is in line 9 already"),
        ]
    );
}

#[test]
fn an_unknown_kind_or_version_of_the_group_is_refused_and_the_rest_is_not_ours() {
    let object = "apiVersion: countersign.dev/v1beta1\nkind: Rolout\n";
    assert_eq!(
        checked(object),
        [(
            2,
            Severity::Error,
            "kind Rolout is unknown in countersign.dev: did you mean `Rollout`?".into()
        )]
    );
    let versioned = rollout("").replace("v1alpha1", "v2");
    assert_eq!(
        checked(&versioned),
        [(
            1,
            Severity::Error,
            "apiVersion must be countersign.dev/v1alpha1".into()
        )]
    );
    let foreign = "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\n";
    assert_eq!(kind(&documents(foreign).unwrap()[0]), None);
}

#[test]
fn times_and_durations_are_read_as_the_api_server_reads_them() {
    for good in ["5m", "1h30m", "90s", "100ms", "1h1m1s1ms", "5m5ms"] {
        assert!(is_duration(good), "{good}");
    }
    for bad in [
        "5", "m", "1s1m", "1.5h", "-5m", "123456s", "5m ", "5 m", "5d", "ms", "1m1m",
    ] {
        assert!(!is_duration(bad), "{bad}");
    }
    let freeze = "apiVersion: countersign.dev/v1alpha1
kind: Freeze
metadata: { name: a }
spec:
  reason: incident
  until: tomorrow
";
    assert_eq!(
        checked(freeze),
        [(
            6,
            Severity::Error,
            "spec.until: `tomorrow` is not a time: write one such as 2026-12-31T18:00:00Z".into()
        )]
    );
    assert_eq!(
        checked(&freeze.replace("tomorrow", "2026-12-31T18:00:00Z")),
        []
    );
}

#[test]
fn every_word_that_the_schemas_use_is_checked_here() {
    const KNOWN: [&str; 25] = [
        "additionalProperties",
        "default",
        "description",
        "enum",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "nullable",
        "pattern",
        "properties",
        "required",
        "title",
        "type",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-map-type", // how the API server merges, which a manifest cannot get wrong
        "x-kubernetes-preserve-unknown-fields",
    ];
    fn assert_known(schema: &Value, path: &str) {
        for (word, value) in schema.as_object().unwrap() {
            let path = format!("{path}.{word}");
            match word.as_str() {
                "properties" => value
                    .as_object()
                    .unwrap()
                    .iter()
                    .for_each(|(name, schema)| assert_known(schema, &format!("{path}.{name}"))),
                "items" | "additionalProperties" if value.is_object() => {
                    assert_known(value, &path);
                }
                "pattern" => assert!(
                    PATTERNS.iter().any(|it| it.text == value),
                    "{path}: {value}"
                ),
                "format" => assert!(
                    ["int32", "int64", "double", "date-time", "uint32"]
                        .contains(&value.as_str().unwrap()),
                    "{path}: {value}"
                ),
                "x-kubernetes-validations" => {}
                word => assert!(KNOWN.contains(&word), "{path}"),
            }
        }
    }
    for (name, kind) in KINDS.iter() {
        assert_known(&serde_json::to_value(&kind.schema).unwrap(), name);
    }
    assert!(METADATA.properties.as_ref().unwrap().len() > 5);
}

#[test]
fn a_slip_is_recognised_and_another_word_is_not() {
    assert_eq!(nearest("stepss", &["steps", "analysis"]), Some("steps"));
    assert_eq!(nearest("MaxSurge", &["maxSurge"]), Some("maxSurge"));
    assert_eq!(nearest("colour", &["steps", "analysis"]), None);
    assert_eq!(nearest("ab", &["xy"]), None);
}
