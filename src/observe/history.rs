//! Reads the RolloutRuns of past changes, with their templates.

use std::collections::BTreeMap;

use countersign_api::{PodTemplate, ROLLOUT_UID_LABEL, Rollout, RolloutRun};
use countersign_core::observation::workload::{PastRun, ReplicaSet};
use countersign_core::provenance::digest;
use countersign_core::workload::cleanup;
use countersign_core::{Observation, change};
use kube::{Api, ResourceExt};

use crate::api_server::sentence;
use crate::observe::observer::Observer;

impl Observer {
    /// The templates of promoted revisions whose ReplicaSet is missing or edited, from their RolloutRuns, each
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
            let found =
                sets.any(|set| set.hash == revision.pod_template_hash && set.edit().is_none());
            (!found).then_some((revision.run.as_ref()?, &revision.template_digest))
        });
        let lost: Vec<_> = lost.collect();
        if lost.is_empty() {
            return BTreeMap::new();
        }
        let api: Api<RolloutRun> = Api::namespaced(self.client.clone(), namespace);
        let selector = format!("{ROLLOUT_UID_LABEL}={}", rollout.uid().unwrap_or_default());
        let runs = match self.reads.list(&api, &selector).await {
            Ok(runs) => runs.items,
            Err(error) => {
                tracing::warn!(error = %sentence(&error), "the records of a lost revision could not be read");
                return BTreeMap::new();
            }
        };
        let templates = lost.into_iter().filter_map(|(run, digest)| {
            let record = runs.iter().find(|record| record.name_any() == *run)?;
            let template = record.spec.template.as_ref()?;
            (digest::template_digest(template) == *digest)
                .then(|| (digest.clone(), template.clone()))
        });
        templates.collect()
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
        let selector = format!("{ROLLOUT_UID_LABEL}={}", observation.uid);
        let runs = self.reads.list(&api, &selector).await;
        let runs = runs.map_err(|error| {
            tracing::warn!(error = %sentence(&error), "the records of a Rollout could not be read");
            format!(
                "the records of earlier changes cannot be read: {}",
                sentence(&error)
            )
        });
        let past_run = |run: &RolloutRun| PastRun {
            uid: run.uid().unwrap_or_default(),
            ..PastRun::of(&run.name_any(), &run.spec)
        };
        Some(runs.map(|runs| runs.items.iter().map(past_run).collect()))
    }
}
