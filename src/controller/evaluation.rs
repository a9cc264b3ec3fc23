//! Observes a Rollout and decides, with as few reads as are safe.

use countersign_core::people::sign_off;
use countersign_core::{Decision, Observation, decide};
use kube::ResourceExt;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::context::Context;
use super::error::Error;
use crate::observe::snapshot::{Observed, Snapshot};
use crate::timing::EVIDENCE_DUE_WITHIN;
use crate::watch::Claim;

/// Concurrent reconciles that read everything; fewer than all, so that what else is to be read and written does not wait for
/// them.
const MAX_FULL_READS: usize = 48;

/// The permits for reading everything.
#[must_use]
pub fn full_read_permits() -> Semaphore {
    Semaphore::new(MAX_FULL_READS)
}

/// An observation and its decision.
pub(super) struct Evaluation<'a> {
    pub(super) observed: Observed,
    pub(super) decision: Decision,
    /// The permit to read everything, kept until the decision is carried out.
    pub(super) _permit: Option<SemaphorePermit<'a>>,
}

impl<'a> Evaluation<'a> {
    fn of(observed: Observed, permit: Option<SemaphorePermit<'a>>) -> Self {
        Self {
            decision: decide(&observed.snapshot.observation),
            observed,
            _permit: permit,
        }
    }

    /// Whether a decision from the caches may be carried out: if it writes nothing, or only numbers while the next reconcile
    /// is soon; if it is a rollback on bad windows, which no other change would prevent; or if nothing can be lost, since
    /// there is no stable revision, nobody is asked, and a write based on a stale status is refused.
    fn is_enough(&self) -> bool {
        let (decision, observation) = (&self.decision, &self.observed.snapshot.observation);
        if decision.is_idle(observation) {
            return true;
        }
        if observation.status.stable.is_none() && observation.spec.workload_ref.is_none() {
            let change = decision.status.change.as_ref();
            return change.is_none_or(|change| !sign_off::is_required(change));
        }
        if !is_under_way(observation) {
            return false;
        }
        let now = observation.now;
        let soon = now.saturating_add(EVIDENCE_DUE_WITHIN).unwrap_or(now);
        let is_due_soon = decision.requeue_at.is_some_and(|at| at <= soon);
        decision.rolls_back_on_analysis()
            || (is_due_soon && decision.only_updates_evidence(observation))
    }
}

/// Whether a change of a stable revision is under way.
fn is_under_way(observation: &Observation) -> bool {
    let change = observation.status.change.as_ref();
    change.is_some_and(|it| !it.initial && it.outcome.is_none())
}

/// Observes and decides; `None` if there is no such Rollout.
///
/// First from the caches, unless a watch may be silent. Where that is not enough, everything is read and decided again.
pub(super) async fn evaluate<'a>(
    claim: &Claim,
    context: &'a Context,
) -> Result<Option<Evaluation<'a>>, Error> {
    let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
    let failure = context.last_failure(claim);
    let observe = async |from_watches, before| {
        let observer = context.observer.with(from_watches);
        // On the heap, since the future of many reads is large.
        let observed = Box::pin(observer.observe(&namespace, &name, failure.clone(), before)).await;
        observed.map_err(|error| Error::Read(Box::new(error)))
    };
    let mut before: Option<Snapshot> = None;
    if context.may_use_caches(claim)
        && failure.is_none()
        && let Some(observed) = observe(true, None).await?
    {
        let evaluation = Evaluation::of(observed, None);
        if evaluation.is_enough() {
            return Ok(Some(evaluation));
        }
        // The lock of the queue is released before all is read.
        let Observed { snapshot, lock } = evaluation.observed;
        drop(lock);
        before = Some(snapshot);
    }
    // The semaphore is never closed.
    let permit = context.full_read_permits.acquire().await.ok();
    context.note_read(claim);
    let observed = observe(false, before).await?;
    Ok(observed.map(|it| Evaluation::of(it, permit)))
}
