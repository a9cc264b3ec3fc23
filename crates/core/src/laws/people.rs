//! Laws on sign-offs.

use std::collections::BTreeSet;

use countersign_api::rollout::{Change, Stage};
use countersign_api::sign_off::{SignOffDecision, SignOffSpec};
use countersign_api::step::SignOffDemand;

use crate::observation::Observation;

/// Sign-offs of eligible people for this attempt, counted independently.
pub(super) fn signed<'a>(
    observation: &'a Observation,
    before: &'a Change,
    decision: SignOffDecision,
) -> impl Iterator<Item = &'a SignOffSpec> {
    let believed = observation.people.admission.problems.is_empty();
    let since = observation.people.admission.since;
    let proven = observation.people.sign_offs.iter();
    let proven = proven.filter(move |seen| since.is_none_or(|since| since < seen.created_at));
    let specs = proven.map(|seen| &seen.spec);
    specs.filter(move |spec| {
        let user = spec.approver.username.to_lowercase();
        believed
            && spec.decision == decision
            && spec.run == before.run
            && spec.digest == before.digest
            && spec
                .expires_at
                .as_ref()
                .is_none_or(|end| end.0 > observation.now)
            && !user.starts_with("system:")
            && !before.excluded_approvers.users.contains(&user)
            && !before.excluded_approvers.users.contains("*")
            && spec
                .approver
                .groups
                .iter()
                .all(|it| !before.excluded_approvers.groups.contains(it))
    })
}

pub(super) fn has_break_glass(observation: &Observation, before: &Change) -> bool {
    signed(observation, before, SignOffDecision::BreakGlass)
        .next()
        .is_some()
}

pub(super) fn people_have_signed(
    observation: &Observation,
    before: &Change,
    after: &Change,
) -> bool {
    let entered = usize::try_from(after.step - 1)
        .ok()
        .and_then(|index| before.plan.steps.get(index));
    let (gate, demands, own) = match (after.stage, entered) {
        (Stage::Stepping, Some(step)) => (format!("step-{}", after.step), &step.sign_off, &[][..]),
        (Stage::Stepping, None) => return true,
        _ => {
            // What the Rollout requires now, whatever its plan holds.
            let own = &observation.spec.strategy.canary.promotion_sign_off[..];
            ("promotion".into(), &before.plan.promotion_sign_off, own)
        }
    };
    let mut demands = demands.iter().chain(own);
    demands.all(|demand| is_met(observation, before, &gate, demand))
        || has_break_glass(observation, before)
}

/// Whether a first revision has the people that it waits for, and none of them rejects it.
pub(super) fn may_have_first_pods(observation: &Observation, change: &Change) -> bool {
    let mut demands = change.plan.first_revision.iter();
    let met = demands.all(|demand| is_met(observation, change, "first-revision", demand));
    let mut rejections = signed(observation, change, SignOffDecision::Reject);
    let rejected = !change.plan.first_revision.is_empty() && rejections.next().is_some();
    !rejected && (met || has_break_glass(observation, change))
}

fn is_met(observation: &Observation, before: &Change, gate: &str, demand: &SignOffDemand) -> bool {
    let able = signed(observation, before, SignOffDecision::Approve).filter(|spec| {
        spec.gate.as_ref().is_none_or(|own| own == gate)
            && (demand.groups.is_empty()
                || spec
                    .approver
                    .groups
                    .iter()
                    .any(|it| demand.groups.contains(it)))
    });
    let people: BTreeSet<_> = able.map(|spec| &spec.approver.username).collect();
    usize::try_from(demand.count).is_ok_and(|count| people.len() >= count)
}
