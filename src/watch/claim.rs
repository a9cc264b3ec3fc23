//! The claims of a Rollout that matter to other Rollouts.

use std::collections::BTreeMap;

use countersign_api::step::Tier;
use countersign_api::{Rollout, RouteKind};
use countersign_core::reason::Reason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt};
use serde::{Deserialize, Serialize};

/// The fields of a Rollout that matter to other Rollouts. Fields of an unknown shape cannot stop the
/// watch.
#[derive(Resource, Clone, Debug, Default, Deserialize, Serialize)]
#[resource(inherit = "Rollout")]
#[serde(default)]
pub struct Claim {
    /// Name and labels.
    pub metadata: ObjectMeta,
    /// The hash of the annotations.
    #[serde(skip)]
    pub annotations: u64,
    /// The claims.
    pub spec: ClaimSpec,
    /// The status.
    pub status: ClaimStatus,
}

/// The status of a Rollout.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimStatus {
    /// Percent of the traffic of its canary.
    pub weight: i32,
    /// The stable revision, if any.
    pub stable: Option<ClaimRevision>,
    /// The reason that it waits for.
    pub waiting_for: Option<String>,
    /// Its last change.
    pub change: Option<ClaimChange>,
}

/// The last change of a Rollout. Unknown values are kept as text, and take a place among the changes under way.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimChange {
    /// Whether it is a first revision.
    pub initial: bool,
    /// Its stage, as written.
    pub stage: String,
    /// Its tier, as written.
    pub tier: String,
    /// The outcome; `None` while the change is in progress.
    pub outcome: Option<String>,
    /// Since when it is queued.
    pub queued_at: Option<Time>,
}

/// Marks that a stable revision exists; its fields are not needed.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct ClaimRevision {}

/// The claims of a Rollout.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimSpec {
    /// The pod selector.
    pub selector: ClaimSelector,
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

/// The pod template of a Rollout.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaimTemplate {
    /// Metadata of the pods.
    pub metadata: ClaimLabels,
}

/// The pod metadata of a Rollout.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaimLabels {
    /// Labels of the pods.
    pub labels: Labels,
}

/// The pod selector of a Rollout.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimSelector {
    /// The labels that it requires.
    pub match_labels: Labels,
}

/// Few labels, in less memory than a map takes.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Labels(Box<[(String, String)]>);

impl From<BTreeMap<String, String>> for Labels {
    fn from(labels: BTreeMap<String, String>) -> Self {
        Self(labels.into_iter().collect())
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.0.into_iter().collect()
    }
}

/// The claims of a Rollout's strategy.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaimStrategy {
    /// The canary.
    pub canary: ClaimServices,
}

/// The Services that a Rollout claims, and what it names beside them.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimServices {
    /// Service of the stable revision.
    pub stable_service: Option<String>,
    /// Service of the canary.
    pub canary_service: Option<String>,
    /// Its routes.
    pub traffic: Option<ClaimTraffic>,
    /// Its analysis.
    pub analysis: Option<ClaimAnalysis>,
}

/// The analysis of a Rollout.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaimAnalysis {
    /// The AnalysisTemplates that it uses.
    pub templates: Vec<ClaimTemplateUse>,
}

/// An AnalysisTemplate that a Rollout uses.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaimTemplateUse {
    /// Its name.
    pub name: String,
}

/// The routes of a Rollout, without kinds that this build does not know.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaimTraffic {
    /// The routes.
    pub routes: Vec<ClaimRoute>,
}

/// A route of a Rollout.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimRoute {
    /// Its kind, as written, or the default: no default of a list is stored.
    #[serde(default = "default_kind")]
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The DestinationRule of its subsets.
    pub destination_rule: Option<ClaimSubsets>,
}

fn default_kind() -> String {
    RouteKind::default().as_str().to_owned()
}

/// A DestinationRule of a Rollout.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaimSubsets {
    /// Its name.
    pub name: String,
}

impl Claim {
    pub(super) fn routes(&self) -> impl Iterator<Item = &ClaimRoute> {
        let traffic = self.spec.strategy.canary.traffic.as_ref();
        traffic.into_iter().flat_map(|traffic| &traffic.routes)
    }

    /// The names of the AnalysisTemplates that this Rollout uses.
    pub(crate) fn templates(&self) -> impl Iterator<Item = &String> {
        let analysis = self.spec.strategy.canary.analysis.as_ref();
        let used = analysis.into_iter().flat_map(|it| &it.templates);
        used.map(|it| &it.name)
    }

    /// Whether this Rollout claims a Service of this name.
    #[must_use]
    pub fn claims_service(&self, name: &str) -> bool {
        self.services().any(|service| service == name)
    }

    pub(super) fn services(&self) -> impl Iterator<Item = &String> {
        let canary = &self.spec.strategy.canary;
        canary.stable_service.iter().chain(&canary.canary_service)
    }

    /// The conflict between the claims of this Rollout and `other`, in a sentence.
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
        // The pods of an adopted workload are identified by the workload alone.
        let pods = |a: &Self, b: &Self| {
            let (required, labels) = (
                &a.spec.selector.match_labels,
                &b.spec.template.metadata.labels,
            );
            !required.0.is_empty() && required.0.iter().all(|it| labels.0.contains(it))
        };
        (pods(self, other) || pods(other, self))
            .then(|| format!("Rollout {name} already claims the same pods (spec.selector)"))
    }

    /// Whether `other` may proceed once this Rollout is deleted: it claims the same, or depends on it.
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

    /// Whether a change is in progress.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        let change = self.status.change.as_ref();
        change.is_some_and(|change| change.outcome.is_none())
    }

    /// Whether a change is in progress, or is being rolled back.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        let change = self.status.change.as_ref();
        self.is_changing() || change.is_some_and(|change| change.stage == "RollingBack")
    }

    /// Whether changes that wait in the queue may advance once this Rollout is deleted: it takes a place among the
    /// changes under way, or stands before them.
    #[must_use]
    pub fn holds_up_queue(&self) -> bool {
        let queued = self.status.waiting_for.as_ref();
        let change = self.status.change.as_ref();
        queued.is_some_and(|it| *it == Reason::Queued)
            || change.is_some_and(|it| {
                let under_way = it.outcome.is_none() && it.stage != "Waiting";
                !it.initial && (under_way || it.stage == "RollingBack")
            })
    }

    /// The tier of its change and since when it is queued, if it is queued or in progress.
    #[must_use]
    pub fn place_in_queue(&self) -> Option<(Tier, Option<Timestamp>)> {
        let change = self.status.change.as_ref()?;
        if change.initial || self.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let tier = Tier::ALL.into_iter().find(|it| it.as_str() == change.tier);
        let tier = tier.unwrap_or(Tier::Critical);
        let waits = change.stage == "Waiting";
        let ended = change.outcome.is_some();
        if ended && change.stage != "RollingBack" {
            return None;
        }
        if !waits {
            return Some((tier, None));
        }
        let queued = self
            .status
            .waiting_for
            .as_ref()
            .is_some_and(|it| *it == Reason::Queued);
        let since = change.queued_at.as_ref().filter(|_| queued)?;
        Some((tier, Some(since.0)))
    }

    /// Whether the Rollout has no stable revision yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.status.stable.is_none() && self.spec.workload_ref.is_none()
    }

    /// Whether this Rollout is the older one.
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn place(change: &Value, waiting_for: &str) -> Option<(Tier, Option<Timestamp>)> {
        let claim = json!({
            "metadata": { "name": "web" }, "spec": { "replicas": "of a shape to come" },
            "status": { "waitingFor": waiting_for, "change": change },
        });
        let claim: Claim = serde_json::from_value(claim).unwrap();
        claim.place_in_queue()
    }

    #[test]
    fn a_route_without_a_kind_is_an_http_route() {
        let routes = json!([{ "name": "web" }, { "kind": "GRPCRoute", "name": "api" }]);
        let claim =
            json!({ "spec": { "strategy": { "canary": { "traffic": { "routes": routes } } } } });
        let claim: Claim = serde_json::from_value(claim).unwrap();
        let kinds: Vec<_> = claim.routes().map(|it| it.kind.as_str()).collect();
        assert_eq!(kinds, ["HTTPRoute", "GRPCRoute"]);
    }

    #[test]
    fn what_takes_a_place_and_what_waits_for_one() {
        let at = "2026-01-01T00:00:00Z";
        let since = at.parse().unwrap();
        for (change, waiting_for, expected) in [
            (
                json!({ "stage": "Stepping", "tier": "high" }),
                "Baking",
                Some((Tier::High, None)),
            ),
            (
                json!({ "stage": "Promoting", "tier": "low" }),
                "",
                Some((Tier::Low, None)),
            ),
            (
                json!({ "stage": "RollingBack", "tier": "high", "outcome": "RolledBack" }),
                "",
                Some((Tier::High, None)),
            ),
            (
                json!({ "stage": "RolledBack", "tier": "high", "outcome": "RolledBack" }),
                "",
                None,
            ),
            (
                json!({ "stage": "Promoted", "tier": "high", "outcome": "Promoted" }),
                "",
                None,
            ),
            (
                json!({ "stage": "Promoting", "tier": "high", "initial": true }),
                "",
                None,
            ),
            (
                json!({ "stage": "Waiting", "tier": "high", "queuedAt": at }),
                "Queued",
                Some((Tier::High, Some(since))),
            ),
            // Held by another gate, the change keeps its slot and is not queued.
            (
                json!({ "stage": "Waiting", "tier": "high", "queuedAt": at }),
                "Paused",
                None,
            ),
            // Unknown values count.
            (
                json!({ "stage": "Floating", "tier": "extreme" }),
                "",
                Some((Tier::Critical, None)),
            ),
        ] {
            assert_eq!(place(&change, waiting_for), expected, "{change}");
        }
    }
}
