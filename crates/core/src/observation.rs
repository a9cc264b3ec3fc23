//! All that one decision may look at, `now` included. Plain data: a saved observation can be replayed.

use std::collections::BTreeMap;

use countersign_api::plan::Tier;
use countersign_api::rollout::Outcome;
use countersign_api::run::RolloutRunSpec;
use countersign_api::{
    AnalysisTemplateSpec, Duration, FreezeSpec, InterventionSpec, PodTemplate, RolloutPolicySpec,
    RolloutSpec, RolloutStatus, RouteReference, SignOffSpec,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::statistics::Counts;

/// How long after it was written an admission policy is surely enforced.
const ENFORCED_AFTER: SignedDuration = SignedDuration::from_secs(5);

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
    pub unreadable_wishes: Vec<String>,
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
    pub rivals: Option<Result<Vec<Rival>, String>>,
    /// The workload that the Rollout adopts, where it names one; or why it cannot. Where it can, the
    /// spec above has its pod template and selector.
    #[serde(default)]
    pub workload: Option<Result<Workload, Unusable>>,
    /// Whether the Rollout is being deleted and gives its pods back first.
    #[serde(default)]
    pub deleting: bool,
    /// What the deletion of the Rollout waits for.
    #[serde(default)]
    pub farewell: Farewell,
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
            unreadable_wishes: Vec::new(),
            freezes: Vec::new(),
            unreadable_freezes: Vec::new(),
            incidents: BTreeMap::new(),
            admission: Admission::default(),
            jobs: Vec::new(),
            jobs_unreadable: None,
            new_pods: NewPods::default(),
            dependencies: Vec::new(),
            rivals: None,
            workload: None,
            deleting: false,
            farewell: Farewell::default(),
        }
    }
}

/// What the deletion of a Rollout waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Farewell {
    /// Whether it waits for the controller, by a finalizer.
    pub awaited: bool,
    /// When it was asked for.
    pub since: Option<Timestamp>,
    /// Whether the whole namespace is being deleted.
    pub namespace_ends: bool,
}

/// How the pods of a revision fare.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPods {
    /// Pods that are there, have not ended and are not being deleted.
    pub existing: i32,
    /// Those of them with a container that crashes again and again.
    pub crashing: i32,
    /// Why one of them does not start, in the words of its pod.
    pub trouble: Option<String>,
    /// How a container of one of those that crash has failed last.
    #[serde(default)]
    pub crash: Option<ContainerFailure>,
}

/// A Rollout that another one depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// Its name.
    pub name: String,
    /// Why it is waited for, in a sentence; `None` where it is stable.
    pub awaited: Option<String>,
}

/// A change of another Rollout that counts for a limit of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rival {
    /// Namespace of its Rollout.
    pub namespace: String,
    /// Name of its Rollout.
    pub name: String,
    /// Uid of its Rollout.
    pub uid: String,
    /// Names of the policies with a limit that govern it as well.
    pub policies: Vec<String>,
    /// Its tier.
    pub tier: Tier,
    /// Since when it waits for its turn; `None` where it is under way.
    pub queued_at: Option<Timestamp>,
}

/// An adopted workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Pods that it asks for.
    pub replicas: i32,
    /// Pods of it that exist.
    pub current: i32,
    /// Pods of it that are available.
    pub available: i32,
    /// Whether its controller has seen its latest spec.
    pub observed: bool,
    /// Who set its number of pods last beside the controller, by the name of the field manager.
    #[serde(default)]
    pub scaled_by: Option<String>,
    /// Autoscalers that aim at it or at the Rollout.
    #[serde(default)]
    pub autoscalers: Vec<Autoscaler>,
}

/// Why a workload cannot be adopted as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unusable {
    /// There is none of that name, or it is being deleted.
    Missing,
    /// It could not be read.
    Unreadable {
        /// Why, in the words of the API server.
        message: String,
    },
    /// It does not fit a Rollout.
    Unfit {
        /// What does not fit and how to mend it, as the end of a sentence that begins with its name.
        message: String,
    },
}

/// A HorizontalPodAutoscaler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Autoscaler {
    /// Its name.
    pub name: String,
    /// Whether it aims at the Rollout; otherwise at the workload that the Rollout adopts.
    pub aims_at_rollout: bool,
}

/// A route that the Rollout names, and what belongs to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// How the Rollout names it.
    pub reference: RouteReference,
    /// The route as it is stored.
    pub object: Result<RouteObject, Absence>,
    /// The DestinationRule whose subsets tell the sides apart, where one is named.
    pub destination_rule: Option<Result<RouteObject, Absence>>,
    /// The controller's own route for testers, where there is one.
    pub testers: Option<RouteObject>,
}

/// An object of a router as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteObject {
    /// The whole of it, but for its managed fields.
    pub object: Value,
    /// Who wrote its spec last beside the controller, by the name of the field manager.
    pub last_writer: Option<String>,
}

impl RouteObject {
    /// Its API version, such as `gateway.networking.k8s.io/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        let version = self.object.get("apiVersion").and_then(Value::as_str);
        version.unwrap_or_default().to_owned()
    }
}

/// Why an object is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Absence {
    /// The API server does not know its kind.
    NotInstalled,
    /// There is none of that name.
    NotFound,
    /// It could not be read.
    Unreadable {
        /// Why, in the words of the API server.
        message: String,
    },
}

/// A Job of a smoke check as far as decisions depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Whether a container of it has started.
    pub started: bool,
    /// How it ended; `None` while it has not.
    pub end: Option<JobEnd>,
    /// Containers that have failed, in the words of their pods.
    pub failures: Vec<ContainerFailure>,
    /// Why no container has started, in the words of its pods.
    pub waiting: Option<String>,
}

/// How a Job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobEnd {
    /// Every container has exited with 0.
    Succeeded,
    /// It has failed, or has taken too long.
    Failed {
        /// Why, in the Job's own word.
        reason: String,
        /// Why, in the Job's own sentence.
        message: String,
    },
}

/// How a container has failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerFailure {
    /// Its name.
    pub container: String,
    /// The code that it exited with.
    pub exit_code: i32,
    /// Why, in one word, such as `Error` or `OOMKilled`.
    pub reason: String,
    /// Its termination message: what it left there, or else the last lines of its log.
    pub message: String,
}

/// The error rate of a whole service over several spans, each a fraction of the requests in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorRates {
    /// Over the last five minutes.
    pub five_minutes: f64,
    /// Over the last half hour.
    pub half_hour: f64,
    /// Over the last hour.
    pub hour: f64,
    /// Over the last six hours.
    pub six_hours: f64,
    /// Over the objective's period.
    pub period: f64,
}

/// A sign-off with what identifies it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeenSignOff {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// When it was made, in whole seconds.
    pub created_at: Timestamp,
    /// What it says.
    pub spec: SignOffSpec,
    /// What the controller has said of it: whether it counts, and the reason.
    pub answer: Option<(bool, String)>,
}

/// An intervention with what identifies it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeenIntervention {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// When it was made, in whole seconds.
    pub created_at: Timestamp,
    /// Its resource version, by which those of one second are put in order.
    pub version: u64,
    /// What it says.
    pub spec: InterventionSpec,
    /// Whether the controller has said what it made of it.
    pub answered: bool,
}

/// A freeze with its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamedFreeze {
    /// Its name.
    pub name: String,
    /// What it says.
    pub spec: FreezeSpec,
}

/// What an incident query gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum IncidentAnswer {
    /// There is no incident.
    None,
    /// There is one.
    Incident {
        /// The largest number that the query gave.
        value: f64,
    },
    /// It cannot be told.
    Unknown {
        /// Why, in a sentence.
        message: String,
    },
}

/// Whether the admission policies that prove who wrote what are in place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// What is missing or altered, each in a sentence; empty where all is in place.
    pub problems: Vec<String>,
    /// Since when all of them have been there.
    pub since: Option<Timestamp>,
    /// Whether the API server stamps who changed a Rollout.
    pub stamps: bool,
}

impl Admission {
    /// Why an object made at this moment does not prove who wrote it.
    #[must_use]
    pub fn disproves(&self, created_at: Timestamp) -> Option<String> {
        if let Some(problem) = self.problems.first() {
            return Some(problem.clone());
        }
        // Moments are whole seconds, and the API server takes some to enforce a new policy.
        let since = self.since?.saturating_add(ENFORCED_AFTER).ok()?;
        (created_at <= since).then(|| {
            format!(
                "it was made before {since:.0}, when the admission policies that prove who wrote it were in force"
            )
        })
    }
}

/// A policy with what identifies it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamedPolicy {
    /// The policy's name.
    pub name: String,
    /// The policy's generation.
    pub generation: i64,
    /// What it says.
    pub spec: RolloutPolicySpec,
}

/// A ReplicaSet as far as decisions depend on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaSet {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its resource version: it is deleted only as it was seen.
    #[serde(default)]
    pub version: String,
    /// Value of its label `pod-template-hash`.
    pub hash: String,
    /// SHA-256 of its template as the controller recorded it.
    pub template_digest: String,
    /// Number of its revision.
    pub revision: i64,
    /// Whether this Rollout is its controller; otherwise it is an orphan that may be adopted.
    pub owned: bool,
    /// Whether the Rollout's selector selects its pods.
    pub matches: bool,
    /// Whether labels that the controller gave it are missing on the ReplicaSet itself.
    #[serde(default)]
    pub labels_missing: bool,
    /// Pods asked for.
    pub replicas: i32,
    /// Seconds for which its pods must be ready before they count as available.
    #[serde(default)]
    pub min_ready_seconds: i32,
    /// What the controller itself asked for last.
    pub asked: Option<Asked>,
    /// Pods that exist.
    pub current: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods that are available.
    pub available: i32,
    /// Why it cannot make pods, in the words of the API server.
    pub failure: Option<String>,
    /// Its pod template as the Rollout had it, before the API server filled in defaults.
    pub template: PodTemplate,
}

/// Why the last look at a Rollout failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// Why, in the words of the API server.
    pub message: String,
    /// The revision whose ReplicaSet it refuses as invalid, by its hash.
    pub invalid_revision: Option<String>,
}

/// A number of pods that the controller asked for, which somebody else may have changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The number.
    pub replicas: i32,
    /// When it was asked for.
    pub at: Timestamp,
}

/// As it stands on a ReplicaSet, such as `4 2026-01-02T03:04:05Z`.
impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.replicas, self.at)
    }
}

impl std::str::FromStr for Asked {
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

/// A Service as far as decisions depend on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its type, such as `ClusterIP`.
    pub kind: String,
    /// Its selector.
    pub selector: BTreeMap<String, String>,
}

/// The record of an earlier change.
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
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How it ended; `None` while it is under way.
    pub outcome: Option<Outcome>,
}

impl PastRun {
    /// What a record of this name says.
    #[must_use]
    pub fn of(name: &str, record: &RolloutRunSpec) -> Self {
        let progress = &record.progress;
        Self {
            name: name.to_owned(),
            uid: String::new(),
            digest: record.digest.clone(),
            pod_template_hash: record.pod_template_hash.clone(),
            started_at: progress.started_at.as_ref().map(|at| at.0),
            ended_at: progress.ended_at.as_ref().map(|at| at.0),
            outcome: progress.outcome,
        }
    }
}

/// What Prometheus answered for one check.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckWindows {
    /// The windows that are due, oldest first and without a gap.
    pub due: Vec<Window>,
    /// Stable's counts in windows before the canary began; read once, for the dispersion.
    pub baseline: Option<Vec<Counts>>,
}

/// One window of counting: everything after `start` up to and including `end`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Its exclusive start.
    pub start: Timestamp,
    /// Its inclusive end.
    pub end: Timestamp,
    /// What was counted in it, or why nothing was.
    pub outcome: WindowOutcome,
}

/// What a window gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WindowOutcome {
    /// Both arms were counted.
    Counted {
        /// The canary's counts.
        canary: Counts,
        /// The stable revision's counts.
        stable: Counts,
    },
    /// A number was measured at the window's end.
    Measured {
        /// The number.
        value: f64,
    },
    /// It was answered, but nothing could be counted: it moves no evidence.
    Uncounted {
        /// Why, in one word.
        reason: Uncounted,
        /// Why, in a sentence with what was seen.
        message: String,
    },
    /// It was not answered: it is asked again.
    Unanswered {
        /// Why, in one word.
        reason: Unanswered,
        /// Why, in a sentence with what was seen.
        message: String,
    },
}

/// Why an answered window could not be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Uncounted {
    /// The query matched no series.
    NoSeries,
    /// The newest sample is older than two intervals.
    StaleSamples,
    /// A value is NaN, infinite or too large to be counted.
    NotANumber,
    /// A value is negative.
    Negative,
    /// More errors than requests.
    ErrorsExceedRequests,
    /// Several series where one number is expected.
    SeveralSeries,
    /// The histogram has no bucket with the bound that is asked for.
    NoBucket,
}

/// Why a window was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unanswered {
    /// No address of Prometheus is configured.
    NotConfigured,
    /// Prometheus cannot be reached, or did not answer in time.
    PrometheusUnreachable,
    /// Prometheus answered with an error.
    PrometheusError,
    /// The query is not PromQL, or Prometheus refused it.
    InvalidQuery,
    /// The answer came with warnings and may be partial.
    PartialAnswer,
    /// The answer is too large or cannot be read.
    UnreadableAnswer,
    /// Prometheus' clock differs too much from the operator's.
    ClockSkew,
}
