#![allow(
    clippy::float_cmp,
    reason = "these numbers have at most two decimals and are rounded to them"
)]

mod monotone;

use std::collections::{BTreeMap, BTreeSet};

use countersign_api::policy::{Criticality, Difference, RiskModel};
use countersign_api::run::Contribution;
use countersign_api::step::Tier;
use countersign_api::{PROVENANCE_PREFIX, PodTemplate};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::json;

use crate::observation::people::NamedPolicy;
use crate::policy::defaults::built_in;
use crate::policy::invariants::CRITICAL;
use crate::policy::{self, arbitrary};
use crate::provenance::identity::{Agent, Identity};
use crate::provenance::{Contributor, Provenance, State, TestResult};
use crate::risk::score::{Facts, Scale, name_of, with_numbers, worse};
use crate::risk::{Risk, criticality, risk_of, risk_of_both};

fn labels(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn read(of: &[(&str, &str)]) -> Provenance {
    let annotations = of
        .iter()
        .map(|(key, value)| (format!("{PROVENANCE_PREFIX}{key}"), (*value).to_owned()))
        .collect();
    let template =
        PodTemplate(json!({ "spec": { "containers": [{ "name": "web", "image": "shop:2" }] } }));
    Provenance::read(&annotations, &template)
}

/// A small change by a person that another one reviewed.
pub(crate) const HARMLESS: [(&str, &str); 9] = [
    ("contributor", "human"),
    ("authors", "jane"),
    ("reviewers", "carol"),
    ("revision", "9f3c2e1"),
    ("approved-revision", "9f3c2e1"),
    ("tests", "PASSED"),
    ("lines-added", "5"),
    ("lines-deleted", "3"),
    ("subsystems", "1"),
];

fn harmless_but(of: &[(&'static str, &'static str)]) -> Provenance {
    let kept = HARMLESS
        .into_iter()
        .filter(|(key, _)| !of.iter().any(|(other, _)| other == key));
    read(&kept.chain(of.iter().copied()).collect::<Vec<_>>())
}

fn risk(provenance: &Provenance, facts: &Facts) -> Risk {
    risk_of(provenance, facts, &built_in().risk)
}

fn normal() -> Facts {
    Facts {
        criticality: Some("normal".into()),
        ..Facts::default()
    }
}

fn points(risk: &Risk, factor: &str) -> Option<f64> {
    risk.contributions
        .iter()
        .find(|it| it.factor == factor)
        .map(|it| it.points)
}

#[test]
fn a_harmless_change_is_low() {
    let risk = risk(&harmless_but(&[]), &normal());
    assert_eq!((risk.score, risk.tier), (3.0, Tier::Low));
    assert_eq!(risk.contributions.len(), 1);
    assert_eq!(
        risk.contributions[0].reason,
        "the service's criticality is normal: +3"
    );
}

#[test]
fn the_worked_example_of_the_documentation_comes_out() {
    let provenance = read(&[
        ("contributor", "ai"),
        ("ai-share", "80"),
        ("agents", "claude-code anthropic/claude-opus-4"),
        ("human-operator", "jane@example.org"),
        ("authors", "jane@example.org"),
        ("reviewers", "jane@example.org"),
        ("revision", "9f3c2e1"),
        ("approved-revision", "9f3c2e1"),
        ("lines-added", "280"),
        ("lines-deleted", "32"),
        ("subsystems", "2"),
        ("tests", "PASSED"),
        ("touches", "payments"),
        ("image", "shop:2"),
    ]);
    let facts = Facts {
        differences: [Difference::Image, Difference::Environment].into(),
        ..normal()
    };
    let risk = risk(&provenance, &facts);
    let docs = include_str!("../../../../../docs/risk.md");
    for contribution in &risk.contributions {
        assert!(
            docs.contains(&contribution.reason),
            "docs/risk.md lacks: {}",
            contribution.reason
        );
    }
    assert!(
        docs.contains(&format!("**{} points: tier {}**", risk.score, risk.tier)),
        "{risk:?}"
    );
    assert_eq!((risk.score, risk.tier), (41.2, Tier::Critical));
}

#[test]
fn the_documentation_gives_the_points_of_the_built_in_policy() {
    let docs = include_str!("../../../../../docs/risk.md");
    let model = &built_in().risk;
    let factors = model
        .points
        .iter()
        .map(|(factor, points)| (name_of(factor), *points));
    let differences = model
        .differences
        .iter()
        .map(|(kind, points)| (name_of(kind), *points));
    let words = model.touches.iter().chain(&model.criticality.points);
    let words = words.map(|(word, points)| (word.clone(), *points));
    for (name, points) in factors.chain(differences).chain(words) {
        assert!(
            docs.contains(&format!("| `{name}` | {points} |")),
            "| `{name}` | {points} |"
        );
    }
    for band in &model.size {
        assert!(
            docs.contains(&format!("| {} | {} |", band.from, band.points)),
            "{band:?}"
        );
    }
    let floors = model.floors.len() + model.touches_floor.len() + model.differences_floor.len();
    assert_eq!(floors, 8, "docs/risk.md lists all floors");
}

#[test]
fn each_factor_adds_its_points_and_states_the_reason() {
    type Case = (&'static [(&'static str, &'static str)], &'static str, f64);
    let cases: [Case; 16] = [
        (&[("lines-added", "9")], "size", 6.0),
        (&[("lines-added", "99999")], "size", 24.0),
        (&[("lines-added", "x")], "sizeUnknown", 24.0),
        (&[("subsystems", "2")], "extraSubsystem", 2.0),
        (&[("subsystems", "1000000000")], "extraSubsystem", 6.0),
        (&[("contributor", "ai")], "aiShare", 4.0),
        (
            &[("contributor", "ai"), ("ai-share", "37")],
            "aiShare",
            1.48,
        ),
        (&[("contributor", "mixed")], "contributorMixed", 2.0),
        (
            &[("contributor", "mixed"), ("ai-share", "90")],
            "aiShare",
            3.6,
        ),
        (&[("contributor", "unknown")], "contributorUnknown", 5.0),
        (&[("contributor", "ai")], "autonomousAgent", 5.0),
        (&[("reviewers", "jane")], "noReview", 8.0),
        (&[("approved-revision", "000")], "staleReview", 8.0),
        (&[("tests", "WARNED")], "testsWarned", 3.0),
        (&[("tests", "")], "testsUnknown", 6.0),
        (
            &[("touches", "auth,api,payments,no-such-area")],
            "touches",
            12.0,
        ),
    ];
    for (annotations, factor, expected) in cases {
        let risk = risk(&harmless_but(annotations), &normal());
        assert_eq!(
            points(&risk, factor),
            Some(expected),
            "{annotations:?}: {risk:?}"
        );
    }
}

#[test]
fn facts_add_points_that_no_annotation_takes_away() {
    let seen = Facts {
        differences: [
            Difference::ServiceAccount,
            Difference::SecurityContext,
            Difference::Volumes,
        ]
        .into(),
        criticality: Some("high".into()),
        exposed: true,
        after_rollback: true,
        ..Facts::default()
    };
    let risk = risk(&harmless_but(&[]), &seen);
    assert_eq!(points(&risk, "differences"), Some(15.0), "{risk:?}");
    assert_eq!(
        (risk.score, risk.tier),
        (15.0 + 8.0 + 3.0 + 5.0, Tier::High)
    );
}

/// What is unknown weighs more than what is declared, and the reason names what makes it known.
#[test]
fn what_is_unknown_is_reported_with_the_remedy() {
    let without = |keys: &[&str]| {
        let kept = HARMLESS.into_iter().filter(|(key, _)| !keys.contains(key));
        read(&kept.collect::<Vec<_>>())
    };
    let unclear = harmless_but(&[("contributor", "unknown"), ("human-operator", "jane")]);
    for (provenance, sentence) in [
        (
            without(&["reviewers"]),
            "no review is known; `stamp --event FILE` reads it: +8",
        ),
        (
            without(&["approved-revision"]),
            "no review of the deployed revision is known; `stamp --event FILE` reads it: +8",
        ),
        (
            without(&["tests"]),
            "no test result is known; `stamp --event FILE` reads it: +6",
        ),
        (
            without(&["lines-deleted"]),
            "the number of changed lines is not known; `stamp` counts them: +24",
        ),
        (
            without(&["contributor"]),
            "it is not known who wrote the change; `stamp` reads it from the commits: +5",
        ),
        (
            unclear,
            "the commits do not show who wrote the change; an `Assisted-by` trailer names the AI: +5",
        ),
        (
            read(&[]),
            "no provenance is declared; `stamp` derives it from the commits: +6, at least tier high",
        ),
    ] {
        let reasons = risk(&provenance, &normal()).contributions;
        let reasons: Vec<_> = reasons.into_iter().map(|it| it.reason).collect();
        assert!(
            reasons.iter().any(|it| it == sentence),
            "{sentence}: {reasons:?}"
        );
    }
}

#[test]
fn floors_hold_whatever_the_score() {
    let free = RiskModel {
        points: built_in()
            .risk
            .points
            .keys()
            .map(|factor| (*factor, 0.0))
            .collect(),
        size: vec![countersign_api::policy::Band {
            from: 0,
            points: 0.0,
        }],
        touches: [("migration".to_owned(), 0.0)].into(),
        ..RiskModel::default()
    };
    let tier = |provenance: &Provenance, facts: &Facts| risk_of(provenance, facts, &free).tier;
    let (harmless, normal) = (harmless_but(&[]), normal());
    assert_eq!(tier(&harmless, &normal), Tier::Low);
    assert_eq!(tier(&read(&[]), &normal), Tier::High, "no provenance");
    assert_eq!(
        tier(&harmless_but(&[("image", "other")]), &normal),
        Tier::High,
        "stale"
    );
    assert_eq!(
        tier(&harmless_but(&[("tests", "x")]), &normal),
        Tier::High,
        "malformed"
    );
    assert_eq!(
        tier(&harmless_but(&[("contributor", "ai")]), &normal),
        Tier::High,
        "autonomous"
    );
    assert_eq!(
        tier(&harmless_but(&[("tests", "FAILED")]), &normal),
        Tier::High,
        "tests failed"
    );
    assert_eq!(
        tier(&harmless_but(&[("touches", "Migration")]), &normal),
        Tier::High,
        "migration"
    );
    let critical = Facts {
        criticality: Some("Critical".into()),
        ..Facts::default()
    };
    assert_eq!(tier(&harmless, &critical), Tier::High, "critical service");
}

#[test]
fn forged_low_values_do_not_undercut_a_floor() {
    let forged = [
        ("subsystems", "0"),
        ("lines-added", "0"),
        ("lines-deleted", "0"),
    ];
    for floored in [
        ("tests", "FAILED"),
        ("contributor", "ai"),
        ("touches", "migration"),
        ("image", "another"),
        ("files-changed", "-1"),
    ] {
        let of: Vec<_> = forged.into_iter().chain([floored]).collect();
        assert!(
            risk(&harmless_but(&of), &Facts::default()).tier >= Tier::High,
            "{floored:?}"
        );
    }
    assert!(risk(&read(&[("risk", "low"), ("tier", "low")]), &normal()).tier >= Tier::High);
}

#[test]
fn the_greater_of_two_criticalities_counts() {
    let model = &built_in().risk;
    let key = "countersign.dev/criticality";
    let of = |rollout: &[(&str, &str)], namespace: &[(&str, &str)]| {
        criticality(model, &labels(rollout), &labels(namespace))
    };
    assert_eq!(of(&[], &[("other", "high")]), None);
    assert_eq!(
        of(&[(key, "low")], &[(key, "Critical")]).as_deref(),
        Some("critical")
    );
    assert_eq!(
        of(&[(key, "high")], &[(key, "low")]).as_deref(),
        Some("high")
    );
    assert_eq!(
        of(&[(key, "banana")], &[(key, "low")]).as_deref(),
        Some("banana")
    );
    let two = RiskModel {
        criticality: Criticality {
            label: Some("a,b".into()),
            ..Criticality::default()
        },
        ..RiskModel::default()
    };
    let found = criticality(&two, &labels(&[("a", "low"), ("b", "high")]), &labels(&[]));
    assert_eq!(found.as_deref(), Some("high"));
    let unknown = risk(
        &harmless_but(&[]),
        &Facts {
            criticality: Some("banana".into()),
            ..Facts::default()
        },
    );
    assert_eq!(points(&unknown, "criticality"), Some(3.0));
}

#[test]
fn a_record_holds_every_contribution() {
    let worst = harmless_but(&[
        ("contributor", "unknown"),
        ("touches", "migration,auth"),
        ("tests", "FAILED"),
    ]);
    let facts = Facts {
        differences: [Difference::Image].into(),
        criticality: Some("critical".into()),
        exposed: true,
        after_rollback: true,
        ..Facts::default()
    };
    let risk = risk(&worst, &facts);
    let sum: f64 = risk.contributions.iter().map(|it| it.points).sum();
    assert!(risk.contributions.len() <= 64 && (sum - risk.score).abs() < 1e-9);
    assert!(
        risk.contributions
            .iter()
            .all(|it| it.reason.contains(&format!(": +{}", it.points)))
    );
}

#[test]
fn of_a_declared_and_an_attested_provenance_the_worse_counts_factor_by_factor() {
    let attested = harmless_but(&[("lines-added", "100"), ("touches", "api")]);
    let declared = harmless_but(&[
        ("lines-added", "9"),
        ("touches", "auth"),
        ("tests", "FAILED"),
    ]);
    let both = risk_of_both(&declared, Some(&attested), &normal(), &built_in().risk);
    let turned = risk_of_both(&attested, Some(&declared), &normal(), &built_in().risk);
    assert_eq!(both, turned);
    assert_eq!(points(&both, "size"), Some(13.0), "the attested one");
    assert_eq!(points(&both, "testsFailed"), Some(15.0), "the declared one");
    assert_eq!(points(&both, "touches"), Some(10.0), "both");
    assert_eq!(points(&both, "noReview"), None, "neither");
}

#[test]
fn points_of_one_and_floor_of_the_other_both_count_and_are_reported() {
    let answer = |points, floor, reason: &str| Contribution {
        factor: reason.to_owned(),
        points,
        floor,
        reason: reason.to_owned(),
    };
    let costly = answer(8.0, None, "costly");
    let floored = answer(3.0, Some(Tier::High), "floored");
    let worst = with_numbers(worse(floored.clone(), costly.clone()));
    assert_eq!(worst, with_numbers(worse(costly, floored)));
    assert_eq!((worst.points, worst.floor), (8.0, Some(Tier::High)));
    assert_eq!(worst.reason, "costly and floored: +8, at least tier high");
}

#[test]
fn what_no_key_attests_is_unknown_however_harmless_it_is_declared() {
    let unattested = Provenance::unattested();
    let both = risk_of_both(
        &harmless_but(&[]),
        Some(&unattested),
        &normal(),
        &built_in().risk,
    );
    assert_eq!(both, risk(&unattested, &normal()));
    assert_eq!(points(&both, "unusableProvenance"), Some(6.0));
    assert_eq!(points(&both, "sizeUnknown"), Some(24.0));
    assert!(both.tier >= Tier::High);
    assert!(
        both.contributions[0].reason.contains("no trusted key"),
        "{both:?}"
    );
}
