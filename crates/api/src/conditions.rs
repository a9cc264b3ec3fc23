//! Conditions on which no decision depends.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The conditions that this build can read: another one does not make its object unreadable.
pub(crate) fn readable<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Condition>, D::Error> {
    let all = Vec::<Value>::deserialize(deserializer)?;
    let readable = all
        .into_iter()
        .filter_map(|it| serde_json::from_value(it).ok());
    Ok(readable.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::Freeze;

    #[test]
    fn a_condition_of_another_build_leaves_a_freeze_readable() {
        let condition = |time: &str| {
            json!({
                "type": "Active", "status": "True", "reason": "InForce", "message": "",
                "lastTransitionTime": time,
            })
        };
        let conditions = [
            condition("2026-01-01T00:00:00Z"),
            condition("2026-01-01T00:00:00+99:00"),
        ];
        let freeze: Freeze = serde_json::from_value(json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "Freeze", "metadata": { "name": "a" },
            "spec": { "reason": "a test", "person": { "username": "dave" } },
            "status": { "conditions": conditions },
        }))
        .unwrap();
        assert_eq!(freeze.status.unwrap().conditions.len(), 1);
    }
}
