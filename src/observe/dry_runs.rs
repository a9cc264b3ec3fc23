//! Answers of dry runs, so that none is repeated while its ReplicaSet stays as it is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Answers that are kept; beyond that all are forgotten, and asked for again.
const MAX_ANSWERS: usize = 10_000;

/// What admission made of recorded templates, by the uid of the ReplicaSet.
#[derive(Clone, Debug, Default)]
pub struct DryRuns(Arc<Mutex<BTreeMap<String, DryRun>>>);

/// One answer.
#[derive(Clone, Debug)]
pub(super) struct DryRun {
    /// The digest of the recorded template.
    pub(super) recorded: String,
    /// The digest of the stored template.
    pub(super) stored: String,
    /// Whether admission makes the stored template of the recorded one.
    pub(super) is_same: bool,
}

impl DryRuns {
    pub(super) fn known(&self, uid: &str, recorded: &str, stored: &str) -> Option<bool> {
        let answers = self.0.lock().ok()?;
        let of_both = |it: &&DryRun| it.recorded == recorded && it.stored == stored;
        Some(answers.get(uid).filter(of_both)?.is_same)
    }

    pub(super) fn keep(&self, uid: &str, answer: DryRun) {
        if let Ok(mut answers) = self.0.lock() {
            if answers.len() >= MAX_ANSWERS {
                answers.clear();
            }
            answers.insert(uid.to_owned(), answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_known_for_the_same_templates_alone() {
        let dry_runs = DryRuns::default();
        let answer = DryRun {
            recorded: "a".into(),
            stored: "b".into(),
            is_same: true,
        };
        dry_runs.keep("1", answer);
        assert_eq!(dry_runs.known("1", "a", "b"), Some(true));
        assert_eq!(dry_runs.known("1", "a", "c"), None);
        assert_eq!(dry_runs.known("1", "c", "b"), None);
        assert_eq!(dry_runs.known("2", "a", "b"), None);
    }
}
