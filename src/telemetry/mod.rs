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
mod tests {
    use countersign_api::rollout::{Change, Outcome, Transition};
    use countersign_api::{Duration as Span, Phase, Tier};
    use countersign_core::reason::Reason;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::SignedDuration;

    use super::*;

    fn status(outcome: Option<Outcome>, reasons: &[&str]) -> RolloutStatus {
        let line = |reason: &&str| Transition {
            at: Some(ago(0)),
            reason: (*reason).to_owned(),
            ..Transition::default()
        };
        RolloutStatus {
            tier: Some(Tier::High),
            change: Some(Change {
                run: "shop-1".into(),
                contributor: "ai".into(),
                tier: Tier::High,
                started_at: Some(ago(50)),
                outcome,
                transitions: reasons.iter().map(line).collect(),
                ..Change::default()
            }),
            ..RolloutStatus::default()
        }
    }

    fn at_rest() -> RolloutStatus {
        RolloutStatus {
            phase: Phase::Stable,
            ..RolloutStatus::default()
        }
    }

    fn awaiting_promotion() -> RolloutStatus {
        let mut status = status(None, &["ChangeStarted"]);
        status.phase = Phase::AwaitingSignOff;
        status.waiting_for = Some(Reason::AwaitingSignOff.into());
        if let Some(change) = &mut status.change {
            change.awaited_gates.insert("promotion".into(), ago(100));
            change.plan.strictness.wait_at_most = Span::seconds(3_600);
        }
        status
    }

    fn ago(seconds: i64) -> Time {
        let ago = SignedDuration::from_secs(seconds);
        Time(clock::now().saturating_sub(ago).unwrap())
    }

    fn with(text: &str, part: &str) -> usize {
        text.lines().filter(|line| line.contains(part)).count()
    }

    #[test]
    fn an_outcome_is_counted_once_by_who_wrote_the_change() {
        let telemetry = Telemetry::new();
        let begun = status(None, &["ChangeStarted"]);
        let ended = status(Some(Outcome::RolledBack), &["ChangeStarted", "Rejected"]);
        let gone = status(
            Some(Outcome::RolledBack),
            &["ChangeStarted", "Rejected", "RolledBack"],
        );
        telemetry.written("shop", "web", &begun, &ended);
        telemetry.written("shop", "web", &ended, &gone);
        let text = telemetry.encode();
        for counted in [
            r#"countersign_rollout_outcomes_total{namespace="shop",contributor="ai",tier="high",outcome="RolledBack",reason="Rejected"} 1"#,
            r#"countersign_transitions_total{namespace="shop",reason="RolledBack"} 1"#,
            r#"countersign_change_duration_seconds_count{outcome="RolledBack",tier="high"} 1"#,
            r#"countersign_change_duration_seconds_bucket{le="30.0",outcome="RolledBack",tier="high"} 0"#,
            r#"countersign_change_duration_seconds_bucket{le="60.0",outcome="RolledBack",tier="high"} 1"#,
        ] {
            assert!(text.contains(counted), "{counted}: {text}");
        }
    }

    #[test]
    fn a_rollout_has_series_of_its_own_until_it_is_at_rest() {
        let telemetry = Telemetry::new();
        let begun = status(None, &["ChangeStarted"]);
        telemetry.written("shop", "web", &at_rest(), &begun);
        let text = telemetry.encode();
        let info = r#"countersign_rollout_info{namespace="shop",rollout="web",phase="Progressing",tier="high",waiting_for="",reason=""} 1.0"#;
        assert!(text.contains(info), "{text}");
        assert_eq!(with(&text, "countersign_rollout_weight{"), 1, "{text}");

        let mut back = status(Some(Outcome::RolledBack), &["AnalysisFailed", "RolledBack"]);
        back.phase = Phase::Degraded;
        telemetry.written("shop", "web", &begun, &back);
        let text = telemetry.encode();
        let info = r#"phase="Degraded",tier="high",waiting_for="",reason="AnalysisFailed"} 1.0"#;
        assert!(text.contains(info), "{text}");
        assert_eq!(with(&text, "countersign_rollout_info{"), 1, "{text}");
        assert_eq!(with(&text, "countersign_rollout_weight{"), 0, "{text}");

        telemetry.written("shop", "web", &back, &at_rest());
        let text = telemetry.encode();
        assert_eq!(with(&text, "rollout=\"web\""), 0, "{text}");
        assert!(text.contains(r#"countersign_rollouts{phase="Stable",tier=""} 1"#));
    }

    #[test]
    fn the_counters_of_a_namespace_go_with_its_last_rollout() {
        let telemetry = Telemetry::new();
        let begun = status(None, &["ChangeStarted"]);
        for (namespace, name) in [("shop", "api"), ("shop", "web"), ("shopping", "web")] {
            telemetry.written(namespace, name, &at_rest(), &begun);
        }
        let of_shop = || with(&telemetry.encode(), "namespace=\"shop\"");
        telemetry.forget("shop", "web");
        assert!(of_shop() > 0);
        telemetry.forget("shop", "api");
        assert_eq!(of_shop(), 0, "{}", telemetry.encode());
        assert!(with(&telemetry.encode(), "namespace=\"shopping\"") > 0);
    }

    /// `increase` does not see a counter that begins at 1.
    #[test]
    fn counters_of_rare_events_are_there_before_the_first() {
        let telemetry = Telemetry::new();
        telemetry.written("shop", "web", &at_rest(), &status(None, &["ChangeStarted"]));
        let text = telemetry.encode();
        for none in [
            r#"countersign_reconcile_total{result="panic"} 0"#,
            r#"countersign_transitions_total{namespace="shop",reason="BreakGlass"} 0"#,
            r#"tier="high",outcome="Promoted",reason="Promoted"} 0"#,
            r#"tier="high",outcome="RolledBack",reason="AnalysisFailed"} 0"#,
        ] {
            assert!(text.contains(none), "{none}: {text}");
        }
    }

    #[test]
    fn a_wait_for_people_has_a_deadline_and_is_observed_when_it_ends() {
        let telemetry = Telemetry::new();
        let awaits = awaiting_promotion();
        telemetry.written("shop", "web", &at_rest(), &awaits);
        telemetry.written("shop", "web", &awaits, &awaits);
        let text = telemetry.encode();
        let deadline = "countersign_sign_off_deadline_timestamp_seconds{";
        assert_eq!(with(&text, deadline), 1, "{text}");
        assert_eq!(with(&text, "countersign_sign_off_wait_seconds_count{"), 0);

        telemetry.written("shop", "web", &awaits, &status(None, &["ChangeStarted"]));
        let text = telemetry.encode();
        assert_eq!(with(&text, deadline), 0, "{text}");
        for observed in [
            r#"countersign_sign_off_wait_seconds_bucket{le="60.0",tier="high"} 0"#,
            r#"countersign_sign_off_wait_seconds_bucket{le="120.0",tier="high"} 1"#,
        ] {
            assert!(text.contains(observed), "{text}");
        }
    }

    #[test]
    fn the_time_of_a_change_is_exported_with_and_without_its_waits_for_people() {
        let telemetry = Telemetry::new();
        let begun = |outcome, gate: Option<(&str, i64)>| {
            let mut status = status(outcome, &["ChangeStarted", "Promoted"]);
            if let Some(change) = &mut status.change {
                change.started_at = Some(ago(1_000));
                let awaited = gate.map(|(gate, since)| (gate.to_owned(), ago(since)));
                change.awaited_gates.extend(awaited);
            }
            status
        };
        let first = begun(None, Some(("step-1", 900)));
        let second = begun(None, Some(("promotion", 400)));
        telemetry.written("shop", "web", &at_rest(), &first);
        telemetry.written("shop", "web", &first, &second);
        telemetry.written(
            "shop",
            "web",
            &second,
            &begun(Some(Outcome::Promoted), None),
        );
        let text = telemetry.encode();
        let labels = r#"outcome="Promoted",tier="high""#;
        for (bucket, count) in [
            (r#"duration_seconds_bucket{le="960.0""#, 0),
            (r#"duration_seconds_bucket{le="1920.0""#, 1),
            (r#"duration_without_people_seconds_bucket{le="60.0""#, 0),
            (r#"duration_without_people_seconds_bucket{le="120.0""#, 1),
        ] {
            let line = format!("countersign_change_{bucket},{labels}}} {count}");
            assert!(text.contains(&line), "{line}: {text}");
        }
    }

    #[test]
    fn the_listed_metrics_are_those_that_are_exported() {
        let telemetry = Telemetry::new();
        let promoted = status(Some(Outcome::Promoted), &["ChangeStarted", "Promoted"]);
        telemetry.written("shop", "web", &awaiting_promotion(), &promoted);
        telemetry.written("shop", "api", &at_rest(), &awaiting_promotion());
        telemetry.api_write("patch", "rollouts/status", true);
        telemetry.watch_event("Rollout");
        telemetry.watch_error("Rollout");
        let text = telemetry.encode();
        let mut seen = 0;
        for metric in telemetry.metrics() {
            let part = match metric.kind.as_str() {
                "histogram" => format!("{}_count", metric.name),
                _ => metric.name.clone(),
            };
            let mut lines = text.lines().filter_map(|line| line.strip_prefix(&part));
            let line = lines.find(|rest| rest.starts_with(['{', ' ']));
            let Some(line) = line else { continue };
            let labels = line
                .strip_prefix('{')
                .and_then(|rest| rest.split_once("} "));
            let labels = labels.map_or("", |(labels, _)| labels).split(',');
            let names: Vec<_> = labels
                .filter_map(|it| Some(it.split_once('=')?.0))
                .collect();
            assert_eq!(names, metric.labels, "{}", metric.name);
            seen += 1;
        }
        // The evidence and its answers have no series here.
        assert_eq!(seen, telemetry.metrics().len() - 2, "{text}");
    }
}
