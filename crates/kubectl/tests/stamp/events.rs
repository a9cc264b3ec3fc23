//! Reviews and check results of `--event`: a reviewed pull request counts as reviewed, and nothing else
//! does.

use super::*;

const PULLS: &str = include_str!("events/github-pulls.json");
const REVIEWS: &str = include_str!("events/github-reviews.json");
const COMMITS: &str = include_str!("events/github-commits.json");
const COMPARE: &str = include_str!("events/github-compare.json");
const PUSH: &str = include_str!("events/github-event-push.json");
const CHECK_RUNS: &str = include_str!("events/github-check-runs.json");
const STATUS: &str = include_str!("events/github-status.json");
const WORKFLOW_RUN: &str = include_str!("events/github-event-workflow-run.json");
const REVIEW_EVENT: &str = include_str!("events/github-event-pull-request-review.json");
const MERGE_REQUEST: &str = include_str!("events/gitlab-merge-request.json");
const APPROVALS: &str = include_str!("events/gitlab-approvals.json");
const VERSIONS: &str = include_str!("events/gitlab-versions.json");
const GITLAB_COMMITS: &str = include_str!("events/gitlab-commits.json");
const MEMBERS: &str = include_str!("events/gitlab-members.json");
const JOBS: &str = include_str!("events/gitlab-jobs.json");
const APPROVED: &str = include_str!("events/gitlab-event-merge-request.json");

/// A repository with a merged pull request: `base..HEAD` of branch `main`.
struct PullRequest {
    it: Repository,
    /// The last commit of the branch.
    head: String,
}

impl PullRequest {
    fn branch() -> Repository {
        let it = Repository::new();
        it.git(&["checkout", "-q", "-b", "shoes"]);
        it.write("src/shop.rs", "shoes\n");
        it.commit(JANE, "Sell shoes");
        it.git(&["checkout", "-q", "main"]);
        it
    }

    fn squashed() -> Self {
        let it = Self::branch();
        let head = it.git(&["rev-parse", "shoes"]);
        it.git(&["merge", "-q", "--squash", "shoes"]);
        it.commit(JANE, "Sell shoes (#12)");
        Self { it, head }
    }

    fn merged() -> Self {
        let it = Self::branch();
        let head = it.git(&["rev-parse", "shoes"]);
        it.git(&["merge", "-q", "--no-ff", "-m", "Merge #12", "shoes"]);
        Self { it, head }
    }

    /// The arguments that pass these documents, each in a file of its own.
    fn events(&self, documents: &[&str]) -> Vec<String> {
        let merge = self.it.git(&["rev-parse", "main"]);
        let base = self.it.git(&["rev-parse", "base"]);
        let write = |(index, document): (usize, &&str)| {
            let text = document
                .replace("HEAD_SHA", &self.head)
                .replace("MERGE_SHA", &merge)
                .replace("BASE_SHA", &base);
            let path = format!(".git/document-{index}");
            self.it.write(&path, &text);
            ["--event".to_owned(), path]
        };
        documents.iter().enumerate().flat_map(write).collect()
    }

    #[track_caller]
    fn stamp(&self, documents: &[&str], more: &[&str]) -> (BTreeMap<String, String>, String) {
        let events = self.events(documents);
        let events: Vec<_> = events.iter().map(String::as_str).collect();
        let arguments = [&["--range", "base..main", "-o", "json"], more, &events].concat();
        let printed = self.it.run(&arguments);
        assert!(printed.ok, "{}", printed.err);
        let all: BTreeMap<String, String> = serde_json::from_str(&printed.out).unwrap();
        let own = all.into_iter().map(|(key, value)| {
            let key = key.strip_prefix(PROVENANCE_PREFIX).unwrap();
            (key.to_owned(), value)
        });
        (own.collect(), printed.err)
    }

    #[track_caller]
    fn is_reviewed_by(&self, documents: &[&str], reviewer: &str) {
        let (found, err) = self.stamp(documents, &[]);
        assert_eq!(
            found.get("reviewers").map(String::as_str),
            Some(reviewer),
            "{err}"
        );
        assert_eq!(found["approved-revision"], found["revision"], "{err}");
        let review = read(&found).review();
        assert!(matches!(review, Review::Independent(_)), "{review:?}");
    }

    /// Without a review that counts, and with this remark.
    #[track_caller]
    fn is_not_reviewed(&self, documents: &[&str], remark: &str) {
        let (found, err) = self.stamp(documents, &[]);
        assert!(!found.contains_key("approved-revision"), "{found:?}");
        assert!(matches!(read(&found).review(), Review::Missing(_)));
        assert!(err.contains(remark), "{err}");
    }
}

/// GitHub's list of these commits of a pull request.
fn listed(ids: &[&str]) -> String {
    let item = COMMITS.trim().trim_start_matches('[').trim_end_matches(']');
    let items: Vec<_> = ids.iter().map(|id| item.replace("HEAD_SHA", id)).collect();
    format!("[{}]", items.join(","))
}

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
    // Whoever wrote a commit of another person's pull request, too.
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
    it.is_not_reviewed(&[&pulls, &strangers, COMMITS, PUSH], "no visible member");
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

/// A commit on top of the reviewed one is no squash of it, even if the forge calls it the merge.
#[test]
fn what_is_on_top_of_the_reviewed_commit_is_not_its_squash() {
    let it = PullRequest::branch();
    let head = it.git(&["rev-parse", "shoes"]);
    it.git(&["merge", "-q", "--ff-only", "shoes"]);
    it.git(&["tag", "-f", "base"]);
    it.write("smuggled", "1\n");
    it.commit(JANE, "Sell shoes (#12)");
    let it = PullRequest { it, head };
    let nothing = "no commit of --range is known to come from it";
    it.is_not_reviewed(&[PULLS, REVIEWS, COMMITS, PUSH], nothing);
    let documents = [MERGE_REQUEST, APPROVALS, VERSIONS, GITLAB_COMMITS];
    it.is_not_reviewed(&documents, nothing);
}

/// GitHub's `base.sha` may be older than the commit on which the branch begins.
#[test]
fn what_a_branch_was_rebased_onto_is_not_reviewed() {
    let it = Repository::new();
    let commit = |text: &str| {
        it.write("src/shop.rs", text);
        it.commit(JANE, text);
        it.git(&["rev-parse", "HEAD"])
    };
    let [direct, first, head] = ["directly", "shoes", "boots"].map(commit);
    let it = PullRequest { it, head };
    let own = listed(&[&first, "HEAD_SHA"]);
    let one = "no review is known of 1 of the commits";
    it.is_not_reviewed(&[PULLS, REVIEWS, &own], one);
    // The list of another pull request does not count, nor does the comparison.
    it.is_not_reviewed(&[PULLS, REVIEWS, &own, &listed(&[&direct])], one);
    it.is_not_reviewed(
        &[PULLS, REVIEWS, COMPARE],
        "counts for its last commit only, since it is not known where the branch begins: pass pulls/N/commits of #12",
    );
    let all = listed(&[&direct, &first, "HEAD_SHA"]);
    it.is_reviewed_by(&[PULLS, REVIEWS, &all], "bobby");
    it.is_not_reviewed(&[PULLS, REVIEWS, &all, &own], one);
    // GitLab's `base_sha` is where the branch begins.
    let forwarded = MERGE_REQUEST.replace(
        "\"squash_commit_sha\": \"MERGE_SHA\"",
        "\"squash_commit_sha\": null",
    );
    it.is_reviewed_by(&[&forwarded, APPROVALS, VERSIONS], "bobby");
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

#[test]
fn the_command_line_wins_over_documents_and_the_conflict_is_reported() {
    let it = PullRequest::squashed();
    let documents = [PULLS, REVIEWS, COMMITS, PUSH, WORKFLOW_RUN];
    let given = ["--reviewer", "carol", "--approved-revision", "base"];
    let (found, err) = it.stamp(&documents, &given);
    assert_eq!(found["reviewers"], "carol");
    assert!(matches!(read(&found).review(), Review::Stale { .. }));
    assert!(
        err.contains("do not count: bobby approved the change"),
        "{err}"
    );

    let (found, err) = it.stamp(&documents, &["--tests", "FAILED"]);
    assert_eq!(found["tests"], "FAILED");
    assert!(
        err.contains("--tests is FAILED") && err.contains("PASSED"),
        "{err}"
    );
    let (_, err) = it.stamp(&documents, &["--tests", "PASSED"]);
    assert!(!err.contains("--tests"), "{err}");
}

#[test]
fn checks_of_the_deployed_revision_are_the_tests() {
    let it = PullRequest::squashed();
    let own = ["--own-check", "deploy"];
    let failed = CHECK_RUNS.replace("\"success\"", "\"timed_out\"");
    let cancelled = CHECK_RUNS.replace("\"success\"", "\"cancelled\"");
    let skipped = CHECK_RUNS.replace("\"success\"", "\"skipped\"");
    let cut = CHECK_RUNS.replace("\"total_count\": 3", "\"total_count\": 31");
    let of_branch = CHECK_RUNS.replace("MERGE_SHA", "HEAD_SHA");
    let pending = STATUS.replace("\"success\"", "\"pending\"");
    let audit = JOBS.replace("true", "false");
    for (documents, own, result, remark) in [
        (&[CHECK_RUNS, STATUS][..], &own[..], Some("PASSED"), ""),
        (&[WORKFLOW_RUN], &[], Some("PASSED"), ""),
        (&[CHECK_RUNS], &[], None, "checks are not finished: deploy"),
        (
            &[CHECK_RUNS, &pending],
            &own,
            None,
            "checks are not finished: ci/jenkins",
        ),
        (&[&failed], &[], Some("FAILED"), "checks failed: unit"),
        (
            &[&cancelled],
            &own,
            None,
            "without a result, such as by being cancelled: unit",
        ),
        (&[&skipped], &own, None, "were skipped"),
        (&[&cut], &own, None, "only 3 of 31 checks"),
        (&[&of_branch], &own, None, "not of"),
        (
            &[JOBS],
            &[],
            Some("WARNED"),
            "checks that may fail failed: audit",
        ),
        (&[&audit], &[], Some("FAILED"), "checks failed: audit"),
    ] {
        let (found, err) = it.stamp(documents, own);
        assert_eq!(
            found.get("tests").map(String::as_str),
            result,
            "{remark}: {err}"
        );
        assert!(err.contains(remark), "{remark}: {err}");
    }
}

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

#[test]
fn documents_that_cannot_be_read_are_refused_with_the_remedy() {
    let it = PullRequest::squashed();
    let many = format!("[{}]", "1,".repeat(9 << 20));
    for (document, remedy) in [
        ("", "is no JSON: it is empty"),
        ("{\"number\": ", "is no JSON"),
        (
            "{\"a\\u001b[2J\": 1}",
            "pass GitLab's event merge_request; ",
        ),
        ("7", "its fields are none"),
        (
            "{\"message\": \"Not Found\", \"status\": \"404\"}",
            "a refusal of the forge, `Not Found`",
        ),
        (
            &PULLS.replace("HEAD_SHA", "--output=x"),
            "GitHub's pulls/N, or commits/SHA/pulls, but a field",
        ),
        (
            &REVIEWS.replace("\"user\": {", "\"user\": 1, \"x\": {"),
            "invalid type: integer `1`",
        ),
        (&many, "has more than 16 MiB"),
    ] {
        let events = it.events(&[document]);
        let events: Vec<_> = events.iter().map(String::as_str).collect();
        let refusal = it
            .it
            .refusal(&[&["--range", "base..main"], &events[..]].concat());
        assert!(refusal.contains(".git/document-0"), "{refusal}");
        assert!(
            refusal.contains(remedy) && !refusal.contains('\u{1b}'),
            "{refusal}"
        );
    }
    let absent = it
        .it
        .refusal(&["--range", "base..main", "--event", "absent.json"]);
    assert!(
        absent.contains("cannot read absent.json of --event"),
        "{absent}"
    );
}

/// The way of a change through the command line: what is unknown says how to make it known, and then is.
#[test]
fn an_unknown_review_costs_points_until_the_documents_are_passed() {
    let it = PullRequest::squashed();
    let rollout = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "Rollout", "metadata": { "name": "shop" },
        "spec": {
            "selector": { "matchLabels": { "app": "shop" } },
            "template": {
                "metadata": { "labels": { "app": "shop" } },
                "spec": { "containers": [{ "name": "shop", "image": "shop:2" }] },
            },
        },
    });
    let rollout: String = serde_saphyr::to_string(&rollout).unwrap();
    it.it.write("rollout.yaml", &rollout);
    let explained = || {
        let output = Command::new(env!("CARGO_BIN_EXE_kubectl-countersign"))
            .args(["explain", "-f", "rollout.yaml", "-o", "json"])
            .current_dir(&it.it.0)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let write = ["--range", "base..main", "-f", "rollout.yaml", "--write"];
    assert!(it.it.run(&write).ok);
    let before = explained();
    for sentence in [
        "no review is known; `stamp --event FILE` reads it: +8",
        "no test result is known; `stamp --event FILE` reads it: +6",
    ] {
        assert!(before.contains(sentence), "{before}");
    }
    let events = it.events(&[PULLS, REVIEWS, COMMITS, PUSH, WORKFLOW_RUN]);
    let events: Vec<_> = events.iter().map(String::as_str).collect();
    let printed = it.it.run(&[&write[..], &events].concat());
    assert!(printed.ok, "{}", printed.err);
    let after = explained();
    assert!(
        after.contains("bobby") && !after.contains("--event"),
        "{after}"
    );
}
