//! `RolloutPolicy`: how a platform team scores risk, and what each tier demands.
//!
//! Every field is optional: a missing field is no demand. If several policies govern a Rollout
//! the strictest demand wins, field by field; fields that no policy sets use the built-in
//! policy.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::analysis::Analysis;
use super::conditions;
use super::duration::Duration;
use super::first_revision::FirstRevision;
use super::freeze::PolicyFreeze;
use super::objective::ErrorBudget;
use super::provenance::ProvenanceDemands;
use super::selector::Selector;
use super::step::{SignOffDemand, Step, Tier};

/// How risk is scored and what each tier demands, for the Rollouts that the policy governs.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "countersign.dev",
    version = "v1alpha1",
    kind = "RolloutPolicy",
    status = "RolloutPolicyStatus",
    shortname = "crp",
    category = "countersign",
    derive = "PartialEq",
    doc = "How risk is scored and what each tier of risk demands, for the Rollouts that it governs; the strictest of several wins, field by field.",
    printcolumn(
        name = "Enforcement",
        type_ = "string",
        json_path = ".spec.enforcement"
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].reason"
    ),
    printcolumn(name = "Governs", type_ = "integer", json_path = ".status.governs"),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.risk.version"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct RolloutPolicySpec {
    /// Namespaces that the policy governs, by their labels; all if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<Selector>,
    /// Rollouts that the policy governs, by their labels; all if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout_selector: Option<Selector>,
    /// Whether the policy's demands hold, or are only recorded; `analysis`, `people` and `history` hold in either case.
    #[serde(default)]
    pub enforcement: Enforcement,
    /// How risk is scored.
    #[serde(default)]
    pub risk: RiskModel,
    /// What each tier demands.
    #[serde(default)]
    pub tiers: Tiers,
    /// People whom the first revision of a Rollout waits for; nobody if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_revision: Option<FirstRevision>,
    /// Checks that every governed Rollout must pass, which a service team cannot remove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!has(self.templates)").message("analysis.templates: AnalysisTemplates belong to namespaces; write the checks into the policy"))]
    pub analysis: Option<Analysis>,
    /// What a spent error budget stops.
    #[serde(default)]
    pub error_budget: ErrorBudget,
    /// Identities of people: they distinguish the author of a change from approvers.
    #[serde(default)]
    pub people: People,
    /// Which provenance may lower the risk.
    #[serde(default)]
    pub provenance: ProvenanceDemands,
    /// When promotions wait.
    #[serde(default)]
    pub freeze: PolicyFreeze,
    /// Number of risky changes that may be under way at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// How long the records of changes are kept, whatever `revisionHistoryLimit` a Rollout has.
    #[serde(default)]
    pub history: History,
}

/// How the operator reads a policy. No decision depends on it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutPolicyStatus {
    /// Generation of the spec that this status describes.
    #[serde(default)]
    pub observed_generation: i64,
    /// Number of Rollouts that the policy governs, some seconds late; not set if the operator cannot read the policy, which then holds every Rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governs: Option<i32>,
    /// `Accepted`: whether the operator can use every value of the policy, and which of them count other than written; `Stalled`: whether it cannot.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "conditions::readable"
    )]
    #[schemars(length(max = 8))]
    pub conditions: Vec<Condition>,
}

/// How long the records of changes (RolloutRuns) are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// Fewest records of ended changes that are kept for each Rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000))]
    pub runs: Option<i32>,
    /// Shortest time for which a record is kept, also after its Rollout is deleted, such as `2160h` (if no policy says it, a record outlives its Rollout by a week); beyond 1,000 records of a Rollout the oldest are removed all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_for: Option<Duration>,
}

/// Whether the demands of a policy hold.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Enforcement {
    /// A change waits for what the policy demands.
    #[default]
    Enforce,
    /// What the policy would have demanded is recorded, and no change waits for it.
    Observe,
}

/// Number of risky changes that may be under way at once; first come, first served.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.perNamespace) || has(self.perCluster)").message("concurrency: name perNamespace, perCluster, or both"),
)]
pub struct Concurrency {
    /// Lowest tier of the changes that are counted and limited.
    #[serde(default = "high")]
    pub from_tier: Tier,
    /// Most such changes in one namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub per_namespace: Option<i32>,
    /// Most such changes among all Rollouts that the policy governs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub per_cluster: Option<i32>,
}

const fn high() -> Tier {
    Tier::High
}

/// Identities of people.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct People {
    /// Users of the cluster and their names in commits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub aliases: Vec<Alias>,
    /// Groups whose members stand for AI agents: they never sign off.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub agent_groups: Vec<String>,
    /// Whether an approval counts only if `aliases` name the approver and everybody who wrote, drove or reviewed the change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub require_known: bool,
}

/// One person's names.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct Alias {
    /// Name of the user in the cluster.
    #[schemars(length(min = 1, max = 253))]
    pub user: String,
    /// Names and e-mail addresses of that person in commits, and other users of the cluster that are the same person.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 253)))]
    pub identities: Vec<String>,
}

/// Points for each risk factor: five points double the odds of a bad change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RiskModel {
    /// Version of the weights, which each RolloutRun records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub version: Option<String>,
    /// Points for the number of changed lines: those of the last band whose `from` is reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.map(band, band.from).isSorted() && self.map(band, band.points).isSorted()").message("risk.size: bands must be in order of `from`, with points that do not fall"))]
    pub size: Vec<Band>,
    /// Points for each factor, by name; `countersign policy` prints all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "points_by::<Factor>")]
    pub points: BTreeMap<Factor, f64>,
    /// Points for each area that a change touches (annotation `touches`), such as `auth` or `migration`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub touches: BTreeMap<String, f64>,
    /// Lowest tier of a change that touches an area, such as `migration: high`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub touches_floor: BTreeMap<String, Tier>,
    /// Points for each kind of difference between the stable template and the new one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "points_by::<Difference>")]
    pub differences: BTreeMap<Difference, f64>,
    /// Lowest tier of a change with a kind of difference, such as `serviceAccount: high`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "tier_by::<Difference>")]
    pub differences_floor: BTreeMap<Difference, Tier>,
    /// How critical the service is.
    #[serde(default)]
    pub criticality: Criticality,
    /// Lowest tier of a change with a named property.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "tier_by::<Floor>")]
    pub floors: BTreeMap<Floor, Tier>,
    /// Score from which a tier begins.
    #[serde(default)]
    pub thresholds: Thresholds,
}

/// The schema of a map from each variant of an enum to a value: it lists every key by name, so
/// that a misspelt key is refused and `kubectl explain` describes each.
fn by_name<K: JsonSchema>(value: &serde_json::Value) -> schemars::Schema {
    let variants =
        serde_json::Value::from(schemars::SchemaGenerator::default().into_root_schema_for::<K>());
    let properties: serde_json::Map<_, _> = variants
        .get("oneOf")
        .and_then(serde_json::Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|variant| {
            let mut property = value.as_object()?.clone();
            property.insert("description".into(), variant.get("description")?.clone());
            Some((variant.get("const")?.as_str()?.to_owned(), property.into()))
        })
        .collect();
    schemars::json_schema!({ "type": "object", "properties": properties })
}

fn points_by<K: JsonSchema>(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    by_name::<K>(&serde_json::json!({ "type": "number", "minimum": -100, "maximum": 100 }))
}

fn tier_by<K: JsonSchema>(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let tiers: Vec<_> = Tier::ALL.iter().map(|tier| tier.as_str()).collect();
    by_name::<K>(&serde_json::json!({ "type": "string", "enum": tiers }))
}

/// A band of change sizes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Band {
    /// Changed lines from which the band begins.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub from: i64,
    /// Points of the band.
    #[schemars(range(min = 0, max = 100))]
    pub points: f64,
}

/// A factor of risk that has its own points.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum Factor {
    /// The number of changed lines is not declared.
    SizeUnknown,
    /// Each subsystem beyond the first.
    ExtraSubsystem,
    /// Most points that subsystems can add.
    ExtraSubsystemsAtMost,
    /// Lines written by an AI, times their share.
    AiShare,
    /// People and an AI wrote the change.
    ContributorMixed,
    /// The contributor is declared as unknown, or not declared.
    ContributorUnknown,
    /// There is no provenance at all.
    NoProvenance,
    /// The provenance describes another image or an earlier change, or cannot be read.
    UnusableProvenance,
    /// An AI agent wrote the change, and the person who drove it is not named.
    AutonomousAgent,
    /// No independent person reviewed the deployed revision.
    NoReview,
    /// Another revision was reviewed than the deployed one.
    StaleReview,
    /// Tests failed.
    TestsFailed,
    /// Tests gave warnings.
    TestsWarned,
    /// No test result is declared.
    TestsUnknown,
    /// Most points that touched areas can add.
    TouchesAtMost,
    /// Most points that template differences can add.
    DifferencesAtMost,
    /// The workload is reached from outside the cluster.
    Exposed,
    /// An earlier change of this Rollout was rolled back within seven days.
    AfterRollback,
}

/// A kind of difference between two pod templates.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum Difference {
    /// Another image, of a container or of a volume.
    Image,
    /// Another command, argument or working directory.
    Command,
    /// Other environment variables.
    Environment,
    /// Other ports.
    Ports,
    /// Other resource requests or limits.
    Resources,
    /// Other probes or lifecycle hooks.
    Probes,
    /// Another security context or host namespace.
    SecurityContext,
    /// Another service account.
    ServiceAccount,
    /// Other volumes or mounts.
    Volumes,
    /// Containers added or removed, by the template itself or by annotations that have others injected.
    Containers,
    /// Anything else in the pods' spec, and labels or annotations that may change what the pods do.
    Other,
    /// Labels or annotations that only describe the pods, or restart them.
    Metadata,
}

impl Difference {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::Image,
        Self::Command,
        Self::Environment,
        Self::Ports,
        Self::Resources,
        Self::Probes,
        Self::SecurityContext,
        Self::ServiceAccount,
        Self::Volumes,
        Self::Containers,
        Self::Other,
        Self::Metadata,
    ];

    /// Whether it is one of the manifest alone: the same images run, so no new code does.
    #[must_use]
    pub const fn is_of_manifest(self) -> bool {
        !matches!(self, Self::Image | Self::Containers)
    }
}

/// A property of a change for which a lowest tier can be set.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum Floor {
    /// There is no provenance at all.
    NoProvenance,
    /// The provenance describes another image or an earlier change, or cannot be read.
    UnusableProvenance,
    /// An AI agent wrote the change, and the person who drove it is not named.
    AutonomousAgent,
    /// The service's criticality is `critical`.
    CriticalService,
    /// Tests failed.
    TestsFailed,
}

/// How critical the service is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Criticality {
    /// Label of the Rollout, or else of its namespace, that names the criticality.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub label: Option<String>,
    /// Points for each value of the label.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub points: BTreeMap<String, f64>,
    /// Points if the label is absent or has a value without points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub otherwise: Option<f64>,
}

/// Score from which each tier begins; below `medium` a change is `low`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.medium) || !has(self.high) || self.medium <= self.high").message("risk.thresholds: medium must not be above high"),
    validation = Rule::new("!has(self.high) || !has(self.critical) || self.high <= self.critical").message("risk.thresholds: high must not be above critical"),
    validation = Rule::new("!has(self.medium) || !has(self.critical) || self.medium <= self.critical").message("risk.thresholds: medium must not be above critical"),
)]
pub struct Thresholds {
    /// Score from which a change is `medium`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub medium: Option<f64>,
    /// Score from which a change is `high`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub high: Option<f64>,
    /// Score from which a change is `critical`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub critical: Option<f64>,
}

/// What each tier demands; a higher tier has at least the floors of the lower ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.medium) && has(self.medium.onScarceEvidence) && self.medium.onScarceEvidence == 'Promote', has(self.high) && has(self.high.onScarceEvidence) && self.high.onScarceEvidence == 'Promote', has(self.critical) && has(self.critical.onScarceEvidence) && self.critical.onScarceEvidence == 'Promote'].all(promotes, !promotes)")
        .message("tiers: only tier low may promote on scarce evidence (onScarceEvidence: Promote)"),
)]
pub struct Tiers {
    /// Demands on low-risk changes.
    #[serde(default)]
    pub low: TierDemands,
    /// Demands on ordinary changes.
    #[serde(default)]
    pub medium: TierDemands,
    /// Demands on risky changes.
    #[serde(default)]
    pub high: TierDemands,
    /// Demands on dangerous changes.
    #[serde(default)]
    pub critical: TierDemands,
}

impl Tiers {
    /// The demands of one tier.
    #[must_use]
    pub const fn get(&self, tier: Tier) -> &TierDemands {
        match tier {
            Tier::Low => &self.low,
            Tier::Medium => &self.medium,
            Tier::High => &self.high,
            Tier::Critical => &self.critical,
        }
    }
}

/// What one tier demands of a change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TierDemands {
    /// Steps of a Rollout that names none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    #[x_kube(validation = Rule::new("self.map(step, step.weight).isSorted()").message("steps: the weights must not decrease from one step to the next"))]
    #[x_kube(validation = Rule::new("self.all(step, step.weight > 0 && !has(step.scale))").message("steps of a tier have a weight of at least 1, and no scale: what a Rollout has to split its traffic by is its own affair"))]
    pub steps: Vec<Step>,
    /// Largest weight of the first step, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_first_weight: Option<i32>,
    /// Largest increase from one step to the next, in percentage points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_increase: Option<i32>,
    /// Least weight of the last step before full promotion, in percent; 0 allows one switch of all traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 99))]
    pub min_final_weight: Option<i32>,
    /// Shortest bake of a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_bake: Option<Duration>,
    /// Fewest requests of the canary in a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub min_requests: Option<i64>,
    /// Sign-offs before the first step; an empty list requires none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub sign_off: Option<Vec<SignOffDemand>>,
    /// Sign-offs before full promotion; an empty list requires none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub promotion_sign_off: Option<Vec<SignOffDemand>>,
    /// Largest chance of rolling back a healthy canary; larger is stricter, as weaker evidence then suffices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.000_001, max = 0.5))]
    pub max_false_rollback: Option<f64>,
    /// Largest chance of promoting a canary that is worse than the margin; smaller is stricter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.000_001, max = 0.5))]
    pub max_false_promotion: Option<f64>,
    /// Ratio of canary's to stable's error rate up to which the canary is not rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1.0, max = 1000.0))]
    pub tolerated_ratio: Option<f64>,
    /// Difference of the error rates (fraction of requests) up to which the canary is not rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub tolerated_difference: Option<f64>,
    /// Ratio of the error rates that must be ruled out before a promotion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1.0, max = 1000.0))]
    pub margin_ratio: Option<f64>,
    /// Difference of the error rates (fraction of requests) that must be ruled out with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.000_001, max = 1.0))]
    pub margin_difference: Option<f64>,
    /// Longest time that a step waits for evidence after its bake; longer is stricter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extend_at_most: Option<Duration>,
    /// What happens after `extendAtMost` when the evidence is clean but scarce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_scarce_evidence: Option<OnScarceEvidence>,
    /// Longest time that a change waits for people before it is rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_at_most: Option<Duration>,
    /// Whether a change may be promoted straight from weight 0 without evidence on its requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch_without_evidence: Option<bool>,
    /// Whether `traffic.testers` may reach the canary before everybody has signed whom the plan requires later: a header or cookie of testers may be on every request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub testers_before_sign_off: Option<bool>,
    /// Whether a change needs routes (`traffic`), which make its share of the requests exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_router: Option<bool>,
    /// Whether a change must name each image by its digest (`name@sha256:…`): what a tag names can change after it was signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_digest: Option<bool>,
    /// Whether each ConfigMap and Secret that a change references must be named by the hash of its content (as kustomize and `kubectl create --append-hash` do): the content of others can change after it was signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_immutable_config: Option<bool>,
    /// Whether a policy's own check, or one whose numbers come from a router and not from the pods, must count requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_policy_check: Option<bool>,
}

/// What happens after `extendAtMost` when the evidence is clean but scarce; in order of strictness.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum OnScarceEvidence {
    /// Continue with the next step.
    Promote,
    /// Hold for a person, at most as long as `waitAtMost`.
    #[default]
    Hold,
    /// Roll back.
    RollBack,
}
