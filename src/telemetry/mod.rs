//! Metrics and health endpoints.
//!
//! Names follow controller-runtime's where dashboards use them. Labels are bounded: Rollouts are counted
//! by phase and tier, and only those with a change in progress have series of their own.

pub mod access;

pub mod server;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use countersign_api::rollout::Change;
use countersign_api::{RolloutStatus, Tier};
use countersign_core::analysis::summary;
use countersign_core::observation::windows::{CheckWindows, WindowOutcome};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::clock;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Write {
    verb: &'static str,
    resource: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    contributor: String,
    tier: &'static str,
    outcome: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RolloutLabels {
    phase: String,
    tier: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct Canary {
    namespace: String,
    rollout: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Evidence {
    namespace: String,
    rollout: String,
    check: String,
    test: &'static str,
}

/// The exported series of one Rollout.
struct Exported {
    labels: RolloutLabels,
    evidence: Vec<Evidence>,
}

/// All metrics, and the state of readiness.
pub struct Telemetry {
    registry: Mutex<Registry>,
    reconciles: Family<Outcome, Counter>,
    reconcile_seconds: Histogram,
    weight_seconds: Histogram,
    writes: Family<Write, Counter>,
    events_dropped: Counter,
    watch_errors: Family<Kind, Counter>,
    watch_events: Family<Kind, Gauge<f64, AtomicU64>>,
    rollouts: Family<RolloutLabels, Gauge>,
    transitions: Family<Reason, Counter>,
    answers: Family<AnswerLabels, Counter>,
    weight: Family<Canary, Gauge>,
    evidence: Family<Evidence, Gauge<f64, AtomicU64>>,
    leading: Gauge,
    outcomes: Family<OutcomeLabels, Counter>,
    sign_offs_proven: Gauge,
    exported: Mutex<BTreeMap<Canary, Exported>>,
    ready: AtomicBool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    outcome: String,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl Telemetry {
    /// All metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        let telemetry = Self {
            registry: Mutex::new(Registry::with_prefix("countersign")),
            reconciles: Family::default(),
            reconcile_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            weight_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            writes: Family::default(),
            events_dropped: Counter::default(),
            watch_errors: Family::default(),
            watch_events: Family::default(),
            rollouts: Family::default(),
            transitions: Family::default(),
            answers: Family::default(),
            weight: Family::default(),
            evidence: Family::default(),
            leading: Gauge::default(),
            outcomes: Family::default(),
            sign_offs_proven: Gauge::default(),
            exported: Mutex::default(),
            ready: AtomicBool::new(false),
        };
        telemetry.register();
        telemetry
    }

    fn register(&self) {
        let Ok(mut registry) = self.registry.lock() else {
            return;
        };
        registry.register("reconcile", "Reconciles by result", self.reconciles.clone());
        registry.register(
            "reconcile_time_seconds",
            "Duration of reconciles",
            self.reconcile_seconds.clone(),
        );
        registry.register(
            "weight_write_seconds",
            "Time from a decision to the written weights of a route",
            self.weight_seconds.clone(),
        );
        registry.register(
            "api_writes",
            "Writes to the API server",
            self.writes.clone(),
        );
        registry.register(
            "events_dropped",
            "Events that were not published, as too many waited",
            self.events_dropped.clone(),
        );
        registry.register(
            "watch_errors",
            "Errors of each watch",
            self.watch_errors.clone(),
        );
        registry.register(
            "watch_last_event_timestamp_seconds",
            "When each watch last had an event",
            self.watch_events.clone(),
        );
        registry.register(
            "rollouts",
            "Rollouts by phase and tier",
            self.rollouts.clone(),
        );
        registry.register(
            "transitions",
            "Transitions by reason",
            self.transitions.clone(),
        );
        registry.register(
            "analysis_answers",
            "Reads of evidence by the result of the newest window",
            self.answers.clone(),
        );
        registry.register(
            "rollout_weight",
            "Weight of each canary under way, in percent",
            self.weight.clone(),
        );
        registry.register(
            "analysis_e_value_log10",
            "Evidence on each canary under way: base-10 log of the e-value of each test",
            self.evidence.clone(),
        );
        registry.register(
            "leading",
            "Whether this replica leads",
            self.leading.clone(),
        );
        registry.register(
            "rollout_outcomes",
            "Changes that ended, by who wrote them, tier, outcome and reason",
            self.outcomes.clone(),
        );
        registry.register(
            "sign_offs_proven",
            "Whether the admission policies that prove who signs are in place",
            self.sign_offs_proven.clone(),
        );
    }

    /// Observes the time from the decision to the written weights of a route.
    pub fn weights_written(&self, after: Duration) {
        self.weight_seconds.observe(after.as_secs_f64());
    }

    /// Counts one reconcile.
    pub fn reconciled(&self, result: &'static str, took: Duration) {
        self.reconciles.get_or_create(&Outcome { result }).inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// Counts one write to the API server.
    pub fn api_write(&self, verb: &'static str, resource: &'static str, ok: bool) {
        let result = if ok { "ok" } else { "error" };
        self.writes
            .get_or_create(&Write {
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

    /// Notes an event of a watch.
    #[allow(clippy::cast_precision_loss)]
    pub fn watch_event(&self, kind: &'static str) {
        let now = clock::now().as_millisecond() as f64 / 1_000.0;
        self.watch_events.get_or_create(&Kind { kind }).set(now);
    }

    /// Counts an error of a watch.
    pub fn watch_error(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&Kind { kind }).inc();
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

    /// Counts a change that ended between two statuses, by contributor and tier.
    fn ended(&self, before: &RolloutStatus, after: &RolloutStatus) {
        let under_way = before.change.as_ref().filter(|it| !it.initial);
        let same = |it: &&Change| {
            under_way.is_some_and(|before| before.run == it.run && before.outcome != it.outcome)
        };
        let Some(change) = after.change.as_ref().filter(same) else {
            return;
        };
        let Some(outcome) = change.outcome else {
            return;
        };
        let reason = change.transitions.last().map(|line| line.reason.clone());
        let ended = OutcomeLabels {
            contributor: change.contributor.clone(),
            tier: change.tier.as_str(),
            outcome: format!("{outcome:?}"),
            reason: reason.unwrap_or_default(),
        };
        self.outcomes.get_or_create(&ended).inc();
    }

    /// Counts the transitions between two statuses of one Rollout.
    pub fn transitioned(&self, before: &RolloutStatus, after: &RolloutStatus) {
        self.ended(before, after);
        let recorded = |status: &RolloutStatus| {
            status.change.as_ref().map_or((String::new(), 0), |change| {
                (change.run.clone(), change.transitions.len())
            })
        };
        let (old, new) = (recorded(before), recorded(after));
        let known = if old.0 == new.0 { old.1 } else { 0 };
        for line in after
            .change
            .iter()
            .flat_map(|change| change.transitions.iter().skip(known))
        {
            self.transitions
                .get_or_create(&Reason {
                    reason: line.reason.clone(),
                })
                .inc();
        }
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

    /// Exports the status of a Rollout; `None` removes a deleted Rollout.
    pub fn set_rollout(&self, namespace: &str, name: &str, status: Option<&RolloutStatus>) {
        let Ok(mut exported) = self.exported.lock() else {
            return;
        };
        let canary = Canary {
            namespace: namespace.to_owned(),
            rollout: name.to_owned(),
        };
        if let Some(before) = exported.remove(&canary) {
            self.rollouts.get_or_create(&before.labels).dec();
            self.weight.remove(&canary);
            before
                .evidence
                .iter()
                .for_each(|label| _ = self.evidence.remove(label));
        }
        let Some(status) = status else { return };
        let labels = RolloutLabels {
            phase: format!("{:?}", status.phase),
            tier: status.tier.map(Tier::as_str).unwrap_or_default().to_owned(),
        };
        self.rollouts.get_or_create(&labels).inc();
        let evidence = status
            .change
            .as_ref()
            .filter(|change| change.outcome.is_none())
            .map(|change| self.follow(&canary, change))
            .unwrap_or_default();
        exported.insert(canary, Exported { labels, evidence });
    }

    /// Sets the series of a change in progress, and returns them.
    fn follow(&self, canary: &Canary, change: &Change) -> Vec<Evidence> {
        self.weight
            .get_or_create(canary)
            .set(i64::from(change.weight));
        let summaries = summary::all(&change.evidence);
        let values = summaries.into_iter().flat_map(|summary| {
            let label = |test| Evidence {
                namespace: canary.namespace.clone(),
                rollout: canary.rollout.clone(),
                check: summary.check.clone(),
                test,
            };
            [
                (label("worse"), summary.log10_worse),
                (label("within_margin"), summary.log10_within_margin),
            ]
        });
        let set = |(label, value): (Evidence, f64)| {
            self.evidence.get_or_create(&label).set(value);
            label
        };
        values.map(set).collect()
    }

    /// All metrics in the OpenMetrics text format.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        let encoded = self
            .registry
            .lock()
            .is_ok_and(|registry| encode(&mut text, &registry).is_ok());
        if !encoded {
            let _ = write!(text, "# the metrics could not be encoded");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use countersign_api::rollout::{Outcome, Transition};

    use super::*;

    fn status(outcome: Option<Outcome>, reasons: &[&str]) -> RolloutStatus {
        let line = |reason: &&str| Transition {
            reason: (*reason).to_owned(),
            ..Transition::default()
        };
        RolloutStatus {
            change: Some(Change {
                run: "shop-1".into(),
                contributor: "ai".into(),
                tier: Tier::High,
                outcome,
                transitions: reasons.iter().map(line).collect(),
                ..Change::default()
            }),
            ..RolloutStatus::default()
        }
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
        telemetry.transitioned(&begun, &ended);
        telemetry.transitioned(&ended, &gone);
        let counted = r#"countersign_rollout_outcomes_total{contributor="ai",tier="high",outcome="RolledBack",reason="Rejected"} 1"#;
        let text = telemetry.encode();
        assert!(text.contains(counted), "{text}");
    }
}
