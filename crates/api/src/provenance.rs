//! What a policy demands of provenance: which of it may lower the risk.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::Duration;

/// Demands on provenance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProvenanceDemands {
    /// Provenance that may lower the risk: declared or only attested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// Keys whose attestations are trusted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub keys: Vec<TrustedKey>,
    /// Longest time from the signing of an attestation to the start of its change; an older one counts as declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// What an attestation must name: the images alone, or the pod template, too; otherwise it counts as declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covers: Option<Covers>,
    /// Sources of the reviews that count; all if not set. A review of another source, or of none that is named, counts as no review.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4))]
    pub review_sources: Option<Vec<ReviewSource>>,
}

/// Which provenance may lower the risk; in order of strictness.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Trust {
    /// Provenance that the annotations declare.
    #[default]
    Declared,
    /// Only provenance that a trusted key has signed; declared provenance may raise the risk, never lower it.
    Attested,
}

/// What an attestation must name; in order of strictness.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Covers {
    /// The images.
    #[default]
    Images,
    /// The images, and the digest of the pod template.
    Template,
}

/// Where a review is from.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum ReviewSource {
    /// The forge's own record of its reviews.
    Forge,
    /// A trailer `Reviewed-by` in commits that the reviewer signed.
    SignedCommit,
    /// A trailer `Reviewed-by` in commits, which anybody can write.
    Trailer,
    /// The command line of `stamp`.
    Flag,
}

impl ReviewSource {
    /// All sources.
    pub const ALL: [Self; 4] = [Self::Forge, Self::SignedCommit, Self::Trailer, Self::Flag];

    /// The value of the annotation.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forge => "Forge",
            Self::SignedCommit => "SignedCommit",
            Self::Trailer => "Trailer",
            Self::Flag => "Flag",
        }
    }
}

/// A key whose attestations are trusted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrustedKey {
    /// Name of the key.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// The public key in PEM (`-----BEGIN PUBLIC KEY-----`): ECDSA P-256 or Ed25519.
    #[schemars(length(min = 1, max = 1024))]
    pub public_key: String,
    /// Time from which the key is no longer trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
    /// Repositories for which the key is trusted, all if empty: `*` and `?` match within one part of a path, `**` any number of parts, as in `https://git.example/shop/**`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(
            length(min = 1, max = 253),
            regex(pattern = r"^[^/\[\]{}\\!][^\[\]{}\\!]*$")
        )
    )]
    pub repositories: Vec<String>,
}
