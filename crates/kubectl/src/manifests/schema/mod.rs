//! The API server's validation of an object, without an API server.
//!
//! The schemas are those of the CustomResourceDefinitions; their CEL rules are in
//! [`crate::manifests::rules`]. Status is skipped: the API server drops it from what users apply.

pub(crate) mod forms;

use std::collections::{BTreeMap, BTreeSet};

use countersign_api::pod_template::QUANTITY;
use countersign_api::{GROUP, VERSION};
use countersign_core::label::is_subdomain;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Number, Value};

use crate::manifests::finding::{Finding, join, place};
use crate::manifests::kinds::{KINDS, Kind, METADATA, kind};
use crate::manifests::rules;
use crate::manifests::schema::forms::{PATTERNS, is_whole, mismatch, nearest, one_of};
use crate::manifests::yaml::{Entry, Node, Position, Yaml};

/// Fields that a mutating admission policy sets.
const FILLED_IN: [&str; 2] = ["approver", "person"];

/// An object as the API server stores it: null fields are removed, unless their schema is nullable.
#[must_use]
pub fn stored(object: &Node) -> Value {
    let kind = kind(object).and_then(|name| KINDS.get(name));
    stored_by(object, kind.map(|kind| &kind.schema))
}

fn stored_by(node: &Node, schema: Option<&JSONSchemaProps>) -> Value {
    match &node.value {
        Yaml::Map(entries) => {
            let members = entries.iter().filter_map(|entry| {
                let schema = schema.and_then(|schema| member_of(schema, &entry.key));
                let takes_nothing = schema.is_none_or(|it| it.nullable == Some(true));
                let is_set = entry.value.value != Yaml::Null || takes_nothing;
                is_set.then(|| (entry.key.clone(), stored_by(&entry.value, schema)))
            });
            Value::Object(members.collect())
        }
        Yaml::List(items) => {
            let member = match schema.and_then(|schema| schema.items.as_ref()) {
                Some(JSONSchemaPropsOrArray::Schema(member)) => Some(member.as_ref()),
                _ => None,
            };
            Value::Array(items.iter().map(|item| stored_by(item, member)).collect())
        }
        _ => node.json(),
    }
}

/// The schema of an object's member, if there is one.
fn member_of<'a>(schema: &'a JSONSchemaProps, key: &str) -> Option<&'a JSONSchemaProps> {
    let property = schema.properties.as_ref().and_then(|it| it.get(key));
    property.or(match &schema.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(value)) => Some(value),
        _ => None,
    })
}

/// Findings on an object of this API group by its schema, ordered by position.
#[must_use]
pub fn check(object: &Node) -> Vec<Finding> {
    let mut check = Check::default();
    check.object(object);
    check.repeated_keys(object);
    let mut findings = check.findings;
    findings.sort_by_key(|finding| finding.at);
    findings
}

#[derive(Default)]
struct Check {
    findings: Vec<Finding>,
    errors: usize,
    /// The position of the value at each path.
    places: BTreeMap<String, Position>,
    /// The paths of values with errors.
    faulty: BTreeSet<String>,
}

impl Check {
    fn error(&mut self, at: Position, message: impl Into<String>) {
        self.errors += 1;
        self.findings.push(Finding::error(at, message));
    }

    fn warning(&mut self, at: Position, message: impl Into<String>) {
        self.findings.push(Finding::warning(at, message));
    }

    fn object(&mut self, object: &Node) {
        let name = kind(object).unwrap_or_default();
        let Some(kind) = KINDS.get(name) else {
            let known: Vec<_> = KINDS.keys().map(String::as_str).collect();
            let message = format!(
                "kind {name} is unknown in {GROUP}: {}",
                one_of(name, &known)
            );
            return self.error(place(object, "kind"), message);
        };
        if object.get("apiVersion").and_then(Node::text) != Some(&format!("{GROUP}/{VERSION}")) {
            let message = format!("apiVersion must be {GROUP}/{VERSION}");
            self.error(place(object, "apiVersion"), message);
        }
        self.metadata(object, kind.namespaced);
        self.members(object, &kind.schema, &|key| {
            ["apiVersion", "kind", "metadata", "status"].contains(&key)
        });
        self.required(object, &kind.schema, "");
        self.rules(object, kind);
    }

    /// Checks the CEL rules of values without errors.
    fn rules(&mut self, object: &Node, kind: &Kind) {
        if self.errors > 0 {
            self.faulty.insert(String::new());
        }
        let mut value = object.json();
        remove_nothing(&mut value);
        if let Some(members) = value.as_object_mut() {
            members.remove("status");
        }
        for broken in rules::broken(kind.rules(), &value, "", &self.faulty) {
            let at = self.places.get(&broken.path).copied();
            let at = at.unwrap_or(object.at);
            let message = at_path(&broken.path, &broken.message);
            if broken.evaluated {
                self.error(at, message);
            } else {
                self.findings.push(Finding::note(at, message));
            }
        }
    }

    fn metadata(&mut self, object: &Node, namespaced: bool) {
        let Some(metadata) = object.get("metadata") else {
            return self.error(object.at, "metadata is missing: name the object");
        };
        self.node(metadata, &METADATA, "metadata");
        let name = metadata.get("name");
        if name.is_none() && metadata.get("generateName").is_none() {
            self.error(metadata.at, "metadata.name is missing: name the object");
        }
        if let Some((text, name)) = name.and_then(|name| Some((name.text()?, name)))
            && !is_subdomain(text)
        {
            let message = format!(
                "metadata.name: `{text}` is not a name: write lower-case letters, digits, `-` and `.`"
            );
            self.error(name.at, message);
        }
        if let Some(namespace) = metadata.get("namespace").filter(|_| !namespaced) {
            let message = "metadata.namespace: this kind has no namespace: remove it";
            self.warning(namespace.at, message);
        }
    }

    /// Checks a value by its schema.
    fn node(&mut self, node: &Node, schema: &JSONSchemaProps, path: &str) {
        let before = self.errors;
        self.places.insert(path.to_owned(), node.at);
        self.typed(node, schema, path);
        self.enumerated(node, schema, path);
        if self.errors > before {
            self.faulty.insert(path.to_owned());
        }
    }

    fn typed(&mut self, node: &Node, schema: &JSONSchemaProps, path: &str) {
        let int_or_string = schema.x_kubernetes_int_or_string == Some(true);
        let wanted = match schema.type_.as_deref() {
            _ if int_or_string => "integer or string",
            Some(wanted) => wanted,
            None if schema.pattern.as_deref() == Some(QUANTITY) => "quantity",
            None => return,
        };
        match (wanted, &node.value) {
            (_, Yaml::Null) => self.nothing(node, schema, path),
            ("object", Yaml::Map(_)) => self.map(node, schema, path),
            ("array", Yaml::List(items)) => self.list(node, items, schema, path),
            ("string" | "quantity", Yaml::Text(text)) => self.text(node, text, schema, path),
            ("integer", Yaml::Number(number)) if is_whole(number) => {
                self.number(node, number, schema, path);
            }
            ("number", Yaml::Number(number)) => self.number(node, number, schema, path),
            ("integer or string", Yaml::Number(number)) if is_whole(number) => {}
            ("boolean", Yaml::Bool(_))
            | ("integer or string", Yaml::Text(_))
            | ("quantity", Yaml::Number(_)) => {}
            (wanted, found) => {
                let message = format!("{path}: {}", mismatch(wanted, found));
                self.error(node.at, message);
            }
        }
    }

    /// Checks a list member without a value.
    fn nothing(&mut self, node: &Node, schema: &JSONSchemaProps, path: &str) {
        if schema.nullable != Some(true) {
            let message = format!("{path} has no value: give it one or remove it");
            self.error(node.at, message);
        }
    }

    fn enumerated(&mut self, node: &Node, schema: &JSONSchemaProps, path: &str) {
        let (Some(values), Some(text)) = (&schema.enum_, node.text()) else {
            return;
        };
        let known: Vec<&str> = values.iter().filter_map(|it| it.0.as_str()).collect();
        if !known.contains(&text) {
            let message = format!("{path}: `{text}` is not known: {}", one_of(text, &known));
            self.error(node.at, message);
        }
    }

    fn map(&mut self, node: &Node, schema: &JSONSchemaProps, path: &str) {
        self.count(
            node,
            node.entries().len(),
            (schema.min_properties, schema.max_properties),
            path,
            "entries",
        );
        for entry in node.entries() {
            self.member(entry, schema, path);
        }
        self.required(node, schema, path);
    }

    fn members(&mut self, node: &Node, schema: &JSONSchemaProps, known: &dyn Fn(&str) -> bool) {
        for entry in node.entries().iter().filter(|entry| !known(&entry.key)) {
            self.member(entry, schema, "");
        }
    }

    fn member(&mut self, entry: &Entry, schema: &JSONSchemaProps, path: &str) {
        let below = join(path, &entry.key);
        match (member_of(schema, &entry.key), &schema.additional_properties) {
            (Some(member), _) if entry.value.value == Yaml::Null => {
                // A missing required member is reported separately.
                if !schema.required.iter().flatten().any(|it| *it == entry.key) {
                    self.without_value(entry, member, &below);
                }
            }
            (Some(member), _) => self.node(&entry.value, member, &below),
            (None, Some(JSONSchemaPropsOrBool::Bool(true))) => {}
            (None, _) => self.unknown(entry, schema, &below),
        }
    }

    /// The API server drops a key without a value, except in server-side apply.
    fn without_value(&mut self, entry: &Entry, schema: &JSONSchemaProps, path: &str) {
        if schema.nullable != Some(true) && schema.default.is_none() {
            let message = format!(
                "{path} has no value: it counts as absent, but server-side apply refuses it (also if Helm or a GitOps tool uses it): remove the key"
            );
            self.warning(entry.at, message);
        }
    }

    fn unknown(&mut self, entry: &Entry, schema: &JSONSchemaProps, path: &str) {
        let open = schema.x_kubernetes_preserve_unknown_fields == Some(true);
        let properties = schema.properties.iter().flatten();
        let known: Vec<&str> = properties.map(|(name, _)| name.as_str()).collect();
        if open && known.is_empty() {
            return;
        }
        let meant = nearest(&entry.key, &known)
            .map(|name| format!(": did you mean `{name}`?"))
            .unwrap_or_default();
        if open {
            let message = format!("{path} is not a field that this build knows{meant}");
            self.warning(entry.at, message);
        } else {
            self.error(entry.at, format!("{path} is not a field{meant}"));
        }
    }

    fn required(&mut self, node: &Node, schema: &JSONSchemaProps, path: &str) {
        for name in schema.required.iter().flatten() {
            let filled_in = FILLED_IN.contains(&name.as_str());
            if node.get(name).is_none() && !filled_in {
                self.error(node.at, format!("{} is missing", join(path, name)));
            }
        }
    }

    fn list(&mut self, node: &Node, items: &[Node], schema: &JSONSchemaProps, path: &str) {
        let limits = (schema.min_items, schema.max_items);
        self.count(node, items.len(), limits, path, "members");
        let Some(JSONSchemaPropsOrArray::Schema(member)) = &schema.items else {
            return;
        };
        for (index, item) in items.iter().enumerate() {
            self.node(item, member, &format!("{path}[{index}]"));
        }
        if let Some(keys) = &schema.x_kubernetes_list_map_keys {
            self.repeated_members(items, keys, member, path);
        }
    }

    /// Checks that the keys of list members are unique.
    fn repeated_members(
        &mut self,
        items: &[Node],
        keys: &[String],
        member: &JSONSchemaProps,
        path: &str,
    ) {
        let mut seen = BTreeSet::new();
        for item in items {
            let identity: Vec<String> = keys
                .iter()
                .map(|key| {
                    let value = item.get(key).map(Node::json);
                    let default = || {
                        let property = member.properties.as_ref()?.get(key)?;
                        Some(property.default.as_ref()?.0.clone())
                    };
                    value.or_else(default).unwrap_or(Value::Null).to_string()
                })
                .collect();
            let named = identity.join(" and ");
            if !seen.insert(identity) {
                let keys = keys.join(" and ");
                let message = format!("{path}: two members have the same {keys} {named}");
                self.error(item.at, message);
            }
        }
    }

    fn count(
        &mut self,
        node: &Node,
        count: usize,
        (least, most): (Option<i64>, Option<i64>),
        path: &str,
        what: &str,
    ) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        if let Some(least) = least.filter(|least| count < *least) {
            let message = format!("{path} has {count} {what}: at least {least} must be given");
            self.error(node.at, message);
        }
        if let Some(most) = most.filter(|most| count > *most) {
            let message = format!("{path} has {count} {what}: at most {most} are allowed");
            self.error(node.at, message);
        }
    }

    fn text(&mut self, node: &Node, text: &str, schema: &JSONSchemaProps, path: &str) {
        let length = text.chars().count();
        let limits = (schema.min_length, schema.max_length);
        let before = self.errors;
        self.count(node, length, limits, path, "characters");
        if self.errors > before {
            return;
        }
        let problem = match (schema.format.as_deref(), schema.pattern.as_deref()) {
            (Some("date-time"), _) if text.parse::<Timestamp>().is_err() => {
                "is not a time: write one such as 2026-12-31T18:00:00Z"
            }
            (_, Some(pattern)) => match PATTERNS.iter().find(|known| known.text == pattern) {
                Some(known) if !(known.matches)(text) => known.remedy,
                _ => return,
            },
            _ => return,
        };
        self.error(node.at, format!("{path}: `{text}` {problem}"));
    }

    fn number(&mut self, node: &Node, number: &Number, schema: &JSONSchemaProps, path: &str) {
        let value = number.as_f64().unwrap_or(f64::NAN);
        if let Some(least) = schema.minimum.filter(|least| value < *least) {
            let message = format!("{path}: {number} is too small: the least is {least}");
            self.error(node.at, message);
        }
        let most = match schema.format.as_deref() {
            Some("int32") => Some(f64::from(i32::MAX)),
            _ => None,
        };
        let most = [schema.maximum, most]
            .into_iter()
            .flatten()
            .reduce(f64::min);
        if let Some(most) = most.filter(|most| value > *most) {
            let message = format!("{path}: {number} is too large: the most is {most}");
            self.error(node.at, message);
        }
    }

    fn repeated_keys(&mut self, node: &Node) {
        let mut seen = BTreeMap::new();
        for entry in node.entries() {
            if let Some(first) = seen.insert(entry.key.as_str(), entry.at) {
                let message = format!("key `{}` is in line {} already", entry.key, first.line);
                self.error(entry.at, message);
            }
            self.repeated_keys(&entry.value);
        }
        for item in node.items() {
            self.repeated_keys(item);
        }
    }
}

/// Removes null members, which count as absent: the API server applies no rule to them.
fn remove_nothing(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(remove_nothing);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nothing),
        _ => {}
    }
}

/// A rule's message with its path in front, unless the message begins with it.
fn at_path(path: &str, message: &str) -> String {
    match message.split_once(':') {
        Some((named, rest)) if path.ends_with(named) => format!("{path}:{rest}"),
        _ if message.starts_with("spec.") => message.to_owned(),
        _ => format!("{path}: {message}"),
    }
}

#[cfg(test)]
mod tests;
