//! Objects of another controller, and which of their fields were read.
//!
//! A field counts as read only in the type that it must have, so a mistyped field is reported like an unknown one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::time::Duration;

use countersign_core::text::sanitize_to;
use serde_json::{Map, Value};

use crate::manifests::error::MAX_MESSAGE;
use crate::manifests::finding::{Finding, Severity, join};
use crate::manifests::yaml::{Node, Position, Yaml};

/// What was read of an object, and what was found in it.
#[derive(Default)]
struct Record {
    read: RefCell<BTreeSet<String>>,
    findings: RefCell<Vec<Finding>>,
}

/// An object of the files.
pub struct Object<'a> {
    /// The file's name.
    pub file: &'a str,
    /// Whether another object was converted with it.
    pub used: Cell<bool>,
    node: &'a Node,
    record: Record,
}

impl<'a> Object<'a> {
    pub fn new(file: &'a str, node: &'a Node) -> Self {
        Self {
            file,
            used: Cell::new(false),
            node,
            record: Record::default(),
        }
    }

    /// The API group; empty for the core's.
    pub fn group(&self) -> &'a str {
        let version = self.node.get("apiVersion").and_then(Node::text);
        let group = version.and_then(|version| version.split_once('/'));
        group.map_or("", |(group, _)| group)
    }

    pub fn kind(&self) -> &'a str {
        let kind = self.node.get("kind").and_then(Node::text);
        kind.unwrap_or_default()
    }

    pub fn name(&self) -> &'a str {
        let name = self.node.find(&["metadata", "name"]).and_then(Node::text);
        name.unwrap_or_default()
    }

    pub fn namespace(&self) -> Option<&'a str> {
        self.node
            .find(&["metadata", "namespace"])
            .and_then(Node::text)
    }

    pub fn root(&self) -> Field<'_> {
        Field {
            node: self.node,
            path: String::new(),
            record: &self.record,
        }
    }

    /// The findings in the order of their positions.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = self.record.findings.borrow().clone();
        findings.sort_by(|a, b| {
            let (a, b) = (
                (a.at, a.severity, &a.message),
                (b.at, b.severity, &b.message),
            );
            a.cmp(&b)
        });
        // A template is read for each object that uses it.
        findings.dedup();
        findings
    }

    /// Whether something that held promotions has no counterpart.
    pub fn has_losses(&self) -> bool {
        let findings = self.record.findings.borrow();
        findings.iter().any(|it| it.severity == Severity::Error)
    }

    /// Reports every field that was not read.
    pub fn report_unread(&self) {
        let mut unread = Vec::new();
        self.record.unread(self.node, "", &mut unread);
        for (at, path) in unread {
            let finding = if may_hold(&path) {
                let message = format!("{path} is not known here, and may have held promotions");
                Finding::error(at, message)
            } else {
                Finding::warning(at, format!("{path} has no counterpart"))
            };
            self.record.report(finding);
        }
    }
}

/// Whether an unknown field at this path may have held promotions.
fn may_hold(path: &str) -> bool {
    [".steps[", "nalysis", ".metrics[", ".webhooks["]
        .iter()
        .any(|part| path.contains(part))
}

impl Record {
    fn report(&self, finding: Finding) {
        self.findings.borrow_mut().push(finding);
    }

    /// Collects the outermost values of which nothing was read; returns whether anything was.
    fn unread(&self, node: &Node, path: &str, into: &mut Vec<(Position, String)>) -> bool {
        if self.read.borrow().contains(path) {
            return true;
        }
        let children: Vec<_> = match &node.value {
            Yaml::Null => return true,
            Yaml::Map(entries) => {
                let entries = entries.iter();
                let entries = entries.map(|entry| (join(path, &entry.key), &entry.value));
                entries.collect()
            }
            Yaml::List(items) => {
                let items = items.iter().enumerate();
                let items = items.map(|(index, item)| (format!("{path}[{index}]"), item));
                items.collect()
            }
            Yaml::Bool(_) | Yaml::Number(_) | Yaml::Text(_) => Vec::new(),
        };
        let before = into.len();
        let mut is_read = false;
        for (path, child) in children {
            is_read |= self.unread(child, &path, into);
        }
        if !is_read {
            into.truncate(before);
            into.push((node.at, path.to_owned()));
        }
        is_read
    }
}

/// A value of an object, with its path.
#[derive(Clone)]
pub struct Field<'a> {
    node: &'a Node,
    path: String,
    record: &'a Record,
}

impl<'a> Field<'a> {
    /// The value under a key, unless it is null.
    pub fn get(&self, key: &str) -> Option<Self> {
        let node = self.node.get(key)?;
        let field = Self {
            node,
            path: join(&self.path, key),
            record: self.record,
        };
        // Nothing is in it that could be read later.
        let is_empty = match &node.value {
            Yaml::Map(entries) => entries.is_empty(),
            Yaml::List(items) => items.is_empty(),
            _ => false,
        };
        if is_empty {
            field.skip();
        }
        Some(field)
    }

    /// The members of the list under a key.
    pub fn items(&self, key: &str) -> Vec<Self> {
        let list = self.get(key);
        let items = list.iter().flat_map(|list| {
            let indexed = list.node.items().iter().enumerate();
            indexed.map(move |(index, node)| Self {
                node,
                path: format!("{}[{index}]", list.path),
                record: self.record,
            })
        });
        items.collect()
    }

    /// The members of the mapping under a key.
    pub fn entries(&self, key: &str) -> Vec<(&'a str, Self)> {
        let map = self.get(key);
        let entries = map.iter().flat_map(|map| {
            let entries = map.node.entries().iter();
            entries.map(move |entry| {
                let field = Self {
                    node: &entry.value,
                    path: join(&map.path, &entry.key),
                    record: self.record,
                };
                (entry.key.as_str(), field)
            })
        });
        entries.collect()
    }

    /// Reads the text under a key.
    pub fn text(&self, key: &str) -> Option<&'a str> {
        let field = self.get(key)?;
        let text = field.node.text()?;
        field.skip();
        Some(text)
    }

    /// Reads the whole number under a key.
    pub fn int(&self, key: &str) -> Option<i64> {
        let field = self.get(key)?;
        let Yaml::Number(number) = &field.node.value else {
            return None;
        };
        let number = number.as_i64()?;
        field.skip();
        Some(number)
    }

    /// Reads the number of times under a key, which may be in quotes.
    pub fn count(&self, key: &str) -> Option<i64> {
        let in_quotes = || {
            let field = self.get(key)?;
            let count = field.node.text()?.parse::<i64>().ok()?;
            field.skip();
            Some(count)
        };
        self.int(key).or_else(in_quotes)
    }

    /// Reads the number under a key.
    pub fn number(&self, key: &str) -> Option<f64> {
        let field = self.get(key)?;
        let number = field.node.number()?;
        field.skip();
        Some(number)
    }

    /// Reads the truth value under a key.
    pub fn flag(&self, key: &str) -> Option<bool> {
        let field = self.get(key)?;
        let Yaml::Bool(value) = field.node.value else {
            return None;
        };
        field.skip();
        Some(value)
    }

    /// Reads the length of time under a key: a number of seconds, or as in Go.
    pub fn span(&self, key: &str) -> Option<Duration> {
        if let Some(seconds) = self.count(key) {
            return u64::try_from(seconds).ok().map(Duration::from_secs);
        }
        let field = self.get(key)?;
        let span: countersign_api::Duration = field.node.text()?.parse().ok()?;
        field.skip();
        Some(span.std())
    }

    /// Reads all of the value under a key.
    pub fn value(&self, key: &str) -> Option<Value> {
        let field = self.get(key)?;
        field.skip();
        Some(field.node.json())
    }

    /// Counts all of the value as read.
    pub fn skip(&self) {
        self.record.read.borrow_mut().insert(self.path.clone());
    }

    /// Counts the values under some keys as read.
    pub fn skip_all(&self, keys: &[&str]) {
        for field in keys.iter().filter_map(|key| self.get(key)) {
            field.skip();
        }
    }

    /// Reports something that held promotions and has no counterpart.
    pub fn lost(&self, why: &str) {
        self.skip();
        let message = self.message(why);
        self.record.report(Finding::error(self.node.at, message));
    }

    /// Reports a value that is needed and missing.
    pub fn missing(&self, key: &str, why: &str) {
        let path = join(&self.path, key);
        let message = sanitize_to(&format!("{path} is missing: {why}"), MAX_MESSAGE);
        self.record.report(Finding::error(self.node.at, message));
    }

    /// Reports something else that has no counterpart.
    pub fn dropped(&self, why: &str) {
        self.skip();
        let message = self.message(why);
        self.record.report(Finding::warning(self.node.at, message));
    }

    /// Reports the values under some keys as without a counterpart.
    pub fn drop_all(&self, keys: &[&str], why: &str) {
        for field in keys.iter().filter_map(|key| self.get(key)) {
            field.dropped(why);
        }
    }

    /// Reports what a person must decide or check.
    pub fn decide(&self, what: &str) {
        let message = self.message(what);
        self.record.report(Finding::note(self.node.at, message));
    }

    fn message(&self, text: &str) -> String {
        let colon = if self.path.is_empty() { "" } else { ": " };
        sanitize_to(&format!("{}{colon}{text}", self.path), MAX_MESSAGE)
    }
}

/// Fields of the metadata that the API server sets.
const OF_THE_SERVER: [&str; 8] = [
    "creationTimestamp",
    "finalizers",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Prefixes of annotations that another controller or kubectl keeps there.
const OF_CONTROLLERS: [&str; 5] = [
    "argo-rollouts.argoproj.io/",
    "flagger.app/",
    "kubectl.kubernetes.io/",
    "kustomize.toolkit.fluxcd.io/checksum",
    "rollout.argoproj.io/",
];

/// What a person must decide about notifications.
pub const NOTIFY: &str = "set the annotation countersign.dev/notify to channels of `countersign notify` (docs/notifications.md)";

/// Reads the metadata, without what belongs to the live object.
pub fn metadata(root: &Field<'_>) -> Map<String, Value> {
    root.skip_all(&["apiVersion", "kind", "status"]);
    let mut kept = Map::new();
    let Some(metadata) = root.get("metadata") else {
        return kept;
    };
    metadata.skip_all(&OF_THE_SERVER);
    for key in ["name", "namespace", "labels"] {
        kept.extend(metadata.value(key).map(|value| (key.to_owned(), value)));
    }
    let mut annotations = Map::new();
    for (key, annotation) in metadata.entries("annotations") {
        annotation.skip();
        if key.starts_with("notifications.argoproj.io/") {
            annotation.decide(NOTIFY);
        } else if !OF_CONTROLLERS.iter().any(|it| key.starts_with(it)) {
            annotations.insert(key.to_owned(), annotation.node.json());
        }
    }
    if !annotations.is_empty() {
        kept.insert("annotations".into(), annotations.into());
    }
    kept
}
