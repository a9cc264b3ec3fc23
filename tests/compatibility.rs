//! What an API server has stored by the definitions of an earlier version, it accepts by those of this one.
//!
//! The earlier definitions are those of commit 170a20e: a copy is in `tests/compatibility/crds/`, as a shallow clone lacks
//! the commit. A release replaces it (docs/release.md).

// Helpers of tests fail by panicking, as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and a table reads best in one piece"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// Findings that are accepted, each with the reason.
const ACCEPTED: &[(&str, &str)] = &[
    (
        "SignOff.spec.gate: rule self.matches('^(step-[1-9][0-9]{0,2}|promotion|first-revision|evidence-[1-9][0-9]{0,2})$')",
        "the rule took the place of one without `first-revision`, and accepts more",
    ),
    (
        "Rollout.status: x-kubernetes-map-type None is Some(String(\"atomic\"))",
        "only the operator writes it, and always the whole",
    ),
    (
        "RolloutRun.spec: x-kubernetes-map-type None is Some(String(\"atomic\"))",
        "only the operator writes it, by patches that merge whatever the type is",
    ),
];

/// With another value here the API server validates, stores or merges the same field in another way.
const UNCHANGED: [&str; 11] = [
    "type",
    "anyOf",
    "oneOf",
    "allOf",
    "not",
    "additionalItems",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
];
/// What may be dropped, but neither added nor changed.
const RESTRICTIONS: [&str; 4] = ["pattern", "format", "multipleOf", "uniqueItems"];
/// What may be added, but not dropped.
const PERMISSIONS: [&str; 2] = ["nullable", "x-kubernetes-preserve-unknown-fields"];
const UPPER_BOUNDS: [&str; 4] = ["maxLength", "maxItems", "maxProperties", "maximum"];
const LOWER_BOUNDS: [&str; 4] = ["minLength", "minItems", "minProperties", "minimum"];

/// Adds the ways in which `now` refuses or drops what `earlier` accepts.
fn compare(earlier: &Value, now: &Value, path: &str, found: &mut Vec<String>) {
    let mut finding = |text: String| found.push(format!("{path}: {text}"));
    for key in UNCHANGED {
        if earlier.get(key) != now.get(key) {
            finding(format!(
                "{key} {:?} is {:?}",
                earlier.get(key),
                now.get(key)
            ));
        }
    }
    for key in RESTRICTIONS {
        if now.get(key).is_some() && earlier.get(key) != now.get(key) {
            finding(format!("{key} is {}", now[key]));
        }
    }
    for key in PERMISSIONS {
        if earlier[key] == true && now[key] != true {
            finding(format!("{key} is gone"));
        }
    }
    let bound = |schema: &Value, key: &str| schema[key].as_f64();
    for key in UPPER_BOUNDS {
        let (before, after) = (bound(earlier, key), bound(now, key));
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            finding(format!("{key} is {}", now[key]));
        }
    }
    for key in LOWER_BOUNDS {
        let (before, after) = (bound(earlier, key), bound(now, key));
        if after.is_some_and(|after| before.is_none_or(|before| after > before)) {
            finding(format!("{key} is {}", now[key]));
        }
    }
    let values = |schema: &Value, key: &str| schema[key].as_array().cloned();
    if let Some(after) = values(now, "enum") {
        match values(earlier, "enum") {
            None => finding(format!("enum is {after:?}")),
            Some(before) => {
                for value in before.iter().filter(|value| !after.contains(value)) {
                    finding(format!("enum lacks {value}"));
                }
            }
        }
    }
    let required = values(earlier, "required").unwrap_or_default();
    for name in values(now, "required").unwrap_or_default() {
        if !required.contains(&name) {
            finding(format!("{name} is required"));
        }
    }
    let known = rules(earlier);
    for rule in rules(now).difference(&known) {
        finding(format!("rule {rule}"));
    }
    nested(earlier, now, path, found);
}

/// The CEL rules of one schema.
fn rules(schema: &Value) -> BTreeSet<String> {
    let rules = schema["x-kubernetes-validations"].as_array();
    let rules = rules.into_iter().flatten();
    let text = |rule: &Value| rule["rule"].as_str().unwrap_or_default().to_owned();
    rules.map(text).collect()
}

/// Compares the schemas within.
fn nested(earlier: &Value, now: &Value, path: &str, found: &mut Vec<String>) {
    for (name, property) in earlier["properties"].as_object().into_iter().flatten() {
        match now["properties"].get(name) {
            Some(after) => compare(property, after, &format!("{path}.{name}"), found),
            None => found.push(format!("{path}.{name}: is gone")),
        }
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        let (before, after) = (earlier.get(key), now.get(key));
        if let (Some(before), Some(after)) = (before, after)
            && before.is_object()
            && after.is_object()
        {
            compare(before, after, &format!("{path}{mark}"), found);
        } else if before != after {
            found.push(format!("{path}: {key} is {after:?}"));
        }
    }
}

/// The definitions of the earlier version.
fn earlier() -> Vec<Value> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compatibility/crds");
    let files = fs::read_dir(directory).unwrap();
    let read = |file: fs::DirEntry| {
        let text = fs::read_to_string(file.path()).unwrap();
        serde_saphyr::from_str::<Value>(&text).unwrap()
    };
    files.map(|file| read(file.unwrap())).collect()
}

/// The schemas of a definition by version, of those that are served.
fn schemas(definition: &Value) -> Vec<(String, Value)> {
    let versions = definition["spec"]["versions"].as_array().unwrap().iter();
    let served = versions.filter(|version| version["served"] == true);
    let schema = |version: &Value| {
        let name = version["name"].as_str().unwrap().to_owned();
        (name, version["schema"]["openAPIV3Schema"].clone())
    };
    served.map(schema).collect()
}

#[test]
fn what_an_earlier_version_stored_is_valid() {
    let current = countersign_api::crds().into_iter();
    let current: Vec<_> = current
        .map(|it| serde_json::to_value(it).unwrap())
        .collect();
    let (mut found, mut compared) = (Vec::new(), 0);
    for before in earlier() {
        let name = &before["metadata"]["name"];
        let now = current.iter().find(|it| it["metadata"]["name"] == *name);
        let now = now.unwrap_or_else(|| panic!("there is no {name}"));
        for key in [
            "/spec/group",
            "/spec/scope",
            "/spec/names/kind",
            "/spec/names/plural",
        ] {
            assert_eq!(now.pointer(key), before.pointer(key), "{name}");
        }
        let kind = before["spec"]["names"]["kind"].as_str().unwrap();
        let after = schemas(now);
        for (version, schema) in schemas(&before) {
            let same = after.iter().find(|(name, _)| *name == version);
            let (_, after) = same.unwrap_or_else(|| panic!("{kind} lacks {version}"));
            compare(&schema, after, kind, &mut found);
            compared += 1;
        }
    }
    assert_eq!(compared, 7, "each kind has one version");
    let accepted: Vec<_> = ACCEPTED.iter().map(|(finding, _)| *finding).collect();
    let new: Vec<_> = found
        .iter()
        .filter(|it| !accepted.contains(&it.as_str()))
        .collect();
    assert!(
        new.is_empty(),
        "stored objects may be refused or lose fields; give a reason in ACCEPTED: {new:#?}"
    );
    for finding in accepted {
        assert!(
            found.iter().any(|it| it == finding),
            "{finding}: not so any more"
        );
    }
}

#[test]
fn a_definition_that_accepts_less_is_found() {
    let earlier = json!({
        "type": "object", "properties": {
            "tier": { "type": "string", "enum": ["Low", "High"], "nullable": true },
            "weight": { "type": "integer", "maximum": 100, "minimum": 0 },
            "steps": { "type": "array", "x-kubernetes-list-type": "atomic", "items": { "type": "string", "maxLength": 8 } },
            "labels": { "type": "object", "additionalProperties": { "type": "string" } },
            "template": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
        },
        "required": ["tier"], "x-kubernetes-validations": [{ "rule": "self.tier != ''" }],
    });
    let compared = |now: &Value| {
        let mut found = Vec::new();
        compare(&earlier, now, "Kind", &mut found);
        found
    };
    assert_eq!(compared(&earlier), Vec::<String>::new());
    let edited = |pointer: &str, value: Value| {
        let mut now = earlier.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        now.pointer_mut(parent).unwrap()[key] = value;
        compared(&now)
    };
    for (pointer, value, finding) in [
        ("/properties/tier/type", json!("integer"), "Kind.tier: type"),
        (
            "/properties/tier/enum",
            json!(["Low"]),
            "Kind.tier: enum lacks \"High\"",
        ),
        (
            "/properties/tier/nullable",
            json!(false),
            "Kind.tier: nullable is gone",
        ),
        (
            "/properties/tier/pattern",
            json!("^L"),
            "Kind.tier: pattern is",
        ),
        (
            "/properties/weight/maximum",
            json!(99),
            "Kind.weight: maximum is 99",
        ),
        (
            "/properties/weight/minimum",
            json!(1),
            "Kind.weight: minimum is 1",
        ),
        (
            "/properties/steps/x-kubernetes-list-type",
            json!("set"),
            "Kind.steps: x-kubernetes-list-type",
        ),
        (
            "/properties/steps/maxItems",
            json!(5),
            "Kind.steps: maxItems is 5",
        ),
        (
            "/properties/steps/items/maxLength",
            json!(7),
            "Kind.steps[]: maxLength is 7",
        ),
        (
            "/properties/labels/additionalProperties/type",
            json!("integer"),
            "Kind.labels{}: type",
        ),
        (
            "/properties/labels/additionalProperties",
            json!(false),
            "Kind.labels: additionalProperties is",
        ),
        (
            "/properties/template/x-kubernetes-preserve-unknown-fields",
            Value::Null,
            "Kind.template: x-kubernetes-preserve-unknown-fields is gone",
        ),
        (
            "/required",
            json!(["tier", "weight"]),
            "Kind: \"weight\" is required",
        ),
        (
            "/x-kubernetes-validations",
            json!([{ "rule": "self.weight > 0" }]),
            "Kind: rule self.weight > 0",
        ),
        (
            "/properties",
            json!({ "tier": earlier["properties"]["tier"] }),
            "Kind.weight: is gone",
        ),
    ] {
        let found = edited(pointer, value);
        assert!(
            found.iter().any(|it| it.starts_with(finding)),
            "{pointer}: {found:?}"
        );
    }
    for (pointer, value) in [
        ("/properties/weight/maximum", json!(200)),
        ("/properties/tier/enum", json!(["Low", "High", "Critical"])),
        ("/properties/new", json!({ "type": "string" })),
        ("/required", json!([])),
        ("/x-kubernetes-validations", json!([])),
    ] {
        assert_eq!(edited(pointer, value), Vec::<String>::new(), "{pointer}");
    }
}
