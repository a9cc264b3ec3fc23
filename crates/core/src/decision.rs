//! A decision as data: the next status, actions, answers, Events and the requeue time.

use countersign_api::rollout::{Outcome, Stage};
use countersign_api::run::RecordedRisk;
use countersign_api::{Duration, PodTemplate, RolloutRunSpec, RolloutStatus, RouteKind};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::observation::{self, Observation};

/// One decision. Carrying it out twice has the effect of carrying it out once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Decision {
    /// The status to write before anything else is done.
    pub status: RolloutStatus,
    /// The actions, in this order.
    pub actions: Vec<Action>,
    /// Conditions of sign-offs and interventions.
    pub answers: Vec<Answer>,
    /// The Events.
    pub notices: Vec<Notice>,
    /// The RolloutRun to write, if any.
    pub record: Option<Record>,
    /// When to requeue if no event arrives before.
    pub requeue_at: Option<Timestamp>,
    /// Whether it waits for endpoints or for a route, so that the next reconcile has to read them: no
    /// watch reports endpoints.
    pub awaits_traffic: bool,
}

impl Decision {
    /// Whether nothing is to be written.
    #[must_use]
    pub fn is_idle(&self, observation: &Observation) -> bool {
        self.status == observation.status && self.writes_nothing_but_the_status()
    }

    /// Whether it comes before others if not all can be written: it takes a change back, corrects pods or traffic of one that
    /// stays where it is, or scales an adopted workload, whose pods no gate holds.
    #[must_use]
    pub fn is_urgent(&self, observation: &Observation) -> bool {
        let is_taken_back = self.status.change.as_ref().is_some_and(|change| {
            let ended = change.outcome.is_some_and(|it| it != Outcome::Promoted);
            ended || change.stage == Stage::RollingBack
        });
        let corrects = |it: &Action| matches!(it, Action::Workload(_) | Action::Traffic(_));
        let scales = |it: &Action| matches!(it, Action::Adoption(AdoptionAction::ScaleWorkload(_)));
        let stays = !self.moves(observation);
        is_taken_back
            || self
                .actions
                .iter()
                .any(|it| scales(it) || (stays && corrects(it)))
    }

    /// Whether the status still holds the change of a record, so that it can be written again if it is lost.
    #[must_use]
    pub fn holds(&self, record: &Record) -> bool {
        let change = self.status.change.as_ref();
        change.is_some_and(|change| change.run == record.name)
    }

    /// Whether a change is in another place than in the stored status.
    fn moves(&self, observation: &Observation) -> bool {
        place(&self.status) != place(&observation.status)
    }

    /// Whether a change has moved, and awaits nothing that is still to be done: the next decision can be made at once, on
    /// this status, and one write is enough for both.
    #[must_use]
    pub fn goes_on(&self, observation: &Observation) -> bool {
        let Some(change) = self.status.change.as_ref() else {
            return false;
        };
        let under_way = change.outcome.is_none() && !change.initial;
        self.moves(observation)
            && under_way
            && observation::is_whole(observation)
            && self.actions.is_empty()
            && self.answers.is_empty()
    }

    /// This decision with what an earlier one, on whose status it was made, has left to be written.
    #[must_use]
    pub fn after(self, earlier: Self) -> Self {
        let notices = earlier.notices.into_iter().chain(self.notices).collect();
        let record = match (earlier.record, self.record) {
            (Some(begun), Some(record)) => Some(begun.continued(record)),
            (begun, record) => record.or(begun),
        };
        Self {
            notices,
            record,
            ..self
        }
    }

    pub(super) fn writes_nothing_but_the_status(&self) -> bool {
        self.actions.is_empty()
            && self.answers.is_empty()
            && self.notices.is_empty()
            && self.record.is_none()
    }
}

/// The attempt at the change of a status, and where in its plan it is.
fn place(status: &RolloutStatus) -> Option<(&str, Stage, i32)> {
    let change = status.change.as_ref()?;
    Some((&change.run, change.stage, change.step))
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
    /// Create the ReplicaSet of a revision.
    CreateReplicaSet(NewReplicaSet),
    /// Scale a ReplicaSet.
    Scale {
        /// The ReplicaSet's name.
        replica_set: String,
        /// Pods to request.
        replicas: i32,
        /// The revision number to set if the ReplicaSet has another.
        revision: i64,
    },
    /// Set `minReadySeconds` of a ReplicaSet.
    SetMinReadySeconds {
        /// The ReplicaSet's name.
        replica_set: String,
        /// Seconds for which a pod must be ready.
        seconds: i32,
    },
    /// Become the controller of an orphan whose pods match, or restore the labels of a ReplicaSet.
    Adopt {
        /// The ReplicaSet's name.
        replica_set: String,
    },
    /// Give up a ReplicaSet whose labels no longer match.
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
    /// Pods to request.
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
    /// Let a Service select the pods of all revisions again, and those of other controllers.
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
    /// Create or change the controller's own route for testers.
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
    /// The canary's share after the patch, in percent.
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
    /// Whether the route exists already.
    pub exists: bool,
    /// Its name.
    pub name: String,
    /// Its spec.
    pub spec: Value,
}

/// A write that takes a workload over, or gives it back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AdoptionAction {
    /// Scale an adopted workload.
    ScaleWorkload(WorkloadScale),
    /// Add or remove the Rollout's finalizer.
    SetFinalizer {
        /// Whether the finalizer is to be present.
        present: bool,
    },
}

/// Another number of pods of an adopted workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkloadScale {
    /// The workload's name.
    pub name: String,
    /// The workload's uid: an object of the same name created since is another.
    pub uid: String,
    /// The observed number of requested pods; if it differs, the decision was made on an older state.
    pub from: i32,
    /// Pods to request.
    pub replicas: i32,
    /// The pods that must serve before any of the workload's pods may be removed.
    pub beside: Option<Serving>,
}

/// A write to the Job of a smoke check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum JobAction {
    /// Create the Job.
    CreateJob(NewJob),
    /// Delete a Job that is no longer waited for.
    DeleteJob {
        /// The Job's name.
        job: String,
        /// The Job's uid: an object of the same name created since is another.
        uid: String,
    },
}

/// The Job of a smoke check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewJob {
    /// Its name.
    pub name: String,
    /// The RolloutRun of the attempt.
    pub run: String,
    /// The Job's deadline.
    pub deadline: Duration,
    /// Its pods, complete.
    pub template: PodTemplate,
}

/// A write to the records of earlier changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum HistoryAction {
    /// Delete a RolloutRun beyond the history that is kept, with its sign-offs and interventions.
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
    /// The least number of them that must be available.
    pub available: i32,
}

/// The condition of a sign-off or an intervention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The kind of the object.
    pub to: AnswerTo,
    /// The object's name.
    pub name: String,
    /// Whether the sign-off counts, or the intervention was applied.
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
    /// What was done, so that two Events with the same reason stay distinct.
    pub action: String,
    /// Why, in a sentence with the numbers.
    pub message: String,
    /// Whether the Event is a warning.
    pub warning: bool,
}

/// The RolloutRun of a change, as it is to be written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// Its spec.
    pub spec: RolloutRunSpec,
    /// How long it outlives its Rollout.
    #[serde(default)]
    pub keep_for: Duration,
}

impl Record {
    /// This record of the same change with the progress of a later one: what describes its begin was observed then.
    fn continued(self, later: Self) -> Self {
        let (begun, spec) = (self.spec, later.spec);
        let risk = RecordedRisk {
            score: spec.risk.score,
            tier: spec.risk.tier,
            ..begun.risk
        };
        Self {
            spec: RolloutRunSpec {
                progress: spec.progress,
                plan: spec.plan,
                observed: spec.observed,
                risk,
                ..begun
            },
            ..later
        }
    }
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
