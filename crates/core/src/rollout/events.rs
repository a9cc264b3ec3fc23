//! The Events of a decision.

use countersign_api::rollout::Change;

use crate::change;
use crate::decision::Notice;
use crate::hold::{Hold, HoldKind};
use crate::observation::Observation;
use crate::reason::{Reason, Wait};

/// Each transition that this decision recorded becomes an Event.
pub(super) fn notices(observation: &Observation, change: Option<&Change>) -> Vec<Notice> {
    let before = observation.status.change.as_ref();
    let before = before.filter(|before| change.is_some_and(|change| change.run == before.run));
    let before = before.map_or(0, |before| before.transitions.len());
    let transitions = change
        .into_iter()
        .flat_map(|change| change.transitions.iter().skip(before));
    transitions
        .map(|transition| Notice {
            reason: transition.reason.clone(),
            action: format!("Step{}Weight{}", transition.step, transition.weight),
            message: transition.message.clone(),
            warning: Reason::parse(&transition.reason).is_some_and(|it| it.class().warning),
        })
        .collect()
}

/// Each new hold that does not end with time alone becomes an Event.
pub(super) fn hold_notice(observation: &Observation, hold: Option<&Hold>) -> Option<Notice> {
    let hold = hold.filter(|hold| {
        let known = change::waits_for(&observation.status, hold.reason);
        !matches!(hold.kind, HoldKind::Time(_)) && !known
    })?;
    Some(Notice {
        reason: hold.reason.into(),
        action: "Hold".into(),
        message: hold.message.clone(),
        warning: hold.kind == HoldKind::Doubt
            && !matches!(hold.reason.class().wait, Wait::Pods | Wait::Smoke),
    })
}
