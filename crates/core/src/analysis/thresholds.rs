//! The tolerances of a tier, and its thresholds of evidence.

use countersign_api::Check;
use countersign_api::rollout::{Change, Strictness};

use crate::analysis::statistics::Tolerance;
use crate::change;

/// How much worse than stable a canary may be before it is rolled back.
#[must_use]
pub fn tolerated(strictness: &Strictness) -> Tolerance {
    Tolerance {
        ratio: strictness.tolerated_ratio,
        difference: strictness.tolerated_difference,
    }
}

/// How much worse than stable a canary must surely not be to be promoted.
#[must_use]
pub fn margin(strictness: &Strictness) -> Tolerance {
    Tolerance {
        ratio: strictness.margin_ratio,
        difference: strictness.margin_difference,
    }
}

/// The fresh evidence of all steps together (see [`rearm`](crate::analysis::gather::rearm)), beside the 1
/// that a change begins with: two thirds of the allowance are for evidence from the start, a third for
/// evidence of later steps.
pub const RENEWED: f64 = 0.5;

/// ln E at which the canary is rolled back.
#[must_use]
pub fn rollback_at(strictness: &Strictness) -> f64 {
    ((1.0 + RENEWED) / strictness.max_false_rollback).ln()
}

/// ln E at which a step may pass.
#[must_use]
pub fn promote_at(strictness: &Strictness) -> f64 {
    -strictness.max_false_promotion.ln()
}

/// The ceiling of a check: its own, or the share of slow requests that a quantile leaves.
#[must_use]
pub fn ceiling(check: &Check) -> Option<f64> {
    let quantile = check.latency.as_ref().and_then(|it| it.quantile);
    check
        .ceiling
        .or_else(|| quantile.map(|quantile| 1.0 - quantile))
}

/// Fewest requests of the canary in the present step.
#[must_use]
pub fn least_requests(change: &Change) -> f64 {
    let step = change::present_step(change);
    #[allow(clippy::cast_precision_loss)]
    step.map_or(1.0, |step| (step.min_requests as f64).max(1.0))
}
