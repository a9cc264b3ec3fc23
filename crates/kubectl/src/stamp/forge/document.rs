//! Recognises the documents of `--event` by their fields, never by the name of the file.
//!
//! A file holds one JSON value or several, as `gh api --paginate` prints the pages; a list is read item by
//! item, so that pages may also be wrapped in a list (`--slurp`).

use std::collections::BTreeSet;

use serde_json::{Deserializer, Value};

use super::facts::Facts;
use super::problem::{EventError, shown};
use super::shape::Shape;
use super::{github, gitlab};

/// All kinds of documents. The first that fits is taken: GitLab's events name their kind.
pub(super) fn shapes() -> impl Iterator<Item = &'static Shape> {
    gitlab::SHAPES.iter().chain(github::SHAPES)
}

/// Adds the facts of a file.
pub(super) fn read(file: &str, text: &[u8], facts: &mut Facts) -> Result<(), EventError> {
    let mut values = Vec::new();
    for value in Deserializer::from_slice(text).into_iter::<Value>() {
        values.push(value.map_err(|source| EventError::NoJson {
            file: file.to_owned(),
            source,
        })?);
    }
    if values.is_empty() {
        return Err(EventError::NoJson {
            file: file.to_owned(),
            source: serde::de::Error::custom("it is empty"),
        });
    }
    values
        .into_iter()
        .try_for_each(|it| read_value(file, it, facts))
}

fn read_value(file: &str, value: Value, facts: &mut Facts) -> Result<(), EventError> {
    let object = match value {
        Value::Array(items) => {
            let branch: BTreeSet<_> = items.iter().filter_map(github::listed).collect();
            if !branch.is_empty() {
                facts.branches.push(branch);
            }
            return items
                .into_iter()
                .try_for_each(|it| read_value(file, it, facts));
        }
        Value::Object(object) => object,
        other => return Err(unrecognised(file, &format!("none, it is `{other}`"))),
    };
    if let Some(shape) = shapes().find(|shape| (shape.is)(&object)) {
        return (shape.read)(Value::Object(object), facts).map_err(|source| {
            EventError::Malformed {
                file: file.to_owned(),
                what: shape.what,
                source,
            }
        });
    }
    // A client such as `gh api` prints the body of a refusal where the answer would be.
    let refusal = ["message", "error"]
        .into_iter()
        .find_map(|key| object.get(key)?.as_str());
    if let Some(message) = refusal.filter(|_| object.len() < 5) {
        return Err(EventError::Refused {
            file: file.to_owned(),
            message: shown(message),
        });
    }
    let fields: Vec<_> = object.keys().map(String::as_str).collect();
    Err(unrecognised(file, &fields.join(", ")))
}

fn unrecognised(file: &str, fields: &str) -> EventError {
    let known: Vec<_> = shapes().map(|shape| shape.what).collect();
    EventError::Unrecognised {
        file: file.to_owned(),
        fields: shown(fields),
        known: known.join("; "),
    }
}
