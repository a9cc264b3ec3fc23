//! What is wrong with an attestation, and why one cannot be made.

use k8s_openapi::jiff::Timestamp;

use crate::provenance::keys::MAX_ATTESTATION;
use crate::text::excerpt;

/// What an envelope must hold: an in-toto statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// The version of in-toto statements that is read.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// What a statement must say of its subjects: provenance annotations.
pub const PREDICATE_TYPE: &str = "https://countersign.dev/provenance/v1";

/// Most signatures of one envelope: each is tried with each key.
pub(super) const MAX_SIGNATURES: usize = 8;
/// Most names that a message lists.
const MAX_LISTED: usize = 4;

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

/// Names as they can be shown, or `nobody` where there is none.
pub(super) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    let first: Vec<_> = names
        .iter()
        .take(MAX_LISTED)
        .map(|name| format!("`{}`", excerpt(name)))
        .collect();
    match names.len() {
        0 => "nobody".to_owned(),
        more if more > MAX_LISTED => first.join(", ") + ", …",
        _ => first.join(", "),
    }
}
