//! Parts of a plan: tiers, steps and sign-off demands.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::Duration;

/// Risk of a change; a higher tier has at least the demands of a lower one.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Harmless: short steps, no waiting.
    #[default]
    Low,
    /// Ordinary: small first steps.
    Medium,
    /// Risky: smaller and longer steps, sign-off.
    High,
    /// Dangerous: the smallest and longest steps, sign-off by several people.
    Critical,
}

impl Tier {
    /// All tiers, from the lowest.
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The tier's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// People who must sign before a step is taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignOffDemand {
    /// Number of distinct people who must sign.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10))]
    pub count: i32,
    /// Groups of which each signer must be in at least one; empty: anyone who may sign.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    pub groups: Vec<String>,
}

const fn one() -> i32 {
    1
}

/// One step of a canary: a share of the traffic, and what must hold before the next step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.mirror) || self.weight == 0").message("mirror goes with a step of weight 0: before the canary answers anybody"),
)]
pub struct Step {
    /// Share of the traffic that the canary gets in this step, in percent; at 0 its pods run, and serve only testers.
    #[schemars(range(min = 0, max = 99))]
    pub weight: i32,
    /// Least size of the canary in this step, in percent of `replicas`; larger if the weight needs more. The value also applies to later steps, until one sets another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub scale: Option<i32>,
    /// Share of the requests, in percent, of which the canary gets a copy; its answers are discarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub mirror: Option<i32>,
    /// Least time that the canary serves at this weight once its pods are available.
    #[serde(default)]
    pub bake: Duration,
    /// Least number of requests that the canary must have served in this step.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub min_requests: i64,
    /// Sign-offs required before this step is taken; all demands must be met.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub sign_off: Vec<SignOffDemand>,
}
