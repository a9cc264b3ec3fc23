//! The statement: its subjects and its predicate.

use std::collections::{BTreeMap, BTreeSet};

use base64::engine::Engine;
use countersign_api::{PROVENANCE_PREFIX, PodTemplate};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::provenance::attestation::envelope::{self, STANDARD};
use crate::provenance::attestation::keys::PrivateKey;
use crate::provenance::attestation::problem::{
    self, PAYLOAD_TYPE, PREDICATE_TYPE, Problem, STATEMENT_TYPE, SigningError,
};
use crate::provenance::digest::image_digest;
use crate::provenance::keys::{ANNOTATION, MAX_ATTESTATION};
use crate::text::excerpt;

/// The fields of an in-toto statement; unknown fields are allowed.
#[derive(Deserialize)]
pub(super) struct StatementRead {
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

/// What a statement says of its images. Strict, since a misspelt expiry would never take effect. Fields that
/// older signers leave out are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Predicate {
    /// The provenance annotations, without their prefix.
    pub annotations: BTreeMap<String, String>,
    /// The source revision from which the change is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// The source repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The Rollouts that it is for, each as `namespace/name`; any if empty.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub rollouts: BTreeSet<String>,
    /// SHA-256 of the pod template that it is for, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_digest: Option<String>,
    /// The time of its signing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_at: Option<Timestamp>,
    /// The time from which it is no longer believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl Predicate {
    /// The source repository; older signers name it among the annotations alone.
    pub(super) fn repository(&self) -> Option<&str> {
        let annotated = self.annotations.get("repository");
        self.repository.as_ref().or(annotated).map(String::as_str)
    }

    /// The annotations, with their prefix.
    pub(super) fn prefixed(self) -> BTreeMap<String, String> {
        let annotations = self.annotations.into_iter();
        annotations
            .map(|(key, value)| (format!("{PROVENANCE_PREFIX}{key}"), value))
            .collect()
    }
}

impl StatementRead {
    pub(super) fn of(payload: &[u8]) -> Result<Self, Problem> {
        let statement: Self =
            serde_json::from_slice(payload).map_err(|error| no_statement(&error.to_string()))?;
        if statement.kind != STATEMENT_TYPE {
            return Err(no_statement(&format!("its type is {}", statement.kind)));
        }
        if statement.predicate_type != PREDICATE_TYPE {
            return Err(Problem::UnknownPredicate {
                found: excerpt(&statement.predicate_type),
            });
        }
        Ok(statement)
    }

    /// Whether this is about the template: about at least one of its images, and about each that
    /// the stable pods do not run.
    pub(super) fn covers(
        &self,
        template: &PodTemplate,
        stable: Option<&PodTemplate>,
    ) -> Result<(), Problem> {
        let subjects: BTreeSet<&str> = self
            .subject
            .iter()
            .filter_map(|subject| subject.digest.get("sha256").map(String::as_str))
            .collect();
        let running: BTreeSet<&str> = stable
            .map(PodTemplate::images)
            .unwrap_or_default()
            .into_iter()
            .filter_map(image_digest)
            .collect();
        let mut about_it = false;
        let mut other = None;
        for image in template.images() {
            let digest = image_digest(image).ok_or_else(|| no_digest(image))?;
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

    pub(super) fn predicate(self, now: Timestamp) -> Result<Predicate, Problem> {
        let predicate: Predicate = serde_json::from_value(self.predicate)
            .map_err(|error| no_statement(&error.to_string()))?;
        if predicate.annotations.contains_key(ANNOTATION) {
            return Err(no_statement("it attests an attestation"));
        }
        match predicate.expires_at {
            Some(at) if at <= now => Err(Problem::StatementExpired { at }),
            _ => Ok(predicate),
        }
    }
}

fn no_statement(why: &str) -> Problem {
    Problem::NoStatement { why: excerpt(why) }
}

fn no_digest(image: &str) -> Problem {
    Problem::NoDigest {
        image: excerpt(image),
    }
}

fn wrong_digest(image: &str, digest: &str, subjects: &BTreeSet<&str>) -> Problem {
    let short = |digest: &str| digest.chars().take(12).collect::<String>();
    let subjects: Vec<_> = subjects.iter().map(|subject| short(subject)).collect();
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    Problem::WrongDigest {
        image: excerpt(name),
        digest: short(digest),
        subjects: problem::listed(subjects.iter().map(String::as_str)),
    }
}

/// A statement about images, ready to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement(pub(super) String);

impl Statement {
    /// A statement that these annotations are the provenance of these images, each named by digest
    /// (`name@sha256:…`), with the other fields of `about`. Only annotations under the provenance prefix are
    /// taken, without an earlier attestation.
    pub fn of(
        images: &[&str],
        annotations: &BTreeMap<String, String>,
        about: Predicate,
    ) -> Result<Self, SigningError> {
        if images.is_empty() {
            return Err(SigningError::NoImage);
        }
        let subject: Vec<Value> = images
            .iter()
            .map(|image| subject(image))
            .collect::<Result<_, _>>()?;
        let own = annotations
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(PROVENANCE_PREFIX)?, value)))
            .filter(|(key, _)| *key != ANNOTATION)
            .map(|(key, value)| (key.to_owned(), value.clone()));
        let predicate = Predicate {
            annotations: own.collect(),
            ..about
        };
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
        let message = envelope::pre_authentication_encoding(PAYLOAD_TYPE, self.0.as_bytes());
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
    let digest = image_digest(image).ok_or_else(|| SigningError::NoDigest {
        image: excerpt(image),
    })?;
    let digest = json!({ "sha256": digest });
    Ok(match image.split_once('@') {
        Some((name, _)) => json!({ "name": name, "digest": digest }),
        None => json!({ "digest": digest }),
    })
}
