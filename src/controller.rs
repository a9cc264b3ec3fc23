//! The loop: observe, decide, act.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use kube::ResourceExt;
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::act::{self, Actor};
use crate::core::decide;
use crate::observe::clock;
use crate::observe::cluster::Observer;
use crate::observe::watches::{Claim, Trigger};
use crate::telemetry::Telemetry;

/// Rollouts that are looked at side by side.
const CONCURRENCY: u16 = 32;
/// Events that come closer together than this are looked at once.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Longest time that one look may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// Longest wait after repeated failures.
const LONGEST_BACKOFF: Duration = Duration::from_mins(1);

/// Why one look at a Rollout failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be read.
    #[error("the Rollout or its surroundings could not be read: {0}")]
    Read(#[source] Box<kube::Error>),
    /// What was decided could not be done.
    #[error(transparent)]
    Write(#[from] act::Error),
    /// It took too long.
    #[error("it took longer than {PATIENCE:?}")]
    TimedOut,
    /// It panicked, which is a defect; other Rollouts go on.
    #[error("it panicked, which is a defect of the operator")]
    Panicked,
}

impl Error {
    fn result(&self) -> &'static str {
        match self {
            Self::Read(_) => "read_error",
            Self::Write(error) if error.is_conflict() => "conflict",
            Self::Write(_) => "write_error",
            Self::TimedOut => "timeout",
            Self::Panicked => "panic",
        }
    }
}

/// What every look needs.
pub struct Context {
    /// Where observations come from.
    pub observer: Observer,
    /// Where decisions go.
    pub actor: Actor,
    /// Where both are counted.
    pub telemetry: Arc<Telemetry>,
    /// Failures in a row, and what was refused last, by uid.
    pub failures: Mutex<BTreeMap<String, (u32, String)>>,
}

/// Looks at Rollouts as they are triggered, until cancelled; looks under way are finished first.
pub async fn run(
    context: Arc<Context>,
    triggers: mpsc::UnboundedReceiver<Trigger>,
    cancelled: CancellationToken,
) {
    let store = context.observer.caches.claims.clone();
    let triggers = targets(store.clone(), triggers);
    let everything = store
        .state()
        .into_iter()
        .map(|claim| ObjectRef::from_obj(&*claim))
        .collect::<Vec<_>>();
    Controller::for_stream(futures::stream::pending(), store)
        .with_config(
            controller::Config::default()
                .concurrency(CONCURRENCY)
                .debounce(DEBOUNCE),
        )
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

fn targets(
    store: Store<Claim>,
    triggers: mpsc::UnboundedReceiver<Trigger>,
) -> impl futures::Stream<Item = ObjectRef<Claim>> {
    UnboundedReceiverStream::new(triggers).flat_map(move |trigger| {
        futures::stream::iter(match trigger {
            Trigger::Touched(claim) => vec![ObjectRef::from_obj(&*claim)],
            Trigger::Related(rollout) => vec![rollout],
            Trigger::All => store
                .state()
                .iter()
                .map(|claim| ObjectRef::from_obj(&**claim))
                .collect(),
        })
    })
}

async fn reconcile(claim: Arc<Claim>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    let look = AssertUnwindSafe(look(&claim, &context)).catch_unwind();
    let result = match tokio::time::timeout(PATIENCE, look).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(Error::Panicked),
        Err(_) => Err(Error::TimedOut),
    };
    let label = result.as_ref().map_or_else(Error::result, |_| "ok");
    context.telemetry.reconciled(label, started.elapsed());
    remember(&claim, &context, result.as_ref().err());
    result
}

/// Observe, decide, act.
async fn look(claim: &Claim, context: &Context) -> Result<Action, Error> {
    let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
    let now = clock::now();
    let failure = last_failure(claim, context);
    let observed = context
        .observer
        .observe(&namespace, &name, now, failure)
        .await;
    let Some(observed) = observed.map_err(|error| Error::Read(Box::new(error)))? else {
        context.telemetry.stands(&namespace, &name, None);
        return Ok(Action::await_change());
    };
    let observation = &observed.observation;
    context.telemetry.answered(&observation.windows);
    let decision = decide(observation);
    context
        .actor
        .carry_out(&observed.rollout, observation, &decision)
        .await?;

    context
        .telemetry
        .transitioned(&observation.status, &decision.status);
    context
        .telemetry
        .stands(&namespace, &name, Some(&decision.status));
    for notice in &decision.notices {
        tracing::info!(%namespace, rollout = %name, reason = %notice.reason, message = %notice.message);
    }
    Ok(decision
        .look_again_at
        .map_or_else(Action::await_change, |at| {
            let delay = at.duration_since(clock::now());
            Action::requeue(Duration::try_from(delay).unwrap_or_default())
        }))
}

fn last_failure(claim: &Claim, context: &Context) -> Option<String> {
    let failures = context.failures.lock().ok()?;
    failures
        .get(&claim.uid()?)
        .map(|(_, message)| message.clone())
}

fn remember(claim: &Claim, context: &Context, error: Option<&Error>) {
    let (Ok(mut failures), Some(uid)) = (context.failures.lock(), claim.uid()) else {
        return;
    };
    match error {
        None => {
            failures.remove(&uid);
        }
        Some(error) => {
            let entry = failures.entry(uid).or_default();
            *entry = (entry.0.saturating_add(1), error.to_string());
            let (namespace, rollout) = (claim.namespace().unwrap_or_default(), claim.name_any());
            tracing::warn!(%namespace, %rollout, attempt = entry.0, %error, "a look at a Rollout failed");
        }
    }
}

/// Waits longer after each failure in a row; what merely changed meanwhile is read again at once.
// The signature is the runtime's.
#[allow(clippy::needless_pass_by_value)]
fn back_off(claim: Arc<Claim>, error: &Error, context: Arc<Context>) -> Action {
    let failures = context.failures.lock().ok();
    let attempts = claim
        .uid()
        .and_then(|uid| failures?.get(&uid).map(|(attempts, _)| *attempts))
        .unwrap_or(1);
    let first = if error.result() == "conflict" {
        50
    } else {
        250
    };
    let delay =
        Duration::from_millis(first).saturating_mul(1 << attempts.min(10).saturating_sub(1));
    Action::requeue(delay.min(LONGEST_BACKOFF))
}
