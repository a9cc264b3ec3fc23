use super::*;

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
        any::<bool>(),
    )
        .prop_map(
            |(differences, criticality, exposed, after_rollback, known)| Facts {
                manifest_only: known && differences.iter().all(|it| it.is_of_manifest()),
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
    for area in ["auth", "migration", "no-such-area"] {
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
        riskier.manifest_only &= kind.is_of_manifest();
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
