use super::*;

/// The plan that a policy gives, at version 4.
fn now(demands: &TierDemands, own: &[Step]) -> Plan {
    Plan {
        policies: vec!["payments@4".into()],
        ..plan(demands, own)
    }
}

#[test]
fn a_raised_tier_inserts_its_steps_above_the_present_weight() {
    let named = requiring_people();
    let medium = plan_for(Tier::Medium, &[], &[], &named);
    let high = plan_for(Tier::High, &[], &[], &named);
    let plan = tightened(&medium, 2, &high).unwrap();
    assert_eq!(weights_of(&plan.steps), [1, 5, 10, 20, 25, 50]);
    assert_eq!(plan.steps[..2], medium.steps[..2]);
    assert_eq!(
        plan.steps[2],
        Step {
            sign_off: vec![people(1, &[])],
            ..high.steps[3].clone()
        }
    );
    assert_eq!(plan.steps[3], medium.steps[2]);
    assert_eq!(plan.strictness, high.strictness);
    assert_eq!(
        plan.tightened,
        [
            "step 3: weight 10 inserted under way by built-in",
            "step 5: weight 25 inserted under way by built-in",
            "step 6: bake 10m raised to 15m, minRequests 20 raised to 50 under way by built-in",
            "evidence: judged more strictly under way by built-in",
        ]
    );
    assert_eq!(tightened(&plan, 2, &high), None);
}

#[test]
fn each_floor_that_is_raised_takes_effect_on_the_steps_to_come() {
    let own = [step(5, 10), step(30, 10), step(50, 10)];
    let before = demands(5, 25, 50, 10, 0);
    let in_force = plan(&before, &own);
    let with = |change: fn(&mut TierDemands)| {
        let mut after = before.clone();
        change(&mut after);
        tightened(&in_force, 1, &now(&after, &own)).unwrap()
    };
    let raised = |steps: &[Step]| [&[step(5, 10)], steps].concat();

    let longer = with(|it| it.min_bake = Some(Duration::minutes(20)));
    assert_eq!(longer.steps, raised(&[step(30, 20), step(50, 20)]));
    let more = with(|it| it.min_requests = Some(7));
    assert_eq!(
        more.steps,
        raised(&[with_requests(30, 10, 7), with_requests(50, 10, 7)])
    );
    let smaller = with(|it| it.max_increase = Some(20));
    assert_eq!(
        smaller.steps,
        raised(&[step(25, 10), step(30, 10), step(50, 10)])
    );
    let larger = with(|it| it.min_final_weight = Some(60));
    assert_eq!(
        larger.steps,
        raised(&[step(30, 10), step(50, 10), step(75, 10)])
    );
    let signed_first = with(|it| it.sign_off = Some(vec![people(1, &["a"])]));
    assert_eq!(
        signed_first.steps,
        raised(&[signed(30, 10, "a"), step(50, 10)])
    );
    let signed_last = with(|it| it.promotion_sign_off = Some(vec![people(2, &[])]));
    assert_eq!(
        (signed_last.steps, signed_last.promotion_sign_off),
        (in_force.steps.clone(), vec![people(2, &[])])
    );
    assert_eq!(
        signed_last.tightened,
        ["promotion: sign-off added under way by payments@4"]
    );
    assert_eq!(signed_last.policies, ["payments@3", "payments@4"]);
    let longer_wait = with(|it| it.wait_at_most = Some(Duration::minutes(5)));
    assert_eq!(longer_wait.strictness.wait_at_most, Duration::minutes(5));
}

#[test]
fn a_smaller_first_weight_changes_nothing_once_the_first_step_is_taken() {
    let own = [step(5, 10), step(30, 10), step(50, 10)];
    let in_force = plan(&demands(5, 25, 50, 10, 0), &own);
    let current = now(&demands(1, 25, 50, 10, 0), &own);
    assert_eq!(tightened(&in_force, 1, &current), None);
    assert_eq!(
        weights_of(&tightened(&in_force, 0, &current).unwrap().steps),
        [1, 5, 30, 50]
    );
}

#[test]
fn a_sign_off_that_came_too_late_for_its_step_is_required_before_promotion() {
    let in_force = plan(&demands(50, 50, 50, 10, 0), &[step(50, 10)]);
    let after = TierDemands {
        sign_off: Some(vec![people(1, &["a"])]),
        ..demands(50, 50, 50, 10, 0)
    };
    let plan = tightened(&in_force, 1, &now(&after, &[step(50, 10)])).unwrap();
    assert_eq!(
        (plan.steps, plan.promotion_sign_off),
        (in_force.steps, vec![people(1, &["a"])])
    );
}

#[test]
fn the_sign_off_of_a_step_comes_before_the_steps_that_are_inserted_before_it() {
    let own = [step(5, 10), signed(50, 10, "a")];
    let in_force = plan(&demands(5, 50, 50, 10, 0), &own);
    let plan = tightened(&in_force, 1, &now(&demands(5, 20, 50, 10, 0), &own)).unwrap();
    assert_eq!(
        plan.steps,
        [step(5, 10), signed(25, 10, "a"), step(45, 10), step(50, 10)]
    );
}

#[test]
fn steps_of_one_weight_are_met_one_by_one() {
    let demands = demands(1, 98, 1, 0, 0);
    let in_force = plan(&demands, &[step(1, 5), step(1, 20), step(9, 5)]);
    let longer = now(&demands, &[step(1, 5), step(1, 30), step(9, 2), step(9, 4)]);
    let plan = tightened(&in_force, 1, &longer).unwrap();
    assert_eq!(plan.steps, [step(1, 5), step(1, 30), step(9, 6)]);
    assert_eq!(
        tightened(&in_force, 2, &longer).unwrap().steps,
        [step(1, 5), step(1, 20), step(9, 6)]
    );
}

#[test]
fn many_edits_of_policies_neither_outgrow_the_schema_nor_lose_the_latest_policy() {
    let mut plan = plan(&demands(99, 99, 1, 0, 0), &[step(1, 1)]);
    for version in 1_i32..=300 {
        let own: Vec<_> = (0..50).map(|n| step(1 + version % 99, 1 + n)).collect();
        let mut now = now(
            &demands(100, 100, 1, u64::try_from(version).unwrap(), 0),
            &own,
        );
        now.policies = vec![format!("payments@{version}")];
        plan = tightened(&plan, 0, &now).unwrap_or(plan);
    }
    assert_eq!(weights_of(&plan.steps), (1..=99).collect::<Vec<_>>());
    assert_eq!(plan.tightened.len(), 200);
    assert_eq!(
        (plan.policies.len(), plan.policies.last().unwrap().as_str()),
        (64, "payments@300")
    );
}

proptest! {
    #[test]
    fn law_7_a_policy_that_changes_under_way_never_loosens_the_plan(
        (before, after) in (some_demands(), some_demands()),
        (own, edited) in (some_steps(1..12), some_steps(0..12)),
        (taken, later) in (0_usize..12, 0_usize..12),
        same in any::<bool>(),
    ) {
        let in_force = plan(&before, &own);
        let current = plan(&after, if same { &own } else { &edited });
        let taken = taken.min(in_force.steps.len());
        let plan = tightened(&in_force, taken, &current).unwrap_or_else(|| in_force.clone());

        prop_assert_eq!(&plan.steps[..taken], &in_force.steps[..taken], "taken steps are untouched");
        let weights = weights_of(&plan.steps);
        prop_assert!(weights.is_sorted() && weights.len() <= 200, "{weights:?}");
        let present = weights[..taken].last().copied().unwrap_or(0);
        takes_as_much_care(&plan.steps[taken..], &in_force.steps[taken..], 0)?;
        let as_strict = |from: i32, ahead: &[Step]| (present..100).all(|to| {
            let (ours, theirs) = (care(ahead, from, to), care(&current.steps, from, to));
            ours.0 >= theirs.0 && ours.1 >= theirs.1
        });
        prop_assert!(as_strict(present, &plan.steps[taken..]) || as_strict(0, &plan.steps), "{plan:?}");
        for to in present..100 {
            let (mut ours, theirs) = (care(&plan.steps, 0, to).2, care(&current.steps, 0, to).2);
            if weights.last() <= Some(&to) {
                ours.extend(plan.promotion_sign_off.clone());
            }
            prop_assert!(includes_all(&ours, &theirs), "weight {to} is passed with {ours:?}, not {theirs:?}");
        }
        prop_assert!(includes_all(&plan.promotion_sign_off, &in_force.promotion_sign_off));
        prop_assert!(includes_all(&plan.promotion_sign_off, &current.promotion_sign_off));

        for step in taken..=(taken + later).min(plan.steps.len()) {
            prop_assert_eq!(tightened(&plan, step, &current), None, "it is tightened once, not again at step {}", step);
        }
    }

    #[test]
    fn increases_to_come_are_no_larger_than_in_the_current_plan(
        (before, after) in (some_demands(), some_demands()),
        own in some_steps(1..12),
        taken in 0_usize..12,
    ) {
        let in_force = plan(&before, &own);
        let current = plan(&after, &own);
        let taken = taken.min(in_force.steps.len());
        let plan = tightened(&in_force, taken, &current).unwrap_or_else(|| in_force.clone());
        let mut ahead = weights_of(&plan.steps[taken.saturating_sub(1)..]);
        ahead.retain(|it| *it <= weights_of(&current.steps)[current.steps.len() - 1]);
        let first = current.steps[0].weight;
        if taken == 0 {
            prop_assert!(plan.steps[0].weight <= first);
        }
        let ahead: Vec<_> = ahead.into_iter().map(|it| it.max(first)).collect();
        prop_assert!(largest_increase(&ahead) <= largest_increase(&weights_of(&current.steps)).max(0));
    }

    #[test]
    fn law_7_loosening_a_policy_under_way_changes_nothing(
        (looser, stricter) in rising_demands(),
        own in some_steps(1..20),
        taken in 0_usize..30,
    ) {
        let in_force = plan(&stricter, &own);
        prop_assert_eq!(tightened(&in_force, taken, &plan(&looser, &own)), None);
        prop_assert_eq!(tightened(&in_force, taken, &in_force), None);
    }
}
