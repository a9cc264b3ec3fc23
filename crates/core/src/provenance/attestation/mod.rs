//! Provenance that a key signed: an in-toto statement about images, in a DSSE envelope.
//!
//! Owns both halves: [`verify`] reads an envelope in the controller,
//! [`Statement`](crate::provenance::attestation::statement::Statement) creates one in CI. The effect of an
//! attestation is decided in [`Proposal`](super::proposal).
//! Whether it proves the provenance of one change, or counts as declared: `proof.rs`.
//!
//! An attestation is about images alone. So every image of the template must be pinned by digest, and each
//! that the stable pods do not run already must be a subject: otherwise the attestation of a harmless
//! sidecar would vouch for the program beside it. Other differences in the template (a command, an
//! environment) are observed by the controller itself.
//!
//! Invariant: a statement counts only if a key of every policy signed it, and no input causes a panic.

pub mod envelope;
pub mod keys;
pub mod problem;
pub mod proof;
pub mod statement;
pub mod unproven;

use std::collections::BTreeMap;

use countersign_api::PROVENANCE_PREFIX;
use countersign_api::provenance::{Trust, TrustedKey};
use k8s_openapi::jiff::Timestamp;

use crate::pattern::{Pattern, Patterns};
use crate::policy::Effective;
use crate::provenance::attestation::envelope::Envelope;
use crate::provenance::attestation::problem::Problem;
use crate::provenance::attestation::proof::Subject;
use crate::provenance::attestation::statement::StatementRead;
use crate::provenance::attestation::unproven::Unproven;
use crate::provenance::keys::ANNOTATION;
use crate::text::excerpt;

/// What a statement that trusted keys signed attests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The provenance annotations, with their prefix.
    pub annotations: BTreeMap<String, String>,
    /// Why it proves nothing of the change, so that it counts as declared; `None` if it proves them.
    pub unproven: Option<Unproven>,
}

/// The envelope in these annotations that must be verified. `None` if none is present and none is demanded,
/// or no policy names a key: then it is not read.
pub fn due<'a>(
    annotations: &'a BTreeMap<String, String>,
    effective: &Effective,
) -> Result<Option<&'a str>, Problem> {
    let envelope = annotations
        .get(&format!("{PROVENANCE_PREFIX}{ANNOTATION}"))
        .map(|envelope| envelope.trim());
    match (envelope, effective.trust, effective.keys.is_empty()) {
        (_, Trust::Attested, true) => Err(Problem::NoKeys),
        (None, Trust::Attested, false) => Err(Problem::Missing),
        (_, Trust::Declared, true) => Ok(None),
        (envelope, _, false) => Ok(envelope),
    }
}

/// What an envelope attests of a change.
///
/// The envelope is DSSE's JSON, plain or in base64. Of each policy that names keys, one that is not expired and
/// is trusted for the repository must have signed it.
pub fn verify(
    envelope: &str,
    subject: &Subject<'_>,
    effective: &Effective,
    now: Timestamp,
) -> Result<Verified, Problem> {
    let envelope = Envelope::read(envelope)?;
    let payload = envelope.payload_signed_by(&effective.keys, now)?;
    let statement = StatementRead::of(&payload)?;
    statement.covers(subject.template, subject.stable)?;
    let predicate = statement.predicate(now)?;
    let repository = predicate.repository();
    let trusted = trusted_for(repository, &effective.keys);
    if trusted != effective.keys && envelope.payload_signed_by(&trusted, now).is_err() {
        let repository = repository.map(excerpt);
        return Err(Problem::OtherRepository { repository });
    }
    let unproven = proof::unproven(&predicate, subject, effective);
    Ok(Verified {
        annotations: predicate.prefixed(),
        unproven,
    })
}

/// The keys of each policy that are trusted for a repository.
fn trusted_for(repository: Option<&str>, keys: &[Vec<TrustedKey>]) -> Vec<Vec<TrustedKey>> {
    let trusted = keys.iter().map(|of_policy| {
        let keys = of_policy.iter();
        keys.filter(|key| is_trusted_for(repository, key))
            .cloned()
            .collect()
    });
    trusted.collect()
}

/// A pattern that means nothing matches nothing.
fn is_trusted_for(repository: Option<&str>, key: &TrustedKey) -> bool {
    let patterns = key.repositories.iter();
    let patterns = patterns.filter_map(|it| Pattern::try_from(it.clone()).ok());
    let patterns: Vec<_> = patterns.collect();
    key.repositories.is_empty()
        || repository.is_some_and(|it| {
            Patterns::new(&patterns, false).is_ok_and(|patterns| patterns.matches(it))
        })
}

#[cfg(test)]
mod tests;
