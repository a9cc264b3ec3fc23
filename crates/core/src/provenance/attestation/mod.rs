//! Provenance that a key signed: an in-toto statement about images, in a DSSE envelope.
//!
//! Owns both halves: [`verify`] reads an envelope as the controller believes it, [`Statement`](crate::provenance::attestation::statement::Statement) makes
//! one as CI signs it. What an attestation then counts for is [`Proposal`](super::proposal)'s business.
//!
//! An attestation speaks of images alone. So every image of the template must be pinned by digest,
//! and each that the stable pods do not run already must be a subject: otherwise the attestation of a
//! harmless sidecar would vouch for the program beside it. What else differs in the template (a
//! command, an environment) the controller sees for itself.
//!
//! Invariant: nothing is believed that every policy's keys did not sign, and no input makes it panic.

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

// --- Reading -------------------------------------------------------------------------------------

/// The envelope among these annotations that is to be verified. `None` where none is carried and
/// none is demanded, or no policy names a key: then it is carried along and not read.
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
/// The envelope is DSSE's JSON, or that in base64. Each of `keys` holds one policy's keys, of which
/// one that is not expired must have signed it. `stable` is the template of the stable pods, whose
/// images need no attestation any more; without it each image does.
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
