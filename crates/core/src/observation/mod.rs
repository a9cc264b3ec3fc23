//! The inputs of one decision, `now` included. Plain data: a saved observation can be replayed.

pub mod people;
pub mod traffic;
pub mod windows;
pub mod workload;

use std::collections::BTreeMap;

use countersign_api::{PodTemplate, RolloutSpec, RolloutStatus};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::observation::people::{ConcurrentChange, Dependency, HumanInputs, NamedPolicy};
use crate::observation::traffic::TrafficObjects;
use crate::observation::windows::AnalysisInputs;
use crate::observation::workload::{
    Deletion, Job, NewPods, PastRun, ReplicaSet, Unusable, Workload,
};

/// One Rollout and the objects that its decision depends on, at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Observation {
    /// The moment of the observation.
    pub now: Timestamp,
    /// The Rollout's name.
    pub name: String,
    /// The Rollout's namespace.
    pub namespace: String,
    /// The Rollout's uid.
    pub uid: String,
    /// The Rollout's generation.
    pub generation: i64,
    /// The Rollout's labels.
    pub labels: BTreeMap<String, String>,
    /// The Rollout's annotations, provenance among them.
    pub annotations: BTreeMap<String, String>,
    /// The desired state.
    pub spec: RolloutSpec,
    /// The status that earlier decisions have written.
    pub status: RolloutStatus,
    /// The parts of the stored status that this build cannot read; a change is then started again.
    #[serde(default)]
    pub unknown_status: Option<String>,
    /// Labels of the namespace.
    pub namespace_labels: BTreeMap<String, String>,
    /// The policies that govern this Rollout, by name.
    pub policies: Vec<NamedPolicy>,
    /// Policies that cannot be read and so might govern this Rollout, each with the problem.
    pub unreadable_policies: Vec<String>,
    /// ReplicaSets that this Rollout owns or may adopt.
    pub replica_sets: Vec<ReplicaSet>,
    /// Templates of promoted revisions whose ReplicaSet is missing, from their RolloutRuns, by digest;
    /// empty otherwise.
    #[serde(default)]
    pub promoted: BTreeMap<String, PodTemplate>,
    /// Why not every ReplicaSet with the labels of the Rollout's was read: there are too many. Those of the stable
    /// revision and of the change are among those that were.
    #[serde(default)]
    pub unread_replica_sets: Option<String>,
    /// Foreign ReplicaSets with pods that the Rollout selects; not read by every reconcile.
    #[serde(default)]
    pub foreign_replica_sets: Option<Vec<String>>,
    /// Why the last write for this Rollout was refused, in the words of the API server.
    pub write_failure: Option<String>,
    /// The revision whose ReplicaSet the API server refused as invalid in that write, by its hash.
    #[serde(default)]
    pub invalid_revision: Option<String>,
    /// The revision of which another ReplicaSet has the name, as that write showed, by its hash.
    #[serde(default)]
    pub taken_revision: Option<String>,
    /// The Services and routes that the Rollout names.
    #[serde(flatten)]
    pub traffic: TrafficObjects,
    /// Older Rollouts of the namespace that claim the same pods or Services, each in a sentence.
    pub conflicts: Vec<String>,
    /// RolloutRuns of earlier changes, or why they could not be read: an earlier change may then have been
    /// rolled back. `None` while a change is under way.
    #[serde(default)]
    pub history: Option<Result<Vec<PastRun>, String>>,
    /// RolloutRuns of deleted Rollouts of the same name; empty once the present Rollout has a stable revision.
    #[serde(default)]
    pub former: Vec<PastRun>,
    /// Whether the RolloutRun of the change in `status` has its outcome.
    pub recorded: bool,
    /// Answers of Prometheus and the inputs to read them.
    #[serde(flatten)]
    pub analysis: AnalysisInputs,
    /// Sign-offs, interventions and freezes.
    #[serde(flatten)]
    pub people: HumanInputs,
    /// Jobs of this Rollout's smoke checks, or why they could not be read; `None` unless the first step of a
    /// change awaits one, or such a change has ended.
    #[serde(default)]
    pub jobs: Option<Result<Vec<Job>, String>>,
    /// The state of the new revision's pods; `None` unless they are awaited.
    #[serde(default)]
    pub new_pods: Option<NewPods>,
    /// The Rollouts that this Rollout depends on; `None` unless the first step of a change awaits them.
    #[serde(default)]
    pub dependencies: Option<Vec<Dependency>>,
    /// Changes of other Rollouts that count for the limits of the policies, or why they are unknown. Read
    /// only while a change is queued, and only if no other reconcile holds the queue lock.
    #[serde(default)]
    pub concurrent_changes: Option<Result<Vec<ConcurrentChange>, String>>,
    /// The workload that the Rollout adopts, if any, or why it cannot. If it can, the spec above has its
    /// pod template and selector.
    #[serde(default)]
    pub workload: Option<Result<Workload, Unusable>>,
    /// Whether the Rollout is being deleted and hands its pods back first.
    #[serde(default)]
    pub deleting: bool,
    /// What the deletion of the Rollout waits for.
    #[serde(default)]
    pub deletion: Deletion,
}

impl Observation {
    /// An observation of a Rollout with a spec, in an empty cluster.
    #[must_use]
    pub fn of(namespace: &str, name: &str, spec: RolloutSpec) -> Self {
        Self {
            now: Timestamp::UNIX_EPOCH,
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            uid: String::new(),
            generation: 0,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            spec,
            status: RolloutStatus::default(),
            unknown_status: None,
            namespace_labels: BTreeMap::new(),
            policies: Vec::new(),
            unreadable_policies: Vec::new(),
            replica_sets: Vec::new(),
            promoted: BTreeMap::new(),
            unread_replica_sets: None,
            foreign_replica_sets: None,
            write_failure: None,
            invalid_revision: None,
            taken_revision: None,
            traffic: TrafficObjects::default(),
            conflicts: Vec::new(),
            history: None,
            former: Vec::new(),
            recorded: false,
            analysis: AnalysisInputs::default(),
            people: HumanInputs::default(),
            jobs: None,
            new_pods: None,
            dependencies: None,
            concurrent_changes: None,
            workload: None,
            deleting: false,
            deletion: Deletion::default(),
        }
    }

    /// The records of earlier changes that were read.
    #[must_use]
    pub fn history(&self) -> &[PastRun] {
        read(self.history.as_ref())
    }

    /// Why the records of earlier changes could not be read.
    #[must_use]
    pub fn unreadable_history(&self) -> Option<&str> {
        unreadable(self.history.as_ref())
    }

    /// The smoke checks' Jobs that were read.
    #[must_use]
    pub fn jobs(&self) -> &[Job] {
        read(self.jobs.as_ref())
    }

    /// Why the smoke checks' Jobs could not be read.
    #[must_use]
    pub fn unreadable_jobs(&self) -> Option<&str> {
        unreadable(self.jobs.as_ref())
    }
}

fn read<T>(list: Option<&Result<Vec<T>, String>>) -> &[T] {
    list.and_then(|it| it.as_ref().ok())
        .map_or(&[], Vec::as_slice)
}

fn unreadable<T>(list: Option<&Result<Vec<T>, String>>) -> Option<&str> {
    list.and_then(|it| it.as_ref().err()).map(String::as_str)
}

/// Why the last reconcile of a Rollout failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// Why, in the words of the API server.
    pub message: String,
    /// The revision whose ReplicaSet it refuses as invalid, by its hash.
    pub invalid_revision: Option<String>,
    /// The revision of which another ReplicaSet has the name, by its hash.
    pub taken_revision: Option<String>,
}

/// Whether the desired pod template is unknown at present.
#[must_use]
pub const fn is_unreadable(observation: &Observation) -> bool {
    matches!(observation.workload, Some(Err(_)))
}

/// Whether a Rollout is decided on as it is stored: it adopts nothing, and no field of its status was dropped.
#[must_use]
pub const fn is_whole(observation: &Observation) -> bool {
    observation.spec.workload_ref.is_none() && observation.unknown_status.is_none()
}

/// Whether routes give the canary its share, instead of its number of pods.
#[must_use]
pub fn is_routed(observation: &Observation) -> bool {
    observation.spec.strategy.canary.traffic.is_some()
}

/// Whether Services or routes send to single revisions, so that pods stay until these have moved.
pub(super) fn is_directed(observation: &Observation) -> bool {
    let canary = &observation.spec.strategy.canary;
    is_routed(observation) || canary.stable_service.is_some() || canary.canary_service.is_some()
}
