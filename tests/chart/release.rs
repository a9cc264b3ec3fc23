//! The release, as an administrator handles it.

use std::process::Command;

pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/countersign");
pub const SYSTEM: &str = "countersign-system";

pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

pub fn helm(arguments: &[&str]) -> String {
    run("helm", &[arguments, &["--namespace", SYSTEM]].concat())
}

/// The objects of these kinds in all namespaces.
pub fn names(kinds: &str) -> Vec<String> {
    let names = run(
        "kubectl",
        &["get", kinds, "--all-namespaces", "--output=name"],
    );
    names.lines().map(ToOwned::to_owned).collect()
}
