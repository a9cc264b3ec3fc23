//! Policies and Freezes as the watches keep them: with a spec that this build may not be able to read, and the
//! status beside it.

use countersign_api::{
    Freeze, FreezeSpec, FreezeStatus, RolloutPolicy, RolloutPolicySpec, RolloutPolicyStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A policy.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "RolloutPolicy")]
pub struct WatchedPolicy {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// Its spec, or why this build cannot read it.
    #[serde(default = "absent", deserialize_with = "readable")]
    pub spec: Result<RolloutPolicySpec, String>,
    /// Its status.
    #[serde(default)]
    pub status: Option<RolloutPolicyStatus>,
}

/// A Freeze.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "Freeze")]
pub struct WatchedFreeze {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// Its spec, or why this build cannot read it.
    #[serde(default = "absent", deserialize_with = "readable")]
    pub spec: Result<FreezeSpec, String>,
    /// Its status.
    #[serde(default)]
    pub status: Option<FreezeStatus>,
}

fn absent<T>() -> Result<T, String> {
    Err("it has no spec".to_owned())
}

fn readable<'de, D, T>(deserializer: D) -> Result<Result<T, String>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let spec = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(spec).map_err(|error| error.to_string()))
}

/// Removes what takes memory and no one reads.
pub(super) fn strip(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    metadata.annotations = None;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_of_another_build_is_kept_with_the_problem_and_its_status() {
        let policy = |spec: Value| -> WatchedPolicy {
            serde_json::from_value(json!({
                "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutPolicy",
                "metadata": { "name": "p", "generation": 4 }, "spec": spec,
                "status": { "observedGeneration": 3 },
            }))
            .unwrap()
        };
        let sound = policy(json!({ "risk": { "version": "a" } }));
        assert_eq!(sound.spec.unwrap().risk.version.as_deref(), Some("a"));
        for spec in [json!({ "enforcement": "Foresee" }), Value::Null] {
            let other = policy(spec);
            other.spec.unwrap_err();
            assert_eq!(other.metadata.generation, Some(4));
            assert_eq!(other.status.unwrap().observed_generation, 3);
        }
        let bare = json!({ "metadata": { "name": "p" } });
        let bare: WatchedPolicy = serde_json::from_value(bare).unwrap();
        bare.spec.unwrap_err();
    }
}
