//! Given and missing sign-offs for each gate of a change, from the conditions that the controller set.

use std::collections::BTreeMap;

use countersign_api::rollout::{Change, Stage};
use countersign_api::step::SignOffDemand;
use countersign_api::{SignOff, SignOffDecision};
use countersign_core::people::sign_off::FIRST_REVISION;
use countersign_core::reason::Reason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::cluster::answer::condition;

/// A gate of a plan that requires sign-offs.
#[derive(Debug, PartialEq, Eq)]
pub struct Gate {
    /// `step-N`, `promotion` or `first-revision`.
    pub name: String,
    /// Whether the change is past it.
    pub passed: bool,
    /// The demands with their sign-offs.
    pub demands: Vec<Demand>,
}

/// One demand of a gate.
#[derive(Debug, PartialEq, Eq)]
pub struct Demand {
    /// How many people.
    pub count: usize,
    /// The allowed groups; any if empty.
    pub groups: Vec<String>,
    /// The users who signed.
    pub signed: Vec<String>,
}

impl Demand {
    /// The number of missing sign-offs.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.count.saturating_sub(self.signed.len())
    }

    fn of_groups(&self) -> String {
        if self.groups.is_empty() {
            String::new()
        } else {
            format!(" of {}", self.groups.join(" or "))
        }
    }

    fn of_whom(&self) -> String {
        if self.groups.is_empty() {
            " with the role of an approver".to_owned()
        } else {
            self.of_groups()
        }
    }

    /// The demand in words, such as `2 people of approvers`.
    #[must_use]
    pub fn in_words(&self) -> String {
        let people = if self.count == 1 { "person" } else { "people" };
        format!("{} {people}{}", self.count, self.of_groups())
    }
}

impl Gate {
    /// The gate in a sentence: who signed, and who is missing.
    #[must_use]
    pub fn sentence(&self) -> String {
        let demands: Vec<_> = self.demands.iter().map(signed).collect();
        let missing: Vec<_> = self
            .demands
            .iter()
            .filter(|demand| demand.missing() > 0)
            .map(|demand| format!("{}{}", demand.missing(), demand.of_whom()))
            .collect();
        let end = match (self.passed, missing.is_empty()) {
            (true, _) => "passed".to_owned(),
            (false, true) => "nobody is missing".to_owned(),
            (false, false) => format!("missing: {}", missing.join(", ")),
        };
        format!("{}: {}; {end}", self.name, demands.join(", "))
    }
}

fn signed(demand: &Demand) -> String {
    let names = if demand.signed.is_empty() {
        String::new()
    } else {
        format!(" ({})", demand.signed.join(", "))
    };
    format!(
        "{} of {} signed{names}",
        demand.signed.len(),
        demand.in_words()
    )
}

/// Every gate of the plan that requires sign-offs, in order.
#[must_use]
pub fn gates(change: &Change, sign_offs: &[SignOff]) -> Vec<Gate> {
    all(change)
        .into_iter()
        .filter(|(_, _, demands)| !demands.is_empty())
        .map(|(name, passed, demands)| Gate {
            demands: demands
                .iter()
                .map(|demand| met(demand, &name, change, sign_offs))
                .collect(),
            name,
            passed,
        })
        .collect()
}

/// All gates of the plan: their names, whether the change is past them, and their demands.
fn all(change: &Change) -> Vec<(String, bool, &[SignOffDemand])> {
    let plan = &change.plan;
    if change.initial {
        let passed = change.served || change.outcome.is_some();
        let demands = plan.first_revision.as_slice();
        return vec![(FIRST_REVISION.to_owned(), passed, demands)];
    }
    let steps = plan.steps.iter().zip(1..).map(|(step, number)| {
        let passed = change.step >= number;
        (format!("step-{number}"), passed, step.sign_off.as_slice())
    });
    let promoted = matches!(change.stage, Stage::Promoting | Stage::Promoted);
    let demands = plan.promotion_sign_off.as_slice();
    let last = ("promotion".to_owned(), promoted, demands);
    steps.chain([last]).collect()
}

fn met(demand: &SignOffDemand, gate: &str, change: &Change, sign_offs: &[SignOff]) -> Demand {
    let of_group = |sign_off: &&SignOff| {
        let groups = &sign_off.spec.approver.groups;
        demand.groups.is_empty() || groups.iter().any(|group| demand.groups.contains(group))
    };
    let for_gate = |sign_off: &&SignOff| {
        sign_off.spec.decision == SignOffDecision::Approve
            && sign_off
                .spec
                .gate
                .as_deref()
                .is_none_or(|named| named == gate)
    };
    let people: BTreeMap<String, String> = sign_offs
        .iter()
        .filter(|sign_off| is_for(sign_off, change) && counts(sign_off))
        .filter(for_gate)
        .filter(of_group)
        .map(|sign_off| {
            let name = &sign_off.spec.approver.username;
            (name.to_lowercase(), name.clone())
        })
        .collect();
    Demand {
        count: usize::try_from(demand.count).unwrap_or(0),
        groups: demand.groups.clone(),
        signed: people.into_values().collect(),
    }
}

/// Whether a sign-off is for this attempt at this change.
#[must_use]
pub fn is_for(sign_off: &SignOff, change: &Change) -> bool {
    sign_off.spec.run == change.run && sign_off.spec.digest == change.digest
}

/// The controller's condition on a sign-off, if it is set.
#[must_use]
pub fn verdict(sign_off: &SignOff) -> Option<&Condition> {
    let status = sign_off.status.as_ref()?;
    condition(&status.conditions, Reason::Counts.as_str())
}

/// Whether the controller counts a sign-off.
#[must_use]
pub fn counts(sign_off: &SignOff) -> bool {
    verdict(sign_off).is_some_and(|condition| condition.status == "True")
}

/// Sign-offs for a change other than counted approvals: rejections, break-glass, and those that do not
/// count, with the reason.
#[must_use]
pub fn remarks(change: &Change, sign_offs: &[SignOff]) -> Vec<String> {
    let remark = |sign_off: &SignOff| {
        let who = &sign_off.spec.approver.username;
        let why = sign_off.spec.reason.as_deref().unwrap_or_default();
        let what = match sign_off.spec.decision {
            SignOffDecision::Approve => format!("approval by {who}"),
            SignOffDecision::Reject => format!("rejection by {who} ({why})"),
            SignOffDecision::BreakGlass => format!("break-glass by {who} ({why})"),
        };
        let gate = sign_off.spec.gate.as_deref().unwrap_or_default();
        match verdict(sign_off) {
            None => Some(format!("{what}: the controller has not judged it yet")),
            Some(condition) if condition.status != "True" => Some(format!(
                "{what} does not count: {}: {}",
                condition.reason, condition.message
            )),
            Some(_) if sign_off.spec.decision != SignOffDecision::Approve => {
                Some(format!("{what} counts"))
            }
            Some(_) => gate
                .starts_with("evidence-")
                .then(|| format!("{what} accepts scarce evidence: {gate}")),
        }
    };
    let mine = sign_offs.iter().filter(|sign_off| is_for(sign_off, change));
    mine.filter_map(remark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::{sign_off, waiting};

    fn sentences(sign_offs: &[SignOff]) -> Vec<String> {
        let rollout = waiting().rollout;
        let change = rollout.status.unwrap().change.unwrap();
        gates(&change, sign_offs)
            .iter()
            .map(Gate::sentence)
            .collect()
    }

    #[test]
    fn those_who_signed_are_named_and_those_missing_are_counted() {
        assert_eq!(
            sentences(&[sign_off("bob", &["approvers"], None, "True", "Counts")]),
            [
                "step-2: 1 of 2 people of approvers signed (bob), 0 of 1 person of senior signed; missing: 1 of approvers, 1 of senior",
                "promotion: 1 of 1 person signed (bob); nobody is missing",
            ]
        );
        assert_eq!(
            sentences(&[
                sign_off("bob", &["approvers"], Some("step-2"), "True", "Counts"),
                sign_off("carol", &["approvers", "senior"], None, "True", "Counts"),
            ])[0],
            "step-2: 2 of 2 people of approvers signed (bob, carol), 1 of 1 person of senior signed (carol); nobody is missing"
        );
    }

    #[test]
    fn a_first_revision_has_a_gate_of_its_own_and_no_other() {
        let rollout = waiting().rollout;
        let mut change = rollout.status.unwrap().change.unwrap();
        change.initial = true;
        assert_eq!(gates(&change, &[]), []);
        change.plan.first_revision = vec![SignOffDemand {
            count: 1,
            groups: vec!["platform".into()],
        }];
        let signed = sign_off("bob", &["platform"], Some(FIRST_REVISION), "True", "Counts");
        let gates = gates(&change, &[signed]);
        let sentences: Vec<_> = gates.iter().map(Gate::sentence).collect();
        assert_eq!(
            sentences,
            ["first-revision: 1 of 1 person of platform signed (bob); nobody is missing"]
        );
    }

    #[test]
    fn only_what_the_controller_counts_for_this_gate_and_change_is_counted() {
        let mut other_run = sign_off("dan", &["approvers"], None, "True", "Counts");
        other_run.spec.run = "web-old-1".into();
        let mut rejection = sign_off("erin", &["approvers"], None, "True", "Counts");
        rejection.spec.decision = SignOffDecision::Reject;
        let sign_offs = [
            sign_off("alice", &["approvers"], None, "False", "ByAuthor"),
            sign_off("frank", &["approvers"], Some("promotion"), "True", "Counts"),
            sign_off("BOB", &["approvers"], None, "True", "Counts"),
            sign_off("bob", &["approvers"], None, "True", "Counts"),
            other_run,
            rejection,
        ];
        assert!(
            sentences(&sign_offs)[0]
                .starts_with("step-2: 1 of 2 people of approvers signed (bob),"),
            "{:?}",
            sentences(&sign_offs)
        );
    }

    #[test]
    fn why_a_sign_off_does_not_count_is_repeated() {
        let rollout = waiting().rollout;
        let change = rollout.status.unwrap().change.unwrap();
        let mut unjudged = sign_off("gus", &[], None, "True", "Counts");
        unjudged.status = None;
        assert_eq!(
            remarks(
                &change,
                &[
                    sign_off("alice", &[], None, "False", "ByAuthor"),
                    sign_off("bob", &[], None, "True", "Counts"),
                    sign_off("carol", &[], Some("evidence-1"), "True", "Counts"),
                    unjudged,
                ]
            ),
            [
                "approval by alice does not count: ByAuthor: reported by the controller",
                "approval by carol accepts scarce evidence: evidence-1",
                "approval by gus: the controller has not judged it yet",
            ]
        );
    }
}
