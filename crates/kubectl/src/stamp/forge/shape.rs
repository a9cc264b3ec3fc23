//! A kind of document, and how it is recognised.

use serde_json::{Map, Value};

use super::facts::Facts;

/// The fields of a JSON object.
pub(super) type Object = Map<String, Value>;

/// A kind of document.
pub(super) struct Shape {
    /// Its name for people.
    pub what: &'static str,
    /// Whether an object is one, by its fields.
    pub is: fn(&Object) -> bool,
    /// Adds its facts.
    pub read: fn(Value, &mut Facts) -> serde_json::Result<()>,
}

/// Whether an object has all of these fields.
pub(super) fn has(object: &Object, fields: &[&str]) -> bool {
    fields.iter().all(|field| object.contains_key(*field))
}

/// Whether a field is an object with all of these fields.
pub(super) fn has_in(object: &Object, field: &str, fields: &[&str]) -> bool {
    object
        .get(field)
        .and_then(Value::as_object)
        .is_some_and(|inner| has(inner, fields))
}
