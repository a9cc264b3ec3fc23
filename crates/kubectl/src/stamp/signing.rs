//! The attestation: what is verified of the annotations, signed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use countersign_api::PROVENANCE_PREFIX;
use countersign_core::provenance::attestation::statement::{Predicate, Statement};
use countersign_core::provenance::digest::template_digest;
use countersign_core::text::sanitize_lines;

use super::evidence::Evidence;
use super::git::Range;
use super::manifest;
use super::options::Options;
use super::problem::{StampError, shown_path};
use crate::clock;

/// The annotations of a review, without their prefix.
const REVIEW: [&str; 3] = ["reviewers", "approved-revision", "review-source"];

/// The value of the annotation, and a remark about what is not signed; the key is in PEM.
pub(super) fn attestation(
    options: &Options,
    key: &str,
    annotations: &BTreeMap<String, String>,
    evidence: &Evidence,
    range: &Range,
    manifests: &[(&Path, String)],
) -> Result<(String, Option<&'static str>), StampError> {
    let (verified, remark) = verified(annotations, evidence);
    let now = clock::now();
    let expires_at = options
        .valid_for
        .and_then(|valid| now.saturating_add(valid.signed()).ok());
    let about = Predicate {
        base: Some(range.base.clone()),
        repository: annotations
            .get(&format!("{PROVENANCE_PREFIX}repository"))
            .cloned(),
        rollouts: rollouts(options)?,
        template_digest: digest_of_template(options, manifests)?,
        signed_at: Some(now),
        expires_at,
        ..Predicate::default()
    };
    let images = options.image.iter().chain(&options.also_attest);
    let images: Vec<_> = images.map(String::as_str).collect();
    let signed = Statement::of(&images, &verified, about)
        .and_then(|it| it.sign(key, options.key.as_deref().unwrap_or_default()));
    let signed = signed.map_err(|source| StampError::Signing {
        file: options.sign.as_deref().map_or_else(String::new, shown_path),
        source,
    })?;
    Ok((signed, remark))
}

/// The annotations that are signed: a review only if the forge shows it, or its reviewer signed it.
fn verified(
    annotations: &BTreeMap<String, String>,
    evidence: &Evidence,
) -> (BTreeMap<String, String>, Option<&'static str>) {
    let mut verified = annotations.clone();
    if evidence.is_verified() {
        return (verified, None);
    }
    let review = REVIEW.map(|key| format!("{PROVENANCE_PREFIX}{key}"));
    let before = verified.len();
    verified.retain(|key, _| !review.contains(key));
    let remark = "the attestation leaves the review out, since anybody can write a trailer or a flag: pass the reviews of the forge with --event, or have the reviewers sign the commits with keys that git knows";
    let is_left_out = verified.len() < before;
    (verified, is_left_out.then_some(remark))
}

/// The Rollouts that the attestation is for.
fn rollouts(options: &Options) -> Result<BTreeSet<String>, StampError> {
    let rollout = |text: &String| {
        let named = text.split_once('/').filter(|(namespace, name)| {
            !namespace.is_empty() && !name.is_empty() && !name.contains('/')
        });
        named
            .map(|_| text.clone())
            .ok_or_else(|| StampError::Option {
                option: "--attest-rollout",
                value: sanitize_lines(text),
                remedy: "write NAMESPACE/NAME, and repeat the option for more",
            })
    };
    options.attest_rollout.iter().map(rollout).collect()
}

/// The digest of the one pod template in the manifests, if it is to be attested.
fn digest_of_template(
    options: &Options,
    manifests: &[(&Path, String)],
) -> Result<Option<String>, StampError> {
    if !options.attest_template {
        return Ok(None);
    }
    let mut digests = BTreeSet::new();
    for (path, text) in manifests {
        let templates = manifest::templates(text, options.rollout.as_deref());
        let templates = templates.map_err(|source| StampError::Manifest {
            file: shown_path(path),
            source,
        })?;
        digests.extend(templates.iter().map(template_digest));
    }
    match (digests.pop_first(), digests.pop_first()) {
        (Some(digest), None) => Ok(Some(digest)),
        (found, _) => Err(StampError::Option {
            option: "--attest-template",
            value: "true".into(),
            remedy: if found.is_some() {
                "the manifests of -f have several pod templates: name one Rollout with --rollout"
            } else {
                "no Rollout in the manifests of -f has a pod template: a Rollout with a workloadRef has none"
            },
        }),
    }
}
