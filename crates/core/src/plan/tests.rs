use std::collections::BTreeSet;
use std::time::Duration as StdDuration;

use countersign_api::Duration;
use countersign_api::plan::{SignOffDemand, Step, Tier};
use countersign_api::policy::{OnScarceEvidence, RiskModel, TierDemands, Tiers};
use countersign_api::rollout::{Plan, Strictness};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use crate::plan::floors::named;
use crate::plan::plan_for;
use crate::plan::steps::add_demands;
use crate::plan::tighten::{stricter, tightened};
use crate::policy::steps::strictest_steps;
use crate::policy::{self, Effective, sign_off_demand};

// --- Making ----------------------------------------------------------------------------------

fn step(weight: i32, minutes: u64) -> Step {
    Step {
        weight,
        bake: Duration::minutes(minutes),
        ..Step::default()
    }
}

fn asking(weight: i32, minutes: u64, min_requests: i64) -> Step {
    Step {
        min_requests,
        ..step(weight, minutes)
    }
}

fn signed(weight: i32, minutes: u64, group: &str) -> Step {
    Step {
        sign_off: vec![people(1, &[group])],
        ..step(weight, minutes)
    }
}

fn people(count: i32, groups: &[&str]) -> SignOffDemand {
    SignOffDemand {
        count,
        groups: groups.iter().map(ToString::to_string).collect(),
    }
}

fn weights_of(steps: &[Step]) -> Vec<i32> {
    steps.iter().map(|step| step.weight).collect()
}

/// Policies in which every tier demands the same.
fn alike(demands: &TierDemands) -> Effective {
    let tier = || demands.clone();
    effective(Tiers {
        low: tier(),
        medium: tier(),
        high: tier(),
        critical: tier(),
    })
}

fn effective(tiers: Tiers) -> Effective {
    Effective {
        risk: RiskModel::default(),
        tiers,
        checks: Vec::new(),
        interval: None,
        sources: vec!["payments@3".into()],
        versions: Vec::new(),
        ..crate::policy::effective(&[])
    }
}

fn demands(first: i32, increase: i32, last: i32, minutes: u64, requests: i64) -> TierDemands {
    TierDemands {
        steps: vec![step(1, 10), step(50, 10)],
        max_first_weight: Some(first),
        max_increase: Some(increase),
        min_final_weight: Some(last),
        min_bake: Some(Duration::minutes(minutes)),
        min_requests: Some(requests),
        sign_off: Some(Vec::new()),
        promotion_sign_off: Some(Vec::new()),
        max_false_rollback: Some(0.01),
        max_false_promotion: Some(0.1),
        tolerated_ratio: Some(1.5),
        tolerated_difference: Some(0.0),
        margin_ratio: Some(2.0),
        margin_difference: Some(0.005),
        on_scarce_evidence: Some(OnScarceEvidence::Extend),
        wait_at_most: Some(Duration::minutes(60)),
        require_router: Some(false),
    }
}

fn plan(demands: &TierDemands, own: &[Step]) -> Plan {
    plan_for(Tier::High, own, &alike(demands))
}

fn some_people() -> impl Strategy<Value = Vec<SignOffDemand>> {
    let demand = (
        1..3,
        prop_oneof![Just(vec![]), Just(vec!["a"]), Just(vec!["b"])],
    )
        .prop_map(|(count, groups)| people(count, &groups));
    prop_oneof![3 => Just(Vec::new()), 1 => btree_set(demand, 0..3).prop_map(|it| it.into_iter().collect())]
}

/// Valid steps, in which the same weights, times and requests come up often.
fn some_steps(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    let weight = prop_oneof![1..=4, 1..=98];
    let minutes = prop_oneof![Just(0_u64), Just(5), Just(10), 0_u64..30];
    let requests = prop_oneof![Just(0_i64), Just(10), 0_i64..30];
    let step = (weight, minutes, requests, some_people()).prop_map(
        |(weight, minutes, requests, sign_off)| Step {
            sign_off,
            ..asking(weight, minutes, requests)
        },
    );
    vec(step, count).prop_map(|mut steps| {
        steps.sort_by_key(|step| step.weight);
        steps
    })
}

fn some_demands() -> impl Strategy<Value = TierDemands> {
    let floors = (1..=100, 1..=100, 1..=99, 0_u64..20, 0_i64..20);
    (floors, some_people(), some_people(), some_steps(1..6)).prop_map(
        |((first, increase, last, minutes, requests), sign_off, promotion_sign_off, steps)| {
            TierDemands {
                steps,
                sign_off: Some(sign_off),
                promotion_sign_off: Some(promotion_sign_off),
                ..demands(first, increase, last, minutes, requests)
            }
        },
    )
}

/// Demands, and others that are at least as strict in every field.
fn rising_demands() -> impl Strategy<Value = (TierDemands, TierDemands)> {
    (some_demands(), some_demands()).prop_map(|(low, other)| {
        let mut high = other.clone();
        high.max_first_weight = low.max_first_weight.min(other.max_first_weight);
        high.max_increase = low.max_increase.min(other.max_increase);
        high.min_final_weight = low.min_final_weight.max(other.min_final_weight);
        high.min_bake = low.min_bake.max(other.min_bake);
        high.min_requests = low.min_requests.max(other.min_requests);
        add_demands(
            high.sign_off.as_mut().unwrap(),
            low.sign_off.as_deref().unwrap(),
        );
        add_demands(
            high.promotion_sign_off.as_mut().unwrap(),
            low.promotion_sign_off.as_deref().unwrap(),
        );
        (low, high)
    })
}

// --- Looking ---------------------------------------------------------------------------------

/// What a list of steps asks for at a moment: how much later than its begin, and how many
/// beginnings at the same time come before it.
fn at(steps: &[Step], (minutes, nth): (u64, usize)) -> (i32, i64, BTreeSet<SignOffDemand>) {
    let (mut time, mut index) = (Duration::default(), 0);
    let now = Duration::minutes(minutes);
    let mut found = (0, 0, BTreeSet::new());
    let promoted = Step {
        weight: 100,
        ..Step::default()
    };
    for step in steps.iter().chain([&promoted]) {
        if (time, index) > (now, nth) {
            break;
        }
        let begins = (time, index) == (now, nth);
        let sign_off = if begins {
            step.sign_off.iter().cloned().collect()
        } else {
            BTreeSet::new()
        };
        found = (step.weight, step.min_requests, sign_off);
        let bakes = step.bake > Duration::default();
        index = if bakes { 0 } else { index + 1 };
        time = (time.std() + step.bake.std()).into();
    }
    found
}

fn moments(lists: &[&[Step]]) -> Vec<(u64, usize)> {
    let mut times = BTreeSet::from([0]);
    for steps in lists {
        let mut time = 0;
        for step in *steps {
            time += step.bake.std().as_secs() / 60;
            times.insert(time);
        }
    }
    times
        .into_iter()
        .flat_map(|time| (0..12).map(move |nth| (time, nth)))
        .collect()
}

/// What must be done between two weights, `(from, to]`, in so many words: time, requests, people
/// (those of the step after `to` with them).
fn care(steps: &[Step], from: i32, to: i32) -> (StdDuration, i64, Vec<SignOffDemand>) {
    let held: Vec<_> = steps
        .iter()
        .filter(|it| from < it.weight && it.weight <= to)
        .collect();
    let next = steps.iter().find(|it| it.weight > to);
    (
        held.iter().map(|it| it.bake.std()).sum(),
        held.iter().map(|it| it.min_requests).sum(),
        held.into_iter()
            .chain(next)
            .flat_map(|it| it.sign_off.clone())
            .collect(),
    )
}

fn takes_as_much_care(a: &[Step], b: &[Step], from: i32) -> Result<(), TestCaseError> {
    for to in from..100 {
        let (a, b) = (care(a, from, to), care(b, from, to));
        prop_assert!(
            a.0 >= b.0,
            "weight {to} is passed after {:?} instead of {:?}",
            a.0,
            b.0
        );
        prop_assert!(
            a.1 >= b.1,
            "weight {to} is passed on {} instead of {} requests",
            a.1,
            b.1
        );
        prop_assert!(
            includes_all(&a.2, &b.2),
            "weight {to} is passed with {:?}, not {:?}",
            a.2,
            b.2
        );
    }
    Ok(())
}

fn includes_all(all: &[SignOffDemand], demands: &[SignOffDemand]) -> bool {
    demands
        .iter()
        .all(|demand| all.iter().any(|it| sign_off_demand::includes(it, demand)))
}

fn largest_increase(weights: &[i32]) -> i32 {
    weights
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .max()
        .unwrap_or(0)
}

fn demands_hold(plan: &Plan, demands: &TierDemands) -> Result<(), TestCaseError> {
    let weights = weights_of(&plan.steps);
    prop_assert!(
        weights.is_sorted() && weights.iter().all(|it| (1..=99).contains(it)),
        "{weights:?}"
    );
    prop_assert!(weights.len() <= 200 && plan.tightened.len() <= 200);
    prop_assert!(weights.first() <= demands.max_first_weight.as_ref());
    prop_assert!(Some(largest_increase(&weights)) <= demands.max_increase);
    prop_assert!(weights.last() >= demands.min_final_weight.as_ref());
    prop_assert!(
        plan.steps
            .iter()
            .all(|it| Some(it.bake) >= demands.min_bake)
    );
    prop_assert!(
        plan.steps
            .iter()
            .all(|it| Some(it.min_requests) >= demands.min_requests)
    );
    prop_assert!(includes_all(
        &plan.steps[0].sign_off,
        demands.sign_off.as_deref().unwrap()
    ));
    prop_assert!(includes_all(
        &plan.promotion_sign_off,
        demands.promotion_sign_off.as_deref().unwrap()
    ));
    Ok(())
}

// --- plan_for --------------------------------------------------------------------------------

#[test]
fn the_built_in_tiers_have_the_plans_that_the_documentation_names() {
    let built_in = policy::effective(&[]);
    for (tier, weights, minutes, first, promotion) in [
        (Tier::Low, vec![5, 25, 50], 5, 0, 0),
        (Tier::Medium, vec![1, 5, 20, 50], 10, 0, 0),
        (Tier::High, vec![1, 2, 5, 10, 25, 50], 15, 1, 0),
        (Tier::Critical, vec![1, 1, 2, 5, 10, 20, 35, 50], 20, 1, 2),
    ] {
        let plan = plan_for(tier, &[], &built_in);
        assert_eq!(weights_of(&plan.steps), weights, "{tier}");
        assert!(
            plan.steps
                .iter()
                .all(|it| it.bake == Duration::minutes(minutes)),
            "{tier}"
        );
        assert_eq!(plan.steps[0].sign_off.len(), first, "{tier}");
        assert!(
            plan.steps.iter().skip(1).all(|it| it.sign_off.is_empty()),
            "{tier}"
        );
        assert_eq!(plan.promotion_sign_off.len(), promotion, "{tier}");
        assert_eq!(plan.tightened, Vec::<String>::new(), "{tier}");
        assert_eq!(plan.policies, ["built-in"]);
    }
}

#[test]
fn the_built_in_tiers_are_ever_stricter_and_judge_as_the_policy_says() {
    let built_in = policy::effective(&[]);
    let plans = Tier::ALL.map(|tier| plan_for(tier, &[], &built_in));
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
    let own = [asking(2, 30, 500), signed(20, 30, "a"), asking(40, 30, 500)];
    let plan = plan(&demands(5, 25, 40, 10, 0), &own);
    assert_eq!(plan.steps, own);
    assert_eq!(plan.tightened, Vec::<String>::new());
}

#[test]
fn each_tightening_of_own_steps_is_a_sentence_that_names_step_floor_and_policy() {
    let floor = demands(5, 25, 50, 10, 50);
    for (own, weights, sentences) in [
        (
            vec![asking(30, 10, 50), asking(50, 10, 50)],
            vec![5, 30, 50],
            vec![
                "step 1: weight 30 is above maxFirstWeight 5 of tier high (payments@3): step of weight 5 inserted before it",
            ],
        ),
        (
            vec![asking(50, 10, 50)],
            vec![5, 30, 50],
            vec![
                "step 1: weight 50 is above maxFirstWeight 5 and maxIncrease 25 of tier high (payments@3): steps of weight 5, 30 inserted before it",
            ],
        ),
        (
            vec![
                asking(5, 10, 50),
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
            vec![asking(5, 10, 50)],
            vec![5, 30, 55],
            vec![
                "step 1: weight 5, the last, is below minFinalWeight 50 of tier high (payments@3): steps of weight 30, 55 added after it",
            ],
        ),
        (
            vec![asking(5, 1, 7), asking(25, 10, 7), asking(50, 0, 50)],
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
                ..asking(it.weight, 10, 50)
            }));
    }
}

#[test]
fn the_sign_off_of_a_step_is_asked_for_before_the_steps_that_are_inserted_before_it() {
    let floor = TierDemands {
        sign_off: Some(vec![people(1, &["b"])]),
        ..demands(5, 25, 50, 10, 0)
    };
    let plan = plan(&floor, &[signed(10, 10, "a"), signed(50, 10, "c")]);
    assert_eq!(weights_of(&plan.steps), [5, 10, 35, 50]);
    let asked: Vec<_> = plan.steps.iter().map(|it| it.sign_off.clone()).collect();
    let first = vec![people(1, &["a"]), people(1, &["b"])];
    assert_eq!(asked, [first, vec![], vec![people(1, &["c"])], vec![]]);
    assert_eq!(
        plan.tightened.last().unwrap(),
        "step 1: sign-off is asked for by tier high (payments@3): added"
    );
}

#[test]
fn a_sign_off_that_a_stricter_one_includes_is_not_asked_for_beside_it() {
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
fn law_7_steps_of_a_lower_tier_are_added_to_those_of_a_higher_one_that_ask_for_less() {
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
    let plan = plan_for(Tier::High, &[], &effective(tiers));
    assert_eq!(
        plan.steps,
        [step(5, 15), signed(10, 15, "a"), step(25, 20), step(50, 20)]
    );
    let by = "below tier high (payments@3), as a lower tier asks for it";
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
        weights_of(&super::tests::plan(&absent, &[step(i32::MAX, 1)]).steps).last(),
        Some(&i32::MAX)
    );
}

#[test]
fn steps_of_merged_policies_never_outgrow_the_schema() {
    let mut floor = demands(100, 1, 99, 0, 0);
    floor.steps = (0..900)
        .map(|n| Step {
            sign_off: vec![people(1 + n % 3, &[])],
            ..asking(1 + n / 10, 1, 1_000_000_000)
        })
        .collect();
    let plan = plan(&floor, &[]);
    assert_eq!(weights_of(&plan.steps), (1..=99).collect::<Vec<_>>());
    assert_eq!(
        plan.steps[0],
        Step {
            sign_off: vec![people(3, &[])],
            ..asking(1, 10, 1_000_000_000)
        }
    );
    floor.steps.truncate(100);
    let steps = super::tests::plan(&floor, &[]).steps;
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
        let asked = if own.is_empty() { &floor.steps } else { &own };
        takes_as_much_care(&plan.steps, asked, 0)?;
        for step in asked {
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
    fn law_7_a_higher_tier_never_takes_less_care((low, high) in rising_demands(), own in some_steps(0..20)) {
        let tiers = Tiers { low: low.clone(), medium: low, high: high.clone(), critical: high.clone() };
        let effective = effective(tiers);
        demands_hold(&plan_for(Tier::High, &own, &effective), &high)?;
        let (low, high) = (plan_for(Tier::Low, &own, &effective), plan_for(Tier::High, &own, &effective));
        takes_as_much_care(&high.steps, &low.steps, 0)?;
        prop_assert!(high.steps[0].weight <= low.steps[0].weight);
        prop_assert!(includes_all(&high.promotion_sign_off, &low.promotion_sign_off));
        for moment in moments(&[&low.steps, &high.steps]) {
            prop_assert!(at(&high.steps, (moment.0, 100)).0 <= at(&low.steps, (moment.0, 100)).0);
        }
    }
}

// --- tightened -------------------------------------------------------------------------------

/// The plan that a policy gives, at version 4.
fn now(demands: &TierDemands, own: &[Step]) -> Plan {
    Plan {
        policies: vec!["payments@4".into()],
        ..plan(demands, own)
    }
}

#[test]
fn a_raised_tier_inserts_its_steps_above_the_present_weight() {
    let built_in = policy::effective(&[]);
    let medium = plan_for(Tier::Medium, &[], &built_in);
    let high = plan_for(Tier::High, &[], &built_in);
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
    assert_eq!(more.steps, raised(&[asking(30, 10, 7), asking(50, 10, 7)]));
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
    let patience = with(|it| it.wait_at_most = Some(Duration::minutes(5)));
    assert_eq!(patience.strictness.wait_at_most, Duration::minutes(5));
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
fn a_sign_off_that_came_too_late_for_its_step_is_asked_for_before_promotion() {
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
fn what_a_step_asks_people_is_asked_before_the_steps_that_are_inserted_before_it() {
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

#[test]
fn the_stricter_of_two_is_taken_field_by_field() {
    let a = Strictness {
        max_false_rollback: 0.05,
        max_false_promotion: 0.1,
        tolerated_ratio: 1.5,
        tolerated_difference: 0.0,
        margin_ratio: 2.0,
        margin_difference: 0.001,
        on_scarce_evidence: OnScarceEvidence::Promote,
        wait_at_most: Duration::minutes(5),
    };
    let b = Strictness {
        max_false_rollback: 0.01,
        max_false_promotion: 0.05,
        tolerated_ratio: 1.1,
        tolerated_difference: 0.1,
        margin_ratio: 1.5,
        margin_difference: 0.005,
        on_scarce_evidence: OnScarceEvidence::Hold,
        wait_at_most: Duration::minutes(60),
    };
    let both = Strictness {
        max_false_promotion: 0.05,
        tolerated_ratio: 1.1,
        margin_ratio: 1.5,
        on_scarce_evidence: OnScarceEvidence::Hold,
        ..a
    };
    assert_eq!(
        (stricter(a, b), stricter(b, a), stricter(a, a)),
        (both, both, a)
    );
}

// --- strictest_steps -------------------------------------------------------------------------

#[test]
fn the_strictest_steps_hold_the_lesser_weight_and_ask_for_the_more_at_every_moment() {
    for (a, b, both) in [
        (vec![], vec![], vec![]),
        (vec![signed(5, 10, "a")], vec![], vec![signed(5, 10, "a")]),
        // The stricter one comes out as it is, not cut up at the times of the other.
        (
            vec![step(1, 10), step(5, 10)],
            vec![step(5, 5), step(25, 5), step(50, 5)],
            vec![step(1, 10), step(5, 10)],
        ),
        (
            vec![step(5, 10), step(50, 10)],
            vec![step(10, 15), step(20, 10)],
            vec![step(5, 10), step(10, 5), step(20, 10)],
        ),
        (
            vec![asking(5, 10, 1)],
            vec![asking(50, 5, 9), asking(60, 10, 3)],
            vec![asking(5, 5, 9), asking(5, 5, 3), asking(60, 5, 3)],
        ),
        // A sign-off keeps its moment, though the weight does not change there.
        (
            vec![step(5, 20)],
            vec![step(10, 10), signed(50, 5, "a")],
            vec![step(5, 10), signed(5, 10, "a")],
        ),
        (
            vec![signed(5, 10, "b")],
            vec![signed(50, 10, "a")],
            vec![Step {
                sign_off: vec![people(1, &["a"]), people(1, &["b"])],
                ..step(5, 10)
            }],
        ),
        // One more look at the same weight is stricter than one less.
        (
            vec![step(1, 20)],
            vec![step(1, 10), step(1, 10)],
            vec![step(1, 10), step(1, 10)],
        ),
    ] {
        assert_eq!(strictest_steps(&a, &b), both, "{a:?} and {b:?}");
        assert_eq!(strictest_steps(&b, &a), both, "{b:?} and {a:?}");
    }
}

#[test]
fn steps_that_do_not_bake_are_met_in_their_order_and_keep_their_sign_offs() {
    for (a, b, both) in [
        (
            vec![asking(5, 0, 100), asking(50, 0, 100)],
            vec![asking(10, 0, 20)],
            vec![asking(5, 0, 100), asking(50, 0, 100)],
        ),
        (
            vec![step(1, 10)],
            vec![asking(10, 0, 9), asking(20, 0, 9)],
            vec![asking(1, 0, 9), asking(1, 0, 9), step(1, 10)],
        ),
        (
            vec![asking(1, 10, 9)],
            vec![asking(10, 0, 9), asking(20, 0, 9)],
            vec![asking(1, 10, 9)],
        ),
        (
            vec![step(1, 10)],
            vec![signed(10, 0, "a"), signed(20, 0, "b"), step(30, 0)],
            vec![signed(1, 0, "a"), signed(1, 10, "b")],
        ),
        (
            vec![step(1, 5), step(9, 5)],
            vec![step(3, 5), signed(4, 0, "a"), signed(5, 9, "b")],
            vec![step(1, 5), signed(4, 0, "a"), signed(5, 9, "b")],
        ),
    ] {
        assert_eq!(strictest_steps(&a, &b), both, "{a:?} and {b:?}");
        assert_eq!(strictest_steps(&b, &a), both, "{b:?} and {a:?}");
    }
}

proptest! {
    #[test]
    fn law_7_the_strictest_steps_are_as_strict_as_either_and_no_stricter_than_needed(
        a in some_steps(0..8), b in some_steps(0..8),
    ) {
        let both = strictest_steps(&a, &b);
        prop_assert!(both.iter().is_sorted_by_key(|it| it.weight), "{both:?}");
        prop_assert!(both.len() <= a.len() + b.len());
        for moment in moments(&[&a, &b, &both]) {
            let (of_a, of_b, of_both) = (at(&a, moment), at(&b, moment), at(&both, moment));
            prop_assert_eq!(of_both.0, of_a.0.min(of_b.0), "weight at {:?}", moment);
            prop_assert_eq!(of_both.1, of_a.1.max(of_b.1), "requests at {:?}", moment);
            prop_assert_eq!(of_both.2, &of_a.2 | &of_b.2, "sign-off at {:?}", moment);
        }
    }

    #[test]
    fn the_strictest_steps_depend_neither_on_order_nor_on_repetition(
        a in some_steps(0..7), b in some_steps(0..7), c in some_steps(0..7),
    ) {
        let both = strictest_steps(&a, &b);
        prop_assert_eq!(&both, &strictest_steps(&b, &a), "commutative");
        prop_assert_eq!(strictest_steps(&both, &c), strictest_steps(&a, &strictest_steps(&b, &c)), "associative");
        prop_assert_eq!(&strictest_steps(&a, &a), &a, "idempotent");
        prop_assert_eq!(&strictest_steps(&both, &a), &both, "absorbing");
        prop_assert_eq!(&strictest_steps(&a, &[]), &a, "the empty list is neutral");
    }

    #[test]
    fn steps_that_are_stricter_everywhere_come_out_unchanged(
        a in some_steps(1..8), more in 1_i32..9, kept in vec(any::<bool>(), 8), sooner in 1_u32..4,
    ) {
        let looser = |step: &Step| Step {
            weight: (step.weight + more).min(99),
            bake: (step.bake.std() / sooner).into(),
            ..Step::default()
        };
        let b: Vec<_> = a.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(it, _)| looser(it)).collect();
        prop_assert_eq!(strictest_steps(&a, &b), a);
    }
}
