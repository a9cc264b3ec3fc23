//! `Rollout`: a workload whose changes are staged by their risk.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::evidence::{Counts, EProcess};
use super::plan::{SignOffDemand, Step, Tier};
use super::{
    Analysis, Check, DeletionPolicy, Duration, Objective, PodTemplate, Selector, Smoke, Traffic,
    WorkloadReference,
};

/// A workload whose changes are scored for risk, staged, judged by Prometheus, and promoted or
/// rolled back.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "countersign.dev",
    version = "v1alpha1",
    kind = "Rollout",
    namespaced,
    status = "RolloutStatus",
    shortname = "cro",
    category = "countersign",
    doc = "A workload whose changes are scored for risk, staged through canary steps, judged by Prometheus, and promoted or rolled back.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.step"),
    printcolumn(
        name = "Weight",
        type_ = "integer",
        json_path = ".status.weight",
        description = "Share of the traffic that the canary has, in percent"
    ),
    printcolumn(name = "Tier", type_ = "string", json_path = ".status.tier"),
    printcolumn(
        name = "Waiting-For",
        type_ = "string",
        json_path = ".status.waitingFor"
    ),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        json_path = ".status.readyReplicas",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.template) != has(self.workloadRef)")
        .message("spec has either template or workloadRef"),
    validation = Rule::new("has(self.template) == has(self.selector)")
        .message("spec.selector goes with spec.template; an adopted workload has its own"),
    validation = Rule::new("!has(self.template) || !has(self.selector) || (has(self.template.metadata) && has(self.template.metadata.labels) && self.selector.matchLabels.all(k, k in self.template.metadata.labels && self.template.metadata.labels[k] == self.selector.matchLabels[k]))")
        .message("spec.selector.matchLabels must be labels of spec.template.metadata.labels, or the Rollout would not find its own pods"),
    validation = Rule::new("self.progressDeadlineSeconds > self.minReadySeconds")
        .message("spec.progressDeadlineSeconds must be greater than spec.minReadySeconds, or it passes before any new pod counts as available"),
    validation = Rule::new("!has(self.selector) || !('pod-template-hash' in self.selector.matchLabels)")
        .message("spec.selector.matchLabels must not hold pod-template-hash: the controller sets it"),
    validation = Rule::new("!has(self.selector) || !('app.kubernetes.io/managed-by' in self.selector.matchLabels)")
        .message("spec.selector.matchLabels must not hold app.kubernetes.io/managed-by: the controller sets it on its ReplicaSets"),
    validation = Rule::new("!has(self.selector) || !has(self.strategy) || !has(self.strategy.canary) || !has(self.strategy.canary.smoke) || !has(self.strategy.canary.smoke.template.metadata) || !has(self.strategy.canary.smoke.template.metadata.labels) || !self.selector.matchLabels.all(k, k in self.strategy.canary.smoke.template.metadata.labels && self.strategy.canary.smoke.template.metadata.labels[k] == self.selector.matchLabels[k])")
        .message("spec.strategy.canary.smoke.template must not have all labels of spec.selector.matchLabels: its pods would count as the workload's"),
)]
pub struct RolloutSpec {
    /// Number of pods that serve the workload; the canary's come on top of them by default.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 100_000))]
    pub replicas: i32,
    /// Labels by which the workload's pods are found; they cannot be changed.
    #[serde(default, skip_serializing_if = "Selector::is_empty")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.selector cannot be changed: delete the Rollout and create it anew"))]
    pub selector: Selector,
    /// The pods to run; editing it is a change, which is staged.
    #[serde(default, skip_serializing_if = "PodTemplate::is_absent")]
    pub template: PodTemplate,
    /// A Deployment whose pod template is run instead; it gives up its pods once the Rollout's serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_ref: Option<WorkloadReference>,
    /// What becomes of the pods when the Rollout is deleted: `Keep` where a workload is adopted, else `Delete`, unless it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// Rollouts of the namespace that must be stable before a change of this one begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    pub depends_on: Vec<String>,
    /// Seconds for which a new pod must be ready before it counts as available; a longer time holds for pods that serve once no change is under way.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86_400))]
    pub min_ready_seconds: i32,
    /// Number of past revisions (ReplicaSets) and past records (RolloutRuns) that are kept.
    #[serde(default = "ten")]
    #[schemars(range(min = 0, max = 100))]
    pub revision_history_limit: i32,
    /// Seconds that a change may go without progress before it is rolled back.
    #[serde(default = "ten_minutes")]
    #[schemars(range(min = 1, max = 604_800))]
    pub progress_deadline_seconds: i32,
    /// Whether the change waits where it is; its canary is still judged and rolled back if it fails.
    #[serde(default)]
    pub paused: bool,
    /// How a change is staged.
    #[serde(default)]
    pub strategy: Strategy,
}

impl RolloutSpec {
    /// Whether pods go on to serve when the Rollout is deleted.
    #[must_use]
    pub fn keeps_pods(&self) -> bool {
        match self.deletion_policy {
            Some(policy) => policy == DeletionPolicy::Keep,
            None => self.workload_ref.is_some(),
        }
    }
}

const fn one() -> i32 {
    1
}

const fn ten() -> i32 {
    10
}

const fn ten_minutes() -> i32 {
    600
}

/// How a change is staged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Strategy {
    /// The canary beside the stable revision.
    #[serde(default)]
    pub canary: CanaryStrategy,
}

/// The canary: how it gets traffic, room and evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.stableService) || !has(self.canaryService) || self.stableService != self.canaryService")
        .message("stableService and canaryService must be two Services"),
    validation = Rule::new("!((string(self.maxSurge) in ['0', '0%']) && (string(self.maxUnavailable) in ['0', '0%']))")
        .message("maxSurge and maxUnavailable cannot both be 0: no pod could ever be replaced"),
    validation = Rule::new("!has(self.traffic) || self.traffic.routes.all(route, has(route.destinationRule)) || (has(self.stableService) && has(self.canaryService))")
        .message("traffic.routes need stableService and canaryService, or subsets of a DestinationRule"),
    validation = Rule::new("!has(self.dynamicStable) || !self.dynamicStable || has(self.traffic)")
        .message("dynamicStable needs traffic: without routes a revision's share is its share of the pods"),
    validation = Rule::new("!has(self.steps) || self.steps.all(step, step.weight > 0) || has(self.traffic) || (has(self.stableService) && has(self.canaryService))")
        .message("steps of weight 0 need traffic, or stableService and canaryService: else the canary's pods would serve"),
    validation = Rule::new("!has(self.steps) || !self.steps.exists(step, has(step.mirror)) || (has(self.traffic) && self.traffic.routes.exists(route, !has(route.kind) || route.kind in ['HTTPRoute', 'GRPCRoute', 'VirtualService']))")
        .message("steps with mirror need traffic with an HTTPRoute, a GRPCRoute or a VirtualService"),
    validation = Rule::new("duration(self.drain) <= duration('1h')").message("drain must be at most 1h"),
    validation = Rule::new("duration(self.scaleDownDelay) <= duration('168h')").message("scaleDownDelay must be at most 168h"),
)]
pub struct CanaryStrategy {
    /// Service that is kept on the stable revision's pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub stable_service: Option<String>,
    /// Service that is kept on the canary's pods, and on the stable ones where there is no canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub canary_service: Option<String>,
    /// The routes at which the canary gets its share; without them its share is its share of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// Time for which pods go on to serve once no Service and no route sends to them any more.
    #[serde(default = "five_seconds")]
    pub drain: Duration,
    /// Whether the stable revision gives up the capacity that its share of the traffic needs no more; a return then takes as long as its pods take to start.
    #[serde(default)]
    pub dynamic_stable: bool,
    /// Time for which the last revision's pods are kept after a promotion, so that the way back is at once.
    #[serde(default)]
    pub scale_down_delay: Duration,
    /// Pods beyond `replicas` that may exist; below 100% the stable revision gives up the capacity that the canary takes over.
    #[serde(default = "all")]
    #[schemars(extend("nullable" = false))]
    #[x_kube(validation = Rule::new("type(self) == int ? self >= 0 && self <= 100000 : self.matches('^[0-9]{1,3}%$')").message("must be a number of pods or a percentage such as 25%"))]
    pub max_surge: IntOrString,
    /// Pods of `replicas` that may be unavailable while pods are replaced.
    #[serde(default = "none")]
    #[schemars(extend("nullable" = false))]
    #[x_kube(validation = Rule::new("type(self) == int ? self >= 0 && self <= 100000 : self.matches('^([0-9]|[1-9][0-9]|100)%$')").message("must be a number of pods or a percentage from 0% to 100%"))]
    pub max_unavailable: IntOrString,
    /// Steps of your own instead of the tier's; they are tightened where the policy asks for more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    #[x_kube(validation = Rule::new("self.map(step, step.weight).isSorted()").message("steps: the weights must not decrease from one step to the next"))]
    pub steps: Vec<Step>,
    /// Checks on the canary, beside those of the policies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Analysis>,
    /// A Job that must succeed before a change gets its first pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smoke: Option<Smoke>,
}

impl Default for CanaryStrategy {
    fn default() -> Self {
        Self {
            stable_service: None,
            canary_service: None,
            traffic: None,
            drain: five_seconds(),
            dynamic_stable: false,
            scale_down_delay: Duration::default(),
            max_surge: all(),
            max_unavailable: none(),
            steps: Vec::new(),
            analysis: None,
            smoke: None,
        }
    }
}

const fn five_seconds() -> Duration {
    Duration::seconds(5)
}

fn all() -> IntOrString {
    IntOrString::String("100%".into())
}

const fn none() -> IntOrString {
    IntOrString::Int(0)
}

/// One human word for where a Rollout stands. Nothing is decided on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// The stable revision serves everything and no change is under way.
    Stable,
    /// A change is being staged.
    #[default]
    Progressing,
    /// A change waits for something other than time: evidence, a pause, capacity.
    Held,
    /// A change waits for people.
    AwaitingSignOff,
    /// The canary was accepted; the last revision's pods are being removed.
    Promoted,
    /// The canary was rejected; its pods are being removed.
    RollingBack,
    /// The change was rolled back or cannot proceed; the stable revision serves.
    Degraded,
}

/// What the controller knows; the only state of the state machine.
// Without conditions an object is ready to kstatus, so the API server gives a Rollout that no controller has
// seen a generation that it never has: Flux, Helm and kpt then wait, even where no controller runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = { "observedGeneration": -1 }))]
pub struct RolloutStatus {
    /// Generation of the spec that this status speaks of; -1 until a controller has seen the Rollout.
    #[serde(default)]
    pub observed_generation: i64,
    /// One word for where the Rollout stands.
    #[serde(default)]
    pub phase: Phase,
    /// One sentence for where the Rollout stands, with the numbers behind it.
    #[serde(default)]
    pub message: String,
    /// What the change waits for, in a word or two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// What kind of waiting that is, which says what deadline runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_kind: Option<WaitingKind>,
    /// Present step of all steps, such as `2/5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Share of the traffic that the canary has, in percent: what is achieved of `change.weight`. Without routes it is its share of the available pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<i32>,
    /// Risk tier of the change under way, or of the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// Conditions in the form that kstatus, `kubectl wait` and GitOps tools read.
    #[serde(default)]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Pods of all revisions.
    #[serde(default)]
    pub replicas: i32,
    /// Pods that run the present template.
    #[serde(default)]
    pub updated_replicas: i32,
    /// Ready pods of all revisions.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Available pods of all revisions.
    #[serde(default)]
    pub available_replicas: i32,
    /// The pods' selector as a string, for autoscalers.
    #[serde(default)]
    pub selector: String,
    /// Number of the latest revision.
    #[serde(default)]
    pub revision: i64,
    /// Number of changes that were ever started, which gives each attempt an identity of its own.
    #[serde(default)]
    pub attempts: i64,
    /// Number of hash collisions met; it salts the next hash.
    #[serde(default)]
    pub collision_count: i32,
    /// The revision that serves; absent until a first one is available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<Revision>,
    /// The change under way, or the last one where it was rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// How the traffic is split; absent where no change is in the status, or nothing splits it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Split>,
    /// Services that are kept on a revision; one whose name leaves the spec is released.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 16))]
    pub services: BTreeSet<String>,
    /// How far an adopted workload has handed over its pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<Adopted>,
}

/// Kinds of waiting, by the deadline that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WaitingKind {
    /// A person or an idle workload wants it so: no deadline runs.
    Wish,
    /// People must sign: each gate has its own `waitAtMost`.
    People,
    /// Time alone ends it.
    Time,
    /// Pods, references or data are missing: `progressDeadlineSeconds` since the last progress.
    Doubt,
    /// The evidence is clean but scarce: `progressDeadlineSeconds` of waiting for it, then the tier decides.
    Scarce,
}

/// How Services and routes split the traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Split {
    /// Share that the routes give the canary, in percent; the largest of several.
    #[serde(default)]
    pub weight: i32,
    /// Since when all is as it should be and the routers have accepted it; absent while it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<Time>,
    /// Since when the routes have had the present weights; only where their status does not say which generation it means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weighed_at: Option<Time>,
    /// The share that it is settled at, in percent.
    #[serde(default)]
    pub settled_weight: i32,
    /// The lowest share since the weights were last settled for the drain time, in percent: something may
    /// still send by it.
    #[serde(default)]
    pub lowest_weight: i32,
    /// The highest share since then, in percent.
    #[serde(default)]
    pub highest_weight: i32,
    /// When weights that somebody else had set were last set back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrected_at: Option<Time>,
}

/// How far an adopted workload has handed over its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Adopted {
    /// Name of the workload.
    pub name: String,
    /// Since when the Rollout's own pods have been able to serve in place of its pods; absent while they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed_over_at: Option<Time>,
    /// Whether it has been scaled down to none.
    #[serde(default)]
    pub scaled_down: bool,
    /// When it was last scaled down again after somebody else had scaled it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrected_at: Option<Time>,
    /// Since when its own pods serve again; absent while the Rollout is not being deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_back_at: Option<Time>,
}

/// A revision that passed all its gates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Value of the pods' label `pod-template-hash`.
    pub pod_template_hash: String,
    /// SHA-256 of the pod template, in hexadecimal.
    pub template_digest: String,
    /// SHA-256 of pod template and provenance, in hexadecimal.
    pub digest: String,
    /// The revision's number.
    pub revision: i64,
    /// Name of the RolloutRun that keeps its template, from which a ReplicaSet that is lost is made again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
}

/// Where a change stands in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Stage {
    /// No traffic yet: the first step's gates are closed.
    #[default]
    Waiting,
    /// In one of its steps.
    Stepping,
    /// All gates have passed; the canary grows to full size, still under analysis.
    Promoting,
    /// It is the stable revision; the last revision's pods are being removed.
    Promoted,
    /// It was rejected; its pods are being removed.
    RollingBack,
    /// It was rejected and has no pods any more.
    RolledBack,
}

/// How a change ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Outcome {
    /// It became the stable revision.
    Promoted,
    /// It was rejected and stable serves.
    RolledBack,
    /// Another change took its place.
    Superseded,
    /// The template went back to the stable one.
    Reverted,
}

/// One change on its way: everything that must survive a restart of the controller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// SHA-256 of pod template and provenance, in hexadecimal; sign-offs and evidence bind to it.
    pub digest: String,
    /// Value of its pods' label `pod-template-hash`.
    pub pod_template_hash: String,
    /// SHA-256 of its pod template, in hexadecimal.
    pub template_digest: String,
    /// Number of its revision.
    pub revision: i64,
    /// Name of the RolloutRun that records it.
    pub run: String,
    /// When it was first seen.
    pub started_at: Option<Time>,
    /// Whether there was no stable revision to compare it with.
    #[serde(default)]
    pub initial: bool,
    /// Risk in points; five points double the odds.
    #[serde(default)]
    pub score: f64,
    /// Tier of the risk; it never falls while the change is under way.
    #[serde(default)]
    pub tier: Tier,
    /// Whether an earlier change of this Rollout was rolled back shortly before this one began.
    #[serde(default)]
    pub after_rollback: bool,
    /// Who wrote it, in the words of its provenance: `human`, `ai`, `mixed` or `unknown`.
    #[serde(default)]
    pub contributor: String,
    /// Users who changed the template or the provenance to this change, as the API server stamped them; empty where that is not known.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 65_536))]
    pub changed_by: BTreeSet<String>,
    /// Who must not sign it off.
    #[serde(default)]
    pub barred: Barred,
    /// Who paused it; absent where nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_by: Option<String>,
    /// The step whose bake a person skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake_skipped: Option<i32>,
    /// The smoke check before its first step; absent where none was asked for yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smoke: Option<SmokeProgress>,
    /// Uids of the sign-offs and interventions that were told of already.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 256))]
    pub heard: BTreeSet<String>,
    /// Uids of the interventions that there was nothing to do about.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 256))]
    pub in_vain: BTreeSet<String>,
    /// The plan in force; policies may tighten it while the change is under way, never loosen it.
    #[serde(default)]
    pub plan: Plan,
    /// Where it stands in its life.
    #[serde(default)]
    pub stage: Stage,
    /// The present step, counted from 1; 0 before the first.
    #[serde(default)]
    pub step: i32,
    /// Share of the traffic that the canary may have now, in percent.
    #[serde(default)]
    pub weight: i32,
    /// When the present step began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_started_at: Option<Time>,
    /// When the present step's pods were all available, from which its bake counts; later by the time in which some were missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_at: Option<Time>,
    /// Since when some of the present step's pods are missing again; its bake and warm-up stand still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Loss>,
    /// Since when the present step's pods warm up, after all of them had been lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_from: Option<Time>,
    /// When it last made progress, from which the progress deadline counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progressed_at: Option<Time>,
    /// Since when every other gate before its first step is open and it waits for its turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_at: Option<Time>,
    /// The most that the present stage has reached: more than that is progress.
    #[serde(default)]
    pub progress: Reached,
    /// Since when evidence is waited for, if that is later than the pods and the bake: after a pause, for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence_since: Option<Time>,
    /// Whether the present step's deadline was extended for scarce evidence.
    #[serde(default)]
    pub extended: bool,
    /// Since when people are waited for, by gate.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub awaited_gates: BTreeMap<String, Time>,
    /// Length of one window of counting, fixed when the change begins.
    #[serde(default)]
    pub interval: super::Duration,
    /// Time in which the new pods of each step warm up, fixed when the change begins.
    #[serde(default)]
    pub warm_up: super::Duration,
    /// Time to watch on after its promotion, fixed when the change begins.
    #[serde(default)]
    pub post_promotion: super::Duration,
    /// The checks that it must pass, by name; one that has counted is neither edited nor removed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub checks: BTreeMap<String, Check>,
    /// The objectives whose budget it must not burn, by name; none is edited or removed while it is under way.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 128))]
    pub objectives: BTreeMap<String, Objective>,
    /// The evidence so far.
    #[serde(default)]
    pub evidence: Evidence,
    /// What happened, in order.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub transitions: Vec<Transition>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The revision that was stable before its promotion, while it is watched on or kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Revision>,
    /// Until when it is watched after its promotion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watched_until: Option<Time>,
    /// Until when the pods of the previous revision are kept after its promotion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_until: Option<Time>,
}

/// Pods of a step that were available and are missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Loss {
    /// Since when.
    pub since: Time,
    /// Whether none was left at some moment since then.
    #[serde(default)]
    pub all: bool,
}

/// How far a stage of a change has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reached {
    /// Most available pods of the revision that grows: the canary, or stable after a rollback.
    #[serde(default)]
    pub available: i32,
    /// Largest share of the traffic that routers have accepted for the canary, in percent.
    #[serde(default)]
    pub weight: i32,
}

/// How far the smoke check of a change has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SmokeProgress {
    /// Whether it has succeeded; it is not asked again then, whatever becomes of its Job.
    #[serde(default)]
    pub passed: bool,
    /// Since when it is waited for and for nothing before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// When a container of its Job was first seen to have started since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
}

/// Who must not sign a change off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Barred {
    /// Users, in lower case: its authors, whoever drove the AI, and whoever changed the Rollout, with their aliases.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 65_536), inner(length(max = 253)))]
    pub users: BTreeSet<String>,
    /// Groups that stand for AI agents.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 65_536), inner(length(max = 253)))]
    pub groups: BTreeSet<String>,
}

/// The plan of one change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The steps in order; after the last one the canary is promoted.
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub steps: Vec<Step>,
    /// Sign-offs asked for before full promotion.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub promotion_sign_off: Vec<SignOffDemand>,
    /// How strictly the evidence is judged.
    #[serde(default)]
    pub strictness: Strictness,
    /// What was tightened in the Rollout's own steps, and by which policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub tightened: Vec<String>,
    /// The policies that the plan was made from, each with its generation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub policies: Vec<String>,
}

/// How strictly the evidence of a change is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Strictness {
    /// Largest chance of rolling back a healthy canary, over the whole rollout.
    pub max_false_rollback: f64,
    /// Largest chance of promoting a canary that is worse than the margin.
    pub max_false_promotion: f64,
    /// Ratio of canary's to stable's error rate up to which the canary is not rolled back.
    pub tolerated_ratio: f64,
    /// Difference of the error rates (fraction of requests) up to which the canary is not rolled back.
    pub tolerated_difference: f64,
    /// Ratio of the error rates that must be ruled out before a promotion.
    pub margin_ratio: f64,
    /// Difference of the error rates (fraction of requests) that must be ruled out with it.
    pub margin_difference: f64,
    /// What happens at the deadline when the evidence is clean but scarce.
    pub on_scarce_evidence: super::policy::OnScarceEvidence,
    /// Longest time that a change waits for people before it is rolled back.
    pub wait_at_most: super::Duration,
}

/// The evidence on a change, as of its last counted window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// Where the grid of windows begins: when the canary was first given traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Time>,
    /// How much fresh evidence the steps have begun with so far.
    #[serde(default)]
    pub renewed: f64,
    /// Each check's evidence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub checks: Vec<CheckEvidence>,
    /// How each objective's budget stands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub objectives: Vec<Budget>,
}

/// The error budget of an objective.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Budget {
    /// Name of the objective.
    pub name: String,
    /// Share of the period's budget that is spent; 1 is all of it. Absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent: Option<f64>,
    /// Whether it was ever known.
    #[serde(default)]
    pub known: bool,
    /// Whether it burns faster than the limits now.
    #[serde(default)]
    pub burning: bool,
    /// Whether it burnt as fast when the canary was first given traffic: then the change is not to blame.
    #[serde(default)]
    pub burnt_before: bool,
    /// How it stands in a sentence.
    #[serde(default)]
    pub message: String,
}

/// The evidence of one check.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckEvidence {
    /// Name of the check.
    pub name: String,
    /// Since when it counts, where that is later than the change's own beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Time>,
    /// End of the last window that was answered; no window is skipped and none counted twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_window_end: Option<Time>,
    /// Requests and errors of the canary since the change began.
    #[serde(default)]
    pub canary: Counts,
    /// Requests and errors of the stable revision over the same windows.
    #[serde(default)]
    pub stable: Counts,
    /// Dispersion of stable's errors by which the counts are divided, fixed when the first window is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispersion: Option<f64>,
    /// Requests of the canary that count for the present step.
    #[serde(default)]
    pub step_requests: f64,
    /// Windows that count for the present step.
    #[serde(default)]
    pub step_windows: i32,
    /// Number that a metric last had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// How many windows in a row the metric has been out of bounds.
    #[serde(default)]
    pub outside: i32,
    /// The canary's error rate, or the metric, in the last windows, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub recent: Vec<f64>,
    /// Natural log of each e-value of the roll-back test, one for each alternative.
    #[serde(default)]
    pub rollback: EProcess,
    /// Natural log of each e-value of the promote test, one for each alternative.
    #[serde(default)]
    pub promote: EProcess,
    /// Natural log of each e-value of the canary's test against the ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<EProcess>,
    /// Natural log of each e-value of stable's test against the ceiling: where stable breaks it too, the canary is not to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_ceiling: Option<EProcess>,
    /// What the last window gave: `Counted`, or why it could not be counted.
    #[serde(default)]
    pub last: String,
    /// The last window's outcome in a sentence, with what was seen.
    #[serde(default)]
    pub message: String,
    /// What it amounts to, for people to read.
    #[serde(default)]
    pub summary: CheckSummary,
}

/// One line in the story of a change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// When it was decided.
    pub at: Option<Time>,
    /// The step it led to.
    pub step: i32,
    /// The weight it led to, in percent.
    pub weight: i32,
    /// Why, in one PascalCase word shared with conditions and Events.
    pub reason: String,
    /// Why, in a sentence with the numbers it was made from.
    pub message: String,
    /// The evidence of each check as it stood then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub evidence: Vec<CheckSummary>,
}

/// The evidence of one check at one moment, for people to read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckSummary {
    /// Name of the check.
    pub check: String,
    /// What it says so far.
    #[serde(default)]
    pub verdict: CheckVerdict,
    /// The reason in a sentence, with the numbers.
    #[serde(default)]
    pub sentence: String,
    /// Requests and errors of the canary since the change began.
    pub canary: Counts,
    /// Requests and errors of the stable revision over the same windows.
    pub stable: Counts,
    /// The canary's error rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_rate: Option<Rate>,
    /// The stable revision's error rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_rate: Option<Rate>,
    /// Number that a metric last had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// e-value (base-10 log) for "the canary is worse than tolerated"; it rolls back at `rollbackAt`.
    pub log10_worse: f64,
    /// Base-10 log of the e-value at which the canary is rolled back.
    pub rollback_at: f64,
    /// e-value (base-10 log) for "the canary is within the margin"; a step may pass at `promoteAt`.
    pub log10_within_margin: f64,
    /// Base-10 log of the e-value at which a step may pass.
    pub promote_at: f64,
}

/// What one check says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CheckVerdict {
    /// No window has ended yet, or it does not run in this step.
    #[default]
    Waiting,
    /// Data is missing, odd or late.
    NoData,
    /// Clean so far, but too little.
    Scarce,
    /// Within the margin, or within bounds.
    Passing,
    /// Worse than tolerated, above the ceiling, or out of bounds.
    Failing,
}

/// An error rate with the interval that holds it however often one looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rate {
    /// Errors of requests, a fraction.
    pub rate: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}
