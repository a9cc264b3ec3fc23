//! `AnalysisTemplate`: named checks with arguments that the Rollouts of a namespace share.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::analysis::Check;
use super::conditions;
use super::objective::Objective;

/// Checks and objectives that the Rollouts of a namespace share.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "countersign.dev",
    version = "v1alpha1",
    kind = "AnalysisTemplate",
    namespaced,
    status = "AnalysisTemplateStatus",
    shortname = "cat",
    category = "countersign",
    derive = "PartialEq",
    doc = "Checks and objectives with arguments, which the Rollouts of its namespace use by its name.",
    printcolumn(name = "Checks", type_ = "string", json_path = ".spec.checks[*].name"),
    printcolumn(
        name = "Objectives",
        type_ = "string",
        json_path = ".spec.objectives[*].name"
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].reason"
    ),
    printcolumn(name = "Used By", type_ = "integer", json_path = ".status.usedBy"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.checks) && size(self.checks) > 0) || (has(self.objectives) && size(self.objectives) > 0)").message("a template has at least one check or objective"))]
pub struct AnalysisTemplateSpec {
    /// The arguments that its queries may use, as `{{args.NAME}}`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub args: Vec<Argument>,
    /// The checks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub checks: Vec<Check>,
    /// Objectives of the whole service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub objectives: Vec<Objective>,
}

/// How the operator reads a template. No decision depends on it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnalysisTemplateStatus {
    /// Generation of the spec that this status describes.
    #[serde(default)]
    pub observed_generation: i64,
    /// Number of Rollouts of the namespace that use the template, some seconds late.
    #[serde(default)]
    pub used_by: i32,
    /// `Accepted`: whether the operator can send every query of the template, with the defaults of its arguments or a value of their type; `Stalled`: whether it cannot.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "conditions::readable"
    )]
    #[schemars(length(max = 8))]
    pub conditions: Vec<Condition>,
}

/// An argument of a template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Argument {
    /// Its name.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Purpose of the argument.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub description: Option<String>,
    /// Type of the value.
    #[serde(default, rename = "type")]
    pub kind: ArgumentType,
    /// Value if a Rollout sets none; without a default every Rollout must set the argument.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub default: Option<String>,
}

/// Type of an argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ArgumentType {
    /// Text, which is used in a quoted string of the query and escaped.
    #[default]
    String,
    /// A number, which may also be used outside of strings.
    Number,
    /// A duration such as `5m`, which may also be used as a range.
    Duration,
}
