use super::*;
use crate::manifests::source::HELM_TEMPLATE;

const P256: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEMxbnqlaeV2B/+wMyb2u78we8+H6r\n          jhkmgYTuOVvbua1Mo6/5j97Ptt6K9k4fk6RilwtI1AIvsNNVoHX21m7CZg==";
const ED25519: &str = "MCowBQYDK2VwAyEAXMyh4wPRenJAHrbIKiZSSIBIJJSZNiFk1TQjfapxIoU=";

/// Line, severity and message of each finding, in files of these texts.
fn linted(texts: &[&str]) -> Vec<(u64, Severity, String)> {
    let read = |text: &&str| {
        Read::source(&Source {
            name: "a.yaml".into(),
            text: (*text).to_owned(),
        })
    };
    let files: Vec<_> = texts.iter().map(read).collect();
    let now = "2026-06-01T00:00:00Z".parse().unwrap();
    let lines = check(&files, now).into_iter();
    lines.map(|it| (it.line, it.severity, it.message)).collect()
}

/// A sound Rollout whose last lines, from line 23 on, are the canary's.
fn rollout(canary: &str) -> String {
    format!(
        "apiVersion: countersign.dev/v1alpha1
kind: Rollout
metadata:
  name: web
  labels: {{ team: shop }}
  annotations:
    provenance.countersign.dev/image: example.org/web:1
    provenance.countersign.dev/contributor: human
    provenance.countersign.dev/authors: alice
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
          args: ['${{HOME}}', '{{{{ .Name }}}}']
  strategy:
    canary:
{canary}"
    )
}

fn check_of(errors: &str, total: &str) -> String {
    rollout(&format!(
        "      analysis:
        checks:
          - name: own
            errors: '{errors}'
            total: '{total}'
"
    ))
}

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: countersign.dev/v1alpha1
kind: RolloutPolicy
metadata:
  name: strict
spec:
{spec}"
    )
}

#[test]
fn what_is_sound_has_no_findings() {
    let sound = check_of(
        "x{h=\"{{revision}}\",code=~\"5..\"}",
        "sum(increase(x{h=\"{{revision}}\"}[{{window}}]))",
    );
    assert_eq!(linted(&[&sound]), []);
    assert_eq!(
        linted(&["", "kind: Service\napiVersion: v1\n", "---\n"]),
        []
    );
}

#[test]
fn a_smoke_check_is_a_pod_template_whose_placeholder_is_spelt_right() {
    let smoke = |image: &str, rest: &str| {
        rollout(&format!(
            "      smoke:
        timeout: 2m
        template:
          spec:
            {rest}
            containers:
              - {{ name: smoke, image: '{image}', args: ['{{{{ .Name }}}}'] }}
"
        ))
    };
    assert_eq!(linted(&[&smoke("{{image}}", "hostNetwork: false")]), []);
    for (image, rest, line, part) in [
        (
            "{{ image }}",
            "hostNetwork: false",
            29,
            "`{{ image }}` is not an image: write {{image}} alone",
        ),
        (
            "{{image}}",
            "hostNetwork: often",
            27,
            "spec.strategy.canary.smoke.template.spec.hostNetwork: ",
        ),
        (
            "{{image}}",
            "hostNetwerk: true",
            27,
            "did you mean `hostNetwork`?",
        ),
    ] {
        let found = linted(&[&smoke(image, rest)]);
        assert!(
            found.len() == 1 && found[0].0 == line && found[0].2.contains(part),
            "{found:?}"
        );
    }
}

#[test]
fn queries_are_held_to_the_controllers_own_rules() {
    let good = "x{h=\"{{revision}}\"}";
    for (errors, total, line, message) in [
        (
            "x{",
            good,
            26,
            "field `errors` of check `own`: the query is not PromQL",
        ),
        (
            good,
            "y",
            27,
            "field `total` of check `own`: the query would measure the pods of every revision",
        ),
        (
            good,
            "x{h=\"{{revison}}\"}",
            27,
            "field `total` of check `own`: `{{revison}}` is not a placeholder",
        ),
        (
            "x{s=\"{{service}}\",h=\"{{revision}}\"}",
            good,
            26,
            "field `errors` of check `own`: `{{service}}` resolves to nothing",
        ),
    ] {
        let findings = linted(&[&check_of(errors, total)]);
        let [(at, Severity::Error, actual)] = &findings[..] else {
            panic!("{findings:?}")
        };
        assert_eq!(*at, line, "{actual}");
        assert!(actual.starts_with(message), "{actual}");
    }
    let of_policy = policy(
        "  analysis: { checks: [{ name: a, errors: 'x{s=\"{{service}}\",h=\"{{revision}}\"}', total: z }] }\n",
    );
    let findings = linted(&[&of_policy]);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].2.contains("every revision"));
}

#[test]
fn an_argument_of_a_template_that_no_query_uses_is_a_warning_at_its_line() {
    let template = |route: &str| {
        format!(
            "apiVersion: countersign.dev/v1alpha1
kind: AnalysisTemplate
metadata:
  name: http
spec:
  args:
    - name: code
    - name: route
  checks:
    - name: errors
      errors: 'x{{h=\"{{{{revision}}}}\",code=\"{{{{args.code}}}}\"}}'
      total: 'x{{h=\"{{{{revision}}}}\"{route}}}'
"
        )
    };
    let used = template(",route=\"{{args.route}}\"");
    assert_eq!(linted(&[&used]), []);
    let message =
        "no query uses the argument `route`: write `{{args.route}}` into one, or remove it";
    assert_eq!(
        linted(&[&template("")]),
        [(8, Severity::Warning, message.to_owned())]
    );
}

#[test]
fn a_route_that_cannot_be_split_is_an_error_at_its_name() {
    let canary = "      stableService: web
      canaryService: web-canary
      traffic: { routes: [{ name: web }] }
";
    let route = |backends: &str| {
        let head =
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: { name: web }\n";
        format!("{head}spec: {{ rules: [{{ backendRefs: [{backends}] }}] }}\n")
    };
    let both = route("{ name: web }, { name: web-canary, weight: 0 }");
    assert_eq!(linted(&[&rollout(canary), &both]), []);
    let findings = linted(&[&rollout(canary), &route("{ name: web }")]);
    let [(_, Severity::Error, actual)] = &findings[..] else {
        panic!("{findings:?}")
    };
    assert!(
        actual.starts_with("HTTPRoute web: none of its rules sends to both"),
        "{actual}"
    );
}

#[test]
fn rollouts_that_wait_for_each_other_are_an_error() {
    let web = rollout("  dependsOn: [api]\n");
    let api = rollout("  dependsOn: [web]\n").replace("name: web", "name: api");
    let findings = linted(&[&web, &api]);
    let circles = findings
        .iter()
        .filter(|it| it.2.contains("dependsOn leads back"));
    assert_eq!(circles.count(), 2, "{findings:?}");
    assert_eq!(
        linted(&[&web]),
        [],
        "what is not in the files may be in the cluster"
    );
}

#[test]
fn problems_of_provenance_are_warnings_at_their_annotation() {
    let text = rollout("").replace("contributor: human", "contributor: humann");
    let findings = linted(&[&text]);
    assert_eq!(
            findings,
            [(8, Severity::Warning, "annotation provenance.countersign.dev/contributor is `humann`: write one of human, ai, mixed, unknown".into())]
        );
    let text = rollout("").replace(
        "image: example.org/web:1\n    prov",
        "image: other\n    prov",
    );
    let [(7, Severity::Warning, message)] = &linted(&[&text])[..] else {
        panic!()
    };
    assert!(message.contains("which no container of the template uses"));
    let text = rollout("").replace(
        "provenance.countersign.dev/authors: alice",
        "countersign.dev/changed-by: alice",
    );
    let [(9, Severity::Note, message)] = &linted(&[&text])[..] else {
        panic!("{:?}", linted(&[&text]))
    };
    assert!(message.contains("from Kubernetes 1.36 on"), "{message}");
    let none = rollout("").replace("provenance.", "another.");
    let [(7, Severity::Warning, message)] = &linted(&[&none])[..] else {
        panic!("{:?}", linted(&[&none]))
    };
    assert!(message.contains("counts as unknown"), "{message}");
}

#[test]
fn the_selector_of_a_named_service_is_an_error_or_a_warning() {
    let service = |selector: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{ name: web }}\nspec: {{ selector: {selector} }}\n"
        )
    };
    let named = rollout("      stableService: web\n");
    assert_eq!(
            linted(&[&named, &service("{ app: web, pod-template-hash: x }")]),
            [(23, Severity::Warning, "the manifest of Service web has spec.selector, which is one value for server-side apply: that conflicts with the controller, or takes pod-template-hash out; leave spec.selector out, the controller sets it".into())]
        );
    let findings = linted(&[&named, &service("{ app: shop }")]);
    assert_eq!(
            findings,
            [(23, Severity::Error, "Service web selects pods with app=shop, which is not a label of spec.template: it would never reach them".into())]
        );
}

#[test]
fn a_rollout_where_the_operator_creates_nothing_is_a_warning() {
    let within = |namespace: &str| {
        rollout("").replace(
            "  name: web\n",
            &format!("  name: web\n  namespace: {namespace}\n"),
        )
    };
    assert_eq!(linted(&[&within("shop")]), []);
    for namespace in ["kube-system", "countersign-system"] {
        let [(5, Severity::Warning, message)] = &linted(&[&within(namespace)])[..] else {
            panic!("{:?}", linted(&[&within(namespace)]))
        };
        assert!(message.contains("would never serve"), "{message}");
    }
}

#[test]
fn freeze_windows_need_a_cron_and_a_time_zone() {
    let window = |schedule: &str, zone: &str, duration: &str| {
        policy(&format!(
            "  freeze:
    windows:
      - name: weekend
        schedule: '{schedule}'
        timeZone: {zone}
        duration: {duration}
"
        ))
    };
    assert_eq!(
        linted(&[&window("0 18 * * FRI", "Europe/Berlin", "62h")]),
        []
    );
    for (schedule, zone, duration, line, severity, message) in [
        (
            "0 18 * * FRY",
            "UTC",
            "1h",
            9,
            Severity::Error,
            "schedule: `0 18 * * FRY` is not a cron schedule:",
        ),
        (
            "0 18 * * * *",
            "UTC",
            "1h",
            9,
            Severity::Error,
            "schedule: `0 18 * * * *` has 6 fields: write five",
        ),
        (
            "0 25 * * FRI",
            "UTC",
            "1h",
            9,
            Severity::Error,
            "schedule: `0 25 * * FRI` is not a cron schedule: ",
        ),
        (
            "0 18 * * FRI",
            "Europe/Berlim",
            "1h",
            10,
            Severity::Error,
            "timeZone: `Europe/Berlim` is not a time zone",
        ),
        (
            "0 18 * * FRI",
            "UTC",
            "0s",
            11,
            Severity::Warning,
            "duration is 0",
        ),
    ] {
        let findings = linted(&[&window(schedule, zone, duration)]);
        let [(at, how_bad, actual)] = &findings[..] else {
            panic!("{findings:?}")
        };
        assert_eq!((*at, *how_bad), (line, severity), "{actual}");
        assert!(actual.starts_with(message), "{actual}");
    }
}

#[test]
fn incident_queries_must_parse_and_should_answer_in_any_case() {
    let incident = |query: &str| {
        linted(&[&policy(&format!(
            "  freeze: {{ incident: {{ query: '{query}' }} }}\n"
        ))])
    };
    for good in [
        "count(ALERTS) or vector(0)",
        "(count(ALERTS) > 3) or (vector(0))",
        "vector(1)",
        "scalar(x) + 1",
    ] {
        assert_eq!(incident(good), [], "{good}");
    }
    for (query, severity, message) in [
        ("count(ALERTS", Severity::Error, "is not PromQL"),
        ("x[5m]", Severity::Error, "yields no number"),
        ("count(ALERTS)", Severity::Warning, "or vector(0)"),
        (
            "vector(0) or count(ALERTS)",
            Severity::Warning,
            "or vector(0)",
        ),
        ("x and vector(0)", Severity::Warning, "or vector(0)"),
    ] {
        let [(6, how_bad, actual)] = &incident(query)[..] else {
            panic!("{query}")
        };
        assert_eq!(*how_bad, severity, "{query}");
        assert!(actual.contains(message), "{actual}");
    }
}

#[test]
fn keys_must_be_of_a_kind_that_is_known_and_not_over() {
    let keys = |key: &str, more: &str| {
        policy(&format!(
            "  provenance:
    trust: Attested
    keys:
      - name: ci
        publicKey: |
          -----BEGIN PUBLIC KEY-----
          {key}
          -----END PUBLIC KEY-----
{more}"
        ))
    };
    for key in [P256, ED25519] {
        assert_eq!(linted(&[&keys(key, "")]), [], "{key}");
    }
    let past = keys(P256, "        notAfter: 2026-01-01T00:00:00Z\n");
    assert_eq!(
        linted(&[&past]),
        [(
            15,
            Severity::Warning,
            "notAfter is in the past: it is no longer trusted".into()
        )]
    );
    let [(10, Severity::Error, message)] = &linted(&[&keys("MFkwEwYH", "")])[..] else {
        panic!()
    };
    assert!(message.contains("this is not a public key"), "{message}");
    let [(6, Severity::Warning, message)] =
        &linted(&[&policy("  provenance: { trust: Attested }\n")])[..]
    else {
        panic!()
    };
    assert!(message.starts_with("no key is named"), "{message}");
}

#[test]
fn a_selector_that_fits_no_rollout_beside_it_is_a_warning() {
    let own = policy("  rolloutSelector: { matchLabels: { team: shop } }\n");
    let other = policy("  rolloutSelector: { matchLabels: { team: shipping } }\n");
    assert_eq!(linted(&[&own, &rollout("")]), []);
    assert_eq!(linted(&[&other]), [], "there is nothing to compare it with");
    assert_eq!(
            linted(&[&other, &rollout("")]),
            [(6, Severity::Warning, "rolloutSelector team=shipping fits none of the 1 Rollouts in these files: compare it with their metadata.labels".into())]
        );
}

#[test]
fn demands_that_name_no_group_are_warnings() {
    let named = policy(
        "  tiers:
    high:
      signOff: [{ count: 1, groups: [approvers] }]
      promotionSignOff: []
",
    );
    assert_eq!(linted(&[&named]), []);
    let unnamed = policy(
        "  tiers:
    high:
      signOff:
        - count: 1
    critical:
      promotionSignOff: [{ count: 2 }, { count: 1, groups: [senior] }]
      steps:
        - { weight: 1, signOff: [{}] }
",
    );
    let expected = |line, path: &str, people: &str| {
        let message = format!(
            "spec.{path} requires {people} and names no groups: all users with the verb approve can sign, such as those with a role of verbs [\"*\"], and if there are none the change is rolled back after waitAtMost; name groups"
        );
        (line, Severity::Warning, message)
    };
    assert_eq!(
        linted(&[&unnamed]),
        [
            expected(9, "tiers.high.signOff", "1 person"),
            expected(11, "tiers.critical.promotionSignOff", "2 people"),
            expected(13, "tiers.critical.steps[0].signOff", "1 person"),
        ]
    );
    let own = "      promotionSignOff: [{ count: 1, groups: [product] }, { count: 3 }]
      steps:
        - { weight: 5, signOff: [{ groups: [qa] }] }
        - { weight: 50, signOff: [{ count: 1 }] }
";
    assert_eq!(
        linted(&[&rollout(own)]),
        [
            expected(23, "strategy.canary.promotionSignOff", "3 people"),
            expected(26, "strategy.canary.steps[1].signOff", "1 person"),
        ]
    );
}

#[test]
fn signatures_that_could_never_count_are_found() {
    let sign_off = "apiVersion: countersign.dev/v1alpha1
kind: SignOff
metadata: { name: a }
spec:
  rollout: web
  rolloutUid: u
  run: web-1
  digest: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
  decision: Approve
  approver: { username: alice }
";
    assert_eq!(linted(&[sign_off]), []);
    let unstamped = sign_off.replace("  approver: { username: alice }\n", "");
    assert_eq!(linted(&[&unstamped]), [], "the API server fills it in");
    for (from, to, line, severity) in [
        ("cdef\n", "cdeF\n", 8, Severity::Error),
        ("alice", "system:serviceaccount:a:b", 10, Severity::Error),
        ("decision: Approve", "decision: Reject", 5, Severity::Error),
        (
            "decision: Approve",
            "decision: Approve\n  gate: step-0",
            10,
            Severity::Error,
        ),
        (
            "decision: Approve",
            "decision: Approve\n  expiresAt: 2026-01-01T00:00:00Z",
            10,
            Severity::Warning,
        ),
    ] {
        let findings = linted(&[&sign_off.replace(from, to)]);
        let places: Vec<_> = findings.iter().map(|it| (it.0, it.1)).collect();
        assert_eq!(places, [(line, severity)], "{findings:?}");
    }
}

#[test]
fn an_object_that_is_given_twice_in_a_file_is_an_error() {
    let twice = format!("{}---\n{}", rollout(""), rollout(""));
    assert_eq!(
        linted(&[&twice]),
        [(
            27,
            Severity::Error,
            "Rollout web is in line 4 already".into()
        )]
    );
    assert_eq!(
        linted(&[&rollout(""), &rollout("")]),
        [],
        "versions of one object"
    );
}

#[test]
fn placeholders_are_named_for_what_they_are() {
    let helm = rollout("").replace(
        "name: web\n  labels",
        "name: '{{ .Values.name }}'\n  labels",
    );
    assert_eq!(
        linted(&[&helm]),
        [(4, Severity::Error, HELM_TEMPLATE.into())]
    );
    let shell = rollout("").replace(
        "image: example.org/web:1\n          args",
        "image: example.org/web:${TAG}\n          args",
    );
    let findings = linted(&[&shell]);
    assert_eq!(
        (findings[1].0, findings[1].1),
        (19, Severity::Error),
        "{findings:?}"
    );
    assert!(
        findings[1]
            .2
            .starts_with("`example.org/web:${TAG}` holds a placeholder")
    );
}

#[test]
fn what_is_no_manifest_is_passed_over_but_not_in_silence() {
    let findings = linted(&["replicas: 3\n"]);
    assert_eq!((findings[0].0, findings[0].1), (1, Severity::Warning));
}
