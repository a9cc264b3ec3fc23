//! Problems of an attestation, and of creating one.

use k8s_openapi::jiff::Timestamp;

use crate::provenance::attestation::unproven::Unproven;
use crate::provenance::keys::MAX_ATTESTATION;
use crate::text::excerpt;

/// The payload type of an envelope: an in-toto statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// The supported version of in-toto statements.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The predicate type of a statement: provenance annotations.
pub const PREDICATE_TYPE: &str = "https://countersign.dev/provenance/v1";

/// Most signatures of one envelope: each is tried with each key.
pub(super) const MAX_SIGNATURES: usize = 8;
/// Most names that a message lists.
const MAX_LISTED: usize = 4;

/// Why nothing is attested, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Provenance must be attested, and is not.
    #[error(
        "it is not there, but the policies believe only what a trusted key has signed: have CI add it with `kubectl countersign stamp --sign`"
    )]
    Missing,
    /// Provenance must be attested, and no policy has a key for it.
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
        "it is not a DSSE envelope ({why}): write the envelope's JSON in base64 as `kubectl countersign stamp --sign` does"
    )]
    NoEnvelope {
        /// The problem, sanitized.
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
        /// The payload type, sanitized.
        found: String,
    },
    /// A policy's key is invalid.
    #[error(
        "key `{key}` of a RolloutPolicy is not a public key that can be used: write an ECDSA P-256 or Ed25519 key in PEM"
    )]
    UnreadableKey {
        /// The key's name, sanitized.
        key: String,
    },
    /// Signed by an expired key.
    #[error("it is signed by key `{key}`, which expired at {at}: have CI sign with a newer key")]
    KeyExpired {
        /// The key's name, sanitized.
        key: String,
        /// The expiry of the key.
        at: Timestamp,
    },
    /// An invalid signature with the id of a trusted key.
    #[error(
        "none of its signatures is valid for key {keys}: its content was changed after signing, or another key signed it"
    )]
    BadSignature {
        /// The keys' names, sanitized.
        keys: String,
    },
    /// Not signed by any trusted key.
    #[error("it is signed by {found}, but a RolloutPolicy trusts only {trusted}")]
    UnknownKey {
        /// The key ids in the envelope, sanitized.
        found: String,
        /// The keys' names, sanitized.
        trusted: String,
    },
    /// Signed by keys that are not trusted for its repository.
    #[error(
        "it is of {}, for which no key that signed it is trusted: sign it with a key of that repository, or add the repository to provenance.keys of a RolloutPolicy",
        quoted(.repository.as_deref())
    )]
    OtherRepository {
        /// The repository, sanitized; `None` if it names none.
        repository: Option<String>,
    },
    /// It proves nothing of this change.
    #[error(transparent)]
    Unproven(#[from] Unproven),
    /// The payload cannot be read.
    #[error("its payload is not an in-toto statement {STATEMENT_TYPE} ({why})")]
    NoStatement {
        /// The problem, sanitized.
        why: String,
    },
    /// A statement with another predicate than provenance.
    #[error("its predicate type is `{found}`: it must be {PREDICATE_TYPE}")]
    UnknownPredicate {
        /// The predicate type, sanitized.
        found: String,
    },
    /// The statement has expired.
    #[error("it expired at {at}: have CI sign it again")]
    StatementExpired {
        /// The expiry of the statement.
        at: Timestamp,
    },
    /// An image without a digest.
    #[error(
        "image `{image}` is not named by a digest, so its content is unknown: pin it as name@sha256:…"
    )]
    NoDigest {
        /// The image reference, sanitized.
        image: String,
    },
    /// An image that is not a subject of the statement.
    #[error(
        "it is about {subjects}, but the template uses `{image}` with {digest}: have CI attest the images that are deployed"
    )]
    WrongDigest {
        /// The image's name, sanitized.
        image: String,
        /// The beginning of its digest.
        digest: String,
        /// The beginnings of the subjects' digests.
        subjects: String,
    },
}

/// Why a statement cannot be created or signed, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// No image is named.
    #[error("no image is named: an attestation is about images, each as name@sha256:…")]
    NoImage,
    /// An image without a digest.
    #[error("image `{image}` is not named by a digest: write it as name@sha256:…")]
    NoDigest {
        /// The image reference, sanitized.
        image: String,
    },
    /// Not a private key for signing.
    #[error(
        "this is not a private key that can sign: write an unencrypted ECDSA P-256 or Ed25519 key in PKCS#8 PEM (`openssl pkcs8 -topk8 -nocrypt` makes one of an older form)"
    )]
    UnreadableKey,
    /// An envelope that is too long for the controller.
    #[error(
        "the signed envelope has {length} bytes and the controller reads {MAX_ATTESTATION}: attest fewer or shorter annotations"
    )]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
}

fn quoted(repository: Option<&str>) -> String {
    repository.map_or_else(
        || "no repository that it names".to_owned(),
        |it| format!("repository `{it}`"),
    )
}

/// Sanitized names, or `nobody` if there is none.
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
