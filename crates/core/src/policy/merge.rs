//! The stricter of two policies.

use std::collections::{BTreeMap, BTreeSet};

use countersign_api::Duration;
use countersign_api::policy::{
    Band, Criticality, History, OnScarceEvidence, RiskModel, Thresholds, TierDemands, Tiers,
};
use countersign_api::step::{SignOffDemand, Tier};

use crate::policy::sign_off_demand;
use crate::policy::steps::strictest_steps;

/// Most points that one factor can have.
pub(super) const MAX_POINTS: f64 = 100.0;

/// Points of a size: those of the highest band that it reaches.
#[must_use]
pub fn points_of_size(bands: &[Band], lines: i64) -> f64 {
    bands
        .iter()
        .filter(|band| band.from <= lines)
        .map(|band| band.points)
        .fold(0.0, f64::max)
}

pub(super) fn strictest<T>(a: Option<T>, b: Option<T>, of: impl FnOnce(T, T) -> T) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(of(a, b)),
        (a, b) => a.or(b),
    }
}

pub(super) fn strictest_each<K: Ord + Clone, V: Copy>(
    a: &BTreeMap<K, V>,
    b: &BTreeMap<K, V>,
    of: impl Fn(V, V) -> V,
) -> BTreeMap<K, V> {
    let mut all = a.clone();
    for (key, value) in b {
        all.entry(key.clone())
            .and_modify(|it| *it = of(*it, *value))
            .or_insert(*value);
    }
    all
}

pub(super) fn strictest_risk(a: &RiskModel, b: &RiskModel) -> RiskModel {
    let words = |words: &BTreeMap<String, f64>| in_lower_case(words, f64::max);
    let floors = |words: &BTreeMap<String, Tier>| in_lower_case(words, Tier::max);
    RiskModel {
        version: names(a.version.as_deref(), b.version.as_deref(), ", "),
        size: strictest_bands(&a.size, &b.size),
        points: strictest_each(&a.points, &b.points, f64::max),
        touches: strictest_each(&words(&a.touches), &words(&b.touches), f64::max),
        touches_floor: strictest_each(
            &floors(&a.touches_floor),
            &floors(&b.touches_floor),
            Tier::max,
        ),
        differences: strictest_each(&a.differences, &b.differences, f64::max),
        differences_floor: strictest_each(&a.differences_floor, &b.differences_floor, Tier::max),
        criticality: strictest_criticality(&a.criticality, &b.criticality),
        floors: strictest_each(&a.floors, &b.floors, Tier::max),
        thresholds: Thresholds {
            medium: strictest(a.thresholds.medium, b.thresholds.medium, f64::min),
            high: strictest(a.thresholds.high, b.thresholds.high, f64::min),
            critical: strictest(a.thresholds.critical, b.thresholds.critical, f64::min),
        },
    }
}

fn strictest_criticality(a: &Criticality, b: &Criticality) -> Criticality {
    let (a_points, b_points) = (
        in_lower_case(&a.points, f64::max),
        in_lower_case(&b.points, f64::max),
    );
    let values: BTreeSet<&String> = a_points.keys().chain(b_points.keys()).collect();
    // A policy without points for a value scores it like any other value.
    let points = values.into_iter().filter_map(|value| {
        let a = a_points.get(value).copied().or(a.otherwise);
        let b = b_points.get(value).copied().or(b.otherwise);
        Some((value.clone(), strictest(a, b, f64::max)?))
    });
    Criticality {
        // No label contains a comma, so a joined name means that the label with most points counts.
        label: names(a.label.as_deref(), b.label.as_deref(), ","),
        points: points.collect(),
        otherwise: strictest(a.otherwise, b.otherwise, f64::max),
    }
}

/// Both lists of names as one, sorted and without duplicates.
fn names(a: Option<&str>, b: Option<&str>, separator: &str) -> Option<String> {
    let all: BTreeSet<_> = a
        .into_iter()
        .chain(b)
        .flat_map(|list| list.split(separator))
        .filter(|it| !it.is_empty())
        .collect();
    let all: Vec<_> = all.into_iter().collect();
    (!all.is_empty()).then(|| all.join(separator))
}

fn in_lower_case<V: Copy>(
    words: &BTreeMap<String, V>,
    of: impl Fn(V, V) -> V,
) -> BTreeMap<String, V> {
    words
        .iter()
        .fold(BTreeMap::new(), |mut all, (word, value)| {
            all.entry(word.trim().to_lowercase())
                .and_modify(|it| *it = of(*it, *value))
                .or_insert(*value);
            all
        })
}

/// The greater of two step functions at every size.
pub(super) fn strictest_bands(a: &[Band], b: &[Band]) -> Vec<Band> {
    let begins: BTreeSet<i64> = a.iter().chain(b).map(|band| band.from).collect();
    let mut bands: Vec<Band> = Vec::new();
    for from in begins {
        let points = points_of_size(a, from)
            .max(points_of_size(b, from))
            .min(MAX_POINTS);
        if bands.last().is_none_or(|last| points > last.points) {
            bands.push(Band { from, points });
        }
    }
    bands
}

pub(super) fn each_tier(
    a: &Tiers,
    b: &Tiers,
    of: impl Fn(&TierDemands, &TierDemands) -> TierDemands,
) -> Tiers {
    Tiers {
        low: of(&a.low, &b.low),
        medium: of(&a.medium, &b.medium),
        high: of(&a.high, &b.high),
        critical: of(&a.critical, &b.critical),
    }
}

pub(super) fn strictest_demands(a: &TierDemands, b: &TierDemands) -> TierDemands {
    TierDemands {
        steps: strictest_steps(&a.steps, &b.steps),
        max_first_weight: strictest(a.max_first_weight, b.max_first_weight, i32::min),
        max_increase: strictest(a.max_increase, b.max_increase, i32::min),
        min_final_weight: strictest(a.min_final_weight, b.min_final_weight, i32::max),
        min_bake: strictest(a.min_bake, b.min_bake, Duration::max),
        min_requests: strictest(a.min_requests, b.min_requests, i64::max),
        sign_off: either_demands(a.sign_off.as_deref(), b.sign_off.as_deref()),
        promotion_sign_off: either_demands(
            a.promotion_sign_off.as_deref(),
            b.promotion_sign_off.as_deref(),
        ),
        // A larger chance is stricter: weaker evidence then suffices to roll back.
        max_false_rollback: strictest(a.max_false_rollback, b.max_false_rollback, f64::max),
        max_false_promotion: strictest(a.max_false_promotion, b.max_false_promotion, f64::min),
        tolerated_ratio: strictest(a.tolerated_ratio, b.tolerated_ratio, f64::min),
        tolerated_difference: strictest(a.tolerated_difference, b.tolerated_difference, f64::min),
        margin_ratio: strictest(a.margin_ratio, b.margin_ratio, f64::min),
        margin_difference: strictest(a.margin_difference, b.margin_difference, f64::min),
        extend_at_most: strictest(a.extend_at_most, b.extend_at_most, Duration::max),
        on_scarce_evidence: strictest(
            a.on_scarce_evidence,
            b.on_scarce_evidence,
            OnScarceEvidence::max,
        ),
        switch_without_evidence: strictest(
            a.switch_without_evidence,
            b.switch_without_evidence,
            |a, b| a && b,
        ),
        wait_at_most: strictest(a.wait_at_most, b.wait_at_most, Duration::min),
        testers_before_sign_off: strictest(
            a.testers_before_sign_off,
            b.testers_before_sign_off,
            |a, b| a && b,
        ),
        require_router: strictest(a.require_router, b.require_router, |a, b| a || b),
        require_digest: strictest(a.require_digest, b.require_digest, |a, b| a || b),
        require_immutable_config: strictest(
            a.require_immutable_config,
            b.require_immutable_config,
            |a, b| a || b,
        ),
        require_policy_check: strictest(a.require_policy_check, b.require_policy_check, |a, b| {
            a || b
        }),
    }
}

pub(super) fn longest_history(a: History, b: History) -> History {
    History {
        runs: strictest(a.runs, b.runs, i32::max),
        keep_for: strictest(a.keep_for, b.keep_for, Duration::max),
    }
}

/// The demands of both policies; `None` if neither names any, which differs from an empty list.
pub(super) fn either_demands(
    a: Option<&[SignOffDemand]>,
    b: Option<&[SignOffDemand]>,
) -> Option<Vec<SignOffDemand>> {
    a.or(b)?;
    Some(every_demand(a.unwrap_or_default(), b.unwrap_or_default()))
}

/// All demands of both lists, without those that another demand includes.
pub(super) fn every_demand(a: &[SignOffDemand], b: &[SignOffDemand]) -> Vec<SignOffDemand> {
    let all: BTreeSet<SignOffDemand> = a
        .iter()
        .chain(b)
        .map(|demand| {
            let groups: BTreeSet<_> = demand.groups.iter().cloned().collect();
            SignOffDemand {
                count: demand.count,
                groups: groups.into_iter().collect(),
            }
        })
        .collect();
    let included = |demand: &SignOffDemand| {
        all.iter()
            .any(|other| other != demand && sign_off_demand::includes(other, demand))
    };
    all.iter()
        .filter(|demand| !included(demand))
        .cloned()
        .collect()
}
