//! The registered metrics, and what the documents state of each.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{self, Registry};

use crate::telemetry::labels::LabelNames;

/// The beginning of every name.
const PREFIX: &str = "countersign";

/// What a metric is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Name of its series. A histogram has three: the name with `_bucket`, `_count` and `_sum`.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// What it measures.
    pub help: &'static str,
    /// Names of its labels, without the `le` of a histogram.
    pub labels: &'static [&'static str],
}

/// A type of metric whose labels are known.
pub(super) trait Labelled {
    /// The names of its labels.
    const LABELS: &'static [&'static str] = &[];
}

impl<N, A> Labelled for Counter<N, A> {}

impl<N, A> Labelled for Gauge<N, A> {}

impl Labelled for Histogram {}

impl<S: LabelNames, M, C> Labelled for Family<S, M, C> {
    const LABELS: &'static [&'static str] = S::NAMES;
}

/// All metrics, in the order of their registration.
pub(super) struct Catalog {
    registry: Registry,
    metrics: Vec<Metric>,
}

impl Catalog {
    /// Without any metric.
    pub(super) fn new() -> Self {
        Self {
            registry: Registry::with_prefix(PREFIX),
            metrics: Vec::new(),
        }
    }

    /// Registers a metric, and returns it.
    pub(super) fn register<M>(&mut self, name: &str, help: &'static str, metric: M) -> M
    where
        M: registry::Metric + TypedMetric + Labelled + Clone,
    {
        // The encoder adds it.
        let suffix = if M::TYPE == MetricType::Counter {
            "_total"
        } else {
            ""
        };
        self.metrics.push(Metric {
            name: format!("{PREFIX}_{name}{suffix}"),
            kind: M::TYPE.as_str().to_owned(),
            help,
            labels: M::LABELS,
        });
        self.registry.register(name, help, metric.clone());
        metric
    }

    /// What each metric is.
    pub(super) fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    /// All series in the OpenMetrics text format.
    pub(super) fn encode(&self) -> String {
        let mut text = String::new();
        // Only a writer fails, and a string does not.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
