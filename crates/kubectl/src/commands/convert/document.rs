//! Converted objects, as YAML with comments.

use countersign_core::text::sanitize;
use serde_json::{Map, Value, json};

use crate::output::{self, Format, Unwritable};

/// A converted object.
pub struct Document {
    /// What a person must decide, a line each.
    pub comments: Vec<String>,
    /// The object.
    pub object: Value,
}

impl Document {
    /// The document as YAML, with its comments before it.
    pub fn render(&self) -> Result<String, Unwritable> {
        let comments = self.comments.iter();
        let comments: Vec<_> = comments
            .map(|comment| format!("# {}\n", sanitize(comment)))
            .collect();
        let object = output::document(&self.object, Format::Yaml)?;
        Ok(format!("---\n{}{object}", comments.concat()))
    }
}

/// An object of this API group.
pub fn object(kind: &str, metadata: Map<String, Value>, spec: Map<String, Value>) -> Value {
    foreign_object("countersign.dev/v1alpha1", kind, metadata, spec.into())
}

/// An object of another API group.
pub fn foreign_object(
    api_version: &str,
    kind: &str,
    metadata: Map<String, Value>,
    spec: Value,
) -> Value {
    let members: [(&str, Value); 4] = [
        ("apiVersion", api_version.into()),
        ("kind", kind.into()),
        ("metadata", metadata.into()),
        ("spec", spec),
    ];
    members.into_iter().collect()
}

/// Adds a member if there is one.
pub fn put(object: &mut Map<String, Value>, key: &str, member: Option<impl Into<Value>>) {
    object.extend(member.map(|member| (key.to_owned(), member.into())));
}

/// Sign-offs by one person of any group.
pub fn one_person() -> Value {
    json!([{ "count": 1 }])
}
