//! `SignOff`: one person's decision on one exact change.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::person::Person;

/// One person's decision on one exact change; it cannot be edited.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "countersign.dev",
    version = "v1alpha1",
    kind = "SignOff",
    namespaced,
    status = "SignOffStatus",
    shortname = "cso",
    category = "countersign",
    derive = "PartialEq",
    doc = "One person's decision on one exact change of a Rollout; it cannot be edited.",
    selectable = ".spec.rolloutUid",
    selectable = ".spec.run",
    selectable = ".spec.decision",
    printcolumn(name = "Rollout", type_ = "string", json_path = ".spec.rollout"),
    printcolumn(name = "Decision", type_ = "string", json_path = ".spec.decision"),
    printcolumn(name = "Gate", type_ = "string", json_path = ".spec.gate"),
    printcolumn(
        name = "Approver",
        type_ = "string",
        json_path = ".spec.approver.username"
    ),
    printcolumn(
        name = "Counts",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Counts\")].reason"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".spec.reason",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self == oldSelf").message("a sign-off cannot be edited: make another one"),
    validation = Rule::new("self.decision == 'Approve' || (has(self.reason) && size(self.reason) > 0)").message("spec.reason: say why the change is rejected or waved through"),
    validation = Rule::new("self.decision == 'Approve' || !has(self.gate)").message("spec.gate is for approvals: a rejection or break-glass is for all gates"),
)]
pub struct SignOffSpec {
    /// Name of the Rollout.
    #[schemars(length(min = 1, max = 253))]
    pub rollout: String,
    /// Uid of the Rollout.
    #[schemars(length(min = 1, max = 64))]
    pub rollout_uid: String,
    /// The attempt at the change, by the name of its RolloutRun (`status.change.run` of the Rollout).
    #[schemars(length(min = 1, max = 253))]
    pub run: String,
    /// SHA-256 of pod template, provenance and where traffic goes, in hexadecimal (`status.change.digest` of the Rollout).
    #[schemars(length(min = 64, max = 64))]
    pub digest: String,
    /// The decision.
    pub decision: SignOffDecision,
    /// The gate of the sign-off: `step-N` before step N, `promotion` before full promotion, `evidence-N` to accept scarce evidence of step N. If not set, every gate but those for scarce evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^(step-[1-9][0-9]{0,2}|promotion|evidence-[1-9][0-9]{0,2})$')").message("write step-N, promotion or evidence-N"))]
    #[schemars(length(max = 16))]
    pub gate: Option<String>,
    /// The reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// The person who decided.
    pub approver: Person,
    /// Time from which the sign-off no longer counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
}

/// What a person decided about a change.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum SignOffDecision {
    /// The change may continue.
    Approve,
    /// The change is rolled back.
    Reject,
    /// The change continues without waits and without sign-off, but not without analysis.
    BreakGlass,
}

/// The controller's evaluation of a sign-off.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignOffStatus {
    /// `Counts`: whether the sign-off counts, and if not, why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub conditions: Vec<Condition>,
}
