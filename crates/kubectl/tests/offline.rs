//! The plugin's offline commands, as a person at a shell or a CI job meets them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use countersign_api::Tier;
use serde_json::Value;

/// Runs the plugin at the root of the repository.
fn plugin(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-countersign"));
    command
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Runs the plugin, which must succeed, and reads its JSON.
fn json(arguments: &[&str]) -> Value {
    let output = plugin(&[arguments, &["-o", "json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn assert_lines(output: &Output, lines: &[&str]) {
    let found: Vec<_> = text(&output.stdout).lines().collect();
    assert_eq!(found, lines);
}

// --- lint ----------------------------------------------------------------------------------------

#[test]
fn lint_of_all_examples_is_clean() {
    let examples =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples")).unwrap();
    let paths = examples.map(|entry| entry.unwrap().path());
    let yaml: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|it| it == "yaml"))
        .collect();
    let files: Vec<_> = yaml.iter().map(|path| path.to_str().unwrap()).collect();
    assert!(files.len() > 3);
    let output = plugin(&[&["lint", "--strict", "-f"], &files[..]].concat());
    assert_lines(&output, &[]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn lint_names_every_fault_with_its_place() {
    let output = plugin(&["lint", "-f", "crates/kubectl/tests/offline/bad.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert_lines(
        &output,
        &[
            "crates/kubectl/tests/offline/bad.yaml:14:5: warning: annotation provenance.countersign.dev/contributor is `robot`: write one of human, ai, mixed, unknown",
            "crates/kubectl/tests/offline/bad.yaml:15:5: warning: annotation provenance.countersign.dev/lines-added is `many`: write a whole number from 0 to 1000000000",
            "crates/kubectl/tests/offline/bad.yaml:29:22: error: Service web selects pods with app=shop, which is not a label of spec.template: it would never reach them",
            "crates/kubectl/tests/offline/bad.yaml:33:21: error: field `errors` of check `errors`: the query would measure the pods of every revision: select one by a matcher such as `pod_template_hash=\"{{revision}}\"`, or by its `{{service}}`",
            "crates/kubectl/tests/offline/bad.yaml:40:19: error: metadata.labels.tier: 1 is not a text: write it in quotes",
            "crates/kubectl/tests/offline/bad.yaml:42:3: error: spec.replica is not a field: did you mean `replicas`?",
            "crates/kubectl/tests/offline/bad.yaml:56:30: error: spec.strategy.canary.steps[1].bake: `5 minutes` is not a duration: write hours, minutes and seconds such as 90s, 5m or 1h30m",
            "crates/kubectl/tests/offline/bad.yaml:57:7: error: key `steps` is in line 54 already",
            "crates/kubectl/tests/offline/bad.yaml:64:20: warning: rolloutSelector team=payments fits none of the 2 Rollouts in these files: compare it with their metadata.labels",
            "crates/kubectl/tests/offline/bad.yaml:69:19: error: timeZone: `Europe/Berlim` is not a time zone: write an IANA name such as Europe/Berlin",
            "crates/kubectl/tests/offline/bad.yaml:72:14: warning: spec.freeze.incident.query may answer with nothing, which is not a number, so promotions would wait: end it with `or vector(0)`",
            "crates/kubectl/tests/offline/bad.yaml:80:17: error: spec.risk.thresholds: medium must not be above high",
        ],
    );
    assert!(
        text(&output.stderr).contains("errors and"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn lint_points_at_what_is_no_yaml_or_no_manifest_yet() {
    let output = plugin(&[
        "lint",
        "-f",
        "crates/kubectl/tests/offline/broken.yaml",
        "crates/kubectl/tests/offline/helm.yaml",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert_lines(
        &output,
        &[
            "crates/kubectl/tests/offline/broken.yaml:6:28: error: mapping values are not allowed in this context",
            "crates/kubectl/tests/offline/helm.yaml:4:1: error: this is a Helm template, not a manifest: render it first, by `helm template`",
        ],
    );
}

#[test]
fn lint_reads_the_standard_input_and_bounds_it() {
    let lint = |input: &[u8]| {
        let mut child = command(&["lint", "-f", "-", "-o", "json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The reader may stop early.
        _ = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), findings)
    };
    let (code, findings) = lint(b"apiVersion: countersign.dev/v1alpha1\nkind: Rollouts\n");
    assert_eq!(code, Some(1));
    assert_eq!(
        (&findings[0]["file"], &findings[0]["line"]),
        (&"<stdin>".into(), &2.into())
    );
    let (code, findings) = lint(&vec![b'#'; 5 * 1024 * 1024]);
    assert_eq!(code, Some(1));
    assert!(
        findings[0]["message"]
            .as_str()
            .unwrap()
            .contains("more than 4 MiB")
    );
    let (code, findings) = lint(b"\xff\xfe");
    assert_eq!(code, Some(1));
    assert!(
        findings[0]["message"]
            .as_str()
            .unwrap()
            .contains("not UTF-8 text")
    );
}

#[test]
fn lint_counts_warnings_only_where_it_is_strict() {
    let warned = "crates/kubectl/tests/offline/warned.yaml";
    assert_eq!(plugin(&["lint", "-f", warned]).status.code(), Some(0));
    assert_eq!(
        plugin(&["lint", "--strict", "-f", warned]).status.code(),
        Some(1)
    );
    assert_eq!(
        plugin(&["lint"]).status.code(),
        Some(2),
        "a wrong command line"
    );
    assert_eq!(
        plugin(&["lint", "-f", "nowhere.yaml"]).status.code(),
        Some(1)
    );
}

#[test]
fn lint_names_the_demands_of_a_policy_for_which_nobody_is_named() {
    let unnamed = "crates/kubectl/tests/offline/unnamed.yaml";
    let alone = plugin(&["lint", "--policy", unnamed]);
    assert_eq!(alone.status.code(), Some(0), "a warning");
    let expected = "crates/kubectl/tests/offline/unnamed.yaml:10:11: warning: spec.tiers.high.signOff requires 1 person and names no groups: ";
    let stdout = text(&alone.stdout);
    assert!(stdout.starts_with(expected), "{stdout}");
    let beside = [
        "lint",
        "-f",
        "examples/harmless-v2.yaml",
        "--policy",
        unnamed,
    ];
    assert_eq!(text(&plugin(&beside).stdout), stdout);

    let explained = plugin(&[
        "explain",
        "-f",
        "examples/risky-v2.yaml",
        "--policy",
        unnamed,
    ]);
    let stdout = text(&explained.stdout);
    let line = "    gate step-1 requires people and names no group: only users bound to the role countersign-approver can sign\n";
    assert!(stdout.contains(line), "{stdout}");
}

// --- explain -------------------------------------------------------------------------------------

const RISKY: [&str; 7] = [
    "explain",
    "-f",
    "examples/risky-v2.yaml",
    "--stable",
    "examples/risky.yaml",
    "--policy",
    "examples/policy.yaml",
];

#[test]
fn explain_shows_the_risk_and_the_plan_of_the_examples() {
    let explained = json(&RISKY);
    let change = &explained[0]["change"];
    assert_eq!(explained[0]["rollout"], "login");
    assert_eq!(change["risk"]["tier"], "high");
    let factors: Vec<_> = change["risk"]["contributions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["factor"].as_str().unwrap())
        .collect();
    assert!(
        factors.contains(&"aiShare") && factors.contains(&"differences"),
        "{factors:?}"
    );
    assert_eq!(change["plan"]["steps"].as_array().unwrap().len(), 4);
    assert_eq!(change["digest"].as_str().unwrap().len(), 64);
    assert_eq!(change["podTemplateHash"].as_str().unwrap().len(), 11);
    assert_eq!(change["provenance"]["state"], "Declared");

    let output = plugin(&RISKY);
    let stdout = text(&output.stdout);
    for line in [
        "Rollout login",
        "  Provenance",
        "    contributor        ai",
        "    1     5%      5s    50            -",
    ] {
        assert!(stdout.lines().any(|it| it == line), "{line:?} in\n{stdout}");
    }
    assert!(
        stdout.contains("tier high, ") && stdout.contains("demo@0"),
        "{stdout}"
    );
}

#[test]
fn explain_shows_which_policies_apply_and_what_they_tighten() {
    let base = [
        "explain",
        "-f",
        "examples/harmless-v2.yaml",
        "--policy",
        "crates/kubectl/tests/offline/payments.yaml",
    ];
    let elsewhere = json(&base);
    assert_eq!(
        elsewhere[0]["notApplying"],
        serde_json::json!([
            "payments: the Rollout does not have the labels team=payments",
            "live: the namespace does not have the labels env=live",
        ])
    );
    assert_eq!(
        elsewhere[0]["change"]["plan"]["policies"],
        serde_json::json!(["built-in"])
    );
    let live = json(&[&base[..], &["--namespace-labels", "env=live,team=shop"]].concat());
    assert_eq!(
        live[0]["change"]["plan"]["policies"],
        serde_json::json!(["live@0", "built-in"])
    );
    let bakes = |it: &Value| it[0]["change"]["plan"]["steps"][0]["bake"].clone();
    assert_eq!(
        (bakes(&elsewhere), bakes(&live)),
        ("5m".into(), "10m".into())
    );
}

#[test]
fn explain_distinguishes_what_serves_already_from_a_change() {
    let same = json(&[
        "explain",
        "-f",
        "examples/risky.yaml",
        "--stable",
        "examples/risky.yaml",
    ]);
    assert_eq!(same[0]["change"], Value::Null);
}

#[test]
fn explain_refuses_what_the_api_server_would_refuse() {
    let output = plugin(&["explain", "-f", "crates/kubectl/tests/offline/bad.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(
        error.starts_with("error: crates/kubectl/tests/offline/bad.yaml:"),
        "{error}"
    );
    let output = plugin(&["explain", "-f", "examples/policy.yaml"]);
    assert!(text(&output.stderr).contains("no Rollout in examples/policy.yaml"));
    let output = plugin(&[
        "explain",
        "-f",
        "examples/risky.yaml",
        "--stable",
        "examples/harmless.yaml",
    ]);
    assert!(text(&output.stderr).contains("no Rollout login"));
}

// --- simulate ------------------------------------------------------------------------------------

#[test]
fn simulate_is_deterministic_and_keeps_the_tiers_promise() {
    let arguments = [
        "simulate",
        "-f",
        "examples/harmless-v2.yaml",
        "--stable",
        "examples/harmless.yaml",
        "--policy",
        "examples/policy.yaml",
        "--runs",
        "300",
        "--canary-error-rate",
        "0.2",
    ];
    let simulated = json(&arguments);
    let simulation = &simulated[0];
    assert_eq!(simulation["tier"], Tier::Low.as_str());
    let cases = simulation["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    let limit = simulation["maxFalseRollback"].as_f64().unwrap();
    let healthy = &cases[0]["rolledBack"];
    assert!(healthy["ofAll"].as_f64().unwrap() <= limit, "{healthy}");
    assert!(
        cases[1]["promoted"]["ofAll"].as_f64().unwrap() < 0.1,
        "{}",
        cases[1]
    );
    let exposed = |case: &Value| case["exposedRequests"].as_f64().unwrap();
    assert!(exposed(&cases[1]) < exposed(&cases[0]));

    let few = [&arguments[..8], &["20", "--seed", "5"]].concat();
    assert_eq!(json(&few), json(&few));
    let output = plugin(&few);
    let stdout = text(&output.stdout);
    assert!(
        stdout.contains("Healthy canary: 0.2% of its requests fail"),
        "{stdout}"
    );
    assert!(stdout.contains("at most 1% allowed"), "{stdout}");
}

#[test]
fn simulate_refuses_numbers_out_of_range() {
    let base = ["simulate", "-f", "examples/harmless-v2.yaml"];
    for wrong in [
        ["--runs", "0"],
        ["--rate", "-1"],
        ["--rate", "nan"],
        ["--stable-error-rate", "2"],
        ["--replicas", "0"],
    ] {
        let output = plugin(&[&base[..], &wrong[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn simulate_reads_analysis_templates_from_the_files() {
    let arguments = [
        "simulate",
        "-f",
        "examples/analysis.yaml",
        "--policy",
        "examples/policy.yaml",
        "--runs",
        "20",
    ];
    let simulation = &json(&arguments)[0];
    let healthy = &simulation["cases"][0];
    // It ends, which it would not with a template that is missing or an objective that is unknown.
    assert!(
        healthy["promoted"]["ofAll"].as_f64().unwrap() > 0.9,
        "{healthy}"
    );
}

// --- colours -------------------------------------------------------------------------------------

#[test]
fn the_flag_for_colours_wins_over_the_environment() {
    for (when, variable, colours) in [
        ("always", "NO_COLOR", true),
        ("auto", "NO_COLOR", false),
        ("never", "CLICOLOR_FORCE", false),
    ] {
        let mut explain = command(&["explain", "--color", when, "-f", "no-such-file.yaml"]);
        let output = explain.env(variable, "1").output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let error = text(&output.stderr);
        let red = error.starts_with("\u{1b}[31merror:\u{1b}[0m ");
        assert!(
            red == colours && error.contains("error:"),
            "{when}: {error}"
        );
    }
}
