use std::collections::BTreeMap;

use kube_cel::{ErrorKind, ValidationError};
use serde_json::Value;

use super::*;
use crate::manifests::yaml::documents;

/// Each rule's text, with a value for which it holds and one for which it does not.
const RULES: [(&str, &str, &str); 50] = [
    (
        "self.routes.all(a, self.routes.exists_one(b, (has(b.kind) ? b.kind : 'HTTPRoute') == (has(a.kind) ? a.kind : 'HTTPRoute') && b.name == a.name))",
        "{routes: [{name: a}, {kind: TCPRoute, name: a}]}",
        "{routes: [{name: a}, {kind: HTTPRoute, name: a}]}",
    ),
    (
        "has(self.template) != has(self.workloadRef)",
        "{workloadRef: {name: a}}",
        "{workloadRef: {name: a}, template: {}}",
    ),
    (
        "has(self.template) == has(self.selector)",
        "{workloadRef: {name: a}}",
        "{workloadRef: {name: a}, selector: {}}",
    ),
    (
        "!has(self.testers) || self.routes.exists(route, !has(route.kind) || route.kind in ['HTTPRoute', 'GRPCRoute'])",
        "{routes: [{name: a}], testers: {}}",
        "{routes: [{kind: VirtualService, name: a}], testers: {}}",
    ),
    (
        "!has(self.destinationRule) || (has(self.kind) && self.kind == 'VirtualService')",
        "{kind: VirtualService, destinationRule: {}}",
        "{destinationRule: {}}",
    ),
    (
        "self.stableSubset != self.canarySubset",
        "{stableSubset: a, canarySubset: b}",
        "{stableSubset: a, canarySubset: a}",
    ),
    (
        "has(self.headers) || has(self.cookie)",
        "{cookie: {}}",
        "{}",
    ),
    (
        "!has(self.traffic) || self.traffic.routes.all(route, has(route.destinationRule)) || (has(self.stableService) && has(self.canaryService))",
        "{traffic: {routes: [{kind: VirtualService, destinationRule: {}}]}}",
        "{traffic: {routes: [{name: a}]}, stableService: a}",
    ),
    (
        "!has(self.dynamicStable) || !self.dynamicStable || has(self.traffic)",
        "{dynamicStable: true, traffic: {}}",
        "{dynamicStable: true}",
    ),
    (
        "!has(self.steps) || self.steps.all(step, step.weight > 0) || has(self.traffic) || (has(self.stableService) && has(self.canaryService))",
        "{steps: [{weight: 0}], stableService: a, canaryService: b}",
        "{steps: [{weight: 0}], stableService: a}",
    ),
    (
        "!has(self.steps) || !self.steps.exists(step, has(step.mirror)) || (has(self.traffic) && self.traffic.routes.exists(route, !has(route.kind) || route.kind in ['HTTPRoute', 'GRPCRoute', 'VirtualService']))",
        "{steps: [{weight: 0, mirror: 5}], traffic: {routes: [{name: a}]}}",
        "{steps: [{weight: 0, mirror: 5}], traffic: {routes: [{kind: TCPRoute}]}}",
    ),
    (
        "duration(self.drain) <= duration('1h')",
        "{drain: 60m}",
        "{drain: 61m}",
    ),
    (
        "duration(self.scaleDownDelay) <= duration('168h')",
        "{}",
        "{scaleDownDelay: 169h}",
    ),
    (
        "!has(self.mirror) || self.weight == 0",
        "{weight: 0, mirror: 5}",
        "{weight: 1, mirror: 5}",
    ),
    (
        "has(self.perNamespace) || has(self.perCluster)",
        "{perNamespace: 1}",
        "{fromTier: low}",
    ),
    (
        "self.all(step, step.weight > 0 && !has(step.scale))",
        "[{weight: 1}]",
        "[{weight: 0, scale: 100}]",
    ),
    (
        "!has(self.template) || !has(self.selector) || (has(self.template.metadata) && has(self.template.metadata.labels) && self.selector.matchLabels.all(k, k in self.template.metadata.labels && self.template.metadata.labels[k] == self.selector.matchLabels[k]))",
        "{selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b, c: d}}}}",
        "{selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}}}",
    ),
    (
        "self.progressDeadlineSeconds > self.minReadySeconds",
        "{minReadySeconds: 599}",
        "{minReadySeconds: 900, progressDeadlineSeconds: 900}",
    ),
    (
        "!has(self.selector) || !('pod-template-hash' in self.selector.matchLabels)",
        "{selector: {matchLabels: {a: b}}}",
        "{selector: {matchLabels: {pod-template-hash: b}}}",
    ),
    (
        "!has(self.selector) || !('app.kubernetes.io/managed-by' in self.selector.matchLabels)",
        "{selector: {matchLabels: {a: b}}}",
        "{selector: {matchLabels: {app.kubernetes.io/managed-by: b}}}",
    ),
    (
        "!has(self.selector) || !has(self.strategy) || !has(self.strategy.canary) || !has(self.strategy.canary.smoke) || !has(self.strategy.canary.smoke.template.metadata) || !has(self.strategy.canary.smoke.template.metadata.labels) || !self.selector.matchLabels.all(k, k in self.strategy.canary.smoke.template.metadata.labels && self.strategy.canary.smoke.template.metadata.labels[k] == self.selector.matchLabels[k])",
        "{selector: {matchLabels: {a: b, c: d}}, strategy: {canary: {smoke: {template: {metadata: {labels: {a: b}}}}}}}",
        "{selector: {matchLabels: {a: b}}, strategy: {canary: {smoke: {template: {metadata: {labels: {a: b, c: d}}}}}}}",
    ),
    (
        "duration(self.timeout) >= duration('1s') && duration(self.timeout) <= duration('24h')",
        "{timeout: 24h}",
        "{timeout: 24h1s}",
    ),
    (
        "!has(self.stableService) || !has(self.canaryService) || self.stableService != self.canaryService",
        "{stableService: a, canaryService: b}",
        "{stableService: a, canaryService: a}",
    ),
    (
        "!((string(self.maxSurge) in ['0', '0%']) && (string(self.maxUnavailable) in ['0', '0%']))",
        "{maxSurge: 0, maxUnavailable: 1}",
        "{maxSurge: 0%}",
    ),
    (
        "type(self) == int ? self >= 0 && self <= 100000 : self.matches('^[0-9]{1,3}%$')",
        "250%",
        "'25'",
    ),
    (
        "type(self) == int ? self >= 0 && self <= 100000 : self.matches('^([0-9]|[1-9][0-9]|100)%$')",
        "100%",
        "101%",
    ),
    (
        "self.map(step, step.weight).isSorted()",
        "[{weight: 5}, {weight: 5}, {weight: 50}]",
        "[{weight: 50}, {weight: 5}]",
    ),
    (
        "duration(self.interval) >= duration('1s')",
        "{interval: 1s}",
        "{interval: 999ms}",
    ),
    ("duration(self) <= duration('10m')", "10m", "11m"),
    ("duration(self) <= duration('168h')", "168h", "169h"),
    (
        "!has(self.templates)",
        "{checks: []}",
        "{templates: [{name: a}]}",
    ),
    (
        "(has(self.checks) && size(self.checks) > 0) || (has(self.objectives) && size(self.objectives) > 0)",
        "{objectives: [{name: a}]}",
        "{checks: []}",
    ),
    (
        "has(self.metric) || has(self.latency) || (has(self.preset) ? !has(self.errors) && !has(self.total) : has(self.errors) && has(self.total))",
        "{errors: a, total: b}",
        "{preset: HttpRequestsTotal, total: b}",
    ),
    (
        "!has(self.latency) || (!has(self.errors) && !has(self.total) && !has(self.metric) && has(self.preset) != has(self.latency.buckets))",
        "{preset: Traefik, latency: {within: 1s}}",
        "{preset: Traefik, latency: {within: 1s, buckets: a}}",
    ),
    (
        "!has(self.latency) || !has(self.latency.quantile) || !has(self.ceiling)",
        "{latency: {quantile: 0.99}}",
        "{latency: {quantile: 0.99}, ceiling: 0.1}",
    ),
    (
        "!has(self.metric) || (!has(self.preset) && !has(self.errors) && !has(self.total) && !has(self.ceiling) && !has(self.dispersion))",
        "{metric: {query: a, max: 1}}",
        "{metric: {query: a, max: 1}, ceiling: 0.1}",
    ),
    (
        "(has(self.from) ? self.from : 0) <= (has(self.to) ? self.to : 100)",
        "{from: 5}",
        "{from: 6, to: 5}",
    ),
    (
        "duration(self.within) > duration('0s')",
        "{within: 1ms}",
        "{within: 0s}",
    ),
    ("has(self.min) || has(self.max)", "{min: 1}", "{query: a}"),
    (
        "!has(self.min) || !has(self.max) || self.min <= self.max",
        "{min: 1, max: 1}",
        "{min: 2, max: 1}",
    ),
    (
        "!has(self.period) || (duration(self.period) >= duration('24h') && duration(self.period) <= duration('2160h'))",
        "{period: 720h}",
        "{period: 1h}",
    ),
    (
        "self.map(band, band.from).isSorted() && self.map(band, band.points).isSorted()",
        "[{from: 0, points: 0}, {from: 9, points: 3}]",
        "[{from: 0, points: 3}, {from: 9, points: 0}]",
    ),
    (
        "!has(self.medium) || !has(self.high) || self.medium <= self.high",
        "{medium: 9}",
        "{medium: 9, high: 8}",
    ),
    (
        "!has(self.high) || !has(self.critical) || self.high <= self.critical",
        "{critical: 9}",
        "{high: 9, critical: 8}",
    ),
    (
        "!has(self.medium) || !has(self.critical) || self.medium <= self.critical",
        "{medium: 8, critical: 8}",
        "{medium: 9, critical: 8}",
    ),
    (
        "[has(self.medium) && has(self.medium.onScarceEvidence) && self.medium.onScarceEvidence == 'Promote', has(self.high) && has(self.high.onScarceEvidence) && self.high.onScarceEvidence == 'Promote', has(self.critical) && has(self.critical.onScarceEvidence) && self.critical.onScarceEvidence == 'Promote'].all(promotes, !promotes)",
        "{low: {onScarceEvidence: Promote}, high: {onScarceEvidence: Hold}}",
        "{high: {onScarceEvidence: Promote}}",
    ),
    (
        "self.matches('^(step-[1-9][0-9]{0,2}|promotion|first-revision|evidence-[1-9][0-9]{0,2})$')",
        "evidence-200",
        "step-0",
    ),
    (
        "self.decision == 'Approve' || (has(self.reason) && size(self.reason) > 0)",
        "{decision: Reject, reason: broken}",
        "{decision: Reject, reason: ''}",
    ),
    (
        "self.decision == 'Approve' || !has(self.gate)",
        "{decision: Approve, gate: promotion}",
        "{decision: BreakGlass, gate: promotion}",
    ),
    (
        "(self.action == 'Promote') == has(self.step)",
        "{action: Promote, step: 1}",
        "{action: Abort, step: 1}",
    ),
];

/// All rules of the schemas with the schema at which they stand.
fn rules_of(schema: &Value, all: &mut BTreeMap<String, Value>) {
    match schema {
        Value::Object(members) => {
            let rules = members.get("x-kubernetes-validations");
            for rule in rules.and_then(Value::as_array).into_iter().flatten() {
                let mut alone = schema.clone();
                alone["x-kubernetes-validations"] = Value::Array(vec![rule.clone()]);
                all.insert(rule["rule"].as_str().unwrap().to_owned(), alone);
            }
            members.values().for_each(|member| rules_of(member, all));
        }
        Value::Array(members) => members.iter().for_each(|member| rules_of(member, all)),
        _ => {}
    }
}

fn all_rules() -> BTreeMap<String, Value> {
    let mut rules = BTreeMap::new();
    for crd in countersign_api::crds() {
        rules_of(&serde_json::to_value(crd).unwrap(), &mut rules);
    }
    rules
}

/// The errors of a rule on a value alone.
fn errors(schema: &Value, yaml: &str) -> Vec<ValidationError> {
    let value = documents(yaml).unwrap().remove(0).json();
    let schema: JSONSchemaProps = serde_json::from_value(schema.clone()).unwrap();
    let errors = validate_compiled(&compiled(&schema), &value, None).err();
    let errors = errors.into_iter().flatten();
    errors.filter(|error| error.field_path.is_empty()).collect()
}

#[test]
fn every_rule_of_the_schemas_is_evaluated() {
    let mut rules = all_rules();
    rules.remove("self == oldSelf");
    for (text, good, bad) in RULES {
        let schema = rules
            .remove(text)
            .unwrap_or_else(|| panic!("no schema has the rule {text}"));
        let message = schema["x-kubernetes-validations"][0]["message"].as_str();
        assert_eq!(errors(&schema, good), [], "{text}: {good}");
        let found = errors(&schema, bad);
        let found: Vec<_> = found
            .iter()
            .map(|it| (it.kind.clone(), Some(it.message.as_str())))
            .collect();
        assert_eq!(
            found,
            [(ErrorKind::ValidationFailure, message)],
            "{text}: {bad}"
        );
    }
    assert_eq!(
        rules,
        BTreeMap::new(),
        "rules without a value that breaks them"
    );
}

#[test]
fn pods_are_a_number_or_a_percentage() {
    let rules = all_rules();
    let rule = |pattern: &str| {
        let with = |it: &&String| it.starts_with("type(self)") && it.contains(pattern);
        &rules[rules.keys().find(with).unwrap()]
    };
    let (surge, unavailable) = (rule("{1,3}%"), rule("|100)%"));
    for (yaml, as_surge, as_unavailable) in [
        ("0", true, true),
        ("100000", true, true),
        ("100001", false, false),
        ("-1", false, false),
        ("5.0", true, true),
        ("0%", true, true),
        ("007%", true, false),
        ("1000%", false, false),
        ("'5'", false, false),
        ("'%'", false, false),
    ] {
        let holds = |rule| errors(rule, yaml).is_empty();
        assert_eq!(
            (holds(surge), holds(unavailable)),
            (as_surge, as_unavailable),
            "{yaml}"
        );
    }
}

#[test]
fn a_rule_that_cannot_be_evaluated_is_not_the_fault_of_the_value() {
    let spec = serde_json::json!({
        "type": "object",
        "properties": { "weight": { "type": "integer" } },
        "x-kubernetes-validations": [{ "rule": "unsupported(self.weight)", "message": "too much" }],
    });
    let rules = compiled(&serde_json::from_value(spec).unwrap());
    let value = documents("weight: 1").unwrap().remove(0).json();
    let found = broken(&rules, &value, "spec", &BTreeSet::new());
    let [rule] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!((rule.path.as_str(), rule.evaluated), ("spec", false));
    let begin =
        "rule `unsupported(self.weight)` could not be checked here; the API server checks it";
    assert!(rule.message.starts_with(begin), "{}", rule.message);
}

#[test]
fn violated_rules_are_ordered_by_path() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let member = serde_json::json!({
        "type": "integer",
        "x-kubernetes-validations": [{ "rule": "self < 1", "message": "too much" }],
    });
    let properties: serde_json::Map<_, _> = names
        .iter()
        .map(|name| ((*name).to_owned(), member.clone()))
        .collect();
    let spec = serde_json::json!({ "type": "object", "properties": properties });
    let rules = compiled(&serde_json::from_value(spec).unwrap());
    let value = documents("{a: 1, b: 1, c: 1, d: 1, e: 1, f: 1}")
        .unwrap()
        .remove(0)
        .json();
    let found = broken(&rules, &value, "", &BTreeSet::new());
    let paths: Vec<_> = found.iter().map(|it| it.path.as_str()).collect();
    assert_eq!(paths, names);
}

/// Where kube-cel learns this function, its replacement goes.
#[test]
fn kube_cel_has_no_function_type() {
    let schema =
        serde_json::json!({ "x-kubernetes-validations": [{ "rule": "type(self) == int" }] });
    let errors = kube_cel::validate(&schema, &Value::from(1), None).unwrap_err();
    assert_eq!(errors[0].kind, ErrorKind::UnsupportedReference);
}

#[test]
fn whole_numbers_compare_with_others_and_labels_may_have_dots() {
    let rules = all_rules();
    let numbers = &rules["!has(self.min) || !has(self.max) || self.min <= self.max"];
    assert_eq!(errors(numbers, "{min: 1, max: 1.5}"), []);
    assert_eq!(errors(numbers, "{min: 2, max: 1.5}").len(), 1);
    let labels = rules
        .keys()
        .find(|it| it.contains("k in self.template.metadata.labels"));
    let labels = &rules[labels.unwrap()];
    let spec = |label| {
        format!(
            "{{selector: {{matchLabels: {{app.kubernetes.io/name: a}}}}, template: {{metadata: {{labels: {{app.kubernetes.io/name: {label}, in: b}}}}}}}}"
        )
    };
    assert_eq!(errors(labels, &spec("a")), []);
    assert_eq!(errors(labels, &spec("b")).len(), 1);
}

#[test]
fn a_rule_below_a_faulty_root_has_its_whole_path() {
    let inner = serde_json::json!({
        "type": "object",
        "properties": { "weight": { "type": "integer" } },
        "x-kubernetes-validations": [{ "rule": "self.weight < 9", "message": "too much", "fieldPath": ".weight" }],
    });
    let canary = serde_json::json!({ "type": "object", "properties": { "canary": inner } });
    let spec = serde_json::json!({ "type": "object", "properties": { "strategy": canary, "other": { "type": "string" } } });
    let rules = compiled(&serde_json::from_value(spec).unwrap());
    let value = documents("{other: 1, strategy: {canary: {weight: 9}}}")
        .unwrap()
        .remove(0);
    let faulty = ["spec", "spec.other"].map(str::to_owned).into();
    let broken = broken(&rules, &value.json(), "spec", &faulty);
    let paths: Vec<_> = broken.into_iter().map(|it| it.path).collect();
    assert_eq!(paths, ["spec.strategy.canary.weight"]);
}

#[test]
fn rules_are_evaluated_if_the_schema_holds() {
    let steps = serde_json::json!({
        "type": "array",
        "items": {
            "type": "object",
            "properties": { "weight": { "type": "integer" } },
            "x-kubernetes-validations": [{ "rule": "self.weight < 9", "message": "too much" }],
        },
        "x-kubernetes-validations": [{ "rule": "self.all(it, it.weight < 9)", "message": "one is too much" }],
    });
    let spec = serde_json::json!({ "type": "object", "properties": { "steps": steps } });
    let rules = compiled(&serde_json::from_value(spec).unwrap());
    let value = documents("steps: [{weight: 9}, {weight: x}]")
        .unwrap()
        .remove(0);
    let paths = |faulty: &[&str]| {
        let faulty = faulty.iter().map(|it| (*it).to_owned()).collect();
        let broken = broken(&rules, &value.json(), "spec", &faulty);
        broken.into_iter().map(|it| it.path).collect::<Vec<_>>()
    };
    assert_eq!(
        paths(&["spec", "spec.steps", "spec.steps[1]"]),
        ["spec.steps[0]"]
    );
    assert_eq!(
        paths(&["spec", "spec.steps", "spec.steps[0]", "spec.steps[1]"]),
        [] as [&str; 0]
    );
}
