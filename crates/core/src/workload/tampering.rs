//! ReplicaSets that another writer edited: they are named, and replaced by what was decided.
//!
//! Pods that were made meanwhile may run anything, so no template is put back in place. The revision gets another
//! hash, and with it another ReplicaSet; the edited one goes like that of an earlier revision, once its pods are
//! no longer needed.

use countersign_api::PodTemplate;
use countersign_api::rollout::{Change, RolloutStatus};

use crate::hold::{Hold, HoldKind};
use crate::limits::FOREIGN_TEXT;
use crate::observation::Observation;
use crate::observation::workload::{Edit, Integrity, ReplicaSet};
use crate::proposal::{self, Proposal};
use crate::provenance::digest;
use crate::reason::Reason;
use crate::replicas::present;
use crate::text::sanitize_to;

/// ReplicaSets of one template that may have been edited before no further one is made of it.
const MOST_REPLACED: usize = 3;

/// The edited ReplicaSets that have pods, or belong to a revision in use.
fn edited(observation: &Observation) -> impl Iterator<Item = (&ReplicaSet, &Edit)> {
    let status = &observation.status;
    let stable = status.stable.as_ref().map(|it| &it.pod_template_hash);
    let change = status.change.as_ref().filter(|it| it.outcome.is_none());
    let change = change.map(|it| &it.pod_template_hash);
    let sets = observation.replica_sets.iter().filter(move |set| {
        let in_use = [stable, change].contains(&Some(&set.hash));
        set.owned && (set.has_pods() || in_use)
    });
    sets.filter_map(|set| Some((set, set.edit()?)))
}

/// Whether pods may run another template than was decided.
#[must_use]
pub fn is_present(observation: &Observation) -> bool {
    edited(observation).next().is_some()
}

/// All edits, in a sentence; `None` if there is none.
#[must_use]
pub fn summary(observation: &Observation) -> Option<String> {
    let all: Vec<_> = edited(observation)
        .map(|(set, edit)| describe(set, edit))
        .collect();
    (!all.is_empty()).then(|| all.join("; "))
}

fn describe(set: &ReplicaSet, edit: &Edit) -> String {
    let writer = edit.writer.as_deref();
    let writer = writer.map_or_else(|| "somebody".into(), |it| sanitize_to(it, FOREIGN_TEXT));
    let at = edit.at.map(|at| format!(" at {at:.0}")).unwrap_or_default();
    format!(
        "ReplicaSet {} is not as it was decided: {writer} edited its {}{at}",
        set.name, edit.what
    )
}

/// Why a change ends: its evidence may be about other pods. A first revision is replaced instead.
#[must_use]
pub fn of_canary(observation: &Observation, change: &Change) -> Option<String> {
    let set = present::with_hash(observation, Some(&change.pod_template_hash))?;
    let edit = set.edit().filter(|_| !change.initial)?;
    Some(format!(
        "{}, so its pods may not be those of the change",
        describe(set, edit)
    ))
}

/// The hold while pods of an edited ReplicaSet exist. Those of a rejected change only remain to be removed.
#[must_use]
pub fn hold(observation: &Observation) -> Option<Hold> {
    let status = &observation.status;
    let stable = status.stable.as_ref();
    let rejected = status.change.as_ref().filter(|change| {
        let is_stable = stable.is_some_and(|it| it.pod_template_hash == change.pod_template_hash);
        !change.initial && !is_stable
    });
    let (set, edit) = edited(observation)
        .find(|(set, _)| rejected.is_none_or(|it| it.pod_template_hash != set.hash))?;
    let of_stable = stable.filter(|it| it.pod_template_hash == set.hash);
    let digest = of_stable.map_or(&set.template_digest, |it| &it.template_digest);
    let template = if is_desired(observation, digest) {
        Some(&observation.spec.template)
    } else {
        proposal::recorded(observation, digest)
    };
    let remedy = match (of_stable, template) {
        (Some(stable), None) => format!(
            "and no RolloutRun keeps the template of revision {}, which is stable: apply that template to the Rollout",
            stable.revision
        ),
        (_, Some(template)) if is_given_up(observation, set, template) => format!(
            "and so were {MOST_REPLACED} others of this template: exempt ReplicaSets from the webhook or controller that edits them, then delete those without pods"
        ),
        _ => "its pods are replaced by pods of what was decided".to_owned(),
    };
    Some(Hold {
        kind: HoldKind::Doubt,
        reason: Reason::Tampered,
        message: format!("{}; {remedy}", describe(set, edit)),
    })
}

/// The hold while it is unknown whether stable and canary run what was decided.
#[must_use]
pub fn doubt(observation: &Observation, change: &Change) -> Option<Hold> {
    let stable = observation.status.stable.as_ref();
    let stable = stable.map(|it| it.pod_template_hash.as_str());
    let in_use = [stable, Some(change.pod_template_hash.as_str())];
    let mut sets = in_use
        .into_iter()
        .filter_map(|hash| present::with_hash(observation, hash));
    let (set, message) = sets.find_map(|set| match &set.integrity {
        Integrity::Unverified { message } => Some((set, message)),
        Integrity::Sound | Integrity::Admitted { .. } | Integrity::Edited(_) => None,
    })?;
    let message = sanitize_to(message, FOREIGN_TEXT);
    Some(Hold {
        kind: HoldKind::Doubt,
        reason: Reason::TemplateUnverified,
        message: format!(
            "it is not known whether ReplicaSet {} is as it was decided: {message}",
            set.name
        ),
    })
}

/// The other ReplicaSets that were made of a template and are not known to be as it was decided. They are known by their
/// hashes: what others claim by annotations must not keep an edited one from being replaced.
fn of_same_template<'a>(
    observation: &'a Observation,
    edited: &ReplicaSet,
    template: &PodTemplate,
) -> impl Iterator<Item = &'a ReplicaSet> {
    let collisions = observation.status.collision_count;
    let is_of_template =
        move |hash: &str| (0..=collisions).any(|it| digest::is_hash_of(hash, template, it));
    let others = observation.replica_sets.iter();
    others.filter(move |it| {
        it.owned && !it.is_sound() && it.hash != edited.hash && is_of_template(&it.hash)
    })
}

/// Whether so many were edited that another one would be edited, too: by a webhook whose answers differ, or a
/// controller.
fn is_given_up(observation: &Observation, edited: &ReplicaSet, template: &PodTemplate) -> bool {
    of_same_template(observation, edited, template).count() >= MOST_REPLACED
}

/// Whether the spec requests the template with this digest.
fn is_desired(observation: &Observation, template_digest: &str) -> bool {
    let template = &observation.spec.template;
    !template.is_absent() && digest::template_digest(template) == template_digest
}

/// Keeps the digests of stored templates that admission made of decided ones.
pub(crate) fn keep_admitted(observation: &Observation, status: &mut RolloutStatus) {
    for set in observation.replica_sets.iter().filter(|set| set.owned) {
        let Integrity::Admitted { digest } = &set.integrity else {
            continue;
        };
        let (stable, change) = (&mut status.stable, &mut status.change);
        if let Some(change) = change {
            if change.pod_template_hash == set.hash {
                change.stored_template_digest = Some(digest.clone());
            }
            let previous = change.previous.as_mut();
            if let Some(previous) = previous.filter(|it| it.pod_template_hash == set.hash) {
                previous.stored_template_digest = Some(digest.clone());
            }
        }
        if let Some(stable) = stable
            .as_mut()
            .filter(|it| it.pod_template_hash == set.hash)
        {
            stable.stored_template_digest = Some(digest.clone());
        }
    }
}

/// Gives a revision whose ReplicaSet was edited another hash, by which it gets another ReplicaSet: the stable one, the
/// one before it while it may come back, and a first one. Returns what happens, in a sentence.
pub(crate) fn replace(
    observation: &Observation,
    proposal: &Proposal,
    status: &mut RolloutStatus,
) -> Option<String> {
    if observation.deleting {
        return None;
    }
    let change = status.change.as_ref();
    let first = change.filter(|it| it.initial && it.outcome.is_none());
    let first = first.map(|it| (&it.pod_template_hash, &it.template_digest, it.revision));
    let previous = change.and_then(|it| it.previous.as_ref());
    let revisions = status.stable.iter().chain(previous);
    let revisions = revisions.map(|it| (&it.pod_template_hash, &it.template_digest, it.revision));
    let (set, edit, template_digest, revision) =
        revisions
            .chain(first)
            .find_map(|(hash, digest, revision)| {
                let set = present::with_hash(observation, Some(hash.as_str()))?;
                Some((set, set.edit()?, digest, revision))
            })?;
    let template = decided_template(observation, proposal, template_digest)?;
    // One after the other, and not forever: what edits each new one would fill the namespace with them.
    let busy = of_same_template(observation, set, template).any(ReplicaSet::has_pods);
    if busy || is_given_up(observation, set, template) {
        return None;
    }
    let (hash, collisions) = proposal::unused_hash(observation, template, status.collision_count);
    let message = format!(
        "{}; revision {revision} gets another ReplicaSet, {hash}",
        describe(set, edit)
    );
    rename(status, &set.hash, &hash);
    status.collision_count = collisions;
    Some(message)
}

/// Gives a revision another hash if the name of its ReplicaSet belongs to another one: after a collision of hashes, as a
/// Deployment does, and after others have planted it.
pub(crate) fn rename_taken(
    observation: &Observation,
    proposal: &Proposal,
    status: &mut RolloutStatus,
) {
    if let Some((taken, hash, collisions)) = other_name(observation, proposal, status) {
        rename(status, taken, &hash);
        status.collision_count = collisions;
    }
}

/// The hash of a revision whose name is taken, with another one and its collision count.
fn other_name<'a>(
    observation: &'a Observation,
    proposal: &Proposal,
    status: &RolloutStatus,
) -> Option<(&'a str, String, i32)> {
    let taken = observation.taken_revision.as_deref()?;
    if observation.deleting || present::with_hash(observation, Some(taken)).is_some() {
        return None;
    }
    let change = status.change.iter().filter(|it| it.outcome.is_none());
    let change = change.map(|it| (&it.pod_template_hash, &it.template_digest));
    let stable = status.stable.iter();
    let stable = stable.map(|it| (&it.pod_template_hash, &it.template_digest));
    let (_, template_digest) = stable
        .chain(change)
        .find(|(hash, _)| hash.as_str() == taken)?;
    let template = decided_template(observation, proposal, template_digest)?;
    let (hash, collisions) = proposal::unused_hash(observation, template, status.collision_count);
    Some((taken, hash, collisions))
}

/// The template of a revision, by its digest; `None` if nothing keeps it, or an adopted workload cannot be read.
fn decided_template<'a>(
    observation: &'a Observation,
    proposal: &Proposal,
    template_digest: &str,
) -> Option<&'a PodTemplate> {
    let template = if *template_digest == proposal.template_digest {
        &observation.spec.template
    } else {
        proposal::recorded(observation, template_digest)?
    };
    (!template.is_absent()).then_some(template)
}

/// Gives the revisions with a hash another one.
fn rename(status: &mut RolloutStatus, from: &str, to: &str) {
    let change = status.change.as_mut();
    let of_change = change.into_iter().flat_map(|change| {
        let previous = change.previous.as_mut();
        let previous = previous.map(|it| &mut it.pod_template_hash);
        [Some(&mut change.pod_template_hash), previous]
    });
    let stable = status.stable.as_mut().map(|it| &mut it.pod_template_hash);
    for hash in of_change.chain([stable]).flatten() {
        if *hash == *from {
            to.clone_into(hash);
        }
    }
}
