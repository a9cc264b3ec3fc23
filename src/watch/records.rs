//! The watch on RolloutRuns, of which what decisions need is kept.
//!
//! Only the controller writes them, so no event of one triggers a reconcile.

use std::sync::Arc;

use countersign_api::{ROLLOUT_LABEL, ROLLOUT_UID_LABEL, RolloutRun};
use countersign_core::observation::workload::PastRun;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Client, Resource, ResourceExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::telemetry::Telemetry;
use crate::watch::cache::{Cache, Cached};
use crate::watch::task::{LARGE, config, kept, run};
use crate::watch::trigger::Trigger;

/// What decisions need of a record; its template is large.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct PastRecord {
    /// The name of its Rollout.
    pub rollout: String,
    /// The uid of its Rollout.
    pub rollout_uid: Option<String>,
    /// The change.
    pub run: PastRun,
}

impl From<RolloutRun> for PastRecord {
    fn from(record: RolloutRun) -> Self {
        let run = PastRun {
            uid: record.uid().unwrap_or_default(),
            ..PastRun::of(&record.name_any(), &record.spec)
        };
        Self {
            rollout_uid: record.labels().get(ROLLOUT_UID_LABEL).cloned(),
            rollout: record.spec.rollout,
            run,
        }
    }
}

/// A record as its watch decodes it.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "RolloutRun")]
pub(super) struct WatchedRecord {
    metadata: ObjectMeta,
}

impl Cached for WatchedRecord {
    /// A [`PastRecord`] as arrays, without the names of its fields: there are ten and more of each Rollout. The digest of the
    /// change is empty, and its provenance and traffic, which are the last fields, are left out: only what is written about
    /// a change depends on them, and before that they are read.
    ///
    /// One that this build cannot read is read again where it is needed, which reports the problem.
    fn prune(record: Value) -> Value {
        let Ok(record) = serde_json::from_value::<RolloutRun>(record) else {
            return Value::Null;
        };
        let PastRecord {
            rollout,
            rollout_uid,
            run,
        } = PastRecord::from(record);
        let run = json!([
            run.name,
            run.uid,
            "",
            run.pod_template_hash,
            run.template_digest,
            run.provenance_digest,
            run.provenance_state,
            run.started_at,
            run.ended_at,
            run.outcome,
        ]);
        json!([rollout, rollout_uid, run])
    }

    fn of(&self) -> Option<String> {
        rollout_of_record(&self.metadata)
    }
}

/// By what a record is found: the name of its Rollout, which others had before. If it lacks the name, as it fits no label or
/// an earlier build wrote the record, the uid.
#[must_use]
pub fn rollout_of_record(record: &ObjectMeta) -> Option<String> {
    let labels = record.labels.as_ref()?;
    let rollout = labels.get(ROLLOUT_LABEL);
    rollout.or_else(|| labels.get(ROLLOUT_UID_LABEL)).cloned()
}

/// Watches RolloutRuns.
pub(super) fn watch_records(client: &Client, telemetry: &Arc<Telemetry>) -> Cache {
    let cache = Cache::default();
    let events = kept::<WatchedRecord>(client, config(LARGE), &cache);
    let (send, _) = mpsc::unbounded_channel();
    run("RolloutRun", telemetry, events, |_| None::<Trigger>, send);
    cache
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn record() -> Value {
        let digest = "0".repeat(64);
        json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutRun",
            "metadata": {
                "name": "shop-frontend-0123456789-12", "namespace": "shop",
                "uid": "11111111-2222-3333-4444-555555555555",
                "labels": {
                    ROLLOUT_LABEL: "shop-frontend",
                    ROLLOUT_UID_LABEL: "66666666-7777-8888-9999-000000000000",
                },
            },
            "spec": {
                "rollout": "shop-frontend", "digest": digest, "podTemplateHash": "6b7c8d9f4c",
                "revision": 12, "templateDigest": digest,
                "template": { "spec": { "containers": [{ "name": "app", "image": "x".repeat(9_000) }] } },
                "traffic": { "stableService": "shop-frontend" },
                "difference": "x".repeat(9_000),
                "provenance": {
                    "state": "Declared", "digest": digest, "annotations": { "contributor": "human" },
                },
                "progress": {
                    "outcome": "Promoted", "message": "x".repeat(900),
                    "startedAt": "2026-03-01T00:00:00Z", "endedAt": "2026-03-01T00:40:00Z",
                },
            },
        })
    }

    #[test]
    fn of_a_record_what_decisions_need_is_kept() {
        let json = serde_json::to_string(&WatchedRecord::prune(record())).unwrap();
        assert!(json.len() < 400, "{} bytes", json.len());
        let kept: PastRecord = serde_json::from_str(&json).unwrap();
        let whole = PastRecord::from(serde_json::from_value::<RolloutRun>(record()).unwrap());
        assert!(whole.run.traffic.is_some() && !whole.run.provenance.is_empty());
        let expected = PastRecord {
            run: PastRun {
                digest: String::new(),
                provenance: BTreeMap::new(),
                traffic: None,
                ..whole.run
            },
            ..whole
        };
        assert_eq!(kept, expected);
    }

    #[test]
    fn a_record_that_this_build_cannot_read_is_read_where_it_is_needed() {
        let mut record = record();
        record["spec"]["progress"]["outcome"] = json!("Forgotten");
        let json = serde_json::to_string(&WatchedRecord::prune(record)).unwrap();
        serde_json::from_str::<PastRecord>(&json).unwrap_err();
    }

    #[test]
    fn a_record_is_found_by_the_name_of_its_rollout_or_else_by_the_uid() {
        let of = |labels: Value| {
            let metadata = json!({ "name": "web-1", "labels": labels });
            rollout_of_record(&serde_json::from_value(metadata).unwrap())
        };
        let uid = json!({ ROLLOUT_UID_LABEL: "uid" });
        assert_eq!(of(uid).as_deref(), Some("uid"));
        let both = json!({ ROLLOUT_UID_LABEL: "uid", ROLLOUT_LABEL: "web" });
        assert_eq!(of(both).as_deref(), Some("web"));
        assert_eq!(of(json!({})), None);
    }
}
