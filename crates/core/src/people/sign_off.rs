//! Which sign-offs count for the change under way, and which are missing.
//!
//! The admission policy has checked each author; this checks them again as far as possible, and decides
//! what only the controller can: distinct people, expiry, the present attempt. Start with [`SignOffs::of`].

use std::collections::BTreeSet;

use countersign_api::rollout::{Change, Plan, RolloutStatus};
use countersign_api::sign_off::SignOffDecision;
use countersign_api::step::SignOffDemand;
use k8s_openapi::jiff::Timestamp;

use crate::change::has_begun;
use crate::observation::Observation;
use crate::observation::people::ObservedSignOff;
use crate::people::{binding, eligibility};
use crate::proposal::Proposal;
use crate::reason::Reason;

/// The gate before the first pod of a first revision.
pub const FIRST_REVISION: &str = "first-revision";

/// The sign-offs of an observation, each with its verdict.
#[derive(Clone, Debug, Default)]
pub struct SignOffs<'a> {
    evaluated: Vec<EvaluatedSignOff<'a>>,
}

/// One sign-off and whether it counts.
#[derive(Clone, Debug)]
pub struct EvaluatedSignOff<'a> {
    /// The sign-off.
    pub sign_off: &'a ObservedSignOff,
    /// Every name of its author, by which two people are distinguished.
    person: BTreeSet<String>,
    /// Why it does not count: reason and message.
    pub refused: Option<(Reason, String)>,
}

impl<'a> SignOffs<'a> {
    /// Evaluates every sign-off of an observation for a change.
    #[must_use]
    pub fn of(observation: &'a Observation, proposal: &Proposal, change: &Change) -> Self {
        let mut seen: Vec<_> = observation.people.sign_offs.iter().collect();
        // Of two sign-offs of the same second, the one that counted first continues to count.
        let age = |it: &ObservedSignOff| (it.created_at, !matches!(it.answer, Some((true, _))));
        seen.sort_by(|a, b| age(a).cmp(&age(b)).then_with(|| a.name.cmp(&b.name)));
        let mut evaluated: Vec<EvaluatedSignOff> = Vec::new();
        for sign_off in seen {
            let person =
                eligibility::names(&sign_off.spec.approver.username, &proposal.effective.people);
            let refused = refusal(observation, proposal, change, sign_off, &person).or_else(|| {
                let same = evaluated
                    .iter()
                    .find(|other| other.repeats(sign_off, &person))?;
                let message = format!(
                    "{} has the same decision and counts already",
                    same.sign_off.name
                );
                Some((Reason::SamePerson, message))
            });
            evaluated.push(EvaluatedSignOff {
                sign_off,
                person,
                refused,
            });
        }
        Self { evaluated }
    }

    /// All sign-offs, oldest first.
    pub fn all(&self) -> impl Iterator<Item = &EvaluatedSignOff<'a>> {
        self.evaluated.iter()
    }

    fn counting(&self, decision: SignOffDecision) -> impl Iterator<Item = &EvaluatedSignOff<'a>> {
        let counts = move |it: &&EvaluatedSignOff| {
            it.refused.is_none() && it.sign_off.spec.decision == decision
        };
        self.evaluated.iter().filter(counts)
    }

    /// The rejection that counts, if any.
    #[must_use]
    pub fn rejection(&self) -> Option<&'a ObservedSignOff> {
        self.counting(SignOffDecision::Reject)
            .next()
            .map(|it| it.sign_off)
    }

    /// Whether a break-glass sign-off counts.
    #[must_use]
    pub fn has_break_glass(&self) -> bool {
        self.counting(SignOffDecision::BreakGlass).next().is_some()
    }

    /// Whether a break-glass sign-off counts, or might count while its author cannot be verified.
    #[must_use]
    pub fn may_have_break_glass(&self) -> bool {
        let unproven = |it: &EvaluatedSignOff| {
            it.sign_off.spec.decision == SignOffDecision::BreakGlass
                && matches!(it.refused, Some((Reason::Unproven, _)))
        };
        self.has_break_glass() || self.evaluated.iter().any(unproven)
    }

    /// Whether a sign-off accepts the scarce evidence of a step.
    #[must_use]
    pub fn accepts_evidence_of(&self, step: i32) -> bool {
        let gate = evidence_gate(step);
        self.counting(SignOffDecision::Approve)
            .any(|it| it.sign_off.spec.gate.as_deref() == Some(&gate))
    }

    /// When the next of the counting sign-offs expires.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Timestamp> {
        let counting = self.evaluated.iter().filter(|it| it.refused.is_none());
        let ends = counting.filter_map(|it| it.sign_off.spec.expires_at.as_ref());
        ends.map(|end| end.0).min()
    }

    /// The unmet demands of a gate in words; empty if all are met.
    #[must_use]
    pub fn missing(&self, gate: &str, demands: &[SignOffDemand]) -> Vec<String> {
        let for_gate = |it: &&EvaluatedSignOff| {
            it.sign_off
                .spec
                .gate
                .as_deref()
                .is_none_or(|own| own == gate)
        };
        let signed: Vec<_> = self
            .counting(SignOffDecision::Approve)
            .filter(for_gate)
            .collect();
        let missing = demands.iter().filter_map(|demand| {
            let able: Vec<_> = signed
                .iter()
                .filter(|it| it.may_meet(demand))
                .copied()
                .collect();
            let people = distinct(&able);
            let enough = usize::try_from(demand.count).is_ok_and(|count| people.len() >= count);
            (!enough).then(|| describe(demand, &people))
        });
        missing.collect()
    }
}

impl EvaluatedSignOff<'_> {
    fn repeats(&self, other: &ObservedSignOff, person: &BTreeSet<String>) -> bool {
        self.refused.is_none()
            && self.sign_off.spec.decision == other.spec.decision
            && self.sign_off.spec.gate == other.spec.gate
            && !self.person.is_disjoint(person)
    }

    fn may_meet(&self, demand: &SignOffDemand) -> bool {
        let groups = &self.sign_off.spec.approver.groups;
        demand.groups.is_empty() || demand.groups.iter().any(|group| groups.contains(group))
    }
}

/// One user name per person.
fn distinct<'a>(signed: &[&'a EvaluatedSignOff]) -> Vec<&'a str> {
    let mut people: Vec<&EvaluatedSignOff> = Vec::new();
    for it in signed {
        if people
            .iter()
            .all(|known| known.person.is_disjoint(&it.person))
        {
            people.push(it);
        }
    }
    people
        .iter()
        .map(|it| it.sign_off.spec.approver.username.as_str())
        .collect()
}

fn refusal(
    observation: &Observation,
    proposal: &Proposal,
    change: &Change,
    sign_off: &ObservedSignOff,
    person: &BTreeSet<String>,
) -> Option<(Reason, String)> {
    let spec = &sign_off.spec;
    let names = (&*spec.rollout_uid, &*spec.run, &*spec.digest);
    let unbound = binding::other_change(observation, change, names)
        .or_else(|| binding::unproven(observation, sign_off.created_at, &spec.approver));
    if unbound.is_some() {
        return unbound;
    }
    // Stopping a change is safe, so nobody is excluded from rejecting it.
    if spec.decision != SignOffDecision::Reject
        && let Some(excluded) = exclusion(proposal, change, sign_off, person)
    {
        return Some(excluded);
    }
    if let Some(end) = spec
        .expires_at
        .as_ref()
        .filter(|end| end.0 <= observation.now)
    {
        return Some((Reason::Expired, format!("it expired at {:.0}", end.0)));
    }
    let gate = spec
        .gate
        .as_deref()
        .filter(|gate| !gates(change).contains(*gate))?;
    Some((Reason::NoSuchGate, format!("the plan has no gate {gate}")))
}

/// Why the author of a sign-off must not let the change continue.
fn exclusion(
    proposal: &Proposal,
    change: &Change,
    sign_off: &ObservedSignOff,
    person: &BTreeSet<String>,
) -> Option<(Reason, String)> {
    let approver = &sign_off.spec.approver;
    let user = &approver.username;
    let excluded = &change.excluded_approvers;
    let mut groups = approver.groups.iter();
    if let Some(group) = groups.find(|it| excluded.groups.contains(*it)) {
        let message = format!("{user} is in group {group}, which stands for AI agents by policy");
        return Some((Reason::ByAgent, message));
    }
    if excluded.users.contains(eligibility::ANYBODY) {
        let message = format!(
            "{user} may have a hand in the change: more people have than can be named; apply the stable template, then the change again"
        );
        return Some((Reason::ByAuthor, message));
    }
    if let Some(problem) = proposal.provenance.hidden_people() {
        let message = format!("{user} may be an author: {problem}");
        return Some((Reason::ByAuthor, message));
    }
    if !person.is_disjoint(&excluded.users) {
        let message = format!("{user} wrote the change, drove its AI or changed the Rollout");
        return Some((Reason::ByAuthor, message));
    }
    let unknown = eligibility::unknown_person(proposal, user, person)?;
    Some((Reason::UnknownPerson, unknown))
}

/// Whether any gate of a change demands sign-offs.
#[must_use]
pub fn is_required(change: &Change) -> bool {
    let Plan {
        steps,
        promotion_sign_off,
        first_revision,
        ..
    } = &change.plan;
    if change.initial {
        return !first_revision.is_empty();
    }
    !promotion_sign_off.is_empty() || steps.iter().any(|step| !step.sign_off.is_empty())
}

/// Whether people are asked before a first revision gets its first pod.
#[must_use]
pub fn awaits_first(change: &Change) -> bool {
    change.initial && change.outcome.is_none() && is_required(change) && !has_begun(change)
}

/// Why a first revision may not get its first pod yet, in words; `None` if it may.
#[must_use]
pub fn first_awaited(
    observation: &Observation,
    change: &Change,
    sign_offs: &SignOffs,
) -> Option<(Reason, String)> {
    if !awaits_first(change) {
        return None;
    }
    let mut lines = change.transitions.iter();
    let recorded = lines.find(|line| line.reason == Reason::Rejected);
    let by = |no: &ObservedSignOff| format!("rejected by {}", no.spec.approver.username);
    let rejected = recorded.map(|line| line.message.clone());
    if let Some(rejected) = rejected.or_else(|| sign_offs.rejection().map(by)) {
        let message = format!(
            "the first revision was {rejected}; edit the template or the provenance, or delete the Rollout"
        );
        return Some((Reason::Rejected, message));
    }
    let (gate, demands) = next_gate(change);
    let missing = sign_offs.missing(&gate, demands);
    if missing.is_empty() || sign_offs.has_break_glass() {
        return None;
    }
    let again = if change.made_again {
        ", as a deleted Rollout of this name may have promoted another template"
    } else {
        ""
    };
    let required = format!("gate {gate} requires {}{again}", missing.join(" and "));
    Some((Reason::AwaitingSignOff, required + &unproven(observation)))
}

/// That no sign-off counts at present, if so, as the end of a sentence.
#[must_use]
pub fn unproven(observation: &Observation) -> String {
    let problem = observation.people.admission.problems.first();
    let sentence = problem.map(|problem| format!("; no sign-off counts now: {problem}"));
    sentence.unwrap_or_default()
}

/// The names of all gates of a change.
fn gates(change: &Change) -> BTreeSet<String> {
    if change.initial {
        return BTreeSet::from([FIRST_REVISION.to_owned()]);
    }
    let steps = 1..=change.plan.steps.len();
    let steps = steps.flat_map(|step| [format!("step-{step}"), format!("evidence-{step}")]);
    steps.chain(["promotion".to_owned()]).collect()
}

/// The gate before the next step, with the demands of the plan.
#[must_use]
pub fn next_gate(change: &Change) -> (String, &[SignOffDemand]) {
    if change.initial {
        return (FIRST_REVISION.into(), &change.plan.first_revision);
    }
    let next = usize::try_from(change.step).unwrap_or(0);
    match change.plan.steps.get(next) {
        Some(step) => (format!("step-{}", next + 1), &step.sign_off),
        None => ("promotion".into(), &change.plan.promotion_sign_off),
    }
}

/// The gate at which a person accepts the scarce evidence of a step.
#[must_use]
pub fn evidence_gate(step: i32) -> String {
    format!("evidence-{step}")
}

/// When a change that waits for people is rolled back; `None` if it does not wait for them, or as long as it takes.
#[must_use]
pub fn deadline(status: &RolloutStatus) -> Option<Timestamp> {
    let change = status.change.as_ref()?;
    let gate = match status.waiting_for.as_deref().and_then(Reason::parse)? {
        Reason::AwaitingSignOff => next_gate(change).0,
        Reason::AwaitingPerson => evidence_gate(change.step),
        _ => return None,
    };
    let since = change.awaited_gates.get(&gate)?.0;
    let longest = change.plan.strictness.wait_at_most.signed();
    since.saturating_add(longest).ok()
}

/// A demand in words, with those who have signed already.
#[must_use]
pub fn describe(demand: &SignOffDemand, signed: &[&str]) -> String {
    let people = if demand.count == 1 {
        "person"
    } else {
        "people"
    };
    let groups = if demand.groups.is_empty() {
        String::new()
    } else {
        format!(" of {}", demand.groups.join(" or "))
    };
    let so_far = if signed.is_empty() {
        String::new()
    } else {
        format!(" ({} so far: {})", signed.len(), signed.join(", "))
    };
    format!("{} {people}{groups}{so_far}", demand.count)
}
