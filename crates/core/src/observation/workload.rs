//! The observed workload: ReplicaSets, pods, Jobs, Services and an adopted Deployment.

use std::collections::BTreeMap;

use countersign_api::PodTemplate;
use countersign_api::rollout::Outcome;
use countersign_api::run::RolloutRunSpec;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the deletion of a Rollout waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// Whether it waits for the controller's finalizer.
    pub awaited: bool,
    /// When it was requested.
    pub since: Option<Timestamp>,
    /// Whether the whole namespace is being deleted.
    pub namespace_ends: bool,
}

/// The state of a revision's pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPods {
    /// Pods that exist, have not ended and are not being deleted.
    pub existing: i32,
    /// Pods with a container in a crash loop.
    pub crashing: i32,
    /// Why one of them does not start, as its status reports it.
    pub trouble: Option<String>,
    /// The last failure of a container in a crashing pod.
    #[serde(default)]
    pub crash: Option<ContainerFailure>,
}

/// An adopted workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Requested pods.
    pub replicas: i32,
    /// Pods of it that exist.
    pub current: i32,
    /// Pods of it that are available.
    pub available: i32,
    /// Whether its controller has observed its latest spec.
    pub observed: bool,
    /// The last writer of its `replicas` except the controller, by the name of the field manager.
    #[serde(default)]
    pub scaled_by: Option<String>,
    /// Autoscalers that target it or the Rollout.
    #[serde(default)]
    pub autoscalers: Vec<Autoscaler>,
}

/// Why a workload cannot be adopted as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unusable {
    /// No object has that name, or it is being deleted.
    Missing,
    /// It could not be read.
    Unreadable {
        /// Why, in the words of the API server.
        message: String,
    },
    /// It does not fit a Rollout.
    Unfit {
        /// What does not fit and the remedy, as the end of a sentence that begins with its name.
        message: String,
    },
}

/// A HorizontalPodAutoscaler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Autoscaler {
    /// Its name.
    pub name: String,
    /// Whether it targets the Rollout; otherwise the workload that the Rollout adopts.
    pub targets_rollout: bool,
}

/// The fields of a smoke check's Job that decisions depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Whether one of its containers has started.
    pub started: bool,
    /// How it ended; `None` while it runs.
    pub end: Option<JobEnd>,
    /// Failed containers, as their pods report them.
    pub failures: Vec<ContainerFailure>,
    /// Why no container has started, as its pods report it.
    pub waiting: Option<String>,
    /// Whether it is the Job that the controller made.
    #[serde(default)]
    pub integrity: Integrity,
}

/// How a Job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobEnd {
    /// Every container exited with 0.
    Succeeded,
    /// It has failed, or exceeded its deadline.
    Failed {
        /// The reason of the Job's condition.
        reason: String,
        /// The message of the Job's condition.
        message: String,
    },
}

/// The failure of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerFailure {
    /// Its name.
    pub container: String,
    /// Its exit code.
    pub exit_code: i32,
    /// Its reason, such as `Error` or `OOMKilled`.
    pub reason: String,
    /// Its termination message: what it wrote, or else the last lines of its log.
    pub message: String,
}

/// The fields of a ReplicaSet that decisions depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaSet {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its resource version: it is deleted only in this version.
    #[serde(default)]
    pub version: String,
    /// Value of its label `pod-template-hash`.
    pub hash: String,
    /// SHA-256 of its template, from the controller's annotation.
    pub template_digest: String,
    /// Number of its revision.
    pub revision: i64,
    /// Whether this Rollout is its controller; otherwise it is an orphan that may be adopted.
    pub owned: bool,
    /// Whether the Rollout's selector selects its pods.
    pub matches: bool,
    /// Whether labels that the controller set are missing on the ReplicaSet itself.
    #[serde(default)]
    pub labels_missing: bool,
    /// Requested pods.
    pub replicas: i32,
    /// Seconds for which its pods must be ready before they count as available.
    #[serde(default)]
    pub min_ready_seconds: i32,
    /// The last number that the controller itself requested.
    pub requested: Option<RequestedReplicas>,
    /// Pods that exist.
    pub current: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods that are available.
    pub available: i32,
    /// Why it cannot create pods, in the words of the API server.
    pub failure: Option<String>,
    /// Its pod template from the Rollout, before the API server added defaults.
    pub template: PodTemplate,
    /// Whether its stored template is the one that was decided.
    #[serde(default)]
    pub integrity: Integrity,
}

/// Whether the stored template of a ReplicaSet or a Job is the one that the controller decided on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Integrity {
    /// It is, apart from defaults of the API server.
    #[default]
    Sound,
    /// It is what admission makes of that template; its digest proves it later, when admission may differ.
    Admitted {
        /// SHA-256 of the stored template.
        digest: String,
    },
    /// It differs, and what admission makes of the decided template is unknown.
    Unverified {
        /// Why, in a sentence.
        message: String,
    },
    /// Another writer edited it.
    Edited(Edit),
}

impl Integrity {
    /// Whether the stored template is known to be the one that was decided.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        matches!(self, Self::Sound | Self::Admitted { .. })
    }

    /// The edit of another writer, if there was one.
    #[must_use]
    pub const fn edit(&self) -> Option<&Edit> {
        match self {
            Self::Edited(edit) => Some(edit),
            Self::Sound | Self::Admitted { .. } | Self::Unverified { .. } => None,
        }
    }
}

/// An edit of a ReplicaSet or a Job by another writer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// What differs, such as `template (image, command)`.
    pub what: String,
    /// The field manager of the last other writer.
    pub writer: Option<String>,
    /// When it wrote.
    pub at: Option<Timestamp>,
}

impl ReplicaSet {
    /// Whether its stored template is known to be the one that was decided.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.integrity.is_sound()
    }

    /// The edit of another writer, if there was one.
    #[must_use]
    pub const fn edit(&self) -> Option<&Edit> {
        self.integrity.edit()
    }

    /// Whether it has pods, or requests some.
    #[must_use]
    pub const fn has_pods(&self) -> bool {
        self.replicas > 0 || self.current > 0
    }
}

/// A number of pods that the controller requested; another writer may have changed it since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestedReplicas {
    /// The number.
    pub replicas: i32,
    /// When it was requested.
    pub at: Timestamp,
}

/// The value of the annotation on a ReplicaSet, such as `4 2026-01-02T03:04:05Z`.
impl std::fmt::Display for RequestedReplicas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.replicas, self.at)
    }
}

impl std::str::FromStr for RequestedReplicas {
    type Err = UnknownForm;

    fn from_str(text: &str) -> Result<Self, UnknownForm> {
        let (replicas, at) = text.split_once(' ').ok_or(UnknownForm)?;
        Ok(Self {
            replicas: replicas.parse().map_err(|_| UnknownForm)?,
            at: at.parse().map_err(|_| UnknownForm)?,
        })
    }
}

/// The text is not a number and a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a number of pods and a time, such as `4 2026-01-02T03:04:05Z`")]
pub struct UnknownForm;

/// The fields of a Service that decisions depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its type, such as `ClusterIP`.
    pub kind: String,
    /// Its selector.
    pub selector: BTreeMap<String, String>,
}

/// The RolloutRun of an earlier change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PastRun {
    /// The RolloutRun's name.
    pub name: String,
    /// The RolloutRun's uid.
    #[serde(default)]
    pub uid: String,
    /// The change's digest.
    pub digest: String,
    /// Its revision's hash.
    pub pod_template_hash: String,
    /// SHA-256 of its template; `None` in older records.
    #[serde(default)]
    pub template_digest: Option<String>,
    /// SHA-256 of its provenance; `None` without any, and in older records.
    #[serde(default)]
    pub provenance_digest: Option<String>,
    /// The state of its provenance when it began, such as `Declared`.
    #[serde(default)]
    pub provenance_state: String,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How it ended; `None` while it is under way.
    pub outcome: Option<Outcome>,
    /// Its provenance annotations as recorded, without their prefix.
    #[serde(default)]
    pub provenance: BTreeMap<String, String>,
    /// Where its traffic went, as recorded; `None` in older records.
    #[serde(default)]
    pub traffic: Option<Value>,
}

impl PastRun {
    /// The fields of a stored RolloutRun.
    #[must_use]
    pub fn of(name: &str, record: &RolloutRunSpec) -> Self {
        let progress = &record.progress;
        Self {
            name: name.to_owned(),
            uid: String::new(),
            digest: record.digest.clone(),
            pod_template_hash: record.pod_template_hash.clone(),
            template_digest: record.template_digest.clone(),
            provenance_digest: record.provenance.digest.clone(),
            provenance_state: record.provenance.state.clone(),
            started_at: progress.started_at.as_ref().map(|at| at.0),
            ended_at: progress.ended_at.as_ref().map(|at| at.0),
            outcome: progress.outcome,
            provenance: record.provenance.annotations.clone(),
            traffic: record.traffic.clone(),
        }
    }
}
