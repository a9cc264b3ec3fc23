//! What a Rollout's spec asks for at this moment, and what the policies say to it.

use super::analysis::{self, Checks};
use super::observation::Observation;
use super::plan;
use super::policy::{self, Effective};
use super::provenance::{self, Provenance};
use super::risk::{self, Facts, Risk};
use crate::api::plan::Tier;
use crate::api::policy::Difference;
use crate::api::rollout::{Outcome, Plan};
use k8s_openapi::jiff::SignedDuration;
use std::collections::BTreeSet;

/// How long a rollback counts against the changes that follow it.
const ROLLBACK_MEMORY: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The pods that are asked for, with what tells this change from every other.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// SHA-256 of pod template and provenance.
    pub digest: String,
    /// SHA-256 of the pod template.
    pub template_digest: String,
    /// Value of the pods' label `pod-template-hash`.
    pub hash: String,
    /// Number of hash collisions met so far.
    pub collision_count: i32,
    /// The provenance as it was read.
    pub provenance: Provenance,
    /// The policies merged.
    pub effective: Effective,
    /// The checks in force.
    pub checks: Checks,
}

impl Proposal {
    /// The proposal of an observation.
    #[must_use]
    pub fn of(observation: &Observation) -> Self {
        let template = &observation.spec.template;
        let effective = policy::effective(&observation.policies);
        let template_digest = provenance::template_digest(template);
        let (hash, collision_count) = hash(observation, &template_digest);
        Self {
            digest: provenance::change_digest(template, &observation.annotations),
            template_digest,
            hash,
            collision_count,
            provenance: Provenance::read(&observation.annotations, template),
            checks: analysis::checks(observation, &effective),
            effective,
        }
    }

    /// The risk of the change, beside what is stable now.
    #[must_use]
    pub fn risk(&self, observation: &Observation, after_rollback: bool) -> Risk {
        let model = &self.effective.risk;
        let facts = Facts {
            differences: differences(observation),
            criticality: risk::criticality(
                model,
                &observation.labels,
                &observation.namespace_labels,
            ),
            exposed: observation
                .services
                .values()
                .flatten()
                .any(|service| matches!(service.kind.as_str(), "LoadBalancer" | "NodePort")),
            after_rollback,
        };
        risk::risk_of(&self.provenance, &facts, model)
    }

    /// The plan for a change of this tier.
    #[must_use]
    pub fn plan(&self, observation: &Observation, tier: Tier) -> Plan {
        plan::plan_for(
            tier,
            &observation.spec.strategy.canary.steps,
            &self.effective,
        )
    }
}

/// The hash of the ReplicaSet that already runs this template, or a new one that no other has.
fn hash(observation: &Observation, template_digest: &str) -> (String, i32) {
    let mut collisions = observation.status.collision_count;
    let sets = &observation.replica_sets;
    if let Some(set) = sets
        .iter()
        .find(|set| set.template_digest == template_digest)
    {
        return (set.hash.clone(), collisions);
    }
    let mut hash = provenance::pod_template_hash(&observation.spec.template, collisions);
    while sets.iter().any(|set| set.hash == hash) {
        collisions = collisions.saturating_add(1);
        hash = provenance::pod_template_hash(&observation.spec.template, collisions);
    }
    (hash, collisions)
}

/// Whether an earlier change was rolled back lately.
#[must_use]
pub fn after_rollback(observation: &Observation) -> bool {
    observation.history.iter().any(|run| {
        run.outcome == Some(Outcome::RolledBack)
            && run
                .ended_at
                .is_some_and(|at| observation.now.duration_since(at) < ROLLBACK_MEMORY)
    })
}

/// What differs from the stable template. Where that cannot be trusted (its ReplicaSet is gone, or
/// the copy in its annotation is not what was promoted) everything is taken to differ.
fn differences(observation: &Observation) -> BTreeSet<Difference> {
    let new = &observation.spec.template;
    let Some(stable) = &observation.status.stable else {
        return risk::differences(None, new);
    };
    let sets = &observation.replica_sets;
    sets.iter()
        .find(|set| set.hash == stable.pod_template_hash)
        .map(|set| &set.template)
        .filter(|template| provenance::template_digest(template) == stable.template_digest)
        .map_or_else(
            || Difference::ALL.into(),
            |template| risk::differences(Some(template), new),
        )
}
