//! The facts in the documents of `--event`, in one form for every forge.

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::text::excerpt;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use thiserror::Error;

use super::super::git::Commit;
use super::accounts::Accounts;

/// All facts of all documents.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The pull requests and merge requests, by their [`Request::key`].
    pub requests: BTreeMap<String, Request>,
    /// The reviews, in the order of the documents.
    pub reviews: Vec<Review>,
    /// The pushes to merge requests, for forges whose reviews have a time but no revision.
    pub pushes: Vec<Push>,
    /// Commits as the forge shows them: those of a branch that was squashed are only here.
    pub commits: BTreeMap<String, ListedCommit>,
    /// The ids in each list of the commits of a branch. Such a list does not name its request.
    pub branches: Vec<BTreeSet<String>>,
    /// Who has which account.
    pub accounts: Accounts,
    /// The checks, by kind and id: a later state of a check replaces an earlier one.
    pub checks: BTreeMap<String, Check>,
    /// The lists of checks whose length the forge names.
    pub lists: Vec<Pages>,
}

/// An id of a commit: 40 or 64 hexadecimal digits, so that no text of a document becomes an option of
/// git.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Sha(pub String);

/// A text that is no id of a commit.
#[derive(Debug, Error)]
#[error("`{}` is not a commit id", excerpt(.0))]
pub(super) struct NoSha(String);

impl TryFrom<String> for Sha {
    type Error = NoSha;

    fn try_from(text: String) -> Result<Self, NoSha> {
        let is_id = matches!(text.len(), 40 | 64) && text.bytes().all(|c| c.is_ascii_hexdigit());
        if is_id {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(NoSha(text))
        }
    }
}

/// A pull request or a merge request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    /// Identifies it among those of all repositories.
    pub key: String,
    /// Its short name for people: `#12`, `!12`.
    pub name: String,
    /// Further id, by which pushes refer to it.
    pub id: Option<u64>,
    /// The account that opened it.
    pub author: Option<String>,
    /// Its last commit.
    pub head: String,
    /// The commit of the target branch that it is compared with.
    pub base: Option<String>,
    /// Whether the branch began at `base`, and not later.
    pub is_base_exact: bool,
    /// The commit that merged it; of an open pull request GitHub's test merge.
    pub merge: Option<String>,
    /// The commit into which it was squashed, if the forge names it beside the merge.
    pub squash: Option<String>,
    /// Whether it was merged.
    pub is_merged: bool,
    /// Whether only members can review it.
    pub is_private: bool,
}

/// A person's answer to a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The change is approved.
    Approved,
    /// The change is not approved.
    ChangesRequested,
    /// An earlier answer does not count any more.
    Dismissed,
}

/// The revision that was reviewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reviewed {
    /// This one.
    Revision(String),
    /// The last one that had been pushed before the review.
    LastPush,
}

/// A review.
#[derive(Clone, Debug)]
pub(super) struct Review {
    /// The [`Request::key`]; `None` if the document does not name the request.
    pub request: Option<String>,
    /// The reviewer's account.
    pub account: String,
    /// Whether the forge calls the account a person's.
    pub is_person: bool,
    /// Whether the account belongs to the repository: on a public one anybody may review.
    pub is_member: bool,
    /// The answer.
    pub verdict: Verdict,
    /// The revision.
    pub reviewed: Reviewed,
    /// The time.
    pub at: Option<Timestamp>,
}

/// A push to a merge request.
#[derive(Clone, Debug)]
pub(super) struct Push {
    /// The [`Request::id`].
    pub request: u64,
    /// The last commit after it.
    pub head: String,
    /// The time.
    pub at: Timestamp,
}

/// A commit as the forge shows it.
#[derive(Clone, Debug)]
pub(super) struct ListedCommit {
    /// What git would show, without files.
    pub commit: Commit,
    /// The ids of its parents.
    pub parents: Vec<String>,
}

/// The state of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// It passed.
    Passed,
    /// It was not needed, so it shows nothing.
    Skipped,
    /// It failed, and the project allows that.
    Warned,
    /// It is under way, or has not begun.
    Unfinished,
    /// It ended without a result, such as by being cancelled.
    WithoutResult,
    /// It failed.
    Failed,
}

/// A check of a revision.
#[derive(Clone, Debug)]
pub(super) struct Check {
    /// Its name.
    pub name: String,
    /// The revision.
    pub revision: String,
    /// Its state.
    pub outcome: Outcome,
}

/// A list that the forge gives page by page.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    /// The kind of check, as the keys of [`Facts::checks`] begin.
    pub kind: &'static str,
    /// The revision whose checks are listed, if there are any.
    pub revision: Option<String>,
    /// The length of the whole list.
    pub total: u64,
}

impl Facts {
    /// Adds a request. A document may lack what another one has: lists are shorter, and events name the author
    /// by a number.
    pub(super) fn request(&mut self, mut request: Request) {
        if let Some(known) = self.requests.remove(&request.key) {
            request.author = request.author.or(known.author);
            request.base = request.base.or(known.base);
            request.is_base_exact |= known.is_base_exact;
            request.merge = request.merge.or(known.merge);
            request.squash = request.squash.or(known.squash);
            request.is_merged |= known.is_merged;
        }
        self.requests.insert(request.key.clone(), request);
    }

    /// The commits of the branch with this last commit, if they are listed. Lists that differ, as those of
    /// two requests of one branch may, agree on the result.
    pub(super) fn branch(&self, head: &str) -> Option<BTreeSet<String>> {
        let goes_on = |id: &String| {
            let listed = self.commits.get(id);
            listed.is_some_and(|it| it.parents.iter().any(|parent| parent == head))
        };
        let lists = self.branches.iter();
        let lists = lists.filter(|it| it.contains(head) && !it.iter().any(goes_on));
        lists
            .cloned()
            .reduce(|all, list| all.intersection(&list).cloned().collect())
    }

    /// Adds a check; of two states of one check a finished one counts.
    pub(super) fn check(&mut self, kind: &str, id: u64, check: Check) {
        let key = format!("{kind} {id}");
        let is_later = self
            .checks
            .get(&key)
            .is_none_or(|known| known.outcome == Outcome::Unfinished);
        if is_later {
            self.checks.insert(key, check);
        }
    }
}
