//! Reads the RolloutRuns of past changes, with their templates.

use std::collections::BTreeMap;

use countersign_api::rollout::Outcome;
use countersign_api::{PodTemplate, ROLLOUT_LABEL, ROLLOUT_UID_LABEL, Rollout, RolloutRun};
use countersign_core::observation::workload::{PastRun, ReplicaSet};
use countersign_core::provenance::digest;
use countersign_core::workload::cleanup;
use countersign_core::{Observation, change};
use kube::{Api, ResourceExt};

use crate::api_server::sentence;
use crate::observe::observer::Observer;

/// Longest name of a Rollout by which its records are labelled, in characters.
const LABELLED: usize = 63;

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

    /// Earlier records are read only where a change may start or end. Before a revision is stable, those of a
    /// deleted Rollout of the same name are among them.
    pub(super) async fn history(&self, observation: &Observation) -> History {
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
            return History::default();
        }
        let api: Api<RolloutRun> = Api::namespaced(self.client.clone(), &observation.namespace);
        let selector = if status.stable.is_none() && observation.name.len() <= LABELLED {
            format!("{ROLLOUT_LABEL}={}", observation.name)
        } else {
            format!("{ROLLOUT_UID_LABEL}={}", observation.uid)
        };
        match self.reads.list(&api, &selector).await {
            Ok(runs) => History::of(&runs.items, observation),
            Err(error) => {
                tracing::warn!(error = %sentence(&error), "the records of a Rollout could not be read");
                let problem = format!(
                    "the records of earlier changes cannot be read: {}",
                    sentence(&error)
                );
                History {
                    own: Some(Err(problem)),
                    former_template: None,
                }
            }
        }
    }
}

/// The records of earlier changes.
#[derive(Default)]
pub(super) struct History {
    /// Those of this Rollout; `None` if they were not read.
    pub(super) own: Option<Result<Vec<PastRun>, String>>,
    /// SHA-256 of the template that a deleted Rollout of the same name promoted last.
    pub(super) former_template: Option<String>,
}

impl History {
    fn of(runs: &[RolloutRun], observation: &Observation) -> Self {
        let is_own =
            |run: &&RolloutRun| run.labels().get(ROLLOUT_UID_LABEL) == Some(&observation.uid);
        let past_run = |run: &RolloutRun| PastRun {
            uid: run.uid().unwrap_or_default(),
            ..PastRun::of(&run.name_any(), &run.spec)
        };
        let (own, others): (Vec<_>, Vec<_>) = runs.iter().partition(is_own);
        let former = others.into_iter();
        let former = former.filter(|run| run.spec.rollout == observation.name);
        let promoted = former
            .map(past_run)
            .filter(|run| run.outcome == Some(Outcome::Promoted));
        let last = promoted.max_by_key(|run| run.ended_at);
        Self {
            own: Some(Ok(own.into_iter().map(past_run).collect())),
            former_template: last.and_then(|run| run.template_digest),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The record of a promoted change.
    fn run(rollout: &str, uid: &str, ended: &str, template: &str) -> RolloutRun {
        serde_json::from_value(json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutRun",
            "metadata": { "name": format!("{rollout}-{template}"), "labels": { ROLLOUT_UID_LABEL: uid } },
            "spec": {
                "rollout": rollout, "digest": "d", "podTemplateHash": "h", "revision": 1,
                "templateDigest": template,
                "progress": { "outcome": "Promoted", "endedAt": ended },
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_rollout_of_the_same_name_that_was_deleted_is_known_by_its_last_promotion() {
        let spec = serde_json::from_value(json!({ "template": {} })).unwrap();
        let observation = Observation {
            uid: "present".into(),
            ..Observation::of("shop", "web", spec)
        };
        let mut rejected = run("web", "former", "2026-03-04T00:00:00Z", "rejected");
        rejected.spec.progress.outcome = Some(Outcome::RolledBack);
        let runs = [
            run("web", "former", "2026-03-01T00:00:00Z", "first"),
            run("web", "former", "2026-03-03T00:00:00Z", "last"),
            run("web", "former", "2026-03-02T00:00:00Z", "second"),
            run("web.other", "other", "2026-03-05T00:00:00Z", "other"),
            run("web", "present", "2026-03-06T00:00:00Z", "own"),
            rejected,
        ];
        let history = History::of(&runs, &observation);
        assert_eq!(history.former_template.as_deref(), Some("last"));
        let own = history.own.unwrap().unwrap();
        let names: Vec<_> = own.iter().map(|run| run.name.as_str()).collect();
        assert_eq!(names, ["web-own"]);
    }
}
