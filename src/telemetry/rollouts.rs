//! The metrics of Rollouts and their changes.
//!
//! A Rollout has series of its own while it is not at rest, and a namespace has counters while it has a Rollout. So
//! the number of series follows the work under way, and what is deleted leaves none.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use countersign_api::rollout::{Change, Outcome};
use countersign_api::{Phase, RolloutStatus, Tier};
use countersign_core::analysis::summary;
use countersign_core::change::last_cause;
use countersign_core::people::sign_off;
use countersign_core::reason::Reason;
use k8s_openapi::jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::telemetry::catalog::Catalog;
use crate::telemetry::labels::{
    CountLabels, DurationLabels, EvidenceLabels, InfoLabels, OutcomeLabels, RolloutLabels,
    TransitionLabels, WaitLabels,
};

type Number = Gauge<f64, AtomicU64>;

/// The metrics of all Rollouts.
pub(super) struct Rollouts {
    count: Family<CountLabels, Gauge>,
    info: Family<InfoLabels, Number>,
    weight: Family<RolloutLabels, Number>,
    deadline: Family<RolloutLabels, Number>,
    evidence: Family<EvidenceLabels, Number>,
    transitions: Family<TransitionLabels, Counter>,
    outcomes: Family<OutcomeLabels, Counter>,
    durations: Family<DurationLabels, Histogram>,
    without_people: Family<DurationLabels, Histogram>,
    waits: Family<WaitLabels, Histogram>,
    exported: Mutex<Exported>,
}

/// What has series at present.
#[derive(Default)]
struct Exported {
    rollouts: BTreeMap<RolloutLabels, Series>,
    namespaces: BTreeMap<String, Counters>,
}

/// The series of one Rollout, with their values.
#[derive(Default)]
struct Series {
    count: Option<CountLabels>,
    info: BTreeMap<InfoLabels, f64>,
    weight: BTreeMap<RolloutLabels, f64>,
    deadline: BTreeMap<RolloutLabels, f64>,
    evidence: BTreeMap<EvidenceLabels, f64>,
    /// Seconds for which the change under way waited for people, without a wait that lasts. Another leader begins at 0.
    waited: f64,
}

/// The counters of one namespace.
#[derive(Default)]
struct Counters {
    transitions: BTreeSet<TransitionLabels>,
    outcomes: BTreeSet<OutcomeLabels>,
}

/// From half a minute to nearly three days.
fn long() -> Histogram {
    Histogram::new(exponential_buckets(30.0, 2.0, 14))
}

impl Rollouts {
    /// Registers the metrics.
    pub(super) fn new(catalog: &mut Catalog) -> Self {
        Self {
            count: catalog.register("rollouts", "Rollouts by phase and tier", Family::default()),
            info: catalog.register(
                "rollout_info",
                "Each Rollout that is not at rest: its phase, what it waits for, and why it was rolled back; always 1",
                Family::default(),
            ),
            weight: catalog.register(
                "rollout_weight",
                "Allowed weight of each canary under way, in percent",
                Family::default(),
            ),
            deadline: catalog.register(
                "sign_off_deadline_timestamp_seconds",
                "When each change that waits for people is rolled back",
                Family::default(),
            ),
            evidence: catalog.register(
                "analysis_e_value_log10",
                "Evidence on each canary under way: base-10 log of the e-value of each test",
                Family::default(),
            ),
            transitions: catalog.register(
                "transitions",
                "Transitions of changes by reason",
                Family::default(),
            ),
            outcomes: catalog.register(
                "rollout_outcomes",
                "Changes that ended, by who wrote them, tier, outcome and reason",
                Family::default(),
            ),
            durations: catalog.register(
                "change_duration_seconds",
                "Time from the start of changes to their outcome, including waits for people",
                Family::<DurationLabels, Histogram>::new_with_constructor(long),
            ),
            without_people: catalog.register(
                "change_duration_without_people_seconds",
                "Time from the start of changes to their outcome, without waits for people",
                Family::<DurationLabels, Histogram>::new_with_constructor(long),
            ),
            waits: catalog.register(
                "sign_off_wait_seconds",
                "Time for which gates waited for people",
                Family::<WaitLabels, Histogram>::new_with_constructor(long),
            ),
            exported: Mutex::default(),
        }
    }

    /// Counts what changed from one written status of a Rollout to the next, and exports the new one.
    pub(super) fn written(
        &self,
        rollout: RolloutLabels,
        before: &RolloutStatus,
        after: &RolloutStatus,
        now: Timestamp,
    ) {
        let Ok(mut exported) = self.exported.lock() else {
            return;
        };
        let old = exported.rollouts.remove(&rollout).unwrap_or_default();
        let waited = old.waited + wait_between(before, after, now);
        let namespace = &rollout.namespace;
        let counters = exported.namespaces.entry(namespace.clone()).or_default();
        self.count_transitions(namespace, counters, before, after);
        self.count_outcome(namespace, counters, before, after, waited);
        self.observe_waits(before, after, now);
        let mut new = Series::of(&rollout, after);
        if run_under_way(before) == run_under_way(after) {
            new.waited = waited;
        }
        self.replace(&old, &new);
        exported.rollouts.insert(rollout, new);
    }

    /// Removes the series of a deleted Rollout, and with the last of a namespace the counters of the namespace.
    pub(super) fn forget(&self, rollout: &RolloutLabels) {
        let Ok(mut exported) = self.exported.lock() else {
            return;
        };
        let Some(old) = exported.rollouts.remove(rollout) else {
            return;
        };
        self.replace(&old, &Series::default());
        let first = RolloutLabels::new(&rollout.namespace, "");
        let next = exported.rollouts.range(first..).next();
        if next.is_some_and(|(other, _)| other.namespace == rollout.namespace) {
            return;
        }
        let counters = exported.namespaces.remove(&rollout.namespace);
        let counters = counters.unwrap_or_default();
        for labels in &counters.transitions {
            self.transitions.remove(labels);
        }
        for labels in &counters.outcomes {
            self.outcomes.remove(labels);
        }
    }

    fn count_transitions(
        &self,
        namespace: &str,
        counters: &mut Counters,
        before: &RolloutStatus,
        after: &RolloutStatus,
    ) {
        let mut count = |reason: String, times: u64| {
            let namespace = namespace.to_owned();
            let labels = TransitionLabels { namespace, reason };
            self.transitions.get_or_create(&labels).inc_by(times);
            counters.transitions.insert(labels);
        };
        // `increase` sees the first one only if the counter was there before it.
        count(Reason::BreakGlass.into(), 0);
        let recorded = |status: &RolloutStatus| {
            status.change.as_ref().map_or((String::new(), 0), |change| {
                (change.run.clone(), change.transitions.len())
            })
        };
        let (old, new) = (recorded(before), recorded(after));
        let known = if old.0 == new.0 { old.1 } else { 0 };
        let transitions = after.change.iter().flat_map(|it| it.transitions.iter());
        for line in transitions.skip(known) {
            count(line.reason.clone(), 1);
        }
    }

    /// Counts a change that ended between two statuses, and observes how long it took, of which it waited for people.
    fn count_outcome(
        &self,
        namespace: &str,
        counters: &mut Counters,
        before: &RolloutStatus,
        after: &RolloutStatus,
        waited: f64,
    ) {
        let Some(change) = after.change.as_ref().filter(|it| !it.initial) else {
            return;
        };
        let tier = change.tier.as_str();
        let mut count = |outcome: Outcome, reason: String, times: u64| {
            let labels = OutcomeLabels {
                namespace: namespace.to_owned(),
                contributor: change.contributor.clone(),
                tier,
                outcome: format!("{outcome:?}"),
                reason,
            };
            self.outcomes.get_or_create(&labels).inc_by(times);
            counters.outcomes.insert(labels);
        };
        let Some(outcome) = change.outcome else {
            // The usual ends, so that `increase` sees the first of each.
            count(Outcome::Promoted, Reason::Promoted.into(), 0);
            count(Outcome::RolledBack, Reason::AnalysisFailed.into(), 0);
            return;
        };
        // A change may also begin and end in one write.
        let known = |before: &Change| before.run == change.run && before.outcome == change.outcome;
        if before.change.as_ref().is_some_and(known) {
            return;
        }
        let last = change.transitions.last();
        let reason = last.map(|line| line.reason.clone());
        count(outcome, reason.unwrap_or_default(), 1);
        let ended = last.and_then(|line| line.at.as_ref());
        if let (Some(began), Some(ended)) = (&change.started_at, ended) {
            let took = ended.0.duration_since(began.0).as_secs_f64();
            let outcome = format!("{outcome:?}");
            let labels = DurationLabels { outcome, tier };
            self.durations.get_or_create(&labels).observe(took);
            let without_people = self.without_people.get_or_create(&labels);
            without_people.observe((took - waited).max(0.0));
        }
    }

    /// Observes how long each gate waited for people that does so no longer.
    fn observe_waits(&self, before: &RolloutStatus, after: &RolloutStatus, now: Timestamp) {
        let Some(change) = under_way(before) else {
            return;
        };
        let still = under_way(after).filter(|it| it.run == change.run);
        let tier = change.tier.as_str();
        for (gate, since) in &change.awaited_gates {
            if still.is_none_or(|it| !it.awaited_gates.contains_key(gate)) {
                let waited = now.duration_since(since.0).as_secs_f64();
                let waits = self.waits.get_or_create(&WaitLabels { tier });
                waits.observe(waited);
            }
        }
    }

    fn replace(&self, old: &Series, new: &Series) {
        if old.count != new.count {
            if let Some(labels) = &new.count {
                self.count.get_or_create(labels).inc();
            }
            if let Some(labels) = &old.count {
                self.count.get_or_create(labels).dec();
            }
        }
        replace(&self.info, &old.info, &new.info);
        replace(&self.weight, &old.weight, &new.weight);
        replace(&self.deadline, &old.deadline, &new.deadline);
        replace(&self.evidence, &old.evidence, &new.evidence);
    }
}

/// Replaces series by others. One in both is absent from no scrape, which would restart the clock of an alert.
fn replace<S>(family: &Family<S, Number>, old: &BTreeMap<S, f64>, new: &BTreeMap<S, f64>)
where
    S: Clone + Eq + Hash + Ord,
{
    for labels in old.keys() {
        if !new.contains_key(labels) {
            family.remove(labels);
        }
    }
    for (labels, value) in new {
        family.get_or_create(labels).set(*value);
    }
}

impl Series {
    /// The series that a status has.
    #[allow(clippy::cast_precision_loss)] // a second in 285 million years
    fn of(rollout: &RolloutLabels, status: &RolloutStatus) -> Self {
        let phase = format!("{:?}", status.phase);
        let tier = status.tier.map(Tier::as_str).unwrap_or_default();
        let change = status.change.as_ref();
        let at_rest = status.phase == Phase::Stable;
        let info = (!at_rest).then(|| InfoLabels {
            namespace: rollout.namespace.clone(),
            rollout: rollout.rollout.clone(),
            phase: phase.clone(),
            tier,
            waiting_for: status.waiting_for.clone().unwrap_or_default(),
            reason: change.and_then(rolled_back_for).unwrap_or_default(),
        });
        let under_way = under_way(status);
        let weight = under_way.map(|it| (rollout.clone(), f64::from(it.weight)));
        let deadline = sign_off::deadline(status);
        let deadline = deadline.map(|at| (rollout.clone(), at.as_second() as f64));
        Self {
            count: Some(CountLabels { phase, tier }),
            info: info.map(|labels| (labels, 1.0)).into_iter().collect(),
            weight: weight.into_iter().collect(),
            deadline: deadline.into_iter().collect(),
            evidence: under_way
                .map(|it| evidence(rollout, it))
                .unwrap_or_default(),
            waited: 0.0,
        }
    }
}

/// The change of a status, if it has not ended.
fn under_way(status: &RolloutStatus) -> Option<&Change> {
    status.change.as_ref().filter(|it| it.outcome.is_none())
}

fn run_under_way(status: &RolloutStatus) -> Option<&str> {
    under_way(status).map(|it| it.run.as_str())
}

/// The seconds for which a change waited for people until some gate stopped waiting between two statuses. The time in
/// which several gates wait counts once.
fn wait_between(before: &RolloutStatus, after: &RolloutStatus, now: Timestamp) -> f64 {
    let first = |change: &Change| change.awaited_gates.values().map(|since| since.0).min();
    let Some(change) = under_way(before) else {
        return 0.0;
    };
    let Some(since) = first(change) else {
        return 0.0;
    };
    let still = under_way(after).filter(|it| it.run == change.run);
    let until = still.and_then(first).unwrap_or(now);
    until.duration_since(since).as_secs_f64().max(0.0)
}

/// Why a change was rolled back, if it was.
fn rolled_back_for(change: &Change) -> Option<String> {
    if change.outcome != Some(Outcome::RolledBack) {
        return None;
    }
    last_cause(change).map(|line| line.reason.clone())
}

fn evidence(rollout: &RolloutLabels, change: &Change) -> BTreeMap<EvidenceLabels, f64> {
    let summaries = summary::all(&change.evidence);
    let values = summaries.into_iter().flat_map(|summary| {
        let labels = |test| EvidenceLabels {
            namespace: rollout.namespace.clone(),
            rollout: rollout.rollout.clone(),
            check: summary.check.clone(),
            test,
        };
        [
            (labels("worse"), summary.log10_worse),
            (labels("within_margin"), summary.log10_within_margin),
        ]
    });
    values.collect()
}
