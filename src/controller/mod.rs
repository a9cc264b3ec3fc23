//! The loop: observe, decide, act.

mod context;
mod error;
mod evaluation;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::observe::snapshot::Observed;
use crate::timing::{MAX_BACKOFF, MAX_BACKOFF_OF_CHANGE, RECONCILE_TIMEOUT};
use crate::watch::batch::Batch;
use crate::watch::{Claim, Trigger};

pub use self::context::Context;
use self::error::Class;
pub use self::error::Error;
pub use self::evaluation::full_read_permits;
use self::evaluation::{Evaluation, evaluate};

/// Concurrent reconciles.
const CONCURRENCY: u16 = 256;
/// How soon a deadline is met at best while the API server pushes back or refuses.
const SOON: Duration = Duration::from_secs(1);
/// Most triggers that are handled as one batch.
const TRIGGERS: usize = 1_000;

/// Reconciles Rollouts until cancelled; running reconciles are finished first. Those with a change under way are reconciled at
/// once, the others once the caches are `opened`, and all when they are triggered.
pub async fn run(
    context: Arc<Context>,
    triggers: mpsc::UnboundedReceiver<Trigger>,
    opened: impl Future<Output = ()> + Send + 'static,
    cancelled: CancellationToken,
) {
    let store = context.observer.caches.claims.clone();
    let (changing, others): (Vec<_>, Vec<_>) =
        store.state().into_iter().partition(|it| it.is_under_way());
    let refer = |claim: Arc<Claim>| ObjectRef::from_obj(&*claim);
    let of_others = context.clone();
    let others = stream::once(opened).flat_map(move |()| {
        let others = others.clone().into_iter().map(refer);
        let others: Vec<_> = others.inspect(|it| of_others.report(it)).collect();
        stream::iter(others)
    });
    let at_start = stream::iter(changing.into_iter().map(refer)).chain(others);
    let triggers = targets(context.clone(), triggers);
    Controller::for_stream(stream::pending(), store)
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .reconcile_on(stream::select(at_start.boxed(), triggers.boxed()))
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
        batch.lost().for_each(|rollout| context.doubt(rollout));
        if batch.deleted().any(Claim::holds_up_queue) {
            context.waiting.wake();
        }
        let observer = &context.observer;
        let labels = |namespace: &str| observer.namespace_labels(namespace);
        let targets = batch.rollouts(&observer.caches.claims, labels);
        for it in &targets {
            context.report(it);
        }
        stream::iter(targets)
    })
}

async fn reconcile(claim: Arc<Claim>, context: Arc<Context>) -> Result<Action, Error> {
    // A change that is there is evaluated even then, as it may have to be taken back.
    let is_unchanged = claim.status.change.is_none();
    if let Some(rest) = context.pushback().filter(|_| is_unchanged) {
        return Ok(Action::requeue(rest));
    }
    let started = Instant::now();
    let result = guarded(
        Box::pin(reconcile_claim(&claim, &context)),
        RECONCILE_TIMEOUT,
    )
    .await;
    let label = result.as_ref().map_or_else(Error::result, |_| "ok");
    context.telemetry.reconciled(label, started.elapsed());
    context.remember(&claim, result.as_ref().err());
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
    tracing::debug!(%namespace, rollout = %name, "reconciling");
    context.observer.admission.note_activity();
    let Some(evaluation) = Box::pin(evaluate(claim, context)).await? else {
        context.telemetry.forget(&namespace, &name);
        return Ok(Action::await_change());
    };
    let is_to_be_read_again = evaluation.is_to_be_read_again();
    let Evaluation {
        observed: Observed {
            snapshot,
            lock: _lock,
        },
        decision,
        deferred,
        _permit,
        ..
    } = evaluation;
    let observation = &snapshot.observation;
    context.telemetry.answered(&observation.analysis.windows);
    if let Some(rest) = deferred {
        context.report(&ObjectRef::from_obj(claim)); // it is no silent watch that causes the next reconcile
        let due = decision.requeue_at.map(|at| until(at).max(SOON));
        return Ok(Action::requeue(due.map_or(rest, |due| due.min(rest))));
    }
    let (actor, decided) = (&context.actor, Instant::now());
    let written = actor.write_down(&snapshot.rollout, observation, &decision);
    written.await?;
    // The decision is in effect once written, whatever the actions return.
    let (before, after) = (&observation.status, &decision.status);
    context.telemetry.written(&namespace, &name, before, after);
    context.waiting.note(&namespace, &name, before, after);
    for notice in &decision.notices {
        tracing::info!(%namespace, rollout = %name, reason = %notice.reason, message = %notice.message);
    }
    let requeue_at = decision.requeue_at;
    context.keep_deadline(claim, requeue_at);
    let done = actor.carry_out(&snapshot.rollout, observation, &decision, decided);
    done.await?;
    if decision.awaits_traffic {
        context.report(&ObjectRef::from_obj(claim));
    }
    let read_due = context.read_due(claim).filter(|_| is_to_be_read_again);
    let waits = requeue_at.map(until).into_iter().chain(read_due);
    Ok(waits
        .min()
        .map_or_else(Action::await_change, Action::requeue))
}

/// Exponential backoff, but not past the next deadline, and a short one if the API server did not answer while a change is under
/// way, since its canary may have to be taken back; a conflict is retried at once.
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
        .saturating_mul(1 << failure.attempts.min(10).saturating_sub(1));
    let longest = if error.is_outage() && claim.is_under_way() {
        MAX_BACKOFF_OF_CHANGE
    } else {
        MAX_BACKOFF
    };
    let delay = delay.min(longest).max(error.retry_after()).min(MAX_BACKOFF);
    let due = failure.requeue_at.map(until).filter(|due| *due >= SOON);
    Action::requeue(due.map_or(delay, |due| delay.min(due)))
}

fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(clock::now())).unwrap_or_default()
}

#[cfg(test)]
mod reconciles;

#[cfg(test)]
mod tests {
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
}
