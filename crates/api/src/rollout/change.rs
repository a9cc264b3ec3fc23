//! The change under way, its plan and its outcome.

use crate::analysis::Check;
use crate::duration::Duration;
use crate::objective::Objective;
use crate::policy::Enforcement;
use crate::rollout::evidence::CheckSummary;
use crate::rollout::evidence::Evidence;
use crate::rollout::observed::Observed;
use crate::step::{SignOffDemand, Step, Tier};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A revision that passed all its gates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Value of the pods' label `pod-template-hash`.
    pub pod_template_hash: String,
    /// SHA-256 of the pod template, in hexadecimal.
    pub template_digest: String,
    /// SHA-256 of pod template, provenance and where traffic goes, in hexadecimal.
    pub digest: String,
    /// SHA-256 of its provenance, in hexadecimal: the same provenance says nothing of another template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance_digest: Option<String>,
    /// The source revision that it runs, by its provenance; the next change is counted from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub source_revision: Option<String>,
    /// SHA-256 of the pod template as the API server stored it, in hexadecimal, if admission webhooks or newer defaults changed it; empty if not. Absent if the revision began under a build that did not compare it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_template_digest: Option<String>,
    /// The revision's number.
    pub revision: i64,
    /// Name of the RolloutRun that keeps its template, from which a lost ReplicaSet is created again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
}

/// Stage of a change.
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
    /// It was rejected and no longer has pods.
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
    /// SHA-256 of pod template, provenance and where traffic goes, in hexadecimal; sign-offs and evidence bind to it.
    pub digest: String,
    /// Value of its pods' label `pod-template-hash`.
    pub pod_template_hash: String,
    /// SHA-256 of its pod template, in hexadecimal.
    pub template_digest: String,
    /// SHA-256 of its provenance, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance_digest: Option<String>,
    /// SHA-256 of its pod template as the API server stored it, in hexadecimal, if admission webhooks or newer defaults changed it; empty if not. Absent if the change began under a build that did not compare it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_template_digest: Option<String>,
    /// Whether its provenance is that of another template, of the stable revision or of the change before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inherited_provenance: bool,
    /// The source revision that it runs, by its provenance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub source_revision: Option<String>,
    /// Number of its revision.
    pub revision: i64,
    /// Name of the RolloutRun that records it.
    pub run: String,
    /// When the change was first observed.
    pub started_at: Option<Time>,
    /// Whether there was no stable revision for comparison.
    #[serde(default)]
    pub initial: bool,
    /// Whether the pods of a first revision were allowed: its people had signed and its dependencies were stable, and neither is asked again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub begun: bool,
    /// Whether a first revision has had a ready pod; the next change is then compared with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub served: bool,
    /// Whether a deleted Rollout of the same name may have promoted another template: a first revision then needs the people of a change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub made_again: bool,
    /// Risk in points; five points double the odds.
    #[serde(default)]
    pub score: f64,
    /// Tier of the risk; it never falls while the change is under way.
    #[serde(default)]
    pub tier: Tier,
    /// Whether the policies' demands hold for this change, as when it began.
    #[serde(default)]
    pub enforcement: Enforcement,
    /// What the policies that only observe would have demanded; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
    /// Whether an earlier change of this Rollout was rolled back shortly before this one began.
    #[serde(default)]
    pub after_rollback: bool,
    /// The contributor in its provenance: `human`, `ai`, `mixed` or `unknown`.
    #[serde(default)]
    pub contributor: String,
    /// Users who changed the template, the provenance or where traffic goes to this change, as the API server stamped them; empty if not known.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 65_536))]
    pub changed_by: BTreeSet<String>,
    /// People who must not sign the change off.
    #[serde(default)]
    pub excluded_approvers: ExcludedApprovers,
    /// The person who paused the change; absent if it is not paused by a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_by: Option<String>,
    /// The step whose bake a person skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake_skipped: Option<i32>,
    /// The smoke check before the first step; absent if none was requested yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smoke: Option<SmokeProgress>,
    /// Uids of the sign-offs and interventions that were already recorded.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 256))]
    pub handled_requests: BTreeSet<String>,
    /// Uids of the interventions that had no effect.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 256))]
    pub ignored_requests: BTreeSet<String>,
    /// The plan in force; policies may tighten it while the change is under way, never loosen it.
    #[serde(default)]
    pub plan: Plan,
    /// Stage of the change.
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
    /// Since when some of the present step's pods are missing again; bake and warm-up stop meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Loss>,
    /// Since when the present step's pods warm up, after all of them had been lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_from: Option<Time>,
    /// When the change last made progress, from which the progress deadline counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progressed_at: Option<Time>,
    /// Since when every other gate before the first step is open and the change waits in the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_at: Option<Time>,
    /// Maximum that the present stage has reached: exceeding it is progress.
    #[serde(default)]
    pub progress: Reached,
    /// Since when the change waits for evidence, if that is later than the pods and the bake: after a pause, for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence_since: Option<Time>,
    /// Since when the change waits for people, by gate.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub awaited_gates: BTreeMap<String, Time>,
    /// Length of one window of counting, fixed when the change begins.
    #[serde(default)]
    pub interval: Duration,
    /// Time in which the new pods of each step warm up, fixed when the change begins.
    #[serde(default)]
    pub warm_up: Duration,
    /// Time of the watch after the promotion, fixed when the change begins.
    #[serde(default)]
    pub post_promotion: Duration,
    /// The checks that the change must pass, by name; a check that has counted is neither edited nor removed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub checks: BTreeMap<String, Check>,
    /// The objectives whose budget the change must not burn, by name; none is edited or removed while the change is under way.
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
    /// Outcome of the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The revision that was stable before the promotion, while the change is watched or old pods are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Revision>,
    /// End of the watch after the promotion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watched_until: Option<Time>,
    /// Until when the pods of the previous revision are kept after the promotion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_until: Option<Time>,
}

/// Pods of a step that were available and are missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Loss {
    /// Since when.
    pub since: Time,
    /// Whether all were missing at some moment since then.
    #[serde(default)]
    pub all: bool,
}

/// Progress of a stage of a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reached {
    /// Most pods of the growing revision: the canary, or stable after a rollback.
    #[serde(default)]
    pub pods: i32,
    /// Most available pods of that revision.
    #[serde(default)]
    pub available: i32,
    /// Largest share of the traffic that routers have accepted for the canary, in percent.
    #[serde(default)]
    pub weight: i32,
}

/// Progress of the smoke check of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SmokeProgress {
    /// Whether the check has succeeded; then it is not repeated, even if its Job is deleted.
    #[serde(default)]
    pub passed: bool,
    /// Since when the change waits for the check, with every gate before it open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// When a container of its Job was first observed as started since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// How many of its Jobs were deleted because they differed from the one that the check demands.
    #[serde(default)]
    pub replaced: i32,
}

/// People who must not sign a change off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExcludedApprovers {
    /// Users, in lower case: authors, people who drove the AI, and people who changed the Rollout, with their aliases.
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
    /// Share of the traffic that the canary really gets in each step, in percent, rounded up: the weight, or the share of the pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub shares: Vec<i32>,
    /// Sign-offs required before full promotion.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub promotion_sign_off: Vec<SignOffDemand>,
    /// Sign-offs required before the first pod of a first revision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub first_revision: Vec<SignOffDemand>,
    /// How strictly the evidence is judged.
    #[serde(default)]
    pub strictness: Strictness,
    /// Tightenings of the Rollout's own steps, each with its policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub tightened: Vec<String>,
    /// The policies of the plan, each with its generation.
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
    /// Longest time that a step waits for evidence after its bake.
    #[serde(default)]
    pub extend_at_most: Duration,
    /// What happens after `extendAtMost` when the evidence is clean but scarce.
    pub on_scarce_evidence: crate::policy::OnScarceEvidence,
    /// Whether the change may be promoted straight from weight 0 without evidence on its requests.
    #[serde(default)]
    pub switch_without_evidence: bool,
    /// Longest time that a change waits for people before it is rolled back.
    pub wait_at_most: Duration,
}

/// One transition of a change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// When it was decided.
    pub at: Option<Time>,
    /// Step after the transition.
    pub step: i32,
    /// Weight after the transition, in percent.
    pub weight: i32,
    /// The reason, one PascalCase word shared with conditions and Events.
    pub reason: String,
    /// The reason in a sentence, with its numbers.
    pub message: String,
    /// The evidence of each check at that time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub evidence: Vec<CheckSummary>,
}
