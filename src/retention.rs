//! Keeps the records of deleted Rollouts for their time, and then removes them. The records of others are removed by
//! their reconciles.

use std::collections::{BTreeMap, BTreeSet};
use std::time;

use countersign_api::{
    DELETED_AT_ANNOTATION, Duration, KEEP_FOR_LABEL, MANAGER, ROLLOUT_LABEL, ROLLOUT_UID_LABEL,
    RolloutRun,
};
use countersign_core::label::MAX_VALUE;
use countersign_core::rollout::record::OUTLIVES;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::core::ObjectMeta;
use kube::runtime::reflector::Store;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::act::Actor;
use crate::api_server::sentence;
use crate::clock;
use crate::timing::{RETENTION_INTERVAL, RETENTION_PAUSE};
use crate::watch::{Claim, rollout_of_record};

/// Records per page, of which only the metadata are read.
const PAGE: u32 = 100;

/// Does what is due for records now, whenever the time of one is over, and at intervals, and never ends.
pub async fn keep(actor: &Actor, claims: &Store<Claim>) {
    loop {
        let next = pass(actor, claims).await.unwrap_or_else(|error| {
            tracing::warn!(error = %sentence(&error), "the records of deleted Rollouts could not be read");
            RETENTION_PAUSE
        });
        tokio::time::sleep(next.clamp(RETENTION_PAUSE, RETENTION_INTERVAL)).await;
    }
}

/// Does what is due now; returns when the next time of a record is over.
async fn pass(actor: &Actor, claims: &Store<Claim>) -> Result<time::Duration, kube::Error> {
    let runs: Api<RolloutRun> = Api::all(actor.client.clone());
    let mut of = ListParams::default().labels(ROLLOUT_UID_LABEL).limit(PAGE);
    let mut next = RETENTION_INTERVAL;
    loop {
        let page = runs.list_metadata(&of).await?;
        let claims = claims.state();
        let rollouts: BTreeSet<_> = claims.iter().filter_map(|claim| claim.uid()).collect();
        for record in page.items {
            let Some(due) = due(&record.metadata, &rollouts, clock::now()) else {
                continue;
            };
            next = next.min(match due {
                Due::Later(left) => left,
                // The next pass sees what has become of it.
                Due::Update(_) | Due::Removal => RETENTION_PAUSE,
            });
            // One that cannot be written keeps no other.
            if let Err(error) = write(actor, &record.metadata, due).await {
                let (namespace, run) = (record.namespace().unwrap_or_default(), record.name_any());
                tracing::warn!(%namespace, %run, error = %sentence(&error), "a record was not updated or removed");
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => of = of.continue_token(&token),
            None => return Ok(next),
        }
    }
}

/// What is due for a record.
#[derive(Debug, PartialEq)]
enum Due {
    /// These metadata are written.
    Update(Value),
    Removal,
    /// It is removed after this time.
    Later(time::Duration),
}

/// What is due for a record if these Rollouts exist. The uid of a deleted one never comes back.
fn due(record: &ObjectMeta, rollouts: &BTreeSet<String>, now: Timestamp) -> Option<Due> {
    let label = |name: &str| record.labels.as_ref()?.get(name);
    let uid = label(ROLLOUT_UID_LABEL)?;
    let Some(keep_for) = label(KEEP_FOR_LABEL) else {
        return Some(Due::Update(outliving(record, uid)));
    };
    let annotations = record.annotations.as_ref();
    let deleted_at = annotations.and_then(|all| all.get(DELETED_AT_ANNOTATION));
    if rollouts.contains(uid) {
        // A watch that was behind may have hidden the Rollout.
        let none = json!({ "annotations": { DELETED_AT_ANNOTATION: null } });
        return deleted_at.map(|_| Due::Update(none));
    }
    let Some(deleted_at) = deleted_at.and_then(|at| at.parse::<Timestamp>().ok()) else {
        let stamp = json!({ DELETED_AT_ANNOTATION: now.to_string() });
        return Some(Due::Update(json!({ "annotations": stamp })));
    };
    let left = keep_for.parse::<Duration>().ok()?.signed() - now.duration_since(deleted_at);
    Some(if left.is_positive() {
        Due::Later(left.unsigned_abs())
    } else {
        Due::Removal
    })
}

/// What lets the record of an earlier build outlive its Rollout, which owns it.
fn outliving(record: &ObjectMeta, uid: &str) -> Value {
    let mut owners = record.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.uid == uid);
    let name = owner.filter(|owner| owner.name.len() <= MAX_VALUE);
    let mut labels = BTreeMap::from([(KEEP_FOR_LABEL, OUTLIVES.to_string())]);
    labels.extend(name.map(|owner| (ROLLOUT_LABEL, owner.name.clone())));
    json!({ "labels": labels, "ownerReferences": null })
}

async fn write(actor: &Actor, record: &ObjectMeta, due: Due) -> Result<(), kube::Error> {
    if actor.lease.check().is_err() {
        return Ok(());
    }
    let namespace = record.namespace.clone().unwrap_or_default();
    let name = record.name.clone().unwrap_or_default();
    let runs: Api<RolloutRun> = Api::namespaced(actor.client.clone(), &namespace);
    let (verb, done) = match due {
        Due::Update(metadata) => {
            let parameters = PatchParams {
                field_manager: Some(MANAGER.into()),
                ..PatchParams::default()
            };
            let patch = Patch::Merge(json!({ "metadata": metadata }));
            let done = runs.patch_metadata(&name, &parameters, &patch).await;
            let done = done.map(|written| {
                let of = rollout_of_record(&written.metadata).unwrap_or_default();
                actor.written.records.reaches(&of, &written.metadata);
            });
            ("patch", done)
        }
        Due::Removal => {
            let parameters = DeleteParams::background().preconditions(Preconditions {
                uid: record.uid.clone(),
                resource_version: None,
            });
            let done = runs.delete(&name, &parameters).await;
            let done = done.map(|_| {
                let of = rollout_of_record(record).unwrap_or_default();
                let uid = record.uid.as_deref().unwrap_or_default();
                actor.written.records.deleted(&of, &namespace, &name, uid);
            });
            ("delete", done)
        }
        Due::Later(_) => return Ok(()),
    };
    let done = match done {
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        done => done,
    };
    actor.telemetry.api_write(verb, "rolloutruns", done.is_ok());
    if done.is_ok() && verb == "delete" {
        tracing::info!(%namespace, run = %name, "the record of a deleted Rollout was removed");
    }
    done
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::act::events::Recorder;
    use crate::lease::Lease;
    use crate::stand_in::{ROLLOUTS, StandIn};
    use crate::telemetry::Telemetry;
    use crate::watch::{Cache, Written};

    /// The metadata of a record that is far older than a week.
    fn record(labels: &Value, annotations: &Value) -> ObjectMeta {
        serde_json::from_value(json!({
            "name": "web-1", "namespace": "shop", "creationTimestamp": "2025-03-01T00:00:00Z",
            "labels": labels, "annotations": annotations,
        }))
        .unwrap()
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    #[test]
    fn the_time_of_a_record_counts_from_when_its_rollout_is_found_deleted() {
        let kept = json!({ ROLLOUT_UID_LABEL: "gone", KEEP_FOR_LABEL: "24h" });
        let own = BTreeSet::from(["gone".to_owned()]);
        let others = BTreeSet::from(["another".to_owned()]);
        let now = at("2026-03-01T00:00:00Z");
        let unseen = record(&kept, &json!({}));
        assert_eq!(due(&unseen, &own, now), None);
        let stamp = json!({ DELETED_AT_ANNOTATION: "2026-03-01T00:00:00Z" });
        let stamped = json!({ "annotations": stamp });
        assert_eq!(due(&unseen, &others, now), Some(Due::Update(stamped)));

        let seen = record(&kept, &stamp);
        let left = time::Duration::from_secs(1);
        let before = at("2026-03-01T23:59:59Z");
        assert_eq!(due(&seen, &others, before), Some(Due::Later(left)));
        let over = at("2026-03-02T00:00:00Z");
        assert_eq!(due(&seen, &others, over), Some(Due::Removal));
        let none = json!({ "annotations": { DELETED_AT_ANNOTATION: null } });
        let withdrawn = Some(Due::Update(none));
        assert_eq!(due(&seen, &own, over), withdrawn, "it exists after all");
        assert_eq!(due(&record(&kept, &json!({})), &own, over), None);
        let always = json!({ ROLLOUT_UID_LABEL: "gone", KEEP_FOR_LABEL: "for ever" });
        assert_eq!(due(&record(&always, &stamp), &others, over), None);
        assert_eq!(due(&record(&json!({}), &stamp), &others, over), None);
    }

    #[test]
    fn the_record_of_an_earlier_build_is_made_to_outlive_its_rollout() {
        let labels = json!({ ROLLOUT_UID_LABEL: "present" });
        let owner = json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "Rollout", "name": "web",
            "uid": "present",
        });
        let mut former = record(&labels, &json!({}));
        former.owner_references = serde_json::from_value(json!([owner])).unwrap();
        let own = BTreeSet::from(["present".to_owned()]);
        let labels = json!({ KEEP_FOR_LABEL: "168h", ROLLOUT_LABEL: "web" });
        let update = json!({ "labels": labels, "ownerReferences": null });
        let now = at("2026-03-01T00:00:00Z");
        assert_eq!(due(&former, &own, now), Some(Due::Update(update)));
    }

    #[tokio::test]
    async fn a_pass_marks_records_of_deleted_rollouts_and_removes_old_ones() {
        let server = StandIn::new();
        let client = server.client();
        let telemetry = Arc::new(Telemetry::new());
        let written = Written {
            records: Cache::opened(),
            ..Written::default()
        };
        let records = &written.records;
        let lease = Arc::new(Lease::held(client.clone()));
        let (recorder, _) =
            Recorder::start(client.clone(), "test", lease.clone(), telemetry.clone());
        let actor = Actor {
            client,
            lease,
            telemetry,
            recorder,
            written: written.clone(),
        };
        let labels = json!({ ROLLOUT_UID_LABEL: "gone", KEEP_FOR_LABEL: "24h" });
        let stamp = json!({ DELETED_AT_ANNOTATION: "2025-03-01T00:00:00Z" });
        let folder = ROLLOUTS.replace("rollouts", "rolloutruns");
        for (name, annotations) in [("old", stamp), ("unseen", json!({}))] {
            let metadata = json!({ "name": name, "labels": labels, "annotations": annotations });
            let record = json!({
                "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutRun", "metadata": metadata,
                "spec": { "rollout": "web", "digest": "d", "podTemplateHash": "h", "revision": 1 },
            });
            server.put(&format!("{folder}/{name}"), record);
        }
        let all = server.paths("rolloutruns");
        let all = all.iter().map(|path| server.get(path).unwrap());
        records.list_records(all.collect());
        let known = || records.of_rollout("shop", "gone").map(|all| all.len());
        assert_eq!(known(), Some(2));
        let (claims, _) = kube::runtime::reflector::store();
        pass(&actor, &claims).await.unwrap();
        assert_eq!(known(), None, "the cache has to reach own writes");
        let requests = server.requests();
        let writes: Vec<_> = requests
            .iter()
            .filter(|it| it.method != "GET")
            .map(|it| (it.method.as_str(), it.path.rsplit('/').next().unwrap()))
            .collect();
        assert_eq!(writes, [("DELETE", "old"), ("PATCH", "unseen")]);
        let metadata = &requests.last().unwrap().body["metadata"];
        assert!(metadata["annotations"][DELETED_AT_ANNOTATION].is_string());
    }
}
