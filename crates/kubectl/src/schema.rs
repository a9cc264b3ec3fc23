//! What the API server's own validation would say of an object, without an API server.
//!
//! The schemas are those of the custom resource definitions; their CEL rules are in [`super::rules`].
//! Status is left out: the API server drops it from what users apply.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use countersign_api::duration::PATTERN as DURATION;
use countersign_api::pod_template::QUANTITY;
use countersign_api::{GROUP, VERSION};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde_json::{Number, Value, json};

use super::rules;
use super::yaml::{Entry, Node, Position, Yaml};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It is refused, or can never work.
    Error,
    /// It is taken, and probably not meant.
    Warning,
}

/// Something that is wrong at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where it is wrong.
    pub at: Position,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl Finding {
    /// Something that is refused, or can never work.
    pub fn error(at: Position, message: impl Into<String>) -> Self {
        Self {
            at,
            severity: Severity::Error,
            message: message.into(),
        }
    }

    /// Something that is taken, and probably not meant.
    pub fn warning(at: Position, message: impl Into<String>) -> Self {
        Self {
            at,
            severity: Severity::Warning,
            message: message.into(),
        }
    }
}

/// Fields that the API server fills in itself by a mutating admission policy.
const FILLED_IN: [&str; 2] = ["approver", "person"];

/// An object as the API server stores it: fields that are set to nothing are left out, unless their
/// schema takes nothing as a value.
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

/// The schema of a member of an object, if there is one.
fn member_of<'a>(schema: &'a JSONSchemaProps, key: &str) -> Option<&'a JSONSchemaProps> {
    let property = schema.properties.as_ref().and_then(|it| it.get(key));
    property.or(match &schema.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(value)) => Some(value),
        _ => None,
    })
}

struct Kind {
    schema: JSONSchemaProps,
    namespaced: bool,
}

static KINDS: LazyLock<BTreeMap<String, Kind>> = LazyLock::new(|| {
    let kinds = countersign_api::crds().into_iter().filter_map(|crd| {
        let version = crd.spec.versions.into_iter().next()?;
        let mut schema = version.schema?.open_api_v3_schema?;
        complete_smoke_pods(&mut schema);
        let kind = Kind {
            schema,
            namespaced: crd.spec.scope == "Namespaced",
        };
        Some((crd.spec.names.kind, kind))
    });
    kinds.collect()
});

/// Holds the pods of a smoke check to the schema of the workload's: their own is kept brief in the
/// definition, as the API server validates the Job that is made of them.
fn complete_smoke_pods(schema: &mut JSONSchemaProps) -> Option<()> {
    let spec = member(schema, "spec")?;
    let mut pods = member(spec, "template")?.clone();
    let containers = member(member(&mut pods, "spec")?, "containers")?;
    containers.min_items = Some(1);
    if let Some(JSONSchemaPropsOrArray::Schema(container)) = &mut containers.items {
        let required = container.required.get_or_insert_default();
        required.push("image".into());
    }
    let smoke = member(member(member(spec, "strategy")?, "canary")?, "smoke")?;
    *member(smoke, "template")? = pods;
    Some(())
}

fn member<'a>(schema: &'a mut JSONSchemaProps, name: &str) -> Option<&'a mut JSONSchemaProps> {
    schema.properties.as_mut()?.get_mut(name)
}

static METADATA: LazyLock<JSONSchemaProps> = LazyLock::new(|| {
    let texts =
        json!({ "type": "object", "nullable": true, "additionalProperties": { "type": "string" } });
    let labels = json!({
        "type": "object",
        "nullable": true,
        "additionalProperties": { "type": "string", "maxLength": 63 },
    });
    let schema = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "minLength": 1, "maxLength": 253 },
            "generateName": { "type": "string", "minLength": 1, "maxLength": 253 },
            "namespace": { "type": "string", "minLength": 1, "maxLength": 63 },
            "labels": labels,
            "annotations": texts,
            "uid": { "type": "string" },
            "resourceVersion": { "type": "string" },
            "generation": { "type": "integer" },
            "creationTimestamp": { "type": "string", "nullable": true },
            "selfLink": { "type": "string" },
            "finalizers": { "type": "array", "nullable": true, "items": { "type": "string" } },
            "ownerReferences": { "type": "array", "x-kubernetes-preserve-unknown-fields": true },
            "managedFields": { "type": "array", "x-kubernetes-preserve-unknown-fields": true },
        },
    });
    serde_json::from_value(schema).unwrap_or_default()
});

/// The kind of an object of this API group, whatever its version.
#[must_use]
pub fn kind(object: &Node) -> Option<&str> {
    let version = object.get("apiVersion")?.text()?;
    let ours = version
        .split_once('/')
        .is_some_and(|(group, _)| group == GROUP);
    object.get("kind")?.text().filter(|_| ours)
}

/// What is wrong with an object of this API group by its schema, in order of place.
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
                "metadata.name: `{text}` is no name: write lower-case letters, digits, `-` and `.`"
            );
            self.error(name.at, message);
        }
        if let Some(namespace) = metadata.get("namespace").filter(|_| !namespaced) {
            let message = "metadata.namespace: this kind has no namespace: remove it";
            self.warning(namespace.at, message);
        }
    }

    /// A value beside its schema. Its CEL rules are asked only if the rest holds, as the API server
    /// does it.
    fn node(&mut self, node: &Node, schema: &JSONSchemaProps, path: &str) {
        let before = self.errors;
        self.typed(node, schema, path);
        self.enumerated(node, schema, path);
        if self.errors > before {
            return;
        }
        for rule in schema.x_kubernetes_validations.iter().flatten() {
            let message = rule.message.as_deref().unwrap_or(&rule.rule);
            if let Some(holds) = rules::rule(message)
                && !holds(node)
            {
                self.error(node.at, at_path(path, message));
            }
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

    /// A member of a list without a value.
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
                // What is required is missing, which is said by itself.
                if !schema.required.iter().flatten().any(|it| *it == entry.key) {
                    self.without_value(entry, member, &below);
                }
            }
            (Some(member), _) => self.node(&entry.value, member, &below),
            (None, Some(JSONSchemaPropsOrBool::Bool(true))) => {}
            (None, _) => self.unknown(entry, schema, &below),
        }
    }

    /// The API server drops a key without a value, as if it were not there, unless it is applied by
    /// server-side apply.
    fn without_value(&mut self, entry: &Entry, schema: &JSONSchemaProps, path: &str) {
        if schema.nullable != Some(true) && schema.default.is_none() {
            let message = format!(
                "{path} has no value: it counts as absent, but server-side apply refuses it (also where Helm or a GitOps tool uses it): remove the key"
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
            let message = format!("{path} is no field that this build knows{meant}");
            self.warning(entry.at, message);
        } else {
            self.error(entry.at, format!("{path} is no field{meant}"));
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

    /// Members of a list whose keys must tell them apart.
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
                "is no time: write one such as 2026-12-31T18:00:00Z"
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

/// Where a key stands, or else its mapping.
fn place(node: &Node, key: &str) -> Position {
    node.get(key).map_or(node.at, |value| value.at)
}

/// The path of a member.
#[must_use]
pub fn join(path: &str, key: &str) -> String {
    match (path, key.contains(['.', '/'])) {
        ("", _) => key.to_owned(),
        (path, true) => format!("{path}[{key}]"),
        (path, false) => format!("{path}.{key}"),
    }
}

/// A rule's message after the path of what it is about, which some messages name themselves.
fn at_path(path: &str, message: &str) -> String {
    match message.split_once(':') {
        Some((named, rest)) if path.ends_with(named) => format!("{path}:{rest}"),
        _ if message.starts_with("spec.") => message.to_owned(),
        _ => format!("{path}: {message}"),
    }
}

fn is_whole(number: &Number) -> bool {
    number.as_f64().is_some_and(|value| value.fract() == 0.0)
}

fn mismatch(wanted: &str, found: &Yaml) -> String {
    let article = |kind: &str| match kind {
        "object" => "a mapping".to_owned(),
        "array" => "a list".to_owned(),
        "integer" => "a whole number".to_owned(),
        "integer or string" => "a whole number or a text".to_owned(),
        "string" => "a text".to_owned(),
        "quantity" => "a quantity such as 0.5, 500m or 1Gi".to_owned(),
        "boolean" => "true or false".to_owned(),
        other => format!("a {other}"),
    };
    let (found, is_word) = match found {
        Yaml::Null => ("nothing".to_owned(), false),
        Yaml::Bool(value) => (value.to_string(), true),
        Yaml::Number(number) => (number.to_string(), true),
        Yaml::Text(text) => (format!("`{text}`"), false),
        Yaml::List(_) => ("a list".to_owned(), false),
        Yaml::Map(_) => ("a mapping".to_owned(), false),
    };
    let remedy = if wanted == "string" && is_word {
        ": write it in quotes"
    } else {
        ""
    };
    format!("{found} is not {}{remedy}", article(wanted))
}

fn one_of(found: &str, known: &[&str]) -> String {
    match nearest(found, known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("write one of {}", known.join(", ")),
    }
}

/// The known word that differs by a slip of the hand.
fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    const SLIPS: usize = 2;
    if word.len() > 64 {
        return None;
    }
    let distances = known.iter().map(|it| (distance(word, it), *it));
    let (slips, nearest) = distances.min()?;
    (slips <= SLIPS && slips < word.chars().count()).then_some(nearest)
}

/// Number of letters to insert, remove or replace, capital ones or not.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_lowercase(), b.to_lowercase());
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (line, x) in a.chars().enumerate() {
        let mut next = vec![line + 1];
        for ((y, above_left), above) in b.chars().zip(&row).zip(row.iter().skip(1)) {
            let left = next.last().copied().unwrap_or_default();
            let replaced = above_left + usize::from(x != y);
            next.push(replaced.min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

/// A pattern of the schemas as a function.
struct Pattern {
    text: &'static str,
    matches: fn(&str) -> bool,
    remedy: &'static str,
}

/// All patterns of the schemas; a test proves that there are no others.
const PATTERNS: [Pattern; 5] = [
    Pattern {
        text: QUANTITY,
        matches: is_quantity,
        remedy: "is no quantity: write a number with at most one suffix, such as 500m, 0.5 or 1Gi",
    },
    Pattern {
        text: DURATION,
        matches: is_duration,
        remedy: "is no duration: write hours, minutes and seconds such as 90s, 5m or 1h30m",
    },
    Pattern {
        text: "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        matches: is_label,
        remedy: "is no name: write lower-case letters, digits and `-`",
    },
    Pattern {
        text: r"^[A-Za-z0-9!#$%&'*+\-.^_|~]+$",
        matches: |text| is_made_of(text, "!#$%&'*+-.^_|~"),
        remedy: "is no name of a header",
    },
    Pattern {
        text: "^[A-Za-z0-9_-]+$",
        matches: |text| is_made_of(text, "_-"),
        remedy: "is not made of letters, digits, `_` and `-` alone",
    },
];

fn is_made_of(text: &str, signs: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || signs.contains(c);
    !text.is_empty() && text.chars().all(known)
}

fn is_duration(text: &str) -> bool {
    let mut rest = text;
    for unit in ["h", "m", "s", "ms"] {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let Some((number, after)) = rest.split_at_checked(digits) else {
            return false;
        };
        let follows = after.strip_prefix(unit).filter(|after| {
            // `5ms` is no minutes.
            unit != "m" || !after.starts_with('s')
        });
        if let Some(after) = follows.filter(|_| (1..=5).contains(&number.len())) {
            rest = after;
        }
    }
    rest.is_empty()
}

/// Whether a text is a quantity as Kubernetes reads it.
#[must_use]
pub fn is_quantity(text: &str) -> bool {
    let unsigned = |text: &'_ str| text.strip_prefix(['+', '-']).unwrap_or(text).to_owned();
    let amount = unsigned(text);
    let end = amount.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (amount, suffix) = amount.split_at(end.unwrap_or(amount.len()));
    let is_number =
        amount.matches('.').count() <= 1 && amount.contains(|c: char| c.is_ascii_digit());
    let is_suffix = match suffix.strip_prefix(['e', 'E']).map(unsigned) {
        Some(exponent) if !exponent.is_empty() && exponent != "i" => {
            exponent.bytes().all(|it| it.is_ascii_digit())
        }
        _ => {
            let unit = suffix.strip_suffix('i').unwrap_or(suffix);
            let known = if unit == suffix {
                "numkMGTPE"
            } else {
                "KMGTPE"
            };
            suffix.is_empty() || (unit.len() == 1 && known.contains(unit))
        }
    };
    is_number && is_suffix
}

/// Whether a text is made of lower-case letters, digits and `-`, with no `-` at its ends.
#[must_use]
pub fn is_label(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(letter)
        && text.ends_with(letter)
        && text.chars().all(|c| letter(c) || c == '-')
}

/// Whether a text is made of such labels with `.` between them.
#[must_use]
pub fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::documents;

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
        use Severity::{Error, Warning};
        for (lines, severity, message) in [
            (
                "  replica: 3\n",
                Error,
                "spec.replica is no field: did you mean `replicas`?",
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
                "spec.strategy.canary.steps[0].bake: `5 m` is no duration: write hours, minutes and seconds such as 90s, 5m or 1h30m",
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
                "spec.strategy.canary.analysis.checks[0].name: `A_` is no name: write lower-case letters, digits and `-`",
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
                "spec.template.spec.containers[0].resources.limits.cpu: `half` is no quantity: write a number with at most one suffix, such as 500m, 0.5 or 1Gi",
            ),
            (
                "          resources: { limits: { cpu: true } }\n",
                Error,
                "spec.template.spec.containers[0].resources.limits.cpu: true is not a quantity such as 0.5, 500m or 1Gi",
            ),
            (
                "          imagePullPolicyy: Always\n",
                Warning,
                "spec.template.spec.containers[0].imagePullPolicyy is no field that this build knows: did you mean `imagePullPolicy`?",
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
            "1", "0.5", ".5", "5.", "+1", "-1", "500m", "1Gi", "1.5Gi", "1e3", "1E-3", "1E",
            "100k", "5u", "7n", "2Ei",
        ] {
            assert!(is_quantity(good), "{good}");
        }
        for bad in [
            "", ".", "Gi", "1 Gi", "1gi", "1K", "1mi", "1e", "1ee3", "1.2.3", "half", "1Gib",
            "0x10", "--1",
        ] {
            assert!(!is_quantity(bad), "{bad}");
        }
    }

    #[test]
    fn a_rule_is_told_with_the_path_of_what_breaks_it() {
        for (path, message, told) in [
            (
                "spec.a.steps",
                "steps: must rise",
                "spec.a.steps: must rise",
            ),
            ("spec", "spec.x must be y", "spec.x must be y"),
            ("spec.a", "must be y", "spec.a: must be y"),
        ] {
            assert_eq!(at_path(path, message), told);
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
                    "metadata.name: `Web` is no name: write lower-case letters, digits, `-` and `.`"
                ),
                (
                    5,
                    "metadata.namespace: this kind has no namespace: remove it"
                ),
                (6, "metadata.labels.a: 1 is not a text: write it in quotes"),
                (
                    7,
                    "metadata.annotation is no field: did you mean `annotations`?"
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
                "spec.until: `tomorrow` is no time: write one such as 2026-12-31T18:00:00Z".into()
            )]
        );
        assert_eq!(
            checked(&freeze.replace("tomorrow", "2026-12-31T18:00:00Z")),
            []
        );
    }

    #[test]
    fn every_word_that_the_schemas_use_is_checked_here() {
        const KNOWN: [&str; 24] = [
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
}
