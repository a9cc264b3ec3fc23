//! The CEL rules of the schemas, evaluated without an API server.
//!
//! The rules are those of the custom resource definitions, with their messages; kube-cel evaluates them. Rules
//! that compare with the object's last state need one, and are left out. A test has a value for each rule that
//! holds and one that does not.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use kube_cel::{CompiledSchema, ErrorKind, ValidationError, compile_schema, validate_compiled};
use serde_json::Value;

use crate::manifests::finding::join;

/// The rules of a schema.
#[must_use]
pub fn compiled(schema: &JSONSchemaProps) -> CompiledSchema {
    let mut schema = serde_json::to_value(schema).unwrap_or_default();
    replace_type(&mut schema);
    compile_schema(&schema)
}

/// Rewrites the test whether a value is a number: kube-cel has no function `type`.
fn replace_type(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::String(rule)) = members.get_mut("rule") {
                *rule = rule.replace("type(self) == int", "self != string(self)");
            }
            members.values_mut().for_each(replace_type);
        }
        Value::Array(members) => members.iter_mut().for_each(replace_type),
        _ => {}
    }
}

/// A rule that a value violates, or that could not be evaluated.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken {
    /// The path of the value that breaks the rule.
    pub path: String,
    /// The rule's message, or why it could not be evaluated.
    pub message: String,
    /// Whether the rule was evaluated. If not, the value may be correct.
    pub evaluated: bool,
}

impl Broken {
    fn of(error: ValidationError, path: &str) -> Self {
        let evaluated = error.kind == ErrorKind::ValidationFailure;
        let message = if evaluated {
            error.message
        } else {
            format!(
                "rule `{}` could not be checked here; the API server checks it ({})",
                error.rule, error.message
            )
        };
        Self {
            path: below(path, &error.field_path),
            message,
            evaluated,
        }
    }
}

/// The rules that a value violates, ordered by path: kube-cel visits properties in no fixed order.
#[must_use]
pub fn broken(
    rules: &CompiledSchema,
    value: &Value,
    path: &str,
    faulty: &BTreeSet<String>,
) -> Vec<Broken> {
    let mut broken = broken_below(rules, value, path, faulty);
    broken.sort_by(|a, b| a.path.cmp(&b.path));
    broken
}

/// The rules that a value violates. Values at faulty paths are of the wrong type, so their own rules are
/// skipped; those of their other members are not.
fn broken_below(
    rules: &CompiledSchema,
    value: &Value,
    path: &str,
    faulty: &BTreeSet<String>,
) -> Vec<Broken> {
    if !faulty.contains(path) {
        let errors = validate_compiled(rules, value, None).err();
        let errors = errors.into_iter().flatten();
        return errors.map(|error| Broken::of(error, path)).collect();
    }
    match value {
        Value::Object(members) => {
            let members = members.iter().filter_map(|(key, value)| {
                let additional = rules.additional_properties.as_deref();
                let rules = rules.properties.get(key).or(additional)?;
                Some(broken_below(rules, value, &join(path, key), faulty))
            });
            members.flatten().collect()
        }
        Value::Array(items) => {
            let Some(rules) = &rules.items else {
                return Vec::new();
            };
            let items = items.iter().enumerate();
            let items = items.map(|(index, item)| {
                broken_below(rules, item, &format!("{path}[{index}]"), faulty)
            });
            items.flatten().collect()
        }
        _ => Vec::new(),
    }
}

/// The path of a value below another one.
fn below(path: &str, field: &str) -> String {
    match field {
        "" => path.to_owned(),
        index if index.starts_with('[') => format!("{path}{index}"),
        // A field of kube-cel may be a path already, with dots of its own.
        field if path.is_empty() => field.to_owned(),
        field => format!("{path}.{field}"),
    }
}

#[cfg(test)]
mod tests;
