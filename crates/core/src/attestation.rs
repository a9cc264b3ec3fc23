//! Provenance that a key signed: an in-toto statement about images, in a DSSE envelope.
//!
//! Owns both halves: [`verify`] reads an envelope as the controller believes it, [`Statement`] makes
//! one as CI signs it. What an attestation then counts for is [`Proposal`](super::proposal)'s business.
//!
//! An attestation speaks of images alone. So every image of the template must be pinned by digest,
//! and each that the stable pods do not run already must be a subject: otherwise the attestation of a
//! harmless sidecar would vouch for the program beside it. What else differs in the template (a
//! command, an environment) the controller sees for itself.
//!
//! Invariant: nothing is believed that every policy's keys did not sign, and no input makes it panic.

use std::collections::{BTreeMap, BTreeSet};

use base64::alphabet;
use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};
use countersign_api::policy::{Trust, TrustedKey};
use countersign_api::{PROVENANCE_PREFIX, PodTemplate};
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey};
use ed25519_dalek::{Signer, Verifier};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::policy::Effective;
use super::provenance::{MAX_ATTESTATION, shown};

/// The key, without prefix, of the annotation that holds an envelope.
pub const ANNOTATION: &str = "attestation";
/// What an envelope must hold: an in-toto statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// The version of in-toto statements that is read.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// What a statement must say of its subjects: provenance annotations.
pub const PREDICATE_TYPE: &str = "https://countersign.dev/provenance/v1";

/// Most signatures of one envelope: each is tried with each key.
const MAX_SIGNATURES: usize = 8;
/// Most names that a message lists.
const MAX_LISTED: usize = 4;

/// Signers differ in whether they pad base64.
const PADDED_OR_NOT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PADDED_OR_NOT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, PADDED_OR_NOT);

/// Why nothing is attested, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Provenance must be attested, and is not.
    #[error(
        "it is not there, but the policies believe only what a trusted key has signed: have CI add it with `kubectl countersign stamp --sign`"
    )]
    Missing,
    /// Provenance must be attested, and no key could do it.
    #[error(
        "the policies believe only what a trusted key has signed, but name no key: add one to provenance.keys of a RolloutPolicy"
    )]
    NoKeys,
    /// Too long to be read.
    #[error("it has {length} bytes: shorten it to {MAX_ATTESTATION}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// Not an envelope.
    #[error(
        "it is no DSSE envelope ({why}): write the envelope's JSON in base64 as `kubectl countersign stamp --sign` does"
    )]
    NoEnvelope {
        /// What is wrong with it, as it can be shown.
        why: String,
    },
    /// More signatures than are tried.
    #[error("its envelope has {count} signatures: at most {MAX_SIGNATURES} are read")]
    TooManySignatures {
        /// How many there are.
        count: usize,
    },
    /// The envelope holds something else than a statement.
    #[error("its payload type is `{found}`: it must be {PAYLOAD_TYPE}")]
    WrongPayloadType {
        /// The payload type, as it can be shown.
        found: String,
    },
    /// A policy's key is none.
    #[error(
        "key `{key}` of a RolloutPolicy is no public key that can be used: write an ECDSA P-256 or Ed25519 key in PEM"
    )]
    UnreadableKey {
        /// The key's name, as it can be shown.
        key: String,
    },
    /// Signed by a key that is no longer believed.
    #[error("it is signed by key `{key}`, which expired at {at}: have CI sign with a newer key")]
    KeyExpired {
        /// The key's name, as it can be shown.
        key: String,
        /// From when on it is believed no more.
        at: Timestamp,
    },
    /// A signature that says it is by a trusted key, and is not.
    #[error(
        "none of its signatures is valid for key {keys}: its content was changed after signing, or another key signed it"
    )]
    BadSignature {
        /// The keys' names, as they can be shown.
        keys: String,
    },
    /// Signed by nobody whom a policy trusts.
    #[error("it is signed by {found}, but a RolloutPolicy trusts only {trusted}")]
    UnknownKey {
        /// The key ids in the envelope, as they can be shown.
        found: String,
        /// The keys' names, as they can be shown.
        trusted: String,
    },
    /// What was signed cannot be read.
    #[error("its payload is no in-toto statement {STATEMENT_TYPE} ({why})")]
    NoStatement {
        /// What is wrong with it, as it can be shown.
        why: String,
    },
    /// A statement of something else than provenance.
    #[error("its predicate type is `{found}`: it must be {PREDICATE_TYPE}")]
    UnknownPredicate {
        /// The predicate type, as it can be shown.
        found: String,
    },
    /// What was signed says that it is no longer true.
    #[error("it expired at {at}: have CI sign it anew")]
    StatementExpired {
        /// From when on it is believed no more.
        at: Timestamp,
    },
    /// An image that could be any.
    #[error(
        "image `{image}` is not named by a digest, so nobody can tell what it is: pin it as name@sha256:…"
    )]
    NoDigest {
        /// The image reference, as it can be shown.
        image: String,
    },
    /// An image of which the statement says nothing.
    #[error(
        "it is about {subjects}, but the template uses `{image}` with {digest}: have CI attest the images that are deployed"
    )]
    WrongDigest {
        /// The image's name, as it can be shown.
        image: String,
        /// The beginning of its digest.
        digest: String,
        /// The beginnings of the digests that the statement is about.
        subjects: String,
    },
}

/// Why a statement cannot be made or signed, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// No image is named.
    #[error("no image is named: an attestation is about images, each as name@sha256:…")]
    NoImage,
    /// An image that could be any.
    #[error("image `{image}` is not named by a digest: write it as name@sha256:…")]
    NoDigest {
        /// The image reference, as it can be shown.
        image: String,
    },
    /// Not a private key that can sign.
    #[error(
        "this is no private key that can sign: write an unencrypted ECDSA P-256 or Ed25519 key in PKCS#8 PEM (`openssl pkcs8 -topk8 -nocrypt` makes one of an older form)"
    )]
    UnreadableKey,
    /// An envelope that the controller would not read.
    #[error(
        "the signed envelope has {length} bytes and the controller reads {MAX_ATTESTATION}: attest fewer or shorter annotations"
    )]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
}

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

/// A DSSE envelope.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload_type: String,
    payload: String,
    signatures: Vec<Signature>,
}

/// One signature of an envelope. The key id is a hint that nobody signed.
#[derive(Serialize, Deserialize)]
struct Signature {
    #[serde(default)]
    keyid: Option<String>,
    sig: String,
}

impl Envelope {
    fn read(text: &str) -> Result<Self, Problem> {
        if text.len() > MAX_ATTESTATION {
            let length = text.len();
            return Err(Problem::TooLong { length });
        }
        let no_envelope = |why: &str| Problem::NoEnvelope { why: shown(why) };
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

    /// The payload, once a key of each policy is found to have signed it.
    fn payload_signed_by(
        &self,
        keys: &[Vec<TrustedKey>],
        now: Timestamp,
    ) -> Result<Vec<u8>, Problem> {
        if keys.is_empty() {
            return Err(Problem::NoKeys);
        }
        if self.payload_type != PAYLOAD_TYPE {
            return Err(Problem::WrongPayloadType {
                found: shown(&self.payload_type),
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
                    key: shown(&key.name),
                });
                continue;
            };
            if !self.is_signed_by(&public, message) {
                continue;
            }
            match &key.not_after {
                Some(at) if at.0 <= now => {
                    refusal = Some(Problem::KeyExpired {
                        key: shown(&key.name),
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

    /// A signature without a key id may be by any key, so it is taken to be a bad one.
    fn signed_by_none_of(&self, keys: &[TrustedKey]) -> Problem {
        let ids = || {
            self.signatures
                .iter()
                .map(|it| it.keyid.as_deref().unwrap_or_default())
        };
        let names = || keys.iter().map(|key| key.name.as_str());
        if ids().any(|id| id.is_empty() || names().any(|name| name == id)) {
            return Problem::BadSignature {
                keys: listed(names()),
            };
        }
        Problem::UnknownKey {
            found: listed(ids()),
            trusted: listed(names()),
        }
    }
}

/// What is signed, by the DSSE protocol: type and payload with their lengths, so that neither can
/// be taken for a part of the other.
fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
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

/// What an in-toto statement says; fields that are not known here are allowed in it.
#[derive(Deserialize)]
struct StatementRead {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Value,
}

#[derive(Deserialize)]
struct Subject {
    digest: BTreeMap<String, String>,
}

/// What is said of the subjects. Strict, since an expiry that is misspelt would never come.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Predicate {
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    expires_at: Option<Timestamp>,
}

impl StatementRead {
    fn of(payload: &[u8]) -> Result<Self, Problem> {
        let statement: Self =
            serde_json::from_slice(payload).map_err(|error| no_statement(&error.to_string()))?;
        if statement.kind != STATEMENT_TYPE {
            return Err(no_statement(&format!("its type is {}", statement.kind)));
        }
        if statement.predicate_type != PREDICATE_TYPE {
            return Err(Problem::UnknownPredicate {
                found: shown(&statement.predicate_type),
            });
        }
        Ok(statement)
    }

    /// Whether this is about the template: about at least one of its images, and about each that
    /// the stable pods do not run.
    fn covers(&self, template: &PodTemplate, stable: Option<&PodTemplate>) -> Result<(), Problem> {
        let subjects: BTreeSet<&str> = self
            .subject
            .iter()
            .filter_map(|subject| subject.digest.get("sha256").map(String::as_str))
            .collect();
        let running: BTreeSet<&str> = stable
            .map(PodTemplate::images)
            .unwrap_or_default()
            .into_iter()
            .filter_map(digest_of)
            .collect();
        let mut about_it = false;
        let mut other = None;
        for image in template.images() {
            let digest = digest_of(image).ok_or_else(|| no_digest(image))?;
            if subjects.contains(digest) {
                about_it = true;
            } else if running.contains(digest) {
                other.get_or_insert((image, digest));
            } else {
                return Err(wrong_digest(image, digest, &subjects));
            }
        }
        match other {
            _ if about_it => Ok(()),
            Some((image, digest)) => Err(wrong_digest(image, digest, &subjects)),
            None => Err(no_digest("")),
        }
    }

    fn annotations(self, now: Timestamp) -> Result<BTreeMap<String, String>, Problem> {
        let predicate: Predicate = serde_json::from_value(self.predicate)
            .map_err(|error| no_statement(&error.to_string()))?;
        if predicate.annotations.contains_key(ANNOTATION) {
            return Err(no_statement("it attests an attestation"));
        }
        match predicate.expires_at {
            Some(at) if at <= now => Err(Problem::StatementExpired { at }),
            _ => Ok(predicate
                .annotations
                .into_iter()
                .map(|(key, value)| (format!("{PROVENANCE_PREFIX}{key}"), value))
                .collect()),
        }
    }
}

fn no_statement(why: &str) -> Problem {
    Problem::NoStatement { why: shown(why) }
}

fn no_digest(image: &str) -> Problem {
    Problem::NoDigest {
        image: shown(image),
    }
}

fn wrong_digest(image: &str, digest: &str, subjects: &BTreeSet<&str>) -> Problem {
    let short = |digest: &str| digest.chars().take(12).collect::<String>();
    let subjects: Vec<_> = subjects.iter().map(|subject| short(subject)).collect();
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    Problem::WrongDigest {
        image: shown(name),
        digest: short(digest),
        subjects: listed(subjects.iter().map(String::as_str)),
    }
}

/// The SHA-256, in hexadecimal, by which a reference names its image: the part after
/// `name@sha256:`, or after `sha256:` alone.
fn digest_of(image: &str) -> Option<&str> {
    let digest = image.rsplit_once('@').map_or(image, |(_, digest)| digest);
    let hexadecimal = digest.strip_prefix("sha256:")?;
    let is_one = hexadecimal.len() == 64
        && hexadecimal
            .bytes()
            .all(|it| it.is_ascii_digit() || (b'a'..=b'f').contains(&it));
    is_one.then_some(hexadecimal)
}

/// Names as they can be shown, or `nobody` where there is none.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    let first: Vec<_> = names
        .iter()
        .take(MAX_LISTED)
        .map(|name| format!("`{}`", shown(name)))
        .collect();
    match names.len() {
        0 => "nobody".to_owned(),
        more if more > MAX_LISTED => first.join(", ") + ", …",
        _ => first.join(", "),
    }
}

// --- Signing -------------------------------------------------------------------------------------

/// A statement of images that can be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement(String);

impl Statement {
    /// That these annotations are the provenance of these images, each named by digest
    /// (`name@sha256:…`). Of the annotations those under the provenance prefix are taken, but for an
    /// earlier attestation.
    pub fn of(
        images: &[&str],
        annotations: &BTreeMap<String, String>,
        expires_at: Option<Timestamp>,
    ) -> Result<Self, SigningError> {
        if images.is_empty() {
            return Err(SigningError::NoImage);
        }
        let subject: Vec<Value> = images
            .iter()
            .map(|image| subject(image))
            .collect::<Result<_, _>>()?;
        let own: BTreeMap<&str, &str> = annotations
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(PROVENANCE_PREFIX)?, value.as_str())))
            .filter(|(key, _)| *key != ANNOTATION)
            .collect();
        let mut predicate = json!({ "annotations": own });
        if let (Some(at), Some(members)) = (expires_at, predicate.as_object_mut()) {
            members.insert("expiresAt".into(), at.to_string().into());
        }
        let statement = json!({
            "_type": STATEMENT_TYPE,
            "subject": subject,
            "predicateType": PREDICATE_TYPE,
            "predicate": predicate,
        });
        Ok(Self(statement.to_string()))
    }

    /// The value of the annotation `attestation`: an envelope in base64, signed by a private key in
    /// PKCS#8 PEM (ECDSA P-256 or Ed25519). The key id should be the key's name in the policies. The
    /// same statement and key always give the same value.
    pub fn sign(&self, private_key_pem: &str, keyid: &str) -> Result<String, SigningError> {
        let key = PrivateKey::read(private_key_pem)?;
        let message = pre_authentication_encoding(PAYLOAD_TYPE, self.0.as_bytes());
        let envelope = json!({
            "payloadType": PAYLOAD_TYPE,
            "payload": STANDARD.encode(&self.0),
            "signatures": [{ "keyid": keyid, "sig": STANDARD.encode(key.sign(&message)) }],
        });
        let signed = STANDARD.encode(envelope.to_string());
        if signed.len() > MAX_ATTESTATION {
            let length = signed.len();
            return Err(SigningError::TooLong { length });
        }
        Ok(signed)
    }
}

fn subject(image: &str) -> Result<Value, SigningError> {
    let digest = digest_of(image).ok_or_else(|| SigningError::NoDigest {
        image: shown(image),
    })?;
    let digest = json!({ "sha256": digest });
    Ok(match image.split_once('@') {
        Some((name, _)) => json!({ "name": name, "digest": digest }),
        None => json!({ "digest": digest }),
    })
}

/// The public key, in PEM as a policy names it, of a private key in PKCS#8 PEM.
#[cfg(test)]
pub(super) fn public_key_pem(private_key_pem: &str) -> Result<String, SigningError> {
    use ed25519_dalek::pkcs8::EncodePublicKey;
    use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;

    let pem = match PrivateKey::read(private_key_pem)? {
        PrivateKey::Ed25519(key) => key.verifying_key().to_public_key_pem(LineEnding::LF),
        PrivateKey::P256(key) => key.verifying_key().to_public_key_pem(LineEnding::LF),
    };
    pem.map_err(|_| SigningError::UnreadableKey)
}

// --- Keys ----------------------------------------------------------------------------------------

enum PublicKey {
    Ed25519(ed25519_dalek::VerifyingKey),
    P256(p256::ecdsa::VerifyingKey),
}

impl PublicKey {
    fn read(pem: &str) -> Option<Self> {
        let pem = pem.trim();
        ed25519_dalek::VerifyingKey::from_public_key_pem(pem)
            .map(Self::Ed25519)
            .or_else(|_| p256::ecdsa::VerifyingKey::from_public_key_pem(pem).map(Self::P256))
            .ok()
    }

    /// ECDSA signatures are in DER, as every DSSE signer writes them.
    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
            Self::P256(key) => p256::ecdsa::DerSignature::from_bytes(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
        }
    }
}

enum PrivateKey {
    Ed25519(ed25519_dalek::SigningKey),
    P256(p256::ecdsa::SigningKey),
}

impl PrivateKey {
    fn read(pem: &str) -> Result<Self, SigningError> {
        let pem = pem.trim();
        ed25519_dalek::SigningKey::from_pkcs8_pem(pem)
            .map(Self::Ed25519)
            .or_else(|_| p256::ecdsa::SigningKey::from_pkcs8_pem(pem).map(Self::P256))
            .map_err(|_| SigningError::UnreadableKey)
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
            Self::P256(key) => {
                let signature: p256::ecdsa::DerSignature = key.sign(message);
                signature.as_bytes().to_vec()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::prelude::*;

    use super::*;

    // Keys and signatures that OpenSSL 3.0 made (`openssl genpkey`, `openssl pkeyutl -sign -rawin`
    // and `openssl dgst -sha256 -sign`) for these tests alone.
    const ED25519_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIKC/upcHwprQPZ/md9B50ATU5benfIgaTYS6hHhpNYqD
-----END PRIVATE KEY-----
";
    const ED25519_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAuw6iZ4Nu+R2pau8BQYcMDVZjJDIbnkLh54MGZLWILNs=
-----END PUBLIC KEY-----
";
    const P256_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgjGvczICBMlr2AykC
Jq43SNtc41q41NEiURK9ehd2ZA2hRANCAARSX8IRLWCFkugKauWwZZsmh9P6g/vV
vqONvj0XKj12pLoveTkmp2gr8rREVdPCn7S9gHBE9rjMijn/tS7alIAM
-----END PRIVATE KEY-----
";
    const P256_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEUl/CES1ghZLoCmrlsGWbJofT+oP7
1b6jjb49Fyo9dqS6L3k5JqdoK/K0RFXTwp+0vYBwRPa4zIo5/7Uu2pSADA==
-----END PUBLIC KEY-----
";
    const P256_IN_SEC1: &str = "-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIDRi6E+VTZyGEouA2ehhCggEsM89J+PuEHA7/GY4Q55JoAoGCCqGSM49
AwEHoUQDQgAE61wGHpwxae6WkdOUCCM0HxGglg+CyAkqySLi3KgayfzpAyqfA6zZ
NbDBVisB8sIlG8Lrx7FLDWOB5NfHSPGiSw==
-----END EC PRIVATE KEY-----
";
    const PAYLOAD: &str = r#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"registry.example/shop","digest":{"sha256":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}}],"predicateType":"https://countersign.dev/provenance/v1","predicate":{"annotations":{"authors":"jane","contributor":"human"},"expiresAt":"2027-01-01T00:00:00Z"}}"#;
    const ED25519_SIGNATURE: &str =
        "nl+i29HSk1eTfRxLzoy5qLvvguuQs8ufyH4FrvlMFXQCxaG3zoWEpsBh8C5Pk/vzc3tmDRK74Y1Z/UCIlH5AAg==";
    const P256_SIGNATURE: &str = "MEQCIA5QE3H5doMPCdTVA8isRrE61tr3vADdKMKU+RbUZ5/MAiAiapM/KrnZzOnTrR5dw7zHeQ4Taoy+DPX+NPT92Dh57A==";

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().unwrap()
    }

    fn digest(of: char) -> String {
        of.to_string().repeat(64)
    }

    fn pinned(name: &str, of: char) -> String {
        format!("registry.example/{name}@sha256:{}", digest(of))
    }

    fn template(images: &[&str]) -> PodTemplate {
        let containers: Vec<_> = images.iter().map(|it| json!({ "image": it })).collect();
        PodTemplate(json!({ "spec": { "containers": containers } }))
    }

    fn shop() -> PodTemplate {
        template(&[&pinned("shop", 'a')])
    }

    fn key(name: &str, pem: &str) -> TrustedKey {
        TrustedKey {
            name: name.into(),
            public_key: pem.into(),
            not_after: None,
        }
    }

    fn ed25519() -> TrustedKey {
        key("ed", ED25519_PUBLIC)
    }

    fn p256() -> TrustedKey {
        key("ec", P256_PUBLIC)
    }

    /// An envelope in JSON, put together without the code under test.
    fn envelope(payload: &str, signatures: &[(&str, &str)]) -> String {
        let signatures: Vec<_> = signatures
            .iter()
            .map(|(keyid, sig)| json!({ "keyid": keyid, "sig": sig }))
            .collect();
        json!({
            "payloadType": "application/vnd.in-toto+json",
            "payload": STANDARD.encode(payload),
            "signatures": signatures,
        })
        .to_string()
    }

    fn by_openssl() -> String {
        envelope(PAYLOAD, &[("ed", ED25519_SIGNATURE)])
    }

    fn annotations(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        of.iter()
            .map(|(key, value)| (format!("{PROVENANCE_PREFIX}{key}"), (*value).to_owned()))
            .collect()
    }

    fn attested() -> BTreeMap<String, String> {
        annotations(&[("authors", "jane"), ("contributor", "human")])
    }

    fn signed(payload: &Value) -> String {
        Statement(payload.to_string())
            .sign(ED25519_PRIVATE, "ed")
            .unwrap()
    }

    fn statement_but(pointer: &str, value: Value) -> Value {
        let mut statement: Value = serde_json::from_str(PAYLOAD).unwrap();
        *statement.pointer_mut(pointer).unwrap() = value;
        statement
    }

    fn verify_at(
        envelope: &str,
        template: &PodTemplate,
        keys: &[Vec<TrustedKey>],
    ) -> Result<BTreeMap<String, String>, Problem> {
        verify(envelope, template, None, keys, now())
    }

    fn problem(envelope: &str) -> Problem {
        verify_at(envelope, &shop(), &[vec![ed25519()]]).unwrap_err()
    }

    #[test]
    fn the_encoding_is_that_of_the_protocol() {
        // The example of the DSSE protocol's text.
        assert_eq!(
            pre_authentication_encoding("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
        let message = pre_authentication_encoding(PAYLOAD_TYPE, "ü".as_bytes());
        assert_eq!(
            message,
            "DSSEv1 28 application/vnd.in-toto+json 2 ü".as_bytes()
        );
    }

    #[test]
    fn what_openssl_signed_is_believed() {
        let with_ed25519 = by_openssl();
        let with_p256 = envelope(PAYLOAD, &[("ec", P256_SIGNATURE)]);
        for (json, key) in [(with_ed25519, ed25519()), (with_p256, p256())] {
            let keys = [vec![key]];
            let url_safe = URL_SAFE.encode(&json);
            let unpadded = STANDARD.encode(&json).trim_end_matches('=').to_owned();
            for form in [STANDARD.encode(&json), url_safe, unpadded, json] {
                assert_eq!(verify_at(&form, &shop(), &keys), Ok(attested()), "{form}");
            }
        }
    }

    #[test]
    fn a_key_id_is_a_hint_and_no_more() {
        let keys = [vec![p256(), ed25519()]];
        for id in ["ed", "ec", "", "\u{1b}[2K"] {
            let envelope = envelope(PAYLOAD, &[(id, ED25519_SIGNATURE)]);
            assert_eq!(verify_at(&envelope, &shop(), &keys), Ok(attested()), "{id}");
        }
        let without = by_openssl().replace(r#""keyid":"ed","#, "");
        assert_eq!(verify_at(&without, &shop(), &keys), Ok(attested()));
    }

    #[test]
    fn one_key_of_each_policy_must_have_signed() {
        let one = by_openssl();
        let both = envelope(
            PAYLOAD,
            &[("ed", ED25519_SIGNATURE), ("ec", P256_SIGNATURE)],
        );
        let (either, each) = ([vec![p256(), ed25519()]], [vec![p256()], vec![ed25519()]]);
        assert!(verify_at(&one, &shop(), &either).is_ok());
        assert!(verify_at(&both, &shop(), &each).is_ok());
        assert_eq!(
            verify_at(&one, &shop(), &each),
            Err(Problem::UnknownKey {
                found: "`ed`".into(),
                trusted: "`ec`".into()
            })
        );
        assert_eq!(verify_at(&one, &shop(), &[]), Err(Problem::NoKeys));
        assert!(verify_at(&one, &shop(), &[vec![], vec![ed25519()]]).is_err());
    }

    #[test]
    fn a_key_is_believed_until_it_expires() {
        let until = |at: &str| TrustedKey {
            not_after: Some(Time(at.parse().unwrap())),
            ..ed25519()
        };
        let with = |keys: Vec<TrustedKey>| verify_at(&by_openssl(), &shop(), &[keys]);
        assert!(with(vec![until("2026-11-24T12:00:01Z")]).is_ok());
        let expired = with(vec![until("2026-11-24T12:00:00Z"), p256()]).unwrap_err();
        assert!(
            expired
                .to_string()
                .contains("key `ed`, which expired at 2026-11-24T12:00:00Z"),
            "{expired}"
        );
        assert!(
            with(vec![until("2026-01-01T00:00:00Z"), ed25519()]).is_ok(),
            "the same key under a name that is still believed"
        );
    }

    #[test]
    fn a_changed_payload_or_signature_is_a_bad_signature() {
        let forged = PAYLOAD.replace("jane", "mary");
        let other = STANDARD.encode([7_u8; 64]);
        let in_raw_form = STANDARD.encode([1_u8; 64]);
        for envelope in [
            envelope(&forged, &[("ed", ED25519_SIGNATURE)]),
            envelope(&forged, &[("", ED25519_SIGNATURE)]),
            envelope(PAYLOAD, &[("ed", &other)]),
            envelope(PAYLOAD, &[("ed", P256_SIGNATURE)]),
            envelope(PAYLOAD, &[("ed", "")]),
            envelope(PAYLOAD, &[("ed", "%")]),
            envelope(PAYLOAD, &[("other", &in_raw_form), ("ed", &in_raw_form)]),
        ] {
            let keys = "`ed`".to_owned();
            assert_eq!(problem(&envelope), Problem::BadSignature { keys });
        }
        let unsigned = envelope(PAYLOAD, &[]);
        assert!(
            problem(&unsigned).to_string().contains("signed by nobody"),
            "{}",
            problem(&unsigned)
        );
    }

    #[test]
    fn a_key_that_cannot_be_read_is_named() {
        for pem in ["", "garbage", ED25519_PRIVATE, P256_PRIVATE] {
            let found = verify_at(&by_openssl(), &shop(), &[vec![key("ci", pem)]]);
            assert_eq!(found, Err(Problem::UnreadableKey { key: "ci".into() }));
            let beside = [vec![key("ci", pem), ed25519()]];
            assert!(verify_at(&by_openssl(), &shop(), &beside).is_ok());
        }
        let in_yaml = ED25519_PUBLIC.replace('\n', "\r\n") + "\n";
        assert!(verify_at(&by_openssl(), &shop(), &[vec![key("ci", &in_yaml)]]).is_ok());
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        for garbage in [
            "",
            "{",
            "{}",
            "e30=",
            "not base64!",
            "[]",
            "null",
            "bnVsbA==",
        ] {
            let found = problem(garbage);
            assert!(
                matches!(found, Problem::NoEnvelope { .. }),
                "{garbage}: {found}"
            );
        }
        let length = MAX_ATTESTATION + 1;
        assert_eq!(problem(&"A".repeat(length)), Problem::TooLong { length });
        let nested = "[".repeat(MAX_ATTESTATION);
        assert!(matches!(problem(&nested), Problem::NoEnvelope { .. }));
        let many = envelope(PAYLOAD, &[("ed", ED25519_SIGNATURE); 9]);
        assert_eq!(problem(&many), Problem::TooManySignatures { count: 9 });
        let found = problem(&by_openssl().replace("in-toto", "other"));
        assert!(found.to_string().contains("vnd.other+json"), "{found}");
    }

    #[test]
    fn only_a_statement_of_provenance_is_believed() {
        let predicate = signed(&statement_but(
            "/predicateType",
            json!("https://slsa.dev/provenance/v1"),
        ));
        assert_eq!(
            problem(&predicate),
            Problem::UnknownPredicate {
                found: "https://slsa.dev/provenance/v1".into()
            }
        );
        for (pointer, value) in [
            ("/_type", json!("https://in-toto.io/Statement/v0.1")),
            ("/subject", json!("shop")),
            ("/predicate", json!([])),
            ("/predicate/annotations", json!({ "lines-added": 1 })),
            ("/predicate/annotations", json!({ "attestation": "e30=" })),
            ("/predicate/expiresAt", json!("tomorrow")),
            (
                "/predicate",
                json!({ "annotations": {}, "expires": "2020-01-01T00:00:00Z" }),
            ),
        ] {
            let found = problem(&signed(&statement_but(pointer, value)));
            assert!(
                matches!(found, Problem::NoStatement { .. }),
                "{pointer}: {found}"
            );
        }
        assert!(matches!(
            problem(&signed(&json!("text"))),
            Problem::NoStatement { .. }
        ));
    }

    #[test]
    fn a_statement_is_believed_until_it_expires() {
        let at = |time: &str| {
            let envelope = by_openssl();
            verify(
                &envelope,
                &shop(),
                None,
                &[vec![ed25519()]],
                time.parse().unwrap(),
            )
        };
        assert!(at("2026-12-31T23:59:59Z").is_ok());
        let expired = at("2027-01-01T00:00:00Z").unwrap_err();
        assert_eq!(
            expired.to_string(),
            "it expired at 2027-01-01T00:00:00Z: have CI sign it anew"
        );
    }

    #[test]
    fn it_is_about_the_images_that_the_change_brings_in() {
        let (shop, old) = (pinned("shop", 'a'), pinned("shop", 'b'));
        let (proxy, other) = (pinned("proxy", 'c'), pinned("other", 'a'));
        let found = |images: &[&str], stable: Option<&[&str]>| {
            let stable = stable.map(template);
            let keys = [vec![ed25519()]];
            verify(
                &by_openssl(),
                &template(images),
                stable.as_ref(),
                &keys,
                now(),
            )
            .map(|_| ())
            .map_err(|problem| problem.to_string())
        };
        assert_eq!(found(&[&shop], None), Ok(()));
        assert_eq!(found(&[&shop, &proxy], Some(&[&old, &proxy])), Ok(()));
        assert_eq!(found(&[&shop, &proxy], Some(&[&shop, &proxy])), Ok(()));
        assert_eq!(
            found(&[&other], None),
            Ok(()),
            "the name of a mirror is no matter"
        );

        let wrong = found(&[&old], None).unwrap_err();
        for part in ["`aaaaaaaaaaaa`", "`registry.example/shop`", "bbbbbbbbbbbb"] {
            assert!(wrong.contains(part), "{wrong}");
        }
        let smuggled = found(&[&shop, &pinned("evil", 'e')], Some(&[&shop, &proxy]));
        assert!(smuggled.unwrap_err().contains("`registry.example/evil`"));
        let first = found(&[&shop, &proxy], None).unwrap_err();
        assert!(first.contains("`registry.example/proxy`"), "{first}");
        let of_another_change = found(&[&proxy], Some(&[&proxy])).unwrap_err();
        assert!(of_another_change.contains("cccccccccccc"));
    }

    #[test]
    fn an_image_that_is_not_pinned_may_be_any() {
        let upper = pinned("shop", 'A');
        for tag in [
            "shop:1.4.2",
            "shop",
            "",
            "shop@sha256:aa",
            &upper,
            "shop@sha512:aa",
        ] {
            for images in [vec![tag], vec![&pinned("shop", 'a'), tag]] {
                let stable = template(&images);
                let keys = [vec![ed25519()]];
                let found = verify(
                    &by_openssl(),
                    &template(&images),
                    Some(&stable),
                    &keys,
                    now(),
                );
                let image = shown(tag);
                assert_eq!(found, Err(Problem::NoDigest { image }), "{images:?}");
            }
        }
        let keys = [vec![ed25519()]];
        let found = verify_at(&by_openssl(), &PodTemplate(json!({})), &keys);
        assert!(matches!(found, Err(Problem::NoDigest { .. })));
        let init = PodTemplate(json!({ "spec": {
            "containers": [{ "image": pinned("shop", 'a') }],
            "initContainers": [{ "image": pinned("init", 'e') }],
        } }));
        assert!(matches!(
            verify_at(&by_openssl(), &init, &keys),
            Err(Problem::WrongDigest { .. })
        ));
    }

    #[test]
    fn what_is_signed_here_is_what_is_believed() {
        let image = pinned("shop", 'a');
        let mut given = annotations(&[("tests", "PASSED"), ("attestation", "e30=")]);
        given.insert("other/key".into(), "no".into());
        let expires = Some("2027-01-01T00:00:00Z".parse().unwrap());
        let statement = Statement::of(&[&image, &pinned("init", 'b')], &given, expires).unwrap();
        for (private, key) in [(ED25519_PRIVATE, ed25519()), (P256_PRIVATE, p256())] {
            assert_eq!(public_key_pem(private).as_ref(), Ok(&key.public_key));
            let envelope = statement.sign(private, "ci").unwrap();
            assert_eq!(
                envelope,
                statement.sign(private, "ci").unwrap(),
                "deterministic"
            );
            let both = template(&[&image, &pinned("init", 'b')]);
            let expected = annotations(&[("tests", "PASSED")]);
            assert_eq!(verify_at(&envelope, &both, &[vec![key]]), Ok(expected));
        }
        let bare = Statement::of(&[&format!("sha256:{}", digest('a'))], &given, None).unwrap();
        let envelope = bare.sign(ED25519_PRIVATE, "ed").unwrap();
        assert!(verify_at(&envelope, &shop(), &[vec![ed25519()]]).is_ok());
    }

    #[test]
    fn signatures_are_those_of_the_standards() {
        let message = pre_authentication_encoding(PAYLOAD_TYPE, PAYLOAD.as_bytes());
        let signature = PrivateKey::read(ED25519_PRIVATE).unwrap().sign(&message);
        assert_eq!(STANDARD.encode(signature), ED25519_SIGNATURE);
    }

    #[test]
    fn what_cannot_be_signed_says_why() {
        let image = pinned("shop", 'a');
        let none = BTreeMap::new();
        assert_eq!(Statement::of(&[], &none, None), Err(SigningError::NoImage));
        let tag = Statement::of(&[&image, "shop:1"], &none, None).unwrap_err();
        assert!(tag.to_string().contains("`shop:1`"), "{tag}");
        let statement = Statement::of(&[&image], &none, None).unwrap();
        for pem in ["", "garbage", ED25519_PUBLIC, P256_IN_SEC1] {
            assert_eq!(
                statement.sign(pem, "ci"),
                Err(SigningError::UnreadableKey),
                "{pem}"
            );
            assert_eq!(public_key_pem(pem), Err(SigningError::UnreadableKey));
        }
        let long = annotations(&[("authors", &"x".repeat(MAX_ATTESTATION))]);
        let long = Statement::of(&[&image], &long, None).unwrap();
        assert!(matches!(
            long.sign(ED25519_PRIVATE, "ci"),
            Err(SigningError::TooLong { .. })
        ));
    }

    #[test]
    fn it_is_read_where_a_policy_names_keys_and_demanded_where_only_it_is_believed() {
        let mut effective = super::super::policy::effective(&[]);
        let (with, without) = (annotations(&[("attestation", " e30= ")]), attested());
        assert_eq!(
            due(&with, &effective),
            Ok(None),
            "no key: carried, not read"
        );
        effective.trust = Trust::Attested;
        assert_eq!(due(&with, &effective), Err(Problem::NoKeys));
        effective.keys = vec![vec![ed25519()]];
        assert_eq!(due(&with, &effective), Ok(Some("e30=")));
        assert_eq!(due(&without, &effective), Err(Problem::Missing));
        effective.trust = Trust::Declared;
        assert_eq!(due(&with, &effective), Ok(Some("e30=")));
        assert_eq!(due(&without, &effective), Ok(None));
    }

    fn flipped(text: &str, byte: usize, bit: u8) -> Option<String> {
        let mut bytes = text.as_bytes().to_vec();
        let byte = byte % bytes.len();
        bytes[byte] ^= 1 << bit;
        String::from_utf8(bytes).ok()
    }

    proptest! {
        #[test]
        fn no_flipped_bit_attests_anything_else(byte in any::<usize>(), bit in 0..8_u8) {
            for key in [("ed", ED25519_SIGNATURE, ed25519()), ("ec", P256_SIGNATURE, p256())] {
                let json = envelope(PAYLOAD, &[(key.0, key.1)]);
                for form in [STANDARD.encode(&json), json] {
                    let Some(form) = flipped(&form, byte, bit) else { continue };
                    if let Ok(found) = verify_at(&form, &shop(), &[vec![key.2.clone()]]) {
                        prop_assert_eq!(found, attested());
                    }
                }
            }
        }

        #[test]
        fn no_flipped_bit_of_the_payload_attests_anything(byte in any::<usize>(), bit in 0..7_u8) {
            let payload = flipped(PAYLOAD, byte, bit).unwrap();
            let forged = envelope(&payload, &[("ed", ED25519_SIGNATURE), ("ec", P256_SIGNATURE)]);
            prop_assert!(verify_at(&forged, &shop(), &[vec![ed25519(), p256()]]).is_err());
        }

        #[test]
        fn any_text_is_refused_without_a_panic(
            text in prop_oneof![".{0,80}", "[A-Za-z0-9+/=]{0,80}", "[{}\\[\\]\":,a-z0-9]{0,80}"],
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let keys = [vec![ed25519(), p256()]];
            for text in [text.clone(), STANDARD.encode(&bytes), String::from_utf8_lossy(&bytes).into()] {
                prop_assert!(verify_at(&text, &shop(), &keys).is_err());
            }
            let unsigned = envelope(&text, &[(&text, &text), ("ed", &STANDARD.encode(&bytes))]);
            prop_assert!(verify_at(&unsigned, &shop(), &keys).is_err());
        }

        #[test]
        fn any_signed_payload_is_read_without_a_panic(
            text in prop_oneof![".{0,80}", "[{}\\[\\]\":,a-z0-9]{0,80}"],
            images in proptest::collection::vec(".{0,80}", 0..4),
        ) {
            let envelope = Statement(text.clone()).sign(P256_PRIVATE, &text).unwrap();
            let images: Vec<&str> = images.iter().map(String::as_str).collect();
            prop_assert!(verify_at(&envelope, &template(&images), &[vec![p256()]]).is_err());
            let _ = (Statement::of(&images, &BTreeMap::new(), None), public_key_pem(&text));
        }
    }
}
