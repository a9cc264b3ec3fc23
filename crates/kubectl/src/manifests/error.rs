//! Why manifests cannot be used.

use std::io::{self};

use crate::manifests::yaml::Position;

/// Longest message, in characters; longer ones are cut.
pub const MAX_MESSAGE: usize = 600;

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("{0} cannot be read: {1}")]
    Unreadable(String, io::Error),
    /// The file is larger than any manifest.
    #[error("{0} has more than 4 MiB: give files of manifests, each with fewer objects")]
    TooLarge(String),
    /// The directory holds no manifests.
    #[error(
        "there is no .yaml, .yml or .json file in {0}: name files, or give -R to process it recursively"
    )]
    Empty(String),
    /// kubectl, which builds kustomizations, is not installed.
    #[error(
        "kubectl, which builds {0}, is not in PATH: install it, or give what kustomize builds by -f -"
    )]
    NoKubectl(String),
    /// A kustomization cannot be built.
    #[error("`kubectl kustomize {directory}` fails: {why}")]
    Kustomize {
        /// Where it is.
        directory: String,
        /// The error message of kubectl.
        why: String,
    },
    /// The file is no text.
    #[error("{0} is not UTF-8 text: give YAML or JSON manifests")]
    NotText(String),
    /// The API server would refuse an object of the file.
    #[error("{file}:{}:{}: {message}{}", at.line, at.column, more(*.others))]
    Invalid {
        /// The file.
        file: String,
        /// Where in the file.
        at: Position,
        /// What is wrong.
        message: String,
        /// How many other faults the object has.
        others: usize,
    },
    /// The files hold no Rollout.
    #[error("there is no Rollout in {0}: give a file with one by -f")]
    NoRollout(String),
    /// The workload that a Rollout adopts is not in the files.
    #[error(
        "Rollout {rollout} adopts Deployment {deployment}, which is not in the files: give its manifest, too"
    )]
    NoWorkload {
        /// The Rollout's name.
        rollout: String,
        /// The Deployment's name.
        deployment: String,
    },
    /// The files of `--stable` do not hold the Rollout.
    #[error("there is no Rollout {0} in the files of --stable: give the deployed manifest")]
    NoStable(String),
}

pub(super) fn more(others: usize) -> String {
    match others {
        0 => String::new(),
        others => format!(" (and {others} more: see `kubectl countersign lint`)"),
    }
}
