//! Reads fields of an object as written.

use std::collections::BTreeMap;

use countersign_core::analysis::query::form::Field;
use serde::de::DeserializeOwned;

use crate::manifests::finding::Finding;
use crate::manifests::schema;
use crate::manifests::yaml::{Node, Position};

pub(super) fn typed<T: DeserializeOwned>(object: &Node) -> Result<T, Finding> {
    serde_json::from_value(schema::stored(object))
        .map_err(|error| Finding::error(object.at, error.to_string()))
}

pub(super) fn texts(node: Option<&Node>) -> BTreeMap<String, String> {
    let entries = node.into_iter().flat_map(Node::entries);
    entries
        .filter_map(|entry| Some((entry.key.clone(), entry.value.text()?.to_owned())))
        .collect()
}

/// Namespace and name of a Service, with its selector.
pub(super) fn service(object: &Node) -> Option<((Option<&str>, &str), &Node)> {
    let is_service =
        object.get("kind")?.text()? == "Service" && object.get("apiVersion")?.text()? == "v1";
    let metadata = object.get("metadata").filter(|_| is_service)?;
    let name = metadata.get("name")?.text()?;
    let namespace = metadata.get("namespace").and_then(Node::text);
    Some(((namespace, name), object.find(&["spec", "selector"])?))
}

/// Namespace, kind and name of an object.
pub(super) type Key<'a> = (Option<&'a str>, &'a str, &'a str);

pub(super) fn identified(object: &Node) -> Option<(Key<'_>, &Node)> {
    let metadata = object.get("metadata")?;
    let namespace = metadata.get("namespace").and_then(Node::text);
    let (kind, name) = (object.get("kind")?.text()?, metadata.get("name")?.text()?);
    Some(((namespace, kind, name), object))
}

/// A document without a kind is ignored, with a warning.
pub(super) fn nameless(object: &Node) -> Option<Finding> {
    let missing = ["apiVersion", "kind"]
        .into_iter()
        .find(|key| object.get(key).and_then(Node::text).is_none())?;
    let message =
        format!("{missing} is missing: this is not a manifest, and nothing in it is checked");
    Some(Finding::warning(object.at, message))
}

/// The position of a query in its check.
pub(super) fn place(check: &Node, field: Field) -> Position {
    let field = field.to_string();
    let path: Vec<_> = field.split('.').collect();
    check.find(&path).map_or(check.at, |query| query.at)
}
