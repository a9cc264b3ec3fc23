//! The loop: observe, decide, act.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use countersign_core::{Decision, Observation, decide, observation};
use futures::{FutureExt, StreamExt};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::reflector::ObjectRef;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::act::{self, Actor};
use crate::api_server::sentence;
use crate::clock;
use crate::observe::observer::Observer;
use crate::observe::snapshot::{Observed, Snapshot};
use crate::telemetry::Telemetry;
use crate::timing::{MAX_BACKOFF, RECONCILE_TIMEOUT, SNAPSHOT_DUE_WITHIN, SNAPSHOT_MAX_AGE};
use crate::watch::batch::Batch;
use crate::watch::waiting::Waiting;
use crate::watch::{Claim, Trigger};

/// Concurrent reconciles.
const CONCURRENCY: u16 = 256;
/// Concurrent reconciles with a full read; fewer, so that reconciles of bad canaries do not wait for
/// them.
const MAX_FULL_READS: usize = 48;
/// Most triggers that are handled as one batch.
const TRIGGERS: usize = 1_000;

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Rollout or its surroundings could not be read.
    #[error("the Rollout or its surroundings could not be read: {}", sentence(.0))]
    Read(#[source] Box<kube::Error>),
    /// The decision could not be carried out.
    #[error(transparent)]
    Write(#[from] act::Error),
    /// The reconcile timed out.
    #[error("it took longer than {RECONCILE_TIMEOUT:?}")]
    TimedOut,
    /// The reconcile panicked, which is a bug; other Rollouts continue.
    #[error("it panicked, which is a defect of the operator")]
    Panicked,
}

impl Error {
    /// The class of the error, which selects the retry.
    fn class(&self) -> Class {
        match self {
            Self::Write(error) if error.is_conflict() => Class::Conflict,
            Self::Write(act::Error::InvalidRevision { .. }) | Self::Panicked => Class::Terminal,
            Self::Write(
                act::Error::NotLeading(_)
                | act::Error::Refused { .. }
                | act::Error::NameTaken { .. },
            )
            | Self::Read(_)
            | Self::TimedOut => Class::Transient,
        }
    }

    /// The label of the `reconcile` metric.
    fn result(&self) -> &'static str {
        match (self, self.class()) {
            (_, Class::Conflict) => "conflict",
            (Self::Read(_), _) => "read_error",
            (Self::Write(_), _) => "write_error",
            (Self::TimedOut, _) => "timeout",
            (Self::Panicked, _) => "panic",
        }
    }

    fn invalid_revision(&self) -> Option<&str> {
        match self {
            Self::Write(error) => error.invalid_revision(),
            Self::Read(_) | Self::TimedOut | Self::Panicked => None,
        }
    }

    fn taken_revision(&self) -> Option<&str> {
        match self {
            Self::Write(error) => error.taken_revision(),
            Self::Read(_) | Self::TimedOut | Self::Panicked => None,
        }
    }

    /// The API server's Retry-After; zero if there is none.
    fn retry_after(&self) -> Duration {
        let (Self::Read(source) | Self::Write(act::Error::Refused { source, .. })) = self else {
            return Duration::ZERO;
        };
        let kube::Error::Api(status) = &**source else {
            return Duration::ZERO;
        };
        let details = status.details.as_ref();
        Duration::from_secs(details.map_or(0, |it| it.retry_after_seconds.into()))
    }
}

/// How an error is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Retry with backoff.
    Transient,
    /// Read again at once.
    Conflict,
    /// Needs another spec or build; retried anyway, in case the cluster changes.
    Terminal,
}

/// The context of every reconcile.
pub struct Context {
    /// Makes observations.
    pub observer: Observer,
    /// Carries out decisions.
    pub actor: Actor,
    /// The metrics.
    pub telemetry: Arc<Telemetry>,
    /// Failures in a row, by uid.
    pub failures: Mutex<BTreeMap<String, Failure>>,
    /// Snapshots of Rollouts whose canary has traffic, until a watch reports a change; by namespace and
    /// name.
    pub known: Mutex<BTreeMap<(String, String), CachedSnapshot>>,
    /// Rollouts whose next reconcile may rely on the watches, by namespace and name: an event concerns them, or they wait
    /// for endpoints or a router, which are read in any case.
    pub reported: Mutex<BTreeSet<(String, String)>>,
    /// When each Rollout was last observed as the API server has it, by namespace and name.
    pub read: Mutex<BTreeMap<(String, String), Instant>>,
    /// Permits for full reads.
    pub full_read_permits: Semaphore,
    /// Rollouts that wait for other Rollouts.
    pub waiting: Waiting,
}

/// The cached snapshot of a Rollout.
pub struct CachedSnapshot {
    /// When the last full read began; the snapshot includes all earlier events.
    since: Instant,
    /// The snapshot with the written status; `None` during a reconcile, or after one with further
    /// actions.
    snapshot: Option<Box<Snapshot>>,
}

/// An observation and its decision.
struct Evaluation<'a> {
    observed: Observed,
    decision: Decision,
    /// The permit of a full read, kept until the decision is carried out.
    _permit: Option<SemaphorePermit<'a>>,
}

impl<'a> Evaluation<'a> {
    fn of(observed: Observed) -> Self {
        Self {
            decision: decide(&observed.snapshot.observation),
            observed,
            _permit: None,
        }
    }

    fn with(self, permit: Option<SemaphorePermit<'a>>) -> Self {
        Self {
            _permit: permit,
            ..self
        }
    }
}

/// The consecutive failed reconciles of a Rollout.
#[derive(Clone, Debug, Default)]
pub struct Failure {
    attempts: u32,
    last: observation::Failure,
    /// When evidence is due or a deadline passes; a retry is not delayed past this.
    requeue_at: Option<Timestamp>,
}

/// The permits for full reads.
#[must_use]
pub fn full_read_permits() -> Semaphore {
    Semaphore::new(MAX_FULL_READS)
}

impl Context {
    fn forget(&self, claim: &Claim) {
        let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
        self.telemetry.forget(&namespace, &name);
        self.waiting.forget(&namespace, &name);
        self.invalidate(&namespace, &name);
        self.take_reported(&namespace, &name);
        if let Ok(mut read) = self.read.lock() {
            read.remove(&(namespace, name));
        }
        if let (Ok(mut failures), Some(uid)) = (self.failures.lock(), claim.uid()) {
            failures.remove(&uid);
        }
    }

    fn is_gone(&self, claim: &Claim) -> bool {
        let now = self.observer.caches.claims.get(&ObjectRef::from_obj(claim));
        now.is_none_or(|now| now.metadata.uid != claim.metadata.uid)
    }

    fn invalidate(&self, namespace: &str, name: &str) {
        if let Ok(mut known) = self.known.lock() {
            known.remove(&(namespace.to_owned(), name.to_owned()));
        }
    }

    /// Notes that an event concerns a Rollout, so the watches work and its next reconcile may rely on them.
    fn report(&self, rollout: &ObjectRef<Claim>) {
        let namespace = rollout.namespace.clone().unwrap_or_default();
        self.invalidate(&namespace, &rollout.name);
        // What belonged to a deleted one is reported after its deletion.
        if self.observer.caches.claims.get(rollout).is_some() {
            self.trust_watches(&namespace, &rollout.name);
        }
    }

    /// Notes that the next reconcile of a Rollout may rely on the watches.
    fn trust_watches(&self, namespace: &str, name: &str) {
        if let Ok(mut reported) = self.reported.lock() {
            reported.insert((namespace.to_owned(), name.to_owned()));
        }
    }

    /// Whether the next reconcile of a Rollout may rely on the watches, which is noted for one only.
    fn take_reported(&self, namespace: &str, name: &str) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        let reported = self.reported.lock();
        reported.is_ok_and(|mut reported| reported.remove(&key))
    }

    /// Notes that a Rollout is observed as the API server has it.
    fn note_read(&self, claim: &Claim) {
        let key = (claim.namespace().unwrap_or_default(), claim.name_any());
        if let Ok(mut read) = self.read.lock() {
            read.insert(key, Instant::now());
        }
    }

    /// Whether a Rollout was lately observed as the API server has it.
    fn was_read_lately(&self, claim: &Claim) -> bool {
        let key = (claim.namespace().unwrap_or_default(), claim.name_any());
        let read = self.read.lock().ok();
        let at = read.and_then(|read| read.get(&key).copied());
        at.is_some_and(|at| at.elapsed() < SNAPSHOT_MAX_AGE)
    }

    /// Marks the start of a full read: later watch events invalidate the snapshot.
    fn mark_read(&self, namespace: &str, name: &str) {
        if let Ok(mut known) = self.known.lock() {
            let since = Instant::now();
            let read = CachedSnapshot {
                since,
                snapshot: None,
            };
            known.insert((namespace.to_owned(), name.to_owned()), read);
        }
    }

    /// Takes the cached snapshot, if it is recent enough.
    fn take_cached(&self, namespace: &str, name: &str) -> Option<Snapshot> {
        let mut known = self.known.lock().ok()?;
        let known = known.get_mut(&(namespace.to_owned(), name.to_owned()))?;
        let snapshot = known.snapshot.take()?;
        (known.since.elapsed() < SNAPSHOT_MAX_AGE).then_some(*snapshot)
    }

    /// Caches the snapshot of a canary, if the decision had no actions and no event came since it was
    /// read.
    fn keep(&self, snapshot: Snapshot, decision: Decision, version: Option<String>) {
        if !decision.actions.is_empty() || decision.status.weight.is_none() {
            return;
        }
        let it = &snapshot.observation;
        let key = (it.namespace.clone(), it.name.clone());
        if let Ok(mut known) = self.known.lock()
            && let Some(known) = known.get_mut(&key)
        {
            known.snapshot = Some(Box::new(snapshot.written(decision.status, version)));
        }
    }
}

/// Reconciles triggered Rollouts until cancelled; running reconciles are finished first.
pub async fn run(
    context: Arc<Context>,
    triggers: mpsc::UnboundedReceiver<Trigger>,
    cancelled: CancellationToken,
) {
    let store = context.observer.caches.claims.clone();
    let everything = store.state().into_iter();
    let everything: Vec<_> = everything.map(|it| ObjectRef::from_obj(&*it)).collect();
    for it in &everything {
        context.report(it);
    }
    let triggers = targets(context.clone(), triggers);
    Controller::for_stream(futures::stream::pending(), store)
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .reconcile_on(futures::stream::iter(everything).chain(triggers))
        .graceful_shutdown_on(cancelled.cancelled_owned())
        .run(reconcile, back_off, context)
        .for_each(|result| async move {
            match result {
                // Errors of reconciles are logged already; a Rollout may have been deleted.
                Ok(_)
                | Err(
                    controller::Error::ReconcilerFailed(..) | controller::Error::ObjectNotFound(_),
                ) => {}
                Err(error) => tracing::error!(%error, "the controller's queue failed"),
            }
        })
        .await;
}

/// The Rollouts that triggers reconcile.
fn targets(
    context: Arc<Context>,
    triggers: mpsc::UnboundedReceiver<Trigger>,
) -> impl futures::Stream<Item = ObjectRef<Claim>> {
    // Simultaneous triggers of a Rollout cause one reconcile.
    let together = UnboundedReceiverStream::new(triggers).ready_chunks(TRIGGERS);
    together.flat_map(move |triggers| {
        let batch = Batch::of(triggers);
        batch.deleted().for_each(|claim| context.forget(claim));
        if batch.deleted().any(Claim::holds_up_queue) {
            context.waiting.wake();
        }
        let observer = &context.observer;
        let labels = |namespace: &str| observer.namespace_labels(namespace);
        let targets = batch.rollouts(&observer.caches.claims, labels);
        for it in &targets {
            context.report(it);
        }
        futures::stream::iter(targets)
    })
}

async fn reconcile(claim: Arc<Claim>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    let result = guarded(
        Box::pin(reconcile_claim(&claim, &context)),
        RECONCILE_TIMEOUT,
    )
    .await;
    let label = result.as_ref().map_or_else(Error::result, |_| "ok");
    context.telemetry.reconciled(label, started.elapsed());
    remember(&claim, &context, result.as_ref().err());
    // The Rollout may have been deleted during the reconcile, after its state was removed.
    if context.is_gone(&claim) {
        context.forget(&claim);
    }
    result
}

/// A reconcile with a timeout, whose panic does not stop others.
async fn guarded(
    reconcile: impl Future<Output = Result<Action, Error>>,
    timeout: Duration,
) -> Result<Action, Error> {
    let reconcile = AssertUnwindSafe(reconcile).catch_unwind();
    match tokio::time::timeout(timeout, reconcile).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(Error::Panicked),
        Err(_) => Err(Error::TimedOut),
    }
}

/// Observe, decide, act.
async fn reconcile_claim(claim: &Claim, context: &Context) -> Result<Action, Error> {
    let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
    context.observer.admission.note_activity();
    let Some(evaluation) = Box::pin(evaluate(claim, context)).await? else {
        context.telemetry.forget(&namespace, &name);
        return Ok(Action::await_change());
    };
    let Evaluation {
        observed: Observed {
            snapshot,
            lock: _lock,
        },
        decision,
        _permit,
    } = evaluation;
    let observation = &snapshot.observation;
    context.telemetry.answered(&observation.analysis.windows);
    let (actor, decided) = (&context.actor, Instant::now());
    let written = actor.write_down(&snapshot.rollout, observation, &decision);
    let version = written.await?;
    // The decision is in effect once written, whatever the actions return.
    let (before, after) = (&observation.status, &decision.status);
    context.telemetry.written(&namespace, &name, before, after);
    context.waiting.note(&namespace, &name, before, after);
    for notice in &decision.notices {
        tracing::info!(%namespace, rollout = %name, reason = %notice.reason, message = %notice.message);
    }
    let requeue_at = decision.requeue_at;
    keep_deadline(claim, context, requeue_at);
    let done = actor.carry_out(&snapshot.rollout, observation, &decision, decided);
    done.await?;
    if decision.awaits_traffic {
        context.trust_watches(&namespace, &name);
    }
    context.keep(snapshot, decision, version);
    Ok(requeue_at.map_or_else(Action::await_change, |at| Action::requeue(until(at))))
}

/// Observes and decides.
///
/// If an event caused the reconcile, the watches work, and what they keep is as they have reported it. Nothing is written on
/// that before it is confirmed. If no event came, a watch may be silent, so all is read, unless only endpoints or a router
/// are waited for; of a change under way all is read at least once a minute. That takes a tenth of a second, during which a
/// bad canary keeps its traffic, so while it has traffic its cached snapshot is used.
async fn evaluate<'a>(
    claim: &Claim,
    context: &'a Context,
) -> Result<Option<Evaluation<'a>>, Error> {
    let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
    tracing::debug!(%namespace, rollout = %name, "reconciling");
    let at_rest = claim.is_new() || !claim.is_changing();
    let reported =
        context.take_reported(&namespace, &name) && (at_rest || context.was_read_lately(claim));
    let failure = last_failure(claim, context);
    let observe = async |observer: &Observer, before| {
        // On the heap, since the future of many reads is large.
        let observed = Box::pin(observer.observe(&namespace, &name, failure.clone(), before)).await;
        observed.map_err(unread)
    };
    let mut before = None;
    if let Some(snapshot) = context.take_cached(&namespace, &name) {
        let snapshot = Box::pin(context.observer.count_on(snapshot)).await;
        let observed = Observed {
            snapshot,
            lock: None,
        };
        let evaluation = Evaluation::of(observed);
        if can_skip_full_read(
            &evaluation.observed.snapshot.observation,
            &evaluation.decision,
        ) {
            return Ok(Some(evaluation));
        }
        before = Some(evaluation.observed.snapshot);
    }
    // The semaphore is never closed.
    let permit = context.full_read_permits.acquire().await.ok();
    if claim.status.weight > 0 {
        context.mark_read(&namespace, &name);
    }
    if failure.is_none() && (reported || claim.is_new()) {
        let observer = context.observer.near(claim.is_new(), reported);
        if let Some(observed) = observe(&observer, before.take()).await? {
            let evaluation = Evaluation::of(observed);
            if Box::pin(is_enough(claim, context, &evaluation)).await? {
                return Ok(Some(evaluation.with(permit)));
            }
            // The lock of the queue is released before all is read.
            let Observed { snapshot, lock } = evaluation.observed;
            drop(lock);
            before = Some(snapshot);
        }
    }
    context.note_read(claim);
    let newest = observe(&context.observer, before).await?;
    Ok(newest.map(|it| Evaluation::of(it).with(permit)))
}

fn unread(error: kube::Error) -> Error {
    Error::Read(Box::new(error))
}

/// Whether a decision that was not made from the most recent state may be carried out: if nothing can be lost, since there
/// is no stable revision and writes based on a stale read are refused; if it writes nothing; if it is a rollback on bad
/// windows, which no other change would prevent; or if it is confirmed.
async fn is_enough(
    claim: &Claim,
    context: &Context,
    evaluation: &Evaluation<'_>,
) -> Result<bool, Error> {
    let snapshot = &evaluation.observed.snapshot;
    if claim.is_new() {
        return Ok(snapshot.observation.status.stable.is_none());
    }
    let (decision, observation) = (&evaluation.decision, &snapshot.observation);
    let rolls_back = is_under_way(observation) && decision.rolls_back_on_analysis();
    if rolls_back || decision.is_idle(observation) {
        return Ok(true);
    }
    let current = Box::pin(context.observer.is_current(snapshot)).await;
    let current = current.map_err(unread)?;
    if current {
        context.note_read(claim);
    }
    Ok(current)
}

/// Whether the cached snapshot is enough: for a rollback on bad windows, which no other change would
/// prevent, and for a decision that only updates numbers, if the next reconcile is soon. Endpoints are
/// not watched, so a change that waits for them is read again.
fn can_skip_full_read(observation: &Observation, decision: &Decision) -> bool {
    if !is_under_way(observation) {
        return false;
    }
    let now = observation.now;
    let soon = now.saturating_add(SNAPSHOT_DUE_WITHIN).unwrap_or(now);
    let waits = decision.requeue_at.is_some_and(|at| at <= soon);
    decision.rolls_back_on_analysis()
        || (waits && !decision.awaits_traffic && decision.only_updates_evidence(observation))
}

/// Whether a change of a stable revision is under way.
fn is_under_way(observation: &Observation) -> bool {
    let change = observation.status.change.as_ref();
    change.is_some_and(|it| !it.initial && it.outcome.is_none())
}

fn last_failure(claim: &Claim, context: &Context) -> Option<observation::Failure> {
    let failures = context.failures.lock().ok()?;
    failures
        .get(&claim.uid()?)
        .map(|failure| failure.last.clone())
}

/// Notes the next deadline, so that retries do not delay the analysis.
fn keep_deadline(claim: &Claim, context: &Context, requeue_at: Option<Timestamp>) {
    if let (Ok(mut failures), Some(uid)) = (context.failures.lock(), claim.uid()) {
        failures.entry(uid).or_default().requeue_at = requeue_at;
    }
}

fn remember(claim: &Claim, context: &Context, error: Option<&Error>) {
    let (Ok(mut failures), Some(uid)) = (context.failures.lock(), claim.uid()) else {
        return;
    };
    let Some(error) = error else {
        failures.remove(&uid);
        return;
    };
    let failure = failures.entry(uid).or_default();
    failure.attempts = failure.attempts.saturating_add(1);
    failure.last = observation::Failure {
        message: error.to_string(),
        invalid_revision: error.invalid_revision().map(ToOwned::to_owned),
        taken_revision: error.taken_revision().map(ToOwned::to_owned),
    };
    let (namespace, rollout) = (claim.namespace().unwrap_or_default(), claim.name_any());
    context.invalidate(&namespace, &rollout);
    tracing::warn!(%namespace, %rollout, attempt = failure.attempts, %error, "reconcile failed");
}

/// Exponential backoff, but not past the next deadline; a conflict is retried at once.
// The signature is kube-rs'.
#[allow(clippy::needless_pass_by_value)]
fn back_off(claim: Arc<Claim>, error: &Error, context: Arc<Context>) -> Action {
    let failures = context.failures.lock().ok();
    let failure = claim
        .uid()
        .and_then(|uid| failures?.get(&uid).cloned())
        .unwrap_or_default();
    let first = match error.class() {
        Class::Conflict => 50,
        Class::Transient | Class::Terminal => 250,
    };
    let delay = Duration::from_millis(first)
        .saturating_mul(1 << failure.attempts.min(10).saturating_sub(1))
        .max(error.retry_after())
        .min(MAX_BACKOFF);
    let due = failure
        .requeue_at
        .map(until)
        .filter(|due| *due >= Duration::from_secs(1));
    Action::requeue(due.map_or(delay, |due| delay.min(due)))
}

fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(clock::now())).unwrap_or_default()
}

#[cfg(test)]
mod reconciles;

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[tokio::test]
    async fn a_reconcile_that_panics_is_an_error_of_that_reconcile_alone() {
        let result = guarded(async { panic!("a defect") }, RECONCILE_TIMEOUT).await;
        assert_eq!(result.unwrap_err().result(), "panic");
    }

    #[tokio::test]
    async fn a_reconcile_that_never_ends_times_out() {
        let result = guarded(std::future::pending(), Duration::from_millis(1)).await;
        assert_eq!(result.unwrap_err().result(), "timeout");
    }

    #[test]
    fn the_retry_after_of_the_api_server_is_respected() {
        let details = serde_json::json!({ "retryAfterSeconds": 7 });
        let busy = Status::failure("too many requests", "TooManyRequests")
            .with_code(429)
            .with_details(serde_json::from_value(details).unwrap());
        let busy = || Box::new(kube::Error::Api(Box::new(busy.clone())));
        assert_eq!(Error::Read(busy()).retry_after(), Duration::from_secs(7));
        let refused = act::Error::Refused {
            target: act::Target::Status,
            rollout: "shop/web".into(),
            source: busy(),
        };
        let refused = Error::Write(refused);
        assert_eq!(refused.retry_after(), Duration::from_secs(7));
        assert_eq!(Error::TimedOut.retry_after(), Duration::ZERO);
    }
}
