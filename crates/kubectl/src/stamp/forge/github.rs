//! GitHub's event payloads and answers of its REST API.

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::super::git::{Commit, Signature};
use super::facts::{
    Check, Facts, ListedCommit, Outcome, Pages, Request, Review, Reviewed, Sha, Verdict,
};
use super::shape::{Object, Shape, has, has_in};

/// The documents of GitHub, the more specific ones first.
pub(super) const SHAPES: &[Shape] = &[
    Shape {
        what: "GitHub's event pull_request_review",
        is: |it| has(it, &["review", "pull_request", "action"]),
        read: |it, facts| {
            let event: ReviewEvent = serde_json::from_value(it)?;
            event.pull_request.add(facts);
            event.review.add(facts);
            Ok(())
        },
    },
    Shape {
        what: "GitHub's event pull_request",
        is: |it| has(it, &["action", "number"]) && has_in(it, "pull_request", &["head", "base"]),
        read: |it, facts| {
            let event: PullRequestEvent = serde_json::from_value(it)?;
            event.pull_request.add(facts);
            Ok(())
        },
    },
    Shape {
        what: "GitHub's event push",
        is: |it| has(it, &["before", "after", "ref", "commits"]),
        read: |it, facts| {
            let event: PushEvent = serde_json::from_value(it)?;
            event.commits.iter().for_each(|commit| commit.add(facts));
            Ok(())
        },
    },
    Shape {
        what: "GitHub's event workflow_run, check_suite or check_run",
        is: |it| {
            let kinds = ["workflow_run", "check_suite", "check_run"];
            kinds.iter().any(|kind| has_in(it, kind, &["head_sha"]))
        },
        read: |it, facts| {
            let event: CheckEvent = serde_json::from_value(it)?;
            event.add(facts);
            Ok(())
        },
    },
    Shape {
        what: "another event of GitHub",
        is: |it| {
            let is_event = has(it, &["sender"]) || has(it, &["schedule"]);
            is_event && has_in(it, "repository", &["full_name"])
        },
        read: |_, _| Ok(()),
    },
    Shape {
        what: "GitHub's pulls/N, or commits/SHA/pulls",
        is: |it| has(it, &["number", "head", "base", "merge_commit_sha"]),
        read: |it, facts| {
            serde_json::from_value::<PullRequest>(it)?.add(facts);
            Ok(())
        },
    },
    Shape {
        what: "GitHub's pulls/N/reviews",
        is: |it| has(it, &["user", "state", "commit_id", "pull_request_url"]),
        read: |it, facts| {
            serde_json::from_value::<PullRequestReview>(it)?.add(facts);
            Ok(())
        },
    },
    Shape {
        what: "GitHub's compare/BASE...HEAD",
        is: |it| has(it, &["merge_base_commit", "commits"]),
        read: |it, facts| {
            let comparison: Comparison = serde_json::from_value(it)?;
            comparison.commits.into_iter().for_each(|it| it.add(facts));
            Ok(())
        },
    },
    Shape {
        what: "GitHub's pulls/N/commits, or commits/SHA",
        is: is_commit,
        read: |it, facts| {
            serde_json::from_value::<RestCommit>(it)?.add(facts);
            Ok(())
        },
    },
    Shape {
        what: "GitHub's commits/SHA/check-runs",
        is: |it| has(it, &["total_count", "check_runs"]),
        read: |it, facts| {
            serde_json::from_value::<CheckRuns>(it)?.add(facts);
            Ok(())
        },
    },
    Shape {
        what: "GitHub's commits/SHA/status",
        is: |it| has(it, &["statuses", "state", "sha"]),
        read: |it, facts| {
            serde_json::from_value::<CombinedStatus>(it)?.add(facts);
            Ok(())
        },
    },
];

fn is_commit(object: &Object) -> bool {
    has(object, &["sha", "parents"]) && has_in(object, "commit", &["message"])
}

/// The id of an item of `pulls/N/commits`. Only `commits/SHA` has the files.
pub(super) fn listed(item: &Value) -> Option<String> {
    let object = item.as_object()?;
    if !is_commit(object) || object.contains_key("files") {
        return None;
    }
    let id = object.get("sha")?.as_str()?;
    Sha::try_from(id.to_owned()).ok().map(|id| id.0)
}

#[derive(Deserialize)]
struct ReviewEvent {
    review: PullRequestReview,
    pull_request: PullRequest,
}

#[derive(Deserialize)]
struct PullRequestEvent {
    pull_request: PullRequest,
}

/// An account; GitHub writes `null` or `{}` if a commit belongs to none.
#[derive(Deserialize)]
struct User {
    login: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct PullRequest {
    url: String,
    number: u64,
    user: Option<User>,
    head: Branch,
    base: Branch,
    merge_commit_sha: Option<Sha>,
    merged_at: Option<String>,
}

#[derive(Deserialize)]
struct Branch {
    sha: Sha,
    repo: Option<Repository>,
}

#[derive(Deserialize)]
struct Repository {
    #[serde(default)]
    private: bool,
}

impl PullRequest {
    fn add(self, facts: &mut Facts) {
        let request = Request {
            name: format!("#{}", self.number),
            id: None,
            author: self.user.and_then(|user| user.login),
            head: self.head.sha.0,
            merge: self.merge_commit_sha.map(|it| it.0),
            squash: None,
            is_merged: self.merged_at.is_some(),
            is_private: self.base.repo.is_some_and(|repo| repo.private),
            base: Some(self.base.sha.0),
            // It is the state of the target at some push: the branch may begin later.
            is_base_exact: false,
            key: self.url,
        };
        facts.request(request);
    }
}

#[derive(Deserialize)]
struct PullRequestReview {
    user: Option<User>,
    state: String,
    commit_id: Option<Sha>,
    submitted_at: Option<Timestamp>,
    pull_request_url: String,
    author_association: Option<String>,
}

/// Those who belong to a repository; anybody may review a public pull request.
const MEMBERS: [&str; 3] = ["OWNER", "MEMBER", "COLLABORATOR"];

impl PullRequestReview {
    /// Adds the review. A comment neither gives nor takes an approval; a review whose account or revision is
    /// gone shows nothing.
    fn add(self, facts: &mut Facts) {
        // Events write the state in lower case.
        let verdict = match self.state.to_ascii_uppercase().as_str() {
            "APPROVED" => Verdict::Approved,
            "CHANGES_REQUESTED" => Verdict::ChangesRequested,
            "DISMISSED" => Verdict::Dismissed,
            _ => return,
        };
        let (Some(user), Some(revision)) = (self.user, self.commit_id) else {
            return;
        };
        let Some(account) = user.login else { return };
        let association = self.author_association.unwrap_or_default();
        facts.reviews.push(Review {
            request: Some(self.pull_request_url),
            account,
            is_person: user.kind.as_deref() == Some("User"),
            is_member: MEMBERS.contains(&association.as_str()),
            verdict,
            reviewed: Reviewed::Revision(revision.0),
            at: self.submitted_at,
        });
    }
}

#[derive(Deserialize)]
struct PushEvent {
    commits: Vec<PushedCommit>,
}

#[derive(Deserialize)]
struct PushedCommit {
    author: PushedSignature,
    committer: PushedSignature,
}

#[derive(Deserialize)]
struct PushedSignature {
    name: String,
    email: Option<String>,
    username: Option<String>,
}

impl PushedCommit {
    /// The payload names accounts, but no parents, so it does not show what was squashed.
    fn add(&self, facts: &mut Facts) {
        for it in [&self.author, &self.committer] {
            if let Some(account) = &it.username {
                let address = it.email.as_deref().unwrap_or_default();
                facts.accounts.learn(&it.name, address, account);
            }
        }
    }
}

#[derive(Deserialize)]
struct Comparison {
    commits: Vec<RestCommit>,
}

#[derive(Deserialize)]
struct RestCommit {
    sha: Sha,
    commit: CommitText,
    author: Option<User>,
    committer: Option<User>,
    parents: Vec<Parent>,
}

#[derive(Deserialize)]
struct CommitText {
    message: String,
    author: Option<RestSignature>,
    committer: Option<RestSignature>,
}

#[derive(Deserialize)]
struct RestSignature {
    name: String,
    email: String,
}

#[derive(Deserialize)]
struct Parent {
    sha: Sha,
}

impl RestCommit {
    fn add(self, facts: &mut Facts) {
        let mut signature = |it: Option<RestSignature>, user: Option<User>| {
            let it = it.map_or_else(Signature::default, |it| Signature {
                name: it.name,
                address: it.email,
            });
            if let Some(account) = user.and_then(|user| user.login) {
                facts.accounts.learn(&it.name, &it.address, &account);
            }
            it
        };
        let author = signature(self.commit.author, self.author);
        let committer = signature(self.commit.committer, self.committer);
        let commit = Commit {
            id: self.sha.0.clone(),
            author,
            committer,
            message: self.commit.message,
            ..Commit::default()
        };
        let parents = self.parents.into_iter().map(|it| it.sha.0).collect();
        let listed = ListedCommit { commit, parents };
        facts.commits.insert(self.sha.0, listed);
    }
}

#[derive(Deserialize)]
struct CheckEvent {
    workflow_run: Option<Run>,
    check_suite: Option<Run>,
    check_run: Option<Run>,
}

#[derive(Deserialize)]
struct Run {
    id: u64,
    name: Option<String>,
    status: Option<String>,
    conclusion: Option<String>,
    head_sha: Sha,
}

impl CheckEvent {
    fn add(self, facts: &mut Facts) {
        let runs = [
            ("workflow", self.workflow_run),
            ("suite", self.check_suite),
            ("check", self.check_run),
        ];
        for (kind, run) in runs {
            if let Some(run) = run {
                run.add(kind, facts);
            }
        }
    }
}

impl Run {
    fn add(self, kind: &str, facts: &mut Facts) {
        let outcome = match (self.status.as_deref(), self.conclusion.as_deref()) {
            (Some("completed"), Some("success" | "neutral")) => Outcome::Passed,
            (Some("completed"), Some("skipped")) => Outcome::Skipped,
            (Some("completed"), Some("failure" | "timed_out" | "startup_failure")) => {
                Outcome::Failed
            }
            // Cancelled, stale, waiting for a person, or a word that GitHub has added since.
            (Some("completed"), _) => Outcome::WithoutResult,
            _ => Outcome::Unfinished,
        };
        let check = Check {
            name: self.name.unwrap_or_else(|| kind.to_owned()),
            revision: self.head_sha.0,
            outcome,
        };
        facts.check(kind, self.id, check);
    }
}

#[derive(Deserialize)]
struct CheckRuns {
    total_count: u64,
    check_runs: Vec<Run>,
}

impl CheckRuns {
    fn add(self, facts: &mut Facts) {
        facts.lists.push(Pages {
            kind: "check",
            revision: self.check_runs.first().map(|run| run.head_sha.0.clone()),
            total: self.total_count,
        });
        for run in self.check_runs {
            run.add("check", facts);
        }
    }
}

#[derive(Deserialize)]
struct CombinedStatus {
    sha: Sha,
    total_count: u64,
    statuses: Vec<Status>,
}

#[derive(Deserialize)]
struct Status {
    id: u64,
    context: String,
    state: String,
}

impl CombinedStatus {
    fn add(self, facts: &mut Facts) {
        facts.lists.push(Pages {
            kind: "status",
            revision: Some(self.sha.0.clone()),
            total: self.total_count,
        });
        for status in self.statuses {
            let outcome = match status.state.as_str() {
                "success" => Outcome::Passed,
                "failure" | "error" => Outcome::Failed,
                _ => Outcome::Unfinished,
            };
            let check = Check {
                name: status.context,
                revision: self.sha.0.clone(),
                outcome,
            };
            facts.check("status", status.id, check);
        }
    }
}
