//! The stricter of two lists of steps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration as StdDuration;

use countersign_api::step::{SignOffDemand, Step};

/// The loosest steps that are at least as strict as `a` and as `b`; an empty list demands nothing.
///
/// A list of steps is a course through time: each step holds its weight and its requests for its bake, and
/// after the last one the weight is 100. At every time the result has the lesser weight and the greater
/// number of requests, and demands every sign-off when either list demands it. Steps that do not bake begin
/// at one time, in order: the first of `a` is merged with the first of `b`, and so on; none is lost.
///
/// A step begins when weight or requests change, and when a sign-off is demanded. Otherwise a list that
/// begins a new step is followed only if it is itself as strict as the result: so the stricter of two lists
/// is returned as it is, not split at the other's times. The operation is commutative, associative and
/// idempotent.
#[must_use]
pub fn strictest_steps(a: &[Step], b: &[Step]) -> Vec<Step> {
    let (a, b) = (course(a), course(b));
    let times: BTreeSet<_> = a.keys().chain(b.keys()).copied().collect();
    steps_of(
        &times
            .into_iter()
            .map(|at| (at, strictest_at(at, &a, &b)))
            .collect(),
    )
}

/// The steps that begin at each time, in order; the last is full promotion.
type Timeline = BTreeMap<StdDuration, Vec<StepStart>>;

/// The start of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
struct StepStart {
    level: Level,
    sign_off: BTreeSet<SignOffDemand>,
}

/// The demands at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Level {
    weight: i32,
    min_requests: i64,
}

impl Level {
    /// Before the first step.
    const START: Self = Self {
        weight: 0,
        min_requests: 0,
    };
    /// After the last step.
    const PROMOTED: Self = Self {
        weight: 100,
        min_requests: 0,
    };

    fn strictest(self, other: Self) -> Self {
        Self {
            weight: self.weight.min(other.weight),
            min_requests: self.min_requests.max(other.min_requests),
        }
    }
}

fn course(steps: &[Step]) -> Timeline {
    let mut course = Timeline::new();
    let mut at = StdDuration::ZERO;
    for Step {
        weight,
        bake,
        min_requests,
        sign_off,
        ..
    } in steps
    {
        let level = Level {
            weight: *weight,
            min_requests: *min_requests,
        };
        let sign_off = sign_off.iter().cloned().collect();
        course
            .entry(at)
            .or_default()
            .push(StepStart { level, sign_off });
        at = at.saturating_add(bake.std());
    }
    let promotion = StepStart {
        level: Level::PROMOTED,
        sign_off: BTreeSet::new(),
    };
    course.entry(at).or_default().push(promotion);
    course
}

fn steps_of(course: &Timeline) -> Vec<Step> {
    let begins = || {
        course
            .iter()
            .flat_map(|(at, begins)| begins.iter().map(move |it| (*at, it)))
    };
    let ends = begins().skip(1).map(|(at, _)| at);
    begins()
        .zip(ends)
        .map(|((at, StepStart { level, sign_off }), end)| Step {
            weight: level.weight,
            bake: end.saturating_sub(at).into(),
            min_requests: level.min_requests,
            sign_off: sign_off.iter().cloned().collect(),
            ..Step::default()
        })
        .collect()
}

fn strictest_at(at: StdDuration, a: &Timeline, b: &Timeline) -> Vec<StepStart> {
    let (a, b) = (TimelineSlice::of(a, at), TimelineSlice::of(b, at));
    let most = a.begins.len().max(b.begins.len());
    let (levels_a, levels_b) = (a.levels(most), b.levels(most));
    let levels: Vec<_> = levels_a
        .iter()
        .zip(&levels_b)
        .map(|(a, b)| a.strictest(*b))
        .collect();
    let mut begins: Vec<_> = (levels.iter().skip(1).enumerate())
        .map(|(nth, level)| StepStart {
            level: *level,
            sign_off: &a.sign_off(nth) | &b.sign_off(nth),
        })
        .collect();

    let matters = |(before, begin): (&Level, &StepStart)| {
        *before != begin.level || !begin.sign_off.is_empty()
    };
    let needed = levels
        .iter()
        .zip(&begins)
        .rposition(matters)
        .map_or(0, |last| last + 1);
    let kept_a = if levels_a == levels {
        a.begins.len()
    } else {
        0
    };
    let kept_b = if levels_b == levels {
        b.begins.len()
    } else {
        0
    };
    begins.truncate(needed.max(kept_a).max(kept_b));
    begins
}

/// A course around one time.
struct TimelineSlice<'a> {
    /// The demands just before.
    before: Level,
    begins: &'a [StepStart],
}

impl<'a> TimelineSlice<'a> {
    fn of(course: &'a Timeline, at: StdDuration) -> Self {
        let before = course
            .range(..at)
            .rev()
            .find_map(|(_, begins)| begins.last());
        Self {
            before: before.map_or(Level::START, |begin| begin.level),
            begins: course.get(&at).map_or(&[], Vec::as_slice),
        }
    }

    /// The level before, and then the level of each of the first `count` begins.
    fn levels(&self, count: usize) -> Vec<Level> {
        let begun = self.begins.iter().map(|begin| begin.level);
        let last = begun.clone().next_back().unwrap_or(self.before);
        let levels = std::iter::once(self.before)
            .chain(begun)
            .chain(std::iter::repeat(last));
        levels.take(count + 1).collect()
    }

    fn sign_off(&self, nth: usize) -> BTreeSet<SignOffDemand> {
        self.begins
            .get(nth)
            .map(|begin| begin.sign_off.clone())
            .unwrap_or_default()
    }
}
