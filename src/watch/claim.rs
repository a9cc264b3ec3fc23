//! What a Rollout claims, as far as other Rollouts must know it.

use std::collections::BTreeMap;

use countersign_api::{Rollout, Selector};
use countersign_core::reason::Reason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use serde::{Deserialize, Serialize};

/// A Rollout reduced to what other Rollouts must know of it. A field of another shape than this
/// build knows cannot stop the watch.
#[derive(Resource, Clone, Debug, Default, Deserialize, Serialize)]
#[resource(inherit = "Rollout")]
#[serde(default)]
pub struct Claim {
    /// Name, labels and a hash of the annotations.
    pub metadata: ObjectMeta,
    /// The parts that claim something.
    pub spec: ClaimSpec,
    /// How it stands.
    pub status: ClaimStatus,
}

/// How a Rollout stands.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimStatus {
    /// Percent of the traffic that its canary has.
    pub weight: i32,
    /// Whether it has a stable revision.
    pub stable: Option<ClaimRevision>,
    /// What it waits for, in one word.
    pub waiting_for: Option<String>,
    /// Its last change.
    pub change: Option<ClaimChange>,
}

/// Whether a change is under way.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaimChange {
    /// How it ended; `None` while it is under way.
    pub outcome: Option<String>,
}

/// That there is a revision, whichever.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct ClaimRevision {}

/// What a Rollout claims.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimSpec {
    /// The pods that it selects.
    pub selector: Selector,
    /// Its pods' metadata.
    pub template: ClaimTemplate,
    /// The workload that it adopts.
    pub workload_ref: Option<ClaimWorkload>,
    /// Its strategy.
    pub strategy: ClaimStrategy,
    /// The Rollouts that it depends on.
    pub depends_on: Vec<String>,
}

/// A workload that a Rollout adopts.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaimWorkload {
    /// Its name.
    pub name: String,
}

/// Metadata of the pods that a Rollout makes.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaimTemplate {
    /// Metadata of the pods.
    pub metadata: ClaimLabels,
}

/// Labels of the pods that a Rollout makes.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaimLabels {
    /// Labels of the pods.
    pub labels: BTreeMap<String, String>,
}

/// The strategy of a Rollout, as far as it claims something.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaimStrategy {
    /// The canary.
    pub canary: ClaimServices,
}

/// The Services that a Rollout claims.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimServices {
    /// Service of the stable revision.
    pub stable_service: Option<String>,
    /// Service of the canary.
    pub canary_service: Option<String>,
    /// Its routes.
    pub traffic: Option<ClaimTraffic>,
}

/// The routes that a Rollout names. One that this build does not know is left out.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaimTraffic {
    /// The routes.
    pub routes: Vec<ClaimRoute>,
}

/// A route that a Rollout names.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaimRoute {
    /// Its kind, as it is written.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl Claim {
    pub(super) fn routes(&self) -> impl Iterator<Item = &ClaimRoute> {
        let traffic = self.spec.strategy.canary.traffic.as_ref();
        traffic.into_iter().flat_map(|traffic| &traffic.routes)
    }

    /// Whether this Rollout claims a Service of this name.
    #[must_use]
    pub fn claims_service(&self, name: &str) -> bool {
        self.services().any(|service| service == name)
    }

    fn services(&self) -> impl Iterator<Item = &String> {
        let canary = &self.spec.strategy.canary;
        canary.stable_service.iter().chain(&canary.canary_service)
    }

    /// What this Rollout and `other` both claim, in a sentence.
    #[must_use]
    pub fn conflict(&self, other: &Self) -> Option<String> {
        let name = other.name_any();
        if let Some(service) = self
            .services()
            .find(|service| other.services().any(|s| s == *service))
        {
            return Some(format!(
                "Rollout {name} already claims Service {service} (spec.strategy.canary)"
            ));
        }
        let workload = |claim: &Self| claim.spec.workload_ref.as_ref().map(|it| it.name.clone());
        if let Some(workload) = workload(self).filter(|own| workload(other).as_ref() == Some(own)) {
            return Some(format!(
                "Rollout {name} already adopts Deployment {workload} (spec.workloadRef)"
            ));
        }
        // The pods of an adopted workload are known by the workload alone.
        let pods = |a: &Self, b: &Self| {
            !a.spec.selector.is_empty() && a.spec.selector.matches(&b.spec.template.metadata.labels)
        };
        (pods(self, other) || pods(other, self))
            .then(|| format!("Rollout {name} already claims the same pods (spec.selector)"))
    }

    /// Whether `other` may go on once this Rollout is gone: it claims the same, or depends on it.
    #[must_use]
    pub fn held_up(&self, other: &Self) -> bool {
        let waits = other
            .status
            .waiting_for
            .as_ref()
            .is_some_and(|it| *it == Reason::Conflict);
        let depends = other.spec.depends_on.contains(&self.name_any());
        self.metadata.namespace == other.metadata.namespace
            && (waits || depends || self.conflict(other).is_some())
    }

    /// Whether a change of it is under way.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        let change = self.status.change.as_ref();
        change.is_some_and(|change| change.outcome.is_none())
    }

    /// Whether nothing serves yet, as far as is known, that could be lost.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.status.stable.is_none() && self.spec.workload_ref.is_none()
    }

    /// Whether this Rollout was there first.
    #[must_use]
    pub fn precedes(&self, other: &Self) -> bool {
        let age = |claim: &Self| {
            (
                claim.metadata.creation_timestamp.clone().map(|at| at.0),
                claim.uid(),
            )
        };
        age(self) < age(other)
    }
}
