#![allow(
    clippy::float_cmp,
    reason = "these numbers have at most two decimals and are rounded to them"
)]

use std::collections::{BTreeMap, BTreeSet};

use countersign_api::plan::Tier;
use countersign_api::policy::{Criticality, Difference, RiskModel};
use countersign_api::run::Contribution;
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
const HARMLESS: [(&str, &str); 9] = [
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
    let docs = include_str!("../../../../docs/risk.md");
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
    let docs = include_str!("../../../../docs/risk.md");
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
    let floors = model.floors.len() + model.touches_floor.len();
    assert_eq!(floors, 6, "docs/risk.md lists all floors");
}

#[test]
fn each_factor_adds_its_points_and_says_why() {
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
            &[("touches", "auth,api,payments,unheard-of")],
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
    assert_eq!(points(&risk, "differences"), Some(12.0), "{risk:?}");
    assert_eq!(
        (risk.score, risk.tier),
        (12.0 + 8.0 + 3.0 + 5.0, Tier::High)
    );
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
fn points_of_one_and_floor_of_the_other_both_count_and_are_told() {
    let answer = |points, floor, reason: &str| Contribution {
        factor: reason.to_owned(),
        points,
        floor,
        reason: reason.to_owned(),
    };
    let costly = answer(8.0, None, "costly");
    let floored = answer(3.0, Some(Tier::High), "floored");
    let told = with_numbers(worse(floored.clone(), costly.clone()));
    assert_eq!(told, with_numbers(worse(costly, floored)));
    assert_eq!((told.points, told.floor), (8.0, Some(Tier::High)));
    assert_eq!(told.reason, "costly and floored: +8, at least tier high");
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

// --- Law 7 -----------------------------------------------------------------------------------

fn people() -> impl Strategy<Value = Vec<Identity>> {
    subsequence(vec!["jane", "bob", "carol", "claude", "x[bot]"], 0..3)
        .prop_map(|names| names.into_iter().map(Identity::of).collect())
}

/// Declared provenance of every shape.
fn declared() -> impl Strategy<Value = Provenance> {
    let contributors = [
        Contributor::Human,
        Contributor::Ai,
        Contributor::Mixed,
        Contributor::Unknown,
    ];
    let results = [TestResult::Passed, TestResult::Warned, TestResult::Failed];
    let revision = || of(select(["r1", "r2"].as_slice()).prop_map(ToOwned::to_owned));
    (
        (
            of(select(contributors.to_vec())),
            of(0.0..=100.0),
            any::<bool>(),
        ),
        (people(), people(), people()),
        (revision(), revision(), of(select(results.to_vec()))),
        (of(0_u32..3000), of(0_u32..9)),
        subsequence(vec!["auth", "api", "migration", "other", "none"], 0..4),
    )
        .prop_map(
            |((contributor, ai_share, agent), people, last, (lines, subsystems), touches)| {
                let (human_operators, authors, reviewers) = people;
                let (approved_revision, revision, tests) = last;
                let agents = if agent {
                    vec![Agent {
                        tool: "Claude".into(),
                        model: None,
                    }]
                } else {
                    vec![]
                };
                Provenance {
                    state: State::Declared,
                    contributor,
                    ai_share,
                    agents,
                    human_operators,
                    authors,
                    reviewers,
                    approved_revision,
                    revision,
                    tests,
                    lines,
                    subsystems,
                    touches: touches.into_iter().map(ToOwned::to_owned).collect(),
                    ..Provenance::default()
                }
            },
        )
}

fn facts() -> impl Strategy<Value = Facts> {
    let kinds: Vec<_> = built_in().risk.differences.keys().copied().collect();
    let levels = ["low", "normal", "high", "critical", "gold", "banana"];
    (
        subsequence(kinds, 0..5),
        of(select(levels.to_vec())),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(differences, criticality, exposed, after_rollback)| Facts {
                differences: differences.into_iter().collect(),
                criticality: criticality.map(ToOwned::to_owned),
                exposed,
                after_rollback,
                records_unknown: false,
            },
        )
}

/// One input made riskier, in each way there is; `by` says how far.
fn raised(provenance: &Provenance, by: u32) -> Vec<(&'static str, Provenance)> {
    let mut all = Vec::new();
    let mut push = |what: &'static str, change: &dyn Fn(&mut Provenance)| {
        let mut riskier = provenance.clone();
        change(&mut riskier);
        all.push((what, riskier));
    };
    push("more lines", &|it| {
        it.lines = it.lines.map(|lines| lines.saturating_add(by));
    });
    push("size hidden", &|it| it.lines = None);
    push("more subsystems", &|it| {
        it.subsystems = Some(it.subsystems.unwrap_or(0).saturating_add(by));
    });
    push("a larger share by AI", &|it| {
        it.ai_share = it.ai_share.map(|share| (share + f64::from(by)).min(100.0));
    });
    push("contributor hidden", &|it| it.contributor = None);
    push("contributor unknown", &|it| {
        it.contributor = Some(Contributor::Unknown);
    });
    if provenance.contributor == Some(Contributor::Human) {
        push("by an AI", &|it| it.contributor = Some(Contributor::Ai));
        push("also by an AI", &|it| {
            it.contributor = Some(Contributor::Mixed);
        });
    }
    if provenance.contributor == Some(Contributor::Ai) {
        push("share hidden", &|it| it.ai_share = None);
    }
    push("operator hidden", &|it| it.human_operators.clear());
    push("authors hidden", &|it| it.authors.clear());
    push("reviewers hidden", &|it| it.reviewers.clear());
    push("one reviewer fewer", &|it| drop(it.reviewers.pop()));
    push("review hidden", &|it| it.approved_revision = None);
    push("revision hidden", &|it| it.revision = None);
    push("another revision reviewed", &|it| {
        it.approved_revision = it.approved_revision.as_ref().map(|_| "other".to_owned());
    });
    // A first person among robots is one who answers for the change, so that one may lower it.
    if provenance
        .authors
        .iter()
        .any(|author| !author.is_agent(&provenance.agents))
    {
        push("a reviewer wrote it", &|it| {
            it.authors.extend(it.reviewers.clone());
        });
    }
    if provenance.tests != Some(TestResult::Failed) {
        push("tests hidden", &|it| it.tests = None);
        if provenance.tests.is_some() {
            push("tests warned", &|it| it.tests = Some(TestResult::Warned));
        }
    }
    push("tests failed", &|it| it.tests = Some(TestResult::Failed));
    for area in ["auth", "migration", "unheard-of"] {
        push("one more area", &|it| _ = it.touches.insert(area.into()));
    }
    push("garbage in it", &|it| it.state = State::Malformed);
    all
}

fn raised_facts(facts: &Facts, model: &RiskModel) -> Vec<(&'static str, Facts)> {
    let mut all = vec![
        (
            "exposed",
            Facts {
                exposed: true,
                ..facts.clone()
            },
        ),
        (
            "after a rollback",
            Facts {
                after_rollback: true,
                ..facts.clone()
            },
        ),
    ];
    for kind in built_in().risk.differences.keys() {
        let mut riskier = facts.clone();
        riskier.differences.insert(*kind);
        all.push(("one more difference", riskier));
    }
    let scale = Scale(policy::complete(model));
    let weight = |value: Option<&str>| {
        let otherwise = scale.0.criticality.otherwise.unwrap_or_default();
        value.map_or(otherwise, |value| scale.points_of_criticality(value))
    };
    for level in ["low", "normal", "high", "critical", "gold", "banana"] {
        if weight(Some(level)) > weight(facts.criticality.as_deref()) {
            all.push((
                "more critical",
                Facts {
                    criticality: Some(level.into()),
                    ..facts.clone()
                },
            ));
        }
    }
    all.push((
        "critical",
        Facts {
            criticality: Some(CRITICAL.into()),
            ..facts.clone()
        },
    ));
    all
}

/// The least that a change declared as written by an AI can be said to hide.
fn hidden(provenance: &Provenance, state: State) -> Provenance {
    Provenance {
        state,
        human_operators: if state == State::Stale {
            provenance.human_operators.clone()
        } else {
            vec![]
        },
        ..Provenance::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn law_7_no_riskier_input_lowers_score_or_tier_under_any_policy(
        provenance in declared(), facts in facts(), model in arbitrary::risk_model(), by in 0_u32..2000,
    ) {
        let before = risk_of(&provenance, &facts, &model);
        for (what, riskier) in raised(&provenance, by) {
            let after = risk_of(&riskier, &facts, &model);
            prop_assert!(after.score >= before.score, "{}: {:?} {:?}", what, before, after);
            prop_assert!(after.tier >= before.tier, "{}: {:?} {:?}", what, before, after);
        }
        for (what, riskier) in raised_facts(&facts, &model) {
            let after = risk_of(&provenance, &riskier, &model);
            prop_assert!(after.score >= before.score, "{}: {:?} {:?}", what, before, after);
            prop_assert!(after.tier >= before.tier, "{}: {:?} {:?}", what, before, after);
        }
    }

    #[test]
    fn law_7_what_is_declared_never_lowers_the_risk_of_what_is_attested(
        attested in prop_oneof![declared(), Just(Provenance::unattested())],
        declared in declared(), facts in facts(), model in arbitrary::risk_model(), by in 0_u32..2000,
    ) {
        let both = |declared: &Provenance| risk_of_both(declared, Some(&attested), &facts, &model);
        let before = both(&declared);
        for alone in [risk_of(&attested, &facts, &model), risk_of(&declared, &facts, &model)] {
            prop_assert!(before.score >= alone.score && before.tier >= alone.tier, "{:?} {:?}", alone, before);
        }
        for (what, riskier) in raised(&declared, by) {
            let after = both(&riskier);
            prop_assert!(after.score >= before.score && after.tier >= before.tier, "{}: {:?} {:?}", what, before, after);
        }
    }

    #[test]
    fn law_7_hiding_the_provenance_never_lowers_the_tier_of_the_built_in_policy(
        provenance in declared(), facts in facts(),
    ) {
        let declared = risk(&provenance, &facts);
        for state in [State::Absent, State::Stale] {
            let without = risk(&hidden(&provenance, state), &facts);
            prop_assert!(without.tier >= declared.tier, "{}: {:?} {:?}", state, declared, without);
        }
    }

    #[test]
    fn law_7_no_provenance_scores_at_least_what_any_ai_change_declares_without_failed_tests(
        provenance in declared(), facts in facts(), ai_share in of(0.0..=100.0),
    ) {
        // Authorship, autonomy, size, review and tests; areas and subsystems are named in neither.
        let ai = Provenance {
            contributor: Some(Contributor::Ai),
            ai_share,
            tests: provenance.tests.filter(|tests| *tests != TestResult::Failed),
            touches: BTreeSet::new(),
            subsystems: None,
            ..provenance
        };
        let declared = risk(&ai, &facts);
        for state in [State::Absent, State::Stale] {
            let without = risk(&hidden(&ai, state), &facts);
            prop_assert!(without.score >= declared.score, "{}: {:?} {:?}", state, declared, without);
        }
    }

    #[test]
    fn law_7_one_more_policy_never_lowers_score_or_tier(
        provenance in declared(), facts in facts(),
        a in arbitrary::policy("a"), b in arbitrary::policy("b"),
        rollout in select(["low", "critical", "gold"].as_slice()),
    ) {
        // What a policy leaves out is no demand of it, so here it names all (docs/policy.md).
        let mut a = a;
        a.spec.risk = policy::complete(&a.spec.risk);
        let scored = |policies: &[NamedPolicy]| {
            let model = policy::effective(policies).risk;
            let rollout = labels(&[("a", rollout), ("countersign.dev/criticality", rollout)]);
            let criticality = criticality(&model, &rollout, &labels(&[("b", "high")]));
            risk_of(&provenance, &Facts { criticality, ..facts.clone() }, &model)
        };
        let one = scored(std::slice::from_ref(&a));
        let two = scored(&[a, b]);
        prop_assert!(two.score >= one.score && two.tier >= one.tier, "{:?} {:?}", one, two);
    }
}
