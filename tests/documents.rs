//! Tables and numbers of the documents are those of the program, the chart and the Makefile.

// Helpers of tests fail by panicking, as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use clap::Args as _;
use clap::error::ErrorKind;
use countersign::telemetry::Telemetry;
use countersign::telemetry::catalog::Metric;
use countersign::telemetry::notifications::Notifications;
use countersign::{notify, operator};
use countersign_api::rollout::WindowState;
use countersign_api::step::Tier;
use countersign_core::reason::{Reason, Wait};
use serde_json::Value;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of the first table under a heading, without its head.
fn table(document: &str, heading: &str) -> Vec<Vec<String>> {
    let text = format!("\n{}", read(document));
    let (_, under) = text
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("{document} has no {heading}"));
    let lines = under.lines().skip_while(|line| !line.starts_with('|'));
    let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
    let cells = |row: &str| {
        let row = row.replace("\\|", "\0");
        let cells = row.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().replace('\0', "|")).collect()
    };
    let rows: Vec<_> = rows.map(cells).collect();
    assert!(!rows.is_empty(), "{document} has no table under {heading}");
    rows
}

/// What stands between backquotes.
fn code(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(Into::into).collect()
}

fn set<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    items.into_iter().collect()
}

/// The text between two others.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let (_, after) = text.split_once(from).unwrap_or_else(|| panic!("no {from}"));
    after.split_once(to).unwrap_or_else(|| panic!("no {to}")).0
}

/// Each metric with its labels.
fn labelled(metrics: &[Metric]) -> BTreeMap<String, BTreeSet<String>> {
    let labels = |labels: &[&str]| set(labels.iter().map(|it| (*it).to_owned()));
    let metrics = metrics.iter();
    let metrics = metrics.map(|it| (it.name.clone(), labels(it.labels)));
    metrics.collect()
}

#[test]
fn the_metrics_are_those_of_the_tables() {
    let (telemetry, notifications) = (Telemetry::new(), Notifications::new([]));
    for (metrics, document, heading) in [
        (
            telemetry.metrics(),
            "docs/operation.md",
            "## Health and metrics",
        ),
        (
            notifications.metrics(),
            "docs/notifications.md",
            "## Metrics",
        ),
    ] {
        let metrics = labelled(metrics);
        let rows = table(document, heading);
        let listed = rows.iter().flat_map(|row| code(&row[0]));
        assert_eq!(set(metrics.keys().cloned()), set(listed));
        for row in rows {
            let labels = &metrics[&code(&row[0])[0]];
            let named = set(code(&row[1]));
            assert!(labels.is_subset(&named), "{row:?} lacks one of {labels:?}");
            assert_eq!(labels.is_empty(), named.is_empty(), "{row:?}");
        }
    }
}

#[test]
fn every_metric_that_a_document_names_exists() {
    let mut metrics = labelled(Telemetry::new().metrics());
    metrics.extend(labelled(Notifications::new([]).metrics()));
    let mut named = 0;
    for document in documents() {
        let text = read(&document);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| word.starts_with("countersign_")) {
            let base = ["_bucket", "_count", "_sum"]
                .iter()
                .find_map(|part| word.strip_suffix(part));
            let is_one = [Some(word), base]
                .into_iter()
                .flatten()
                .any(|name| metrics.contains_key(name));
            assert!(is_one, "{document} names {word}, which is no metric");
            named += 1;
        }
    }
    assert!(named > 15, "only {named} were found");
}

fn is_of(file: &str, kind: &str) -> bool {
    Path::new(file).extension().is_some_and(|it| it == kind)
}

/// All documents for people.
fn documents() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = fs::read_dir(root.join("docs")).unwrap();
    let pages = pages.map(|entry| format!("docs/{}", entry.unwrap().file_name().display()));
    let pages = pages.filter(|page| is_of(page, "md"));
    let others = [
        "README.md",
        "ROADMAP.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "charts/countersign/README.md",
        "examples/README.md",
    ];
    pages.chain(others.map(Into::into)).collect()
}

#[test]
fn the_options_are_those_of_the_tables() {
    let run = operator::Options::augment_args(clap::Command::new("run"));
    options_are_those_of(&run, "docs/operation.md");
    let notify = notify::Options::augment_args(clap::Command::new("notify"));
    options_are_those_of(&notify, "docs/notifications.md");
}

fn options_are_those_of(command: &clap::Command, document: &str) {
    let mut options: BTreeMap<_, _> = command
        .get_arguments()
        .filter_map(|argument| Some((format!("--{}", argument.get_long()?), argument)))
        .collect();
    for row in table(document, "## Options") {
        if row[0] == "–" {
            assert_eq!((&*row[1], &*row[2]), ("`RUST_LOG`", "`info`"));
            continue;
        }
        let (flags, variables) = (code(&row[0]), code(&row[1]));
        assert_eq!(flags.len(), variables.len(), "{row:?}");
        for (flag, variable) in flags.iter().zip(variables) {
            let flag = flag.split(' ').next().unwrap();
            let option = options
                .remove(flag)
                .unwrap_or_else(|| panic!("there is no {flag}"));
            let known = option.get_env().unwrap().to_str().unwrap();
            // The second of two is cut short.
            let same = match variable.strip_prefix('…') {
                Some(end) => known.ends_with(end),
                None => known == variable,
            };
            assert!(same, "{flag} is {known}, not {variable}");
            let default = option.get_default_values();
            let default = default.first().map(|it| it.to_str().unwrap());
            if let [value] = &code(&row[2])[..] {
                assert_eq!(default, Some(value.as_str()), "{flag}");
            } else {
                let none = default.is_none_or(|it| it == "false");
                assert!(none, "{flag}: {default:?}");
            }
            let required = option.is_required_set();
            assert_eq!(required, row[2] == "required", "{flag}");
        }
    }
    let missing: Vec<_> = options.keys().collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
}

/// The rules of the operator's roles in the chart: verbs by resource.
fn granted() -> BTreeMap<String, BTreeSet<String>> {
    let text = read("charts/countersign/templates/rbac.yaml");
    let mut granted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let rules = text.split("- apiGroups: ").skip(1);
    for rule in rules {
        let list = |key: &str| {
            let items = between(rule, key, "]").split(',');
            items.map(|item| item.trim().to_owned()).collect::<Vec<_>>()
        };
        for resource in list("resources: [") {
            let verbs = granted.entry(resource).or_default();
            verbs.extend(list("verbs: ["));
        }
    }
    granted
}

#[test]
fn the_permissions_are_those_of_the_table() {
    const VERBS: [&str; 7] = [
        "get", "list", "watch", "create", "update", "patch", "delete",
    ];
    let mut listed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in table("docs/operation.md", "## Permissions") {
        let resources = if row[0].contains("admission policies") {
            let kinds = ["validating", "mutating"];
            let names = |kind| {
                let policies = format!("{kind}admissionpolicies");
                [policies, format!("{kind}admissionpolicybindings")]
            };
            let role = read("charts/countersign/templates/rbac.yaml");
            let listed = role.lines().filter_map(|line| {
                let name = line.trim().strip_prefix("- ")?;
                name.strip_suffix(".countersign.dev").map(ToOwned::to_owned)
            });
            assert_eq!(set(listed), policies(), "{row:?}");
            kinds.into_iter().flat_map(names).collect()
        } else {
            code(&row[0])
        };
        let words = row[1].split(|c: char| !c.is_ascii_lowercase());
        let verbs = words.filter(|word| VERBS.contains(word));
        let verbs = set(verbs.map(ToOwned::to_owned));
        for resource in resources {
            let known = listed.entry(resource).or_default();
            known.extend(verbs.iter().cloned());
        }
    }
    assert_eq!(listed, granted());
}

/// The words for why something is as it is, but for those of windows.
fn reasons() -> BTreeSet<String> {
    set(Reason::ALL.iter().map(ToString::to_string))
}

/// What a window of analysis may give.
fn windows() -> BTreeSet<String> {
    set(WindowState::ALL.iter().map(|it| it.as_str().to_owned()))
}

#[test]
fn each_reason_in_a_table_is_one_that_the_program_gives() {
    let known = &reasons() | &windows();
    for (document, heading) in [
        (
            "docs/troubleshooting.md",
            "## A rollout was rolled back: why?",
        ),
        ("docs/sign-off.md", "## Who counts"),
        ("docs/traffic.md", "## What can be wrong"),
        ("docs/adoption.md", "## Taking over"),
        ("docs/freeze.md", "## What waits"),
    ] {
        for reason in table(document, heading)
            .iter()
            .flat_map(|row| code(&row[0]))
        {
            assert!(known.contains(&reason), "{document} has {reason}");
        }
    }
    let holds = reasons_to_hold();
    assert!(holds.is_subset(&known), "{:?}", &holds - &known);
}

/// The reasons in the tables below "A rollout is held".
fn reasons_to_hold() -> BTreeSet<String> {
    let page = read("docs/troubleshooting.md");
    let tables = between(&page, "\n## A rollout is held\n", "\n## ");
    let rows = tables.lines().filter_map(|row| row.strip_prefix("| `"));
    let cells = rows.filter_map(|row| row.split_once(" |"));
    set(cells.flat_map(|(cell, _)| code(&format!("`{cell}"))))
}

/// Those that the gates give, beside those of windows.
#[test]
fn each_reason_to_hold_has_a_row_in_troubleshooting() {
    let classes = Reason::ALL.iter();
    let classes = classes.filter(|it| it.class().wait != Wait::Other);
    let mut holds = set(classes.map(ToString::to_string));
    for file in [
        "rollout/gates.rs",
        "rollout/waiting.rs",
        "workload/tampering.rs",
        "workload/adoption/mod.rs",
        "workload/adoption/step.rs",
    ] {
        let source = read(&format!("crates/core/src/{file}"));
        for call in source.split("HoldKind::").skip(1) {
            let near: String = call.chars().take(80).collect();
            if let Some((_, reason)) = near.split_once("Reason::") {
                let word = reason.split(|c: char| !c.is_ascii_alphabetic());
                holds.extend(word.take(1).map(ToOwned::to_owned));
            }
        }
    }
    assert!(holds.len() > 35, "{holds:?}");
    let not_held =
        set([WindowState::Counted, WindowState::Unknown].map(|it| it.as_str().to_owned()));
    let holds = &holds | &(&windows() - &not_held);
    // A failed verdict rolls back before any gate.
    let holds = &holds - &set(["AnalysisFailed".to_owned()]);
    let missing = &holds - &reasons_to_hold();
    assert!(
        missing.is_empty(),
        "docs/troubleshooting.md lacks {missing:?}"
    );
}

#[test]
fn each_reason_that_the_program_gives_is_in_a_document() {
    let documents: Vec<_> = documents().iter().map(|page| read(page)).collect();
    let written = set(documents.iter().flat_map(|text| code(text)));
    let words = set(written.iter().flat_map(|it| it.split([' ', '"', '=', '{'])));
    let all = &reasons() | &windows();
    let missing: Vec<_> = all
        .iter()
        .filter(|it| !words.contains(it.as_str()))
        .collect();
    assert!(missing.is_empty(), "in no document: {missing:?}");
}

#[test]
fn the_outcomes_of_a_window_are_those_of_the_table() {
    let rows = table("docs/analysis.md", "## Outcomes of a window");
    let listed = set(rows.iter().flat_map(|row| code(&row[1])));
    // Before the first window has ended there is none.
    let none = set([WindowState::Waiting.as_str().to_owned()]);
    assert_eq!(listed, &windows() - &none);
}

#[test]
fn scarce_evidence_ends_as_the_table_states() {
    let rows = table("docs/analysis.md", "## At the deadline");
    let row = rows.iter().find(|row| row[0] == "scarce").unwrap();
    let policy: Value =
        serde_saphyr::from_str(countersign_core::policy::defaults::BUILT_IN).unwrap();
    let tiers = &policy["spec"]["tiers"];
    for (tier, cell) in Tier::ALL.into_iter().zip(&row[1..]) {
        let expected = match tiers[tier.as_str()]["onScarceEvidence"].as_str() {
            Some("Promote") => "next step",
            Some("Hold") => "waits for a person",
            Some("RollBack") => "rolled back",
            other => panic!("{tier}: {other:?}"),
        };
        assert_eq!(cell, expected, "{tier}");
    }
}

#[test]
fn the_gates_are_those_of_the_table_in_order() {
    let source = read("crates/core/src/rollout/gates.rs");
    let gates = between(&source, "\nconst GATES", "\n];");
    let (_, gates) = gates.split_once("= [").unwrap();
    let gates = gates.lines().filter_map(|line| line.trim().split_once(','));
    let gates: Vec<_> = gates.map(|(gate, _)| gate.replace('_', "-")).collect();
    let rows = table("docs/concepts.md", "## Gates, in order");
    // A gate of two kinds has a row for each.
    let rows: Vec<_> = rows.iter().filter(|row| !row[0].is_empty()).collect();
    let listed: Vec<_> = rows.iter().map(|row| row[1].clone()).collect();
    assert_eq!(listed, gates);
    let numbers = rows.iter().map(|row| row[0].parse::<usize>().unwrap());
    assert!(numbers.eq(1..=gates.len()));
}

#[test]
fn the_phases_and_the_conditions_are_those_of_the_tables() {
    let definitions = countersign_api::crds();
    let rollout = definitions
        .iter()
        .find(|it| it.spec.names.kind == "Rollout");
    let rollout = serde_json::to_value(rollout).unwrap();
    let schema = &rollout["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let status = &schema["properties"]["status"]["properties"];
    let phases = status["phase"]["enum"].as_array().unwrap();
    let phases = set(phases.iter().map(|it| it.as_str().unwrap().to_owned()));
    let rows = table("docs/concepts.md", "## Phases");
    assert_eq!(set(rows.iter().flat_map(|row| code(&row[0]))), phases);

    let source = read("crates/core/src/rollout/conditions.rs");
    let code_of = source.split("#[cfg(test)]").next().unwrap();
    let facts = code_of.split("fact(").skip(1);
    let facts = facts.filter_map(|call| call.trim_start().strip_prefix('"')?.split('"').next());
    let mut facts = set(facts.map(ToOwned::to_owned));
    facts.insert("ForeignPods".into());
    let rows = table("docs/concepts.md", "## Conditions");
    assert_eq!(set(rows.iter().flat_map(|row| code(&row[0]))), facts);
}

/// A number or a duration that the source names.
fn constant(path: &str, name: &str) -> String {
    let source = read(path);
    let value = between(&source, &format!("const {name}: "), ";");
    let (_, value) = value.split_once(" = ").unwrap();
    let number = value.split('(').next_back().unwrap().trim_end_matches(')');
    let unit = match value {
        value if value.contains("from_secs") => " s",
        value if value.contains("from_mins") => " min",
        value if value.contains("<< 20") => return value.replace(" << 20", " MiB"),
        _ => "",
    };
    format!("{number}{unit}")
}

#[test]
fn the_times_and_limits_of_the_text_are_the_source_s() {
    let queue = "src/prometheus/fairness.rs";
    let memory = "src/prometheus/cache.rs";
    let spelt = |path, name| match constant(path, name).as_str() {
        "4" => "four",
        "8" => "eight",
        other => panic!("{other} in words"),
    };
    let timing = "src/timing.rs";
    let [lasts, trusted, renewed] =
        ["LEASE_DURATION", "LEASE_TRUST", "LEASE_RETRY"].map(|name| constant(timing, name));
    let availability = [
        format!("lasts {lasts} and is renewed every {renewed}"),
        format!("refuses its own writes from {trusted} after its last renewal"),
        format!("saw the lease unchanged for {lasts} by its own clock"),
    ];
    let operation = [
        format!("At most {} queries are under way", spelt(queue, "AT_ONCE")),
        format!("at most {} of them", spelt(queue, "OF_ONE_NAMESPACE")),
        format!(
            "an answer is kept for {}",
            constant(timing, "ANSWER_MAX_AGE")
        ),
        format!("({} in all)", constant(memory, "MOST_BYTES")),
        format!(
            "Above {} s the difference is reported",
            constant("src/prometheus/clock_skew.rs", "NOTABLE")
        ),
    ];
    let largest = constant("src/prometheus/server.rs", "LARGEST_ANSWER");
    let analysis = [format!("larger than {largest}")];
    let pages = [
        ("docs/high-availability.md", &availability[..]),
        ("docs/operation.md", &operation[..]),
        ("docs/analysis.md", &analysis[..]),
    ];
    for (document, sentences) in pages {
        let text = read(document)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        for sentence in sentences {
            let found = text.to_lowercase().contains(&sentence.to_lowercase());
            assert!(found, "{document} does not state: {sentence}");
        }
    }
}

/// The values of the chart by their keys: what is no map, and maps that are empty or one value.
fn flatten(value: &Value, key: &str, whole: &BTreeSet<String>, into: &mut BTreeMap<String, Value>) {
    match value.as_object() {
        Some(map) if !map.is_empty() && !whole.contains(key) => {
            for (name, value) in map {
                let key = if key.is_empty() {
                    name.clone()
                } else {
                    format!("{key}.{name}")
                };
                flatten(value, &key, whole, into);
            }
        }
        _ => _ = into.insert(key.to_owned(), value.clone()),
    }
}

#[test]
fn the_chart_s_values_are_those_of_its_table() {
    let mut listed = BTreeMap::new();
    for row in table("charts/countersign/README.md", "## Values") {
        // A group of values has none itself.
        if !row[2].is_empty() {
            let default = serde_json::from_str(&code(&row[2])[0]);
            let default: Value = default.unwrap_or_else(|error| panic!("{row:?}: {error}"));
            let kind = match &default {
                Value::Bool(_) => "bool",
                Value::Number(_) => "int",
                Value::String(_) => "string",
                Value::Array(_) => "list",
                _ => "object",
            };
            assert_eq!(row[1], kind, "{row:?}");
            listed.insert(code(&row[0])[0].clone(), default);
        }
    }
    let values: Value = serde_saphyr::from_str(&read("charts/countersign/values.yaml")).unwrap();
    let mut defaults = BTreeMap::new();
    flatten(&values, "", &set(listed.keys().cloned()), &mut defaults);
    assert_eq!(listed, defaults);
}

/// The names of the chart's admission policies.
fn policies() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = fs::read_dir(root.join("charts/countersign/admission")).unwrap();
    let names = files.map(|file| {
        let name = file.unwrap().file_name().into_string().unwrap();
        let (_, name) = name.trim_end_matches(".yaml").split_once('-').unwrap();
        name.to_owned()
    });
    set(names)
}

#[test]
fn the_admission_policies_are_those_of_the_table() {
    let chart = table("charts/countersign/README.md", "## Admission policies");
    assert_eq!(set(chart.iter().flat_map(|row| code(&row[0]))), policies());
    // Those that are about people.
    let page = table("docs/sign-off.md", "## Who people are, without a webhook");
    let page = set(page.iter().flat_map(|row| code(&row[0])));
    assert!(page.len() >= 7 && page.is_subset(&policies()), "{page:?}");
}

fn help(arguments: &[&str]) -> String {
    let line = [&["kubectl-countersign"], arguments, &["--help"]].concat();
    let help = countersign_kubectl::command().try_get_matches_from(line);
    let help = help.unwrap_err();
    assert_eq!(help.kind(), ErrorKind::DisplayHelp, "{arguments:?}: {help}");
    help.to_string()
}

#[test]
fn the_plugin_s_commands_and_their_flags_are_those_of_the_tables() {
    let help_of_all = help(&[]);
    let commands = between(&help_of_all, "Commands:\n", "\n\n");
    let commands = commands
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let commands = commands.filter_map(|line| line.split_whitespace().next());
    let mut commands = set(commands.map(ToOwned::to_owned));
    commands.remove("help");

    let page = "docs/kubectl.md";
    let tables = ["## Inspect", "## Act", "## Without a cluster"];
    let rows: Vec<_> = tables.iter().flat_map(|it| table(page, it)).collect();
    assert_eq!(set(rows.iter().flat_map(|row| code(&row[0]))), commands);
    for row in rows {
        for example in code(&row[1]) {
            let (_, line) = example.split_once("kubectl countersign ").unwrap();
            let line = line.split(['|', ')']).next().unwrap();
            let mut words = line.split_whitespace();
            let help = help(&[words.next().unwrap()]);
            let flags = words.filter(|word| word.starts_with('-') && *word != "-");
            for flag in flags {
                let known = help.split([' ', ',', '\n', '=']).any(|word| word == flag);
                assert!(known, "{example}: {flag} is not in\n{help}");
            }
        }
    }
}

#[test]
fn each_row_of_the_comparison_names_a_test() {
    for row in table("docs/comparison.md", "## What Countersign has") {
        let is_named = code(&row[4]).iter().any(|it| it.contains(".rs::"));
        assert!(is_named, "docs/comparison.md: {row:?}");
    }
}

/// As long as a version that the chart installs on was never tested, the first page says so.
#[test]
fn the_readme_names_the_versions_that_were_not_tested() {
    let rows = table("docs/compatibility.md", "### Tested versions");
    let is_open = rows.iter().any(|row| row[3].contains("not run yet"));
    let newest = rows[0][0].rsplit_once('.').unwrap().0;
    let readme = read("README.md");
    let (_, untested) = readme.split_once("\n- **Not tested**: ").unwrap();
    let is_named = untested.contains(&format!("Kubernetes other than {newest}"));
    assert_eq!(is_named, is_open, "README.md, \"Not tested\": {rows:?}");
}

/// What runs in the tests is built from these modules.
#[test]
fn the_tested_versions_are_those_that_are_built() {
    let page = read("docs/compatibility.md");
    for (file, module) in [
        ("controlplane/go.mod", "k8s.io/kubernetes"),
        ("controlplane/1.33.mod", "k8s.io/kubernetes"),
        ("controlplane/1.30.mod", "k8s.io/kubernetes"),
        ("traefik/go.mod", "github.com/traefik/traefik/v3"),
        ("traefik/go.mod", "sigs.k8s.io/gateway-api"),
        ("istio/go.mod", "istio.io/api"),
        ("prometheus/go.mod", "github.com/prometheus/prometheus"),
        ("helm/go.mod", "helm.sh/helm/v4"),
    ] {
        let modules = read(&format!("tests/cluster/tools/{file}"));
        let line = between(&modules, &format!("{module} v"), "\n");
        let version = line.trim_end_matches(" // indirect");
        let is_named = page.contains(&format!(" {version}"));
        assert!(is_named, "docs/compatibility.md lacks {module} {version}");
    }
}

#[test]
fn every_make_target_that_a_document_names_exists() {
    let makefile = read("Makefile");
    let targets = between(&makefile, ".PHONY: ", "\n").split(' ');
    let targets = set(targets);
    let mut named = BTreeSet::new();
    for document in documents() {
        let text = read(&document);
        for line in code(&text).iter().filter_map(|it| it.strip_prefix("make ")) {
            let target = line.split_whitespace().find(|word| !word.contains('='));
            let target = target.unwrap_or_default();
            assert!(targets.contains(target), "{document}: make {target}");
            named.insert(target.to_owned());
        }
    }
    let rows = table("CONTRIBUTING.md", "# Contributing");
    assert!(rows.len() > 8 && named.len() > 8, "{named:?}");
    let all = rows.iter().find(|row| row[0] == "`make test`").unwrap();
    let parts = between(&makefile, "\ntest: ", "\n").split(' ');
    for part in parts {
        let is_named = code(&all[1]).contains(&part.to_owned());
        assert!(is_named, "CONTRIBUTING.md: make test runs {part}");
    }
}

#[test]
fn the_code_map_and_the_list_of_examples_name_what_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = BTreeSet::new();
    for row in table("ARCHITECTURE.md", "## Code map") {
        // What has no folder of its own is in that of the path before it.
        let mut folder = String::new();
        for path in code(&row[0]) {
            let places = [
                path.clone(),
                format!("src/{path}"),
                format!("{folder}/{path}"),
            ];
            let there = |it: &&String| root.join(it.trim_end_matches('*')).exists();
            let found = places.iter().find(there);
            let found = found.unwrap_or_else(|| panic!("ARCHITECTURE.md: there is no {path}"));
            if let Some((of, _)) = found.trim_end_matches('/').rsplit_once('/') {
                folder = of.to_owned();
            }
            named.insert(found.clone());
        }
    }
    let files = fs::read_dir(root.join("crates/core/src")).unwrap();
    let files =
        files.map(|file| format!("crates/core/src/{}", file.unwrap().file_name().display()));
    let sources = files.filter(|file| is_of(file, "rs") && !file.ends_with("/lib.rs"));
    let missing: Vec<_> = sources.filter(|file| !named.contains(file)).collect();
    assert!(
        missing.is_empty(),
        "ARCHITECTURE.md does not name {missing:?}"
    );

    let page = read("examples/README.md");
    for file in fs::read_dir(root.join("examples")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let link = format!("[{name}]({name})");
        assert!(name == "README.md" || page.contains(&link), "{name}");
    }
}
