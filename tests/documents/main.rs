//! Tables and numbers of the documents are those of the program, the chart and the Makefile.

// Helpers of tests fail by panicking, as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod decisions;
mod operator;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use clap::error::ErrorKind;
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
