//! The other Rollouts that a change waits for.
//!
//! A change that goes on waiting does so by what the watch has reported of the others. That may be older than the last
//! change that began, so before a change begins they are read live. Two concurrent reconciles
//! would both take the last slot, so one reconcile at a time holds the lock, from its read until its
//! decision is written. If the lock is held, a reconcile is requeued rather than blocked.

use std::collections::BTreeMap;

use countersign_api::rollout::{Change, Stage};
use countersign_api::{Rollout, RolloutPolicySpec};
use countersign_core::observation::people::{ConcurrentChange, Dependency};
use countersign_core::policy::{self, Effective};
use countersign_core::queue::concurrency::Reach;
use countersign_core::queue::{concurrency, dependencies};
use countersign_core::reason::Reason;
use countersign_core::{Observation, change};
use futures::future::join_all;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::observer::Observer;
use super::people::in_time;
use super::reads::{LARGE, tried};
use super::stored::parsed;
use crate::api_resource::untyped;
use crate::api_server::sentence;
use crate::observe::queue_lock::QueueLock;
use crate::timing::QUEUE_TIMEOUT;
use crate::watch::Claim;

impl Observer {
    /// Observes the Rollouts that a change waits for. The guard of the live read is kept until the decision is written.
    pub(super) async fn order(
        &self,
        observation: &mut Observation,
        effective: &Effective,
    ) -> Option<QueueLock> {
        let change = observation.status.change.clone()?;
        if dependencies::awaits_dependencies(observation, &change) {
            observation.dependencies = Some(self.dependencies(observation, &change).await);
        }
        let queued = change::waits_for(&observation.status, Reason::Queued);
        if !queued || change.stage != Stage::Waiting || change.outcome.is_some() {
            return None;
        }
        let reach = concurrency::reach(effective)?;
        if let Some(watched) = self.watched_changes(observation, reach) {
            observation.concurrent_changes = Some(Ok(by_name(watched)));
            return None;
        }
        let lock = self.queue_lock.clone().try_lock_owned().ok()?;
        let read =
            tokio::time::timeout(QUEUE_TIMEOUT, self.concurrent_changes(observation, reach)).await;
        observation.concurrent_changes = Some(match read {
            Ok(Ok(concurrent_changes)) => Ok(by_name(concurrent_changes)),
            Ok(Err(error)) => Err(format!("Rollouts cannot be read: {}", sentence(&error))),
            Err(_) => Err(format!(
                "Rollouts cannot be read: no answer within {QUEUE_TIMEOUT:?}"
            )),
        });
        Some(lock)
    }

    async fn dependencies(&self, observation: &Observation, change: &Change) -> Vec<Dependency> {
        let namespace = &observation.namespace;
        let names = observation.spec.depends_on.iter();
        let observed = names.map(async |name| {
            let watched = self.watched(namespace, name);
            let watched = watched.map(|rollout| dependencies::unstable(&rollout));
            // What is done for a first revision is not decided again from live reads.
            let watched = watched.filter(|awaited| awaited.is_some() || !change.initial);
            let awaited = match watched {
                Some(awaited) => awaited,
                None => self.read_dependency(namespace, name).await,
            };
            Dependency {
                name: name.clone(),
                awaited,
            }
        });
        let mut observed = join_all(observed).await;
        // Cycles matter only if the dependency is waited for.
        if observed.iter().any(|it| it.awaited.is_some()) {
            let depends_on = self.depends_on(namespace);
            for it in observed.iter_mut().filter(|it| it.awaited.is_some()) {
                if let Some(back) =
                    dependencies::dependency_path(&depends_on, &it.name, &observation.name)
                {
                    it.awaited = Some(dependencies::cycle_message(&observation.name, &back));
                }
            }
        }
        observed
    }

    /// Reads why a dependency is waited for; `None` if it is stable.
    async fn read_dependency(&self, namespace: &str, name: &str) -> Option<String> {
        let api = untyped::<Rollout>(&self.client, namespace);
        let what = format!("Rollout {name}");
        match in_time(&what, tried(|| api.get_opt(name))).await {
            Ok(None) => Some(format!("{what} does not exist in this namespace")),
            Ok(Some(rollout)) => match parsed(&rollout) {
                Ok(rollout) => dependencies::unstable(&rollout),
                Err(invalid) => Some(format!("{what} cannot be read by this build: {invalid}")),
            },
            Err(problem) => Some(problem),
        }
    }

    /// What each Rollout of a namespace depends on.
    fn depends_on(&self, namespace: &str) -> BTreeMap<String, Vec<String>> {
        let claims = self.caches.claims.state();
        let near = claims
            .iter()
            .filter(|claim| claim.namespace().as_deref() == Some(namespace));
        near.map(|claim| (claim.name_any(), claim.spec.depends_on.clone()))
            .collect()
    }

    /// The changes that count as the watch has reported them; `None` if they have to be read. Waiting for one that has ended
    /// would delay the next, so each that a policy limits is to be as this operator has last written it.
    fn watched_changes(
        &self,
        observation: &Observation,
        reach: Reach,
    ) -> Option<Vec<ConcurrentChange>> {
        if !self.from_watches {
            return None;
        }
        let namespace = Some(observation.namespace.as_str());
        let uid = Some(observation.uid.as_str());
        let others = self.caches.claims.state_filter(|it| {
            let near = reach == Reach::Cluster || it.metadata.namespace.as_deref() == namespace;
            near && it.metadata.uid.as_deref() != uid && it.place_in_queue().is_some()
        });
        let counted = others.iter().filter_map(|it| {
            let change = self.concurrent_change(observation, it)?;
            Some((&it.metadata, change))
        });
        let known = counted.map(|(metadata, change)| {
            let is_limited = !change.policies.is_empty();
            let is_latest = !is_limited || self.caches.written.rollouts.is_latest(metadata);
            is_latest.then_some(change)
        });
        known.collect()
    }

    async fn concurrent_changes(
        &self,
        observation: &Observation,
        reach: Reach,
    ) -> Result<Vec<ConcurrentChange>, kube::Error> {
        let api: Api<Claim> = match reach {
            Reach::Namespace => Api::namespaced(self.client.clone(), &observation.namespace),
            Reach::Cluster => Api::all(self.client.clone()),
        };
        let mut concurrent_changes = Vec::new();
        let mut parameters = ListParams::default().limit(LARGE);
        loop {
            let page = tried(|| api.list(&parameters)).await?;
            let others = page.items.iter();
            let others = others.filter(|it| it.uid().as_ref() != Some(&observation.uid));
            concurrent_changes
                .extend(others.filter_map(|it| self.concurrent_change(observation, it)));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok(concurrent_changes),
            }
        }
    }

    fn concurrent_change(&self, observation: &Observation, it: &Claim) -> Option<ConcurrentChange> {
        let (tier, queued_at) = it.place_in_queue()?;
        let namespace = it.namespace().unwrap_or_default();
        let namespace_labels = self.namespace_labels(&namespace);
        // In a namespace that is not cached yet the policy may apply, so the Rollout counts.
        let governs = |spec: &RolloutPolicySpec| {
            let known = namespace_labels.as_ref();
            known.is_none_or(|known| policy::governs(spec, known, it.labels()))
        };
        let policies = observation.policies.iter();
        let policies = policies.filter(|it| it.spec.concurrency.is_some() && governs(&it.spec));
        Some(ConcurrentChange {
            name: it.name_any(),
            uid: it.uid().unwrap_or_default(),
            policies: policies.map(|it| it.name.clone()).collect(),
            namespace,
            tier,
            queued_at,
        })
    }
}

/// In an order by which the message of a change that waits stays the same.
fn by_name(mut changes: Vec<ConcurrentChange>) -> Vec<ConcurrentChange> {
    changes.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    changes
}
