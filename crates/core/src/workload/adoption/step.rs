//! A step of an adoption.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::decision::{Action, AdoptionAction, Notice, Serving, WorkloadScale};
use crate::hold::{Hold, HoldKind};
use crate::intervals::RESYNC_INTERVAL;
use crate::limits::FOREIGN_TEXT;
use crate::observation::Observation;
use crate::observation::workload::{Unusable, Workload};
use crate::reason::Reason;
use crate::text::sanitize_to;
use crate::traffic::view::View;

/// The condition that shows whether the Rollout serves in place of the workload.
pub const ADOPTED: &str = "Adopted";
/// Least time between two scale-downs of a workload that is scaled up repeatedly.
pub(super) const AT_MOST_EVERY: SignedDuration = SignedDuration::from_mins(1);
/// Requeue interval after a write to the workload, which a watch reports as well.
pub(super) const WRITE_INTERVAL: SignedDuration = SignedDuration::from_secs(2);

/// The actions, Events and hold of one step.
#[derive(Debug, Default)]
pub struct Step {
    /// The actions, after all others.
    pub actions: Vec<Action>,
    /// The Events.
    pub notices: Vec<Notice>,
    /// What the deletion of the Rollout waits for.
    pub hold: Option<Hold>,
    /// When to requeue.
    pub requeue_at: Option<Timestamp>,
}

/// Why the workload cannot be used, in a sentence.
pub(super) fn sentence(observation: &Observation, unusable: &Unusable) -> String {
    let name = observation.spec.workload_ref.as_ref();
    let name = name.map_or("", |it| it.name.as_str());
    match unusable {
        Unusable::Missing => {
            format!("Deployment {name}, which spec.workloadRef names, does not exist: create it")
        }
        Unusable::Unreadable { message } => format!(
            "Deployment {name} cannot be read: {}",
            sanitize_to(message, FOREIGN_TEXT)
        ),
        Unusable::Unfit { message } => {
            format!("Deployment {name} {}", sanitize_to(message, FOREIGN_TEXT))
        }
    }
}

pub(super) fn named_services(observation: &Observation) -> impl Iterator<Item = &String> {
    let canary = &observation.spec.strategy.canary;
    canary.stable_service.iter().chain(&canary.canary_service)
}

pub(super) fn scale(view: &View, workload: &Workload, replicas: i32) -> Action {
    let beside = view.stable.map(|stable| Serving {
        hash: stable.pod_template_hash.clone(),
        available: view.fleet.pods.stable.available,
    });
    Action::Adoption(AdoptionAction::ScaleWorkload(WorkloadScale {
        name: workload.name.clone(),
        uid: workload.uid.clone(),
        from: workload.replicas,
        replicas,
        beside: beside.filter(|_| replicas < workload.replicas),
    }))
}

impl Step {
    pub(super) fn at(moment: Timestamp) -> Self {
        Self {
            requeue_at: Some(moment),
            ..Self::default()
        }
    }

    pub(super) fn after(observation: &Observation, delay: SignedDuration) -> Self {
        Self::at(
            observation
                .now
                .saturating_add(delay)
                .unwrap_or(Timestamp::MAX),
        )
    }

    pub(super) fn waits(observation: &Observation, message: &str) -> Self {
        Self {
            hold: Some(Hold {
                kind: HoldKind::Requested,
                reason: Reason::GivingBack,
                message: format!("the Rollout is being deleted: {message}"),
            }),
            ..Self::after(observation, WRITE_INTERVAL)
        }
    }

    /// A wait that only a person can end; the stable revision serves meanwhile.
    pub(super) fn doubts(observation: &Observation, message: &str) -> Self {
        Self {
            hold: Some(Hold {
                kind: HoldKind::Doubt,
                reason: Reason::WorkloadInvalid,
                message: format!("the Rollout is being deleted and waits: {message}"),
            }),
            ..Self::after(observation, RESYNC_INTERVAL)
        }
    }

    /// The last step: nothing is left to wait for.
    pub(super) fn released() -> Self {
        Self {
            actions: vec![Action::Adoption(AdoptionAction::SetFinalizer {
                present: false,
            })],
            ..Self::default()
        }
    }
}
