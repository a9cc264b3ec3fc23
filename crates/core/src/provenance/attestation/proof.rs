//! Whether a statement proves the provenance of one change.
//!
//! A signature shows who said something, not of which change. A part of a change, signed alone, is small and reviewed;
//! an old attestation is of the code that was replaced for a reason. So a statement must count from the revision
//! that stable runs, and be of the Rollout, of the template and of the age that the policies demand. Otherwise
//! it counts as declared.

use countersign_api::PodTemplate;
use countersign_api::provenance::Covers;
use countersign_api::rollout::Revision;
use k8s_openapi::jiff::Timestamp;

use crate::policy::Effective;
use crate::provenance::attestation::problem::listed;
use crate::provenance::attestation::statement::Predicate;
use crate::provenance::attestation::unproven::Unproven;
use crate::provenance::digest::template_digest;
use crate::text::excerpt;

/// The change that an attestation should be of.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Namespace of the Rollout.
    pub namespace: &'a str,
    /// Name of the Rollout.
    pub name: &'a str,
    /// The pod template.
    pub template: &'a PodTemplate,
    /// The template of the stable pods, whose images need no further attestation; without it each image does.
    pub stable: Option<&'a PodTemplate>,
    /// The revision that the change replaces; `None` if it replaces none, so that there is nothing to count from.
    pub replaced: Option<&'a Revision>,
    /// Whether it is a first revision.
    pub first: bool,
    /// When the change began, or begins.
    pub began: Timestamp,
}

/// Why a statement proves nothing of the change; `None` if it proves all that it states.
pub(super) fn unproven(
    predicate: &Predicate,
    subject: &Subject<'_>,
    effective: &Effective,
) -> Option<Unproven> {
    let replaced = subject.replaced;
    let begins = subject.first || replaced.is_some();
    other_rollout(predicate, subject)
        .or_else(|| other_template(predicate, subject, effective))
        .or_else(|| replaced.and_then(|replaced| other_base(predicate, replaced)))
        // At rest nothing begins, and an attestation grows old.
        .or_else(|| begins.then(|| too_old(predicate, subject, effective))?)
}

fn other_rollout(predicate: &Predicate, subject: &Subject<'_>) -> Option<Unproven> {
    let named = &predicate.rollouts;
    let rollout = format!("{}/{}", subject.namespace, subject.name);
    (!named.is_empty() && !named.contains(&rollout)).then(|| Unproven::OtherRollout {
        named: listed(named.iter().map(String::as_str)),
        rollout,
    })
}

fn other_template(
    predicate: &Predicate,
    subject: &Subject<'_>,
    effective: &Effective,
) -> Option<Unproven> {
    match (effective.covers, &predicate.template_digest) {
        (Covers::Images, _) => None,
        (Covers::Template, None) => Some(Unproven::NoTemplate),
        (Covers::Template, Some(digest)) => {
            (*digest != template_digest(subject.template)).then_some(Unproven::OtherTemplate)
        }
    }
}

fn other_base(predicate: &Predicate, replaced: &Revision) -> Option<Unproven> {
    let Some(base) = &predicate.base else {
        return Some(Unproven::NoBase);
    };
    match &replaced.source_revision {
        None => Some(Unproven::UnknownStable {
            base: excerpt(base),
        }),
        Some(stable) if stable != base => Some(Unproven::OtherBase {
            base: excerpt(base),
            stable: excerpt(stable),
        }),
        Some(_) => None,
    }
}

fn too_old(
    predicate: &Predicate,
    subject: &Subject<'_>,
    effective: &Effective,
) -> Option<Unproven> {
    let max_age = effective.max_age?;
    let Some(signed_at) = predicate.signed_at else {
        return Some(Unproven::NoSigningTime { max_age });
    };
    let age = subject.began.duration_since(signed_at);
    (age > max_age.signed()).then_some(Unproven::TooOld { signed_at, max_age })
}

#[cfg(test)]
mod tests;
