//! The status of a Rollout.

use crate::rollout::change::Change;
use crate::rollout::change::Revision;
use crate::step::Tier;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Summary of a Rollout's state for people. No decision depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// The stable revision serves everything and no change is under way.
    Stable,
    /// A change is being staged.
    #[default]
    Progressing,
    /// A change waits for something other than time: evidence, a pause, capacity.
    Held,
    /// A change waits for people.
    AwaitingSignOff,
    /// The canary was accepted; the last revision's pods are being removed.
    Promoted,
    /// The canary was rejected; its pods are being removed.
    RollingBack,
    /// The change was rolled back or cannot proceed; the stable revision serves.
    Degraded,
}

/// The controller's state; the only state of the state machine.
// Without conditions an object is ready to kstatus, so the API server gives a Rollout that no controller has
// seen a generation that it never has: Flux, Helm and kpt then wait, even where no controller runs.
// It is one field to the API server, which would note for each whose it is: they are all the controller's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = { "observedGeneration": -1 }, "x-kubernetes-map-type" = "atomic"))]
pub struct RolloutStatus {
    /// Generation of the spec that this status describes; -1 until a controller has reconciled the Rollout.
    #[serde(default)]
    pub observed_generation: i64,
    /// Summary of the Rollout's state in one word.
    #[serde(default)]
    pub phase: Phase,
    /// Summary of the Rollout's state in a sentence, with its numbers.
    #[serde(default)]
    pub message: String,
    /// The reason for which the change waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// Kind of that wait, which decides the deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_kind: Option<WaitingKind>,
    /// Present step of all steps, such as `2/5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Share of the traffic that the canary has, in percent: the achieved part of `change.weight`. Without routes this is its share of the available pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<i32>,
    /// Risk tier of the change under way, or of the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// Conditions in the form that kstatus, `kubectl wait` and GitOps tools read.
    #[serde(default)]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Pods of all revisions.
    #[serde(default)]
    pub replicas: i32,
    /// Pods that run the present template.
    #[serde(default)]
    pub updated_replicas: i32,
    /// Ready pods of all revisions.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Available pods of all revisions.
    #[serde(default)]
    pub available_replicas: i32,
    /// The pods' selector as a string, for autoscalers.
    #[serde(default)]
    pub selector: String,
    /// Number of the latest revision.
    #[serde(default)]
    pub revision: i64,
    /// Number of changes that were ever started, which gives each attempt its own identity.
    #[serde(default)]
    pub attempts: i64,
    /// Number of hash collisions so far; it salts the next hash.
    #[serde(default)]
    pub collision_count: i32,
    /// The revision that serves; absent until a first one is available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<Revision>,
    /// The change under way, or the last one if it was rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// Split of the traffic; absent if no change is in the status, or nothing splits the traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Split>,
    /// Services that are kept on a revision; one whose name leaves the spec is released.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 16))]
    pub services: BTreeSet<String>,
    /// Progress of the adoption of a workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<Adopted>,
    /// When a change was last rolled back, which adds to the risk of the changes within the next seven days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rollback_at: Option<Time>,
}

/// Kinds of waits, by their deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WaitingKind {
    /// A requested hold, or an idle workload: no deadline runs.
    Requested,
    /// People must sign: each gate has its own `waitAtMost`.
    People,
    /// Time ends the wait.
    Time,
    /// Pods, references or data are missing: `progressDeadlineSeconds` since the last progress.
    Doubt,
    /// The evidence is clean but scarce: after `extendAtMost` of waiting the tier decides.
    Scarce,
}

/// How Services and routes split the traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Split {
    /// Share that the routes give the canary, in percent; the largest of several.
    #[serde(default)]
    pub weight: i32,
    /// Since when Services and routes are as decided and the routers have accepted them; absent while they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<Time>,
    /// Since when the routes have had the present weights; only if their status does not report which generation it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weighed_at: Option<Time>,
    /// The settled share, in percent.
    #[serde(default)]
    pub settled_weight: i32,
    /// The lowest share since the weights were last settled for the drain time, in percent: a router
    /// may still send by it.
    #[serde(default)]
    pub lowest_weight: i32,
    /// The highest share since then, in percent.
    #[serde(default)]
    pub highest_weight: i32,
    /// When foreign changes of weights, subsets or a route for testers were last set back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrected_at: Option<Time>,
}

/// Progress of the adoption of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Adopted {
    /// Name of the workload.
    pub name: String,
    /// Since when the Rollout's own pods can serve in place of the workload's; absent while they cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed_over_at: Option<Time>,
    /// Whether the workload is scaled down to 0.
    #[serde(default)]
    pub scaled_down: bool,
    /// When the workload was last scaled down again after a foreign scale-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrected_at: Option<Time>,
    /// Since when the workload's own pods serve again; absent while the Rollout is not being deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_back_at: Option<Time>,
}
