//! Observed sign-offs, interventions, freezes and policies, and the other Rollouts.

use std::collections::BTreeMap;

use countersign_api::step::Tier;
use countersign_api::{FreezeSpec, InterventionSpec, RolloutPolicySpec, SignOffSpec};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Sign-offs, interventions and freezes. Read only while a change is in the status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HumanInputs {
    /// Sign-offs that name this Rollout.
    pub sign_offs: Vec<ObservedSignOff>,
    /// Interventions that name this Rollout.
    pub interventions: Vec<ObservedIntervention>,
    /// Sign-offs and interventions that cannot be read, each with the problem.
    pub unreadable_requests: Vec<String>,
    /// Freezes that select this Rollout.
    pub freezes: Vec<NamedFreeze>,
    /// Freezes that cannot be read and so might select this Rollout, each with the problem.
    pub unreadable_freezes: Vec<String>,
    /// The answer to each policy's incident query, by the policy's name.
    pub incidents: BTreeMap<String, IncidentAnswer>,
    /// Whether the API server verifies the authors of these objects.
    pub admission: Admission,
}

/// Time until a written admission policy is enforced; objects created before do not prove their author.
const ENFORCED_AFTER: SignedDuration = SignedDuration::from_secs(5);

/// A Rollout that another one depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// Its name.
    pub name: String,
    /// Why it is waited for, in a sentence; `None` if it is stable.
    pub awaited: Option<String>,
}

/// A change of another Rollout that counts for a limit of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConcurrentChange {
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
    /// Since when it is queued; `None` if it is under way.
    pub queued_at: Option<Timestamp>,
}

/// A sign-off with what identifies it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObservedSignOff {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// When it was created, in whole seconds.
    pub created_at: Timestamp,
    /// Its spec.
    pub spec: SignOffSpec,
    /// The condition that the controller has set: whether it counts, and the reason.
    pub answer: Option<(bool, String)>,
}

/// An intervention with what identifies it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObservedIntervention {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// When it was created, in whole seconds.
    pub created_at: Timestamp,
    /// Its resource version, which orders objects of the same second.
    pub version: u64,
    /// Its spec.
    pub spec: InterventionSpec,
    /// Whether the controller has set its condition.
    pub answered: bool,
}

/// A freeze with its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamedFreeze {
    /// Its name.
    pub name: String,
    /// Its spec.
    pub spec: FreezeSpec,
}

/// The result of an incident query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum IncidentAnswer {
    /// There is no incident.
    None,
    /// There is an incident.
    Incident {
        /// The largest value in the result.
        value: f64,
    },
    /// The result is unknown.
    Unknown {
        /// Why, in a sentence.
        message: String,
    },
}

/// Whether the admission policies that verify authors are installed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// What is missing or altered, each in a sentence; empty if all are installed.
    pub problems: Vec<String>,
    /// Since when all of them have been installed.
    pub since: Option<Timestamp>,
    /// Whether the API server writes the stamp of the user who changed a Rollout; otherwise it demands it of the user.
    pub stamps: bool,
}

impl Admission {
    /// Why an object created at this time does not prove its author.
    #[must_use]
    pub fn disproves(&self, created_at: Timestamp) -> Option<String> {
        if let Some(problem) = self.problems.first() {
            return Some(problem.clone());
        }
        // Times are whole seconds, and the API server needs some to enforce a new policy.
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
    /// Its spec.
    pub spec: RolloutPolicySpec,
}
