//! What was decided, as data: the next status, what to do, what to say, and when to look again.

use countersign_api::{Duration, PodTemplate, RolloutRunSpec, RolloutStatus, RouteKind};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::observation::Observation;

/// One decision. Carrying it out twice has the effect of carrying it out once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Decision {
    /// The status to write before anything else is done.
    pub status: RolloutStatus,
    /// What to do, in this order.
    pub actions: Vec<Action>,
    /// What to say to people about their sign-offs and interventions.
    pub answers: Vec<Answer>,
    /// What to say about it in Events.
    pub notices: Vec<Notice>,
    /// The record to keep of the change, where there is one.
    pub record: Option<Record>,
    /// When to look again if nothing happens before.
    pub requeue_at: Option<Timestamp>,
}

impl Decision {
    /// Whether nothing is to be written.
    #[must_use]
    pub fn is_idle(&self, observation: &Observation) -> bool {
        self.status == observation.status && self.writes_nothing_but_the_status()
    }

    pub(super) fn writes_nothing_but_the_status(&self) -> bool {
        self.actions.is_empty()
            && self.answers.is_empty()
            && self.notices.is_empty()
            && self.record.is_none()
    }
}

/// One write to the cluster, by what it changes. In JSON the inner action stands alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Action {
    /// ReplicaSets.
    Workload(WorkloadAction),
    /// Services, routes and subsets.
    Traffic(TrafficAction),
    /// An adopted workload, and the Rollout's own finalizer.
    Adoption(AdoptionAction),
    /// Jobs of smoke checks.
    Job(JobAction),
    /// Records of earlier changes.
    History(HistoryAction),
}

/// A write to a ReplicaSet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WorkloadAction {
    /// Make the ReplicaSet of a revision.
    CreateReplicaSet(NewReplicaSet),
    /// Ask for another number of pods.
    Scale {
        /// The ReplicaSet's name.
        replica_set: String,
        /// Pods to ask for.
        replicas: i32,
        /// Number of the revision that it runs, which it is given where it has another.
        revision: i64,
    },
    /// Let a ReplicaSet count its pods as available after another time.
    SetMinReadySeconds {
        /// The ReplicaSet's name.
        replica_set: String,
        /// Seconds for which a pod must be ready.
        seconds: i32,
    },
    /// Become the controller of an orphan whose pods match, or give a ReplicaSet its labels again.
    Adopt {
        /// The ReplicaSet's name.
        replica_set: String,
    },
    /// Give up a ReplicaSet whose labels match no longer.
    Release {
        /// The ReplicaSet's name.
        replica_set: String,
    },
    /// Remove a ReplicaSet without pods that is older than the history kept.
    DeleteReplicaSet {
        /// The ReplicaSet's name.
        replica_set: String,
    },
}

/// The ReplicaSet of a revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewReplicaSet {
    /// Its name.
    pub name: String,
    /// Value of the label `pod-template-hash`.
    pub hash: String,
    /// SHA-256 of the template.
    pub template_digest: String,
    /// Number of the revision.
    pub revision: i64,
    /// Pods to ask for.
    pub replicas: i32,
    /// The pod template, without the label that is added.
    pub template: PodTemplate,
}

/// A write to a Service or a route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TrafficAction {
    /// Point a Service at a revision's pods.
    SelectRevision {
        /// The Service's name.
        service: String,
        /// Value of the label `pod-template-hash`.
        hash: String,
    },
    /// Let a Service select the pods of all revisions again, and of other controllers.
    ReleaseService {
        /// The Service's name.
        service: String,
    },
    /// Change the weights of a route, or what it mirrors, and nothing else in it.
    PatchRoute(RoutePatch),
    /// Let the subsets of a DestinationRule select their revisions.
    SelectSubsets {
        /// The DestinationRule's name.
        name: String,
        /// Its API version.
        api_version: String,
        /// The JSON patch: each place is tested before it is changed.
        operations: Vec<Value>,
    },
    /// Make or change the controller's own route for testers.
    ApplyTesters(TestersRoute),
    /// Remove the controller's own route for testers.
    DeleteTesters {
        /// Its kind.
        kind: RouteKind,
        /// Its API version.
        api_version: String,
        /// Its name.
        name: String,
    },
}

/// Other weights or mirrors of a route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoutePatch {
    /// The route's kind.
    pub kind: RouteKind,
    /// The route's name.
    pub name: String,
    /// The route's API version.
    pub api_version: String,
    /// The canary's share that it leads to, in percent.
    pub weight: i32,
    /// The JSON patch: each place is tested before it is changed.
    pub operations: Vec<Value>,
}

/// The controller's own route for testers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestersRoute {
    /// Its kind.
    pub kind: RouteKind,
    /// Its API version.
    pub api_version: String,
    /// Whether it is there already.
    pub exists: bool,
    /// Its name.
    pub name: String,
    /// Its spec.
    pub spec: Value,
}

/// A write that takes a workload over, or gives it back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AdoptionAction {
    /// Ask an adopted workload for another number of pods.
    ScaleWorkload(WorkloadScale),
    /// Let the Rollout wait for the controller when it is deleted, or let it go.
    SetFinalizer {
        /// Whether it waits.
        present: bool,
    },
}

/// Another number of pods of an adopted workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkloadScale {
    /// The workload's name.
    pub name: String,
    /// The workload's uid: one of the same name made since is another.
    pub uid: String,
    /// Pods that it asks for now; where it asks for others, this was decided on something older.
    pub from: i32,
    /// Pods to ask for.
    pub replicas: i32,
    /// The pods without which none of its own may go.
    pub beside: Option<Serving>,
}

/// A write to the Job of a smoke check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum JobAction {
    /// Make the Job.
    CreateJob(NewJob),
    /// Stop a Job that nobody waits for any more.
    DeleteJob {
        /// The Job's name.
        job: String,
        /// The Job's uid: one of the same name made since is another.
        uid: String,
    },
}

/// The Job of a smoke check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewJob {
    /// Its name.
    pub name: String,
    /// The RolloutRun of the attempt that it is for.
    pub run: String,
    /// How long it may take.
    pub deadline: Duration,
    /// Its pods, complete.
    pub template: PodTemplate,
}

/// A write to the records of earlier changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum HistoryAction {
    /// Remove a record that is older than the history kept, and what people decided on its change.
    DeleteRun {
        /// The RolloutRun's name.
        run: String,
    },
}

/// Pods that serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// The hash of their revision.
    pub hash: String,
    /// How many of them are available, at least.
    pub available: i32,
}

/// What becomes of a sign-off or an intervention, as a condition on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Which of the two it is.
    pub to: AnswerTo,
    /// The object's name.
    pub name: String,
    /// Whether it counts, or was done.
    pub yes: bool,
    /// Why, in one PascalCase word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
}

/// Kinds of objects that get an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnswerTo {
    /// A SignOff: condition `Counts`.
    SignOff,
    /// An Intervention: condition `Applied`.
    Intervention,
}

/// One Event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Why, in one PascalCase word that conditions and records share.
    pub reason: String,
    /// What was done, so that two Events of one reason are told apart.
    pub action: String,
    /// Why, in a sentence with the numbers.
    pub message: String,
    /// Whether a person should look.
    pub warning: bool,
}

/// The RolloutRun of a change, as it should stand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// What it says.
    pub spec: RolloutRunSpec,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_action_is_written_as_the_inner_one_alone() {
        let actions = [
            Action::Workload(WorkloadAction::Adopt {
                replica_set: "web-1".into(),
            }),
            Action::Adoption(AdoptionAction::SetFinalizer { present: true }),
            Action::History(HistoryAction::DeleteRun {
                run: "web-1".into(),
            }),
        ];
        let written = serde_json::to_value(&actions).unwrap();
        let expected = json!([
            { "Adopt": { "replica_set": "web-1" } },
            { "SetFinalizer": { "present": true } },
            { "DeleteRun": { "run": "web-1" } },
        ]);
        assert_eq!(written, expected);
        let read: [Action; 3] = serde_json::from_value(written).unwrap();
        assert_eq!(read, actions);
    }
}
