//! Interventions in a change: which are pending, and which are refused.

use countersign_api::intervention::InterventionAction;
use countersign_api::rollout::Change;

use crate::observation::Observation;
use crate::observation::people::ObservedIntervention;
use crate::people::binding;
use crate::reason::Reason;

/// Pending interventions for this attempt, in order of creation.
#[must_use]
pub fn pending<'a>(observation: &'a Observation, change: &Change) -> Vec<&'a ObservedIntervention> {
    let mut pending: Vec<_> = observation
        .people
        .interventions
        .iter()
        .filter(|it| !it.answered)
        .filter(|it| {
            !change.handled_requests.contains(&it.uid) && !change.ignored_requests.contains(&it.uid)
        })
        .filter(|it| refusal(observation, change, it).is_none())
        .collect();
    pending.sort_by(|a, b| {
        let made = |it: &ObservedIntervention| (it.created_at, it.version);
        made(a).cmp(&made(b)).then_with(|| a.name.cmp(&b.name))
    });
    pending
}

/// Why an intervention is refused: reason and message.
///
/// Stopping is always safe: an abort or a pause needs no verified author.
#[must_use]
pub fn refusal(
    observation: &Observation,
    change: &Change,
    intervention: &ObservedIntervention,
) -> Option<(Reason, String)> {
    let spec = &intervention.spec;
    let names = (&*spec.rollout_uid, &*spec.run, &*spec.digest);
    if let Some(refusal) = binding::other_change(observation, change, names) {
        return Some(refusal);
    }
    match spec.action {
        InterventionAction::Abort | InterventionAction::Pause => None,
        InterventionAction::Resume | InterventionAction::Promote | InterventionAction::Retry => {
            binding::unproven(observation, intervention.created_at, &spec.person)
        }
    }
}

/// The author and reason of an intervention, in a sentence.
#[must_use]
pub fn describe(intervention: &ObservedIntervention) -> String {
    let spec = &intervention.spec;
    author_and_reason(&spec.person.username, spec.reason.as_deref())
}

/// An author and a reason, in a sentence.
#[must_use]
pub fn author_and_reason(user: &str, reason: Option<&str>) -> String {
    let reason = reason
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default();
    format!("{user}{reason}")
}
