//! The smoke check: a Job that must succeed before a change gets its first pod.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::duration::Duration;
use super::pod_template::PodTemplate;

/// A Job that runs once for each attempt at a change, before its first canary pod exists and before
/// any traffic flows. If the Job fails the change is rolled back; until it has succeeded the change waits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("duration(self.timeout) >= duration('1s') && duration(self.timeout) <= duration('24h')")
        .message("smoke.timeout must be from 1s to 24h"),
)]
pub struct Smoke {
    /// Longest time of the check; a check that takes longer has failed.
    #[serde(default = "five_minutes")]
    pub timeout: Duration,
    /// The pods of the Job; an image that is exactly `{{image}}` becomes that of the Rollout's first container.
    #[schemars(schema_with = "template")]
    pub template: PodTemplate,
}

const fn five_minutes() -> Duration {
    Duration::minutes(5)
}

/// Fields that the controller reads. The API server validates the rest with the Job: a
/// second schema of all pods would double the definition.
fn template(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let map = |what: &str| {
        json!({
            "description": what, "type": "object", "maxProperties": 128,
            "additionalProperties": { "type": "string" },
        })
    };
    let mut labels = map("Labels of the pods.");
    if let Some(value) = labels.pointer_mut("/additionalProperties") {
        *value = json!({ "type": "string", "maxLength": 63 });
    }
    let texts =
        |what: &str| json!({ "description": what, "type": "array", "items": { "type": "string" } });
    let open = "x-kubernetes-preserve-unknown-fields";
    schemars::json_schema!({
        "type": "object",
        open: true,
        "required": ["spec"],
        "properties": {
            "metadata": {
                "description": "Labels and annotations of the pods.",
                "type": "object",
                open: true,
                "properties": {
                    "labels": labels,
                    "annotations": map("Annotations of the pods."),
                },
            },
            "spec": {
                "description": "The pods, as in a Job; restartPolicy is always Never.",
                "type": "object",
                open: true,
                "required": ["containers"],
                "properties": {
                    "containers": {
                        "description": "The containers; each must exit with 0.",
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 32,
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": {
                            "type": "object",
                            open: true,
                            "required": ["name", "image"],
                            "properties": {
                                "name": { "description": "The container's name.", "type": "string" },
                                "image": { "description": "The container's image; {{image}} is the one under test.", "type": "string" },
                                "command": texts("The program, instead of the image's own."),
                                "args": texts("The program's arguments."),
                            },
                        },
                    },
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_a_template_and_five_minutes() {
        let template = json!({ "spec": { "containers": [{ "name": "smoke", "image": "{{image}}", "newer": 1 }] } });
        let smoke: Smoke = serde_json::from_value(json!({ "template": template })).unwrap();
        assert_eq!(smoke.timeout, Duration::minutes(5));
        assert_eq!(smoke.template.0, template, "what is not known survives");
    }
}
