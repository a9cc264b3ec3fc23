//! GitLab's event payloads and answers of its REST API.

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use super::super::git::{Commit, Signature};
use super::facts::{
    Check, Facts, ListedCommit, Outcome, Push, Request, Review, Reviewed, Sha, Verdict,
};
use super::shape::{Object, Shape, has, has_in};

/// The documents of GitLab, the more specific ones first.
pub(super) const SHAPES: &[Shape] = &[
    Shape {
        what: "GitLab's event merge_request",
        is: |it| is_event(it, "merge_request"),
        read: |it, facts| {
            serde_json::from_value::<MergeRequestEvent>(it)?.add(facts);
            Ok(())
        },
    },
    Shape {
        what: "GitLab's event pipeline",
        is: |it| is_event(it, "pipeline"),
        read: |it, facts| {
            let event: PipelineEvent = serde_json::from_value(it)?;
            event.object_attributes.add(facts);
            Ok(())
        },
    },
    Shape {
        what: "another event of GitLab",
        is: |it| has(it, &["object_kind"]),
        read: |_, _| Ok(()),
    },
    Shape {
        what: "GitLab's merge_requests/IID, or commits/SHA/merge_requests",
        is: |it| has(it, &["iid", "project_id", "source_branch", "target_branch"]),
        read: |it, facts| {
            serde_json::from_value::<MergeRequest>(it)?.add(facts);
            Ok(())
        },
    },
    Shape {
        what: "GitLab's merge_requests/IID/approvals",
        is: |it| has(it, &["approved_by"]),
        read: |it, facts| {
            serde_json::from_value::<Approvals>(it)?.add(facts);
            Ok(())
        },
    },
    Shape {
        what: "GitLab's merge_requests/IID/versions",
        is: |it| has(it, &["merge_request_id", "head_commit_sha", "created_at"]),
        read: |it, facts| {
            let version: Version = serde_json::from_value(it)?;
            facts.pushes.push(Push {
                request: version.merge_request_id,
                head: version.head_commit_sha.0,
                at: version.created_at,
            });
            Ok(())
        },
    },
    Shape {
        what: "GitLab's merge_requests/IID/commits",
        is: |it| has(it, &["short_id", "parent_ids", "author_email", "message"]),
        read: |it, facts| {
            serde_json::from_value::<RestCommit>(it)?.add(facts);
            Ok(())
        },
    },
    Shape {
        what: "GitLab's members/all",
        is: |it| has(it, &["username", "name", "state"]),
        read: |it, facts| {
            serde_json::from_value::<User>(it)?.learn(facts);
            Ok(())
        },
    },
    Shape {
        what: "GitLab's pipelines/ID/jobs",
        is: |it| has(it, &["stage", "status"]) && has_in(it, "pipeline", &["sha"]),
        read: |it, facts| {
            serde_json::from_value::<Job>(it)?.add(facts);
            Ok(())
        },
    },
    Shape {
        what: "GitLab's pipelines/ID",
        is: |it| has(it, &["id", "ref", "sha", "status", "project_id"]),
        read: |it, facts| {
            serde_json::from_value::<Pipeline>(it)?.add(facts);
            Ok(())
        },
    },
];

fn is_event(object: &Object, kind: &str) -> bool {
    let found = object.get("object_kind").and_then(|it| it.as_str());
    found == Some(kind) && has(object, &["object_attributes"])
}

#[derive(Deserialize)]
struct User {
    id: Option<u64>,
    username: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    bot: bool,
}

impl User {
    fn learn(&self, facts: &mut Facts) {
        facts.accounts.learn(&self.name, "", &self.username);
    }

    /// Access tokens and service accounts have users of their own, which answers do not mark.
    fn is_person(&self) -> bool {
        let token = ["project_", "group_"].iter().any(|prefix| {
            let rest = self.username.strip_prefix(prefix).unwrap_or_default();
            let (id, rest) = rest.split_once('_').unwrap_or_default();
            !id.is_empty() && id.bytes().all(|c| c.is_ascii_digit()) && rest.starts_with("bot")
        });
        !self.bot && !token && !self.username.starts_with("service_account_")
    }
}

/// Approvals are those of members: GitLab asks for the role of a developer.
fn review(request: Option<String>, user: User, verdict: Verdict, reviewed: Reviewed) -> Review {
    Review {
        request,
        is_person: user.is_person(),
        account: user.username,
        is_member: true,
        verdict,
        reviewed,
        at: None,
    }
}

fn key(project: u64, iid: u64) -> String {
    format!("{project}!{iid}")
}

#[derive(Deserialize)]
struct MergeRequestEvent {
    user: User,
    #[serde(default)]
    assignees: Vec<User>,
    #[serde(default)]
    reviewers: Vec<User>,
    object_attributes: EventRequest,
}

#[derive(Deserialize)]
struct EventRequest {
    id: u64,
    iid: u64,
    target_project_id: u64,
    author_id: u64,
    state: String,
    action: Option<String>,
    merge_commit_sha: Option<Sha>,
    last_commit: LastCommit,
}

#[derive(Deserialize)]
struct LastCommit {
    id: Sha,
}

impl MergeRequestEvent {
    /// Adds the merge request, and the approval that the event may be about. The author is named by a number,
    /// so the account is known only if that user takes part in the event.
    fn add(self, facts: &mut Facts) {
        let it = self.object_attributes;
        let key = key(it.target_project_id, it.iid);
        let people = || {
            let others = self.assignees.iter().chain(&self.reviewers);
            std::iter::once(&self.user).chain(others)
        };
        people().for_each(|user| user.learn(facts));
        let author = people().find(|user| user.id == Some(it.author_id));
        let request = Request {
            key: key.clone(),
            name: format!("!{}", it.iid),
            id: Some(it.id),
            author: author.map(|user| user.username.clone()),
            head: it.last_commit.id.0.clone(),
            merge: it.merge_commit_sha.map(|it| it.0),
            is_merged: it.state == "merged",
            is_private: true,
            ..Request::default()
        };
        facts.request(request);
        let verdict = match it.action.as_deref() {
            Some("approved" | "approval") => Verdict::Approved,
            Some("unapproved" | "unapproval") => Verdict::Dismissed,
            _ => return,
        };
        let reviewed = Reviewed::Revision(it.last_commit.id.0);
        let review = review(Some(key), self.user, verdict, reviewed);
        facts.reviews.push(review);
    }
}

#[derive(Deserialize)]
struct MergeRequest {
    id: u64,
    iid: u64,
    project_id: u64,
    author: Option<User>,
    sha: Option<Sha>,
    merge_commit_sha: Option<Sha>,
    squash_commit_sha: Option<Sha>,
    diff_refs: Option<DiffRefs>,
    merged_at: Option<String>,
}

#[derive(Deserialize)]
struct DiffRefs {
    base_sha: Option<Sha>,
}

impl MergeRequest {
    /// Adds the merge request; without commits there is nothing to review.
    fn add(self, facts: &mut Facts) {
        let Some(head) = self.sha else { return };
        if let Some(author) = &self.author {
            author.learn(facts);
        }
        let request = Request {
            key: key(self.project_id, self.iid),
            name: format!("!{}", self.iid),
            id: Some(self.id),
            author: self.author.map(|user| user.username),
            head: head.0,
            base: self.diff_refs.and_then(|it| it.base_sha).map(|it| it.0),
            is_base_exact: true,
            merge: self.merge_commit_sha.map(|it| it.0),
            squash: self.squash_commit_sha.map(|it| it.0),
            is_merged: self.merged_at.is_some(),
            is_private: true,
        };
        facts.request(request);
    }
}

#[derive(Deserialize)]
struct Approvals {
    iid: Option<u64>,
    project_id: Option<u64>,
    approved_by: Vec<Approval>,
}

#[derive(Deserialize)]
struct Approval {
    user: User,
    approved_at: Option<Timestamp>,
}

impl Approvals {
    /// Adds the approvals that hold. They name no revision, but a time.
    fn add(self, facts: &mut Facts) {
        let request = self.project_id.zip(self.iid);
        let request = request.map(|(project, iid)| key(project, iid));
        for Approval { user, approved_at } in self.approved_by {
            user.learn(facts);
            let review = review(request.clone(), user, Verdict::Approved, Reviewed::LastPush);
            facts.reviews.push(Review {
                at: approved_at,
                ..review
            });
        }
    }
}

#[derive(Deserialize)]
struct Version {
    merge_request_id: u64,
    head_commit_sha: Sha,
    created_at: Timestamp,
}

#[derive(Deserialize)]
struct RestCommit {
    id: Sha,
    author_name: String,
    author_email: String,
    committer_name: String,
    committer_email: String,
    message: String,
    parent_ids: Vec<Sha>,
}

impl RestCommit {
    fn add(self, facts: &mut Facts) {
        let commit = Commit {
            id: self.id.0.clone(),
            author: Signature {
                name: self.author_name,
                address: self.author_email,
            },
            committer: Signature {
                name: self.committer_name,
                address: self.committer_email,
            },
            message: self.message,
            ..Commit::default()
        };
        let parents = self.parent_ids.into_iter().map(|it| it.0).collect();
        let listed = ListedCommit { commit, parents };
        facts.commits.insert(self.id.0, listed);
    }
}

/// The state of a job or a pipeline.
fn outcome(status: &str, allow_failure: bool) -> Outcome {
    match status {
        "success" => Outcome::Passed,
        "failed" if allow_failure => Outcome::Warned,
        "failed" => Outcome::Failed,
        "skipped" => Outcome::Skipped,
        "canceled" | "canceling" => Outcome::WithoutResult,
        _ => Outcome::Unfinished,
    }
}

#[derive(Deserialize)]
struct Job {
    id: u64,
    name: String,
    status: String,
    #[serde(default)]
    allow_failure: bool,
    pipeline: JobPipeline,
}

#[derive(Deserialize)]
struct JobPipeline {
    sha: Sha,
}

impl Job {
    fn add(self, facts: &mut Facts) {
        let check = Check {
            outcome: outcome(&self.status, self.allow_failure),
            name: self.name,
            revision: self.pipeline.sha.0,
        };
        facts.check("job", self.id, check);
    }
}

#[derive(Deserialize)]
struct PipelineEvent {
    object_attributes: Pipeline,
}

#[derive(Deserialize)]
struct Pipeline {
    id: u64,
    sha: Sha,
    status: String,
}

impl Pipeline {
    fn add(self, facts: &mut Facts) {
        let check = Check {
            name: format!("pipeline {}", self.id),
            revision: self.sha.0,
            outcome: outcome(&self.status, false),
        };
        facts.check("pipeline", self.id, check);
    }
}
