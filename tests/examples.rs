//! The files in `examples/`, without a cluster: they are valid, and their comments are true.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use countersign_api::{AnalysisTemplate, Freeze, Rollout, RolloutPolicy, Tier};
use countersign_core::observation::people::NamedPolicy;
use countersign_core::plan::plan_for;
use countersign_core::policy::{Effective, effective};
use countersign_core::provenance::{Provenance, State};
use countersign_core::risk::score::Facts;
use countersign_core::risk::{self, Risk};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PodTemplateSpec, Service};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn examples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples")
}

fn documents(file: &str) -> Vec<Value> {
    let yaml = std::fs::read_to_string(examples().join(file)).unwrap();
    serde_saphyr::from_multiple(&yaml).unwrap()
}

/// The one document of this kind in a file.
fn one<T: DeserializeOwned>(file: &str, kind: &str) -> T {
    let mut found = documents(file)
        .into_iter()
        .filter(|document| document["kind"] == kind);
    let document = found
        .next()
        .unwrap_or_else(|| panic!("{file} has a {kind}"));
    assert!(found.next().is_none(), "{file} has one {kind}");
    serde_json::from_value(document).unwrap()
}

fn demo_policy() -> Effective {
    let policy: RolloutPolicy = one("policy.yaml", "RolloutPolicy");
    effective(&[NamedPolicy {
        name: "demo".into(),
        generation: 1,
        spec: policy.spec,
    }])
}

/// The risk of the change from one file to the next.
fn risk_of_change(from: &str, to: &str) -> Risk {
    let (old, new): (Rollout, Rollout) = (one(from, "Rollout"), one(to, "Rollout"));
    let provenance = Provenance::read(
        &new.metadata.annotations.unwrap_or_default(),
        &new.spec.template,
    );
    assert_eq!(
        (provenance.state, &provenance.problems[..]),
        (State::Declared, &[][..]),
        "{to}"
    );
    let model = demo_policy().risk;
    let labels = new.metadata.labels.unwrap_or_default();
    let facts = Facts {
        differences: risk::differences(Some(&old.spec.template), &new.spec.template),
        criticality: risk::criticality(&model, &labels, &BTreeMap::new()),
        ..Facts::default()
    };
    risk::risk_of(&provenance, &facts, &model)
}

/// Panics if a document has a field that its type does not know.
fn assert_is<T: DeserializeOwned + Serialize>(document: &Value) {
    let typed: T = serde_json::from_value(document.clone()).unwrap();
    assert_kept(document, &serde_json::to_value(typed).unwrap(), "");
}

fn assert_kept(written: &Value, read: &Value, path: &str) {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            for (key, value) in written {
                let read = read
                    .get(key)
                    .unwrap_or_else(|| panic!("{path}.{key} is not known"));
                assert_kept(value, read, &format!("{path}.{key}"));
            }
        }
        (Value::Array(written), Value::Array(read)) => {
            assert_eq!(written.len(), read.len(), "{path}");
            written
                .iter()
                .zip(read)
                .for_each(|(written, read)| assert_kept(written, read, path));
        }
        _ => assert_eq!(written, read, "{path}"),
    }
}

#[test]
fn every_document_is_of_a_known_kind_and_has_no_unknown_field() {
    let paths = std::fs::read_dir(examples())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let yaml = paths.filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    let documents: Vec<_> = yaml
        .flat_map(|path| documents(path.to_str().unwrap()))
        .collect();
    assert!(!documents.is_empty());
    for document in documents {
        match document["kind"].as_str() {
            Some("Service") => assert_is::<Service>(&document),
            Some("RolloutPolicy") => assert_is::<RolloutPolicy>(&document),
            Some("AnalysisTemplate") => assert_is::<AnalysisTemplate>(&document),
            Some("Freeze") => {
                // The API server fills in the person.
                let mut document = document;
                document["spec"]["person"] = serde_json::json!({ "username": "dave" });
                assert_is::<Freeze>(&document);
            }
            Some("Rollout") => {
                assert_is::<Rollout>(&document);
                if let Some(template) = document["spec"].get("template") {
                    assert_is::<PodTemplateSpec>(template);
                }
            }
            Some("Deployment") => assert_is::<Deployment>(&document),
            // What this build has no types for: the end-to-end tests apply it.
            Some("HTTPRoute" | "GRPCRoute" | "TCPRoute" | "VirtualService" | "DestinationRule") => {
            }
            kind => panic!("unknown kind {kind:?}"),
        }
    }
}

#[test]
fn the_demo_policy_is_looser_in_steps_bakes_and_sign_offs_alone() {
    let (mut demo, built_in) = (demo_policy(), effective(&[]));
    assert_eq!(demo.risk, built_in.risk);
    for (demo, built_in) in [
        (&mut demo.tiers.low, &built_in.tiers.low),
        (&mut demo.tiers.medium, &built_in.tiers.medium),
        (&mut demo.tiers.high, &built_in.tiers.high),
        (&mut demo.tiers.critical, &built_in.tiers.critical),
    ] {
        demo.steps.clone_from(&built_in.steps);
        demo.min_bake.clone_from(&built_in.min_bake);
        demo.sign_off.clone_from(&built_in.sign_off);
        demo.promotion_sign_off
            .clone_from(&built_in.promotion_sign_off);
        assert_eq!(demo, built_in);
    }
}

#[test]
fn the_demo_policy_lets_a_change_of_any_tier_end_without_people() {
    for tier in Tier::ALL {
        let plan = plan_for(tier, &[], &[], &demo_policy());
        assert!(
            plan.steps.iter().all(|step| step.sign_off.is_empty()),
            "{tier}: {plan:?}"
        );
        assert!(plan.promotion_sign_off.is_empty(), "{tier}: {plan:?}");
        assert_eq!(
            plan.tightened,
            Vec::<String>::new(),
            "{tier}: its steps are what it writes"
        );
    }
}

#[test]
fn the_policy_for_people_has_windows_that_can_be_read() {
    let policy: RolloutPolicy = one("policy-people.yaml", "RolloutPolicy");
    let saturday = "2026-11-21T12:00:00Z".parse().unwrap();
    let windows = &policy.spec.freeze.windows;
    assert!(!windows.is_empty());
    for window in windows {
        let ends = countersign_core::people::freeze::ends_at(window, saturday).unwrap();
        assert_eq!(ends.unwrap().to_string(), "2026-11-23T07:00:00Z");
    }
}

#[test]
fn the_harmless_change_is_low_and_the_risky_one_high_with_smaller_steps() {
    let low = risk_of_change("harmless.yaml", "harmless-v2.yaml");
    let high = risk_of_change("risky.yaml", "risky-v2.yaml");
    assert_eq!(low.tier, Tier::Low, "{low:?}");
    assert!(high.tier >= Tier::High, "{high:?}");
    let [low, high] = [low, high].map(|risk| plan_for(risk.tier, &[], &[], &demo_policy()).steps);
    assert!(high.len() > low.len());
    assert!(high[0].weight < low[0].weight);
}

#[test]
fn a_second_version_differs_from_the_first_in_template_and_provenance_alone() {
    for (first, second) in [
        ("harmless.yaml", "harmless-v2.yaml"),
        ("risky.yaml", "risky-v2.yaml"),
    ] {
        let (first, mut second): (Rollout, Rollout) =
            (one(first, "Rollout"), one(second, "Rollout"));
        assert_ne!(first.spec.template, second.spec.template);
        second.spec.template.clone_from(&first.spec.template);
        second
            .metadata
            .annotations
            .clone_from(&first.metadata.annotations);
        assert_eq!((first.metadata, first.spec), (second.metadata, second.spec));
    }
}
