//! Reviews and check results of `--event`: a reviewed pull request counts as reviewed, and nothing else
//! does.

mod github;
mod gitlab;

use countersign_api::provenance::Covers;

use super::*;

const PULLS: &str = include_str!("events/github-pulls.json");
const REVIEWS: &str = include_str!("events/github-reviews.json");
const COMMITS: &str = include_str!("events/github-commits.json");
const COMPARE: &str = include_str!("events/github-compare.json");
const PUSH: &str = include_str!("events/github-event-push.json");
const CHECK_RUNS: &str = include_str!("events/github-check-runs.json");
const STATUS: &str = include_str!("events/github-status.json");
const WORKFLOW_RUN: &str = include_str!("events/github-event-workflow-run.json");
const MERGE_REQUEST: &str = include_str!("events/gitlab-merge-request.json");
const APPROVALS: &str = include_str!("events/gitlab-approvals.json");
const VERSIONS: &str = include_str!("events/gitlab-versions.json");
const GITLAB_COMMITS: &str = include_str!("events/gitlab-commits.json");
const JOBS: &str = include_str!("events/gitlab-jobs.json");

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
        self.it.stamped(&arguments)
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

/// A person whom only a trailer names is no reviewer beside those whom the forge shows.
#[test]
fn a_review_of_the_forge_is_signed_without_those_of_trailers() {
    let it = PullRequest::squashed();
    let message = "Sell shoes (#12)\n\nReviewed-by: Eve <eve@example.org>";
    it.it.git(&["commit", "-q", "--amend", "-m", message]);
    it.it
        .git(&["remote", "add", "origin", "https://git.example/shop.git"]);
    let signing = crate::signed::signing(&it.it);
    let signing: Vec<_> = signing.iter().map(String::as_str).collect();
    let (found, err) = it.stamp(&[PULLS, REVIEWS, COMMITS, PUSH], &signing);
    assert_eq!(
        (&*found["review-source"], &*found["reviewers"]),
        ("Forge", "bobby"),
        "{err}"
    );
    let base = it.it.git(&["rev-parse", "base"]);
    let attested = crate::signed::attested(&found["attestation"], &base, Covers::Images);
    assert_eq!(attested.unproven, None);
    for key in ["reviewers", "approved-revision", "review-source"] {
        let signed = &attested.annotations[&format!("{PROVENANCE_PREFIX}{key}")];
        assert_eq!(signed, &found[key]);
    }
    assert!(!err.contains("leaves the review out"), "{err}");
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
fn documents_that_cannot_be_read_are_refused_with_the_remedy() {
    let it = PullRequest::squashed();
    let many = format!("[{}]", "1,".repeat(9 << 20));
    for (document, remedy) in [
        ("", "is not JSON: it is empty"),
        ("{\"number\": ", "is not JSON"),
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
