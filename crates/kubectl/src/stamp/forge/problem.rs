//! Why a document of `--event` cannot be read.

use countersign_core::text::sanitize_to;
use thiserror::Error;

/// Largest document, in bytes; larger ones are not read.
pub(super) const MAX_BYTES: u64 = 16 << 20;

/// Longest part of a foreign text in a message, in characters.
const EXCERPT: usize = 160;

/// Why a document of `--event` cannot be read.
#[derive(Debug, Error)]
pub enum EventError {
    /// The file.
    #[error("cannot read {file} of --event: {source}")]
    File {
        /// The file.
        file: String,
        /// The cause.
        source: std::io::Error,
    },
    /// Too much of it.
    #[error(
        "{file} of --event has more than {} MiB, so it is not read: pass the answers of the forge one by one",
        MAX_BYTES >> 20
    )]
    TooLarge {
        /// The file.
        file: String,
    },
    /// No JSON.
    #[error(
        "{file} of --event is not JSON: {}: pass the payload or the answer as the forge wrote it",
        shortened(.source)
    )]
    NoJson {
        /// The file.
        file: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The forge refused the request.
    #[error(
        "{file} of --event is a refusal of the forge, `{message}`: correct the request, or the permissions of the token"
    )]
    Refused {
        /// The file.
        file: String,
        /// The forge's message, sanitized.
        message: String,
    },
    /// A document of another shape.
    #[error(
        "{file} of --event is not recognised; its fields are {fields}: pass {known}, or a list of these"
    )]
    Unrecognised {
        /// The file.
        file: String,
        /// The fields, sanitized.
        fields: String,
        /// The recognised documents.
        known: String,
    },
    /// A recognised document with a wrong field.
    #[error(
        "{file} of --event is {what}, but a field of it cannot be read: {}: pass it as the forge wrote it",
        shortened(.source)
    )]
    Malformed {
        /// The file.
        file: String,
        /// The recognised document.
        what: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
}

fn shortened(source: &serde_json::Error) -> String {
    sanitize_to(&source.to_string(), EXCERPT)
}

/// A foreign text for a message.
pub(super) fn shown(text: &str) -> String {
    sanitize_to(text, EXCERPT)
}
