//! The order of tiers and points that no policy can break.

use std::collections::BTreeMap;

use countersign_api::policy::{
    Criticality, Factor, OnScarceEvidence, RiskModel, Thresholds, TierDemands, Tiers,
};

use crate::policy::merge::{self, MAX_POINTS};

/// The label value of a service whose changes have at least the tier of floor `criticalService`.
pub const CRITICAL: &str = "critical";

/// Restores the preconditions of law 7. Only raises points and lowers thresholds.
///
/// - Nothing lowers a score: points are from 0 to 100.
/// - Hiding does not pay: an unknown answer weighs at least as much as any that could be declared.
///   Failed tests alone weigh more than unknown ones.
/// - `critical` weighs at least as much as any other criticality.
pub(super) fn ordered(mut risk: RiskModel) -> RiskModel {
    let clamped = |points: f64| points.clamp(0.0, MAX_POINTS);
    risk.points.values_mut().for_each(|it| *it = clamped(*it));
    risk.touches.values_mut().for_each(|it| *it = clamped(*it));
    risk.differences
        .values_mut()
        .for_each(|it| *it = clamped(*it));
    risk.criticality
        .points
        .values_mut()
        .for_each(|it| *it = clamped(*it));
    risk.criticality.otherwise = risk.criticality.otherwise.map(clamped);
    risk.size = merge::strictest_bands(&risk.size, &[]);

    let largest_band = merge::points_of_size(&risk.size, i64::MAX);
    let points = &mut risk.points;
    raise(points, Factor::SizeUnknown, largest_band);
    for (unknown, declared) in [
        (Factor::ContributorUnknown, Factor::AiShare),
        (Factor::ContributorUnknown, Factor::ContributorMixed),
        (Factor::NoProvenance, Factor::ContributorUnknown),
        (Factor::UnusableProvenance, Factor::ContributorUnknown),
        (Factor::NoReview, Factor::StaleReview),
        (Factor::TestsUnknown, Factor::TestsWarned),
        (Factor::TestsFailed, Factor::TestsUnknown),
    ] {
        let least = points.get(&declared).copied().unwrap_or_default();
        raise(points, unknown, least);
    }

    let Criticality {
        points, otherwise, ..
    } = &mut risk.criticality;
    let most = points
        .values()
        .copied()
        .chain(*otherwise)
        .fold(0.0, f64::max);
    if let Some(critical) = points.get_mut(CRITICAL) {
        *critical = critical.max(most);
    }

    let Thresholds {
        medium,
        high,
        critical,
    } = &mut risk.thresholds;
    *high = merge::strictest(*high, *critical, f64::min);
    *medium = merge::strictest(*medium, *high, f64::min);
    risk
}

fn raise(points: &mut BTreeMap<Factor, f64>, factor: Factor, least: f64) {
    points
        .entry(factor)
        .and_modify(|it| *it = it.max(least))
        .or_insert(least);
}

/// Makes every tier demand at least what the tiers below it do, and only the lowest promote on scarce
/// evidence.
pub(super) fn rising(tiers: &Tiers) -> Tiers {
    let above = |lower: &TierDemands, own: &TierDemands| {
        let mut demands = merge::strictest_demands(lower, own);
        demands.on_scarce_evidence = merge::strictest(
            demands.on_scarce_evidence,
            Some(OnScarceEvidence::Hold),
            OnScarceEvidence::max,
        );
        demands
    };
    let low = tiers.low.clone();
    let medium = above(&low, &tiers.medium);
    let high = above(&medium, &tiers.high);
    let critical = above(&high, &tiers.critical);
    Tiers {
        low,
        medium,
        high,
        critical,
    }
}
