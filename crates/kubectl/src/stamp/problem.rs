//! Why a stamp failed.

use std::path::Path;

use countersign_core::provenance::attestation::problem::SigningError;
use countersign_core::provenance::problem::Problem;
use countersign_core::text::sanitize_lines;
use thiserror::Error;

use super::forge::EventError;
use super::git::GitError;
use super::manifest::ManifestError;
use super::signatures::Unsigned;

/// Why a stamp failed.
#[derive(Debug, Error)]
pub enum StampError {
    /// The commits.
    #[error(transparent)]
    Git(#[from] GitError),
    /// A file of `--event`.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The rules.
    #[error("{file} is wrong: {problem}")]
    Config {
        /// The file, and the revision it is from.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// A file.
    #[error("cannot {verb} {file}: {source}")]
    File {
        /// The failed operation.
        verb: &'static str,
        /// The file.
        file: String,
        /// The cause.
        source: std::io::Error,
    },
    /// A manifest.
    #[error("cannot stamp {file}: {source}")]
    Manifest {
        /// The manifest.
        file: String,
        /// Why.
        source: ManifestError,
    },
    /// No Rollout to stamp.
    #[error(
        "no Rollout of {group}{named} is in {files}: correct -f or --rollout",
        group = countersign_api::GROUP
    )]
    NoRollout {
        /// The requested name, as a part of the message.
        named: String,
        /// The manifests.
        files: String,
    },
    /// The attestation.
    #[error("cannot attest with {file}: {source}")]
    Signing {
        /// The key's file.
        file: String,
        /// Why.
        source: SigningError,
    },
    /// Commits that nobody signed.
    #[error(transparent)]
    Unsigned(#[from] Unsigned),
    /// The controller would not know who made the change.
    #[error(
        "the controller would not read who made the change, so nothing is stamped: {0}: stamp a range with fewer authors"
    )]
    People(Problem),
    /// An option with a wrong value.
    #[error("{option} is `{value}`: {remedy}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
        /// What to write.
        remedy: &'static str,
    },
}

impl StampError {
    /// A file that cannot be read or written.
    pub(super) fn file(verb: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::File {
            verb,
            file: shown_path(path),
            source,
        }
    }
}

/// A path for people.
pub(super) fn shown_path(path: &Path) -> String {
    sanitize_lines(&path.to_string_lossy())
}
