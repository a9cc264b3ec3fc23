//! Tightens a plan when a policy changes while the change is under way.

use countersign_api::rollout::{Plan, Strictness};
use countersign_api::step::{SignOffDemand, Step};

use crate::limits::{MAX_POLICIES, MAX_SENTENCES};
use crate::plan::{floors, steps};

/// The stricter of both, field by field.
#[must_use]
pub fn stricter(a: Strictness, b: Strictness) -> Strictness {
    Strictness {
        // A larger chance is stricter: weaker evidence then suffices to roll back.
        max_false_rollback: a.max_false_rollback.max(b.max_false_rollback),
        max_false_promotion: a.max_false_promotion.min(b.max_false_promotion),
        tolerated_ratio: a.tolerated_ratio.min(b.tolerated_ratio),
        tolerated_difference: a.tolerated_difference.min(b.tolerated_difference),
        margin_ratio: a.margin_ratio.min(b.margin_ratio),
        margin_difference: a.margin_difference.min(b.margin_difference),
        extend_at_most: a.extend_at_most.max(b.extend_at_most),
        on_scarce_evidence: a.on_scarce_evidence.max(b.on_scarce_evidence),
        switch_without_evidence: a.switch_without_evidence && b.switch_without_evidence,
        wait_at_most: a.wait_at_most.min(b.wait_at_most),
    }
}

/// The thresholds of the evidence, each at least as strict as another's; what happens at the end of a wait
/// stays as it is.
#[must_use]
pub fn as_strictly_judged(own: Strictness, other: Strictness) -> Strictness {
    Strictness {
        extend_at_most: own.extend_at_most,
        on_scarce_evidence: own.on_scarce_evidence,
        switch_without_evidence: own.switch_without_evidence,
        wait_at_most: own.wait_at_most,
        ..stricter(own, other)
    }
}

/// The plan in force made at least as strict as `current`, the plan that would be made now; `None` if it
/// already is. `current_step` is the number of the present step, 0 before the first.
///
/// Past steps stay unchanged. No later step is removed or gets another weight, so the canary never steps
/// back:
///
/// - A step whose weight is in both plans gets the longer bake, the more requests and all sign-offs. If
///   `current` has more steps of that weight, their demands are added up in one.
/// - The steps of `current` above the present weight are inserted, but only if the plan in force lets a
///   weight be passed sooner, on fewer requests, with fewer people or by larger increases: so a looser
///   `current` changes nothing.
/// - Sign-offs that either plan demands before a step are demanded before the first of the steps that the
///   other one has before it.
/// - Sign-offs that `current` demands at or below the present weight, and the plan in force did not, are
///   demanded before the next step, or before promotion after the last.
///
/// Sign-offs before promotion are added, and evidence is judged by the stricter of both, field by field. A
/// step that `current` does not have stays unchanged, even if it bakes shorter than a raised floor: it is
/// additional to `current`.
#[must_use]
pub fn tightened(plan_in_force: &Plan, current_step: usize, current: &Plan) -> Option<Plan> {
    let under_way = UnderWay::new(&plan_in_force.steps, current_step, &current.steps);
    let mut steps = under_way.steps();
    let mut promotion_sign_off = plan_in_force.promotion_sign_off.clone();
    steps::add_demands(&mut promotion_sign_off, &current.promotion_sign_off);
    let next = steps
        .first_mut()
        .map_or(&mut promotion_sign_off, |step| &mut step.sign_off);
    steps::add_demands(next, &under_way.missed_sign_off());
    let mut first_revision = plan_in_force.first_revision.clone();
    steps::add_demands(&mut first_revision, &current.first_revision);
    let strictness = stricter(plan_in_force.strictness, current.strictness);

    let UnderWay { taken, to_come, .. } = under_way;
    let by = format!("under way by {}", floors::named(&current.policies));
    let mut sentences = describe_changes(to_come, &steps, taken.len(), &by);
    if promotion_sign_off != plan_in_force.promotion_sign_off {
        sentences.push(format!("promotion: sign-off added {by}"));
    }
    if first_revision != plan_in_force.first_revision {
        sentences.push(format!("first pod: sign-off added {by}"));
    }
    if strictness != plan_in_force.strictness {
        sentences.push(format!("evidence: judged more strictly {by}"));
    }
    if sentences.is_empty() {
        return None;
    }
    let sentences = plan_in_force.tightened.iter().cloned().chain(sentences);
    Some(Plan {
        steps: [taken, &steps].concat(),
        shares: Vec::new(),
        promotion_sign_off,
        first_revision,
        strictness,
        tightened: sentences.take(MAX_SENTENCES).collect(),
        policies: latest_policies(&plan_in_force.policies, &current.policies),
    })
}

/// A change in the middle of its steps, with the steps that it would have now.
pub(super) struct UnderWay<'a> {
    in_force: &'a [Step],
    taken: &'a [Step],
    to_come: &'a [Step],
    /// The present weight; 0 before the first step.
    weight: i32,
    current: &'a [Step],
    /// The current steps, with steps without demands at the other weights of those in force.
    wanted: Vec<Step>,
}

impl<'a> UnderWay<'a> {
    pub(super) fn new(in_force: &'a [Step], current_step: usize, current: &'a [Step]) -> Self {
        let (taken, to_come) = in_force.split_at(current_step.min(in_force.len()));
        Self {
            in_force,
            taken,
            to_come,
            weight: taken.last().map_or(0, |step| step.weight),
            current,
            wanted: steps::spread(current, &steps::weights(in_force.iter().chain(current))),
        }
    }

    /// The later steps, tightened.
    pub(super) fn steps(&self) -> Vec<Step> {
        let ahead = self.ahead();
        if self.is_strict_enough() {
            return steps::joined(self.to_come, ahead);
        }
        let above = ahead.iter().filter(|step| step.weight > self.weight);
        steps::joined(&steps::spread(self.to_come, &steps::weights(above)), ahead)
    }

    /// The current steps that are not done: at the present weight as many are done as were taken.
    fn ahead(&self) -> &[Step] {
        let below = self
            .wanted
            .partition_point(|step| step.weight < self.weight);
        let here = self
            .taken
            .iter()
            .filter(|step| step.weight == self.weight)
            .count();
        let done = (below + here).min(steps::reached(&self.wanted, self.weight).len());
        self.wanted.split_at(done).1
    }

    fn is_strict_enough(&self) -> bool {
        steps::is_as_strict(self.in_force, self.current, self.weight)
            && self.is_complete()
            && self.has_small_increases()
    }

    /// Whether the steps reach as far before promotion as the current ones must.
    fn is_complete(&self) -> bool {
        let weight = self.in_force.last().map_or(0, |step| step.weight);
        let mut current = self.current.iter().rev().map(|step| step.weight);
        current.next().is_none_or(|last| weight >= last)
            || current.next().unwrap_or_default() < weight
    }

    /// Whether every later increase is one that the current steps have near it. Below their first and above
    /// their last they limit only the first increase.
    fn has_small_increases(&self) -> bool {
        let mut weighted = self.current.iter().filter(|step| step.weight > 0);
        let (Some(first), Some(last)) = (weighted.next(), self.current.last()) else {
            return true;
        };
        let has_as_large = |from: i32, to: i32| {
            let mut increases = self.current.iter().zip(self.current.iter().skip(1));
            increases
                .any(|(a, b)| a.weight < to && from < b.weight && b.weight - a.weight >= to - from)
        };
        let is_small = |(from, to): (i32, i32)| {
            let (above, below) = (from.max(first.weight), to.min(last.weight));
            (from > 0 || to <= first.weight) && (above >= below || has_as_large(above, below))
        };
        let weights = || self.to_come.iter().map(|step| step.weight);
        std::iter::once(self.weight)
            .chain(weights())
            .zip(weights())
            .all(is_small)
    }

    /// Sign-offs that should have been demanded by now and were not.
    fn missed_sign_off(&self) -> Vec<SignOffDemand> {
        let in_force = || {
            steps::reached(self.in_force, self.weight)
                .iter()
                .flat_map(|step| &step.sign_off)
        };
        let wanted = steps::reached(&self.wanted, self.weight)
            .iter()
            .flat_map(|step| &step.sign_off);
        wanted
            .filter(|demand| !steps::is_included(demand, in_force()))
            .cloned()
            .collect()
    }
}

/// The changes of the later steps, in sentences; `after` has each of `before` and may have more.
pub(super) fn describe_changes(
    before: &[Step],
    after: &[Step],
    taken: usize,
    by: &str,
) -> Vec<String> {
    let mut before = before.iter().peekable();
    let mut sentences = Vec::new();
    for (step, number) in after.iter().zip(taken + 1..) {
        let changes = match before.next_if(|old| old.weight == step.weight) {
            Some(old) => changes(old, step),
            None => vec![format!("weight {} inserted", step.weight)],
        };
        if !changes.is_empty() {
            sentences.push(format!("step {number}: {} {by}", changes.join(", ")));
        }
    }
    sentences
}

fn changes(old: &Step, new: &Step) -> Vec<String> {
    let bake = (old.bake != new.bake).then(|| format!("bake {} raised to {}", old.bake, new.bake));
    let requests = (old.min_requests != new.min_requests).then(|| {
        format!(
            "minRequests {} raised to {}",
            old.min_requests, new.min_requests
        )
    });
    let is_new = |demand| !old.sign_off.contains(demand);
    let sign_off = new
        .sign_off
        .iter()
        .any(is_new)
        .then(|| "sign-off added".to_owned());
    bake.into_iter().chain(requests).chain(sign_off).collect()
}

/// The policies that a plan was made from and tightened by; the oldest are dropped if there are too many.
fn latest_policies(old: &[String], new: &[String]) -> Vec<String> {
    let mut all: Vec<_> = old
        .iter()
        .chain(new.iter().filter(|it| !old.contains(it)))
        .cloned()
        .collect();
    all.drain(..all.len().saturating_sub(MAX_POLICIES));
    all
}
