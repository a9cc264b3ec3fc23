//! A query for one revision, and its form.

use std::fmt;

use countersign_api::Duration;

/// The query placeholders of one revision of a Rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arm<'a> {
    /// Value of `{{namespace}}`.
    pub namespace: &'a str,
    /// Value of `{{service}}`: the Service of this arm, if the Rollout names one.
    pub service: Option<&'a str>,
    /// Value of `{{rollout}}`.
    pub rollout: &'a str,
    /// Value of `{{revision}}`: the pods' label `pod-template-hash`.
    pub revision: &'a str,
}

/// A query that parses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The field it comes from: failed or all requests.
    pub field: Field,
    /// How its answer is counted.
    pub form: Form,
    /// PromQL, with every placeholder filled in.
    pub text: String,
}

impl Query {
    /// PromQL for the raw samples of the last `range`, of a [`Form::Selector`].
    #[must_use]
    pub fn samples(&self, range: Duration) -> String {
        // On a new line: the selector may end with a comment.
        format!("{}\n[{range}]", self.text)
    }

    /// PromQL for the total increase of all counters in the last `range`, as Prometheus estimates it.
    #[must_use]
    pub fn growth(&self, range: Duration) -> String {
        format!("sum(increase({}))", self.samples(range))
    }

    /// PromQL for the last value of each series in `range`, of a [`Form::Selector`].
    #[must_use]
    pub fn last_values(&self, range: Duration) -> String {
        format!("last_over_time({})", self.samples(range))
    }
}

/// How an answer is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Counters, whose increase is counted from their samples.
    Selector,
    /// One number of events per window.
    Expression,
}

/// A query's field in the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// `errors`.
    Errors,
    /// `total`.
    Total,
    /// `latency.buckets`.
    Buckets,
    /// `metric.query`.
    Metric,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Errors => "errors",
            Self::Total => "total",
            Self::Buckets => "latency.buckets",
            Self::Metric => "metric.query",
        })
    }
}
