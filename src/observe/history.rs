//! Reads the RolloutRuns of past changes, with their templates.

use std::collections::BTreeMap;

use countersign_api::{PodTemplate, ROLLOUT_UID_LABEL, Rollout, RolloutRun};
use countersign_core::observation::workload::{PastRun, ReplicaSet};
use countersign_core::provenance::digest;
use countersign_core::workload::cleanup;
use countersign_core::{Observation, change};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::api_server::sentence;
use crate::observe::observer::Observer;
use crate::observe::reads;

impl Observer {
    /// The templates of promoted revisions whose ReplicaSet is missing, from their RolloutRuns, each
    /// verified by its digest in the status.
    pub(super) async fn promoted(
        &self,
        rollout: &Rollout,
        namespace: &str,
        sets: &[ReplicaSet],
    ) -> BTreeMap<String, PodTemplate> {
        let Some(status) = &rollout.status else {
            return BTreeMap::new();
        };
        let previous = status.change.as_ref().and_then(|it| it.previous.as_ref());
        let promoted = status.stable.iter().chain(previous);
        let lost = promoted.filter_map(|revision| {
            let mut sets = sets.iter();
            let found = sets.any(|set| set.hash == revision.pod_template_hash);
            (!found).then_some((revision.run.as_ref()?, &revision.template_digest))
        });
        let lost: Vec<_> = lost.collect();
        if lost.is_empty() {
            return BTreeMap::new();
        }
        let api: Api<RolloutRun> = Api::namespaced(self.client.clone(), namespace);
        let template = |record: RolloutRun| {
            let name = record.name_any();
            let (_, digest) = lost.iter().find(|(run, _)| **run == name)?;
            let template = record.spec.template?;
            (digest::template_digest(&template) == **digest).then(|| ((*digest).clone(), template))
        };
        let of = records_of(&rollout.uid().unwrap_or_default());
        match self.reads.collect(&api, &of, template).await {
            Ok(templates) => templates.into_iter().collect(),
            Err(error) => {
                tracing::warn!(error = %sentence(&error), "the records of a lost revision could not be read");
                BTreeMap::new()
            }
        }
    }

    /// Earlier records are read only where a change may start or end.
    pub(super) async fn history(
        &self,
        observation: &Observation,
    ) -> Option<Result<Vec<PastRun>, String>> {
        let status = &observation.status;
        let template = digest::template_digest(&observation.spec.template);
        let settled = status
            .stable
            .as_ref()
            .is_some_and(|stable| stable.template_digest == template);
        let needed = match &status.change {
            None => !settled,
            // The watch after a promotion may be long, and its end does not depend on past changes.
            Some(change) if change::is_watched(change) => change.template_digest != template,
            Some(change) => change.outcome.is_some(),
        };
        if !needed && !cleanup::exceeds_history(observation) {
            return None;
        }
        let api: Api<RolloutRun> = Api::namespaced(self.client.clone(), &observation.namespace);
        let past_run = |run: RolloutRun| {
            Some(PastRun {
                uid: run.uid().unwrap_or_default(),
                ..PastRun::of(&run.name_any(), &run.spec)
            })
        };
        let of = records_of(&observation.uid);
        let runs = self.reads.collect(&api, &of, past_run).await;
        Some(runs.map_err(|error| {
            tracing::warn!(error = %sentence(&error), "the records of a Rollout could not be read");
            format!(
                "the records of earlier changes cannot be read: {}",
                sentence(&error)
            )
        }))
    }
}

/// The records of the Rollout with this uid; each has a pod template.
fn records_of(uid: &str) -> ListParams {
    let selector = format!("{ROLLOUT_UID_LABEL}={uid}");
    ListParams::default().labels(&selector).limit(reads::LARGE)
}
