mod annotations;
mod digests;

use std::collections::{BTreeMap, BTreeSet};

use countersign_api::rollout::CanaryStrategy;
use countersign_api::{PROVENANCE_PREFIX, PodTemplate};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::provenance::attestation::problem;
use crate::provenance::digest::{change_digest, is_hashed, pod_template_hash, template_digest};
use crate::provenance::identity::{Agent, Identity};
use crate::provenance::keys::{KEYS, MAX_ATTESTATION, MAX_PROBLEMS, MAX_VALUE};
use crate::provenance::problem::Problem;
use crate::provenance::{Contributor, Provenance, Review, State, TestResult};
use crate::text::is_invisible;

const IMAGE: &str = "registry.example/shop:1.4.2";

fn template() -> PodTemplate {
    PodTemplate(json!({
        "metadata": { "labels": { "app": "shop" } },
        "spec": { "containers": [{ "name": "web", "image": IMAGE }] },
    }))
}

fn annotations(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter()
        .map(|(key, value)| (format!("{PROVENANCE_PREFIX}{key}"), (*value).to_owned()))
        .collect()
}

fn read(of: &[(&str, &str)]) -> Provenance {
    Provenance::read(&annotations(of), &template())
}

const GOOD: [(&str, &str); 18] = [
    ("agents", "claude-code anthropic/claude-opus-4, Cursor"),
    ("ai-share", "62.5"),
    ("approved-revision", "9f3c2e1"),
    ("authors", "Jane Doe <jane@example.org>, bob"),
    ("committed-at", "2026-11-24T12:00:00Z"),
    ("contributor", "mixed"),
    ("files-changed", "7"),
    ("human-operator", "jane@example.org"),
    ("image", IMAGE),
    ("lines-added", "300"),
    ("lines-deleted", "12"),
    ("repository", "https://git.example/shop"),
    ("review-source", "Forge"),
    ("reviewers", "Carol <carol@example.org>"),
    ("revision", "9f3c2e1"),
    ("subsystems", "3"),
    ("tests", "PASSED"),
    ("touches", "Auth, payments"),
];

fn good_but(key: &str, value: Option<&str>) -> Provenance {
    let mut of: Vec<_> = GOOD
        .into_iter()
        .filter(|(other, _)| *other != key)
        .collect();
    of.extend(value.map(|value| (key, value)));
    read(&of)
}
