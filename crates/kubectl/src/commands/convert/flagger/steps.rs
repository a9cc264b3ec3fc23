//! The steps of a Canary.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::commands::convert::checks::written;
use crate::commands::convert::document::put;
use crate::commands::convert::foreign::Field;

/// The interval unless the Canary names another, and the shortest.
const INTERVAL: Duration = Duration::from_mins(1);
const SHORTEST: Duration = Duration::from_secs(10);
/// Most steps of a Rollout.
const MOST_STEPS: i64 = 50;

/// The time between two measurements.
pub fn interval(analysis: &Field<'_>) -> Duration {
    let interval = analysis.span("interval");
    interval.unwrap_or(INTERVAL).max(SHORTEST)
}

/// Number of measurements of a Canary that sends no share of the requests to the new version.
pub fn iterations(analysis: &Field<'_>) -> Option<u32> {
    let iterations = analysis.int("iterations")?;
    u32::try_from(iterations).ok().filter(|it| *it > 0)
}

/// The steps; `mirrors` is whether a route can mirror requests.
pub fn steps(analysis: &Field<'_>, mirrors: bool, has_checks: bool) -> Vec<Map<String, Value>> {
    let interval = interval(analysis);
    let mirror = mirror(analysis, mirrors);
    if let Some(iterations) = iterations(analysis) {
        analysis.skip_all(&["maxWeight", "stepWeight", "stepWeights"]);
        let mut step = step(0, interval.saturating_mul(iterations));
        put(&mut step, "scale", Some(100_i64));
        put(&mut step, "mirror", mirror);
        // Without it no evidence is asked for at weight 0.
        put(&mut step, "minRequests", has_checks.then_some(1_i64));
        return vec![step];
    }
    let before = mirror.map(|mirror| {
        let mut step = step(0, interval);
        put(&mut step, "mirror", Some(mirror));
        put(&mut step, "minRequests", has_checks.then_some(1_i64));
        step
    });
    let (weights, factor) = weights(analysis);
    let bake = interval.saturating_mul(factor);
    let weighted = weights.into_iter().map(|weight| step(weight, bake));
    before.into_iter().chain(weighted).collect()
}

fn step(weight: i64, bake: Duration) -> Map<String, Value> {
    let mut step = Map::new();
    put(&mut step, "weight", Some(weight));
    put(&mut step, "bake", Some(written(bake)));
    step
}

fn mirror(analysis: &Field<'_>, mirrors: bool) -> Option<i64> {
    let weight = analysis.int("mirrorWeight").unwrap_or(100).clamp(1, 100);
    let mirror = analysis.flag("mirror").unwrap_or_default();
    if let Some(mirror) = analysis.get("mirror").filter(|_| mirror && !mirrors) {
        mirror.lost("requests are mirrored by an HTTPRoute, a GRPCRoute or a VirtualService alone");
    }
    (mirror && mirrors).then_some(weight)
}

/// The weights, and the number of intervals that each stands for.
fn weights(analysis: &Field<'_>) -> (Vec<i64>, u32) {
    if let Some(Value::Array(list)) = analysis.value("stepWeights") {
        let weights = list.iter().filter_map(Value::as_i64);
        let weights = weights.filter(|weight| (1..100).contains(weight));
        analysis.skip_all(&["maxWeight", "stepWeight"]);
        return (weights.collect(), 1);
    }
    let most = analysis.int("maxWeight").filter(|most| *most > 0);
    let most = most.unwrap_or(100).min(100);
    let Some(increase) = analysis.int("stepWeight").filter(|it| *it > 0) else {
        return (Vec::new(), 1);
    };
    let fits = |factor: &u32| most / increase.saturating_mul((*factor).into()) < MOST_STEPS;
    let factor = (1..100).find(fits).unwrap_or(1);
    if factor > 1 {
        analysis.decide(&format!(
            "a Rollout has at most {MOST_STEPS} steps, so each stands for {factor} of these"
        ));
    }
    let increase = increase.saturating_mul(factor.into());
    let weights = (1..=MOST_STEPS).map(|number| increase.saturating_mul(number));
    // The last weight is the first that is not below the most.
    let weights = weights.take_while(|weight| *weight < most.saturating_add(increase));
    (weights.filter(|weight| *weight < 100).collect(), factor)
}
