//! Problems of annotations.

use countersign_api::PROVENANCE_PREFIX;

use crate::provenance::attestation::problem;
use crate::provenance::keys::{self, KEYS, MAX_ATTESTATION, MAX_COUNT, MAX_TOTAL, MAX_VALUE};

/// A problem of an annotation, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not one of the known values.
    #[error("annotation {PROVENANCE_PREFIX}{key} is `{value}`: write one of {words}")]
    UnknownWord {
        /// The annotation.
        key: &'static str,
        /// Its value, sanitized.
        value: String,
        /// The known values.
        words: &'static str,
    },
    /// Not a whole number.
    #[error(
        "annotation {PROVENANCE_PREFIX}{key} is `{value}`: write a whole number from 0 to {MAX_COUNT}"
    )]
    NoCount {
        /// The annotation.
        key: &'static str,
        /// Its value, sanitized.
        value: String,
    },
    /// Not a percentage.
    #[error(
        "annotation {PROVENANCE_PREFIX}{key} is `{value}`: write a percentage from 0 to 100, without a sign"
    )]
    NoPercentage {
        /// The annotation.
        key: &'static str,
        /// Its value, sanitized.
        value: String,
    },
    /// Not a time.
    #[error(
        "annotation {PROVENANCE_PREFIX}{key} is `{value}`: write a time with its zone, such as 2026-11-24T12:00:00Z"
    )]
    NoTime {
        /// The annotation.
        key: &'static str,
        /// Its value, sanitized.
        value: String,
    },
    /// An empty value.
    #[error("annotation {PROVENANCE_PREFIX}{key} is empty: give it a value or remove it")]
    Empty {
        /// The annotation.
        key: &'static str,
    },
    /// Invisible characters, which make two names look alike.
    #[error(
        "annotation {PROVENANCE_PREFIX}{key} is `{value}`: remove the control and invisible characters"
    )]
    Invisible {
        /// The annotation.
        key: &'static str,
        /// Its value, sanitized.
        value: String,
    },
    /// A value that is too long.
    #[error("annotation {PROVENANCE_PREFIX}{key} has {length} bytes: shorten it to {}", longest(.key))]
    TooLong {
        /// The annotation.
        key: &'static str,
        /// Its length in bytes.
        length: usize,
    },
    /// All annotations together are too long.
    #[error(
        "the annotations {PROVENANCE_PREFIX}* have {length} bytes in all and none is read: shorten them to {MAX_TOTAL}"
    )]
    AllTooLong {
        /// Their length in bytes.
        length: usize,
    },
    /// Two annotations that cannot both be true; neither counts.
    #[error(
        "annotation {PROVENANCE_PREFIX}contributor is `{contributor}`, but {PROVENANCE_PREFIX}{key} is `{value}`: correct one of them"
    )]
    Contradiction {
        /// The declared contributor.
        contributor: &'static str,
        /// The annotation that contradicts it.
        key: &'static str,
        /// Its value, sanitized.
        value: String,
    },
    /// The provenance is about another image than the deployed one.
    #[error(
        "annotation {PROVENANCE_PREFIX}image is `{image}`, which no container of the template uses: have the pipeline write the provenance and the image together"
    )]
    OtherImage {
        /// The described image, sanitized.
        image: String,
    },
    /// The provenance was there before the template.
    #[error(
        "the annotations under {PROVENANCE_PREFIX} are those of an earlier change and say nothing of this one: have the pipeline write them again with each template"
    )]
    EarlierChange,
    /// Unknown annotations under the prefix; they are not used.
    #[error("ignoring unknown annotations {names} under {PROVENANCE_PREFIX}: known are {}", KEYS.join(", "))]
    UnknownKeys {
        /// Their names, sanitized.
        names: String,
    },
    /// No valid attestation, though one is present or demanded.
    #[error("annotation {PROVENANCE_PREFIX}attestation: {0}")]
    Attestation(problem::Problem),
    /// A problem of the attested annotations.
    #[error("in the attestation: {0}")]
    Attested(Box<Problem>),
}

/// Longest value of an annotation, in bytes.
pub(super) fn longest(key: &str) -> usize {
    if key == keys::ANNOTATION {
        MAX_ATTESTATION
    } else {
        MAX_VALUE
    }
}
