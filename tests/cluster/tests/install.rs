//! The chart with people, on a cluster that knows none of its kinds yet; run by `make harness`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "these are tests"
)]

use std::process::Command;

use serde_json::{Value, json};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/countersign");
const RELEASE: [&str; 2] = ["--namespace", "countersign-system"];

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn helm(arguments: &[&str]) -> String {
    run("helm", &[arguments, &RELEASE].concat())
}

/// An object of the cluster, if there is one.
fn get(kind: &str, name: &str) -> Option<Value> {
    let options = ["get", kind, name, "-o", "json", "--ignore-not-found"];
    serde_json::from_str(&run("kubectl", &options)).ok()
}

fn policy() -> Value {
    get("rolloutpolicy", "sign-off").unwrap()
}

fn groups_before_the_first_step(policy: &Value) -> &Value {
    &policy["spec"]["tiers"]["high"]["signOff"][0]["groups"]
}

/// The definition of the policy's kind is part of the same release.
#[test]
fn people_are_required_from_the_first_installation_on_until_nobody_is_named() {
    let install = ["install", "countersign", CHART, "--create-namespace"];
    let named = [
        "--set=signOff.approverGroups={approvers}",
        "--set=signOff.seniorGroups={senior}",
    ];
    let notes = helm(&[&install[..], &named].concat());
    for sentence in [
        "requires sign-offs of the groups approvers, senior:",
        "kubectl label namespace NAMESPACE countersign.dev/separate-duties=required",
    ] {
        assert!(notes.contains(sentence), "{sentence}: {notes}");
    }
    let first = policy();
    let all = json!(["approvers", "senior"]);
    let seniors = json!({ "count": 1, "groups": ["senior"] });
    let people = |count: i32| json!({ "count": count, "groups": all });
    assert_eq!(
        first["spec"]["tiers"],
        json!({
            "low": {},
            "medium": {},
            "high": { "signOff": [people(1)], "promotionSignOff": [] },
            "critical": { "signOff": [people(1)], "promotionSignOff": [people(2), seniors] },
        })
    );
    let binding = get("clusterrolebinding", "countersign-approver").unwrap();
    assert_eq!(binding["roleRef"]["name"], "countersign-approver");
    let subjects = binding["subjects"].as_array().unwrap().iter();
    assert!(subjects.map(|it| &it["name"]).eq(all.as_array().unwrap()));

    // An upgrade edits the policy in place: it is never gone, not even for a moment.
    let upgrade = ["upgrade", "countersign", CHART, "--reset-then-reuse-values"];
    let more = ["--set=signOff.approverGroups={approvers,sre}"];
    helm(&[&upgrade[..], &more].concat());
    let second = policy();
    let identity = |it: &Value| it["metadata"]["uid"].clone();
    assert_eq!(identity(&second), identity(&first));
    assert_eq!(
        *groups_before_the_first_step(&second),
        json!(["approvers", "sre", "senior"])
    );
    helm(&["rollback", "countersign", "1"]);
    assert_eq!(*groups_before_the_first_step(&policy()), all);

    let nobody = [
        "--set-json=signOff.approverGroups=[]",
        "--set-json=signOff.seniorGroups=[]",
    ];
    helm(&[&upgrade[..], &more].concat());
    let notes = helm(&[&upgrade[..], &nobody].concat());
    let sentence = "no policy of this chart requires a sign-off";
    assert!(notes.contains(sentence), "{notes}");
    assert_eq!(get("rolloutpolicy", "sign-off"), None);
    assert_eq!(get("clusterrolebinding", "countersign-approver"), None);

    helm(&["uninstall", "countersign"]);
    run(
        "kubectl",
        &["delete", "--filename", &format!("{CHART}/crd-files/")],
    );
}

#[test]
fn values_that_require_people_who_are_not_named_are_refused() {
    let render = |options: &[&str]| {
        let output = Command::new("helm")
            .args(["template", "countersign", CHART, "--set=crds.enabled=false"])
            .args(options)
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (rendered, objects, _) = render(&[]);
    assert!(rendered && !objects.contains("kind: RolloutPolicy\n"));
    for (value, part) in [
        (
            "signOff.seniorGroups={senior}",
            "needs signOff.approverGroups",
        ),
        ("signOff.tiers.highest.before=1", "'highest' not allowed"),
        ("signOff.tiers.high.before=11", "/signOff/tiers/high/before"),
    ] {
        let (rendered, _, error) = render(&["--set", value]);
        assert!(!rendered && error.contains(part), "{value}: {error}");
    }
    let groups = "signOff.approverGroups={approvers}";
    let (_, objects, _) = render(&["--set", groups, "--set=rbac.userRoles=false"]);
    assert!(!objects.contains("name: countersign-approver"));
}
