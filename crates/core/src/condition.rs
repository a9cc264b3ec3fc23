//! Conditions of a status. The transition time of one changes only with its value, as the API conventions
//! demand.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::limits::CONDITION_MESSAGE;
use crate::text::sanitize_to;

/// A condition before its transition time is known.
#[derive(Clone, Debug)]
pub(crate) struct ConditionDraft {
    kind: &'static str,
    value: Option<bool>,
    reason: String,
    message: String,
}

/// A condition of this type; `None` is an unknown value.
pub(crate) fn fact(
    kind: &'static str,
    value: impl Into<Option<bool>>,
    reason: impl Into<String>,
    message: &str,
) -> ConditionDraft {
    ConditionDraft {
        kind,
        value: value.into(),
        reason: reason.into(),
        message: cut(message),
    }
}

/// The conditions of an object of this generation that had others `before`, in order of their types.
pub(crate) fn dated(
    drafts: Vec<ConditionDraft>,
    before: &[Condition],
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    let of = |draft: ConditionDraft| {
        let value = match draft.value {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let mut before = before.iter();
        let before = before.find(|it| it.type_ == draft.kind && it.status == value);
        Condition {
            type_: draft.kind.to_owned(),
            status: value.to_owned(),
            reason: draft.reason,
            message: draft.message,
            observed_generation: Some(generation),
            last_transition_time: before
                .map_or_else(|| Time(now), |it| it.last_transition_time.clone()),
        }
    };
    let mut conditions: Vec<_> = drafts.into_iter().map(of).collect();
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    conditions
}

/// Shortens a message: much of it is foreign text.
pub(crate) fn cut(message: &str) -> String {
    sanitize_to(message, CONDITION_MESSAGE)
}
