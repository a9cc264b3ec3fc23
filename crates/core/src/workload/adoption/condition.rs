//! The condition of an adoption.

use countersign_api::rollout::Adopted;

use crate::hold::Hold;
use crate::reason::Reason;
use crate::traffic::view::View;
use crate::workload::adoption::{step, take_over};

/// Whether the Rollout serves in place of the workload: reason and message of the condition.
#[must_use]
pub fn state(view: &View, adopted: &Adopted, hold: Option<&Hold>) -> (bool, Reason, String) {
    let (serves, why, message) = progress(view, adopted, hold);
    match take_over::autoscaler_targets_workload(view.observation) {
        Some(sentence) => {
            let message = format!("{sentence}; {message}");
            (serves, Reason::AutoscalerMisdirected, message)
        }
        None => (serves, why, message),
    }
}

fn progress(view: &View, adopted: &Adopted, hold: Option<&Hold>) -> (bool, Reason, String) {
    let observation = view.observation;
    let (name, rollout) = (&adopted.name, &observation.name);
    if let Some(hold) = hold.filter(|_| observation.deleting) {
        return (false, Reason::GivingBack, hold.message.clone());
    }
    if !observation.conflicts.is_empty() {
        return (false, Reason::Conflict, observation.conflicts.join("; "));
    }
    let workload = match &observation.workload {
        Some(Ok(workload)) => workload,
        Some(Err(unusable)) => {
            let message = step::sentence(observation, unusable);
            return (false, Reason::WorkloadInvalid, message);
        }
        None => return (false, Reason::TakingOver, String::new()),
    };
    if workload.replicas == 0 && adopted.scaled_down {
        let message = format!(
            "Rollout {rollout} serves in place of Deployment {name}, whose template it runs"
        );
        return (true, Reason::TakenOver, message);
    }
    if adopted.scaled_down {
        let message = take_over::scaled_up(observation, workload);
        return (false, Reason::WorkloadScaledDown, message);
    }
    let available = view.fleet.pods.stable.available;
    let message = match (view.stable, &adopted.handed_over_at) {
        (None, _) => {
            format!("Deployment {name} keeps its pods until the first revision is stable")
        }
        (Some(_), None) => format!(
            "Deployment {name} keeps its pods until all {} of Rollout {rollout} serve: {available} are available",
            observation.spec.replicas
        ),
        (Some(_), Some(_)) => format!(
            "Rollout {rollout} serves; Deployment {name} is scaled down after {}",
            observation.spec.strategy.canary.drain
        ),
    };
    (false, Reason::TakingOver, message)
}
