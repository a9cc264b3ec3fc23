//! `RolloutRun`: the record of one change, written only by the controller.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::pod_template::PodTemplate;
use super::policy::Enforcement;
use super::rollout::{Observed, Outcome, Plan, Stage, Transition};
use super::step::Tier;

/// Description of a change, fixed when the change begins.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "countersign.dev",
    version = "v1alpha1",
    kind = "RolloutRun",
    namespaced,
    shortname = "crr",
    category = "countersign",
    derive = "PartialEq",
    doc = "The record of one change: provenance, risk with reasons, plan, evidence, transitions and outcome.",
    selectable = ".spec.rollout",
    printcolumn(name = "Rollout", type_ = "string", json_path = ".spec.rollout"),
    printcolumn(name = "Revision", type_ = "integer", json_path = ".spec.revision"),
    printcolumn(name = "Tier", type_ = "string", json_path = ".spec.risk.tier"),
    printcolumn(name = "Score", type_ = "number", json_path = ".spec.risk.score"),
    printcolumn(
        name = "Outcome",
        type_ = "string",
        json_path = ".spec.progress.outcome"
    ),
    printcolumn(
        name = "Contributor",
        type_ = "string",
        json_path = ".spec.provenance.annotations.contributor",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".spec.progress.message",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
// As the status of a Rollout, all of it is the controller's.
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct RolloutRunSpec {
    /// Name of the Rollout.
    pub rollout: String,
    /// SHA-256 of pod template, provenance and where traffic goes, in hexadecimal.
    pub digest: String,
    /// Value of the pods' label `pod-template-hash`.
    pub pod_template_hash: String,
    /// Number of the revision.
    pub revision: i64,
    /// SHA-256 of the pod template, in hexadecimal; absent in older records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub template_digest: Option<String>,
    /// Images of the new template.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub images: Vec<String>,
    /// Pod template of the revision as it was applied, from which a lost ReplicaSet is created again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "kept")]
    pub template: Option<PodTemplate>,
    /// Where the traffic goes: `stableService`, `canaryService`, `traffic` and `dynamicStable` of `spec.strategy.canary`, and the `mirrors` of its steps, when the change began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "kept")]
    pub traffic: Option<Value>,
    /// Unified diff of template, provenance and traffic from the stable revision to the change, without Kubernetes' defaults; its end is cut. Absent for a first revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16_384))]
    pub difference: Option<String>,
    /// Provenance as it was read from the annotations.
    #[serde(default)]
    pub provenance: RecordedProvenance,
    /// Risk with every contribution.
    #[serde(default)]
    pub risk: RecordedRisk,
    /// The plan in force.
    #[serde(default)]
    pub plan: Plan,
    /// Whether the policies' demands held for this change.
    #[serde(default)]
    pub enforcement: Enforcement,
    /// What the policies that only observe would have demanded; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
    /// Progress and outcome of the change.
    #[serde(default)]
    pub progress: Progress,
}

/// The value was validated in the Rollout, and is kept as stored there.
fn kept(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

/// Provenance as it was read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordedProvenance {
    /// State of the provenance: `Declared`, `Absent`, `Stale`, `Malformed` or `Unattested`.
    #[serde(default)]
    pub state: String,
    /// SHA-256 of all its annotations, in hexadecimal: the same provenance says nothing of another template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub digest: Option<String>,
    /// The annotations, without their prefix, each cut at 256 characters.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: std::collections::BTreeMap<String, String>,
    /// Annotations that could not be read, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub problems: Vec<String>,
}

/// Risk as it was scored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordedRisk {
    /// Sum of all points.
    #[serde(default)]
    pub score: f64,
    /// Tier of the score and the floors.
    #[serde(default)]
    pub tier: Tier,
    /// Versions of the weights, by policy.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub versions: Vec<String>,
    /// Every contribution in the order in which it was counted.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub contributions: Vec<Contribution>,
}

/// One reason for a score or a tier.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Contribution {
    /// The factor's name in the policy.
    pub factor: String,
    /// Points that it adds.
    pub points: f64,
    /// Lowest tier that it demands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Tier>,
    /// The reason in a sentence.
    pub reason: String,
}

/// Progress and outcome of a change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Stage of the change.
    #[serde(default)]
    pub stage: Stage,
    /// Outcome of the change; absent while it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The last transition in a sentence.
    #[serde(default)]
    pub message: String,
    /// When the change began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the change ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// Transitions in order, with their numbers.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub transitions: Vec<Transition>,
}
