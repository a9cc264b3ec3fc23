//! The CEL rules of the schemas, evaluated without an API server.
//!
//! The rules are those of the custom resource definitions, with their messages; kube-cel evaluates them. Rules
//! that compare with the object's last state need one, and are left out. A test has a value for each rule that
//! holds and one that does not.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use kube_cel::{CompiledSchema, compile_schema, validate_compiled};
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

/// A violated rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken {
    /// The path of the value that breaks the rule.
    pub path: String,
    /// The rule's message.
    pub message: String,
}

/// The rules that a value violates. Values at faulty paths are of the wrong type, so their own rules are
/// skipped; those of their other members are not.
#[must_use]
pub fn broken(
    rules: &CompiledSchema,
    value: &Value,
    path: &str,
    faulty: &BTreeSet<String>,
) -> Vec<Broken> {
    if !faulty.contains(path) {
        let errors = validate_compiled(rules, value, None).err();
        let broken = errors.into_iter().flatten().map(|error| Broken {
            path: below(path, &error.field_path),
            message: error.message,
        });
        return broken.collect();
    }
    match value {
        Value::Object(members) => {
            let members = members.iter().filter_map(|(key, value)| {
                let additional = rules.additional_properties.as_deref();
                let rules = rules.properties.get(key).or(additional)?;
                Some(broken(rules, value, &join(path, key), faulty))
            });
            members.flatten().collect()
        }
        Value::Array(items) => {
            let Some(rules) = &rules.items else {
                return Vec::new();
            };
            let items = items.iter().enumerate();
            let items =
                items.map(|(index, item)| broken(rules, item, &format!("{path}[{index}]"), faulty));
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
