//! Service level objectives of a whole service, both revisions together.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::Duration;
use super::step::Tier;

/// A share of good requests that a service promises over a period.
///
/// `errors` and `total` are selectors of counters of the whole service, without `{{revision}}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.period) || (duration(self.period) >= duration('24h') && duration(self.period) <= duration('2160h'))").message("objectives: period must be from 24h to 2160h (90 days)"))]
pub struct Objective {
    /// The objective's name, unique in its Rollout, template or policy.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Promised share of good requests, a fraction such as 0.999.
    #[schemars(range(min = 0.5, max = 0.999_999))]
    pub target: f64,
    /// Period of the objective.
    #[serde(default = "thirty_days")]
    pub period: Duration,
    /// Selector of the counters of failed requests of the whole service.
    #[schemars(length(min = 1, max = 4096))]
    pub errors: String,
    /// Selector of the counters of all requests of the whole service.
    #[schemars(length(min = 1, max = 4096))]
    pub total: String,
    /// What happens to a change if the budget burns too fast while the change is under way.
    #[serde(default)]
    pub on_burn: OnBurn,
}

const fn thirty_days() -> Duration {
    Duration::seconds(30 * 24 * 60 * 60)
}

/// What happens to a change when an error budget begins to burn too fast while the change is under way.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum OnBurn {
    /// The change waits.
    Hold,
    /// The change is rolled back.
    #[default]
    RollBack,
}

/// What a spent error budget stops.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBudget {
    /// Tiers whose changes do not start while the error budget of an objective is spent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub tiers: Vec<Tier>,
}
