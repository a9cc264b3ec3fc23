//! `kubectl countersign stamp` on real git repositories.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use countersign_api::{PROVENANCE_PREFIX, PodTemplate};
use countersign_core::provenance::{Provenance, Review, State};
use serde_json::json;

const JANE: &str = "Jane Doe <jane@example.org>";
const BOB: &str = "Bob <bob@example.org>";
const BY_CLAUDE: &str = "Co-Authored-By: Claude Opus 4.8 (1M context) <noreply@anthropic.com>";
const MANIFEST: &str = include_str!("stamp/rollout.yaml");
const STAMPED: &str = include_str!("stamp/rollout.stamped.yaml");

/// A git repository in a directory of its own, which is removed in the end.
struct Repository(PathBuf);

impl Drop for Repository {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The output of the program.
struct Printed {
    ok: bool,
    out: String,
    err: String,
}

impl Repository {
    fn empty() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("countersign-stamp-{}-{count}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).unwrap();
        Self(directory)
    }

    /// With one commit, tagged `base`.
    fn new() -> Self {
        let it = Self::empty();
        it.git(&["init", "-q", "-b", "main"]);
        it.write("README.md", "shop\n");
        it.commit(JANE, "base");
        it.git(&["tag", "base"]);
        it
    }

    /// With a further commit in which Claude took part.
    fn assisted() -> Self {
        let it = Self::new();
        it.write("src/shop.rs", "one\ntwo\nthree\n");
        it.commit(JANE, &format!("Sell shoes\n\n{BY_CLAUDE}"));
        it
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .arg("-C")
            .arg(&self.0)
            .args([
                "-c",
                "user.name=Nobody",
                "-c",
                "user.email=nobody@example.org",
            ])
            .args([
                "-c",
                "commit.gpgSign=false",
                "-c",
                "protocol.file.allow=always",
            ])
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {printed}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Commits everything, as this author and committer.
    fn commit(&self, author: &str, message: &str) {
        let (name, address) = author.split_once(" <").unwrap();
        let (name, mail) = (
            format!("user.name={name}"),
            format!("user.email={}", address.trim_end_matches('>')),
        );
        self.git(&["add", "-A"]);
        self.git(&[
            "-c",
            &name,
            "-c",
            &mail,
            "commit",
            "-q",
            "--allow-empty",
            "--author",
            author,
            "-m",
            message,
        ]);
    }

    fn run(&self, arguments: &[&str]) -> Printed {
        self.run_with(arguments, "")
    }

    fn run_with(&self, arguments: &[&str], input: &str) -> Printed {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kubectl-countersign"))
            .arg("stamp")
            .args(arguments)
            .current_dir(&self.0)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, input.as_bytes()).unwrap();
        drop(stdin);
        let Output {
            status,
            stdout,
            stderr,
        } = child.wait_with_output().unwrap();
        Printed {
            ok: status.success(),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }

    /// The annotations of `base..HEAD`, without their prefix.
    #[track_caller]
    fn stamp(&self, arguments: &[&str]) -> BTreeMap<String, String> {
        let printed = self.run(&[&["--range", "base..HEAD", "-o", "json"], arguments].concat());
        assert!(printed.ok, "{}", printed.err);
        let all: BTreeMap<String, String> = serde_json::from_str(&printed.out).unwrap();
        let own = all.into_iter().map(|(key, value)| {
            (
                key.strip_prefix(PROVENANCE_PREFIX).unwrap().to_owned(),
                value,
            )
        });
        own.collect()
    }

    #[track_caller]
    fn refusal(&self, arguments: &[&str]) -> String {
        let printed = self.run(arguments);
        assert!(!printed.ok && printed.out.is_empty(), "{}", printed.out);
        printed.err
    }
}

/// What the controller reads from annotations without their prefix.
fn read(annotations: &BTreeMap<String, String>) -> Provenance {
    let image = annotations.get("image").cloned().unwrap_or_default();
    let template =
        PodTemplate(json!({ "spec": { "containers": [{ "name": "it", "image": image }] } }));
    let with_prefix = annotations
        .iter()
        .map(|(key, value)| (format!("{PROVENANCE_PREFIX}{key}"), value.clone()));
    Provenance::read(&with_prefix.collect(), &template)
}

#[test]
fn a_range_becomes_annotations_that_the_controller_reads() {
    let it = Repository::assisted();
    it.write("db/migrations/1.sql", "create\n");
    it.write("Cargo.lock", &"lock\n".repeat(500));
    it.commit(JANE, "A table\n\nReviewed-by: Bob <bob@example.org>");
    it.git(&[
        "remote",
        "add",
        "origin",
        "https://ci:secret@git.example/shop.git",
    ]);
    let image = format!("registry.example/shop@sha256:{}", "a".repeat(64));
    let found = it.stamp(&["--image", &image, "--tests", "PASSED"]);
    let head = it.git(&["rev-parse", "HEAD"]);
    let expected = [
        ("agents", "claude claude-opus-4.8"),
        ("ai-share", "75"),
        ("authors", JANE),
        ("contributor", "mixed"),
        ("files-changed", "2"),
        ("human-operator", JANE),
        ("image", &image),
        ("lines-added", "4"),
        ("lines-deleted", "0"),
        ("repository", "https://git.example/shop.git"),
        ("reviewers", BOB),
        ("revision", &head),
        ("subsystems", "2"),
        ("tests", "PASSED"),
        ("touches", "dependency, migration"),
    ];
    let expected: BTreeMap<_, _> = expected
        .map(|(key, value)| (key.into(), value.into()))
        .into();
    assert_eq!(found, expected);
    let read = read(&found);
    assert_eq!((read.state, &read.problems[..]), (State::Declared, &[][..]));
    assert!(
        matches!(read.review(), Review::Missing(_)),
        "only one commit is reviewed"
    );
}

#[test]
fn a_review_of_each_commit_is_a_review_of_the_head() {
    let it = Repository::new();
    for (file, trailers) in [
        ("a", "Reviewed-by: Bob <bob@example.org>"),
        (
            "b",
            "Reviewed-by: BOB <bob@example.org>\nTested-by: X <x@x>",
        ),
    ] {
        it.write(file, "1\n");
        it.commit(JANE, &format!("{file}\n\n{trailers}"));
    }
    let found = it.stamp(&[]);
    assert_eq!(found["approved-revision"], found["revision"]);
    assert!(matches!(read(&found).review(), Review::Independent(_)));
    assert!(
        !it.stamp(&["--reviewer", "carol"])
            .contains_key("approved-revision")
    );

    it.write("c", "1\n");
    it.commit(JANE, "c\n\nReviewed-by: Jane Doe <jane@example.org>");
    let found = it.stamp(&[]);
    assert!(!found.contains_key("approved-revision"));
    let named = it.stamp(&["--reviewer", "carol", "--approved-revision", "HEAD"]);
    assert!(matches!(read(&named).review(), Review::Independent(_)));
    let other = it.stamp(&["--reviewer", "carol", "--approved-revision", "HEAD~1"]);
    assert!(matches!(read(&other).review(), Review::Stale { .. }));
}

/// A review lowers the risk, so prose that looks like one is none.
#[test]
fn a_review_counts_only_where_git_sees_a_trailer() {
    let it = Repository::new();
    it.write("a", "1\n");
    it.commit(
        JANE,
        "a\n\nReviewed-by: Bob <bob@example.org>\n\nThat is what a trailer looks like.",
    );
    assert!(!it.stamp(&[]).contains_key("reviewers"));
}

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
fn renames_and_binary_files_count_as_files() {
    let it = Repository::assisted();
    it.git(&["tag", "-f", "base"]);
    it.git(&["mv", "src/shop.rs", "src/with\ttab\nand line.rs"]);
    it.write("logo.png", "\0\u{1}");
    it.commit(JANE, "Move");
    let printed = it.run(&["--range", "base..", "-o", "json"]);
    assert!(
        printed
            .err
            .contains("left out: logo.png: if they are not code"),
        "{}",
        printed.err
    );
    let found = it.stamp(&[]);
    assert_eq!(found["files-changed"], "2");
    assert!(!found.contains_key("lines-added") && !found.contains_key("lines-deleted"));
    assert_eq!(found["ai-share"], "0");
    it.write("rules.yaml", "ignore: [\"**/*.png\"]\n");
    let found = it.stamp(&["--config", "rules.yaml"]);
    assert_eq!(found["lines-added"], "0", "it is said to be no code");
}

/// Whoever writes `.gitattributes` must not be able to make a change look small.
#[test]
fn text_that_is_called_binary_counts_with_its_lines() {
    for attribute in ["binary", "-diff", "diff=hidden"] {
        let it = Repository::new();
        it.git(&["config", "diff.hidden.binary", "true"]);
        it.write("src/old.rs", "1\n2\n");
        it.commit(JANE, "old");
        it.git(&["tag", "-f", "base"]);
        it.write(".gitattributes", &format!("*.rs {attribute}\n"));
        it.write("src/old.rs", "1\n2\n3");
        it.write("src/new one.rs", &"code\n".repeat(95));
        it.commit(JANE, &format!("new\n\n{BY_CLAUDE}"));
        it.write("README.md", &"shop\n".repeat(102));
        it.commit(JANE, "people's");
        let found = it.stamp(&[]);
        let counted = ["lines-added", "lines-deleted", "ai-share"].map(|key| &*found[key]);
        assert_eq!(counted, ["200", "2", "50"], "{attribute}");
    }
}

/// A byte of zero hides the lines of what may be code all the same.
#[test]
fn lines_that_cannot_be_counted_are_not_written() {
    let it = Repository::assisted();
    it.write("src/new.js", &format!("/*\0*/{}", "code\n".repeat(500)));
    it.commit(JANE, &format!("new\n\n{BY_CLAUDE}"));
    let found = it.stamp(&[]);
    for key in ["lines-added", "lines-deleted", "ai-share"] {
        assert!(!found.contains_key(key), "{key}");
    }
    assert_eq!(found["contributor"], "mixed");
    assert_eq!(read(&found).problems, []);
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

/// Settings of the repository that would hide what changed, or run something.
#[test]
fn settings_of_the_repository_hide_nothing_and_run_nothing() {
    let it = Repository::assisted();
    let plain = it.stamp(&[]);
    let mark = it.0.join("ran");
    let run = format!("touch {}; false", mark.display());
    for (key, value) in [
        ("diff.external", run.as_str()),
        ("core.pager", &run),
        ("core.fsmonitor", &run),
        ("diff.all.textconv", &run),
        ("diff.all.command", &run),
        ("diff.relative", "true"),
        ("diff.noprefix", "true"),
        ("diff.ignoreSubmodules", "all"),
        ("log.showSignature", "true"),
        ("trailer.separators", "#"),
        ("color.ui", "always"),
    ] {
        it.git(&["config", key, value]);
    }
    it.write(".git/info/attributes", "* diff=all\n");
    fs::create_dir_all(it.0.join("empty")).unwrap();
    assert_eq!(it.stamp(&["--repo", "empty"]), plain);
    it.git(&["replace", "HEAD", "base"]);
    assert_eq!(it.stamp(&[]), plain);
    assert!(!mark.exists());
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
fn notes_of_git_ai_tell_lines() {
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
        ("absent..HEAD", "`absent`, which is no commit"),
        ("base..--output=x", "`--output=x`, which is no commit"),
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

/// A manifest with everything that a careless editor loses.
#[test]
fn a_manifest_is_printed_or_edited_with_nothing_else_changed() {
    let it = Repository::assisted();
    let head = it.git(&["rev-parse", "HEAD"]);
    let expected = STAMPED.replace("HEAD_REVISION", &head);
    it.write("rollout.yaml", MANIFEST);
    let range = ["--range", "base..HEAD"];
    let printed = it.run(&[&range[..], &["-f", "rollout.yaml"]].concat());
    assert!(printed.ok, "{}", printed.err);
    assert_eq!(printed.out, expected);
    assert_eq!(
        fs::read_to_string(it.0.join("rollout.yaml")).unwrap(),
        MANIFEST
    );
    let piped = it.run_with(&[&range[..], &["-f", "-"]].concat(), MANIFEST);
    assert_eq!(piped.out, expected);

    let written = it.run(&[&range[..], &["-f", "rollout.yaml", "--write"]].concat());
    assert!(written.ok && written.out.is_empty(), "{}", written.err);
    assert_eq!(
        fs::read_to_string(it.0.join("rollout.yaml")).unwrap(),
        expected
    );
    let again = it.run(&[&range[..], &["-f", "rollout.yaml"]].concat());
    assert_eq!(again.out, expected, "stamping twice is stamping once");
}

#[test]
fn a_manifest_that_cannot_be_stamped_leaves_all_files_as_they_are() {
    let it = Repository::assisted();
    it.write("good.yaml", MANIFEST);
    it.write("template.yaml", "kind: {{ .Values.kind }}\n");
    it.write("none.yaml", "kind: Service\n");
    let stamp = |more: &[&str]| it.refusal(&[&["--range", "base..HEAD", "--write"], more].concat());
    assert!(
        stamp(&["-f", "good.yaml", "-f", "template.yaml"])
            .contains("template.yaml: it is a template")
    );
    assert!(stamp(&["-f", "none.yaml"]).contains("no Rollout"));
    assert!(stamp(&["-f", "good.yaml", "--rollout", "other"]).contains("`other`"));
    assert!(stamp(&["-f", "absent.yaml"]).contains("absent.yaml"));
    assert!(stamp(&["-f", "-"]).contains("--write"));
    assert_eq!(
        fs::read_to_string(it.0.join("good.yaml")).unwrap(),
        MANIFEST
    );
}
