//! The built-in policy, and what it supplies below others.

use countersign_api::policy::RolloutPolicy;
use serde_json::Value;

use super::*;
use crate::policy::defaults::{BUILT_IN, BUILT_IN_NAME};
use crate::policy::merge::either_demands;

#[test]
fn the_built_in_policy_can_be_read_and_names_every_field() {
    let policy: RolloutPolicy = serde_saphyr::from_str(BUILT_IN).unwrap();
    assert_eq!(policy.metadata.name.as_deref(), Some(BUILT_IN_NAME));

    // Read as plain data, so that an empty list counts as named.
    let written: Value = serde_saphyr::from_str(BUILT_IN).unwrap();
    let crd = serde_json::to_value(&countersign_api::crds()[1]).unwrap();
    let members = |of: &Value, path: &str| -> BTreeSet<String> {
        let members = of.pointer(path).and_then(Value::as_object);
        members
            .unwrap_or_else(|| panic!("{path}"))
            .keys()
            .cloned()
            .collect()
    };
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    for part in [
        "risk",
        "risk/points",
        "risk/differences",
        "risk/criticality",
        "risk/floors",
        "risk/thresholds",
        "tiers",
        "tiers/low",
        "tiers/medium",
        "tiers/high",
        "tiers/critical",
    ] {
        let known = format!("{schema}/{}/properties", part.replace('/', "/properties/"));
        assert_eq!(
            members(&written, &format!("/spec/{part}")),
            members(&crd, &known),
            "{part}"
        );
    }
    assert!(built_in().risk.size.len() > 1 && built_in().risk.version.is_some());
}

#[test]
fn the_documentation_gives_the_built_in_demands() {
    let docs = include_str!("../../../../../docs/policy.md");
    let tiers = serde_json::to_value(&built_in().tiers).unwrap();
    let first = |tier: Tier| built_in().tiers.get(tier).steps.first().cloned().unwrap();
    let same = |tier: Tier| {
        let alike = |step: &Step| {
            (step.bake, step.min_requests) == (first(tier).bake, first(tier).min_requests)
        };
        built_in().tiers.get(tier).steps.iter().all(alike)
    };
    assert!(
        Tier::ALL.into_iter().all(same),
        "one bake and one number for all steps of a tier"
    );
    let row = |of: &dyn Fn(Tier) -> String| format!("| {} |", Tier::ALL.map(of).join(" | "));
    let weights = |tier: Tier| -> Vec<String> {
        built_in()
            .tiers
            .get(tier)
            .steps
            .iter()
            .map(|step| step.weight.to_string())
            .collect()
    };
    let mut rows = vec![
        (
            "| `steps` |".to_owned(),
            row(&|tier| weights(tier).join(", ")),
        ),
        (
            "| | … `bake`".to_owned(),
            row(&|tier| first(tier).bake.to_string()),
        ),
        (
            "| | … `minRequests`".to_owned(),
            row(&|tier| first(tier).min_requests.to_string()),
        ),
    ];
    let low = tiers["low"].as_object().unwrap();
    for (field, _) in low.iter().filter(|(_, value)| !value.is_array()) {
        let value = |tier: Tier| match &tiers[tier.as_str()][field] {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.as_f64().unwrap().to_string(),
            Value::Bool(yes) => yes.to_string(),
            other => panic!("{field}: {other}"),
        };
        rows.push((format!("| `{field}` |"), row(&value)));
    }
    assert_eq!(rows.len(), 3 + 20);
    for (begin, end) in rows {
        let found = docs
            .lines()
            .any(|line| line.starts_with(&begin) && line.ends_with(&end));
        assert!(found, "docs/policy.md lacks {begin} … {end}");
    }
}

#[test]
fn without_policies_the_built_in_one_applies_as_it_is_written() {
    let effective = effective(&[]);
    assert_eq!(
        effective.risk,
        built_in().risk,
        "the built-in policy keeps the order on its own"
    );
    for tier in Tier::ALL {
        let (found, written) = (effective.tiers.get(tier), built_in().tiers.get(tier));
        let expected = TierDemands {
            sign_off: either_demands(written.sign_off.as_deref(), None),
            promotion_sign_off: either_demands(written.promotion_sign_off.as_deref(), None),
            ..written.clone()
        };
        assert_eq!(*found, expected, "{tier}");
    }
    assert_eq!(effective.sources, ["built-in"]);
    assert_eq!(effective.versions, ["built-in: built-in-1"]);
    assert!(effective.checks.is_empty() && effective.interval.is_none());
}

#[test]
fn a_single_policy_may_be_looser_than_the_built_in_one() {
    let a = policy(
        "a",
        "
risk: {points: {noReview: 1, staleReview: 0}, thresholds: {critical: 60}}
tiers: {high: {minBake: 6m, signOff: []}}
",
    );
    let effective = effective(&[a]);
    assert_eq!(effective.risk.points[&Factor::NoReview], 1.0);
    assert_eq!(effective.risk.thresholds.critical, Some(60.0));
    assert_eq!(effective.tiers.high.min_bake, Some(Duration::minutes(6)));
    let demanding = TierDemands {
        sign_off: Some(vec![SignOffDemand {
            count: 1,
            groups: vec![],
        }]),
        ..TierDemands::default()
    };
    let silent = filled_demands(&TierDemands::default(), &demanding);
    assert_eq!(silent.sign_off, demanding.sign_off);
    let empty = TierDemands {
        sign_off: Some(vec![]),
        ..TierDemands::default()
    };
    assert_eq!(
        filled_demands(&empty, &demanding).sign_off,
        Some(vec![]),
        "an empty list demands none"
    );
}
