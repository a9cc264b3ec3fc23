use std::path::PathBuf;

use super::document::shapes;
use super::facts::{Outcome, Reviewed, Verdict};
use super::*;

/// A document of the tests of the command line.
fn document(name: &str) -> Facts {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/stamp/events");
    let text = std::fs::read_to_string(path.join(format!("{name}.json"))).unwrap();
    let text = text
        .replace("HEAD_SHA", &sha('a'))
        .replace("MERGE_SHA", &sha('b'))
        .replace("BASE_SHA", &sha('c'));
    let mut facts = Facts::default();
    document::read(name, text.as_bytes(), &mut facts).unwrap();
    facts
}

fn sha(digit: char) -> String {
    digit.to_string().repeat(40)
}

#[test]
fn a_pull_request_is_read_from_events_and_answers() {
    for name in [
        "github-pulls",
        "github-event-pull-request",
        "github-event-pull-request-review",
    ] {
        let facts = document(name);
        let request = facts.requests.values().next().unwrap();
        assert_eq!(
            (&*request.name, request.author.as_deref()),
            ("#12", Some("jane-d"))
        );
        assert_eq!(
            (&request.head, request.base.as_ref()),
            (&sha('a'), Some(&sha('c')))
        );
        assert_eq!(request.merge, Some(sha('b')));
        assert_eq!(request.is_merged, !name.ends_with("review"), "{name}");
        assert!(request.is_private);
    }
}

#[test]
fn reviews_are_read_with_their_state_revision_and_account() {
    let facts = document("github-reviews");
    let read = facts.reviews.iter();
    let read: Vec<_> = read
        .map(|it| (&*it.account, it.verdict, it.is_person))
        .collect();
    let expected = [
        ("bobby", Verdict::ChangesRequested, true),
        ("bobby", Verdict::Approved, true),
        ("shop-ci[bot]", Verdict::Approved, false),
    ];
    assert_eq!(read, expected, "a comment is no answer");
    for name in [
        "github-event-pull-request-review",
        "gitlab-event-merge-request",
    ] {
        let facts = document(name);
        let [review] = &facts.reviews[..] else {
            panic!("{facts:?}")
        };
        assert!(
            facts
                .requests
                .contains_key(review.request.as_ref().unwrap())
        );
        assert_eq!(
            (&*review.account, review.verdict),
            ("bobby", Verdict::Approved)
        );
        assert_eq!(review.reviewed, Reviewed::Revision(sha('a')));
    }
}

#[test]
fn a_merge_request_is_read_with_its_approvals_and_pushes() {
    let request = document("gitlab-merge-request");
    let request = request.requests.values().next().unwrap();
    assert_eq!(
        (&*request.name, request.author.as_deref()),
        ("!12", Some("jane-d"))
    );
    assert_eq!(
        (request.merge.as_ref(), request.squash.as_ref()),
        (None, Some(&sha('b')))
    );
    let approvals = document("gitlab-approvals");
    let people = approvals.reviews.iter().map(|it| it.is_person);
    assert_eq!(people.collect::<Vec<_>>(), [true, false]);
    let of = |it: &facts::Review| it.request.as_ref() == Some(&request.key) && it.at.is_some();
    assert!(approvals.reviews.iter().all(of));
    let pushes = document("gitlab-versions").pushes;
    assert_eq!((pushes.len(), Some(pushes[0].request)), (2, request.id));
}

#[test]
fn the_accounts_of_authors_are_read() {
    for name in [
        "github-commits",
        "github-compare",
        "github-event-push",
        "gitlab-members",
        "gitlab-merge-request",
        "gitlab-event-merge-request",
    ] {
        let accounts = document(name).accounts.of("Jane Doe <jane@example.org>");
        assert_eq!(
            accounts.into_iter().collect::<Vec<_>>(),
            ["jane-d"],
            "{name}"
        );
    }
    for (name, id) in [
        ("github-commits", 'a'),
        ("github-compare", 'b'),
        ("gitlab-commits", 'a'),
    ] {
        let commits = document(name).commits;
        assert_eq!(commits[&sha(id)].parents, [sha('c')], "{name}");
    }
}

#[test]
fn checks_are_read_from_events_and_answers() {
    for (name, expected) in [
        (
            "github-check-runs",
            &[Outcome::Passed, Outcome::Skipped, Outcome::Unfinished][..],
        ),
        ("github-status", &[Outcome::Passed]),
        ("github-event-workflow-run", &[Outcome::Passed]),
        ("github-event-check-suite", &[Outcome::Failed]),
        ("github-event-check-run", &[Outcome::Passed]),
        ("github-event-merge-group", &[]),
        ("gitlab-jobs", &[Outcome::Passed, Outcome::Warned]),
        ("gitlab-pipeline", &[Outcome::Passed]),
        ("gitlab-event-pipeline", &[Outcome::Failed]),
    ] {
        let checks = document(name).checks;
        let outcomes: Vec<_> = checks.values().map(|it| it.outcome).collect();
        assert_eq!(outcomes, expected, "{name}");
        assert!(checks.values().all(|it| it.revision == sha('b')), "{name}");
    }
}

#[test]
fn the_recognised_documents_are_those_of_the_pages() {
    let pages = [
        include_str!("../../../../../docs/ci-github.md"),
        include_str!("../../../../../docs/ci-gitlab.md"),
    ];
    for shape in shapes() {
        let (forge, what) = shape.what.split_once("'s ").unwrap_or(("", shape.what));
        let what = what.replace("event ", "");
        let names = what
            .split([',', ' '])
            .filter(|it| it.contains(['/', '_']) || *it == "push");
        for name in names {
            let name = format!("`{name}`");
            let page = pages[usize::from(forge == "GitLab")];
            assert!(page.contains(&name), "the page of {forge} lacks {name}");
        }
    }
}
