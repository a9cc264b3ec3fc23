use super::*;

#[test]
fn the_built_in_tiers_have_the_plans_that_the_documentation_names() {
    let built_in = policy::effective(&[]);
    for (tier, weights, minutes) in [
        (Tier::Low, vec![5, 25, 50], 5),
        (Tier::Medium, vec![1, 5, 20, 50], 10),
        (Tier::High, vec![1, 2, 5, 10, 25, 50], 15),
        (Tier::Critical, vec![1, 1, 2, 5, 10, 20, 35, 50], 20),
    ] {
        let plan = plan_for(tier, &[], &[], &built_in);
        assert_eq!(weights_of(&plan.steps), weights, "{tier}");
        assert!(
            plan.steps
                .iter()
                .all(|it| it.bake == Duration::minutes(minutes)),
            "{tier}"
        );
        assert!(
            plan.steps.iter().all(|it| it.sign_off.is_empty()),
            "{tier}: it names nobody who could sign"
        );
        assert_eq!(plan.promotion_sign_off, [], "{tier}");
        assert_eq!(plan.tightened, Vec::<String>::new(), "{tier}");
        assert_eq!(plan.policies, ["built-in"]);
    }
}

#[test]
fn a_policy_that_names_people_requires_their_sign_off_before_the_first_step_and_before_promotion() {
    let named = requiring_people();
    for (tier, first, promotion) in [
        (Tier::Low, vec![], vec![]),
        (Tier::Medium, vec![], vec![]),
        (Tier::High, vec![people(1, &[])], vec![]),
        (
            Tier::Critical,
            vec![people(1, &[])],
            vec![people(1, &["senior"]), people(2, &[])],
        ),
    ] {
        let plan = plan_for(tier, &[], &[], &named);
        assert_eq!(plan.steps[0].sign_off, first, "{tier}");
        assert!(
            plan.steps.iter().skip(1).all(|it| it.sign_off.is_empty()),
            "{tier}"
        );
        let found: BTreeSet<_> = plan.promotion_sign_off.into_iter().collect();
        assert_eq!(found, promotion.into_iter().collect(), "{tier}");
    }
}

#[test]
fn the_owner_requires_people_before_promotion_beside_the_policy() {
    let own = [people(1, &["product"])];
    let none = demands(50, 50, 50, 10, 0);
    let alone = plan_for(Tier::High, &[], &own, &alike(&none));
    assert_eq!(alone.promotion_sign_off, own);
    assert_eq!(alone.tightened, Vec::<String>::new());

    let seniors = TierDemands {
        promotion_sign_off: Some(vec![people(1, &["senior"])]),
        ..none.clone()
    };
    let both = plan_for(Tier::High, &[], &own, &alike(&seniors));
    assert_eq!(
        both.promotion_sign_off,
        [people(1, &["product"]), people(1, &["senior"])]
    );
    assert_eq!(
        both.tightened,
        ["promotion: sign-off is required by tier high (payments@3): added"]
    );

    let more = TierDemands {
        promotion_sign_off: Some(vec![people(2, &["product"])]),
        ..none
    };
    let included = plan_for(Tier::High, &[], &own, &alike(&more));
    assert_eq!(included.promotion_sign_off, [people(2, &["product"])]);
}

#[test]
fn the_built_in_tiers_are_ever_stricter_and_judge_as_the_policy_states() {
    let built_in = policy::effective(&[]);
    let plans = Tier::ALL.map(|tier| plan_for(tier, &[], &[], &built_in));
    for pair in plans.windows(2) {
        takes_as_much_care(&pair[1].steps, &pair[0].steps, 0).unwrap();
        assert_eq!(
            stricter(pair[0].strictness, pair[1].strictness),
            pair[1].strictness
        );
    }
    let high = plans[2].strictness;
    let demands = &built_in.tiers.high;
    assert_eq!(Some(high.max_false_rollback), demands.max_false_rollback);
    assert_eq!(Some(high.max_false_promotion), demands.max_false_promotion);
    assert_eq!(Some(high.tolerated_ratio), demands.tolerated_ratio);
    assert_eq!(
        Some(high.tolerated_difference),
        demands.tolerated_difference
    );
    assert_eq!(Some(high.margin_ratio), demands.margin_ratio);
    assert_eq!(Some(high.margin_difference), demands.margin_difference);
    assert_eq!(Some(high.on_scarce_evidence), demands.on_scarce_evidence);
    assert_eq!(Some(high.wait_at_most), demands.wait_at_most);
}

#[test]
fn own_steps_that_are_strict_enough_are_left_alone() {
    let own = [
        with_requests(2, 30, 500),
        signed(20, 30, "a"),
        with_requests(40, 30, 500),
    ];
    let plan = plan(&demands(5, 25, 40, 10, 0), &own);
    assert_eq!(plan.steps, own);
    assert_eq!(plan.tightened, Vec::<String>::new());
}

#[test]
fn each_tightening_of_own_steps_is_a_sentence_that_names_step_floor_and_policy() {
    let floor = demands(5, 25, 50, 10, 50);
    for (own, weights, sentences) in [
        (
            vec![with_requests(30, 10, 50), with_requests(50, 10, 50)],
            vec![5, 30, 50],
            vec![
                "step 1: weight 30 is above maxFirstWeight 5 of tier high (payments@3): step of weight 5 inserted before it",
            ],
        ),
        (
            vec![with_requests(50, 10, 50)],
            vec![5, 30, 50],
            vec![
                "step 1: weight 50 is above maxFirstWeight 5 and maxIncrease 25 of tier high (payments@3): steps of weight 5, 30 inserted before it",
            ],
        ),
        (
            vec![
                with_requests(5, 10, 50),
                Step {
                    min_requests: 50,
                    ..signed(50, 10, "a")
                },
            ],
            vec![5, 30, 50],
            vec![
                "step 2: weight 50 is 45 more than the step before, above maxIncrease 25 of tier high (payments@3): step of weight 30 inserted before it, after its sign-off",
            ],
        ),
        (
            vec![with_requests(5, 10, 50)],
            vec![5, 30, 55],
            vec![
                "step 1: weight 5, the last, is below minFinalWeight 50 of tier high (payments@3): steps of weight 30, 55 added after it",
            ],
        ),
        (
            vec![
                with_requests(5, 1, 7),
                with_requests(25, 10, 7),
                with_requests(50, 0, 50),
            ],
            vec![5, 25, 50],
            vec![
                "step 1: bake 1m is below minBake 10m and minRequests 7 is below minRequests 50 of tier high (payments@3): raised",
                "step 2: minRequests 7 is below minRequests 50 of tier high (payments@3): raised",
                "step 3: bake 0s is below minBake 10m of tier high (payments@3): raised",
            ],
        ),
    ] {
        let plan = plan(&floor, &own);
        assert_eq!(weights_of(&plan.steps), weights);
        assert_eq!(plan.tightened, sentences);
        assert!(plan.steps.iter().all(|it| *it
            == Step {
                sign_off: it.sign_off.clone(),
                ..with_requests(it.weight, 10, 50)
            }));
    }
}

#[test]
fn the_sign_off_of_a_step_is_required_before_the_steps_that_are_inserted_before_it() {
    let floor = TierDemands {
        sign_off: Some(vec![people(1, &["b"])]),
        ..demands(5, 25, 50, 10, 0)
    };
    let plan = plan(&floor, &[signed(10, 10, "a"), signed(50, 10, "c")]);
    assert_eq!(weights_of(&plan.steps), [5, 10, 35, 50]);
    let given: Vec<_> = plan.steps.iter().map(|it| it.sign_off.clone()).collect();
    let first = vec![people(1, &["a"]), people(1, &["b"])];
    assert_eq!(given, [first, vec![], vec![people(1, &["c"])], vec![]]);
    assert_eq!(
        plan.tightened.last().unwrap(),
        "step 1: sign-off is required by tier high (payments@3): added"
    );
}

#[test]
fn a_sign_off_that_a_stricter_one_includes_is_not_required_beside_it() {
    let floor = TierDemands {
        sign_off: Some(vec![people(2, &["a"])]),
        ..demands(99, 99, 1, 0, 0)
    };
    let own = Step {
        sign_off: vec![people(1, &[])],
        ..step(50, 10)
    };
    assert_eq!(plan(&floor, &[own]).steps[0].sign_off, [people(2, &["a"])]);
    let own = Step {
        sign_off: vec![people(3, &["a"])],
        ..step(50, 10)
    };
    assert_eq!(plan(&floor, std::slice::from_ref(&own)).steps, [own]);
}

#[test]
fn law_7_steps_of_a_lower_tier_are_added_to_those_of_a_higher_one_that_require_less() {
    let tier = |steps: &[Step], minutes| TierDemands {
        steps: steps.to_vec(),
        ..demands(50, 50, 50, minutes, 0)
    };
    let low = tier(&[step(5, 10), signed(25, 20, "a"), step(50, 20)], 5);
    let high = tier(&[step(10, 15), step(50, 15)], 15);
    let tiers = Tiers {
        low: low.clone(),
        medium: low,
        high,
        ..Tiers::default()
    };
    let plan = plan_for(Tier::High, &[], &[], &effective(tiers));
    assert_eq!(
        plan.steps,
        [step(5, 15), signed(10, 15, "a"), step(25, 20), step(50, 20)]
    );
    let by = "below tier high (payments@3), as a lower tier requires it";
    assert_eq!(
        plan.tightened,
        [
            format!("step 1: weight 5 inserted {by}"),
            format!("step 2: sign-off added {by}"),
            format!("step 3: weight 25 inserted {by}"),
            format!("step 4: bake 15m raised to 20m {by}"),
        ]
    );
}

#[test]
fn a_sentence_names_no_more_than_three_policies() {
    let sources: Vec<String> = (1..=5).map(|n| format!("p{n}@1")).collect();
    assert_eq!(named(&sources), "p1@1, p2@1, p3@1 and 2 more");
    assert_eq!(named(&sources[..3]), "p1@1, p2@1, p3@1");
}

#[test]
fn no_steps_at_all_and_floors_of_nonsense_still_give_a_plan() {
    let mut floor = demands(0, -5, 400, 10, 0);
    floor.steps.clear();
    let plan = plan(&floor, &[]);
    assert_eq!(weights_of(&plan.steps), (1..=99).collect::<Vec<_>>());
    let absent = TierDemands::default();
    assert_eq!(
        weights_of(&super::plan(&absent, &[step(i32::MAX, 1)]).steps).last(),
        Some(&i32::MAX)
    );
}

#[test]
fn steps_of_merged_policies_never_outgrow_the_schema() {
    let mut floor = demands(100, 1, 99, 0, 0);
    floor.steps = (0..900)
        .map(|n| Step {
            sign_off: vec![people(1 + n % 3, &[])],
            ..with_requests(1 + n / 10, 1, 1_000_000_000)
        })
        .collect();
    let plan = plan(&floor, &[]);
    assert_eq!(weights_of(&plan.steps), (1..=99).collect::<Vec<_>>());
    assert_eq!(
        plan.steps[0],
        Step {
            sign_off: vec![people(3, &[])],
            ..with_requests(1, 10, 1_000_000_000)
        }
    );
    floor.steps.truncate(100);
    let steps = super::plan(&floor, &[]).steps;
    assert_eq!(
        (steps.len(), weights_of(&steps)[99]),
        (100 + 89, 10),
        "kept as they are"
    );
}

proptest! {
    #[test]
    fn every_floor_holds_whatever_the_own_steps(floor in some_demands(), own in some_steps(0..50)) {
        let plan = plan(&floor, &own);
        demands_hold(&plan, &floor)?;
        let given = if own.is_empty() { &floor.steps } else { &own };
        takes_as_much_care(&plan.steps, given, 0)?;
        for step in given {
            let kept = plan.steps.iter().any(|it| it.weight == step.weight && it.bake >= step.bake && it.min_requests >= step.min_requests);
            prop_assert!(kept, "the step of weight {} is lost", step.weight);
        }
    }

    #[test]
    fn tightening_is_idempotent(floor in some_demands(), own in some_steps(1..50)) {
        let first = plan(&floor, &own);
        let second = plan(&floor, &first.steps);
        prop_assert_eq!(first.steps, second.steps);
        prop_assert_eq!(second.tightened, Vec::<String>::new());
    }

    #[test]
    fn law_7_an_owner_s_demand_before_promotion_only_adds(floor in some_demands(), own in some_steps(0..20), required in some_people()) {
        let (without, with) = (plan(&floor, &own), plan_for(Tier::High, &own, &required, &alike(&floor)));
        prop_assert_eq!(&with.steps, &without.steps);
        prop_assert!(includes_all(&with.promotion_sign_off, &required));
        prop_assert!(includes_all(&with.promotion_sign_off, &without.promotion_sign_off));
        // Taken out under way, it holds all the same; brought in under way, it takes effect.
        for taken in 0..=without.steps.len() {
            let kept = tightened(&with, taken, &without).unwrap_or_else(|| with.clone());
            prop_assert!(includes_all(&kept.promotion_sign_off, &required));
            let added = tightened(&without, taken, &with).unwrap_or_else(|| without.clone());
            prop_assert!(includes_all(&added.promotion_sign_off, &required));
        }
    }

    #[test]
    fn law_7_a_higher_tier_never_takes_less_care((low, high) in rising_demands(), own in some_steps(0..20)) {
        let tiers = Tiers { low: low.clone(), medium: low, high: high.clone(), critical: high.clone() };
        let effective = effective(tiers);
        demands_hold(&plan_for(Tier::High, &own, &[], &effective), &high)?;
        let (low, high) = (plan_for(Tier::Low, &own, &[], &effective), plan_for(Tier::High, &own, &[], &effective));
        takes_as_much_care(&high.steps, &low.steps, 0)?;
        prop_assert!(high.steps[0].weight <= low.steps[0].weight);
        prop_assert!(includes_all(&high.promotion_sign_off, &low.promotion_sign_off));
        for moment in moments(&[&low.steps, &high.steps]) {
            prop_assert!(at(&high.steps, (moment.0, 100)).0 <= at(&low.steps, (moment.0, 100)).0);
        }
    }
}
