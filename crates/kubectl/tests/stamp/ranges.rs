//! Which commits and options can be read, and what is refused.

use super::*;

#[test]
fn the_rules_are_those_of_the_base() {
    let it = Repository::new();
    it.write(".countersign.yaml", "touches:\n  search: [\"src/**\"]\n");
    it.commit(JANE, "rules");
    it.git(&["tag", "-f", "base"]);
    it.write(".countersign.yaml", "touches:\n  search: []\n");
    it.write("src/a.rs", "1\n");
    it.commit(JANE, "weaken the rules");
    assert_eq!(it.stamp(&[])["touches"], "infra, search");
    let printed = it.run(&["--range", "base..HEAD"]);
    assert!(
        printed.err.contains("the range changes .countersign.yaml"),
        "{}",
        printed.err
    );
    assert_eq!(
        it.stamp(&["--config", ".countersign.yaml"])["touches"],
        "infra"
    );

    it.write("bad.yaml", "touch:\n  a: []\n");
    let refusal = it.refusal(&["--range", "base..HEAD", "--config", "bad.yaml"]);
    assert!(
        refusal.contains("bad.yaml") && refusal.contains("line 1"),
        "{refusal}"
    );
}

#[test]
fn ranges_that_cannot_be_read_are_refused_with_the_remedy() {
    let it = Repository::assisted();
    for (range, remedy) in [
        ("base", "write BASE..HEAD"),
        ("base...HEAD", "write BASE..HEAD"),
        ("..HEAD", "write BASE..HEAD"),
        ("absent..HEAD", "`absent`, which is not a commit"),
        ("base..--output=x", "`--output=x`, which is not a commit"),
        ("HEAD..HEAD", "has no commits"),
        ("HEAD..base", "has no commits"),
    ] {
        let refusal = it.refusal(&["--range", range]);
        assert!(refusal.contains(remedy), "{range}: {refusal}");
    }
    let nowhere = Repository::empty();
    assert!(
        nowhere
            .refusal(&["--range", "a..b"])
            .contains("git repository")
    );
}

#[test]
fn a_shallow_clone_is_refused_where_it_lacks_commits() {
    let it = Repository::assisted();
    let base = it.git(&["rev-parse", "base"]);
    it.commit(JANE, "more");
    let clone = Repository::empty();
    let from = format!("file://{}", it.0.display());
    clone.git(&["clone", "-q", "--depth", "2", "--no-tags", &from, "."]);
    let range = format!("{base}..HEAD");
    assert!(clone.refusal(&["--range", &range]).contains("--unshallow"));
    clone.git(&["fetch", "-q", "--depth", "1", "origin", &base]);
    assert!(clone.refusal(&["--range", &range]).contains("--unshallow"));
    assert!(
        clone.run(&["--range", "HEAD~1..HEAD"]).ok,
        "what is there is enough"
    );
    clone.git(&["fetch", "-q", "--unshallow"]);
    assert!(clone.run(&["--range", &range]).ok);
}

#[test]
fn a_base_beside_the_head_is_noted() {
    let it = Repository::assisted();
    it.git(&["checkout", "-q", "-b", "hotfix", "base"]);
    it.commit(BOB, "hotfix");
    let printed = it.run(&["--range", "hotfix..main"]);
    assert!(
        printed.ok
            && printed
                .err
                .contains("the base has 1 commits that the head has not"),
        "{}",
        printed.err
    );
}

#[test]
fn options_that_cannot_be_meant_are_refused() {
    let it = Repository::assisted();
    for (option, value) in [
        ("--image", "shop@sha256:abc"),
        ("--image", "two words"),
        ("--reviewer", "bob, carol"),
        ("--reviewer", ""),
        ("--approved-revision", "absent"),
        ("--tests", "passed?"),
        ("--rollout", "shop"),
    ] {
        let refusal = it.refusal(&["--range", "base..HEAD", option, value]);
        assert!(refusal.contains(option), "{refusal}");
    }
}
