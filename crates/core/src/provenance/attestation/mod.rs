//! Provenance that a key signed: an in-toto statement about images, in a DSSE envelope.
//!
//! Owns both halves: [`verify`] reads an envelope in the controller,
//! [`Statement`](crate::provenance::attestation::statement::Statement) creates one in CI. The effect of an
//! attestation is decided in [`Proposal`](super::proposal).
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
pub mod statement;

use std::collections::BTreeMap;

use countersign_api::policy::{Trust, TrustedKey};
use countersign_api::{PROVENANCE_PREFIX, PodTemplate};
use k8s_openapi::jiff::Timestamp;

use crate::policy::Effective;
use crate::provenance::attestation::envelope::Envelope;
use crate::provenance::attestation::problem::Problem;
use crate::provenance::attestation::statement::StatementRead;
use crate::provenance::keys::ANNOTATION;

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

/// The provenance annotations, with their prefix, that an envelope attests of a template.
///
/// The envelope is DSSE's JSON, plain or in base64. Each of `keys` holds one policy's keys, of which one
/// that is not expired must have signed it. `stable` is the template of the stable pods, whose images need
/// no further attestation; without it each image does.
pub fn verify(
    envelope: &str,
    template: &PodTemplate,
    stable: Option<&PodTemplate>,
    keys: &[Vec<TrustedKey>],
    now: Timestamp,
) -> Result<BTreeMap<String, String>, Problem> {
    let payload = Envelope::read(envelope)?.payload_signed_by(keys, now)?;
    let statement = StatementRead::of(&payload)?;
    statement.covers(template, stable)?;
    statement.annotations(now)
}

#[cfg(test)]
mod tests;
