//! `Intervention`: one person's command on one exact change.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::person::Person;

/// One person's command on one exact change; it cannot be edited.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "countersign.dev",
    version = "v1alpha1",
    kind = "Intervention",
    namespaced,
    status = "InterventionStatus",
    shortname = "civ",
    category = "countersign",
    derive = "PartialEq",
    doc = "One person's command on one exact change of a Rollout: abort, retry, promote, pause or resume; it cannot be edited.",
    selectable = ".spec.rolloutUid",
    selectable = ".spec.run",
    selectable = ".spec.action",
    printcolumn(name = "Rollout", type_ = "string", json_path = ".spec.rollout"),
    printcolumn(name = "Action", type_ = "string", json_path = ".spec.action"),
    printcolumn(name = "Person", type_ = "string", json_path = ".spec.person.username"),
    printcolumn(
        name = "Applied",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Applied\")].reason"
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
    validation = Rule::new("self == oldSelf").message("an intervention cannot be edited: make another one"),
    validation = Rule::new("(self.action == 'Promote') == has(self.step)").message("spec.step names the step whose bake is skipped: it is for Promote, which needs it"),
)]
pub struct InterventionSpec {
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
    /// The command.
    pub action: InterventionAction,
    /// The step whose bake is skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 200))]
    pub step: Option<i32>,
    /// The reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// The person who gives the command.
    pub person: Person,
}

/// A person's command on a change; each has its own RBAC verb on the Rollout.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum InterventionAction {
    /// Roll the change back.
    Abort,
    /// Try a rolled-back change again.
    Retry,
    /// Skip the rest of the present step's bake; no other gate and no analysis is skipped.
    Promote,
    /// Hold the change at its present step; its canary is still judged, and rolled back if it fails.
    Pause,
    /// Continue after a pause.
    Resume,
}

impl InterventionAction {
    /// The RBAC verb on the Rollout that allows the command.
    #[must_use]
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Abort => "abort",
            Self::Retry => "retry",
            Self::Promote => "promote",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

/// What the controller did with an intervention.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InterventionStatus {
    /// `Applied`: whether the command was carried out, and if not, why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub conditions: Vec<Condition>,
}
