//! A workload that a Rollout adopts, and the objects that a deleted Rollout leaves behind.
//!
//! ```text
//!              own pods serve, `drain` passes             the Rollout is deleted
//!   TakingOver ───────────────────────────── TakenOver ───────────────────────────── GivingBack
//!                 workload scaled to 0       │   ▲       workload scaled up, Services let go
//!                                            └───┘
//!                               somebody scaled it up: scaled down again
//! ```
//!
//! The workload keeps its pod template, which the Rollout runs: editing it is a change. Its own pods are
//! removed only while the stable revision can serve, and the Rollout's only once the workload's pods can.

pub mod condition;
pub mod restore;
pub mod step;
pub mod take_over;

use countersign_api::rollout::{Adopted, Change};

use crate::decision::{Action, AdoptionAction};
use crate::hold::{Hold, HoldKind};
use crate::observation::Observation;
use crate::observation::workload::Workload;
use crate::proposal::Proposal;
use crate::reason::Reason;
use crate::traffic::view::View;
use crate::workload::adoption::step::Step;

/// The next step of taking over or restoring. `others` are the other actions of this decision: pods are
/// released only if there are none.
#[must_use]
pub fn step(
    view: &View,
    proposal: &Proposal,
    adopted: &mut Option<Adopted>,
    others: &[Action],
) -> Step {
    let observation = view.observation;
    let name = observation.spec.workload_ref.as_ref().map(|it| &it.name);
    if adopted.as_ref().map(|it| &it.name) != name {
        *adopted = name.map(|name| Adopted {
            name: name.clone(),
            ..Adopted::default()
        });
    }
    if observation.deleting {
        return restore::deletion(view, proposal, adopted.as_mut(), others);
    }
    let mut step = match (&observation.workload, adopted) {
        (Some(Ok(workload)), Some(adopted)) if observation.conflicts.is_empty() => {
            take_over::take_over(view, adopted, workload)
        }
        _ => Step::default(),
    };
    let keeps = observation.spec.keeps_pods();
    if keeps != observation.deletion.awaited {
        let finalizer = AdoptionAction::SetFinalizer { present: keeps };
        step.actions.push(Action::Adoption(finalizer));
    }
    step.notices
        .extend(take_over::misdirected_autoscaler(observation));
    step
}

/// Why no change begins or advances: the workload cannot be adopted as it is.
#[must_use]
pub fn obstacle(observation: &Observation, change: Option<&Change>) -> Option<Hold> {
    let message = match observation.workload.as_ref()? {
        Err(unusable) => step::sentence(observation, unusable),
        Ok(workload) => fewer_pods(observation, change?, workload)?,
    };
    Some(Hold {
        kind: HoldKind::Doubt,
        reason: Reason::WorkloadInvalid,
        message,
    })
}

/// A Rollout with fewer pods would take over traffic that it cannot carry: one pod, if `replicas` was only
/// omitted.
fn fewer_pods(observation: &Observation, change: &Change, workload: &Workload) -> Option<String> {
    let desired = observation.spec.replicas;
    let takes_over = change.initial && observation.status.stable.is_none();
    (takes_over && desired < workload.replicas).then(|| {
        let (name, replicas) = (&workload.name, workload.replicas);
        format!(
            "spec.replicas is {desired} and that of Deployment {name} is {replicas}: set spec.replicas to {replicas}, or scale the Deployment down first"
        )
    })
}

#[cfg(test)]
mod tests;
