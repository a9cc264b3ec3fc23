//! Which waiting Rollouts a change wakes.

use countersign_api::rollout::{RolloutStatus, Stage};
use k8s_openapi::jiff::Timestamp;

use crate::change;
use crate::queue::dependencies;
use crate::reason::Reason;

/// Since when a Rollout waits for others, according to its status.
#[must_use]
pub fn waits_since(status: &RolloutStatus) -> Option<Timestamp> {
    let change = status.change.as_ref()?;
    let since = if change::waits_for(status, Reason::Queued) {
        &change.queued_at
    } else if change::waits_for(status, Reason::AwaitingDependency) {
        &change.started_at
    } else {
        &None
    };
    since.as_ref().map(|since| since.0)
}

/// Whether a decision ends something that other Rollouts may wait for.
#[must_use]
pub fn releases_slot(before: &RolloutStatus, after: &RolloutStatus) -> bool {
    let ends = takes_place(before) && !takes_place(after);
    ends || (dependencies::unsettled(before).is_some() && dependencies::unsettled(after).is_none())
}

fn takes_place(status: &RolloutStatus) -> bool {
    status.change.as_ref().is_some_and(|change| {
        let under_way = change.outcome.is_none() && change.stage != Stage::Waiting;
        !change.initial && (under_way || change.stage == Stage::RollingBack)
    })
}
