//! Jobs of smoke checks, and why their pods failed or do not start.

use std::collections::BTreeSet;

use countersign_api::rollout::Change;
use countersign_api::{MANAGER, PodTemplate, ROLLOUT_UID_LABEL, Rollout};
use countersign_core::observation::workload::{Edit, Integrity, Job, JobEnd};
use countersign_core::provenance::digest::template_digest;
use countersign_core::workload::{smoke, smoke_job};
use countersign_core::{Observation, field_managers, observation, risk};
use k8s_openapi::api::batch::v1::Job as ApiJob;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{ListParams, PostParams};
use kube::core::DynamicObject;
use kube::{Api, ResourceExt};
use serde_json::{Map, Value, json};

use super::dry_runs::DryRun;
use super::observer::Observer;
use super::people::in_time;
use super::pods::{containers, failures, is_controlled_by, trouble};
use super::reads::{self, tried};
use super::replica_sets::is_rollout;
use crate::api_resource::untyped;
use crate::api_server::sentence;
use crate::owned;

/// The label of a Job's pods.
const JOB_UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
/// The labels that the API server adds to the pods of a Job.
const ADDED_LABELS: [&str; 4] = [
    JOB_UID_LABEL,
    "batch.kubernetes.io/job-name",
    "controller-uid",
    "job-name",
];
/// The spec in managed fields.
const SPEC: &str = "/f:spec";
/// Most Jobs of a Rollout that are read; it has one for each attempt of the last day.
const MAX_JOBS: usize = 500;
/// Most pods of a Job that are read; the Job creates one, and another if that is evicted.
const MAX_PODS: u32 = 10;

/// The spec of a Job.
type Spec = Map<String, Value>;

/// The result of a comparison without a dry run.
enum Compared {
    /// It is known.
    As(Integrity),
    /// Defaults do not explain it.
    Differs(Difference),
}

/// A Job that differs from the one that the operator makes.
struct Difference {
    /// Where it differs, in words.
    what: String,
    /// The Job as the operator makes it.
    body: Value,
    /// The spec that is stored.
    found: Spec,
    /// The digest of the spec as the operator makes it.
    recorded: String,
    /// The digest of the spec that is stored.
    stored: String,
    /// Whether a dry run has shown that admission does not make the one of the other.
    is_known: bool,
}

impl Observer {
    /// The Rollout's Jobs where a smoke check is waited for, or was when the change ended. Where
    /// they cannot be read that is reported: aborts and newer changes must not depend on it.
    pub(super) async fn jobs(
        &self,
        rollout: &Rollout,
        observation: &Observation,
    ) -> Option<Result<Vec<Job>, String>> {
        let change = observation.status.change.as_ref()?;
        let awaited = smoke::is_awaited(observation, change).then_some(change);
        let left_over = change.outcome.is_some()
            && change
                .smoke
                .as_ref()
                .is_some_and(|progress| !progress.passed);
        if awaited.is_none() && !left_over {
            return None;
        }
        if let Some(watched) = self.watched_jobs(rollout, observation, awaited) {
            return Some(Ok(watched));
        }
        Some(self.read_jobs(rollout, observation, awaited).await)
    }

    /// The Jobs as their watch has reported them; `None` if they have to be read, as an awaited one that may not be the
    /// operator's. Its pods are only reported, so they are not read: of them it is known whether one had started before.
    fn watched_jobs(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        awaited: Option<&Change>,
    ) -> Option<Vec<Job>> {
        if !self.from_watches {
            return None;
        }
        let (namespace, uid) = (&observation.namespace, &observation.uid);
        let all = self.caches.written.jobs.of_rollout(namespace, uid)?;
        if all.len() > MAX_JOBS {
            return None;
        }
        let mut own = Vec::new();
        for json in all {
            let stored: DynamicObject = serde_json::from_str(&json).ok()?;
            let Some(mut job) = own_job(&stored, uid) else {
                continue;
            };
            if let Some(change) = awaited.filter(|it| smoke::job_name(&it.run) == job.name) {
                let compared = self.compared(rollout, observation, change, &stored);
                let Compared::As(integrity) = compared else {
                    return None;
                };
                let progress = change.smoke.as_ref();
                job.started = progress.is_some_and(|it| it.started_at.is_some());
                job.integrity = integrity;
            }
            own.push(job);
        }
        Some(own)
    }

    async fn read_jobs(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        awaited: Option<&Change>,
    ) -> Result<Vec<Job>, String> {
        let selector = format!("{ROLLOUT_UID_LABEL}={}", observation.uid);
        let of = ListParams::default().labels(&selector).limit(reads::LARGE);
        let name = awaited.map(|change| smoke::job_name(&change.run));
        let own = |found: DynamicObject| {
            let job = own_job(&found, &observation.uid)?;
            let is_awaited = name.as_ref() == Some(&job.name);
            Some((job, is_awaited.then_some(found)))
        };
        let api = self.api_of_jobs(&observation.namespace);
        let found = match reads::collect_at_most(MAX_JOBS, &api, &of, own).await {
            Ok((found, false)) => found,
            Ok((_, true)) => {
                return Err(format!(
                    "more than {MAX_JOBS} Jobs have the label {selector}: delete those that are not the operator's"
                ));
            }
            Err(error) => return Err(sentence(&error)),
        };
        let mut own = Vec::new();
        for (mut job, stored) in found {
            if let (Some(change), Some(stored)) = (awaited, stored) {
                job.integrity = match self.compared(rollout, observation, change, &stored) {
                    Compared::As(integrity) => integrity,
                    Compared::Differs(it) => {
                        self.job_integrity(&observation.namespace, &stored, it)
                            .await
                    }
                };
                self.pods(&observation.namespace, &mut job).await;
            }
            own.push(job);
        }
        Ok(own)
    }

    fn api_of_jobs(&self, namespace: &str) -> Api<DynamicObject> {
        untyped::<ApiJob>(&self.client, namespace)
    }

    /// Compares the awaited Job with the one that the operator makes for the change: name, label and owner may be
    /// anybody's claim.
    fn compared(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        change: &Change,
        stored: &DynamicObject,
    ) -> Compared {
        let known = !observation::is_unreadable(observation);
        let Some(new) = smoke_job::demanded(observation, change).filter(|_| known) else {
            let message = "what it should run is no longer known: restore spec.strategy.canary.smoke or the adopted Deployment, or abort the change";
            return Compared::As(Integrity::Unverified {
                message: message.into(),
            });
        };
        let body = owned::job(rollout, &new);
        let (made, found) = (
            comparable(body.get("spec")),
            comparable(stored.data.get("spec")),
        );
        let Some(what) = difference(&made, &found) else {
            return Compared::As(Integrity::Sound);
        };
        let uid = stored.uid().unwrap_or_default();
        let (recorded, stored) = (digest_of(&made), digest_of(&found));
        let is_same = self.dry_runs.known(&uid, &recorded, &stored);
        if is_same == Some(true) {
            return Compared::As(Integrity::Sound);
        }
        Compared::Differs(Difference {
            what,
            body,
            found,
            recorded,
            stored,
            is_known: is_same.is_some(),
        })
    }

    /// What a difference means: an edit, unless a dry run gives the same Job.
    async fn job_integrity(
        &self,
        namespace: &str,
        job: &DynamicObject,
        difference: Difference,
    ) -> Integrity {
        let Difference {
            what,
            body,
            found,
            recorded,
            stored,
            is_known,
        } = difference;
        if !is_known {
            let dry_run = self.dry_run_of_job(namespace, body);
            let made = match in_time("what admission makes of it", dry_run).await {
                Ok(made) => made,
                Err(message) => return Integrity::Unverified { message },
            };
            let is_same = made == found;
            let answer = DryRun {
                recorded,
                stored,
                is_same,
            };
            self.dry_runs.keep(&job.uid().unwrap_or_default(), answer);
            if is_same {
                return Integrity::Sound;
            }
        }
        let fields = job.managed_fields();
        // The operator itself made it if the check was edited since.
        let is_ours = field_managers::is_written_by_us_alone(fields, SPEC);
        let editor = field_managers::editor(fields, SPEC).filter(|_| !is_ours);
        let (writer, at) = editor.map_or((None, None), |it| (Some(it.name), it.at));
        Integrity::Edited(Edit { what, writer, at })
    }

    /// What admission makes of the spec of a Job today. Nothing is stored.
    async fn dry_run_of_job(&self, namespace: &str, body: Value) -> Result<Spec, kube::Error> {
        let body = serde_json::from_value(body).map_err(kube::Error::SerdeError);
        let mut body: DynamicObject = body?;
        body.metadata.name = None;
        body.metadata.generate_name = Some("smoke-".into());
        let parameters = PostParams {
            dry_run: true,
            field_manager: Some(MANAGER.into()),
        };
        let made = self
            .api_of_jobs(namespace)
            .create(&parameters, &body)
            .await?;
        Ok(comparable(made.data.get("spec")))
    }

    /// Reads the state of the awaited Job's pods. It is only reported, so a failed read is no error.
    async fn pods(&self, namespace: &str, job: &mut Job) {
        if job.end == Some(JobEnd::Succeeded) {
            return;
        }
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

/// The spec of a Job without defaults of the API server, and without what it adds to select the pods. Whether it is
/// suspended is left to others, such as Kueue: it runs nothing meanwhile, and then what it should.
fn comparable(spec: Option<&Value>) -> Spec {
    let mut spec = spec.and_then(Value::as_object).cloned().unwrap_or_default();
    spec.remove("suspend");
    if spec.get("manualSelector").is_none_or(|it| *it == false) {
        spec.remove("selector");
    }
    let defaults = json!({
        "completionMode": "NonIndexed", "completions": 1, "manualSelector": false, "parallelism": 1,
        "podReplacementPolicy": "TerminatingOrFailed",
    });
    spec.retain(|field, value| defaults.get(field) != Some(&*value));
    let metadata = spec
        .get_mut("template")
        .and_then(|it| it.get_mut("metadata"));
    if let Some(metadata) = metadata.and_then(Value::as_object_mut) {
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.retain(|label, _| !ADDED_LABELS.contains(&label.as_str()));
        }
        metadata.retain(|_, value| !value.is_null() && *value != json!({}));
    }
    spec
}

/// Where a Job differs from the one that the operator makes, in words.
fn difference(made: &Spec, found: &Spec) -> Option<String> {
    let template = |of: &Spec| PodTemplate(of.get("template").cloned().unwrap_or_default());
    let kinds = risk::differences(Some(&template(made)), &template(found));
    let mut differing = Vec::new();
    if !kinds.is_empty() {
        differing.push(format!("template ({})", risk::names_of(&kinds)));
    }
    let fields: BTreeSet<_> = made.keys().chain(found.keys()).collect();
    let other = fields
        .into_iter()
        .filter(|field| *field != "template" && made.get(*field) != found.get(*field));
    differing.extend(other.map(|field| format!("spec.{field}")));
    (!differing.is_empty()).then(|| differing.join(", "))
}

/// Any JSON has a canonical form.
fn digest_of(spec: &Spec) -> String {
    template_digest(&PodTemplate(Value::Object(spec.clone())))
}

/// A Job that the Rollout with this uid owns.
fn own_job(found: &DynamicObject, uid: &str) -> Option<Job> {
    let parsed: ApiJob = found.clone().try_parse().ok()?;
    is_own(&parsed, uid).then(|| job(&parsed))
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
    use super::*;
    use crate::observe::pods::MAX_MESSAGE;

    fn made() -> Value {
        json!({
            "backoffLimit": 0, "activeDeadlineSeconds": 310, "ttlSecondsAfterFinished": 86_400,
            "template": { "spec": {
                "restartPolicy": "Never", "containers": [{ "name": "smoke", "image": "web:2", "command": ["/test"] }],
            } },
        })
    }

    /// The same as the API server stores it.
    fn stored() -> Value {
        let labels = json!({ "batch.kubernetes.io/controller-uid": "1", "controller-uid": "1", "job-name": "j" });
        let mut stored = made();
        stored["template"]["metadata"] = json!({ "creationTimestamp": null, "labels": labels });
        stored["template"]["spec"]["dnsPolicy"] = json!("ClusterFirst");
        for (field, value) in [
            ("parallelism", json!(1)),
            ("completions", json!(1)),
            ("completionMode", json!("NonIndexed")),
            ("suspend", json!(false)),
            ("podReplacementPolicy", json!("TerminatingOrFailed")),
            ("selector", json!({ "matchLabels": labels })),
        ] {
            stored[field] = value;
        }
        stored
    }

    fn differs(found: &Value) -> Option<String> {
        difference(&comparable(Some(&made())), &comparable(Some(found)))
    }

    #[test]
    fn a_job_is_known_by_what_it_runs_and_by_when_it_succeeds() {
        assert_eq!(differs(&stored()), None);
        for (place, value, expected) in [
            (
                "/template/spec/containers/0/command",
                json!(["true"]),
                "template (command)",
            ),
            ("/completions", json!(0), "spec.completions"),
            ("/backoffLimit", json!(6), "spec.backoffLimit"),
        ] {
            let mut planted = stored();
            *planted.pointer_mut(place).unwrap() = value;
            assert_eq!(differs(&planted).as_deref(), Some(expected));
        }
        let mut suspended = stored();
        suspended["suspend"] = json!(true);
        assert_eq!(differs(&suspended), None, "Kueue lifts it");
        let mut planted = stored();
        planted["manualSelector"] = json!(true);
        let expected = "spec.manualSelector, spec.selector";
        assert_eq!(differs(&planted).as_deref(), Some(expected));
        let mut planted = stored();
        planted["successPolicy"] = json!({ "rules": [{ "succeededCount": 1 }] });
        assert_eq!(differs(&planted).as_deref(), Some("spec.successPolicy"));
    }

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
