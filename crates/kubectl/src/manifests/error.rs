//! Why manifests cannot be used.

use std::io::{self};

use crate::manifests::yaml::Position;

/// Most characters of one message that are shown.
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
    /// The directory holds nothing to read.
    #[error(
        "there is no .yaml, .yml or .json file in {0}: name files, or give -R to read its folders too"
    )]
    Empty(String),
    /// The program that builds a kustomization is not there.
    #[error(
        "kubectl, which builds {0}, is not in PATH: install it, or give what kustomize builds by -f -"
    )]
    NoKubectl(String),
    /// A kustomization cannot be built.
    #[error("`kubectl kustomize {directory}` fails: {why}")]
    Kustomize {
        /// Where it is.
        directory: String,
        /// What kubectl says.
        why: String,
    },
    /// The file is no text.
    #[error("{0} is no UTF-8 text: give YAML or JSON manifests")]
    NotText(String),
    /// An object in it is not what the API server would take.
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
    /// There is nothing to look at.
    #[error("there is no Rollout in {0}: give a file with one by -f")]
    NoRollout(String),
    /// The workload that a Rollout adopts is not there.
    #[error(
        "Rollout {rollout} adopts Deployment {deployment}, which is not in the files: give its manifest, too"
    )]
    NoWorkload {
        /// The Rollout's name.
        rollout: String,
        /// The Deployment's name.
        deployment: String,
    },
    /// The file that should say what serves does not.
    #[error("there is no Rollout {0} in the files of --stable: give the manifest that serves now")]
    NoStable(String),
}

pub(super) fn more(others: usize) -> String {
    match others {
        0 => String::new(),
        others => format!(" (and {others} more: see `kubectl countersign lint`)"),
    }
}
