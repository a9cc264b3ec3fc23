//! Windows of checks and objectives, as Prometheus returned them.

use std::collections::BTreeMap;

use countersign_api::counts::Counts;
use countersign_api::rollout::WindowState;
use countersign_api::{AnalysisTemplateSpec, Duration};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The inputs of the analysis.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AnalysisInputs {
    /// The time after a window's end until its samples are in Prometheus.
    pub lag: Duration,
    /// The AnalysisTemplates that the Rollout names, or the problem with one, in a sentence.
    pub templates: BTreeMap<String, Result<AnalysisTemplateSpec, String>>,
    /// The answers of Prometheus for each check since the last counted window, oldest first.
    pub windows: BTreeMap<String, CheckWindows>,
    /// The error rates of each objective, or why they are unknown, in a sentence.
    pub objectives: BTreeMap<String, Result<ErrorRates, String>>,
}

/// The error rate of a whole service over several spans, each a fraction of the requests in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorRates {
    /// Over the last five minutes.
    pub five_minutes: f64,
    /// Over the last half hour.
    pub half_hour: f64,
    /// Over the last hour.
    pub hour: f64,
    /// Over the last six hours.
    pub six_hours: f64,
    /// Over the objective's period.
    pub period: f64,
}

/// The results of one check.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckWindows {
    /// The windows that are due, oldest first and without a gap.
    pub due: Vec<Window>,
    /// The counts of the service in the windows of the day before the canary began, oldest first; read once,
    /// for the dispersion.
    pub history: Option<Vec<Counts>>,
}

/// One window of counting: everything after `start` up to and including `end`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Its exclusive start.
    pub start: Timestamp,
    /// Its inclusive end.
    pub end: Timestamp,
    /// The counts, or why there are none.
    pub outcome: WindowOutcome,
}

/// The result of a window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WindowOutcome {
    /// Both arms were counted.
    Counted {
        /// The canary's counts.
        canary: Counts,
        /// The stable revision's counts.
        stable: Counts,
    },
    /// A number was measured at the window's end.
    Measured {
        /// The number.
        value: f64,
    },
    /// Prometheus answered, but nothing could be counted: the evidence is unchanged.
    Uncounted {
        /// Why, in one word.
        reason: Uncounted,
        /// Why, in a sentence with what was seen.
        message: String,
    },
    /// Prometheus did not answer: the query is repeated.
    Unanswered {
        /// Why, in one word.
        reason: Unanswered,
        /// Why, in a sentence with what was seen.
        message: String,
    },
}

/// Why an answered window could not be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Uncounted {
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
    /// The histogram has no bucket with the requested bound.
    NoBucket,
}

/// Why a window was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unanswered {
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
}

impl From<Uncounted> for WindowState {
    fn from(why: Uncounted) -> Self {
        match why {
            Uncounted::NoSeries => Self::NoSeries,
            Uncounted::StaleSamples => Self::StaleSamples,
            Uncounted::NotANumber => Self::NotANumber,
            Uncounted::Negative => Self::Negative,
            Uncounted::ErrorsExceedRequests => Self::ErrorsExceedRequests,
            Uncounted::SeveralSeries => Self::SeveralSeries,
            Uncounted::NoBucket => Self::NoBucket,
        }
    }
}

impl From<Unanswered> for WindowState {
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::NotConfigured => Self::NotConfigured,
            Unanswered::PrometheusUnreachable => Self::PrometheusUnreachable,
            Unanswered::PrometheusError => Self::PrometheusError,
            Unanswered::InvalidQuery => Self::InvalidQuery,
            Unanswered::PartialAnswer => Self::PartialAnswer,
            Unanswered::UnreadableAnswer => Self::UnreadableAnswer,
            Unanswered::ClockSkew => Self::ClockSkew,
        }
    }
}
