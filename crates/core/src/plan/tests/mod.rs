mod floors;
mod merge;
mod observe;
mod tighten;

use std::collections::BTreeSet;
use std::time::Duration as StdDuration;

use countersign_api::Duration;
use countersign_api::policy::{OnScarceEvidence, RiskModel, TierDemands, Tiers};
use countersign_api::rollout::{Plan, Strictness};
use countersign_api::step::{SignOffDemand, Step, Tier};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use crate::plan::floors::named;
use crate::plan::plan_for;
use crate::plan::steps::add_demands;
use crate::plan::tighten::{stricter, tightened};
use crate::policy::steps::strictest_steps;
use crate::policy::{self, Effective, sign_off_demand};

fn step(weight: i32, minutes: u64) -> Step {
    Step {
        weight,
        bake: Duration::minutes(minutes),
        ..Step::default()
    }
}

fn with_requests(weight: i32, minutes: u64, min_requests: i64) -> Step {
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

/// The built-in tiers by a policy that names people: one before the first step from tier high on, and in tier
/// critical two before promotion, one of them senior.
fn requiring_people() -> Effective {
    let mut effective = policy::effective(&[]);
    let Tiers { high, critical, .. } = &mut effective.tiers;
    high.sign_off = Some(vec![people(1, &[])]);
    critical.sign_off = Some(vec![people(1, &[])]);
    critical.promotion_sign_off = Some(vec![people(2, &[]), people(1, &["senior"])]);
    effective
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
        extend_at_most: Some(Duration::minutes(60)),
        on_scarce_evidence: Some(OnScarceEvidence::Hold),
        switch_without_evidence: Some(false),
        wait_at_most: Some(Duration::minutes(60)),
        testers_before_sign_off: Some(false),
        require_router: Some(false),
        require_digest: Some(false),
        require_immutable_config: Some(false),
        require_policy_check: Some(false),
    }
}

fn plan(demands: &TierDemands, own: &[Step]) -> Plan {
    plan_for(Tier::High, own, &[], &alike(demands))
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
            ..with_requests(weight, minutes, requests)
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

/// What a list of steps requires at a moment: how much later than its begin, and how many
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
