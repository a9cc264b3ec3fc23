//! Why a statement proves nothing of a change.

use countersign_api::Duration;
use k8s_openapi::jiff::Timestamp;

/// Why a statement that a trusted key signed proves nothing of a change, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// No base is named.
    #[error(
        "it does not name the revision that it counts from, so it may be about a part of the change: have CI sign it with a newer `kubectl countersign stamp`"
    )]
    NoBase,
    /// The source revision of stable is not known.
    #[error(
        "it counts from `{base}`, but which revision stable runs is not known: once this change is promoted, the next attestation is compared with its revision"
    )]
    UnknownStable {
        /// The base, sanitized.
        base: String,
    },
    /// The base is not what stable runs.
    #[error(
        "it counts from `{base}`, but stable runs `{stable}`: stamp with --range {stable}..HEAD"
    )]
    OtherBase {
        /// The base, sanitized.
        base: String,
        /// The source revision of stable, sanitized.
        stable: String,
    },
    /// No time of signing is named.
    #[error(
        "it does not name the time of its signing, and the policies accept an age of {max_age} (provenance.maxAge): have CI sign it with a newer `kubectl countersign stamp`"
    )]
    NoSigningTime {
        /// The largest age.
        max_age: Duration,
    },
    /// It was signed too long before the change began.
    #[error(
        "it was signed at {signed_at}, more than {max_age} before the change began (provenance.maxAge): have CI sign it again"
    )]
    TooOld {
        /// The time of its signing.
        signed_at: Timestamp,
        /// The largest age.
        max_age: Duration,
    },
    /// It is for other Rollouts.
    #[error(
        "it is for {named}, and not for Rollout `{rollout}`: stamp with --attest-rollout {rollout}"
    )]
    OtherRollout {
        /// The Rollouts that it names, sanitized.
        named: String,
        /// This Rollout.
        rollout: String,
    },
    /// No template is named.
    #[error(
        "it names no pod template, and the policies demand one (provenance.covers): stamp the final manifest with --attest-template"
    )]
    NoTemplate,
    /// It is for another template.
    #[error(
        "it is for another pod template than that of the Rollout, which the policies compare (provenance.covers): stamp the final manifest with --attest-template"
    )]
    OtherTemplate,
}
