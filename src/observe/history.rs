//! The RolloutRuns of past changes, and the templates of lost revisions from them.

use std::collections::BTreeMap;

use countersign_api::{PodTemplate, ROLLOUT_LABEL, ROLLOUT_UID_LABEL, Rollout, RolloutRun};
use countersign_core::label::MAX_VALUE;
use countersign_core::observation::workload::{PastRun, ReplicaSet};
use countersign_core::provenance::digest;
use countersign_core::workload::cleanup;
use countersign_core::{Observation, change};
use kube::Api;
use kube::api::ListParams;

use crate::api_server::sentence;
use crate::observe::observer::Observer;
use crate::observe::people::in_time;
use crate::observe::reads;
use crate::timing::LIST_TIMEOUT;
use crate::watch::PastRecord;

/// Most records that are read of the Rollouts of one name. Of each, 1,000 of ended changes are kept at most.
const MOST: usize = 2_000;

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
        let api: Api<RolloutRun> = Api::namespaced(self.client.clone(), namespace);
        let mut templates = BTreeMap::new();
        for (run, digest) in lost {
            let of = ListParams::default().fields(&format!("metadata.name={run}"));
            let template = |record: RolloutRun| {
                let template = record.spec.template?;
                (digest::template_digest(&template) == *digest).then(|| (digest.clone(), template))
            };
            let read = in_time(
                "the record of a lost revision",
                reads::collect(&api, &of, template),
            );
            match read.await {
                Ok(found) => templates.extend(found),
                Err(error) => tracing::warn!(%run, %error, "a template is not known"),
            }
        }
        templates
    }

    /// Earlier records are needed only where a change may start or end. Before a revision is stable, those of a
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
        let of_name = status.stable.is_none() && observation.name.len() <= MAX_VALUE;
        if let Some(records) = self.watched_records(observation, of_name) {
            return History::of(records, observation);
        }
        let api: Api<RolloutRun> = Api::namespaced(self.client.clone(), &observation.namespace);
        let of = if of_name {
            labelled(ROLLOUT_LABEL, &observation.name)
        } else {
            labelled(ROLLOUT_UID_LABEL, &observation.uid)
        };
        let needed = |record: RolloutRun| Some(PastRecord::from(record));
        let read = reads::collect_at_most(MOST, &api, &of, needed);
        let problem = match tokio::time::timeout(LIST_TIMEOUT, read).await {
            Ok(Ok((records, false))) => return History::of(records, observation),
            Ok(Ok((_, true))) => format!(
                "there are more than the {MOST} that are read: have a cluster administrator delete the oldest"
            ),
            Ok(Err(error)) => sentence(&error),
            Err(_) => format!("no answer within {LIST_TIMEOUT:?}"),
        };
        tracing::warn!(rollout = %observation.name, %problem, "the records of a Rollout could not be read");
        let problem = format!("the records of earlier changes cannot be read: {problem}");
        History {
            own: Some(Err(problem)),
            ..History::default()
        }
    }

    /// The records of the Rollout, or of those of its name, as their watch has reported them; `None` if they have to be read.
    fn watched_records(&self, observation: &Observation, of_name: bool) -> Option<Vec<PastRecord>> {
        if !self.from_watches {
            return None;
        }
        let (namespace, records) = (&observation.namespace, &self.caches.written.records);
        let mut found = records.of_rollout(namespace, &observation.name)?;
        // Those that lack the name.
        found.extend(records.of_rollout(namespace, &observation.uid)?);
        if found.len() > MOST {
            return None;
        }
        let decoded = found.iter().map(|json| serde_json::from_str(json));
        let decoded: Result<Vec<PastRecord>, _> = decoded.collect();
        let mut records = decoded.ok()?;
        records.retain(|it| of_name || is_own(it, observation));
        Some(records)
    }
}

/// The records of earlier changes.
#[derive(Default)]
pub(super) struct History {
    /// Those of this Rollout; `None` if they were not read.
    pub(super) own: Option<Result<Vec<PastRun>, String>>,
    /// Those of deleted Rollouts of the same name.
    pub(super) former: Vec<PastRun>,
}

impl History {
    fn of(records: Vec<PastRecord>, observation: &Observation) -> Self {
        let records = records.into_iter();
        let (own, others): (Vec<_>, Vec<_>) = records.partition(|it| is_own(it, observation));
        let former = others.into_iter();
        let former = former.filter(|it| it.rollout == observation.name);
        Self {
            own: Some(Ok(own.into_iter().map(|it| it.run).collect())),
            former: former.map(|it| it.run).collect(),
        }
    }
}

fn is_own(record: &PastRecord, observation: &Observation) -> bool {
    record.rollout_uid.as_ref() == Some(&observation.uid)
}

/// The records with this label; each has a pod template.
fn labelled(label: &str, value: &str) -> ListParams {
    let selector = format!("{label}={value}");
    ListParams::default().labels(&selector).limit(reads::LARGE)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The record of a promoted change.
    fn run(rollout: &str, uid: &str, ended: &str, template: &str) -> RolloutRun {
        serde_json::from_value(json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutRun",
            "metadata": { "name": format!("{rollout}-{template}-7"), "labels": { ROLLOUT_UID_LABEL: uid } },
            "spec": {
                "rollout": rollout, "digest": "d", "podTemplateHash": "h", "revision": 1,
                "templateDigest": template,
                "progress": { "outcome": "Promoted", "endedAt": ended },
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_rollout_of_the_same_name_that_was_deleted_is_known_by_its_records() {
        let spec = serde_json::from_value(json!({ "template": {} })).unwrap();
        let observation = Observation {
            uid: "present".into(),
            ..Observation::of("shop", "web", spec)
        };
        let runs = [
            run("web", "former", "2026-03-01T00:00:00Z", "first"),
            run("web.other", "other", "2026-03-05T00:00:00Z", "other"),
            run("web", "present", "2026-03-06T00:00:00Z", "own"),
        ];
        let history = History::of(
            runs.into_iter().map(PastRecord::from).collect(),
            &observation,
        );
        let names =
            |runs: &[PastRun]| -> Vec<_> { runs.iter().map(|it| it.name.clone()).collect() };
        assert_eq!(names(&history.own.unwrap().unwrap()), ["web-own-7"]);
        assert_eq!(names(&history.former), ["web-first-7"]);
    }
}
