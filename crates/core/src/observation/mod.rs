//! All that one decision may look at, `now` included. Plain data: a saved observation can be replayed.

pub mod people;
pub mod traffic;
pub mod windows;
pub mod workload;

use std::collections::BTreeMap;

use countersign_api::{AnalysisTemplateSpec, Duration, PodTemplate, RolloutSpec, RolloutStatus};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::observation::people::{
    Admission, ConcurrentChange, Dependency, IncidentAnswer, NamedFreeze, NamedPolicy,
    SeenIntervention, SeenSignOff,
};
use crate::observation::traffic::Route;
use crate::observation::windows::{CheckWindows, ErrorRates};
use crate::observation::workload::{
    Deletion, Job, NewPods, PastRun, ReplicaSet, Service, Unusable, Workload,
};

/// One Rollout and everything around it that matters, at one moment.
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
    /// What is asked for.
    pub spec: RolloutSpec,
    /// What was decided so far.
    pub status: RolloutStatus,
    /// What of the stored status was left out, as this build cannot read it; a change is then begun anew.
    #[serde(default)]
    pub unknown_status: Option<String>,
    /// Labels of the namespace.
    pub namespace_labels: BTreeMap<String, String>,
    /// The policies that govern this Rollout, by name.
    pub policies: Vec<NamedPolicy>,
    /// Policies that cannot be read and so might govern this Rollout: each with what is wrong.
    pub unreadable_policies: Vec<String>,
    /// ReplicaSets that this Rollout owns or may adopt.
    pub replica_sets: Vec<ReplicaSet>,
    /// Templates of promoted revisions whose ReplicaSet is missing, as their records keep them, by their
    /// digest; read only then.
    #[serde(default)]
    pub promoted: BTreeMap<String, PodTemplate>,
    /// ReplicaSets of others with pods that the Rollout selects, each in words; not always looked for.
    #[serde(default)]
    pub foreign_replica_sets: Option<Vec<String>>,
    /// Why the last write for this Rollout was refused, in the words of the API server.
    pub write_failure: Option<String>,
    /// The revision whose ReplicaSet the API server refused as invalid in that write, by its hash.
    #[serde(default)]
    pub invalid_revision: Option<String>,
    /// The Services that the Rollout names; `None` for one that does not exist.
    pub services: BTreeMap<String, Option<Service>>,
    /// Services that the status remembers, the spec names no more, and that still select a revision.
    #[serde(default)]
    pub former_services: BTreeMap<String, Service>,
    /// Ready pods behind each of those Services, by the hash of their revision; where it cannot be told
    /// which of the Rollout's it is under an empty one, and of none of them under `?`. Read only while a
    /// change is in the status, as are the routes.
    #[serde(default)]
    pub endpoints: BTreeMap<String, BTreeMap<String, i32>>,
    /// The routes that the Rollout names, in its order.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Older Rollouts of the namespace that claim the same pods or Services, each in a sentence.
    pub conflicts: Vec<String>,
    /// Records of earlier changes; read only while no change is under way.
    pub history: Vec<PastRun>,
    /// Why those records could not be read: then an earlier change may have been rolled back.
    #[serde(default)]
    pub records_unreadable: Option<String>,
    /// Whether the record of the change in `status` holds its outcome.
    pub recorded: bool,
    /// How long after a window's end its samples are surely in Prometheus.
    pub lag: Duration,
    /// The AnalysisTemplates that the Rollout names; or what is wrong with one, in a sentence.
    #[serde(default)]
    pub templates: BTreeMap<String, Result<AnalysisTemplateSpec, String>>,
    /// What Prometheus answered for each check since the last counted window, oldest first.
    pub windows: BTreeMap<String, CheckWindows>,
    /// The error rates of each objective, or why they are not known, in a sentence.
    #[serde(default)]
    pub objectives: BTreeMap<String, Result<ErrorRates, String>>,
    /// Sign-offs that name this Rollout; read only while a change is in the status, as is what follows.
    #[serde(default)]
    pub sign_offs: Vec<SeenSignOff>,
    /// Interventions that name this Rollout.
    #[serde(default)]
    pub interventions: Vec<SeenIntervention>,
    /// Sign-offs and interventions that cannot be read: each with what is wrong.
    #[serde(default)]
    pub unreadable_requests: Vec<String>,
    /// Freezes that select this Rollout.
    #[serde(default)]
    pub freezes: Vec<NamedFreeze>,
    /// Freezes that cannot be read and so might select this Rollout: each with what is wrong.
    #[serde(default)]
    pub unreadable_freezes: Vec<String>,
    /// What each policy's incident query gave, by the policy's name.
    #[serde(default)]
    pub incidents: BTreeMap<String, IncidentAnswer>,
    /// Whether the API server proves who wrote what.
    #[serde(default)]
    pub admission: Admission,
    /// Jobs of this Rollout's smoke checks; read only before the first step of a change that asks for
    /// one, and after such a change has ended.
    #[serde(default)]
    pub jobs: Vec<Job>,
    /// Why those Jobs could not be read.
    #[serde(default)]
    pub jobs_unreadable: Option<String>,
    /// How the pods of the new revision fare; read only while they are waited for.
    #[serde(default)]
    pub new_pods: NewPods,
    /// The Rollouts that it depends on; read only before the first step of a change.
    #[serde(default)]
    pub dependencies: Vec<Dependency>,
    /// Changes of other Rollouts that count for the limits of the policies, or why they are not known;
    /// read only while a change waits for its turn, and only if no other look counts them now.
    #[serde(default)]
    pub concurrent_changes: Option<Result<Vec<ConcurrentChange>, String>>,
    /// The workload that the Rollout adopts, where it names one; or why it cannot. Where it can, the
    /// spec above has its pod template and selector.
    #[serde(default)]
    pub workload: Option<Result<Workload, Unusable>>,
    /// Whether the Rollout is being deleted and gives its pods back first.
    #[serde(default)]
    pub deleting: bool,
    /// What the deletion of the Rollout waits for.
    #[serde(default)]
    pub deletion: Deletion,
}

impl Observation {
    /// A Rollout of which nothing is known but what it asks for, and around which there is nothing.
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
            foreign_replica_sets: None,
            write_failure: None,
            invalid_revision: None,
            services: BTreeMap::new(),
            former_services: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            routes: Vec::new(),
            conflicts: Vec::new(),
            history: Vec::new(),
            records_unreadable: None,
            recorded: false,
            lag: Duration::default(),
            templates: BTreeMap::new(),
            windows: BTreeMap::new(),
            objectives: BTreeMap::new(),
            sign_offs: Vec::new(),
            interventions: Vec::new(),
            unreadable_requests: Vec::new(),
            freezes: Vec::new(),
            unreadable_freezes: Vec::new(),
            incidents: BTreeMap::new(),
            admission: Admission::default(),
            jobs: Vec::new(),
            jobs_unreadable: None,
            new_pods: NewPods::default(),
            dependencies: Vec::new(),
            concurrent_changes: None,
            workload: None,
            deleting: false,
            deletion: Deletion::default(),
        }
    }
}

/// Why the last look at a Rollout failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// Why, in the words of the API server.
    pub message: String,
    /// The revision whose ReplicaSet it refuses as invalid, by its hash.
    pub invalid_revision: Option<String>,
}

/// Whether it cannot be told now what the Rollout is asked to run.
#[must_use]
pub const fn is_unreadable(observation: &Observation) -> bool {
    matches!(observation.workload, Some(Err(_)))
}

/// Whether routes give the canary its share, and not its number of pods.
#[must_use]
pub fn is_routed(observation: &Observation) -> bool {
    observation.spec.strategy.canary.traffic.is_some()
}

/// Whether anything sends to single revisions, so that pods must not go before it has moved.
pub(super) fn is_directed(observation: &Observation) -> bool {
    let canary = &observation.spec.strategy.canary;
    is_routed(observation) || canary.stable_service.is_some() || canary.canary_service.is_some()
}
