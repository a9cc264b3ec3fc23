//! The annotations that are read, and how long they may be.

/// The key, without prefix, of the annotation that holds an envelope.
pub const ANNOTATION: &str = "attestation";

/// The annotations that are read, without their prefix.
pub const KEYS: [&str; 17] = [
    "agents",
    "ai-share",
    "approved-revision",
    "attestation",
    "authors",
    "contributor",
    "files-changed",
    "human-operator",
    "image",
    "lines-added",
    "lines-deleted",
    "repository",
    "reviewers",
    "revision",
    "subsystems",
    "tests",
    "touches",
];

/// The annotations that say only what the others speak of: alone they declare no provenance.
pub(super) const SUBJECT_KEYS: [&str; 4] = ["attestation", "image", "repository", "revision"];

/// Longest value of one annotation that is read, in bytes.
pub const MAX_VALUE: usize = 4 * 1024;
/// Longest attestation that is read, in bytes.
pub const MAX_ATTESTATION: usize = 32 * 1024;
/// Longest sum of all provenance annotations that is read, in bytes.
pub const MAX_TOTAL: usize = 64 * 1024;
/// Greatest number that a count can be.
pub(super) const MAX_COUNT: u32 = 1_000_000_000;
/// Most problems that a RolloutRun records.
pub(super) const MAX_PROBLEMS: usize = 32;
