//! Which commits of the range a review covers, and who wrote them.
//!
//! A review is about the commits of a branch, its merges from elsewhere among them. Those are in the range
//! themselves, or the forge made one commit of them when it merged. The commit of that merge is never covered:
//! git's automatic merge needs no review, and nobody saw anything else that it changes.

use std::collections::BTreeSet;

use countersign_core::provenance::identity::{Agent, Identity};

use super::super::areas::Areas;
use super::super::authorship::Authorship;
use super::super::git::{Commit, GitError, Repository};
use super::super::signatures::Signers;
use super::facts::{Facts, Request};

/// The range, as far as reviews are concerned.
pub(crate) struct Reviewable<'a> {
    /// The clone.
    pub repository: &'a Repository,
    /// Its head, which is the deployed revision.
    pub head: &'a str,
    /// Its commits.
    pub commits: &'a [Commit],
    /// Who signed them.
    pub signers: &'a Signers,
    /// The people who drove the AI in them, as far as the command line names them.
    pub operators: &'a BTreeSet<String>,
    /// The path rules.
    pub areas: &'a Areas,
}

/// The commits that a review covers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Coverage {
    /// Their ids; all are in the range.
    pub commits: BTreeSet<String>,
    /// Whether they are a squashed branch, whose own commits are not in the range.
    pub is_squashed: bool,
    /// Whether further commits may be of the branch, but the forge's list of them is missing.
    pub is_unlisted: bool,
}

impl Coverage {
    fn squashed(commit: &str) -> Self {
        Self {
            commits: BTreeSet::from([commit.to_owned()]),
            is_squashed: true,
            is_unlisted: false,
        }
    }
}

impl Reviewable<'_> {
    fn has(&self, id: &str) -> bool {
        self.commits.iter().any(|commit| commit.id == id)
    }

    /// The commits that a review of this revision of the request covers.
    pub(super) fn covered(
        &self,
        request: &Request,
        revision: &str,
        facts: &Facts,
    ) -> Result<Coverage, GitError> {
        let merge = request.merge.as_deref().filter(|id| self.has(id));
        if let Some(merge) = merge {
            let parents = self.repository.parents(merge)?;
            if let [onto, merged @ ..] = &parents[..]
                && merged.iter().any(|parent| parent == revision)
            {
                let commits = self.brought_in(revision, onto, false)?;
                return Ok(Coverage {
                    commits,
                    ..Coverage::default()
                });
            }
            // The forge squashed the last state of the branch. Of an open request the commit is a test.
            let is_last = request.is_merged && revision == request.head;
            if parents.len() == 1 && is_last && self.replaces(merge, revision)? {
                return Ok(Coverage::squashed(merge));
            }
        }
        let squash = request.squash.as_deref().filter(|id| self.has(id));
        if let Some(squash) = squash
            && request.is_merged
            && revision == request.head
            && self.replaces(squash, revision)?
        {
            return Ok(Coverage::squashed(squash));
        }
        // The branch itself is deployed, or the target was forwarded to it. What the branch merged from
        // elsewhere, such as from its target, was not shown to the reviewer.
        let mut coverage = Coverage::default();
        if let Some(base) = &request.base
            && self.has(revision)
            && self.repository.resolved(base)?.is_some()
        {
            coverage.commits = self.brought_in(revision, base, true)?;
            if !request.is_base_exact {
                // What the branch was rebased onto since, such as a push to the target, is not its own.
                let listed = facts.branch(&request.head);
                coverage.is_unlisted = listed.is_none() && coverage.commits.len() > 1;
                let listed = listed.unwrap_or_default();
                coverage
                    .commits
                    .retain(|id| id == revision || listed.contains(id));
            }
        }
        Ok(coverage)
    }

    /// Whether a commit stands for a branch, as a squash does. What is on top of the branch does not.
    fn replaces(&self, commit: &str, branch: &str) -> Result<bool, GitError> {
        Ok(!self.repository.is_ancestor(branch, commit)?)
    }

    /// The commits of the range that `revision` has and `base` has not.
    fn brought_in(
        &self,
        revision: &str,
        base: &str,
        first_parent: bool,
    ) -> Result<BTreeSet<String>, GitError> {
        let all = self.repository.ahead(revision, base, first_parent)?;
        let own = self.commits.iter().map(|commit| &commit.id);
        Ok(own.filter(|id| all.contains(*id)).cloned().collect())
    }

    /// The people who wrote what is covered; `None` if the commits of a squashed branch are not all known.
    pub(super) fn authors(
        &self,
        coverage: &Coverage,
        facts: &Facts,
        revision: &str,
    ) -> Result<Option<BTreeSet<String>>, GitError> {
        let covered = self.commits.iter();
        let covered = covered.filter(|commit| coverage.commits.contains(&commit.id));
        let mut authors: BTreeSet<String> = covered.flat_map(|it| self.people(it)).collect();
        if !coverage.is_squashed {
            return Ok(Some(authors));
        }
        let mut next = vec![revision];
        let mut seen = BTreeSet::new();
        while let Some(id) = next.pop() {
            if !seen.insert(id) {
                continue;
            }
            if let Some(listed) = facts.commits.get(id) {
                authors.extend(self.people(&listed.commit));
                next.extend(listed.parents.iter().map(String::as_str));
            } else if id == revision || !self.repository.is_ancestor(id, self.head)? {
                return Ok(None);
            }
        }
        Ok(Some(authors))
    }

    /// The people who wrote a commit, or drove the AI that did.
    pub(super) fn people(&self, commit: &Commit) -> BTreeSet<String> {
        let authorship = Authorship::of(std::slice::from_ref(commit), self.areas);
        let agents: Vec<Agent> = authorship.agents.into_iter().collect();
        let people = authorship.authors.into_iter().chain(authorship.operators);
        people
            .filter(|it| !Identity::of(it).is_agent(&agents))
            .collect()
    }
}
