//! Observes a Rollout and decides, with as few reads as are safe.

use std::time::Duration;

use countersign_api::Rollout;
use countersign_api::rollout::Stage;
use countersign_core::observation::{self, Failure};
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
    /// For how long it is not carried out, as the API server wants fewer requests and others are more urgent.
    pub(super) deferred: Option<Duration>,
    /// Whether it was decided on what the caches hold.
    is_of_caches: bool,
    /// The permit to read everything, kept until the decision is carried out.
    pub(super) _permit: Option<SemaphorePermit<'a>>,
}

impl<'a> Evaluation<'a> {
    fn of(context: &Context, observed: Observed, permit: Option<SemaphorePermit<'a>>) -> Self {
        let observation = &observed.snapshot.observation;
        let decision = decide(observation);
        let may_wait =
            |_: &Duration| !decision.is_idle(observation) && !decision.is_urgent(observation);
        Self {
            deferred: context.pushback().filter(may_wait),
            decision,
            is_of_caches: permit.is_none(),
            observed,
            _permit: permit,
        }
    }

    /// Decides again if nothing is to be done before, as if the first decision were written, which saves its write. The
    /// lock of a counted queue is for one decision.
    async fn followed(mut self, context: &Context, failure: Option<Failure>) -> Self {
        let Snapshot {
            rollout,
            observation,
        } = &self.observed.snapshot;
        let is_alone = self.deferred.is_some() || self.observed.lock.is_some();
        if is_alone || !self.decision.goes_on(observation) {
            return self;
        }
        let rollout = Rollout {
            status: Some(self.decision.status.clone()),
            ..rollout.clone()
        };
        let stored = observation.status.clone();
        let live = context.observer.with(false);
        let Ok(next) = Box::pin(live.around(rollout, failure)).await else {
            return self; // the first decision stands
        };
        context.telemetry.answered(&observation.analysis.windows);
        self.observed = next;
        let observation = &mut self.observed.snapshot.observation;
        self.decision = decide(observation).after(self.decision);
        observation.status = stored;
        self
    }

    /// Whether a decision on what the caches hold may be carried out: if it writes nothing, or only numbers while the next
    /// reconcile is soon; if it is a rollback on bad windows, which no other change would prevent; or if it reports the
    /// progress of a first revision, or that it is stable.
    fn is_enough(&self) -> bool {
        let (decision, observation) = (&self.decision, &self.observed.snapshot.observation);
        if decision.is_idle(observation) {
            return true;
        }
        if observation.status.stable.is_none() {
            return self.reports_progress() || self.is_a_first_stable();
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

    /// Whether it only reports and records that a first revision is stable, which asked nobody and has adopted nothing. Its
    /// pods have all of the traffic already, so that changes nothing for them.
    fn is_a_first_stable(&self) -> bool {
        let (decision, observation) = (&self.decision, &self.observed.snapshot.observation);
        let began = observation.status.change.as_ref();
        let stable = decision.status.stable.as_ref();
        let same = began.zip(stable).is_some_and(|(began, stable)| {
            began.pod_template_hash == stable.pod_template_hash && !sign_off::is_required(began)
        });
        same && decision.status.change.is_none()
            && is_as_stored(observation)
            && decision.actions.is_empty()
    }

    /// Whether it only reports the progress of a first revision that has begun, adopts nothing and asks nobody. Its start and
    /// whatever is done for it are decided on what is read.
    fn reports_progress(&self) -> bool {
        let (decision, observation) = (&self.decision, &self.observed.snapshot.observation);
        let (before, after) = (&observation.status.change, &decision.status.change);
        let (Some(before), Some(after)) = (before, after) else {
            return false;
        };
        observation.spec.workload_ref.is_none()
            && decision.status.stable.is_none()
            && before.run == after.run
            && after.outcome.is_none()
            && !sign_off::is_required(after)
            && decision.actions.is_empty()
            && decision.record.is_none()
    }

    /// Whether it first writes a status, which the API server refuses if the Rollout has a newer version than the one that
    /// was decided on: that write says whether the Rollout was the newest, so it need not be read.
    fn is_proven_by_its_status(&self) -> bool {
        let (decision, observation) = (&self.decision, &self.observed.snapshot.observation);
        let record = decision.record.as_ref();
        decision.status != observation.status
            && is_as_stored(observation)
            && record.is_none_or(|it| decision.holds(it))
    }

    /// Whether everything is to be read again before long, although no event may come.
    pub(super) fn is_to_be_read_again(&self) -> bool {
        let change = self.decision.status.change.as_ref();
        self.is_of_caches
            && change.is_some_and(|it| it.outcome.is_none() || it.stage == Stage::RollingBack)
    }
}

/// Whether the Rollout is decided on as it is stored, and claims nothing of others.
fn is_as_stored(observation: &Observation) -> bool {
    observation::is_whole(observation) && observation.conflicts.is_empty()
}

/// Whether a change of a stable revision is under way.
fn is_under_way(observation: &Observation) -> bool {
    let change = observation.status.change.as_ref();
    change.is_some_and(|it| !it.initial && it.outcome.is_none())
}

/// Observes and decides; `None` if there is no such Rollout.
///
/// First on what the caches hold, unless a watch may be silent. Where that is not enough, everything is read and decided again,
/// but for a Rollout whose status is to be written.
pub(super) async fn evaluate<'a>(
    claim: &Claim,
    context: &'a Context,
) -> Result<Option<Evaluation<'a>>, Error> {
    let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
    let failure = context.last_failure(claim);
    let unread = |error| Error::Read(Box::new(error));
    let observe = async |from_watches| {
        let observer = context.observer.with(from_watches);
        // On the heap, since the future of many reads is large.
        let read = Box::pin(observer.observe(&namespace, &name, failure.clone())).await;
        read.map_err(unread)
    };
    // The semaphore is never closed.
    let permit = async || context.full_read_permits.acquire().await.ok();
    if context.may_use_caches(claim)
        && failure.is_none()
        && let Some(observed) = observe(true).await?
    {
        let evaluation = Evaluation::of(context, observed, None);
        if evaluation.deferred.is_some() || evaluation.is_enough() {
            return Ok(Some(evaluation));
        }
        if evaluation.is_proven_by_its_status() {
            let Observed { snapshot, lock } = evaluation.observed;
            drop(lock); // the next decision takes its own
            let permit = permit().await;
            context.note_read(claim);
            let live = context.observer.with(false);
            let read = Box::pin(live.around(snapshot.rollout, None)).await;
            let evaluation = Evaluation::of(context, read.map_err(unread)?, permit);
            if evaluation.is_proven_by_its_status() {
                return Ok(Some(Box::pin(evaluation.followed(context, None)).await));
            }
        }
    }
    let permit = permit().await;
    context.note_read(claim);
    let Some(observed) = observe(false).await? else {
        return Ok(None);
    };
    let evaluation = Evaluation::of(context, observed, permit);
    let followed = Box::pin(evaluation.followed(context, failure));
    Ok(Some(followed.await))
}
