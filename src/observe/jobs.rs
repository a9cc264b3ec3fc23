//! Jobs of smoke checks, and why their pods failed or do not start.

use countersign_api::ROLLOUT_UID_LABEL;
use countersign_api::rollout::Change;
use countersign_core::Observation;
use countersign_core::observation::workload::{Job, JobEnd};
use countersign_core::workload::smoke;
use k8s_openapi::api::batch::v1::Job as ApiJob;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::observer::Observer;
use super::pods::{containers, failures, is_controlled_by, trouble};
use super::reads::{Reads, tried};
use super::replica_sets::is_rollout;
use crate::api_server::sentence;

/// The label of a Job's pods.
const JOB_UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
/// Most pods of a Job that are read; the Job creates one, and another if that is evicted.
const MAX_PODS: u32 = 10;

impl Observer {
    /// Reads the Rollout's Jobs where a smoke check is waited for, or was when the change ended. Where
    /// they cannot be read that is reported: aborts and newer changes must not depend on it.
    pub(super) async fn jobs(&self, observation: &Observation) -> Option<Result<Vec<Job>, String>> {
        let change = observation.status.change.as_ref()?;
        let awaited = smoke::is_awaited(observation, change);
        let left_over = change.outcome.is_some()
            && change
                .smoke
                .as_ref()
                .is_some_and(|progress| !progress.passed);
        if !awaited && !left_over {
            return None;
        }
        let jobs: Api<ApiJob> = Api::namespaced(self.client.clone(), &observation.namespace);
        let selector = format!("{ROLLOUT_UID_LABEL}={}", observation.uid);
        let found = Reads::MostRecent.list(&jobs, &selector).await;
        let found = match found {
            Ok(found) => found.items,
            Err(error) => return Some(Err(sentence(&error))),
        };
        let own = found.iter().filter(|job| is_own(job, &observation.uid));
        let mut own: Vec<_> = own.map(job).collect();
        if awaited {
            self.pods(&observation.namespace, &mut own, change).await;
        }
        Some(Ok(own))
    }

    /// Reads the state of the awaited Job's pods. It is only reported, so a failed read is no error.
    async fn pods(&self, namespace: &str, jobs: &mut [Job], change: &Change) {
        let name = smoke::job_name(&change.run);
        let job = jobs.iter_mut().find(|job| job.name == name);
        let Some(job) = job.filter(|job| job.end != Some(JobEnd::Succeeded)) else {
            return;
        };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let selector = format!("{JOB_UID_LABEL}={}", job.uid);
        let parameters = ListParams::default().labels(&selector).limit(MAX_PODS);
        match tried(|| pods.list(&parameters)).await {
            Ok(pods) => describe(job, &pods.items),
            Err(error) => {
                job.waiting = Some(format!("its pods cannot be read: {}", sentence(&error)));
            }
        }
    }
}

fn is_own(job: &ApiJob, uid: &str) -> bool {
    let mut owners = job.owner_references().iter();
    job.metadata.deletion_timestamp.is_none()
        && owners.any(|owner| owner.controller == Some(true) && is_rollout(owner, uid))
}

fn job(job: &ApiJob) -> Job {
    let status = job.status.clone().unwrap_or_default();
    let end = |kind: &str| {
        let mut conditions = status.conditions.iter().flatten();
        conditions.find(|condition| condition.type_ == kind && condition.status == "True")
    };
    let failed = end("Failed").map(|condition| JobEnd::Failed {
        reason: condition.reason.clone().unwrap_or_default(),
        message: condition.message.clone().unwrap_or_default(),
    });
    Job {
        name: job.name_any(),
        uid: job.uid().unwrap_or_default(),
        end: failed.or_else(|| end("Complete").map(|_| JobEnd::Succeeded)),
        ..Job::default()
    }
}

fn describe(job: &mut Job, pods: &[Pod]) {
    let own = pods.iter().filter(|pod| is_controlled_by(pod, &job.uid));
    let statuses: Vec<_> = own.filter_map(|pod| pod.status.as_ref()).collect();
    let started = |it: &ContainerStatus| {
        it.state
            .as_ref()
            .is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    };
    job.started = statuses.iter().copied().flat_map(containers).any(started);
    job.failures = statuses.iter().copied().flat_map(failures).collect();
    job.waiting = statuses.iter().copied().find_map(trouble);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::observe::pods::MAX_MESSAGE;

    fn described(statuses: &[Value]) -> Job {
        let pods: Vec<Pod> = statuses
            .iter()
            .map(|status| {
                let owner = json!({ "apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "1", "controller": true });
                let pod = json!({ "metadata": { "name": "p", "ownerReferences": [owner] }, "status": status });
                serde_json::from_value(pod).unwrap()
            })
            .collect();
        let mut job = Job {
            uid: "1".into(),
            ..Job::default()
        };
        describe(&mut job, &pods);
        job
    }

    fn container(state: &Value) -> Value {
        json!({ "name": "smoke", "image": "a", "imageID": "", "ready": false, "restartCount": 0, "state": state })
    }

    #[test]
    fn a_failed_container_is_reported_with_its_last_output() {
        let end = json!({ "exitCode": 2, "reason": "Error", "message": format!("{}end", "x".repeat(9_000)) });
        let status = json!({ "phase": "Failed", "containerStatuses": [container(&json!({ "terminated": end }))] });
        let job = described(&[status]);
        assert!(job.started);
        let failure = &job.failures[0];
        assert_eq!((failure.exit_code, failure.reason.as_str()), (2, "Error"));
        assert_eq!(failure.message.len(), MAX_MESSAGE);
        assert!(failure.message.ends_with("xend"));
    }

    #[test]
    fn what_keeps_a_container_from_starting_is_reported() {
        let pull = container(
            &json!({ "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } }),
        );
        let no_node = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes" });
        for (status, expected) in [
            (
                json!({ "containerStatuses": [pull] }),
                "container smoke: ImagePullBackOff: no such image",
            ),
            (
                json!({ "conditions": [no_node] }),
                "Unschedulable: 0/2 nodes",
            ),
            (
                json!({ "reason": "Evicted", "message": "no memory" }),
                "Evicted: no memory",
            ),
        ] {
            let job = described(&[status]);
            assert_eq!(
                (job.started, job.waiting.as_deref()),
                (false, Some(expected))
            );
        }
        assert_eq!(described(&[]).waiting, None);
    }

    #[test]
    fn a_foreign_pod_is_ignored() {
        let owner = json!({ "apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "2", "controller": true });
        let running = container(&json!({ "running": {} }));
        let pod = json!({
            "metadata": { "name": "p", "ownerReferences": [owner] }, "status": { "containerStatuses": [running] },
        });
        let mut job = Job {
            uid: "1".into(),
            ..Job::default()
        };
        describe(&mut job, &[serde_json::from_value(pod).unwrap()]);
        assert!(!job.started);
    }
}
