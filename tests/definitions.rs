//! What is generated and what is promised of the source tree.

// Helpers of tests fail by panicking, as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The chart has files of its own: Flux packs a chart from Git without its symbolic links.
#[test]
fn the_committed_definitions_are_the_generated_ones() {
    let generated = countersign_api::crd_files().unwrap();
    for folder in ["crds", "charts/countersign/crd-files"] {
        let files = fs::read_dir(root().join(folder)).unwrap();
        let files: Vec<_> = files.map(|file| file.unwrap()).collect();
        let regular = files.iter().filter(|it| it.file_type().unwrap().is_file());
        assert_eq!(
            regular.count(),
            files.len(),
            "{folder} has regular files only"
        );
        assert_eq!(
            files.len(),
            generated.len(),
            "a definition that no longer exists"
        );
        for (name, yaml) in &generated {
            let committed = fs::read_to_string(root().join(folder).join(name)).unwrap();
            assert!(
                committed == *yaml,
                "{folder}/{name} is not what the program generates: run `make generate`"
            );
        }
    }
}

#[test]
fn every_field_of_every_kind_is_described_in_a_sentence() {
    fn walk(schema: &Value, path: &str, missing: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let described = property["description"]
                .as_str()
                .is_some_and(|text| text.len() > 3);
            // The API server describes these three itself.
            if !described && !["kind", "apiVersion", "metadata"].contains(&name.as_str()) {
                missing.push(path.clone());
            }
            walk(property, &path, missing);
        }
        for nested in ["items", "additionalProperties"] {
            if let Some(nested) = schema.get(nested) {
                walk(nested, path, missing);
            }
        }
    }
    let mut missing = Vec::new();
    for crd in countersign_api::crds() {
        let crd = serde_json::to_value(crd).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        walk(
            schema,
            crd["spec"]["names"]["kind"].as_str().unwrap(),
            &mut missing,
        );
    }
    assert!(missing.is_empty(), "no description: {missing:?}");
}

/// Tools that compare a manifest with the live object, such as Argo CD, compare lists as a whole: what the
/// API server filled in there would be a difference forever.
#[test]
fn no_default_stands_within_a_list() {
    fn walk(schema: &Value, path: &str, in_list: bool, found: &mut Vec<String>) -> usize {
        let default = schema.get("default").is_some();
        if in_list && default {
            found.push(path.to_owned());
        }
        let mut defaults = usize::from(default);
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            defaults += walk(property, &format!("{path}.{name}"), in_list, found);
        }
        for (nested, is_list) in [("items", true), ("additionalProperties", false)] {
            if let Some(nested) = schema.get(nested) {
                defaults += walk(nested, &format!("{path}[]"), in_list || is_list, found);
            }
        }
        defaults
    }
    let (mut defaults, mut found) = (0, Vec::new());
    for crd in countersign_api::crds() {
        let crd = serde_json::to_value(crd).unwrap();
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        defaults += walk(spec, kind, false, &mut found);
    }
    assert!(defaults > 10, "only {defaults} defaults were seen");
    assert!(found.is_empty(), "defaults within lists: {found:?}");
}

#[test]
fn observed_generation_is_an_integer() {
    let types = countersign_api::crds().into_iter().filter_map(|crd| {
        let crd = serde_json::to_value(crd).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let status = &schema["properties"]["status"]["properties"];
        Some(status.get("observedGeneration")?["type"].clone())
    });
    let kinds = "of Rollouts, RolloutPolicies, AnalysisTemplates and Freezes";
    assert_eq!(types.collect::<Vec<_>>(), ["integer"; 4], "{kinds}");
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// What Cargo cannot refuse: the standard library, and the client that kube has where the operator is built
/// beside. Clippy refuses the clock.
#[test]
fn the_core_is_pure() {
    let mut files = Vec::new();
    for part in ["crates/api", "crates/core"] {
        sources(&root().join(part).join("src"), &mut files);
        let manifest = fs::read_to_string(root().join(part).join("Cargo.toml")).unwrap();
        let (_, dependencies) = manifest.split_once("\n[dependencies]\n").unwrap();
        let dependencies = dependencies.split("\n[").next().unwrap();
        for line in dependencies.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['.', ' ']).next().unwrap();
            let impure = [
                "axum", "clap", "futures", "hyper", "rand", "reqwest", "tokio",
            ];
            assert!(!impure.contains(&name), "{part} depends on {name}");
            assert!(!line.contains("\"client\""), "{part}: {line}");
        }
    }
    assert!(files.len() > 50, "only {} files", files.len());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for impure in [
            "async ",
            "Instant",
            "kube::Client",
            "std::env",
            "std::fs",
            "std::net",
            "std::process",
        ] {
            assert!(
                !code.contains(impure),
                "{} holds `{impure}`",
                file.display()
            );
        }
    }
}

/// Names that the code had before it took those of client-go, kube-rs and the Kubernetes API.
const REFUSED: [&str; 20] = [
    "AtHand",
    "Barred",
    "Contender",
    "Farewell",
    "PATIENCE",
    "Rival",
    "Wish",
    "Wishes",
    "barred",
    "condemns",
    "farewell",
    "hear_interventions",
    "hear_sign_offs",
    "in_vain",
    "keep_quiet",
    "look_again",
    "look_again_at",
    "merely_counts",
    "rivals",
    "unheard",
];

#[test]
fn names_are_those_of_the_field() {
    let mut files = Vec::new();
    for dir in [
        "src",
        "crates/api/src",
        "crates/core/src",
        "crates/kubectl/src",
    ] {
        sources(&root().join(dir), &mut files);
    }
    assert!(files.len() > 200, "only {} files", files.len());
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        let mut names = source.split(|c: char| !c.is_alphanumeric() && c != '_');
        let found = names.find(|name| REFUSED.contains(name));
        assert_eq!(found, None, "{}", file.display());
    }
}

/// Words of which a field's name is made, such as `canary` and `Service`.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = vec![String::new()];
    for c in name.chars() {
        if c.is_uppercase() {
            words.push(String::new());
        }
        words.last_mut().unwrap().extend(c.to_lowercase());
    }
    words
}

/// A user who may write an object of ours cannot make the operator call anybody: no field takes an address.
/// Pod templates are the exception, since the pods, which are the team's own, call whom they like.
#[test]
fn no_field_of_any_kind_takes_an_address() {
    const ADDRESSES: [&str; 14] = [
        "address",
        "addresses",
        "domain",
        "endpoint",
        "host",
        "hostname",
        "hosts",
        "ip",
        "proxy",
        "server",
        "uri",
        "url",
        "urls",
        "webhook",
    ];
    fn walk(schema: &Value, path: &str, fields: &mut usize, found: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if [
                "Rollout.spec.template",
                "Rollout.spec.strategy.canary.smoke.template",
            ]
            .contains(&path.as_str())
            {
                continue;
            }
            *fields += 1;
            let is_address = words(name)
                .iter()
                .any(|it| ADDRESSES.contains(&it.as_str()));
            if is_address && property["type"] != "integer" {
                found.push(path.clone());
            }
            walk(property, &path, fields, found);
        }
        if ["uri", "hostname", "ipv4", "ipv6"]
            .iter()
            .any(|it| schema["format"] == *it)
        {
            found.push(path.to_owned());
        }
        for nested in ["items", "additionalProperties"] {
            if let Some(nested) = schema.get(nested) {
                walk(nested, path, fields, found);
            }
        }
    }
    let (mut fields, mut found) = (0, Vec::new());
    for crd in countersign_api::crds() {
        let crd = serde_json::to_value(crd).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        walk(schema, kind, &mut fields, &mut found);
    }
    assert!(fields > 500, "only {fields} fields were checked");
    assert!(found.is_empty(), "fields for addresses: {found:?}");
}

/// The operator calls the API server and the Prometheus of its installer, and nobody else.
#[test]
fn only_three_files_open_connections() {
    let mut files = Vec::new();
    for part in ["src", "crates/api/src", "crates/core/src"] {
        sources(&root().join(part), &mut files);
    }
    let connects = [
        "Client::try_from",
        "Client::new",
        "Command::new",
        "Config::infer",
        "TcpSocket",
        "TcpStream",
        "UdpSocket",
        "UnixStream",
        "hyper::",
        "lookup_host",
        "reqwest::get",
        "Client::builder",
        "reqwest::Client",
    ];
    let mut found = Vec::new();
    for file in files {
        let path = file
            .strip_prefix(root())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        if connects.iter().any(|it| code.contains(it)) {
            found.push(path);
        }
    }
    found.sort();
    // The stand-in for the API server is compiled for tests alone.
    found.retain(|it| it != "src/stand_in.rs");
    // Of the operator, and the first of `countersign notify`.
    let expected = [
        "src/notify/connection.rs",
        "src/operator.rs",
        "src/prometheus/connection.rs",
    ];
    assert_eq!(found, expected);
}

/// A promise is worth the test that shows it.
#[test]
fn every_test_that_the_documents_name_exists() {
    let mut tests = BTreeSet::new();
    for page in fs::read_dir(root().join("docs")).unwrap() {
        let page = page.unwrap().path();
        if page.extension().is_some_and(|it| it == "md") {
            let text = fs::read_to_string(page).unwrap();
            // Code in a line is what stands between an odd backquote and the next.
            let quoted = text.split('`').skip(1).step_by(2);
            let named = quoted.filter_map(|it| it.split_once(".rs::"));
            tests.extend(named.map(|(file, test)| (file.to_owned(), test.to_owned())));
        }
    }
    assert!(tests.len() > 250, "only {} tests were found", tests.len());
    let missing = tests.iter().filter(|(file, test)| {
        let path = root().join(format!("{file}.rs"));
        let text = fs::read_to_string(path).unwrap_or_default();
        let function = format!("fn {test}(");
        let mut parts = text.split(&function);
        // An attribute before it makes a function a test.
        let before = parts.next().unwrap_or_default();
        let attributes = before.rsplit("\n\n").next().unwrap_or_default();
        parts.next().is_none() || !(attributes.contains("test]") || before.contains("proptest!"))
    });
    let missing: Vec<_> = missing.collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}
