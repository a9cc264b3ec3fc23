//! `tests/lanes.sh` decides whether a failure of the tests in a cluster fails `make test`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What stands in for `make`: it notes its targets, of which one fails and one never ends.
const MAKE: &str = r#"#!/bin/sh
echo "$2" >> "$NOTES"
case $2 in
bad) echo "why it fails"; exit 3 ;;
endless) echo $$ > "$NOTES.pid"; exec sleep 600 ;;
esac
"#;

/// The script with these lanes, in a directory of this name.
fn lanes(name: &str, lanes: &[&str]) -> (Command, PathBuf) {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    let (make, notes) = (directory.join("make"), directory.join("notes"));
    fs::write(&make, MAKE).unwrap();
    fs::set_permissions(&make, fs::Permissions::from_mode(0o755)).unwrap();
    let mut script = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lanes.sh"));
    script.args(lanes).env("MAKE", make).env("NOTES", &notes);
    script.env_remove("COUNTERSIGN_KUBECONFIG");
    (script, notes)
}

/// The targets that ran, sorted.
fn ran(notes: &Path) -> Vec<String> {
    let notes = fs::read_to_string(notes).unwrap();
    let mut ran: Vec<_> = notes.lines().map(ToOwned::to_owned).collect();
    ran.sort();
    ran
}

#[test]
fn a_target_that_fails_ends_its_lane_alone_and_fails_the_whole() {
    let (mut script, notes) = lanes("lanes-failed", &["bad after", "good later"]);
    let Output {
        status,
        stdout,
        stderr,
    } = script.output().unwrap();
    assert_eq!(status.code(), Some(1));
    assert_eq!(ran(&notes), ["bad", "good", "later"]);
    assert_eq!(String::from_utf8_lossy(&stdout), "bad | why it fails\n");
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(stderr.contains("lanes: bad failed"), "{stderr}");
    assert!(!stderr.contains("good failed"), "{stderr}");

    let (mut script, notes) = lanes("lanes-passed", &["good later", "other"]);
    assert_eq!(script.output().unwrap().status.code(), Some(0));
    assert_eq!(ran(&notes), ["good", "later", "other"]);
}

#[test]
fn a_signal_ends_what_the_lanes_have_started() {
    let (mut script, notes) = lanes("lanes-ended", &["endless"]);
    let mut running = script.stdout(Stdio::null()).spawn().unwrap();
    let pid = notes.with_extension("pid");
    while fs::read_to_string(&pid).map_or(true, |it| !it.ends_with('\n')) {
        assert_eq!(running.try_wait().unwrap(), None);
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = fs::read_to_string(&pid).unwrap();
    let stat = Path::new("/proc").join(pid.trim()).join("stat");
    // A zombie has ended, too.
    let runs = || fs::read_to_string(&stat).is_ok_and(|it| !it.contains(") Z "));
    assert!(runs());
    let id = running.id().to_string();
    let killed = Command::new("kill").args(["-TERM", &id]).status().unwrap();
    assert!(killed.success());
    assert_eq!(running.wait().unwrap().code(), Some(130));
    let asked = Instant::now();
    while runs() {
        assert!(asked.elapsed() < Duration::from_secs(10), "it goes on");
        std::thread::sleep(Duration::from_millis(10));
    }
}
