//! `Freeze`: promotions stop during an incident or a change freeze. A Freeze never stops a rollback.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conditions;
use super::duration::Duration;
use super::person::Person;
use super::selector::Selector;
use super::step::Tier;

/// Promotions of selected Rollouts wait as long as the Freeze is in force.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "countersign.dev",
    version = "v1alpha1",
    kind = "Freeze",
    status = "FreezeStatus",
    shortname = "cfz",
    category = "countersign",
    derive = "PartialEq",
    doc = "Promotions of the selected Rollouts wait as long as it lasts; rollbacks never do.",
    printcolumn(
        name = "Active",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Active\")].status"
    ),
    printcolumn(name = "Action", type_ = "string", json_path = ".spec.action"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason"),
    printcolumn(name = "By", type_ = "string", json_path = ".spec.person.username"),
    printcolumn(name = "Until", type_ = "string", json_path = ".spec.until"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].reason",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct FreezeSpec {
    /// The reason, shown on every waiting Rollout.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// Namespaces that are frozen, by their labels; all if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<Selector>,
    /// Rollouts that are frozen, by their labels; all if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout_selector: Option<Selector>,
    /// Tiers that are frozen; all if the list is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub tiers: Vec<Tier>,
    /// When the Freeze ends automatically; if not set, it lasts until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// What happens to changes under way.
    #[serde(default)]
    pub action: FreezeAction,
    /// The user who declared the Freeze, or changed it last.
    pub person: Person,
}

/// How the operator reads a Freeze. No decision depends on it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FreezeStatus {
    /// Generation of the spec that this status describes.
    #[serde(default)]
    pub observed_generation: i64,
    /// `Accepted`: whether the operator can read the Freeze; `Stalled`: whether it cannot; `Active`: whether the Freeze is in force, and until when.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "conditions::readable"
    )]
    #[schemars(length(max = 8))]
    pub conditions: Vec<Condition>,
}

/// What happens to a change that is under way when a freeze begins; in order of strictness.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum FreezeAction {
    /// The change waits at its present step and continues from there.
    #[default]
    Hold,
    /// The change is rolled back.
    RollBack,
}

/// Freezes that a policy declares: at certain times, and while a query reports an incident.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyFreeze {
    /// Times at which promotions wait.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub windows: Vec<FreezeWindow>,
    /// A query that reports whether there is an incident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<IncidentQuery>,
}

/// A recurring time at which promotions wait.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FreezeWindow {
    /// Name of the window.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// When the window begins, as five cron fields: minute, hour, day of month, month, day of week, such as `0 18 * * FRI`.
    #[schemars(length(min = 9, max = 128))]
    pub schedule: String,
    /// Time zone of the schedule by its IANA name, such as `Europe/Berlin`.
    #[serde(default = "utc")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,
    /// Length of the window.
    pub duration: Duration,
    /// Tiers that are frozen; all if the list is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub tiers: Vec<Tier>,
    /// What happens to changes under way.
    #[serde(default)]
    pub action: FreezeAction,
    /// The reason, shown on every waiting Rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
}

fn utc() -> String {
    "UTC".into()
}

/// A query that reports whether there is an incident.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IncidentQuery {
    /// PromQL that gives one number or more: above 0 there is an incident. An empty result is no answer, so end the query with `or vector(0)`, such as `count(ALERTS{alertstate="firing",severity="page"}) or vector(0)`.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
    /// Tiers that are frozen; all if the list is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub tiers: Vec<Tier>,
    /// What happens to changes under way.
    #[serde(default)]
    pub action: FreezeAction,
    /// The reason, shown on every waiting Rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
}
