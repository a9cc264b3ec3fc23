//! What reconciles share: the clients, and what is remembered of each Rollout.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use countersign_core::observation;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::Semaphore;

use super::error::Error;
use crate::act::Actor;
use crate::observe::observer::Observer;
use crate::telemetry::Telemetry;
use crate::timing::{CACHES_MAX_AGE, MAX_BACKOFF};
use crate::watch::Claim;
use crate::watch::waiting::Waiting;

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
    /// Rollouts of which an event was reported since their last reconcile, or that wait for endpoints or a router, by namespace
    /// and name.
    pub reported: Mutex<BTreeSet<(String, String)>>,
    /// Rollouts of which everything has to be read, whatever the caches hold, by namespace and name.
    pub doubted: Mutex<BTreeSet<(String, String)>>,
    /// When everything was last read of each Rollout that is not known to be at rest, by namespace and name.
    pub read: Mutex<BTreeMap<(String, String), Instant>>,
    /// The permits for reading everything.
    pub full_read_permits: Semaphore,
    /// Until when the API server wants fewer requests.
    pub pushed_back_until: Mutex<Option<Instant>>,
    /// Rollouts that wait for other Rollouts.
    pub waiting: Waiting,
}

/// The consecutive failed reconciles of a Rollout.
#[derive(Clone, Debug, Default)]
pub struct Failure {
    pub(super) attempts: u32,
    last: observation::Failure,
    /// When evidence is due or a deadline passes; a retry is not delayed past this.
    pub(super) requeue_at: Option<Timestamp>,
}

impl Context {
    pub(super) fn forget(&self, claim: &Claim) {
        let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
        self.telemetry.forget(&namespace, &name);
        self.waiting.forget(&namespace, &name);
        self.take_reported(&namespace, &name);
        if let Ok(mut doubted) = self.doubted.lock() {
            doubted.remove(&(namespace.clone(), name.clone()));
        }
        if let Ok(mut read) = self.read.lock() {
            read.remove(&(namespace, name));
        }
        if let (Ok(mut failures), Some(uid)) = (self.failures.lock(), claim.uid()) {
            failures.remove(&uid);
        }
    }

    pub(super) fn is_gone(&self, claim: &Claim) -> bool {
        let now = self.observer.caches.claims.get(&ObjectRef::from_obj(claim));
        now.is_none_or(|now| now.metadata.uid != claim.metadata.uid)
    }

    /// Notes that an event concerns a Rollout.
    pub(super) fn report(&self, rollout: &ObjectRef<Claim>) {
        // What belonged to a deleted one is reported after its deletion.
        if self.observer.caches.claims.get(rollout).is_some()
            && let Ok(mut reported) = self.reported.lock()
        {
            let namespace = rollout.namespace.clone().unwrap_or_default();
            reported.insert((namespace, rollout.name.clone()));
        }
    }

    /// Whether an event was reported since the last reconcile of a Rollout.
    fn take_reported(&self, namespace: &str, name: &str) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        let reported = self.reported.lock();
        reported.is_ok_and(|mut reported| reported.remove(&key))
    }

    /// Notes that an object of a Rollout is in its watch no more, so that its caches may lack what is still there.
    pub(super) fn doubt(&self, rollout: &ObjectRef<Claim>) {
        // What belonged to a deleted one is lost after its deletion.
        if self.observer.caches.claims.get(rollout).is_some()
            && let Ok(mut doubted) = self.doubted.lock()
        {
            let namespace = rollout.namespace.clone().unwrap_or_default();
            doubted.insert((namespace, rollout.name.clone()));
        }
    }

    /// Whether a reconcile may decide on what the caches hold. If no event came, a watch may be silent; but a canary with
    /// traffic is analysed by its timer. Of a change under way everything is read at least once a minute.
    pub(super) fn may_use_caches(&self, claim: &Claim) -> bool {
        let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
        let reported = self.take_reported(&namespace, &name);
        let written = &self.observer.caches.written;
        let key = (namespace, name);
        let doubted = self.doubted.lock();
        let doubted = doubted.is_ok_and(|it| it.contains(&key));
        if doubted || !written.rollouts.answers() || !written.replica_sets.answers() {
            return false;
        }
        if !claim.is_under_way() {
            if let Ok(mut read) = self.read.lock() {
                read.remove(&key);
            }
            return reported;
        }
        (reported || claim.status.weight > 0)
            && self.read_due(claim).is_some_and(|it| !it.is_zero())
    }

    /// Notes that everything is read of a Rollout, or what surrounds one that its status proves to be the newest.
    pub(super) fn note_read(&self, claim: &Claim) {
        let key = (claim.namespace().unwrap_or_default(), claim.name_any());
        if let Ok(mut doubted) = self.doubted.lock() {
            doubted.remove(&key);
        }
        if let Ok(mut read) = self.read.lock() {
            read.insert(key, Instant::now());
        }
    }

    /// In which time everything is to be read again of a Rollout with a change under way; `None` if it never was.
    pub(super) fn read_due(&self, claim: &Claim) -> Option<Duration> {
        let key = (claim.namespace().unwrap_or_default(), claim.name_any());
        let read = self.read.lock().ok()?;
        let at = read.get(&key)?;
        Some(CACHES_MAX_AGE.saturating_sub(at.elapsed()))
    }

    /// For how long only what is urgent is written, as the API server has too much to do.
    pub(super) fn pushback(&self) -> Option<Duration> {
        let until = (*self.pushed_back_until.lock().ok()?)?;
        let rest = until.saturating_duration_since(Instant::now());
        (!rest.is_zero()).then_some(rest)
    }

    /// Notes how long the API server wants no further requests.
    fn push_back(&self, retry_after: Duration) {
        let end = Instant::now().checked_add(retry_after.min(MAX_BACKOFF));
        if let Ok(mut until) = self.pushed_back_until.lock() {
            *until = (*until).max(end);
        }
    }

    /// The error of the last reconcile of a Rollout, if it failed.
    pub(super) fn last_failure(&self, claim: &Claim) -> Option<observation::Failure> {
        let failures = self.failures.lock().ok()?;
        let failure = failures.get(&claim.uid()?);
        failure.map(|failure| failure.last.clone())
    }

    /// Notes the next deadline, so that retries do not delay the analysis.
    pub(super) fn keep_deadline(&self, claim: &Claim, requeue_at: Option<Timestamp>) {
        if let (Ok(mut failures), Some(uid)) = (self.failures.lock(), claim.uid()) {
            failures.entry(uid).or_default().requeue_at = requeue_at;
        }
    }

    /// Notes whether a reconcile failed.
    pub(super) fn remember(&self, claim: &Claim, error: Option<&Error>) {
        let (Ok(mut failures), Some(uid)) = (self.failures.lock(), claim.uid()) else {
            return;
        };
        let Some(error) = error else {
            failures.remove(&uid);
            return;
        };
        self.push_back(error.pushback());
        let failure = failures.entry(uid).or_default();
        failure.attempts = failure.attempts.saturating_add(1);
        failure.last = observation::Failure {
            message: error.to_string(),
            invalid_revision: error.invalid_revision().map(ToOwned::to_owned),
            taken_revision: error.taken_revision().map(ToOwned::to_owned),
        };
        let (namespace, rollout) = (claim.namespace().unwrap_or_default(), claim.name_any());
        tracing::warn!(%namespace, %rollout, attempt = failure.attempts, %error, "reconcile failed");
    }
}
