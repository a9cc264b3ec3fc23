//! `Rollout`: a workload whose changes are staged by their risk.

mod change;
mod evidence;
mod observed;
mod status;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::analysis::Analysis;
use super::duration::Duration;
use super::pod_template::PodTemplate;
use super::selector::Selector;
use super::smoke::Smoke;
use super::step::{SignOffDemand, Step};
use super::traffic::Traffic;
use super::workload_ref::{DeletionPolicy, WorkloadReference};

pub use change::{
    Change, ExcludedApprovers, Loss, Outcome, Plan, Reached, Revision, SmokeProgress, Stage,
    Strictness, Transition,
};
pub use evidence::{
    Budget, CheckEvidence, CheckSummary, CheckVerdict, Dispersion, Evidence, GateEvidence,
    GateSummary, Rate, WindowState,
};
pub use observed::{Observed, WouldHave};
pub use status::{Adopted, Phase, RolloutStatus, Split, WaitingKind};

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
    /// Labels that select the workload's pods; they cannot be changed.
    #[serde(default, skip_serializing_if = "Selector::is_empty")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.selector cannot be changed: delete the Rollout and create it again"))]
    pub selector: Selector,
    /// The pods to run; editing it is a change, which is staged.
    #[serde(default, skip_serializing_if = "PodTemplate::is_absent")]
    pub template: PodTemplate,
    /// A Deployment whose pod template is run instead; it is scaled to 0 once the Rollout's pods serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_ref: Option<WorkloadReference>,
    /// What happens to the pods when the Rollout is deleted; the default is `Keep` if a workload is adopted, else `Delete`.
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
    /// Number of past revisions (ReplicaSets) and past records (RolloutRuns) that are kept; a revision that was
    /// stable is kept rather than one that never was. A policy may keep more records.
    #[serde(default = "ten")]
    #[schemars(range(min = 0, max = 100))]
    pub revision_history_limit: i32,
    /// Seconds that a change may go without progress before it is rolled back.
    #[serde(default = "ten_minutes")]
    #[schemars(range(min = 1, max = 604_800))]
    pub progress_deadline_seconds: i32,
    /// Whether the change waits at its present step; its canary is still judged, and rolled back if it fails.
    #[serde(default)]
    pub paused: bool,
    /// How a change is staged.
    #[serde(default)]
    pub strategy: Strategy,
}

impl RolloutSpec {
    /// Whether pods keep serving when the Rollout is deleted.
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

/// Traffic, capacity and evidence of the canary.
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
    /// Service that is kept on the canary's pods, and on the stable ones if there is no canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub canary_service: Option<String>,
    /// The routes that give the canary its share; without routes its share is that of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// Time for which pods keep serving after no Service and no route sends to them any longer.
    #[serde(default = "five_seconds")]
    pub drain: Duration,
    /// Whether the stable revision gives up the capacity that its share of the traffic no longer needs; a rollback then takes as long as its pods take to start.
    #[serde(default)]
    pub dynamic_stable: bool,
    /// Time for which the last revision's pods are kept after a promotion, so that a return to them is immediate.
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
    /// Your own steps instead of the tier's; they are tightened if a policy demands more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    #[x_kube(validation = Rule::new("self.map(step, step.weight).isSorted()").message("steps: the weights must not decrease from one step to the next"))]
    pub steps: Vec<Step>,
    /// Sign-offs before full promotion, beside those of the policies; they are only ever added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub promotion_sign_off: Vec<SignOffDemand>,
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
            promotion_sign_off: Vec::new(),
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
