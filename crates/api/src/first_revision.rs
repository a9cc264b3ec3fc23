//! What a policy requires of first revisions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::step::{SignOffDemand, Tier};

/// Sign-offs before the first pod of a Rollout: a first revision takes no steps, as there is nothing to compare it with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FirstRevision {
    /// Lowest tier of the first revisions that wait.
    #[serde(default)]
    pub from_tier: Tier,
    /// Sign-offs required before the first pod; all demands must be met.
    #[schemars(length(min = 1, max = 8))]
    pub sign_off: Vec<SignOffDemand>,
}
