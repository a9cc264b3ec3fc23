//! Evidence counted for a change.

use crate::counts::{Counts, EProcess};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The evidence on a change, as of its last counted window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// Start of the grid of windows: when the canary first got traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Time>,
    /// How much fresh evidence the steps have begun with so far.
    #[serde(default)]
    pub renewed: f64,
    /// Each check's evidence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub checks: Vec<CheckEvidence>,
    /// State of each objective's budget.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub objectives: Vec<Budget>,
}

/// The error budget of an objective.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Budget {
    /// Name of the objective.
    pub name: String,
    /// Share of the period's budget that is spent; 1 is all of it. Absent if not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent: Option<f64>,
    /// Whether the state of the budget was ever known.
    #[serde(default)]
    pub known: bool,
    /// Whether the budget now burns faster than the limits.
    #[serde(default)]
    pub burning: bool,
    /// Whether the budget burnt as fast when the canary first got traffic: then the change is not to blame.
    #[serde(default)]
    pub burnt_before: bool,
    /// State of the budget in a sentence.
    #[serde(default)]
    pub message: String,
}

/// The evidence of one check.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckEvidence {
    /// Name of the check.
    pub name: String,
    /// Since when the check counts, if that is later than the start of the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Time>,
    /// End of the last window that was answered; no window is skipped and none counted twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_window_end: Option<Time>,
    /// Requests and errors of the canary since the change began.
    #[serde(default)]
    pub canary: Counts,
    /// Requests and errors of the stable revision over the same windows.
    #[serde(default)]
    pub stable: Counts,
    /// Dispersion of stable's errors, fixed when the first window is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispersion: Option<Dispersion>,
    /// Requests of the canary that count for the present step.
    #[serde(default)]
    pub step_requests: f64,
    /// Windows that count for the present step.
    #[serde(default)]
    pub step_windows: i32,
    /// The present windows in a row in which the canary had more of the requests than its weight explains; absent if the last one had not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above_weight: Option<AboveWeight>,
    /// Last value of a metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Number of windows in a row in which the metric is out of bounds.
    #[serde(default)]
    pub outside: i32,
    /// The last values of a metric, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub recent: Vec<f64>,
    /// The counts of the last windows, oldest first, each `[requests, errors, stable's requests, stable's errors]` with four significant digits. At most 60; fewer if a change has more than 20 checks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 60))]
    pub windows: Vec<[f64; 4]>,
    /// Natural log of each e-value of the roll-back test, one for each alternative.
    #[serde(default)]
    pub rollback: EProcess,
    /// The promote test of each gate ahead, in order of the shares that the gates open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub gates: Vec<GateEvidence>,
    /// Natural log of each e-value of the canary's test against the ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<EProcess>,
    /// Natural log of each e-value of stable's test against the ceiling: if stable breaks it too, the canary is not to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_ceiling: Option<EProcess>,
    /// Result of the last window: `Counted`, or why it was not counted.
    #[serde(default)]
    #[schemars(with = "String")]
    pub last: WindowState,
    /// The last window's outcome in a sentence, with the observed values.
    #[serde(default)]
    pub message: String,
    /// Summary of the check for people.
    #[serde(default)]
    pub summary: CheckSummary,
}

/// Windows in a row in which the canary had more of the requests than its weight explains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AboveWeight {
    /// Number of these windows.
    pub windows: i32,
    /// Requests of the canary in them.
    pub canary: f64,
    /// Requests of both revisions in them.
    pub requests: f64,
}

/// The evidence for a gate: that the canary is not worse than the gate tolerates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateEvidence {
    /// Share of the traffic that the gate opens, in percent; 100 is the promotion.
    pub share: i32,
    /// Natural log of each e-value of the promote test, one for each alternative.
    pub promote: EProcess,
}

/// How clustered the errors of a service are: the counts are divided by `value`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dispersion {
    /// Variance of the errors in a window over that of independent errors, at least 1.
    pub value: f64,
    /// Number of windows of the last day from which it is estimated.
    pub windows: i32,
    /// Number of pairs of adjacent windows with errors, from which alone something can be learnt. Neither windows nor pairs if the check sets the value.
    pub pairs: i32,
}

impl Default for Dispersion {
    /// Independent errors, of which nothing is known.
    fn default() -> Self {
        Self {
            value: 1.0,
            windows: 0,
            pairs: 0,
        }
    }
}

/// Result of the last window of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WindowState {
    /// No window has ended yet.
    #[default]
    Waiting,
    /// It was counted.
    Counted,
    /// New pods warm up, so the window counts only for a rollback.
    WarmingUp,
    /// The query matched no series.
    NoSeries,
    /// The newest sample is older than two intervals.
    StaleSamples,
    /// A value is NaN, infinite or too large to be counted.
    NotANumber,
    /// A value is negative.
    Negative,
    /// More errors than requests.
    ErrorsExceedRequests,
    /// Several series where one number is expected.
    SeveralSeries,
    /// The histogram has no bucket with the bound of the check.
    NoBucket,
    /// No address of Prometheus is configured.
    NotConfigured,
    /// Prometheus cannot be reached, or did not answer in time.
    PrometheusUnreachable,
    /// Prometheus answered with an error.
    PrometheusError,
    /// The query is not PromQL, or Prometheus refused it.
    InvalidQuery,
    /// The answer came with warnings and may be partial.
    PartialAnswer,
    /// The answer is too large or cannot be read.
    UnreadableAnswer,
    /// Prometheus' clock differs too much from the operator's.
    ClockSkew,
    /// A state of a newer build.
    #[serde(other)]
    Unknown,
}

impl WindowState {
    /// Every state of this build.
    pub const ALL: [Self; 17] = [
        Self::Waiting,
        Self::Counted,
        Self::WarmingUp,
        Self::NoSeries,
        Self::StaleSamples,
        Self::NotANumber,
        Self::Negative,
        Self::ErrorsExceedRequests,
        Self::SeveralSeries,
        Self::NoBucket,
        Self::NotConfigured,
        Self::PrometheusUnreachable,
        Self::PrometheusError,
        Self::InvalidQuery,
        Self::PartialAnswer,
        Self::UnreadableAnswer,
        Self::ClockSkew,
    ];

    /// The state's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "Waiting",
            Self::Counted => "Counted",
            Self::WarmingUp => "WarmingUp",
            Self::NoSeries => "NoSeries",
            Self::StaleSamples => "StaleSamples",
            Self::NotANumber => "NotANumber",
            Self::Negative => "Negative",
            Self::ErrorsExceedRequests => "ErrorsExceedRequests",
            Self::SeveralSeries => "SeveralSeries",
            Self::NoBucket => "NoBucket",
            Self::NotConfigured => "NotConfigured",
            Self::PrometheusUnreachable => "PrometheusUnreachable",
            Self::PrometheusError => "PrometheusError",
            Self::InvalidQuery => "InvalidQuery",
            Self::PartialAnswer => "PartialAnswer",
            Self::UnreadableAnswer => "UnreadableAnswer",
            Self::ClockSkew => "ClockSkew",
            Self::Unknown => "Unknown",
        }
    }
}

/// The evidence of one check at one moment, for people.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckSummary {
    /// Name of the check.
    pub check: String,
    /// Verdict of the check so far.
    #[serde(default)]
    pub verdict: CheckVerdict,
    /// The reason in a sentence, with the numbers.
    #[serde(default)]
    pub sentence: String,
    /// Requests and errors of the canary since the change began.
    pub canary: Counts,
    /// Requests and errors of the stable revision over the same windows.
    pub stable: Counts,
    /// The canary's error rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_rate: Option<Rate>,
    /// The stable revision's error rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_rate: Option<Rate>,
    /// Last value of a metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// The next gate, and what it needs; absent for a metric and without requests of stable to compare with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateSummary>,
    /// e-value (base-10 log) for "the canary is worse than tolerated"; the canary is rolled back at `rollbackAt`.
    pub log10_worse: f64,
    /// Base-10 log of the e-value at which the canary is rolled back.
    pub rollback_at: f64,
    /// e-value (base-10 log) for "the canary is within what the next gate tolerates"; the gate opens at `promoteAt`.
    pub log10_within_margin: f64,
    /// Base-10 log of the e-value at which the next gate opens.
    pub promote_at: f64,
}

/// A gate for people: what the evidence rules out so far, and what the gate needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateSummary {
    /// Share of the traffic that the gate opens, in percent; 100 is the promotion.
    pub share: i32,
    /// Failed requests, in 1,000 of the service, that the canary adds at most at its present share.
    pub ruled_out: f64,
    /// Failed requests, in 1,000 of the service at the present share, that the gate needs ruled out.
    pub needed: f64,
    /// About how many more requests of the canary the gate needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<f64>,
    /// About how many seconds that takes at the present rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

/// Verdict of one check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CheckVerdict {
    /// No window has ended yet, or the check does not run in this step.
    #[default]
    Waiting,
    /// Data is missing, odd or late.
    NoData,
    /// Clean so far, but too little.
    Scarce,
    /// Within the margin, or within bounds.
    Passing,
    /// Worse than tolerated, above the ceiling, or out of bounds.
    Failing,
}

/// An error rate with an interval that holds at all times together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rate {
    /// Errors of requests, a fraction.
    pub rate: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}
