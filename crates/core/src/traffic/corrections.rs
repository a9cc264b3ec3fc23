//! Weights that others have set, and how they are set back.

use countersign_api::rollout::RolloutStatus;
use k8s_openapi::jiff::SignedDuration;

use crate::decision::Notice;
use crate::observation::Observation;
use crate::observation::traffic::Route;
use crate::reason;
use crate::traffic::route::rule;
use crate::traffic::{routes, share};

/// Least time between two corrections of what somebody else sets.
const PATIENCE: SignedDuration = SignedDuration::from_secs(5);

/// Somebody who sets weights again and again is answered at most once in a while.
pub(super) fn is_patient(observation: &Observation, status: &RolloutStatus, share: i32) -> bool {
    let before = observation.status.traffic.as_ref();
    before.is_some_and(|it| {
        let corrected = it
            .corrected_at
            .as_ref()
            .filter(|_| it.settled_weight == share);
        corrected.is_some_and(|at| observation.now.duration_since(at.0) < PATIENCE)
    }) && status.change.is_some()
}

/// Whose weights are set back by this decision: that of a route that had been as it should be.
pub(super) fn correction<'a>(
    observation: &'a Observation,
    status: &RolloutStatus,
) -> Option<&'a Route> {
    let before = observation.status.traffic.as_ref()?;
    let share = share::wanted(observation, status);
    let was_right = before.settled_at.is_some() || before.corrected_at.is_some();
    let mine = was_right && before.settled_weight == share;
    if !mine || is_patient(observation, status, share) {
        return None;
    }
    observation.routes.iter().find(|route| {
        routes::rules_of(observation, route)
            .is_ok_and(|rules| !rules.iter().all(|rule| rule.is_at(share)))
    })
}

/// What to say where somebody else had set the weights.
#[must_use]
pub fn correction_notice(observation: &Observation, status: &RolloutStatus) -> Option<Notice> {
    let route = correction(observation, status)?;
    let (kind, name) = (route.reference.kind, &route.reference.name);
    let object = route.object.as_ref().ok()?;
    let who = object.last_writer.as_deref().unwrap_or("somebody");
    let found = rule::share(&routes::rules_of(observation, route).ok()?);
    let share = Some(share::wanted(observation, status)).filter(|share| *share != found)?;
    Some(Notice {
        reason: reason::WEIGHTS_CORRECTED.into(),
        action: format!("SetWeight{share}"),
        message: format!(
            "{kind} {name}: {who} set the canary's weight to {found}%, and it is set back to {share}%: let whatever applies the route leave the weights of its two Services alone"
        ),
        warning: true,
    })
}
