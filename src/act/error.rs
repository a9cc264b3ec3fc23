//! Why a decision could not be carried out.

use std::fmt;

use countersign_api::Rollout;
use countersign_core::decision::AnswerTo;
use kube::ResourceExt;

use crate::api_server::sentence;
use crate::lease::NotLeading;

/// What a write changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The status of the Rollout.
    Status,
    /// The finalizer of the Rollout.
    Finalizer,
    /// The RolloutRun of a change.
    Record,
    /// A RolloutRun that is deleted.
    OldRecord,
    /// SignOffs that are deleted with their RolloutRun.
    OldSignOffs,
    /// Interventions that are deleted with their RolloutRun.
    OldInterventions,
    /// The condition of a SignOff or an Intervention.
    Answer(AnswerTo),
    /// A ReplicaSet, or its owner.
    ReplicaSet,
    /// The replicas of a ReplicaSet, and since when they are requested.
    Replicas,
    /// A ReplicaSet that is deleted.
    OldReplicaSet,
    /// The selector of a Service.
    Selector,
    /// The weights of a route, its mirrors, or its subsets.
    RouteWeights,
    /// A route for testers.
    TestersRoute,
    /// A route for testers that is deleted.
    OldTestersRoute,
    /// The Job of a smoke check.
    Job,
    /// The Job of a smoke check that is deleted.
    OldJob,
    /// The replicas of an adopted Deployment.
    WorkloadReplicas,
}

impl Target {
    /// The resource, as the `api_writes` metric labels it.
    pub(super) const fn resource(self) -> &'static str {
        match self {
            Self::Status => "rollouts/status",
            Self::Finalizer => "rollouts",
            Self::Record | Self::OldRecord => "rolloutruns",
            Self::OldSignOffs => "signoffs",
            Self::OldInterventions => "interventions",
            Self::Answer(AnswerTo::SignOff) => "signoffs/status",
            Self::Answer(AnswerTo::Intervention) => "interventions/status",
            Self::ReplicaSet | Self::Replicas | Self::OldReplicaSet => "replicasets",
            Self::Selector => "services",
            Self::RouteWeights | Self::TestersRoute | Self::OldTestersRoute => "routes",
            Self::Job | Self::OldJob => "jobs",
            Self::WorkloadReplicas => "deployments/scale",
        }
    }

    /// Whether the target is written by JSON patches that test the observed values. If a test fails, the
    /// API server answers Invalid.
    const fn is_tested(self) -> bool {
        match self {
            Self::Replicas | Self::Selector | Self::RouteWeights => true,
            Self::Status
            | Self::Finalizer
            | Self::Record
            | Self::OldRecord
            | Self::OldSignOffs
            | Self::OldInterventions
            | Self::Answer(_)
            | Self::ReplicaSet
            | Self::OldReplicaSet
            | Self::TestersRoute
            | Self::OldTestersRoute
            | Self::Job
            | Self::OldJob
            | Self::WorkloadReplicas => false,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Status => "the status",
            Self::Finalizer => "the finalizer",
            Self::Record => "the record",
            Self::OldRecord => "the removal of an old record",
            Self::OldSignOffs => "the removal of old signoffs",
            Self::OldInterventions => "the removal of old interventions",
            Self::Answer(_) => "an answer",
            Self::ReplicaSet => "a ReplicaSet",
            Self::Replicas => "the number of pods of a ReplicaSet",
            Self::OldReplicaSet => "the removal of an old ReplicaSet",
            Self::Selector => "the selector of a Service",
            Self::RouteWeights => "the weights of a route",
            Self::TestersRoute => "a route for testers",
            Self::OldTestersRoute => "the end of a route for testers",
            Self::Job => "a Job",
            Self::OldJob => "the end of a Job",
            Self::WorkloadReplicas => "the number of pods of the adopted Deployment",
        })
    }
}

/// Why a decision could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another replica leads, or may lead.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    /// The API server refused a write.
    #[error("{target} of Rollout {rollout} was refused: {}", sentence(source))]
    Refused {
        /// The target of the write.
        target: Target,
        /// Namespace and name of the Rollout.
        rollout: String,
        /// The API server's answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// A ReplicaSet that is not the revision's has its name; what it holds is not merged with.
    #[error(
        "the name of ReplicaSet {replica_set}, which Rollout {rollout} needs for a revision, belongs to another one: the revision gets another name"
    )]
    NameTaken {
        /// Namespace and name of the Rollout.
        rollout: String,
        /// The ReplicaSet's name.
        replica_set: String,
        /// Value of the revision's label `pod-template-hash`.
        hash: String,
    },
    /// The API server refuses the ReplicaSet of a revision as invalid, so retries are pointless.
    #[error(
        "the API server refuses the ReplicaSet of Rollout {rollout}: {}",
        sentence(source)
    )]
    InvalidRevision {
        /// Namespace and name of the Rollout.
        rollout: String,
        /// Value of the revision's label `pod-template-hash`.
        hash: String,
        /// The API server's answer.
        #[source]
        source: Box<kube::Error>,
    },
}

impl Error {
    pub(super) fn refused(target: Target, rollout: &Rollout, source: kube::Error) -> Self {
        let (namespace, name) = (rollout.namespace(), rollout.name_any());
        Self::Refused {
            target,
            rollout: format!("{}/{name}", namespace.unwrap_or_default()),
            source: Box::new(source),
        }
    }

    /// The revision that the API server refuses as invalid, if any.
    #[must_use]
    pub fn invalid_revision(&self) -> Option<&str> {
        match self {
            Self::InvalidRevision { hash, .. } => Some(hash),
            Self::NotLeading(_) | Self::Refused { .. } | Self::NameTaken { .. } => None,
        }
    }

    /// The revision whose name belongs to another ReplicaSet, if any.
    #[must_use]
    pub fn taken_revision(&self) -> Option<&str> {
        match self {
            Self::NameTaken { hash, .. } => Some(hash),
            Self::NotLeading(_) | Self::Refused { .. } | Self::InvalidRevision { .. } => None,
        }
    }

    /// Whether the object changed since it was read, so that it must be read again.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        let Self::Refused { target, source, .. } = self else {
            return false;
        };
        let kube::Error::Api(status) = &**source else {
            return false;
        };
        // A policy that refuses the write, or fails, refuses it again.
        let is_policy = status.message.contains("ValidatingAdmissionPolicy");
        status.is_conflict() || (target.is_tested() && status.code == 422 && !is_policy)
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn what_a_policy_refuses_is_no_conflict() {
        let refused = |target, message: &str| {
            let status = Status::failure(message, "Invalid").with_code(422);
            Error::Refused {
                target,
                rollout: "shop/web".into(),
                source: Box::new(kube::Error::Api(Box::new(status))),
            }
        };
        let tested = "the server rejected our request due to an error in our request";
        assert!(refused(Target::Selector, tested).is_conflict());
        assert!(!refused(Target::Record, tested).is_conflict());
        let policy = "services \"web\" is forbidden: ValidatingAdmissionPolicy 'operator-confined.countersign.dev' with binding 'operator-confined.countersign.dev' denied request: expression resulted in error";
        assert!(!refused(Target::Selector, policy).is_conflict());
    }
}
