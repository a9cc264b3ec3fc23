//! Whether a sign-off or an intervention is for the present attempt, and its author is verified.

use countersign_api::person::Person;
use countersign_api::rollout::Change;
use k8s_openapi::jiff::Timestamp;

use crate::observation::Observation;
use crate::people::eligibility;
use crate::reason::Reason;

/// Why the object is not for the present attempt: reason and message. It must name the uid of a Rollout, a
/// RolloutRun and the digest of a change.
pub(super) fn other_change(
    observation: &Observation,
    change: &Change,
    (rollout_uid, run, digest): (&str, &str, &str),
) -> Option<(Reason, String)> {
    let present = (&*observation.uid, &*change.run, &*change.digest);
    ((rollout_uid, run, digest) != present).then(|| {
        let message = format!(
            "it is for run {run} and the change under way is {}",
            change.run
        );
        (Reason::OtherChange, message)
    })
}

/// Why the author is not verified: reason and message.
pub(super) fn unproven(
    observation: &Observation,
    created_at: Timestamp,
    person: &Person,
) -> Option<(Reason, String)> {
    if let Some(problem) = observation.people.admission.disproves(created_at) {
        return Some((Reason::Unproven, problem));
    }
    let user = &person.username;
    eligibility::is_machine(user, &person.groups)
        .then(|| (Reason::NotAPerson, format!("{user} is not a person")))
}
