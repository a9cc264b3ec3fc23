//! The envelope: its format and signatures.

use base64::alphabet;
use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};
use countersign_api::provenance::TrustedKey;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::provenance::attestation::keys::PublicKey;
use crate::provenance::attestation::problem::{self, MAX_SIGNATURES, PAYLOAD_TYPE, Problem};
use crate::provenance::keys::MAX_ATTESTATION;
use crate::text::excerpt;

/// Signers differ in whether they pad base64.
const PADDED_OR_NOT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
pub(super) const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PADDED_OR_NOT);
pub(super) const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, PADDED_OR_NOT);

/// A DSSE envelope.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Envelope {
    payload_type: String,
    payload: String,
    signatures: Vec<Signature>,
}

/// One signature of an envelope. The key id is an unsigned hint.
#[derive(Serialize, Deserialize)]
struct Signature {
    #[serde(default)]
    keyid: Option<String>,
    sig: String,
}

impl Envelope {
    pub(super) fn read(text: &str) -> Result<Self, Problem> {
        if text.len() > MAX_ATTESTATION {
            let length = text.len();
            return Err(Problem::TooLong { length });
        }
        let no_envelope = |why: &str| Problem::NoEnvelope { why: excerpt(why) };
        let envelope: Self = if text.starts_with('{') {
            serde_json::from_str(text)
        } else {
            let json = decode(text).ok_or_else(|| no_envelope("neither JSON nor base64"))?;
            serde_json::from_slice(&json)
        }
        .map_err(|error| no_envelope(&error.to_string()))?;
        let count = envelope.signatures.len();
        if count > MAX_SIGNATURES {
            return Err(Problem::TooManySignatures { count });
        }
        Ok(envelope)
    }

    /// The payload, if a key of each policy has signed it.
    pub(super) fn payload_signed_by(
        &self,
        keys: &[Vec<TrustedKey>],
        now: Timestamp,
    ) -> Result<Vec<u8>, Problem> {
        if keys.is_empty() {
            return Err(Problem::NoKeys);
        }
        if self.payload_type != PAYLOAD_TYPE {
            return Err(Problem::WrongPayloadType {
                found: excerpt(&self.payload_type),
            });
        }
        let payload = decode(&self.payload).ok_or_else(|| Problem::NoEnvelope {
            why: "its payload is not base64".into(),
        })?;
        let message = pre_authentication_encoding(&self.payload_type, &payload);
        for of_policy in keys {
            self.signed_by_one(of_policy, &message, now)?;
        }
        Ok(payload)
    }

    fn signed_by_one(
        &self,
        keys: &[TrustedKey],
        message: &[u8],
        now: Timestamp,
    ) -> Result<(), Problem> {
        let mut refusal = None;
        for key in keys {
            let Some(public) = PublicKey::read(&key.public_key) else {
                refusal.get_or_insert(Problem::UnreadableKey {
                    key: excerpt(&key.name),
                });
                continue;
            };
            if !self.is_signed_by(&public, message) {
                continue;
            }
            match &key.not_after {
                Some(at) if at.0 <= now => {
                    refusal = Some(Problem::KeyExpired {
                        key: excerpt(&key.name),
                        at: at.0,
                    });
                }
                _ => return Ok(()),
            }
        }
        Err(refusal.unwrap_or_else(|| self.signed_by_none_of(keys)))
    }

    fn is_signed_by(&self, key: &PublicKey, message: &[u8]) -> bool {
        self.signatures
            .iter()
            .filter_map(|signature| decode(&signature.sig))
            .any(|signature| key.has_signed(message, &signature))
    }

    /// A signature without a key id may be by any key, so it is reported as a bad one.
    fn signed_by_none_of(&self, keys: &[TrustedKey]) -> Problem {
        let ids = || {
            self.signatures
                .iter()
                .map(|it| it.keyid.as_deref().unwrap_or_default())
        };
        let names = || keys.iter().map(|key| key.name.as_str());
        if ids().any(|id| id.is_empty() || names().any(|name| name == id)) {
            return Problem::BadSignature {
                keys: problem::listed(names()),
            };
        }
        Problem::UnknownKey {
            found: problem::listed(ids()),
            trusted: problem::listed(names()),
        }
    }
}

/// The signed bytes of the DSSE protocol: type and payload with their lengths, so that neither can be
/// mistaken for a part of the other.
pub(super) fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    );
    [head.as_bytes(), payload].concat()
}

/// Bytes in base64, of either alphabet as the DSSE protocol demands.
fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD
        .decode(text)
        .or_else(|_| URL_SAFE.decode(text))
        .ok()
}
