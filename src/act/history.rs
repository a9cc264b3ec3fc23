//! Writes and deletes RolloutRuns, and deletes what belongs to old ones.

use std::collections::BTreeMap;

use countersign_api::{
    Intervention, KEEP_FOR_LABEL, ROLLOUT_LABEL, ROLLOUT_UID_LABEL, Rollout, RolloutRun, SignOff,
};
use countersign_core::Observation;
use countersign_core::decision::{HistoryAction, Record};
use countersign_core::label::MAX_VALUE;
use kube::api::{ApiResource, DynamicObject, ListParams, ObjectMeta, Patch};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{Actor, absent_as_none, as_manager, as_observed, field_manager, is_taken};
use crate::act::error::{Error, Target};
use crate::observe::reads;

impl Actor {
    pub(super) async fn act_on_history(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        action: &HistoryAction,
    ) -> Result<(), Error> {
        let HistoryAction::DeleteRun { run } = action;
        // The RolloutRun is deleted last: until then, the rest remains to be deleted.
        for (kind, target) in [
            (ApiResource::erase::<SignOff>(&()), Target::OldSignOffs),
            (
                ApiResource::erase::<Intervention>(&()),
                Target::OldInterventions,
            ),
        ] {
            self.remove_requests(rollout, &kind, target, run).await?;
        }
        let api: Api<RolloutRun> = Api::namespaced(self.client.clone(), &observation.namespace);
        let mut seen = observation.history().iter();
        let uid = seen.find(|it| it.name == *run).map(|it| &it.uid);
        let as_observed = as_observed(uid, None);
        self.remove(Target::OldRecord, rollout, &api, run, as_observed)
            .await?;
        let (of, uid) = (found_by(rollout), uid.map_or("", String::as_str));
        self.written
            .records
            .deleted(&of, &observation.namespace, run, uid);
        Ok(())
    }

    /// Deletes the SignOffs or Interventions of a RolloutRun.
    async fn remove_requests(
        &self,
        rollout: &Rollout,
        kind: &ApiResource,
        target: Target,
        run: &str,
    ) -> Result<(), Error> {
        let namespace = rollout.namespace().unwrap_or_default();
        let uid = rollout.uid().unwrap_or_default();
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &namespace, kind);
        let attempt = format!("spec.rolloutUid={uid},spec.run={run}");
        let of = ListParams::default().fields(&attempt).limit(reads::SMALL);
        let is_old = |it: &DynamicObject| {
            let field = |name: &str| it.data.get("spec")?.get(name)?.as_str();
            field("rolloutUid") == Some(&uid) && field("run") == Some(run)
        };
        let mut after = None;
        loop {
            let page = reads::page(&api, &of, after.as_deref(), None).await;
            let (page, more) = page.map_err(|source| Error::refused(target, rollout, source))?;
            for it in page.iter().filter(|it| is_old(it)) {
                let (name, uid) = (it.name_any(), it.uid());
                let as_observed = as_observed(uid.as_ref(), None);
                self.remove(target, rollout, &api, &name, as_observed)
                    .await?;
            }
            after = more;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Updates the RolloutRun of a change, or creates it.
    pub(super) async fn keep_record(
        &self,
        rollout: &Rollout,
        namespace: &str,
        record: &Record,
    ) -> Result<(), Error> {
        let api: Api<RolloutRun> = Api::namespaced(self.client.clone(), namespace);
        let begun = record.spec.progress.transitions.len() > 1;
        let mut written = None;
        if begun {
            written = self.update_record(&api, rollout, record).await?;
        }
        if written.is_none() {
            written = self.create_record(&api, rollout, record).await?;
        }
        if written.is_none() {
            written = self.update_record(&api, rollout, record).await?;
        }
        if let Some(written) = written {
            self.written
                .records
                .reaches(&found_by(rollout), &written.metadata);
        }
        Ok(())
    }

    /// Creates a record; `None` if there is one of its name.
    async fn create_record(
        &self,
        api: &Api<RolloutRun>,
        rollout: &Rollout,
        record: &Record,
    ) -> Result<Option<RolloutRun>, Error> {
        let body = RolloutRun {
            metadata: metadata(rollout, record),
            spec: record.spec.clone(),
        };
        let write = async {
            match api.create(&as_manager(), &body).await {
                Err(error) if is_taken(&error) => Ok(None),
                made => made.map(Some),
            }
        };
        self.write(Target::Record, rollout, "create", write).await
    }

    /// Updates what changes of a record after its begin; `None` if there is none.
    async fn update_record(
        &self,
        api: &Api<RolloutRun>,
        rollout: &Rollout,
        record: &Record,
    ) -> Result<Option<RolloutRun>, Error> {
        let spec = &record.spec;
        let labels = metadata(rollout, record).labels;
        let update = json!({
            // An earlier build may have begun the record, with an owner and without these labels.
            "metadata": { "labels": labels, "ownerReferences": null },
            "spec": {
                "progress": spec.progress,
                "plan": spec.plan,
                "observed": spec.observed,
                "risk": { "score": spec.risk.score, "tier": spec.risk.tier },
            },
        });
        let (parameters, patch) = (field_manager(), Patch::Merge(update));
        let write = absent_as_none(api.patch(&record.name, &parameters, &patch));
        self.write(Target::Record, rollout, "patch", write).await
    }
}

/// The label by which the records of a deleted Rollout are found, if its name fits.
fn name_label(rollout: &Rollout) -> BTreeMap<&'static str, String> {
    let name = Some(rollout.name_any()).filter(|name| name.len() <= MAX_VALUE);
    name.map(|name| (ROLLOUT_LABEL, name)).into_iter().collect()
}

/// By what the cache finds the records of a Rollout.
fn found_by(rollout: &Rollout) -> String {
    let name = name_label(rollout).remove(ROLLOUT_LABEL);
    name.unwrap_or_else(|| rollout.uid().unwrap_or_default())
}

/// The metadata of a RolloutRun. It outlives its Rollout, so it has no owner, and is found by its labels.
fn metadata(rollout: &Rollout, record: &Record) -> ObjectMeta {
    let mut labels = BTreeMap::from([
        (ROLLOUT_UID_LABEL, rollout.uid().unwrap_or_default()),
        (KEEP_FOR_LABEL, record.keep_for.to_string()),
    ]);
    labels.extend(name_label(rollout));
    let labels = labels
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value));
    ObjectMeta {
        name: Some(record.name.clone()),
        labels: Some(labels.collect()),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use countersign_api::{Duration, RolloutRunSpec};

    use super::*;
    use crate::watch::rollout_of_record;

    #[test]
    fn a_record_outlives_its_rollout() {
        let rollout = json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "Rollout",
            "metadata": { "name": "web", "namespace": "shop", "uid": "u" },
            "spec": { "template": {} },
        });
        let rollout: Rollout = serde_json::from_value(rollout).unwrap();
        let record = Record {
            name: "web-1".into(),
            spec: RolloutRunSpec::default(),
            keep_for: Duration::minutes(60 * 2_160),
        };
        let labels = json!({
            ROLLOUT_UID_LABEL: "u", ROLLOUT_LABEL: "web", KEEP_FOR_LABEL: "2160h",
        });
        let expected = json!({ "name": "web-1", "labels": labels });
        let written = metadata(&rollout, &record);
        assert_eq!(json!(written), expected, "it has no owner");
        let found = Some(found_by(&rollout));
        assert_eq!(rollout_of_record(&written), found, "the cache finds it");
    }
}
