//! Pull requests of GitHub: which reviews count, and for which commits.

use super::*;

const REVIEW_EVENT: &str = include_str!("github-event-pull-request-review.json");

#[test]
fn a_reviewed_pull_request_counts_as_reviewed_however_it_was_merged() {
    let documents = [PULLS, REVIEWS, COMMITS, PUSH];
    PullRequest::squashed().is_reviewed_by(&documents, "bobby");
    PullRequest::merged().is_reviewed_by(&documents, "bobby");
    let forwarded = PullRequest::branch();
    forwarded.git(&["merge", "-q", "--ff-only", "shoes"]);
    let head = forwarded.git(&["rev-parse", "main"]);
    let forwarded = PullRequest {
        it: forwarded,
        head,
    };
    forwarded.is_reviewed_by(&[PULLS, REVIEWS, COMPARE], "bobby");
}

#[test]
fn the_event_of_a_review_is_enough_for_the_branch_itself() {
    let it = PullRequest::branch();
    it.git(&["merge", "-q", "--ff-only", "shoes"]);
    let head = it.git(&["rev-parse", "main"]);
    let it = PullRequest { it, head };
    it.is_reviewed_by(&[REVIEW_EVENT, COMMITS], "bobby");
}

/// As `gh api --paginate` prints pages, one after the other, and as `--slurp` wraps them.
#[test]
fn pages_and_lists_of_pages_are_read() {
    let it = PullRequest::squashed();
    let all = [PULLS, REVIEWS, COMMITS, PUSH].concat();
    it.is_reviewed_by(&[&all], "bobby");
    it.is_reviewed_by(
        &[&format!("[{REVIEWS}, []]"), PULLS, COMMITS, PUSH],
        "bobby",
    );
}

#[test]
fn a_robots_approval_does_not_count() {
    let it = PullRequest::squashed();
    let robots = REVIEWS.replace("bobby", "copilot");
    it.is_not_reviewed(
        &[PULLS, &robots, COMMITS, PUSH],
        "the approval of #12 by shop-ci[bot] does not count: the account is not known as a person's",
    );
}

#[test]
fn nobody_reviews_their_own_commits() {
    let it = PullRequest::squashed();
    let own = "nobody reviews their own commits";
    let reviews = REVIEWS.replace("bobby", "Jane-D");
    it.is_not_reviewed(&[PULLS, &reviews, COMMITS, PUSH], own);
    // Nor does a person who wrote a commit of another person's pull request.
    let commits = COMMITS.replace("jane-d", "bobby");
    it.is_not_reviewed(&[PULLS, REVIEWS, &commits, PUSH], own);
    let commits = COMMITS.replace(
        "\"Sell shoes\"",
        "\"Sell shoes\\n\\nCo-authored-by: Bob <12+bobby@users.noreply.github.com>\"",
    );
    it.is_not_reviewed(&[PULLS, REVIEWS, &commits, PUSH], own);
}

/// A person who drove an AI is no reviewer of its work, under whichever name.
#[test]
fn the_person_who_drove_the_ai_does_not_review_it() {
    let it = PullRequest::squashed();
    let documents = [PULLS, REVIEWS, COMMITS, PUSH];
    let operator = "Bob <12+bobby@users.noreply.github.com>";
    for operator in [operator, "Bob"] {
        let (found, err) = it.stamp(&documents, &["--human-operator", operator]);
        assert!(!found.contains_key("approved-revision"), "{err}");
    }
    let (found, _) = it.stamp(&documents, &["--human-operator", JANE]);
    assert_eq!(found["approved-revision"], found["revision"]);
}

/// An author of unknown account could be the reviewer.
#[test]
fn a_review_counts_only_if_all_authors_are_known() {
    let it = PullRequest::squashed();
    it.is_not_reviewed(&[PULLS, REVIEWS, PUSH], "pass the commits of #12, too");
    let first_page = COMMITS.replace("BASE_SHA", &"d".repeat(40));
    it.is_not_reviewed(
        &[PULLS, REVIEWS, &first_page, PUSH],
        "pass the commits of #12, too",
    );
    let nobody = COMMITS
        .replace("jane@example.org", "j@x")
        .replace("Jane Doe", "J");
    let nobody = nobody.replace("\"login\": \"jane-d\"", "\"login\": null");
    it.is_not_reviewed(
        &[PULLS, REVIEWS, &nobody, PUSH],
        "the account of J <j@x> is not known",
    );
    let merged = PullRequest::merged();
    merged.is_not_reviewed(
        &[PULLS, REVIEWS],
        "the account of Jane Doe <jane@example.org>",
    );
}

#[test]
fn the_latest_answer_of_a_person_counts() {
    let it = PullRequest::squashed();
    let later = REVIEWS.replace("2026-11-20T09:00:00Z", "2026-11-20T11:00:00Z");
    it.is_not_reviewed(
        &[PULLS, &later, COMMITS, PUSH],
        "bobby requested changes in #12",
    );
    let dismissed = later.replace("CHANGES_REQUESTED", "DISMISSED");
    it.is_not_reviewed(
        &[PULLS, &dismissed, COMMITS, PUSH],
        "no review is known of 1",
    );
    let dismissed = REVIEWS.replace("\"APPROVED\"", "\"DISMISSED\"");
    it.is_not_reviewed(
        &[PULLS, &dismissed, COMMITS, PUSH],
        "no review is known of 1",
    );
}

#[test]
fn a_review_before_the_last_push_is_stale() {
    let it = PullRequest::squashed();
    let early = REVIEWS.replace("HEAD_SHA", &"a".repeat(40));
    let (found, err) = it.stamp(&[PULLS, &early, COMMITS, PUSH], &[]);
    assert_eq!(found["approved-revision"], "a".repeat(40), "{err}");
    assert!(matches!(read(&found).review(), Review::Stale { .. }));
    assert!(err.contains("is its last commit"), "{err}");
}

/// Two who reviewed each other's commits of one range: the controller sees that they are authors.
#[test]
fn a_reviewer_who_wrote_other_commits_of_the_range_is_named_as_their_author() {
    let it = PullRequest::squashed();
    let events = it.events(&[PULLS, REVIEWS, COMMITS, PUSH]);
    it.it.write("src/shop.rs", "boots\n");
    let bob = "Bob <12+bobby@users.noreply.github.com>";
    it.it.commit(
        bob,
        "Sell boots\n\nReviewed-by: Jane Doe <jane@example.org>",
    );
    let events: Vec<_> = events.iter().map(String::as_str).collect();
    let found = it.it.stamp(&events);
    assert_eq!(found["approved-revision"], found["revision"]);
    assert_eq!(found["reviewers"], format!("{bob}, {JANE}"));
    assert!(matches!(read(&found).review(), Review::Missing(_)));
}

/// On a public repository anybody may approve.
#[test]
fn a_strangers_approval_does_not_count() {
    let it = PullRequest::squashed();
    let pulls = PULLS.replace("\"private\": true", "\"private\": false");
    it.is_reviewed_by(&[&pulls, REVIEWS, COMMITS, PUSH], "bobby");
    let strangers = REVIEWS.replace("MEMBER", "NONE");
    it.is_not_reviewed(&[&pulls, &strangers, COMMITS, PUSH], "not a visible member");
    it.is_reviewed_by(&[PULLS, &strangers, COMMITS, PUSH], "bobby");
}

#[test]
fn a_commit_outside_of_the_pull_request_is_not_reviewed() {
    let it = PullRequest::squashed();
    let events = it.events(&[PULLS, REVIEWS, COMMITS, PUSH]);
    it.it.write("src/shop.rs", "boots\n");
    it.it.commit(JANE, "directly");
    let events: Vec<_> = events.iter().map(String::as_str).collect();
    let printed = it
        .it
        .run(&[&["--range", "base..main", "-o", "json"], &events[..]].concat());
    assert!(
        printed.ok && !printed.out.contains("approved-revision"),
        "{}",
        printed.out
    );
    assert!(
        printed
            .err
            .contains("no review is known of 1 of the commits"),
        "{}",
        printed.err
    );
}

/// A merge by hand may change what no reviewer saw, and GitHub calls that commit the merge all the same.
#[test]
fn what_a_merge_smuggles_in_is_not_reviewed() {
    let it = PullRequest::merged();
    it.it.write("smuggled", "1\n");
    it.it.git(&["add", "-A"]);
    it.it.git(&["commit", "-q", "--amend", "--no-edit"]);
    it.is_not_reviewed(&[PULLS, REVIEWS, COMMITS, PUSH], "no review is known of 1");
}

/// The reviewer of a branch does not see what the branch merged from its target.
#[test]
fn what_a_branch_merged_from_its_target_is_not_reviewed() {
    let it = PullRequest::branch();
    it.write("direct", "1\n");
    it.commit(JANE, "directly");
    it.git(&["checkout", "-q", "shoes"]);
    let own = it.git(&["rev-parse", "shoes"]);
    it.git(&["merge", "-q", "--no-ff", "-m", "Update", "main"]);
    it.git(&["checkout", "-q", "main"]);
    it.git(&["merge", "-q", "--ff-only", "shoes"]);
    let head = it.git(&["rev-parse", "main"]);
    let it = PullRequest { it, head };
    it.is_not_reviewed(
        &[PULLS, REVIEWS, &listed(&[&own, "HEAD_SHA"])],
        "no review is known of 1 of the commits",
    );
}

/// The reviewer sees how the branch resolved a conflict.
#[test]
fn a_conflict_that_the_branch_resolved_is_reviewed() {
    let it = PullRequest::branch();
    it.write("src/shop.rs", "boots\n");
    it.commit(JANE, "directly\n\nReviewed-by: Bob <bob@example.org>");
    it.git(&["checkout", "-q", "shoes"]);
    it.git(&["merge", "-q", "-s", "ours", "-m", "Update", "main"]);
    it.write("src/shop.rs", "shoes and boots\n");
    it.git(&["add", "-A"]);
    it.git(&["commit", "-q", "--amend", "--no-edit", "--author", JANE]);
    let head = it.git(&["rev-parse", "shoes"]);
    it.git(&["checkout", "-q", "main"]);
    it.git(&["merge", "-q", "--no-ff", "-m", "Merge #12", "shoes"]);
    let it = PullRequest { it, head };
    let documents = [PULLS, REVIEWS, COMMITS];
    it.is_reviewed_by(&documents, "Bob <bob@example.org>, bobby");
    let (found, _) = it.stamp(&documents, &[]);
    assert_eq!(found["review-source"], "Trailer", "the weaker one of both");
}

/// The merge commit of an open pull request is a test that anybody can change.
#[test]
fn an_open_pull_request_covers_no_squashed_commit() {
    let it = PullRequest::squashed();
    let open = PULLS.replace("\"2026-11-20T12:00:00Z\"", "null");
    it.is_not_reviewed(
        &[&open, REVIEWS, COMMITS, PUSH],
        "no commit of --range is known to come from it",
    );
}

#[test]
fn documents_without_a_review_say_what_to_pass() {
    let it = PullRequest::squashed();
    it.is_not_reviewed(&[PUSH], "hold no review: pass pulls/N/reviews");
    it.is_not_reviewed(&[REVIEWS, PUSH], "its pull request is not in the files");
}
