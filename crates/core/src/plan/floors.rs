//! The floors of a tier.

use countersign_api::Duration;
use countersign_api::step::{Step, Tier};

use crate::plan::steps::{self, MAX_WEIGHT};
use crate::policy::Effective;

/// The most policies that one sentence names.
const MAX_NAMED: usize = 3;

/// A tier's demands on every step.
pub(super) struct Floors {
    max_first_weight: i32,
    max_increase: i32,
    min_final_weight: i32,
    min_bake: Duration,
    min_requests: i64,
    /// The source of the demands, such as `tier high (payments@3)`.
    pub(super) source: String,
}

impl Floors {
    pub(super) fn of(tier: Tier, effective: &Effective) -> Self {
        let demands = effective.tiers.get(tier);
        Self {
            max_first_weight: demands
                .max_first_weight
                .unwrap_or_default()
                .clamp(1, MAX_WEIGHT),
            max_increase: demands
                .max_increase
                .unwrap_or_default()
                .clamp(1, MAX_WEIGHT),
            min_final_weight: demands.min_final_weight.unwrap_or_default().min(MAX_WEIGHT),
            min_bake: demands.min_bake.unwrap_or_default(),
            min_requests: demands.min_requests.unwrap_or_default(),
            source: format!("tier {tier} ({})", named(&effective.sources)),
        }
    }

    /// The tightened steps, and a sentence for each change.
    pub(super) fn tighten(&self, given: &[Step]) -> (Vec<Step>, Vec<String>) {
        let (mut steps, mut sentences) = (Vec::new(), Vec::new());
        let mut weight = 0;
        for (step, number) in given.iter().zip(1..) {
            let before = self.between(weight, step.weight);
            sentences.extend(self.describe_insertion(number, step, weight, &before));
            sentences.extend(self.describe_raise(number, step));
            steps.extend(steps::preceded(self.raised(step), self.steps(&before)));
            weight = step.weight;
        }
        let after = self.beyond(weight);
        sentences.extend(self.describe_addition(given.len(), weight, &after));
        steps.extend(self.steps(&after));
        (steps, sentences)
    }

    /// The largest weight that may follow another one; 0 is the weight before the first step.
    fn next(&self, weight: i32) -> Option<i32> {
        let next = if weight < 1 {
            self.max_first_weight
        } else {
            weight.saturating_add(self.max_increase)
        };
        (weight < MAX_WEIGHT).then_some(next.min(MAX_WEIGHT))
    }

    /// The weights that must be inserted between two.
    fn between(&self, from: i32, to: i32) -> Vec<i32> {
        std::iter::successors(self.next(from), |weight| self.next(*weight))
            .take_while(|weight| *weight < to)
            .collect()
    }

    /// The weights that must be appended after the last one.
    fn beyond(&self, last: i32) -> Vec<i32> {
        let mut weights = self.between(last, self.min_final_weight);
        let reached = weights.last().copied().unwrap_or(last);
        let is_short = reached < self.min_final_weight;
        weights.extend(self.next(reached).filter(|_| is_short));
        weights
    }

    fn steps(&self, weights: &[i32]) -> Vec<Step> {
        let step = |weight: &i32| Step {
            weight: *weight,
            bake: self.min_bake,
            min_requests: self.min_requests,
            ..Step::default()
        };
        weights.iter().map(step).collect()
    }

    /// A step of weight 0 is additional to the tier's steps, and stays unchanged.
    fn raised(&self, step: &Step) -> Step {
        if step.weight == 0 {
            return step.clone();
        }
        Step {
            bake: step.bake.max(self.min_bake),
            min_requests: step.min_requests.max(self.min_requests),
            ..step.clone()
        }
    }

    fn describe_insertion(
        &self,
        number: usize,
        step: &Step,
        from: i32,
        before: &[i32],
    ) -> Option<String> {
        if before.is_empty() {
            return None;
        }
        let Self {
            max_first_weight,
            max_increase,
            source,
            ..
        } = self;
        let excess = match (from, before.len()) {
            (0, 1) => format!("is above maxFirstWeight {max_first_weight}"),
            (0, _) => {
                format!("is above maxFirstWeight {max_first_weight} and maxIncrease {max_increase}")
            }
            _ => format!(
                "is {} more than the step before, above maxIncrease {max_increase}",
                step.weight - from
            ),
        };
        let sign_off = if step.sign_off.is_empty() {
            ""
        } else {
            ", after its sign-off"
        };
        let inserted = inserted(before);
        Some(format!(
            "step {number}: weight {} {excess} of {source}: {inserted} inserted before it{sign_off}",
            step.weight
        ))
    }

    fn describe_raise(&self, number: usize, step: &Step) -> Option<String> {
        let Self {
            min_bake,
            min_requests,
            source,
            ..
        } = self;
        if step.weight == 0 {
            return None;
        }
        let bake = (step.bake < *min_bake)
            .then(|| format!("bake {} is below minBake {min_bake}", step.bake));
        let requests = (step.min_requests < *min_requests).then(|| {
            format!(
                "minRequests {} is below minRequests {min_requests}",
                step.min_requests
            )
        });
        let short: Vec<_> = bake.into_iter().chain(requests).collect();
        (!short.is_empty())
            .then(|| format!("step {number}: {} of {source}: raised", short.join(" and ")))
    }

    fn describe_addition(&self, number: usize, last: i32, after: &[i32]) -> Option<String> {
        let Self {
            min_final_weight,
            source,
            ..
        } = self;
        let added = inserted(after);
        (!after.is_empty()).then(|| {
            format!("step {number}: weight {last}, the last, is below minFinalWeight {min_final_weight} of {source}: {added} added after it")
        })
    }
}

/// The policies, abbreviated.
pub(super) fn named(sources: &[String]) -> String {
    let (first, more) = sources.split_at(sources.len().min(MAX_NAMED));
    let more = if more.is_empty() {
        String::new()
    } else {
        format!(" and {} more", more.len())
    };
    format!("{}{more}", first.join(", "))
}

fn inserted(weights: &[i32]) -> String {
    let steps = if weights.len() == 1 { "step" } else { "steps" };
    let weights: Vec<_> = weights.iter().map(ToString::to_string).collect();
    format!("{steps} of weight {}", weights.join(", "))
}
