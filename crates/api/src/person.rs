//! The person behind an object, as the API server identifies them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The person who requested an object. The API server fills in the requester and refuses any other name.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    /// Name of the user in the cluster.
    #[schemars(length(min = 1, max = 253))]
    pub username: String,
    /// Groups of the user in the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), inner(length(max = 253)))]
    pub groups: Vec<String>,
}
