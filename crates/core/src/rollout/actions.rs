//! The writes to ReplicaSets and Services that follow from a status.

use countersign_api::rollout::Adopted;

use crate::change;
use crate::decision::Action;
use crate::proposal::Proposal;
use crate::traffic::view::View;
use crate::traffic::{actions, services};
use crate::workload::{cleanup, scaling};

/// The writes that bring the workload one step nearer to the status. Objects that another Rollout also
/// claims are not written; `held` means that the canary must stay as it is.
#[must_use]
pub fn actions(
    view: &View,
    proposal: &Proposal,
    adopted: Option<&Adopted>,
    held: bool,
) -> Vec<Action> {
    let observation = view.observation;
    let contested = !observation.conflicts.is_empty();
    let mut actions = if contested {
        Vec::new()
    } else {
        cleanup::ownership(observation)
    };
    // If an adopted workload serves again, Services and subsets must select its pods.
    let releases = change::releases_services(observation, adopted);
    let contested = contested || releases;
    if !releases {
        // Applied first on a rollback: pods and Services are changed only after they have been observed.
        actions.extend(actions::actions(view, held));
    }
    let selections = if contested {
        Vec::new()
    } else {
        services::selections(view)
    };
    actions.extend(scaling::min_ready_seconds(view));
    let moved = !selections.is_empty();
    actions.extend(selections);
    if !contested {
        actions.extend(services::former(view));
    }
    actions.extend(scaling::scaling(view, proposal, moved, held));
    actions.extend(cleanup::history(view, proposal.effective.history));
    actions
}
