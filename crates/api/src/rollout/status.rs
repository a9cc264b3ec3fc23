//! How a Rollout stands.

use crate::plan::Tier;
use crate::rollout::change::Change;
use crate::rollout::change::Revision;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// One human word for where a Rollout stands. Nothing is decided on it.
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

/// What the controller knows; the only state of the state machine.
// Without conditions an object is ready to kstatus, so the API server gives a Rollout that no controller has
// seen a generation that it never has: Flux, Helm and kpt then wait, even where no controller runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = { "observedGeneration": -1 }))]
pub struct RolloutStatus {
    /// Generation of the spec that this status speaks of; -1 until a controller has seen the Rollout.
    #[serde(default)]
    pub observed_generation: i64,
    /// One word for where the Rollout stands.
    #[serde(default)]
    pub phase: Phase,
    /// One sentence for where the Rollout stands, with the numbers behind it.
    #[serde(default)]
    pub message: String,
    /// What the change waits for, in a word or two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// What kind of waiting that is, which says what deadline runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_kind: Option<WaitingKind>,
    /// Present step of all steps, such as `2/5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Share of the traffic that the canary has, in percent: what is achieved of `change.weight`. Without routes it is its share of the available pods.
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
    /// Number of changes that were ever started, which gives each attempt an identity of its own.
    #[serde(default)]
    pub attempts: i64,
    /// Number of hash collisions met; it salts the next hash.
    #[serde(default)]
    pub collision_count: i32,
    /// The revision that serves; absent until a first one is available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<Revision>,
    /// The change under way, or the last one where it was rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// How the traffic is split; absent where no change is in the status, or nothing splits it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Split>,
    /// Services that are kept on a revision; one whose name leaves the spec is released.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 16))]
    pub services: BTreeSet<String>,
    /// How far an adopted workload has handed over its pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<Adopted>,
}

/// Kinds of waiting, by the deadline that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WaitingKind {
    /// A person or an idle workload wants it so: no deadline runs.
    Requested,
    /// People must sign: each gate has its own `waitAtMost`.
    People,
    /// Time alone ends it.
    Time,
    /// Pods, references or data are missing: `progressDeadlineSeconds` since the last progress.
    Doubt,
    /// The evidence is clean but scarce: `progressDeadlineSeconds` of waiting for it, then the tier decides.
    Scarce,
}

/// How Services and routes split the traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Split {
    /// Share that the routes give the canary, in percent; the largest of several.
    #[serde(default)]
    pub weight: i32,
    /// Since when all is as it should be and the routers have accepted it; absent while it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<Time>,
    /// Since when the routes have had the present weights; only where their status does not say which generation it means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weighed_at: Option<Time>,
    /// The share that it is settled at, in percent.
    #[serde(default)]
    pub settled_weight: i32,
    /// The lowest share since the weights were last settled for the drain time, in percent: something may
    /// still send by it.
    #[serde(default)]
    pub lowest_weight: i32,
    /// The highest share since then, in percent.
    #[serde(default)]
    pub highest_weight: i32,
    /// When weights that somebody else had set were last set back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrected_at: Option<Time>,
}

/// How far an adopted workload has handed over its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Adopted {
    /// Name of the workload.
    pub name: String,
    /// Since when the Rollout's own pods have been able to serve in place of its pods; absent while they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed_over_at: Option<Time>,
    /// Whether it has been scaled down to none.
    #[serde(default)]
    pub scaled_down: bool,
    /// When it was last scaled down again after somebody else had scaled it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrected_at: Option<Time>,
    /// Since when its own pods serve again; absent while the Rollout is not being deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_back_at: Option<Time>,
}
