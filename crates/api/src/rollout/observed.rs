//! What a change would have waited for if every policy that governs it were enforced.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::step::{SignOffDemand, Tier};

/// What all policies would have demanded of a change together, if some of them only observe.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// The policies that only observe, each with its generation.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub policies: Vec<String>,
    /// Risk in points, by all policies.
    #[serde(default)]
    pub score: f64,
    /// Tier of that risk.
    #[serde(default)]
    pub tier: Tier,
    /// Number of steps that the change would have taken.
    #[serde(default)]
    pub steps: i32,
    /// Least time that these steps would have taken: the sum of their bakes.
    #[serde(default)]
    pub least_time: Duration,
    /// Sign-offs before steps that would have been required, and are not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub sign_off: Vec<SignOffDemand>,
    /// Sign-offs before full promotion that would have been required, and are not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub promotion_sign_off: Vec<SignOffDemand>,
    /// What would have been otherwise, each in a sentence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub would: Vec<WouldHave>,
}

/// One thing that would have been otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WouldHave {
    /// Reason for which the change would have waited, one word shared with conditions and Events.
    pub reason: String,
    /// The same in a sentence.
    pub message: String,
}
