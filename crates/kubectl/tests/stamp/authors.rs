//! Who wrote a change: people, agents, mailmaps, merges, reverts, notes.

use super::*;

#[test]
fn an_agent_that_works_alone_has_no_operator() {
    let it = Repository::new();
    it.write("a", "1\n");
    it.commit(
        "copilot-swe-agent[bot] <198982749+Copilot@users.noreply.github.com>",
        "a",
    );
    let found = it.stamp(&[]);
    assert_eq!((&*found["contributor"], &*found["ai-share"]), ("ai", "100"));
    assert_eq!(
        (&*found["authors"], &*found["agents"]),
        ("copilot", "copilot")
    );
    assert!(read(&found).is_autonomous());
    let found = it.stamp(&["--human-operator", JANE]);
    assert!(!read(&found).is_autonomous());
}

#[test]
fn people_alone_are_human_and_a_mailmap_hides_nobody() {
    let it = Repository::new();
    it.write(".mailmap", "Bob <bob@example.org> <jane@example.org>\n");
    it.commit(JANE, "a");
    let found = it.stamp(&[]);
    assert_eq!(
        (&*found["contributor"], &*found["ai-share"]),
        ("human", "0")
    );
    assert_eq!(found["authors"], JANE);
}

#[test]
fn merges_have_no_author_unless_they_smuggle_a_change_in() {
    let it = Repository::new();
    it.git(&["checkout", "-q", "-b", "side"]);
    it.write("side", "1\n");
    it.commit(BOB, "side");
    it.git(&["checkout", "-q", "main"]);
    it.write("main", "1\n");
    it.commit(JANE, "main");
    it.git(&[
        "merge",
        "-q",
        "--no-ff",
        "-m",
        "Merge side\n\nReviewed-by: Carol <carol@example.org>",
        "side",
    ]);
    let found = it.stamp(&[]);
    assert_eq!(found["authors"], format!("{BOB}, {JANE}"));
    assert_eq!(found["reviewers"], "Carol <carol@example.org>");
    assert!(!found.contains_key("approved-revision"));

    it.write("smuggled", "1\n");
    it.git(&["add", "-A"]);
    it.git(&["commit", "-q", "--amend", "--no-edit"]);
    assert!(it.stamp(&[])["authors"].contains("Nobody <nobody@example.org>"));
}

#[test]
fn a_revert_is_its_authors_change() {
    let it = Repository::assisted();
    it.git(&["tag", "-f", "base"]);
    it.git(&["revert", "--no-edit", "HEAD"]);
    let found = it.stamp(&[]);
    assert_eq!(
        (&*found["contributor"], &*found["lines-deleted"]),
        ("human", "3")
    );
}

#[test]
fn a_squashed_merge_hides_neither_an_ai_nor_an_author() {
    let it = Repository::new();
    it.git(&["checkout", "-q", "-b", "side"]);
    it.write("a", "1\n");
    it.commit(
        BOB,
        "fix: a\n\nReviewed-by: Carol <carol@example.org>\nCo-Authored-By: Copilot <223556219+Copilot@users.noreply.github.com>",
    );
    it.write("b", "1\n");
    it.commit("Dan <dan@example.org>", "b");
    it.git(&["checkout", "-q", "main"]);
    it.git(&["merge", "-q", "--squash", "side"]);
    it.git(&["commit", "-q", "--no-edit", "--author", JANE]);
    let found = it.stamp(&[]);
    assert_eq!(
        (&*found["contributor"], &*found["agents"]),
        ("mixed", "copilot")
    );
    assert_eq!(
        found["authors"],
        format!("{BOB}, Dan <dan@example.org>, {JANE}")
    );
    assert!(!found.contains_key("reviewers"), "git sees no trailer");
}

/// The controller would read none of them, so that it could bar none from signing the change off.
#[test]
fn more_authors_than_the_controller_reads_are_refused() {
    let it = Repository::new();
    let trailers: Vec<_> = (0..100)
        .map(|i| format!("Co-authored-by: Author {i} <author-{i}@long.name.example.org>"))
        .collect();
    it.commit(JANE, &format!("a\n\n{}", trailers.join("\n")));
    it.write("rollout.yaml", MANIFEST);
    let range = ["--range", "base..HEAD"];
    for more in [&[][..], &["-f", "rollout.yaml", "--write"]] {
        let refusal = it.refusal(&[&range[..], more].concat());
        assert!(
            refusal.contains("authors has") && refusal.contains("fewer authors"),
            "{refusal}"
        );
    }
    let manifest = fs::read_to_string(it.0.join("rollout.yaml")).unwrap();
    assert_eq!(manifest, MANIFEST);
}

#[test]
fn a_hostile_author_is_one_author() {
    let it = Repository::new();
    it.write("a", "1\n");
    it.commit(
        "Eve, Bob\u{202e}: x # <eve@example.org>",
        "a\n\nCo-authored-by: Mal,\tMallory\u{1b}[2J <mal@x>, <bob@x>",
    );
    let found = it.stamp(&[]);
    assert_eq!(
        found["authors"],
        "Eve Bob: x # <eve@example.org>, Mal Mallory [2J <mal@x>"
    );
    let yaml = it.run(&["--range", "base..HEAD"]).out;
    let again: BTreeMap<String, String> = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(
        again["provenance.countersign.dev/authors"],
        found["authors"]
    );
}

#[test]
fn notes_of_git_ai_attribute_lines() {
    let it = Repository::assisted();
    let note = "src/shop.rs\n  h_1 1-2\n  s_1::t_1 3\n---\n{\"schema_version\":\"authorship/3.0.0\",\"sessions\":{\"s_1\":{\"agent_id\":{\"tool\":\"claude-code\",\"model\":\"claude-opus-5\"}}}}";
    it.git(&["notes", "--ref=ai", "add", "-m", note, "HEAD"]);
    let found = it.stamp(&[]);
    assert_eq!(found["ai-share"], "34");
    assert_eq!(
        found["agents"],
        "claude claude-opus-4.8, claude-code claude-opus-5"
    );
}
