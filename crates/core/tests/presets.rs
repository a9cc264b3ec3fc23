//! Every preset against a sample of what its product exports: the requests and errors of each arm are
//! counted, and nothing else is. The samples name the origin of their names and labels.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use countersign_api::{Check, Duration, Preset};
use countersign_core::analysis::query::form::{Arm, Form};
use countersign_core::analysis::query::render;
use promql_parser::label::Matcher;
use promql_parser::parser::{self, Expr};
use serde::Deserialize;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// An entry of `src/presets.yaml`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    name: String,
    about: String,
    version: String,
    arm: DistinguishedBy,
    errors: String,
    total: String,
    buckets: Option<String>,
    unit: Option<Unit>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
enum DistinguishedBy {
    Service,
    Revision,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
enum Unit {
    Seconds,
    Milliseconds,
}

fn entries() -> Vec<Entry> {
    let entries: Vec<Entry> =
        serde_saphyr::from_str(&read("crates/core/src/analysis/query/presets.yaml")).unwrap();
    assert!(entries.len() > 5, "only {} presets", entries.len());
    entries
}

fn read(path: &str) -> String {
    fs::read_to_string(format!("{ROOT}/{path}")).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn canary() -> Arm<'static> {
    Arm {
        namespace: "shop",
        service: Some("web-canary"),
        rollout: "web",
        revision: "7f6c9d5b84",
    }
}

fn stable() -> Arm<'static> {
    Arm {
        service: Some("web-stable"),
        revision: "65d4b8f9c7",
        ..canary()
    }
}

/// One line of a sample.
#[derive(Debug)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// What must be counted of one arm, according to a sample.
#[derive(Debug, PartialEq)]
struct Expected {
    total: f64,
    errors: f64,
    /// A bound in seconds, and the number of requests slower than it.
    slow: Option<(f64, f64)>,
}

/// A file in `tests/presets`.
struct Sample {
    file: String,
    arms: Vec<Series>,
    /// What stands below the line `# decoys`, and belongs to neither arm.
    decoys: Vec<Series>,
    expected: BTreeMap<String, Expected>,
}

impl Sample {
    fn of(entry: &Entry) -> Self {
        let file = format!("crates/core/tests/presets/{}.prom", entry.name);
        let mut sample = Self {
            arms: vec![],
            decoys: vec![],
            expected: BTreeMap::new(),
            file,
        };
        let mut decoys = false;
        for line in read(&sample.file).lines() {
            if let Some(expectation) = line.strip_prefix("# expect ") {
                let (arm, expected) = expectation.split_once(' ').unwrap();
                sample.expected.insert(arm.to_owned(), expect(expected));
            } else if line.starts_with('#') {
                decoys |= line == "# decoys";
            } else {
                let series =
                    series(line).unwrap_or_else(|| panic!("{}: not a sample: {line}", sample.file));
                let to = if decoys {
                    &mut sample.decoys
                } else {
                    &mut sample.arms
                };
                to.push(series);
            }
        }
        sample
    }

    fn sum(&self, selector: &Selector) -> f64 {
        let all = self.arms.iter().chain(&self.decoys);
        let matched = all.filter(|series| selector.matches(series));
        matched.map(|series| series.value).sum()
    }
}

/// `total=120 errors=7 slow(0.5s)=4`
fn expect(text: &str) -> Expected {
    let mut expected = Expected {
        total: f64::NAN,
        errors: f64::NAN,
        slow: None,
    };
    for part in text.split_whitespace() {
        let (what, value) = part.split_once('=').unwrap();
        let value = value.parse().unwrap();
        match what {
            "total" => expected.total = value,
            "errors" => expected.errors = value,
            _ => {
                let bound = what.strip_prefix("slow(").unwrap();
                let bound = bound.strip_suffix("s)").unwrap().parse().unwrap();
                expected.slow = Some((bound, value));
            }
        }
    }
    expected
}

/// A line of the text format: a name, labels in braces and a value.
fn series(line: &str) -> Option<Series> {
    let is_name = |name: &str| {
        !name.starts_with(|c: char| c.is_ascii_digit())
            && !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
    };
    let (name, mut rest) = line.split_once('{')?;
    let mut labels = BTreeMap::new();
    while !rest.starts_with('}') {
        let (label, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.chars();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => value.push(match chars.next()? {
                    'n' => '\n',
                    c @ ('"' | '\\') => c,
                    _ => return None,
                }),
                c => value.push(c),
            }
        }
        let fresh = is_name(label) && labels.insert(label.to_owned(), value).is_none();
        rest = chars.as_str();
        rest = rest.strip_prefix(',').unwrap_or(rest);
        fresh.then_some(())?;
    }
    let value = rest.strip_prefix("} ")?.parse().ok()?;
    is_name(name).then(|| Series {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// A bare selector, as Prometheus would apply it.
struct Selector {
    name: String,
    matchers: Vec<Matcher>,
}

impl Selector {
    fn new(text: &str) -> Self {
        match parser::parse(text) {
            Ok(Expr::VectorSelector(selector)) => Self {
                name: selector.name.unwrap(),
                matchers: selector.matchers.matchers,
            },
            other => panic!("not a selector: {text}: {other:?}"),
        }
    }

    /// A label that a series lacks is empty.
    fn matches(&self, series: &Series) -> bool {
        self.name == series.name
            && self.matchers.iter().all(|matcher| {
                let value = series.labels.get(&matcher.name);
                matcher.is_match(value.map_or("", String::as_str))
            })
    }
}

/// The preset's selectors for errors and for all requests.
fn selectors(entry: &Entry, arm: Arm<'_>) -> [Selector; 2] {
    let name = serde_json::Value::String(entry.name.clone());
    let preset: Preset = serde_json::from_value(name).unwrap();
    let check = Check {
        name: "http".into(),
        preset: Some(preset),
        ..Check::default()
    };
    let queries = render(&check, arm, Duration::seconds(15))
        .unwrap_or_else(|error| panic!("{}: {error}", entry.name));
    [queries.errors, queries.total].map(|query| {
        assert_eq!(query.form, Form::Selector, "{}", entry.name);
        Selector::new(&query.text)
    })
}

/// The preset's selector for the buckets, from the file itself.
fn buckets(entry: &Entry, arm: Arm<'_>) -> Option<Selector> {
    let template = entry.buckets.as_deref()?.strip_suffix('}').unwrap();
    // A query of one's own must name the revision; this matches every series that lacks the label.
    let template = format!("{template},none=~\"{{{{revision}}}}|\"}}");
    let check = Check {
        name: "latency".into(),
        errors: Some(template.clone()),
        total: Some(template),
        ..Check::default()
    };
    let queries = render(&check, arm, Duration::seconds(15)).unwrap();
    Some(Selector::new(&queries.total.text))
}

/// Requests slower than so many seconds: all of them less those in the bucket with this bound.
fn slower(entry: &Entry, sample: &Sample, arm: Arm<'_>, seconds: f64) -> f64 {
    let buckets = buckets(entry, arm).unwrap();
    let bound = match entry.unit.unwrap() {
        Unit::Seconds => seconds,
        Unit::Milliseconds => seconds * 1000.0,
    };
    let count = |bound: f64| {
        let all = sample.arms.iter().chain(&sample.decoys);
        let matched = all.filter(|series| buckets.matches(series));
        // As a number: `1` is also written `1.0`, and Prometheus 3 rewrites it so.
        let of_bound = matched.filter(|series| {
            let le: f64 = series.labels["le"].parse().unwrap();
            le.total_cmp(&bound).is_eq()
        });
        let values: Vec<_> = of_bound.map(|series| series.value).collect();
        assert!(!values.is_empty(), "{}: no bucket for {bound}", sample.file);
        values.into_iter().sum::<f64>()
    };
    count(f64::INFINITY) - count(bound)
}

#[test]
fn every_preset_counts_exactly_its_arm() {
    for entry in entries() {
        let sample = Sample::of(&entry);
        for (name, arm) in [("canary", canary()), ("stable", stable())] {
            let expected = &sample.expected[name];
            let [errors, total] = selectors(&entry, arm);
            let counted = Expected {
                total: sample.sum(&total),
                errors: sample.sum(&errors),
                slow: expected
                    .slow
                    .map(|(bound, _)| (bound, slower(&entry, &sample, arm, bound))),
            };
            assert_eq!(&counted, expected, "{} of {}", name, sample.file);
            assert!(expected.errors > 0.0 && expected.errors < expected.total);
            assert_eq!(
                expected.slow.is_some(),
                entry.buckets.is_some(),
                "{}",
                sample.file
            );
        }
    }
}

#[test]
fn no_preset_matches_a_decoy() {
    for entry in entries() {
        let sample = Sample::of(&entry);
        let selectors: Vec<_> = [canary(), stable()]
            .into_iter()
            .flat_map(|arm| {
                selectors(&entry, arm)
                    .into_iter()
                    .chain(buckets(&entry, arm))
            })
            .collect();
        for decoy in &sample.decoys {
            assert!(
                !selectors.iter().any(|selector| selector.matches(decoy)),
                "{}: {decoy:?}",
                sample.file
            );
        }
        // Some of them must have a requested name.
        let near = |name: &str| sample.decoys.iter().filter(|s| s.name == name).count();
        for selector in &selectors {
            assert!(near(&selector.name) > 1, "{}", selector.name);
        }
    }
}

#[test]
fn the_arms_of_a_preset_share_no_series_and_errors_are_requests() {
    for entry in entries() {
        let sample = Sample::of(&entry);
        let [canary, stable] = [canary(), stable()].map(|arm| selectors(&entry, arm));
        for series in &sample.arms {
            let [mut errors, mut total] = [0; 2];
            for [of_errors, of_total] in [&canary, &stable] {
                assert!(!of_errors.matches(series) || of_total.matches(series));
                errors += usize::from(of_errors.matches(series));
                total += usize::from(of_total.matches(series));
            }
            assert!(errors <= 1 && total <= 1, "{}: {series:?}", sample.file);
        }
    }
}

#[test]
fn a_preset_selects_the_arm_by_its_placeholder() {
    for entry in entries() {
        let own = match entry.arm {
            DistinguishedBy::Service => "{{service}}",
            DistinguishedBy::Revision => "{{revision}}",
        };
        for selector in [
            Some(&entry.errors),
            Some(&entry.total),
            entry.buckets.as_ref(),
        ]
        .into_iter()
        .flatten()
        {
            assert!(selector.contains(own), "{}: {selector}", entry.name);
            assert!(selector.contains("{{namespace}}"), "{}", entry.name);
        }
        if let Some(buckets) = buckets(&entry, canary()) {
            assert!(buckets.name.ends_with("_bucket"));
            assert!(buckets.matchers.iter().all(|matcher| matcher.name != "le"));
        }
        assert_eq!(entry.buckets.is_some(), entry.unit.is_some());
    }
}

#[test]
fn every_preset_has_a_source_and_is_documented() {
    let docs = read("docs/presets.md");
    let mut names = BTreeSet::new();
    for entry in entries() {
        assert!(names.insert(entry.name.clone()), "{} twice", entry.name);
        assert!(entry.about.ends_with('.') && !entry.version.is_empty());
        assert!(
            docs.contains(&format!("\n## {}\n", entry.name)),
            "docs/presets.md has no section {}",
            entry.name
        );
        let row = format!("\n| [`{0}`](#{1}) |", entry.name, entry.name.to_lowercase());
        assert!(docs.contains(&row), "docs/presets.md has no row {row}");
        let sample = read(&format!("crates/core/tests/presets/{}.prom", entry.name));
        assert!(sample.starts_with("# Source: "), "{}", entry.name);
    }
    for file in fs::read_dir(format!("{ROOT}/crates/core/tests/presets")).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        let name = file.strip_suffix(".prom").unwrap();
        let name = name.strip_suffix(".live").unwrap_or(name);
        assert!(names.contains(name), "{file} is of no preset");
    }
}

#[test]
fn the_reader_of_samples_is_strict() {
    let read = series(r#"a_total{x="1",y="a\"b\\"} 3"#).unwrap();
    assert_eq!(
        (read.name.as_str(), read.labels["y"].as_str()),
        ("a_total", "a\"b\\")
    );
    for line in [
        "",
        "a_total 3",
        r#"a_total{x="1"}"#,
        r#"a_total{x="1"} x"#,
        r#"a_total{x="1} 3"#,
        r#"a_total{x="1",x="2"} 3"#,
        r#"a-total{x="1"} 3"#,
        r#"a_total{x.y="1"} 3"#,
    ] {
        assert!(series(line).is_none(), "{line}");
    }
}
