//! What is found in a manifest, and where.

use serde::Serialize;

use crate::manifests::yaml::{Node, Position};

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

/// Where a key stands, or else its mapping.
pub fn place(node: &Node, key: &str) -> Position {
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
