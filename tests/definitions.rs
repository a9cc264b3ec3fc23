//! What is generated and what is promised of the source tree.

// Helpers of tests fail by panicking, as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_committed_definitions_are_the_generated_ones() {
    for (name, yaml) in countersign::api::crd_files().unwrap() {
        let committed = fs::read_to_string(root().join("crds").join(&name)).unwrap();
        assert!(
            committed == yaml,
            "crds/{name} is not what the program generates: run `make generate`"
        );
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
    for crd in countersign::api::crds() {
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

#[test]
fn observed_generation_is_an_integer() {
    for crd in countersign::api::crds() {
        let crd = serde_json::to_value(crd).unwrap();
        let status =
            &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
        if let Some(generation) = status["properties"].get("observedGeneration") {
            assert_eq!(generation["type"], "integer");
        }
    }
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

/// The layers from the bottom up; a file names only its own and those below.
const LAYERS: [&[&str]; 5] = [
    &["api"],
    &["core"],
    &["telemetry", "lease", "observe", "act"],
    &["controller", "cli"],
    &["operator"],
];

#[test]
fn dependencies_point_one_way() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    for file in files {
        let path = file
            .strip_prefix(root().join("src"))
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let own = path.split(['/', '.']).next().unwrap();
        let Some(level) = LAYERS.iter().position(|layer| layer.contains(&own)) else {
            continue;
        };
        let text = fs::read_to_string(&file).unwrap();
        for above in LAYERS[level + 1..].iter().copied().flatten() {
            assert!(
                !text.contains(&format!("crate::{above}::")),
                "src/{path} depends on {above}, which is above it"
            );
        }
    }
}

#[test]
fn the_core_is_pure() {
    let mut files = Vec::new();
    sources(&root().join("src/core"), &mut files);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for impure in [
            "async ",
            "Timestamp::now",
            "SystemTime",
            "Instant",
            "kube::Client",
            "std::env",
            "std::fs",
            "rand::",
        ] {
            assert!(
                !code.contains(impure),
                "{} holds `{impure}`",
                file.display()
            );
        }
    }
}
