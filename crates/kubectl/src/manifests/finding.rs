//! Findings in a manifest, with their positions.

use serde::Serialize;

use crate::manifests::yaml::{Node, Position};

/// The severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The API server refuses the value, or it can never work.
    Error,
    /// The value is accepted, but probably a mistake.
    Warning,
    /// Something could not be checked; the manifest may be correct.
    Note,
}

/// A fault at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The position.
    pub at: Position,
    /// The severity.
    pub severity: Severity,
    /// The fault and its remedy.
    pub message: String,
}

impl Finding {
    /// A finding of severity error.
    pub fn error(at: Position, message: impl Into<String>) -> Self {
        Self {
            at,
            severity: Severity::Error,
            message: message.into(),
        }
    }

    /// A finding of severity warning.
    pub fn warning(at: Position, message: impl Into<String>) -> Self {
        Self {
            at,
            severity: Severity::Warning,
            message: message.into(),
        }
    }

    /// A finding of severity note.
    pub fn note(at: Position, message: impl Into<String>) -> Self {
        Self {
            at,
            severity: Severity::Note,
            message: message.into(),
        }
    }
}

/// The position of a key, or of its mapping if the key is missing.
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
