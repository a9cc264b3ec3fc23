//! Waits for the condition that the controller sets on a SignOff or Intervention.

use std::fmt::Debug;
use std::process::ExitCode;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::wait::await_condition;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::output::{Style, print, remark};
use countersign_core::text::sanitize;

/// Timeout for the controller's condition; a running controller sets the condition within two seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Exit code if the outcome is still pending.
pub const PENDING: u8 = 3;

/// Whether to wait for the controller.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Waiting {
    /// Wait until the controller has processed the request
    #[arg(
        long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
        default_missing_value = "true", require_equals = true, value_name = "true|false"
    )]
    wait: bool,
}

/// What became of an object that the controller was to answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The controller has set the condition.
    Set(Condition),
    /// It has not within the time.
    Late,
    /// The object was deleted before.
    Deleted,
    /// The object cannot be read back, and why.
    Unreadable(String),
}

/// Waits for the condition on an object.
pub async fn answer<K>(
    objects: Api<K>,
    name: &str,
    read: fn(&K) -> Option<&Condition>,
    timeout: Duration,
) -> Answer
where
    K: Resource + Clone + Debug + Send + DeserializeOwned + 'static,
{
    let is_set = move |object: Option<&K>| object.is_none_or(|object| read(object).is_some());
    let answer = await_condition(objects, name, is_set);
    match tokio::time::timeout(timeout, answer).await {
        Ok(Ok(object)) => match object.as_ref().and_then(read) {
            Some(condition) => Answer::Set(condition.clone()),
            None => Answer::Deleted,
        },
        Ok(Err(error)) => Answer::Unreadable(error.to_string()),
        Err(_) => Answer::Late,
    }
}

impl Waiting {
    /// Waits for the condition on the object and prints it. The exit code is 0 if the condition is true,
    /// 1 if it is false, 3 if it is unset.
    pub async fn for_condition<K>(
        self,
        objects: Api<K>,
        name: &str,
        read: fn(&K) -> Option<&Condition>,
    ) -> ExitCode
    where
        K: Resource + Clone + Debug + Send + DeserializeOwned + 'static,
    {
        if !self.wait {
            return ExitCode::SUCCESS;
        }
        match answer(objects, name, read, ANSWER_TIMEOUT).await {
            Answer::Set(condition) => {
                print(&sentence(&condition));
                if condition.status == "True" {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::FAILURE
                }
            }
            Answer::Late => {
                remark(&format!(
                    "the controller has not answered within {} s: {name} remains and still takes effect; is the operator running?",
                    ANSWER_TIMEOUT.as_secs()
                ));
                PENDING.into()
            }
            Answer::Deleted => {
                remark(&format!(
                    "{name} was deleted before the controller had answered"
                ));
                ExitCode::FAILURE
            }
            Answer::Unreadable(why) => {
                remark(&format!("cannot read the object back: {}", sanitize(&why)));
                PENDING.into()
            }
        }
    }
}

/// A condition as one line.
fn sentence(condition: &Condition) -> String {
    let good = condition.status == "True";
    let style = if good { Style::Good } else { Style::Bad };
    let verdict = verdict(condition);
    let reason = sanitize(&condition.reason);
    let why = if condition.message.is_empty() {
        reason
    } else {
        format!("{reason}: {}", sanitize(&condition.message))
    };
    format!("{} ({why})\n", style.paint(verdict))
}

/// What the condition says of the object, in words.
#[must_use]
pub fn verdict(condition: &Condition) -> &'static str {
    match (condition.type_.as_str(), condition.status == "True") {
        ("Counts", true) => "it counts",
        ("Counts", false) => "it does not count",
        (_, true) => "done",
        (_, false) => "not done",
    }
}

/// The condition of this type.
#[must_use]
pub fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_printed_in_plain_words() {
        let condition = |kind: &str, status: &str, reason: &str, message: &str| -> String {
            let condition = serde_json::from_value(serde_json::json!({
                "type": kind, "status": status, "reason": reason, "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }));
            anstream::adapter::strip_str(&sentence(&condition.unwrap())).to_string()
        };
        assert_eq!(
            condition("Counts", "True", "Counts", ""),
            "it counts (Counts)\n"
        );
        assert_eq!(
            condition("Counts", "False", "ByAuthor", "alice wrote it"),
            "it does not count (ByAuthor: alice wrote it)\n"
        );
        assert_eq!(
            condition("Applied", "False", "NothingToDo", "no \u{1b}[2J change"),
            "not done (NothingToDo: no \\u{1b}[2J change)\n"
        );
    }
}
