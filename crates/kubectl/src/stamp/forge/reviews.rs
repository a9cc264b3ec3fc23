//! Which reviews count, and for which commits.
//!
//! The latest answer of a person counts, if it approves the last state of the request, the person is none of
//! its authors, and no author is unknown: that one could be the reviewer.

use std::collections::{BTreeMap, BTreeSet};

use super::super::assistants::{Who, who};
use super::super::git::GitError;
use super::super::visible::item;
use super::coverage::{Coverage, Reviewable};
use super::facts::{Facts, Request, Review, Reviewed, Verdict};

/// The reviews that count.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Approvals {
    /// The commits that an independent person approved.
    pub commits: BTreeSet<String>,
    /// Those who approved them.
    pub reviewers: BTreeSet<String>,
    /// An approval of another state of a request: its person and its revision.
    pub stale: Option<(String, String)>,
    /// Remarks about reviews that do not count.
    pub remarks: Vec<String>,
}

/// The reviews of the range that count.
pub(super) fn approvals(facts: &Facts, range: &Reviewable<'_>) -> Result<Approvals, GitError> {
    let mut approvals = Approvals::default();
    let mut by_request: BTreeMap<&str, Vec<&Review>> = BTreeMap::new();
    for review in &facts.reviews {
        match request_of(review, facts) {
            Some(request) => by_request.entry(&request.key).or_default().push(review),
            None => approvals.remarks.push(format!(
                "the review by {} does not count, since its pull request is not in the files of --event: pass that, too",
                item(&review.account)
            )),
        }
    }
    for (key, reviews) in by_request {
        if let Some(request) = facts.requests.get(key) {
            approvals.of_request(request, &latest(reviews), facts, range)?;
        }
    }
    approvals.reviewers = named(approvals.reviewers, facts, range);
    Ok(approvals)
}

/// The reviewers under the names by which they wrote commits of the range, if they did: the controller
/// must see that they are authors, too.
fn named(accounts: BTreeSet<String>, facts: &Facts, range: &Reviewable<'_>) -> BTreeSet<String> {
    let people: BTreeSet<_> = range
        .commits
        .iter()
        .flat_map(|it| range.people(it))
        .collect();
    let name = |account: String| {
        let mut owners = people.iter();
        let owns = |it: &&String| facts.accounts.of(it).contains(&account.to_lowercase());
        owners.find(owns).cloned().unwrap_or(account)
    };
    accounts.into_iter().map(name).collect()
}

/// The request of a review. Some answers of GitLab do not name it: then it is the only one.
fn request_of<'a>(review: &Review, facts: &'a Facts) -> Option<&'a Request> {
    match &review.request {
        Some(key) => facts.requests.get(key),
        None if facts.requests.len() == 1 => facts.requests.values().next(),
        None => None,
    }
}

/// The latest answer of each account. Without a time the order of the documents decides.
fn latest(mut reviews: Vec<&Review>) -> Vec<&Review> {
    reviews.sort_by_key(|review| review.at);
    let by_account = reviews
        .into_iter()
        .map(|review| (review.account.to_lowercase(), review));
    let latest: BTreeMap<String, &Review> = by_account.collect();
    latest.into_values().collect()
}

/// The reviewed revision, if it is known.
fn revision<'a>(review: &'a Review, request: &Request, facts: &'a Facts) -> Option<&'a str> {
    match &review.reviewed {
        Reviewed::Revision(revision) => Some(revision),
        Reviewed::LastPush => {
            let before = facts.pushes.iter().filter(|push| {
                Some(push.request) == request.id && review.at.is_some_and(|at| push.at <= at)
            });
            before.max_by_key(|push| push.at).map(|push| &*push.head)
        }
    }
}

impl Approvals {
    fn of_request(
        &mut self,
        request: &Request,
        reviews: &[&Review],
        facts: &Facts,
        range: &Reviewable<'_>,
    ) -> Result<(), GitError> {
        for review in reviews {
            let account = item(&review.account);
            if review.verdict == Verdict::ChangesRequested {
                let what = format!("{account} requested changes in {}", request.name);
                self.remarks.push(what);
            }
            if review.verdict != Verdict::Approved {
                continue;
            }
            if let Some(why) = no_reviewer(review, request) {
                self.refuse(request, &account, why);
                continue;
            }
            let Some(revision) = revision(review, request, facts) else {
                self.refuse(
                    request,
                    &account,
                    "the approved revision is not known: pass merge_requests/IID/versions, too, and approvals with `approved_at`, which older versions of GitLab lack",
                );
                continue;
            };
            self.of_revision(request, revision, &account, facts, range)?;
        }
        Ok(())
    }

    /// Takes an approval of this revision by this account.
    fn of_revision(
        &mut self,
        request: &Request,
        revision: &str,
        account: &str,
        facts: &Facts,
        range: &Reviewable<'_>,
    ) -> Result<(), GitError> {
        let coverage = range.covered(request, revision, facts)?;
        let authors = match own_part(request, revision, &coverage, facts, range)? {
            Ok(authors) => authors,
            Err(why) => {
                self.refuse(request, account, &why);
                return Ok(());
            }
        };
        if authors.contains(&account.to_lowercase()) {
            self.refuse(request, account, "nobody reviews their own commits");
        } else if revision != request.head && revision != range.head {
            let why = format!(
                "revision {revision} was approved, but {} is its last commit",
                request.head
            );
            self.refuse(request, account, &why);
            self.stale = Some((account.to_owned(), revision.to_owned()));
        } else if coverage.commits.is_empty() {
            self.refuse(
                request,
                account,
                "no commit of --range is known to come from it",
            );
        } else {
            if coverage.is_unlisted {
                self.remarks.push(format!(
                    "the approval of {name} by {account} counts for its last commit only, since it is not known where the branch begins: pass pulls/N/commits of {name}, too, all pages as one list",
                    name = request.name
                ));
            }
            self.commits.extend(coverage.commits);
            self.reviewers.insert(account.to_owned());
        }
        Ok(())
    }

    fn refuse(&mut self, request: &Request, account: &str, why: &str) {
        let name = &request.name;
        let remark = format!("the approval of {name} by {account} does not count: {why}");
        self.remarks.push(remark);
    }
}

/// Why a review by this account never counts.
fn no_reviewer(review: &Review, request: &Request) -> Option<&'static str> {
    if !review.is_person || who(&review.account, "") != Who::Person {
        Some("the account is not known as a person's")
    } else if !review.is_member && !request.is_private {
        Some(
            "the account is not a visible member of this public repository: add it, or pass --reviewer and --approved-revision",
        )
    } else {
        None
    }
}

/// The accounts of those who opened the request and wrote its commits, or why they are not all known.
fn own_part(
    request: &Request,
    revision: &str,
    coverage: &Coverage,
    facts: &Facts,
    range: &Reviewable<'_>,
) -> Result<Result<BTreeSet<String>, String>, GitError> {
    let Some(opened_by) = &request.author else {
        return Ok(Err("it is not known who opened it".into()));
    };
    let Some(authors) = range.authors(coverage, facts, revision)? else {
        return Ok(Err(format!(
            "its commits are squashed, so the reviewer may have written some of them: pass the commits of {}, too",
            request.name
        )));
    };
    let mut accounts = BTreeSet::from([opened_by.to_lowercase()]);
    for author in authors.iter().chain(range.operators) {
        let known = facts.accounts.of(author);
        if known.is_empty() {
            return Ok(Err(format!(
                "the account of {author} is not known, so the reviewer may be that person: pass the commits as the forge lists them, and add the address to the account"
            )));
        }
        accounts.extend(known);
    }
    Ok(Ok(accounts))
}
