//! The supported annotations, and their largest lengths.

/// The key, without prefix, of the annotation that holds an envelope.
pub const ANNOTATION: &str = "attestation";

/// The supported annotations, without their prefix.
pub const KEYS: [&str; 19] = [
    "agents",
    "ai-share",
    "approved-revision",
    "attestation",
    "authors",
    "committed-at",
    "contributor",
    "files-changed",
    "human-operator",
    "image",
    "lines-added",
    "lines-deleted",
    "repository",
    "review-source",
    "reviewers",
    "revision",
    "subsystems",
    "tests",
    "touches",
];

/// Annotations that only describe what the others are about, or where they are from: alone they declare no
/// provenance.
pub(super) const SUBJECT_KEYS: [&str; 6] = [
    "attestation",
    "committed-at",
    "image",
    "repository",
    "review-source",
    "revision",
];

/// Longest value of one annotation, in bytes; longer ones are not read.
pub const MAX_VALUE: usize = 4 * 1024;
/// Longest attestation, in bytes; longer ones are not read.
pub const MAX_ATTESTATION: usize = 32 * 1024;
/// Longest sum of all provenance annotations, in bytes; more are not read.
pub const MAX_TOTAL: usize = 64 * 1024;
/// Largest value of a count.
pub(super) const MAX_COUNT: u32 = 1_000_000_000;
/// Most problems that a RolloutRun records.
pub(super) const MAX_PROBLEMS: usize = 32;
