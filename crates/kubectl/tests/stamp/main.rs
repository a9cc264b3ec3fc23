//! `kubectl countersign stamp` on real git repositories.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod authors;
mod events;
mod manifests;
mod ranges;
mod signed;

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
const MANIFEST: &str = include_str!("rollout.yaml");
const STAMPED: &str = include_str!("rollout.stamped.yaml");
/// When all commits are made.
const COMMITTED_AT: &str = "2026-11-24T11:00:00Z";

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
            .env("GIT_COMMITTER_DATE", COMMITTED_AT)
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

    /// The annotations that it prints as JSON, without their prefix, and its remarks.
    #[track_caller]
    fn stamped(&self, arguments: &[&str]) -> (BTreeMap<String, String>, String) {
        let printed = self.run(arguments);
        assert!(printed.ok, "{}", printed.err);
        let all: BTreeMap<String, String> = serde_json::from_str(&printed.out).unwrap();
        let own = all.into_iter().map(|(key, value)| {
            let key = key.strip_prefix(PROVENANCE_PREFIX).unwrap();
            (key.to_owned(), value)
        });
        (own.collect(), printed.err)
    }

    fn run_with(&self, arguments: &[&str], input: &str) -> Printed {
        self.run_in(&[], arguments, input)
    }

    /// Runs the program with these variables and without those of a CI system that runs the tests.
    fn run_in(&self, variables: &[(&str, &str)], arguments: &[&str], input: &str) -> Printed {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kubectl-countersign"))
            .arg("stamp")
            .args(arguments)
            .current_dir(&self.0)
            .env_remove("GITHUB_ACTIONS")
            .env_remove("GITLAB_CI")
            .envs(variables.iter().copied())
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
        let range = ["--range", "base..HEAD", "-o", "json"];
        self.stamped(&[&range[..], arguments].concat()).0
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
        ("committed-at", COMMITTED_AT),
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
    assert_eq!(found["lines-added"], "0", "it is declared to be no code");
}

/// The author of `.gitattributes` must not be able to make a change look small.
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
