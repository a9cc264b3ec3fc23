//! What decisions give: reasons, gates, phases, conditions, outcomes of windows.

use std::collections::BTreeSet;

use countersign_api::rollout::WindowState;
use countersign_api::step::Tier;
use countersign_core::reason::{Reason, Wait};
use serde_json::Value;

use super::{between, code, documents, read, set, table};

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
