//! The status of a Freeze.

use countersign_api::freeze::{FreezeSpec, FreezeStatus};
use k8s_openapi::jiff::Timestamp;

use crate::acceptance::{ACCEPTED, INVALID, Subject, UNREADABLE, accepted, refused, selectors};
use crate::condition::{ConditionDraft, fact};
use crate::people::freeze::is_over;

/// The condition for whether a Freeze is in force.
const ACTIVE: &str = "Active";

/// Whether a Freeze can be read, and whether it is in force.
#[must_use]
pub fn status(spec: &Result<FreezeSpec, String>, subject: Subject<'_>) -> FreezeStatus {
    let conditions = match spec {
        Ok(spec) => of(spec, subject.now),
        Err(problem) => {
            let message = format!(
                "this build cannot read the Freeze, so promotions of every Rollout wait: {problem}; fix or delete it, or upgrade the operator"
            );
            let mut conditions = refused(UNREADABLE, &message);
            let message = "this build cannot read the Freeze, so promotions wait";
            conditions.push(fact(ACTIVE, None, UNREADABLE, message));
            conditions
        }
    };
    FreezeStatus {
        observed_generation: subject.generation,
        conditions: subject.dated(conditions),
    }
}

fn of(spec: &FreezeSpec, now: Timestamp) -> Vec<ConditionDraft> {
    let (namespaces, rollouts) = (&spec.namespace_selector, &spec.rollout_selector);
    let problems: Vec<_> = selectors::problems(namespaces.as_ref(), rollouts.as_ref()).collect();
    let mut conditions = if problems.is_empty() {
        accepted(ACCEPTED, "the Freeze is used as it is written")
    } else {
        refused(INVALID, &problems.join("; "))
    };
    let until = spec.until.as_ref().map(|until| until.0);
    conditions.push(match until {
        Some(until) if is_over(spec, now) => {
            fact(ACTIVE, false, "Ended", &format!("it ended at {until:.0}"))
        }
        Some(until) => fact(ACTIVE, true, "InForce", &format!("until {until:.0}")),
        None => {
            let message = "until somebody sets spec.until, or deletes the Freeze";
            fact(ACTIVE, true, "InForce", message)
        }
    });
    conditions
}

/// When the status of a Freeze changes although nobody edits the Freeze.
#[must_use]
pub fn changes_at(spec: &Result<FreezeSpec, String>, now: Timestamp) -> Option<Timestamp> {
    let until = spec.as_ref().ok()?.until.as_ref()?.0;
    (until > now).then_some(until)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{Value, json};

    use super::*;
    use crate::acceptance::tests::summary;

    const UNTIL: &str = "2026-12-24T18:00:00Z";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn freeze(selector: &Value, until: &Value) -> Result<FreezeSpec, String> {
        let spec = json!({
            "reason": "a test", "person": { "username": "dave" }, "rolloutSelector": selector,
            "until": until,
        });
        serde_json::from_value(spec).map_err(|error| error.to_string())
    }

    fn status_at(
        spec: &Result<FreezeSpec, String>,
        before: &FreezeStatus,
        now: &str,
    ) -> FreezeStatus {
        let subject = Subject {
            conditions: &before.conditions,
            generation: 3,
            now: at(now),
        };
        status(spec, subject)
    }

    #[test]
    fn a_freeze_is_active_until_its_end_and_stays_accepted() {
        let spec = freeze(&Value::Null, &json!(UNTIL));
        let (begun, late) = ("2026-12-24T17:00:00Z", "2026-12-24T17:59:59Z");
        let active = status_at(&spec, &FreezeStatus::default(), begun);
        assert_eq!(active.observed_generation, 3);
        let expected = [
            (
                "Accepted",
                "True",
                "Accepted",
                "the Freeze is used as it is written",
            ),
            ("Active", "True", "InForce", "until 2026-12-24T18:00:00Z"),
        ];
        assert_eq!(summary(&active.conditions), expected);
        assert_eq!(
            status_at(&spec, &active, late),
            active,
            "nothing is written"
        );
        assert_eq!(changes_at(&spec, at(late)), Some(at(UNTIL)));

        let ended = status_at(&spec, &active, UNTIL);
        let expected = [
            (
                "Accepted",
                "True",
                "Accepted",
                "the Freeze is used as it is written",
            ),
            (
                "Active",
                "False",
                "Ended",
                "it ended at 2026-12-24T18:00:00Z",
            ),
        ];
        assert_eq!(summary(&ended.conditions), expected);
        assert_eq!(changes_at(&spec, at(UNTIL)), None);
        let times = ended
            .conditions
            .iter()
            .map(|it| it.last_transition_time.clone());
        let expected = [Time(at(begun)), Time(at(UNTIL))];
        assert_eq!(
            times.collect::<Vec<_>>(),
            expected,
            "each of its own change"
        );
    }

    #[test]
    fn a_freeze_without_an_end_is_active_for_ever() {
        let spec = freeze(&Value::Null, &Value::Null);
        let active = status_at(&spec, &FreezeStatus::default(), "9000-01-01T00:00:00Z");
        let (_, value, reason, _) = summary(&active.conditions)[1];
        assert_eq!((value, reason), ("True", "InForce"));
        assert_eq!(changes_at(&spec, at(UNTIL)), None);
    }

    #[test]
    fn a_freeze_that_selects_nothing_or_cannot_be_read_is_stalled() {
        let nothing = freeze(&json!({ "matchLabels": { "a b": "c" } }), &Value::Null);
        let unreadable = freeze(&Value::Null, &json!("2026-12-24T18:00:00+99:00"));
        for (spec, reason, active, words) in [
            (
                nothing,
                "Invalid",
                "True",
                "rolloutSelector.matchLabels: no object can have the label `a b=c`",
            ),
            (
                unreadable,
                "Unreadable",
                "Unknown",
                "so promotions of every Rollout wait: ",
            ),
        ] {
            let status = status_at(&spec, &FreezeStatus::default(), UNTIL);
            let facts = summary(&status.conditions);
            let values: Vec<_> = facts
                .iter()
                .map(|(kind, value, ..)| (*kind, *value))
                .collect();
            let expected = [
                ("Accepted", "False"),
                ("Active", active),
                ("Stalled", "True"),
            ];
            assert_eq!(values, expected);
            assert_eq!(facts[0].2, reason);
            assert!(facts[0].3.contains(words), "{facts:?}");
        }
    }
}
