//! What a release is upgraded from: the chart of an earlier commit, and its operator if `make upgrade` has built it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::release::run;

/// Set where the history must be there; `make nightly` does.
const HISTORY: &str = "COUNTERSIGN_HISTORY";
/// The version that its chart has here.
pub const VERSION: &str = "0.0.1";
/// The earlier operator; without it, this build's plays its part.
const OPERATOR: &str = "COUNTERSIGN_EARLIER_OPERATOR";

/// The commit, which the Makefile names too.
fn commit() -> String {
    let makefile = Path::new(env!("CARGO_MANIFEST_DIR")).join("Makefile");
    let makefile = std::fs::read_to_string(makefile).unwrap();
    let mut lines = makefile.lines();
    let commit = lines.find_map(|line| line.strip_prefix("EARLIER := "));
    commit.unwrap().to_owned()
}

/// Its chart with the definitions, from the history of the repository, which a shallow clone lacks.
pub fn chart() -> Option<PathBuf> {
    let commit = commit();
    let mut archive = Command::new("git");
    archive.args(["-C", env!("CARGO_MANIFEST_DIR"), "archive", &commit]);
    let archive = archive.args(["charts", "crds"]).output().unwrap();
    if !archive.status.success() {
        let why = String::from_utf8_lossy(&archive.stderr);
        let why = format!("no commit {commit}, so nothing is upgraded from it: {why}");
        assert!(std::env::var_os(HISTORY).is_none(), "{why}");
        // Tests that pass print nothing else.
        let mut shown = std::io::stderr(); // also of a test that passes
        writeln!(shown, "chart: {why}").unwrap();
        return None;
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("earlier");
    // What an earlier run left.
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    let mut unpack = Command::new("tar");
    unpack.arg("-x").arg("-C").arg(&directory);
    let mut unpack = unpack.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = unpack.stdin.take().unwrap();
    input.write_all(&archive.stdout).unwrap();
    drop(input);
    assert!(unpack.wait().unwrap().success());
    let chart = directory.join("charts/countersign");
    // Commits between two releases have the same version.
    let description = chart.join("Chart.yaml");
    let lines = std::fs::read_to_string(&description).unwrap();
    let lines = lines.lines().map(|line| match line.split_once(": ") {
        Some(("version", _)) => format!("version: {VERSION}\n"),
        _ => format!("{line}\n"),
    });
    std::fs::write(&description, lines.collect::<String>()).unwrap();
    Some(chart)
}

/// The operator that runs before the upgrade and after the rollback.
pub fn operator() -> PathBuf {
    let built = std::env::var_os(OPERATOR).map(PathBuf::from);
    built.unwrap_or_else(|| env!("CARGO_BIN_EXE_countersign").into())
}

/// Installs the present definitions where the present operator plays the earlier one: the earlier definitions
/// drop the fields of its status that they do not know.
pub fn complete_definitions() {
    if std::env::var_os(OPERATOR).is_none() {
        let definitions = concat!(env!("CARGO_MANIFEST_DIR"), "/crds");
        let apply = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager=helm",
        ];
        run(
            "kubectl",
            &[&apply[..], &["--filename", definitions]].concat(),
        );
    }
}
