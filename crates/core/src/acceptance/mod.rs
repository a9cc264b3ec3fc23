//! The statuses of RolloutPolicies, Freezes and AnalysisTemplates: whether this build can use them as they are written.
//! No decision depends on them.

pub mod freeze;
pub mod policy;
mod queries;
mod selectors;
pub mod template;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use crate::condition::{self, ConditionDraft, fact};

/// Why this build cannot read an object at all.
const UNREADABLE: &str = "Unreadable";
/// Some of its values have no effect, or hold Rollouts.
const INVALID: &str = "Invalid";
/// It is used as it is written.
const ACCEPTED: &str = "Accepted";

/// An object whose status is worked out.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The conditions that it has.
    pub conditions: &'a [Condition],
    /// Its generation.
    pub generation: i64,
    /// The present time.
    pub now: Timestamp,
}

impl Subject<'_> {
    fn dated(self, drafts: Vec<ConditionDraft>) -> Vec<Condition> {
        condition::dated(drafts, self.conditions, self.generation, self.now)
    }
}

fn accepted(reason: &str, message: &str) -> Vec<ConditionDraft> {
    vec![fact("Accepted", true, reason, message)]
}

/// An object that waits for a person is failed to kstatus, which does not know `Accepted`.
fn refused(reason: &str, message: &str) -> Vec<ConditionDraft> {
    let conditions = ["Accepted", "Stalled"].into_iter();
    let conditions = conditions.map(|kind| fact(kind, kind == "Stalled", reason, message));
    conditions.collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

    /// Type, value, reason and message of each.
    pub(crate) fn summary(conditions: &[Condition]) -> Vec<(&str, &str, &str, &str)> {
        let conditions = conditions.iter();
        let conditions = conditions.map(|it| (&*it.type_, &*it.status, &*it.reason, &*it.message));
        conditions.collect()
    }

    /// Of this spec, the first message has these words.
    pub(crate) fn assert_invalid(conditions: &[Condition], words: &str, spec: &str) {
        let facts = summary(conditions);
        let values: Vec<_> = facts
            .iter()
            .map(|(kind, value, reason, _)| (*kind, *value, *reason))
            .collect();
        let expected = [
            ("Accepted", "False", "Invalid"),
            ("Stalled", "True", "Invalid"),
        ];
        assert_eq!(values, expected, "{spec}");
        assert!(facts[0].3.contains(words), "{spec}: {facts:?}");
    }
}
