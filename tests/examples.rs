//! The files in `examples/`, without a cluster: they are valid, and their comments are true.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use countersign_api::rollout::{Change, Outcome, Plan};
use countersign_api::step::SignOffDemand;
use countersign_api::{AnalysisTemplate, Freeze, Phase, Rollout, RolloutPolicy, Tier};
use countersign_core::analysis::statistics::Counts;
use countersign_core::decide;
use countersign_core::observation::people::NamedPolicy;
use countersign_core::observation::windows::WindowOutcome;
use countersign_core::plan::plan_for;
use countersign_core::policy::{Effective, effective};
use countersign_core::provenance::{Provenance, State};
use countersign_core::risk::score::Facts;
use countersign_core::risk::{self, Risk};
use countersign_core::simulation::world::World;
use countersign_kubectl::manifests::Manifests;
use countersign_kubectl::manifests::source::Source;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PodTemplateSpec, Service};
use k8s_openapi::jiff::Timestamp;
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
fn the_demo_policy_is_looser_in_steps_and_bakes_alone() {
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
        ("signed.yaml", "signed-v2.yaml"),
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

// --- Comments ------------------------------------------------------------------------------------

/// The file and the YAML in it, for every text that shows a Rollout.
fn shown() -> Vec<(String, String)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let block = |path: &str, begin: &str, end: &str| {
        let text = read(path);
        let with_rollout = text.split(begin).skip(1).filter_map(|it| {
            let (yaml, _) = it.split_once(end)?;
            yaml.contains("kind: Rollout\n").then(|| yaml.to_owned())
        });
        let [yaml] = &with_rollout.collect::<Vec<_>>()[..] else {
            panic!("{path} shows one Rollout")
        };
        (path.to_owned(), yaml.clone())
    };
    let (notes, indented) = block(
        "charts/countersign/templates/NOTES.txt",
        "<<'YAML'\n",
        "     YAML\n",
    );
    let lines = indented
        .lines()
        .map(|line| line.strip_prefix("     ").unwrap());
    let lines: Vec<_> = lines.collect();
    let mut all = vec![
        block("README.md", "```yaml\n", "```\n"),
        (notes, lines.join("\n") + "\n"),
    ];
    for entry in std::fs::read_dir(examples()).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let is_yaml = path.extension().is_some_and(|it| it == "yaml");
        if is_yaml && text.contains("kind: Rollout\n") {
            let name = path.file_name().unwrap().to_str().unwrap();
            all.push((format!("examples/{name}"), text));
        }
    }
    all.sort();
    all
}

/// The changes to the Rollouts of a text, from those of `stable` or else from another image.
fn changes(yaml: &str, stable: Option<&str>, policy: Option<&str>) -> Vec<(String, Change)> {
    let manifests = |texts: &[&str]| {
        let sources: Vec<_> = texts
            .iter()
            .map(|text| Source {
                name: "shown".into(),
                text: (*text).to_owned(),
            })
            .collect();
        Manifests::of(&sources).unwrap()
    };
    let texts: Vec<_> = std::iter::once(yaml).chain(policy).collect();
    let stable = stable.map(|stable| manifests(&[stable]));
    let observed = manifests(&texts)
        .observations(stable.as_ref(), &BTreeMap::new(), Timestamp::UNIX_EPOCH)
        .unwrap();
    observed
        .into_iter()
        .map(|it| {
            let change = decide(&it.observation).status.change.unwrap();
            (it.observation.name, change)
        })
        .collect()
}

/// What a newcomer does after `helm install` with its defaults, at 50 requests a second.
#[test]
fn a_change_of_the_rollout_in_notes_is_promoted_without_sign_off() {
    let mut all = shown().into_iter();
    let (_, yaml) = all.find(|(path, _)| path.ends_with("NOTES.txt")).unwrap();
    let source = Source {
        name: "NOTES.txt".into(),
        text: yaml,
    };
    let manifests = Manifests::of(&[source]).unwrap();
    let observed = manifests.observations(None, &BTreeMap::new(), Timestamp::UNIX_EPOCH);
    let [notes] = &observed.unwrap()[..] else {
        panic!("NOTES shows one Rollout")
    };
    let mut world = World::new(notes.observation.clone());
    let mut healthy = |_: Timestamp, share: f64| {
        let arm = |share: f64| Counts {
            requests: 15.0 * 50.0 * share,
            errors: 0.0,
        };
        WindowOutcome::Counted {
            canary: arm(share),
            stable: arm(1.0 - share),
        }
    };
    let two_hours = Timestamp::from_second(7_200).unwrap();
    let mut awaited = false;
    let promoted = world.run(two_hours, &mut healthy, |observation| {
        awaited |= observation.status.phase == Phase::AwaitingSignOff;
        let change = observation.status.change.as_ref();
        change.and_then(|change| change.outcome) == Some(Outcome::Promoted)
    });
    assert!(promoted && !awaited, "{:?}", world.observation.status);
    assert_eq!(world.broken, []);
}

/// A tier and a plan in the form of the comments.
fn line(change: &Change, policy: Option<&str>) -> String {
    let by = policy.map(|file| format!(" by {file}"));
    let after = |demands: &[SignOffDemand]| {
        if demands.is_empty() {
            ""
        } else {
            "after sign-off "
        }
    };
    let Plan {
        steps,
        promotion_sign_off,
        ..
    } = &change.plan;
    let steps = steps
        .iter()
        .map(|step| format!("{}{}% ({})", after(&step.sign_off), step.weight, step.bake));
    let steps: Vec<_> = steps.collect();
    format!(
        "# Tier {}{}: {}, then {}all.",
        change.tier,
        by.unwrap_or_default(),
        steps.join(", "),
        after(promotion_sign_off)
    )
}

/// The comment of each Rollout: the line that begins as one of these does, of the same document.
fn comments(yaml: &str) -> Vec<Option<&str>> {
    let documents = yaml.split("\n---\n");
    let with_rollout = documents.filter(|it| it.contains("kind: Rollout\n"));
    with_rollout
        .map(|it| it.lines().find(|line| line.starts_with("# Tier ")))
        .collect()
}

#[test]
fn each_rollout_that_is_shown_has_the_tier_and_the_plan_of_its_comment() {
    let mut wrong = Vec::new();
    let all = shown();
    assert!(all.len() > 10, "{}", all.len());
    for (file, yaml) in &all {
        let comments = comments(yaml);
        let named = comments[0].and_then(|it| it.split_once(" by ")?.1.split_once(':'));
        let policy = named.map(|(policy, _)| policy);
        let beside = |name: &str| std::fs::read_to_string(examples().join(name)).unwrap();
        let before = file
            .strip_suffix("-v2.yaml")
            .map(|it| beside(&format!("{}.yaml", it.trim_start_matches("examples/"))));
        let changes = changes(yaml, before.as_deref(), policy.map(beside).as_deref());
        assert_eq!(changes.len(), comments.len(), "{file}");
        for ((name, change), comment) in changes.iter().zip(comments) {
            let expected = line(change, policy);
            if comment != Some(&expected) {
                wrong.push(format!("{file}, above Rollout {name}:\n{expected}\n"));
            }
            let risky = ["risky-v2", "signed-v2"];
            let tier = if risky.iter().any(|it| file.contains(it)) {
                Tier::High
            } else {
                Tier::Low
            };
            assert_eq!(change.tier, tier, "{file}: {name}: {change:?}");
        }
    }
    assert!(
        wrong.is_empty(),
        "write these lines:\n\n{}",
        wrong.join("\n")
    );
}

#[test]
fn each_rollout_that_is_shown_has_provenance_as_a_pipeline_writes_it() {
    for (file, yaml) in shown() {
        let source = Source {
            name: file.clone(),
            text: yaml,
        };
        for rollout in Manifests::of(&[source]).unwrap().rollouts {
            let annotations = rollout.metadata.annotations.unwrap_or_default();
            let provenance = Provenance::read(&annotations, &rollout.spec.template);
            assert_eq!(provenance.state, State::Declared, "{file}");
            assert_eq!(provenance.problems, [], "{file}");
            for key in [
                "image",
                "repository",
                "revision",
                "approved-revision",
                "contributor",
                "authors",
                "reviewers",
                "tests",
                "lines-added",
                "lines-deleted",
                "files-changed",
            ] {
                let key = format!("provenance.countersign.dev/{key}");
                assert!(annotations.contains_key(&key), "{file} lacks {key}");
            }
        }
    }
}

/// The chart's notes warn of it.
#[test]
fn the_annotations_of_the_last_image_make_the_next_one_tier_critical() {
    for (file, yaml) in shown() {
        let next = yaml.replace("image: registry.", "image: mirror.");
        let next = next.replace("dev/image: mirror.", "dev/image: registry.");
        let next = next.replace("image: \"registry.", "image: \"mirror.");
        for (name, change) in changes(&next, Some(&yaml), None) {
            assert_eq!(change.tier, Tier::Critical, "{file}: {name}");
        }
    }
}
