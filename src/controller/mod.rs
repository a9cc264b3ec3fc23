//! The loop: observe, decide, act.

use std::collections::{BTreeMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use countersign_core::{Decision, Observation, decide, observation};
use futures::{FutureExt, StreamExt};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::act::{self, Actor};
use crate::api_server::sentence;
use crate::clock;
use crate::observe::observer::Observer;
use crate::observe::snapshot::{Observed, Seen};
use crate::telemetry::Telemetry;
use crate::timing::{MAX_BACKOFF, RECONCILE_TIMEOUT, SNAPSHOT_DUE_WITHIN, SNAPSHOT_MAX_AGE};
use crate::watch::waiting::Waiting;
use crate::watch::{Claim, Scope, Trigger};

/// Rollouts that are looked at side by side,
const CONCURRENCY: u16 = 256;
/// and those of them that read the newest, so that bad canaries need not wait for what takes longer.
const MAX_FULL_READS: usize = 48;
/// Triggers that are taken together, where as many have come.
const TRIGGERS: usize = 1_000;

/// Why one look at a Rollout failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be read.
    #[error("the Rollout or its surroundings could not be read: {}", sentence(.0))]
    Read(#[source] Box<kube::Error>),
    /// What was decided could not be done.
    #[error(transparent)]
    Write(#[from] act::Error),
    /// It took too long.
    #[error("it took longer than {RECONCILE_TIMEOUT:?}")]
    TimedOut,
    /// It panicked, which is a defect; other Rollouts go on.
    #[error("it panicked, which is a defect of the operator")]
    Panicked,
}

impl Error {
    /// What helps against it.
    fn class(&self) -> Class {
        match self {
            Self::Write(error) if error.is_conflict() => Class::Conflict,
            Self::Write(act::Error::InvalidRevision { .. }) | Self::Panicked => Class::Terminal,
            Self::Write(act::Error::NotLeading(_) | act::Error::Refused { .. })
            | Self::Read(_)
            | Self::TimedOut => Class::Transient,
        }
    }

    /// What the metric of looks calls it.
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

    /// How long the API server asks to be left alone; zero where it does not.
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

/// What helps against an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Trying again later.
    Transient,
    /// Reading again, at once.
    Conflict,
    /// Another spec or another build; it is tried again all the same, in case the cluster changes.
    Terminal,
}

/// What every look needs.
pub struct Context {
    /// Where observations come from.
    pub observer: Observer,
    /// Where decisions go.
    pub actor: Actor,
    /// Where both are counted.
    pub telemetry: Arc<Telemetry>,
    /// Failures in a row, by uid.
    pub failures: Mutex<BTreeMap<String, Failure>>,
    /// What is known of Rollouts whose canary has traffic and of which no watch has told anything since;
    /// by namespace and name.
    pub known: Mutex<BTreeMap<(String, String), CachedSnapshot>>,
    /// Places for looks that read the newest.
    pub full_read_permits: Semaphore,
    /// Who waits for other Rollouts.
    pub waiting: Waiting,
}

/// What is known of a Rollout.
pub struct CachedSnapshot {
    /// Since when; what happened before was read.
    since: Instant,
    /// What was read, with the status as it was written; none while it is looked at, or has led to more.
    seen: Option<Box<Seen>>,
}

/// What was observed, and what follows from it.
struct Evaluation<'a> {
    observed: Observed,
    decision: Decision,
    /// Kept until it is carried out, where the newest was read.
    _place: Option<SemaphorePermit<'a>>,
}

/// Looks at one Rollout that failed in a row.
#[derive(Clone, Debug, Default)]
pub struct Failure {
    attempts: u32,
    last: observation::Failure,
    /// When to look again all the same, since evidence is due or a deadline passes.
    requeue_at: Option<Timestamp>,
}

/// As many permits as there are for reconciles that read the newest.
#[must_use]
pub fn full_read_permits() -> Semaphore {
    Semaphore::new(MAX_FULL_READS)
}

impl Context {
    fn forget(&self, claim: &Claim) {
        let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
        self.telemetry.stands(&namespace, &name, None);
        self.waiting.forget(&namespace, &name);
        self.invalidate(&namespace, &name);
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

    /// Notes that the newest is about to be read: what a watch tells from now on is news again.
    fn mark_read(&self, namespace: &str, name: &str) {
        if let Ok(mut known) = self.known.lock() {
            let since = Instant::now();
            let read = CachedSnapshot { since, seen: None };
            known.insert((namespace.to_owned(), name.to_owned()), read);
        }
    }

    /// What is known since lately, for a look to go on with.
    fn take_cached(&self, namespace: &str, name: &str) -> Option<Seen> {
        let mut known = self.known.lock().ok()?;
        let known = known.get_mut(&(namespace.to_owned(), name.to_owned()))?;
        let seen = known.seen.take()?;
        (known.since.elapsed() < SNAPSHOT_MAX_AGE).then_some(*seen)
    }

    /// Keeps what was seen of a canary, if nothing was done about it and nothing has happened since it was
    /// read.
    fn keep(&self, seen: Seen, decision: Decision, version: Option<String>) {
        if !decision.actions.is_empty() || decision.status.weight.is_none() {
            return;
        }
        let it = &seen.observation;
        let key = (it.namespace.clone(), it.name.clone());
        if let Ok(mut known) = self.known.lock()
            && let Some(known) = known.get_mut(&key)
        {
            known.seen = Some(Box::new(seen.written(decision.status, version)));
        }
    }
}

/// Looks at Rollouts as they are triggered, until cancelled; looks under way are finished first.
pub async fn run(
    context: Arc<Context>,
    triggers: mpsc::UnboundedReceiver<Trigger>,
    cancelled: CancellationToken,
) {
    let store = context.observer.caches.claims.clone();
    let everything = references(&store, |_| true);
    let triggers = targets(context.clone(), triggers);
    Controller::for_stream(futures::stream::pending(), store)
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .reconcile_on(futures::stream::iter(everything).chain(triggers))
        .graceful_shutdown_on(cancelled.cancelled_owned())
        .run(reconcile, back_off, context)
        .for_each(|result| async move {
            match result {
                // An error of a reconcile was logged where it happened; a Rollout may be gone.
                Ok(_)
                | Err(
                    controller::Error::ReconcilerFailed(..) | controller::Error::ObjectNotFound(_),
                ) => {}
                Err(error) => tracing::error!(%error, "the controller's queue failed"),
            }
        })
        .await;
}

/// The Rollouts that a trigger asks to look at.
fn targets(
    context: Arc<Context>,
    triggers: mpsc::UnboundedReceiver<Trigger>,
) -> impl futures::Stream<Item = ObjectRef<Claim>> {
    // What came at once is looked at once.
    let together = UnboundedReceiverStream::new(triggers).ready_chunks(TRIGGERS);
    together.flat_map(move |triggers| {
        let all = triggers.into_iter().flat_map(|it| concerned(&context, it));
        let targets: HashSet<_> = all.collect();
        for target in &targets {
            context.invalidate(
                target.namespace.as_deref().unwrap_or_default(),
                &target.name,
            );
        }
        futures::stream::iter(targets)
    })
}

fn concerned(context: &Context, trigger: Trigger) -> Vec<ObjectRef<Claim>> {
    let (observer, store) = (&context.observer, &context.observer.caches.claims);
    let selected = |scope: &Scope, claim: &Claim| {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        scope.selects(claim, observer.namespace_labels(namespace).as_ref())
    };
    match trigger {
        Trigger::Touched(claim) => vec![ObjectRef::from_obj(&*claim)],
        Trigger::Related(rollout) => vec![rollout],
        Trigger::Deleted(claim) => {
            context.forget(&claim);
            references(store, |other| claim.held_up(other))
        }
        Trigger::Governed(scope) => references(store, |claim| selected(&scope, claim)),
        Trigger::Frozen(scope) => references(store, |claim| {
            claim.is_changing() && selected(&scope, claim)
        }),
        Trigger::All => references(store, |_| true),
    }
}

fn references(store: &Store<Claim>, wanted: impl Fn(&Claim) -> bool) -> Vec<ObjectRef<Claim>> {
    let claims = store.state();
    claims
        .iter()
        .filter(|claim| wanted(claim))
        .map(|claim| ObjectRef::from_obj(&**claim))
        .collect()
}

async fn reconcile(claim: Arc<Claim>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    let result = guarded(Box::pin(look(&claim, &context)), RECONCILE_TIMEOUT).await;
    let label = result.as_ref().map_or_else(Error::result, |_| "ok");
    context.telemetry.reconciled(label, started.elapsed());
    remember(&claim, &context, result.as_ref().err());
    // It may have gone while it was looked at, after everything about it was forgotten.
    if context.is_gone(&claim) {
        context.forget(&claim);
    }
    result
}

/// A look that neither lasts for ever nor takes others with it.
async fn guarded(
    look: impl Future<Output = Result<Action, Error>>,
    patience: Duration,
) -> Result<Action, Error> {
    let look = AssertUnwindSafe(look).catch_unwind();
    match tokio::time::timeout(patience, look).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(Error::Panicked),
        Err(_) => Err(Error::TimedOut),
    }
}

/// Observe, decide, act.
async fn look(claim: &Claim, context: &Context) -> Result<Action, Error> {
    let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
    context.observer.admission.note_activity();
    let Some(judged) = Box::pin(judge(claim, context)).await? else {
        context.telemetry.stands(&namespace, &name, None);
        return Ok(Action::await_change());
    };
    let Evaluation {
        observed: Observed { seen, turn: _turn },
        decision,
        _place,
    } = judged;
    let observation = &seen.observation;
    context.telemetry.answered(&observation.analysis.windows);
    let (actor, decided) = (&context.actor, Instant::now());
    let written = actor.write_down(&seen.rollout, observation, &decision);
    let version = written.await?;
    // From here on it is so, whatever becomes of what follows from it.
    let (before, after) = (&observation.status, &decision.status);
    context.telemetry.transitioned(before, after);
    context.telemetry.stands(&namespace, &name, Some(after));
    context.waiting.note(&namespace, &name, before, after);
    for notice in &decision.notices {
        tracing::info!(%namespace, rollout = %name, reason = %notice.reason, message = %notice.message);
    }
    let requeue_at = decision.requeue_at;
    keep_time(claim, context, requeue_at);
    let done = actor.carry_out(&seen.rollout, observation, &decision, decided);
    done.await?;
    context.keep(seen, decision, version);
    Ok(requeue_at.map_or_else(Action::await_change, |at| Action::requeue(until(at))))
}

/// Observes and decides. The newest takes a tenth of a second to read, for which a bad canary keeps its
/// traffic: where it has some and nothing is known to have happened, what was read before may do.
async fn judge<'a>(claim: &Claim, context: &'a Context) -> Result<Option<Evaluation<'a>>, Error> {
    let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
    tracing::debug!(%namespace, rollout = %name, "a look");
    let observe = async |observer: &Observer, before| {
        let failure = last_failure(claim, context);
        // On the heap, since much is read side by side.
        let observed = Box::pin(observer.observe(&namespace, &name, failure, before)).await;
        observed.map_err(|error| Error::Read(Box::new(error)))
    };
    let decided = |observed: Observed, place| Evaluation {
        decision: decide(&observed.seen.observation),
        observed,
        _place: place,
    };
    let mut before = None;
    if let Some(seen) = context.take_cached(&namespace, &name) {
        let seen = Box::pin(context.observer.count_on(seen)).await;
        let judged = decided(Observed { seen, turn: None }, None);
        if can_skip_full_read(&judged.observed.seen.observation, &judged.decision) {
            return Ok(Some(judged));
        }
        before = Some(judged.observed.seen);
    }
    // They are never closed.
    let place = context.full_read_permits.acquire().await.ok();
    if claim.status.weight > 0 {
        context.mark_read(&namespace, &name);
    }
    // Before there is a stable revision nothing can be lost, and what is written by an old state is refused.
    if claim.is_new() && last_failure(claim, context).is_none() {
        let found = observe(&context.observer.at_hand(), None).await?;
        let is_new = |it: &Observed| it.seen.observation.status.stable.is_none();
        if let Some(observed) = found.filter(is_new) {
            return Ok(Some(decided(observed, place)));
        }
    }
    let newest = observe(&context.observer, before).await?;
    Ok(newest.map(|it| decided(it, place)))
}

/// Whether what was read before suffices. Bad windows are reason enough to go back whatever else is new, and
/// where nothing is to be done but to write numbers down and the next look is near, what is new can wait
/// for it.
fn can_skip_full_read(observation: &Observation, decision: &Decision) -> bool {
    let under_way = observation.status.change.as_ref();
    if !under_way.is_some_and(|it| !it.initial && it.outcome.is_none()) {
        return false;
    }
    let now = observation.now;
    let soon = now.saturating_add(SNAPSHOT_DUE_WITHIN).unwrap_or(now);
    let waits = decision.requeue_at.is_some_and(|at| at <= soon);
    decision.rolls_back_on_analysis() || (waits && decision.only_updates_evidence(observation))
}

fn last_failure(claim: &Claim, context: &Context) -> Option<observation::Failure> {
    let failures = context.failures.lock().ok()?;
    failures
        .get(&claim.uid()?)
        .map(|failure| failure.last.clone())
}

/// A refused write must not keep evidence from being judged in time.
fn keep_time(claim: &Claim, context: &Context, requeue_at: Option<Timestamp>) {
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
    };
    let (namespace, rollout) = (claim.namespace().unwrap_or_default(), claim.name_any());
    context.invalidate(&namespace, &rollout);
    tracing::warn!(%namespace, %rollout, attempt = failure.attempts, %error, "a look at a Rollout failed");
}

/// Waits longer after each failure in a row, but not past the next moment that matters; what merely
/// changed meanwhile is read again at once.
// The signature is the runtime's.
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
mod looks;

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[tokio::test]
    async fn a_look_that_panics_is_an_error_of_that_look_alone() {
        let result = guarded(async { panic!("a defect") }, RECONCILE_TIMEOUT).await;
        assert_eq!(result.unwrap_err().result(), "panic");
    }

    #[tokio::test]
    async fn a_look_that_never_ends_is_given_up() {
        let result = guarded(std::future::pending(), Duration::from_millis(1)).await;
        assert_eq!(result.unwrap_err().result(), "timeout");
    }

    #[test]
    fn the_api_server_is_left_alone_as_long_as_it_asks() {
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
