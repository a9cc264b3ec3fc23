//! What is wrong with annotations.

use countersign_api::PROVENANCE_PREFIX;

use crate::provenance::attestation::problem;
use crate::provenance::keys::{self, KEYS, MAX_ATTESTATION, MAX_COUNT, MAX_TOTAL, MAX_VALUE};

/// What is wrong with an annotation, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not one of the known words.
    #[error("annotation {PROVENANCE_PREFIX}{key} is `{value}`: write one of {words}")]
    UnknownWord {
        /// The annotation.
        key: &'static str,
        /// Its value, as it can be shown.
        value: String,
        /// The words that are known.
        words: &'static str,
    },
    /// Not a whole number.
    #[error(
        "annotation {PROVENANCE_PREFIX}{key} is `{value}`: write a whole number from 0 to {MAX_COUNT}"
    )]
    NoCount {
        /// The annotation.
        key: &'static str,
        /// Its value, as it can be shown.
        value: String,
    },
    /// Not a percentage.
    #[error(
        "annotation {PROVENANCE_PREFIX}{key} is `{value}`: write a percentage from 0 to 100, without a sign"
    )]
    NoPercentage {
        /// The annotation.
        key: &'static str,
        /// Its value, as it can be shown.
        value: String,
    },
    /// Nothing where something is needed.
    #[error("annotation {PROVENANCE_PREFIX}{key} is empty: give it a value or remove it")]
    Empty {
        /// The annotation.
        key: &'static str,
    },
    /// Characters that nobody can see, which make two names look like one.
    #[error(
        "annotation {PROVENANCE_PREFIX}{key} is `{value}`: remove the control and invisible characters"
    )]
    Invisible {
        /// The annotation.
        key: &'static str,
        /// Its value, as it can be shown.
        value: String,
    },
    /// A value that is too long to be read.
    #[error("annotation {PROVENANCE_PREFIX}{key} has {length} bytes: shorten it to {}", longest(.key))]
    TooLong {
        /// The annotation.
        key: &'static str,
        /// Its length in bytes.
        length: usize,
    },
    /// All annotations together are too long to be read.
    #[error(
        "the annotations {PROVENANCE_PREFIX}* have {length} bytes in all and none is read: shorten them to {MAX_TOTAL}"
    )]
    AllTooLong {
        /// Their length in bytes.
        length: usize,
    },
    /// Two annotations that cannot both be true; neither counts.
    #[error(
        "annotation {PROVENANCE_PREFIX}contributor says {contributor}, but {PROVENANCE_PREFIX}{key} is `{value}`: correct one of them"
    )]
    Contradiction {
        /// What the contributor is said to be.
        contributor: &'static str,
        /// The annotation that contradicts it.
        key: &'static str,
        /// Its value, as it can be shown.
        value: String,
    },
    /// The provenance describes another image than the one that is deployed.
    #[error(
        "annotation {PROVENANCE_PREFIX}image is `{image}`, which no container of the template uses: have the pipeline write the provenance and the image together"
    )]
    OtherImage {
        /// The image that is described, as it can be shown.
        image: String,
    },
    /// Annotations under the prefix that this version does not know; they are not used.
    #[error("ignoring unknown annotations {names} under {PROVENANCE_PREFIX}: known are {}", KEYS.join(", "))]
    UnknownKeys {
        /// Their names, as they can be shown.
        names: String,
    },
    /// Nothing is attested, though something claims to be or has to be.
    #[error("annotation {PROVENANCE_PREFIX}attestation: {0}")]
    Attestation(problem::Problem),
    /// What is attested cannot be read.
    #[error("in the attestation: {0}")]
    Attested(Box<Problem>),
}

/// Longest value of an annotation that is read, in bytes.
pub(super) fn longest(key: &str) -> usize {
    if key == keys::ANNOTATION {
        MAX_ATTESTATION
    } else {
        MAX_VALUE
    }
}
