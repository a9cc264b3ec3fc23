//! Checks: what Prometheus is asked about a canary and its stable revision.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Duration;

/// Checks on a change, asked at every interval while its canary has traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.interval) >= duration('1s')").message("analysis.interval must be at least 1s"))]
pub struct Analysis {
    /// Length of one window of counting; windows are disjoint and none is skipped.
    #[serde(default = "default_interval")]
    pub interval: Duration,
    /// The checks; each must pass before a step ends, and any one that fails rolls the change back.
    #[serde(default)]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub checks: Vec<Check>,
}

/// The interval of an analysis that names none.
#[must_use]
pub const fn default_interval() -> Duration {
    Duration::seconds(15)
}

/// Compares the error rate of canary and stable, and optionally holds the canary to a ceiling.
///
/// Either a preset, or an error query and a total query of your own. A query is a selector of
/// counters, such as `http_requests_total{code="500"}`, whose increase the controller counts by
/// itself for each series (preferred: it sees the first error of a new pod), or, where it holds
/// `{{window}}`, an expression that yields one number of events, such as
/// `sum(increase(x[{{window}}]))`. Placeholders: `{{namespace}}`, `{{service}}`, `{{rollout}}`,
/// `{{revision}}` (the value of the pod label `pod-template-hash`) and `{{window}}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.preset) ? !has(self.errors) && !has(self.total) : has(self.errors) && has(self.total)")
        .message("a check has either a preset or both an error query (errors) and a total query (total)"),
)]
pub struct Check {
    /// The check's name, unique in its Rollout or policy.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Queries for metrics that are in wide use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// PromQL for the failed requests of one revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub errors: Option<String>,
    /// PromQL for all requests of one revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub total: Option<String>,
    /// Error rate (a fraction from 0 to 1) that the canary must not exceed, whatever stable does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.000_001, max = 1.0))]
    pub ceiling: Option<f64>,
    /// Number of errors that come in one burst, by which the counts are divided; measured on the stable revision where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1.0, max = 1000.0))]
    pub dispersion: Option<f64>,
}

/// Queries that come with the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Preset {
    /// `http_requests_total` with the labels `namespace`, `pod_template_hash` and `code`; codes
    /// from 500 on are errors. The demo's pods and many client libraries export it.
    HttpRequestsTotal,
}
