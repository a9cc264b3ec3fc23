//! The other Rollouts that a change waits for, read live.
//!
//! A cache may be older than the last change that began, so the reads are live. Two concurrent reconciles
//! would both take the last slot, so one reconcile at a time holds the lock, from its read until its
//! decision is written. If the lock is held, a reconcile is requeued rather than blocked.

use std::collections::BTreeMap;

use countersign_api::rollout::Stage;
use countersign_api::step::Tier;
use countersign_api::{Rollout, RolloutPolicySpec};
use countersign_core::observation::people::{ConcurrentChange, Dependency};
use countersign_core::policy::{self, Effective};
use countersign_core::queue::concurrency::Reach;
use countersign_core::queue::{concurrency, dependencies};
use countersign_core::reason::Reason;
use countersign_core::{Observation, change};
use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Resource, ResourceExt};
use serde::{Deserialize, Serialize};

use super::observer::Observer;
use super::people::in_time;
use super::reads::{LARGE, Reads, tried};
use crate::api_server::sentence;
use crate::observe::queue_lock::QueueLock;
use crate::timing::QUEUE_TIMEOUT;

/// The fields of a Rollout that decide whether it takes a slot of the changes in progress. Unknown values
/// are kept as text, and take a slot.
#[derive(Resource, Clone, Debug, Default, Deserialize, Serialize)]
#[resource(inherit = "Rollout")]
#[serde(default)]
struct QueueEntry {
    metadata: ObjectMeta,
    status: QueueEntryStatus,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
struct QueueEntryStatus {
    waiting_for: Option<String>,
    change: Option<QueueEntryChange>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
struct QueueEntryChange {
    stage: String,
    tier: String,
    initial: bool,
    outcome: Option<String>,
    queued_at: Option<Time>,
}

impl QueueEntry {
    /// The tier of its change and since when it is queued, if it is queued or in progress.
    fn position(&self) -> Option<(Tier, Option<Timestamp>)> {
        let change = self.status.change.as_ref()?;
        if change.initial || self.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let tier = Tier::ALL.into_iter().find(|it| it.as_str() == change.tier);
        let tier = tier.unwrap_or(Tier::Critical);
        let waits = change.stage == "Waiting";
        let ended = change.outcome.is_some();
        if ended && change.stage != "RollingBack" {
            return None;
        }
        if !waits {
            return Some((tier, None));
        }
        let queued = self
            .status
            .waiting_for
            .as_ref()
            .is_some_and(|it| *it == Reason::Queued);
        let since = change.queued_at.as_ref().filter(|_| queued)?;
        Some((tier, Some(since.0)))
    }
}

impl Observer {
    /// Reads the Rollouts that a change waits for. The guard is kept until the decision is written.
    pub(super) async fn order(
        &self,
        observation: &mut Observation,
        effective: &Effective,
    ) -> Option<QueueLock> {
        let change = observation.status.change.clone()?;
        if dependencies::awaits_dependencies(observation, &change) {
            observation.dependencies = Some(self.dependencies(observation).await);
        }
        let queued = change::waits_for(&observation.status, Reason::Queued);
        if !queued || change.stage != Stage::Waiting || change.outcome.is_some() {
            return None;
        }
        let reach = concurrency::reach(effective)?;
        let lock = self.queue_lock.clone().try_lock_owned().ok()?;
        let read =
            tokio::time::timeout(QUEUE_TIMEOUT, self.concurrent_changes(observation, reach)).await;
        observation.concurrent_changes = Some(match read {
            Ok(Ok(concurrent_changes)) => Ok(concurrent_changes),
            Ok(Err(error)) => Err(format!("Rollouts cannot be read: {}", sentence(&error))),
            Err(_) => Err(format!(
                "Rollouts cannot be read: no answer within {QUEUE_TIMEOUT:?}"
            )),
        });
        Some(lock)
    }

    async fn dependencies(&self, observation: &Observation) -> Vec<Dependency> {
        let api: Api<DeserializeGuard<Rollout>> =
            Api::namespaced(self.client.clone(), &observation.namespace);
        let reads = observation.spec.depends_on.iter().map(|name| {
            let what = format!("Rollout {name}");
            let api = &api;
            async move {
                let awaited = match in_time(&what, Reads::MostRecent.get_opt(api, name)).await {
                    Ok(None) => Some(format!("{what} does not exist in this namespace")),
                    Ok(Some(DeserializeGuard(Ok(rollout)))) => dependencies::unstable(&rollout),
                    Ok(Some(DeserializeGuard(Err(invalid)))) => {
                        Some(format!("{what} cannot be read by this build: {invalid}"))
                    }
                    Err(problem) => Some(problem),
                };
                Dependency {
                    name: name.clone(),
                    awaited,
                }
            }
        });
        let mut read = join_all(reads).await;
        // Cycles matter only if the dependency is waited for.
        if read.iter().any(|it| it.awaited.is_some()) {
            let depends_on = self.depends_on(&observation.namespace);
            for it in read.iter_mut().filter(|it| it.awaited.is_some()) {
                if let Some(back) =
                    dependencies::dependency_path(&depends_on, &it.name, &observation.name)
                {
                    it.awaited = Some(dependencies::cycle_message(&observation.name, &back));
                }
            }
        }
        read
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

    async fn concurrent_changes(
        &self,
        observation: &Observation,
        reach: Reach,
    ) -> Result<Vec<ConcurrentChange>, kube::Error> {
        let api: Api<QueueEntry> = match reach {
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

    fn concurrent_change(
        &self,
        observation: &Observation,
        it: &QueueEntry,
    ) -> Option<ConcurrentChange> {
        let (tier, queued_at) = it.position()?;
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn position(change: &Value, waiting_for: &str) -> Option<(Tier, Option<Timestamp>)> {
        let entry = json!({
            "metadata": { "name": "web" }, "spec": { "replicas": "of a shape to come" },
            "status": { "waitingFor": waiting_for, "change": change },
        });
        serde_json::from_value::<QueueEntry>(entry)
            .unwrap()
            .position()
    }

    #[test]
    fn what_takes_a_place_and_what_waits_for_one() {
        let at = "2026-01-01T00:00:00Z";
        let since = at.parse().unwrap();
        for (change, waiting_for, expected) in [
            (
                json!({ "stage": "Stepping", "tier": "high" }),
                "Baking",
                Some((Tier::High, None)),
            ),
            (
                json!({ "stage": "Promoting", "tier": "low" }),
                "",
                Some((Tier::Low, None)),
            ),
            (
                json!({ "stage": "RollingBack", "tier": "high", "outcome": "RolledBack" }),
                "",
                Some((Tier::High, None)),
            ),
            (
                json!({ "stage": "RolledBack", "tier": "high", "outcome": "RolledBack" }),
                "",
                None,
            ),
            (
                json!({ "stage": "Promoted", "tier": "high", "outcome": "Promoted" }),
                "",
                None,
            ),
            (
                json!({ "stage": "Promoting", "tier": "high", "initial": true }),
                "",
                None,
            ),
            (
                json!({ "stage": "Waiting", "tier": "high", "queuedAt": at }),
                "Queued",
                Some((Tier::High, Some(since))),
            ),
            // Held by another gate, the change keeps its slot and is not queued.
            (
                json!({ "stage": "Waiting", "tier": "high", "queuedAt": at }),
                "Paused",
                None,
            ),
            // Unknown values count.
            (
                json!({ "stage": "Floating", "tier": "extreme" }),
                "",
                Some((Tier::Critical, None)),
            ),
        ] {
            assert_eq!(position(&change, waiting_for), expected, "{change}");
        }
    }
}
