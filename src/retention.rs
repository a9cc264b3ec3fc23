//! Removes the records of deleted Rollouts once their time is over. The records of others are removed by their
//! reconciles.

use std::collections::BTreeSet;

use countersign_api::{Duration, KEEP_FOR_LABEL, ROLLOUT_UID_LABEL, RolloutRun};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::core::ObjectMeta;
use kube::runtime::reflector::Store;
use kube::{Api, ResourceExt};

use crate::act::Actor;
use crate::api_server::sentence;
use crate::clock;
use crate::timing::RETENTION_INTERVAL;
use crate::watch::Claim;

/// Records per page, of which only the metadata are read.
const PAGE: u32 = 100;

/// Removes old records now and at intervals, and never ends.
pub async fn keep(actor: &Actor, claims: &Store<Claim>) {
    loop {
        if let Err(error) = remove_old(actor, claims).await {
            tracing::warn!(error = %sentence(&error), "old records of deleted Rollouts were not removed");
        }
        tokio::time::sleep(RETENTION_INTERVAL).await;
    }
}

async fn remove_old(actor: &Actor, claims: &Store<Claim>) -> Result<(), kube::Error> {
    let runs: Api<RolloutRun> = Api::all(actor.client.clone());
    let mut of = ListParams::default().labels(KEEP_FOR_LABEL).limit(PAGE);
    loop {
        let page = runs.list_metadata(&of).await?;
        let claims = claims.state();
        let rollouts: BTreeSet<_> = claims.iter().filter_map(|claim| claim.uid()).collect();
        for record in page.items {
            if is_over(&record.metadata, &rollouts, clock::now()) {
                // One that cannot be removed keeps no other.
                if let Err(error) = remove(actor, &record.metadata).await {
                    let (namespace, run) =
                        (record.namespace().unwrap_or_default(), record.name_any());
                    tracing::warn!(%namespace, %run, error = %sentence(&error), "an old record was not removed");
                }
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => of = of.continue_token(&token),
            None => return Ok(()),
        }
    }
}

/// Whether the time of a record is over, and its Rollout is not among these.
fn is_over(record: &ObjectMeta, rollouts: &BTreeSet<String>, now: Timestamp) -> bool {
    let label = |name: &str| record.labels.as_ref()?.get(name);
    let exists = label(ROLLOUT_UID_LABEL).is_none_or(|uid| rollouts.contains(uid));
    let time = label(KEEP_FOR_LABEL).and_then(|time| time.parse::<Duration>().ok());
    let age = record.creation_timestamp.as_ref();
    let age = age.map(|created| now.duration_since(created.0));
    let over = time
        .zip(age)
        .is_some_and(|(time, age)| age >= time.signed());
    over && !exists
}

async fn remove(actor: &Actor, record: &ObjectMeta) -> Result<(), kube::Error> {
    if actor.lease.check().is_err() {
        return Ok(());
    }
    let namespace = record.namespace.clone().unwrap_or_default();
    let name = record.name.clone().unwrap_or_default();
    let runs: Api<RolloutRun> = Api::namespaced(actor.client.clone(), &namespace);
    let parameters = DeleteParams::background().preconditions(Preconditions {
        uid: record.uid.clone(),
        resource_version: None,
    });
    let done = match runs.delete(&name, &parameters).await {
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        done => done.map(drop),
    };
    actor
        .telemetry
        .api_write("delete", "rolloutruns", done.is_ok());
    if done.is_ok() {
        tracing::info!(%namespace, run = %name, "the record of a deleted Rollout was removed");
    }
    done
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_is_removed_when_its_rollout_is_gone_and_its_time_over() {
        let created = "2026-03-01T00:00:00Z";
        let record = |keep_for: &str| -> ObjectMeta {
            let labels = json!({ ROLLOUT_UID_LABEL: "gone", KEEP_FOR_LABEL: keep_for });
            let metadata = json!({ "creationTimestamp": created, "labels": labels });
            serde_json::from_value(metadata).unwrap()
        };
        let created: Timestamp = created.parse().unwrap();
        let after = |seconds: i64| {
            let time = k8s_openapi::jiff::SignedDuration::from_secs(seconds);
            created.checked_add(time).unwrap()
        };
        let others = BTreeSet::from(["another".to_owned()]);
        assert!(!is_over(&record("24h"), &others, after(86_399)));
        assert!(is_over(&record("24h"), &others, after(86_400)));
        let own = BTreeSet::from(["gone".to_owned()]);
        assert!(!is_over(&record("24h"), &own, after(86_400)));
        assert!(!is_over(&record("for ever"), &others, after(86_400)));
        let mut unlabelled = record("24h");
        unlabelled.labels = None;
        assert!(!is_over(&unlabelled, &others, after(86_400)));
    }
}
