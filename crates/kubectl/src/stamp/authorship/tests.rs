use super::super::git::Change;
use super::*;

const JANE: (&str, &str) = ("Jane Doe", "jane@example.org");
const CLAUDE: (&str, &str) = ("Claude", "noreply@anthropic.com");
const GITHUB: (&str, &str) = ("GitHub", "noreply@github.com");
const BY_CLAUDE: &str = "a\n\nCo-Authored-By: Claude <noreply@anthropic.com>";

fn signature((name, address): (&str, &str)) -> Signature {
    Signature {
        name: name.into(),
        address: address.into(),
    }
}

fn commit(author: (&str, &str), message: &str, lines: u64) -> Commit {
    Commit {
        id: "0123456789abcdef".into(),
        parents: 1,
        author: signature(author),
        committer: signature(author),
        message: message.into(),
        changes: vec![Change {
            path: "src/a.rs".into(),
            from: None,
            lines: Some((lines, 0)),
        }],
        ..Commit::default()
    }
}

fn authorship(commits: &[Commit]) -> Authorship {
    Authorship::of(commits, &Areas::read("").unwrap())
}

fn is_reviewed(it: &Authorship) -> bool {
    !it.reviews.is_empty() && it.reviews.values().all(|by| !by.is_empty())
}

fn one(texts: &BTreeSet<String>) -> &str {
    assert!(texts.len() < 2, "{texts:?}");
    texts.first().map_or("", String::as_str)
}

#[test]
fn people_alone_are_human() {
    let it = authorship(&[commit(JANE, "a", 3)]);
    assert_eq!((it.contributor, it.ai_share), (Contributor::Human, Some(0)));
    assert_eq!(one(&it.authors), "Jane Doe <jane@example.org>");
    assert!(it.operators.is_empty() && it.agents.is_empty() && !is_reviewed(&it));
}

#[test]
fn all_lines_of_an_assisted_commit_are_the_ais() {
    let it = authorship(&[commit(JANE, "a", 199), commit(JANE, BY_CLAUDE, 1)]);
    assert_eq!((it.contributor, it.ai_share), (Contributor::Mixed, Some(1)));
    assert_eq!(one(&it.operators), "Jane Doe <jane@example.org>");
}

#[test]
fn a_change_by_an_ai_alone_is_an_ais() {
    let generated = commit(JANE, "a\n\nGenerated-by: ChatGPT", 5);
    let mut authored = commit(CLAUDE, "b", 5);
    let it = authorship(&[generated, authored.clone()]);
    assert_eq!((it.contributor, it.ai_share), (Contributor::Ai, Some(100)));
    assert!(it.authors.contains("claude"), "{:?}", it.authors);
    assert_eq!(one(&it.operators), "Jane Doe <jane@example.org>");

    authored.committer = signature(GITHUB);
    let alone = authorship(std::slice::from_ref(&authored));
    assert_eq!(one(&alone.operators), "", "nobody drove it");
    authored.committer = signature(JANE);
    assert_eq!(
        one(&authorship(&[authored]).operators),
        "Jane Doe <jane@example.org>"
    );
}

#[test]
fn the_person_whom_an_ai_names_as_co_author_drove_it() {
    let mut it = commit(
        CLAUDE,
        "a\n\nCo-authored-by: Jane Doe <jane@example.org>",
        5,
    );
    it.committer = signature(GITHUB);
    let it = authorship(&[it]);
    assert_eq!(one(&it.operators), "Jane Doe <jane@example.org>");
    assert_eq!(it.authors.len(), 2);
}

#[test]
fn what_cannot_be_attributed_is_unknown_and_never_human() {
    for (author, message) in [
        (JANE, "a\n\nAssisted-by: Orac"),
        (JANE, "a\n\nGenerated-by:"),
        (("Claude", "claude@example.org"), "a"),
        (
            (
                "dependabot[bot]",
                "49699333+dependabot[bot]@users.noreply.github.com",
            ),
            "a",
        ),
    ] {
        let it = authorship(&[commit(JANE, "b", 5), commit(author, message, 5)]);
        assert_eq!(
            (it.contributor, it.ai_share),
            (Contributor::Unknown, None),
            "{message}"
        );
    }
    let mut applied = commit(JANE, "a", 1);
    applied.committer = signature(("some-new-ai[bot]", "x@example.org"));
    assert_eq!(authorship(&[applied]).contributor, Contributor::Unknown);
    let mut noted = commit(JANE, "a", 1);
    noted.note = "scribble".into();
    assert_eq!(authorship(&[noted]).contributor, Contributor::Unknown);
}

#[test]
fn a_robot_gets_a_name_that_is_no_persons() {
    let it = authorship(&[commit(GITHUB, "a", 1)]);
    assert!(
        Identity::of(one(&it.authors)).is_agent(&[]),
        "{:?}",
        it.authors
    );
}

#[test]
fn a_merge_without_changes_of_its_own_has_no_author_but_its_traces_count() {
    let mut merge = commit(("Mia Merger", "mia@x"), BY_CLAUDE, 0);
    merge.parents = 2;
    merge.changes.clear();
    merge.reviewed = vec!["Bob <bob@x>".into()];
    let it = authorship(&[commit(JANE, "a", 1), merge.clone()]);
    assert_eq!(it.contributor, Contributor::Mixed);
    assert_eq!(
        (one(&it.authors), one(&it.operators)),
        ("Jane Doe <jane@example.org>", "")
    );
    assert_eq!(
        (one(&it.reviewers), is_reviewed(&it)),
        ("Bob <bob@x>", false)
    );

    merge.changes = commit(JANE, "", 4).changes;
    let evil = authorship(&[commit(JANE, "a", 1), merge]);
    assert_eq!((evil.authors.len(), evil.ai_share), (2, Some(80)));
}

#[test]
fn all_are_reviewed_only_if_each_is_by_someone_else() {
    let reviewed = |by: &str| {
        let mut it = commit(JANE, BY_CLAUDE, 1);
        it.reviewed = vec![by.into()];
        it
    };
    let all = |commits: &[Commit]| is_reviewed(&authorship(commits));
    let bob = "Bob <bob@example.org>";
    assert!(all(&[reviewed(bob), reviewed(bob)]));
    assert!(!all(&[reviewed(bob), commit(JANE, "a", 1)]));
    for nobody in [
        "jane doe",
        "X <JANE@example.org>",
        "Claude <noreply@anthropic.com>",
        "coderabbitai[bot]",
        "",
    ] {
        assert!(!all(&[reviewed(nobody)]), "{nobody}");
    }
    assert!(!all(&[]));
}

#[test]
fn a_note_saves_only_the_lines_that_a_person_is_known_to_have_written() {
    let note = "src/a.rs\n  h_1 1-60\n  s_1::t_1 61-80\n---\n{\"schema_version\":\"authorship/3.0.0\",\"sessions\":{\"s_1\":{\"agent_id\":{\"tool\":\"claude\"}}}}";
    let mut noted = commit(JANE, BY_CLAUDE, 100);
    noted.note = note.into();
    assert_eq!(
        authorship(&[noted.clone()]).ai_share,
        Some(40),
        "20 are nobody's"
    );
    noted.message = "a\n\nGenerated-by: Claude".into();
    assert_eq!(authorship(&[noted.clone()]).ai_share, Some(100));
    noted.message = BY_CLAUDE.into();
    noted.note = note
        .replace("  s_1::t_1 61-80\n", "")
        .replace("{\"agent_id\":{\"tool\":\"claude\"}}", "{}");
    assert_eq!(authorship(&[noted.clone()]).ai_share, Some(100));
    noted.message = "a".into();
    assert_eq!(authorship(&[noted]).contributor, Contributor::Human);
}

#[test]
fn a_share_that_no_line_gives_is_not_written() {
    let mut binary = commit(JANE, BY_CLAUDE, 0);
    binary.changes[0].lines = None;
    assert_eq!(authorship(std::slice::from_ref(&binary)).ai_share, None);
    let some = [commit(JANE, "b", 1), commit(JANE, BY_CLAUDE, 1), binary];
    assert_eq!(authorship(&some).ai_share, None, "some lines are hidden");
}
