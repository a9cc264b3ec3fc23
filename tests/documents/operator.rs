//! Metrics, options, permissions, times and limits of the operator.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args as _;
use countersign::telemetry::Telemetry;
use countersign::telemetry::catalog::Metric;
use countersign::telemetry::notifications::Notifications;
use countersign::{notify, operator};

use super::{between, code, documents, policies, read, set, table};

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
        format!("seen the lease unchanged for {lasts} by its own clock"),
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
