//! `docs/reference/api.md`: every kind with its fields, from the definitions.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use crate::markdown::{cell, code, table};

const HEAD: &str = "# API

Every field of every kind, generated from the definitions. `[]` is an entry of a list, `{}` a value of a map. `kubectl
explain` shows the same: `kubectl explain rollouts.countersign.dev.spec.strategy`. What the fields mean together is in
[Concepts](../concepts.md) and the pages that it names.
";

/// Pod templates, whose fields are those of Kubernetes.
const POD_TEMPLATES: [&str; 2] = [
    "Rollout spec.template",
    "Rollout spec.strategy.canary.smoke.template",
];
/// An object with fewer fields is listed again rather than referred to.
const FEWEST_SHARED_FIELDS: usize = 3;

pub fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut listed = Listed::default();
    for definition in countersign_api::crds() {
        page += &kind(&serde_json::to_value(definition).unwrap(), &mut listed);
    }
    page
}

fn kind(definition: &Value, listed: &mut Listed) -> String {
    let spec = &definition["spec"];
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let (kind, short) = (
        word(&spec["names"]["kind"]),
        word(&spec["names"]["shortNames"][0]),
    );
    let version = &spec["versions"][0];
    let schema = &version["schema"]["openAPIV3Schema"];
    let mut text = format!(
        "\n## {kind}\n\n{}\n\n`{}/{}`, scope {}, short name `{short}`.\n",
        cell(schema["description"].as_str().unwrap_or_default()),
        word(&spec["group"]),
        word(&version["name"]),
        word(&spec["scope"]),
    );
    for part in ["spec", "status"] {
        let Some(schema) = schema["properties"].get(part) else {
            continue;
        };
        let mut rows = Vec::new();
        listed.walk(schema, &kind, part, &mut rows);
        let _ = write!(text, "\n### {kind} {part}\n\n");
        for rule in rules(schema) {
            let _ = write!(text, "{}.\n\n", cell(&format!("Rule: {rule}")));
        }
        text += &table(["Field", "Type", "Default", "Description"], &rows);
    }
    text
}

type Row = [String; 4];

/// The objects whose fields have rows, by these fields, with the kind and the path of each.
#[derive(Default)]
struct Listed(BTreeMap<String, (String, String)>);

impl Listed {
    /// A row for each field below a path.
    fn walk(&mut self, schema: &Value, kind: &str, path: &str, rows: &mut Vec<Row>) {
        let required = schema["required"].as_array();
        for (name, field) in properties(schema) {
            let path = format!("{path}.{name}");
            let (inner, inner_path) = innermost(field, &path);
            let is_foreign = POD_TEMPLATES.contains(&format!("{kind} {path}").as_str());
            let known = if is_foreign {
                None
            } else {
                self.fields_of(inner, kind, &inner_path)
            };
            let mut description = field["description"].as_str().unwrap_or_default().to_owned();
            for rule in rules(field).chain(rules(inner).filter(|_| inner_path != path)) {
                let _ = write!(description, " Rule: {rule}.");
            }
            let mut description = cell(&description);
            if let Some((kind, path)) = &known {
                let section = path.split('.').next().unwrap_or_default();
                let anchor = format!("{kind}-{section}").to_lowercase();
                let _ = write!(description, " Fields as in [{kind} `{path}`](#{anchor}).");
            }
            let is_required = required.is_some_and(|it| it.iter().any(|it| it == name));
            let default = match &field["default"] {
                _ if is_required => "required".to_owned(),
                Value::Null | Value::Array(_) | Value::Object(_) => String::new(),
                Value::String(text) if text.is_empty() => String::new(),
                Value::String(text) => code(text),
                other => code(&number(other)),
            };
            let shown = path.split_once('.').map_or(&*path, |(_, it)| it);
            rows.push([code(shown), type_of(field), default, description]);
            if known.is_none() && !is_foreign {
                self.walk(inner, kind, &inner_path, rows);
            }
        }
    }

    /// Where the fields of an object are listed already; if nowhere, that is at this path.
    fn fields_of(&mut self, schema: &Value, kind: &str, path: &str) -> Option<(String, String)> {
        if properties(schema).count() < FEWEST_SHARED_FIELDS {
            return None;
        }
        let mut fields = schema["properties"].clone();
        without_defaults(&mut fields);
        let fields = fields.to_string();
        let known = self.0.get(&fields).cloned();
        if known.is_none() {
            let place = (kind.to_owned(), path.to_owned());
            self.0.insert(fields, place);
        }
        known
    }
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

/// The messages of the rules on a value, each without a full stop.
fn rules(schema: &Value) -> impl Iterator<Item = &str> {
    let rules = schema["x-kubernetes-validations"].as_array();
    let messages = rules.into_iter().flatten();
    messages.filter_map(|rule| rule["message"].as_str())
}

/// The entry of a list of lists, and so on.
fn innermost<'a>(mut schema: &'a Value, path: &str) -> (&'a Value, String) {
    let mut path = path.to_owned();
    loop {
        if let Some(entry) = schema.get("items") {
            (schema, path) = (entry, path + "[]");
        } else if let Some(entry) = schema
            .get("additionalProperties")
            .filter(|it| it.is_object())
        {
            (schema, path) = (entry, path + "{}");
        } else {
            return (schema, path);
        }
    }
}

/// Lists have no defaults in a spec, and have them in a status.
fn without_defaults(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            // A field may be called `default`; its schema is an object that describes itself.
            fields.retain(|name, it| name != "default" || it.get("description").is_some());
            fields.values_mut().for_each(without_defaults);
        }
        Value::Array(values) => values.iter_mut().for_each(without_defaults),
        _ => {}
    }
}

/// The type with its values or its bounds.
fn type_of(schema: &Value) -> String {
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<_> = values.iter().filter_map(Value::as_str).map(code).collect();
        return values.join(", ");
    }
    let text = |key: &str| schema[key].as_str().unwrap_or_default();
    let is_duration = text("pattern").starts_with("^([0-9]{1,5}h)?");
    match text("type") {
        "array" => {
            let most = schema.get("maxItems").map(number);
            let most = most
                .map(|it| format!("at most {it} of "))
                .unwrap_or_default();
            format!("list: {most}{}", type_of(&schema["items"]))
        }
        "object" if schema["additionalProperties"].is_object() => {
            format!("map: {}", type_of(&schema["additionalProperties"]))
        }
        "string" if is_duration => "duration".to_owned(),
        "string" if text("format") == "date-time" => "time".to_owned(),
        "" if schema["x-kubernetes-int-or-string"] == true => "integer or string".to_owned(),
        "" => "any".to_owned(),
        name => match (schema.get("minimum"), schema.get("maximum")) {
            (Some(least), Some(most)) => {
                format!("{name}, {} to {}", number(least), number(most))
            }
            (Some(least), None) => format!("{name}, at least {}", number(least)),
            (None, Some(most)) => format!("{name}, at most {}", number(most)),
            (None, None) => name.to_owned(),
        },
    }
}

/// A number as people write it, which JSON may have as `100.0`; and any other value as JSON.
fn number(value: &Value) -> String {
    match value {
        Value::Number(it) => it
            .as_f64()
            .map_or_else(|| it.to_string(), |it| it.to_string()),
        other => other.to_string(),
    }
}

#[test]
fn a_field_has_a_row_with_its_type_default_rules_and_where_its_fields_are() {
    let shared = serde_json::json!({ "type": "object", "properties": {
        "a": { "type": "boolean" }, "b": { "type": "time" }, "default": { "description": "Its value." },
    }});
    let mut schema = serde_json::json!({ "required": ["second"], "properties": {
        "first": { "type": "array", "maxItems": 3, "description": "Some.", "items": shared },
        "second": shared,
        "third": { "type": "integer", "minimum": 0.0, "maximum": 100.0, "default": 5,
            "x-kubernetes-validations": [{ "rule": "self > 1", "message": "more than | one" }] },
    }});
    schema["properties"]["second"]["properties"]["a"]["default"] = true.into();
    let mut rows = Vec::new();
    Listed::default().walk(&schema, "Rollout", "spec", &mut rows);
    let row = |index: usize| rows[index].each_ref().map(String::as_str);
    assert_eq!(
        row(0),
        ["`first`", "list: at most 3 of object", "", "Some."]
    );
    assert_eq!(row(1), ["`first[].a`", "boolean", "", ""]);
    assert_eq!(row(3), ["`first[].default`", "any", "", "Its value."]);
    let same = " Fields as in [Rollout `spec.first[]`](#rollout-spec).";
    assert_eq!(row(4), ["`second`", "object", "required", same]);
    let rule = r"Rule: more than \| one.";
    assert_eq!(row(5), ["`third`", "integer, 0 to 100", "`5`", rule]);
    assert_eq!(rows.len(), 6);
}
