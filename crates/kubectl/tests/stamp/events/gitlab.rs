//! Merge requests of GitLab: which approvals count, and from when on.

use super::*;

const MEMBERS: &str = include_str!("gitlab-members.json");
const APPROVED: &str = include_str!("gitlab-event-merge-request.json");

#[test]
fn an_approved_merge_request_of_gitlab_counts_as_reviewed() {
    let squashed = PullRequest::squashed();
    let all = [MERGE_REQUEST, APPROVALS, VERSIONS, GITLAB_COMMITS];
    squashed.is_reviewed_by(&all, "bobby");
    let (_, err) = squashed.stamp(&all, &[]);
    assert!(
        err.contains("by project_7_bot_4ffca233d8298ea1 does not count"),
        "{err}"
    );

    let merged = MERGE_REQUEST
        .replace(
            "\"squash_commit_sha\": \"MERGE_SHA\"",
            "\"squash_commit_sha\": null",
        )
        .replace(
            "\"merge_commit_sha\": null",
            "\"merge_commit_sha\": \"MERGE_SHA\"",
        );
    let it = PullRequest::merged();
    it.is_reviewed_by(&[&merged, APPROVALS, VERSIONS], "bobby");
    // An event names the author by a number: the answer of the API completes it.
    it.is_reviewed_by(&[APPROVED, &merged], "bobby");
    it.is_reviewed_by(&[&merged, APPROVED], "bobby");
}

#[test]
fn an_approval_of_gitlab_counts_from_the_last_push_on() {
    let it = PullRequest::squashed();
    let early = APPROVALS.replace("T10:00", "T08:30");
    let (found, err) = it.stamp(&[MERGE_REQUEST, &early, VERSIONS, GITLAB_COMMITS], &[]);
    assert!(
        matches!(read(&found).review(), Review::Stale { .. }),
        "{err}"
    );
    for documents in [
        &[MERGE_REQUEST, APPROVALS, GITLAB_COMMITS][..],
        &[
            MERGE_REQUEST,
            &APPROVALS.replace("approved_at", "created_at"),
            VERSIONS,
        ],
    ] {
        it.is_not_reviewed(documents, "the approved revision is not known");
    }
    // GitLab names no accounts of authors: they are known by the names of its users.
    let other = GITLAB_COMMITS.replace("Jane Doe", "JD");
    it.is_not_reviewed(
        &[MERGE_REQUEST, APPROVALS, VERSIONS, &other],
        "the account of JD <jane@example.org> is not known",
    );
    let members = MEMBERS.replace("Jane Doe", "JD");
    it.is_reviewed_by(
        &[MERGE_REQUEST, APPROVALS, VERSIONS, &other, &members],
        "bobby",
    );
}
