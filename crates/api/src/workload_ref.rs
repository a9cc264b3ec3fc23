//! A workload that a Rollout adopts, and what happens to the pods when a Rollout is deleted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A workload whose pod template and selector the Rollout takes over. The workload is scaled down once the
/// Rollout's own pods serve.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadReference {
    /// Kind of the workload.
    #[serde(default)]
    pub kind: WorkloadKind,
    /// Name of the workload.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Kinds of workloads that can be adopted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WorkloadKind {
    /// A Deployment of `apps/v1`.
    #[default]
    Deployment,
}

/// What happens to the pods when their Rollout is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// The pods keep serving: an adopted Deployment gets its pods back, else the stable ReplicaSet stays.
    Keep,
    /// The pods are deleted too.
    Delete,
}
