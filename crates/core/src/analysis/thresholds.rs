//! The tolerances of a tier, and its thresholds of evidence.

use countersign_api::Check;
use countersign_api::rollout::{Change, CheckEvidence, Dispersion, Strictness};
use countersign_api::step::Tier;

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

/// The fresh evidence of all steps together (see [`rearm`](crate::analysis::gather::rearm)), beside the 1
/// that a change begins with: two thirds of the allowance are for evidence from the start, a third for
/// evidence of later steps.
pub const RENEWED: f64 = 0.5;

/// ln E at which the canary is rolled back.
#[must_use]
pub fn rollback_at(strictness: &Strictness) -> f64 {
    ((1.0 + RENEWED) / strictness.max_false_rollback).ln()
}

/// ln E at which a gate opens.
#[must_use]
pub fn promote_at(strictness: &Strictness) -> f64 {
    -strictness.max_false_promotion.ln()
}

/// Windows of history, four hours of them at 15 s, from which on bursts are known well enough: false
/// rollbacks stay below their bound in the simulations of `docs/analysis.md`.
pub const KNOWN_HISTORY: i32 = 960;

/// Size of the bursts that are assumed where no history is known, for the tiers whose changes are more
/// likely harmless than not: these are not rolled back for the first burst. In the tiers above, a failing
/// change is rolled back rather than explained by bursts that nobody has seen.
const ASSUMED_BURSTS: f64 = 3.0;

/// The dispersion by which the counts of the roll-back tests are divided: as estimated, or closer to
/// [`ASSUMED_BURSTS`] the less history there is.
#[must_use]
pub fn rollback_dispersion(check: &Check, known: Option<Dispersion>, tier: Tier) -> f64 {
    let Dispersion { value, windows, .. } = known.unwrap_or_default();
    if check.dispersion.is_some() || tier > Tier::Medium {
        return value;
    }
    let unknown = 1.0 - f64::from(windows.clamp(0, KNOWN_HISTORY)) / f64::from(KNOWN_HISTORY);
    value + (ASSUMED_BURSTS - value).max(0.0) * unknown
}

/// The dispersion by which the counts of the promote tests, and displayed rates, are divided.
#[must_use]
pub fn dispersion(evidence: &CheckEvidence) -> f64 {
    evidence.dispersion.unwrap_or_default().value
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
