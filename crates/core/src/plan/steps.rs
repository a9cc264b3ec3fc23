//! Lists of steps: their demands, weights and times.

use std::collections::BTreeSet;
use std::time::Duration as StdDuration;

use countersign_api::step::{SignOffDemand, Step};

use crate::policy::sign_off_demand;

/// The largest weight of a step.
pub(super) const MAX_WEIGHT: i32 = 99;
/// The most steps that may repeat the weight of the step before. With 99 weights this keeps a plan, however
/// often it is tightened, within the 200 steps of the status schema.
const MAX_REPEATS: usize = 100;
/// The most requests that a step can demand.
const MAX_REQUESTS: i64 = 1_000_000_000;

/// A step after others; its sign-offs are demanded before the first of them.
pub(super) fn preceded(mut step: Step, mut before: Vec<Step>) -> Vec<Step> {
    if let Some(first) = before.first_mut() {
        first.sign_off.append(&mut step.sign_off);
    }
    before.push(step);
    before
}

/// Adds demands that the present ones do not include, and drops those that the new ones include. Returns
/// whether any was added.
pub(super) fn add_demands(to: &mut Vec<SignOffDemand>, demands: &[SignOffDemand]) -> bool {
    let mut added = false;
    for demand in demands {
        if !is_included(demand, to.iter()) {
            to.retain(|other| !sign_off_demand::includes(demand, other));
            to.push(demand.clone());
            added = true;
        }
    }
    added
}

pub(super) fn is_included<'a>(
    demand: &SignOffDemand,
    among: impl IntoIterator<Item = &'a SignOffDemand>,
) -> bool {
    among
        .into_iter()
        .any(|other| sign_off_demand::includes(other, demand))
}

/// The steps, with those of one weight merged into one if more than [`MAX_REPEATS`] of them repeat a
/// weight. No Rollout can have so many; merged policies might.
pub(super) fn without_many_repeats(steps: &[Step]) -> Vec<Step> {
    let groups = || steps.chunk_by(|a, b| a.weight == b.weight);
    if steps.len() <= groups().count() + MAX_REPEATS {
        return steps.to_vec();
    }
    groups().filter_map(in_one).collect()
}

/// One step with the time and demands of several of the same weight.
fn in_one(steps: &[Step]) -> Option<Step> {
    steps.iter().cloned().reduce(|mut all, step| {
        all.bake = all.bake.std().saturating_add(step.bake.std()).into();
        all.min_requests = all
            .min_requests
            .saturating_add(step.min_requests)
            .min(MAX_REQUESTS);
        all.scale = all.scale.max(step.scale);
        all.mirror = all.mirror.max(step.mirror);
        add_demands(&mut all.sign_off, &step.sign_off);
        all
    })
}

pub(super) fn weights<'a>(steps: impl IntoIterator<Item = &'a Step>) -> BTreeSet<i32> {
    steps.into_iter().map(|step| step.weight).collect()
}

/// The steps up to a weight.
pub(super) fn reached(steps: &[Step], weight: i32) -> &[Step] {
    steps
        .split_at(steps.partition_point(|step| step.weight <= weight))
        .0
}

/// The same steps, with steps without demands inserted at the missing weights.
pub(super) fn spread(steps: &[Step], weights: &BTreeSet<i32>) -> Vec<Step> {
    let missing = |above: i32, below: i32| {
        let weights = weights
            .iter()
            .filter(move |it| above < **it && **it < below);
        weights
            .map(|weight| Step {
                weight: *weight,
                ..Step::default()
            })
            .collect::<Vec<_>>()
    };
    let mut all = Vec::new();
    let mut last = 0;
    for step in steps {
        all.extend(preceded(step.clone(), missing(last, step.weight)));
        last = step.weight;
    }
    all.extend(missing(last, i32::MAX));
    all
}

/// The steps of `a`, each at least as strict as all those of `b` with the same weight. A plan grows only by
/// new weights, so it does not grow with every edit of a policy.
pub(super) fn joined(a: &[Step], b: &[Step]) -> Vec<Step> {
    let same_weight = |a: &Step, b: &Step| a.weight == b.weight;
    let of_weight = |weight: i32| {
        b.chunk_by(same_weight)
            .find(move |it| it.iter().all(|step| step.weight == weight))
    };
    a.chunk_by(same_weight)
        .flat_map(|steps| {
            let weight = steps.first().map_or(0, |step| step.weight);
            joined_at(steps.to_vec(), of_weight(weight).unwrap_or_default())
        })
        .collect()
}

fn joined_at(mut a: Vec<Step>, b: &[Step]) -> Vec<Step> {
    let (each, rest) = b.split_at(b.len().min(a.len().saturating_sub(1)));
    let rest = in_one(rest);
    for (step, other) in a.iter_mut().zip(each.iter().chain(&rest)) {
        step.bake = step.bake.max(other.bake);
        step.min_requests = step.min_requests.max(other.min_requests);
        step.scale = step.scale.max(other.scale);
        step.mirror = step.mirror.max(other.mirror);
        add_demands(&mut step.sign_off, &other.sign_off);
    }
    a
}

/// Whether `a` lets no weight from `present` on be passed sooner, on fewer requests or with fewer
/// people than `b`.
pub(super) fn is_as_strict(a: &[Step], b: &[Step], present: i32) -> bool {
    (present..=MAX_WEIGHT).all(|weight| {
        let (a, b) = (Passing::of(a, weight), Passing::of(b, weight));
        a.bake >= b.bake
            && a.min_requests >= b.min_requests
            && b.sign_off
                .iter()
                .all(|demand| is_included(demand, a.sign_off.iter().copied()))
    })
}

/// The demands before a weight is passed.
struct Passing<'a> {
    bake: StdDuration,
    min_requests: i64,
    sign_off: Vec<&'a SignOffDemand>,
}

impl<'a> Passing<'a> {
    fn of(steps: &'a [Step], weight: i32) -> Self {
        let held = reached(steps, weight);
        let next = steps.get(held.len());
        Self {
            bake: held
                .iter()
                .map(|step| step.bake.std())
                .fold(StdDuration::ZERO, StdDuration::saturating_add),
            min_requests: held
                .iter()
                .map(|step| step.min_requests)
                .fold(0, i64::saturating_add),
            sign_off: held
                .iter()
                .chain(next)
                .flat_map(|step| &step.sign_off)
                .collect(),
        }
    }
}
