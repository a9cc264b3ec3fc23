//! How it stands, for people.

use countersign_api::rollout::{Adopted, RolloutStatus};

use crate::hold::Hold;
use crate::observation::Observation;
use crate::reason;
use crate::replicas::present;
use crate::workload::adoption::{step, take_over};

/// Whether the Rollout serves in place of the workload: a word and a sentence for the condition.
#[must_use]
pub fn standing(
    observation: &Observation,
    status: &RolloutStatus,
    hold: Option<&Hold>,
) -> Option<(bool, &'static str, String)> {
    let adopted = status.adopted.as_ref()?;
    let (stands, why, message) = progress(observation, status, adopted, hold);
    Some(match take_over::misdirected(observation) {
        Some(sentence) => {
            let message = format!("{sentence}; {message}");
            (stands, reason::AUTOSCALER_MISDIRECTED, message)
        }
        None => (stands, why, message),
    })
}

fn progress(
    observation: &Observation,
    status: &RolloutStatus,
    adopted: &Adopted,
    hold: Option<&Hold>,
) -> (bool, &'static str, String) {
    let (name, rollout) = (&adopted.name, &observation.name);
    if let Some(hold) = hold.filter(|_| observation.deleting) {
        return (false, reason::GIVING_BACK, hold.message.clone());
    }
    if !observation.conflicts.is_empty() {
        return (false, reason::CONFLICT, observation.conflicts.join("; "));
    }
    let workload = match &observation.workload {
        Some(Ok(workload)) => workload,
        Some(Err(unusable)) => {
            let message = step::sentence(observation, unusable);
            return (false, reason::WORKLOAD_INVALID, message);
        }
        None => return (false, reason::TAKING_OVER, String::new()),
    };
    if workload.replicas == 0 && adopted.scaled_down {
        let message = format!(
            "Rollout {rollout} serves in place of Deployment {name}, whose template it runs"
        );
        return (true, reason::TAKEN_OVER, message);
    }
    if adopted.scaled_down {
        let message = take_over::scaled_up(observation, workload);
        return (false, reason::WORKLOAD_SCALED_DOWN, message);
    }
    let available = present::present(observation, status).stable.available;
    let message = match (&status.stable, &adopted.handed_over_at) {
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
    (false, reason::TAKING_OVER, message)
}
