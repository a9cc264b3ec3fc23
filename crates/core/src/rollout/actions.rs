//! From a status to the ReplicaSets and Services that it asks for.

use countersign_api::rollout::Adopted;

use crate::change;
use crate::decision::Action;
use crate::proposal::Proposal;
use crate::traffic::view::View;
use crate::traffic::{actions, services};
use crate::workload::{cleanup, scaling};

/// The writes that bring the workload one step nearer to what the status asks for. What another
/// Rollout claims too is left alone; `held` says that somebody wants the canary to stay as it is.
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
    // An adopted workload that serves again must be reached by what has sent to single revisions.
    let releases = change::releases_services(observation, adopted);
    let contested = contested || releases;
    if !releases {
        // First of all, for a rollback: what rises with it waits for Services and pods that were seen.
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
    actions.extend(cleanup::history(view));
    actions
}
