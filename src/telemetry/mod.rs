//! Metrics and health endpoints.
//!
//! Names follow controller-runtime's where dashboards use them. Each metric is registered in one place, with its name,
//! its help text and its labels, which [`Telemetry::metrics`] lists for the documents.

pub mod access;
pub mod catalog;
mod labels;
pub mod notifications;
mod rollouts;
pub mod server;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use countersign_api::RolloutStatus;
use countersign_core::observation::windows::{CheckWindows, WindowOutcome};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::clock;
use crate::telemetry::catalog::{Catalog, Metric};
use crate::telemetry::labels::{
    AnswerLabels, BuildLabels, ReconcileLabels, RolloutLabels, WatchLabels, WriteLabels,
};
use crate::telemetry::rollouts::Rollouts;
use crate::telemetry::server::Reported;

/// All metrics, and the state of readiness.
pub struct Telemetry {
    reconciles: Family<ReconcileLabels, Counter>,
    reconcile_seconds: Histogram,
    weight_seconds: Histogram,
    writes: Family<WriteLabels, Counter>,
    events_dropped: Counter,
    statuses_pruned: Counter,
    watch_errors: Family<WatchLabels, Counter>,
    watch_events: Family<WatchLabels, Gauge<f64, AtomicU64>>,
    answers: Family<AnswerLabels, Counter>,
    leading: Gauge,
    sign_offs_proven: Gauge,
    rollouts: Rollouts,
    ready: AtomicBool,
    catalog: Catalog,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

/// From a millisecond to eight seconds.
fn short() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 14))
}

impl Telemetry {
    /// All metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut catalog = Catalog::new();
        let build: Family<BuildLabels, Gauge> = catalog.register(
            "build_info",
            "The version of the operator; always 1",
            Family::default(),
        );
        let version = env!("CARGO_PKG_VERSION");
        build.get_or_create(&BuildLabels { version }).set(1);
        let telemetry = Self {
            leading: catalog.register("leading", "Whether this replica leads", Gauge::default()),
            sign_offs_proven: catalog.register(
                "sign_offs_proven",
                "Whether the admission policies that prove who signs are in place",
                Gauge::default(),
            ),
            reconciles: catalog.register("reconcile", "Reconciles by result", Family::default()),
            reconcile_seconds: catalog.register(
                "reconcile_time_seconds",
                "Duration of reconciles",
                short(),
            ),
            weight_seconds: catalog.register(
                "weight_write_seconds",
                "Time from a decision to the written weights of a route",
                short(),
            ),
            writes: catalog.register("api_writes", "Writes to the API server", Family::default()),
            events_dropped: catalog.register(
                "events_dropped",
                "Events that were not published, as too many waited",
                Counter::default(),
            ),
            statuses_pruned: catalog.register(
                "statuses_pruned",
                "Written statuses of Rollouts of which the API server dropped a field, as its definitions are older",
                Counter::default(),
            ),
            watch_errors: catalog.register(
                "watch_errors",
                "Errors of each watch",
                Family::default(),
            ),
            watch_events: catalog.register(
                "watch_last_event_timestamp_seconds",
                "When each watch last had an event",
                Family::default(),
            ),
            answers: catalog.register(
                "analysis_answers",
                "Reads of evidence by the result of the newest window",
                Family::default(),
            ),
            rollouts: Rollouts::new(&mut catalog),
            ready: AtomicBool::new(false),
            catalog,
        };
        // `increase` sees the first one only if the counter was there before it.
        let panics = ReconcileLabels { result: "panic" };
        telemetry.reconciles.get_or_create(&panics).inc_by(0);
        telemetry
    }

    /// What each metric is, in the order of the documents.
    #[must_use]
    pub fn metrics(&self) -> &[Metric] {
        self.catalog.metrics()
    }

    /// Observes the time from the decision to the written weights of a route.
    pub fn weights_written(&self, after: Duration) {
        self.weight_seconds.observe(after.as_secs_f64());
    }

    /// Counts one reconcile.
    pub fn reconciled(&self, result: &'static str, took: Duration) {
        self.reconciles
            .get_or_create(&ReconcileLabels { result })
            .inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// Counts one write to the API server.
    pub fn api_write(&self, verb: &'static str, resource: &'static str, ok: bool) {
        let result = if ok { "ok" } else { "error" };
        self.writes
            .get_or_create(&WriteLabels {
                verb,
                resource,
                result,
            })
            .inc();
    }

    /// Counts an Event that was not published.
    pub fn event_dropped(&self) {
        self.events_dropped.inc();
    }

    /// Counts a written status of which the API server dropped a field; whether it is the first.
    pub fn status_pruned(&self) -> bool {
        self.statuses_pruned.inc() == 0
    }

    /// Notes an event of a watch.
    #[allow(clippy::cast_precision_loss)]
    pub fn watch_event(&self, kind: &'static str) {
        let now = clock::now().as_millisecond() as f64 / 1_000.0;
        self.watch_events
            .get_or_create(&WatchLabels { kind })
            .set(now);
    }

    /// Counts an error of a watch.
    pub fn watch_error(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&WatchLabels { kind }).inc();
    }

    /// Sets whether this replica leads.
    pub fn leads(&self, leads: bool) {
        self.leading.set(i64::from(leads));
    }

    /// Sets whether the admission policies that prove who signs are in place.
    pub fn sign_offs_proven(&self, proven: bool) {
        self.sign_offs_proven.set(i64::from(proven));
    }

    /// Marks the caches as filled.
    pub fn caches_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Counts the result of the newest window of each check at one reconcile.
    pub fn answered(&self, windows: &BTreeMap<String, CheckWindows>) {
        for newest in windows.values().filter_map(|windows| windows.due.last()) {
            let outcome = match &newest.outcome {
                WindowOutcome::Counted { .. } | WindowOutcome::Measured { .. } => {
                    "Counted".to_owned()
                }
                WindowOutcome::Uncounted { reason, .. } => format!("{reason:?}"),
                WindowOutcome::Unanswered { reason, .. } => format!("{reason:?}"),
            };
            self.answers.get_or_create(&AnswerLabels { outcome }).inc();
        }
    }

    /// Counts what changed from one written status of a Rollout to the next, and exports the new one.
    pub fn written(
        &self,
        namespace: &str,
        name: &str,
        before: &RolloutStatus,
        after: &RolloutStatus,
    ) {
        let rollout = RolloutLabels::new(namespace, name);
        self.rollouts.written(rollout, before, after, clock::now());
    }

    /// Removes the series of a deleted Rollout.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.rollouts.forget(&RolloutLabels::new(namespace, name));
    }
}

impl Reported for Telemetry {
    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    fn encode(&self) -> String {
        self.catalog.encode()
    }
}

#[cfg(test)]
mod tests;
