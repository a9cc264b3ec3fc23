#![allow(
    clippy::float_cmp,
    reason = "no number is computed: each is one of those given"
)]

mod defaults;

use std::collections::{BTreeMap, BTreeSet};

use countersign_api::policy::{
    Difference, Enforcement, Factor, Floor, OnScarceEvidence, RiskModel, RolloutPolicySpec,
    Thresholds, TierDemands,
};
use countersign_api::provenance::{Covers, ReviewSource, Trust};
use countersign_api::step::{SignOffDemand, Step, Tier};
use countersign_api::{Duration, Selector};
use proptest::prelude::*;

use crate::observation::people::NamedPolicy;
use crate::policy::defaults::{built_in, filled_demands};
use crate::policy::enforcement::demands;
use crate::policy::invariants::CRITICAL;
use crate::policy::merge::{each_tier, points_of_size, strictest_demands, strictest_risk};
use crate::policy::sign_off_demand::includes;
use crate::policy::{Effective, arbitrary, complete, effective, governs};

pub(super) fn policy(name: &str, spec: &str) -> NamedPolicy {
    let spec = serde_saphyr::from_str(spec).unwrap();
    NamedPolicy {
        name: name.to_owned(),
        generation: 3,
        spec,
    }
}

fn renamed(policy: &NamedPolicy, name: &str) -> NamedPolicy {
    NamedPolicy {
        name: name.to_owned(),
        ..policy.clone()
    }
}

/// The same policy with everything named that it leaves to the built-in one.
pub(super) fn naming_all(policy: &NamedPolicy) -> NamedPolicy {
    let mut policy = policy.clone();
    policy.spec.risk = complete(&policy.spec.risk);
    policy.spec.tiers = each_tier(&policy.spec.tiers, &built_in().tiers, filled_demands);
    policy
}

#[test]
fn one_policy_is_enough_to_require_that_everybody_is_known() {
    let requires = policy("a", "people: { requireKnown: true }");
    let names = policy(
        "b",
        "people: { aliases: [{ user: jane, identities: [Jane] }] }",
    );
    assert!(!effective(std::slice::from_ref(&names)).people.require_known);
    let both = effective(&[requires, names]).people;
    assert!(both.require_known && both.aliases.len() == 1);
}

#[test]
fn a_policy_governs_what_both_its_selectors_select() {
    let labels = |of: &[(&str, &str)]| -> BTreeMap<String, String> {
        of.iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect()
    };
    let selector = |of: &[(&str, &str)]| {
        Some(Selector {
            match_labels: labels(of),
        })
    };
    let spec = RolloutPolicySpec {
        namespace_selector: selector(&[("env", "prod")]),
        rollout_selector: selector(&[("team", "pay")]),
        ..RolloutPolicySpec::default()
    };
    let (prod, pay) = (
        labels(&[("env", "prod"), ("x", "y")]),
        labels(&[("team", "pay")]),
    );
    assert!(governs(&spec, &prod, &pay));
    assert!(!governs(&spec, &labels(&[]), &pay));
    assert!(!governs(&spec, &prod, &labels(&[("team", "shop")])));
    assert!(governs(
        &RolloutPolicySpec::default(),
        &labels(&[]),
        &labels(&[])
    ));
}

#[test]
fn the_strictest_demand_wins_field_by_field() {
    let a = policy("a", "
risk:
  version: '1'
  size: [{from: 0, points: 1}, {from: 100, points: 20}]
  points: {noReview: 9, testsFailed: 20}
  touches: {Auth: 7}
  criticality: {label: tier, points: {gold: 9}}
  floors: {noProvenance: medium}
  thresholds: {medium: 10, high: 30}
tiers:
  low: {maxFirstWeight: 20, minBake: 2m, maxFalseRollback: 0.02, signOff: [{count: 1, groups: [sre, sre]}]}
analysis: {interval: 30s, checks: [{name: errors, preset: HttpRequestsTotal}]}
");
    let b = policy("b", "
risk:
  size: [{from: 0, points: 0}, {from: 10, points: 5}, {from: 200, points: 10}]
  points: {noReview: 1}
  touches: {auth: 2, api: 1}
  criticality: {label: class, points: {gold: 3, iron: 1}}
  floors: {noProvenance: high}
  thresholds: {high: 22, critical: 21}
tiers:
  low: {maxFirstWeight: 30, minBake: 1m, maxFalseRollback: 0.01, signOff: [{count: 2, groups: [sre]}, {count: 1}]}
analysis: {interval: 10s, checks: [{name: errors, preset: HttpRequestsTotal}]}
");
    let both = effective(&[b, a]);
    let bands: Vec<_> = both
        .risk
        .size
        .iter()
        .map(|band| (band.from, band.points))
        .collect();
    assert_eq!(bands, [(0, 1.0), (10, 5.0), (100, 20.0)]);
    assert_eq!(both.risk.points[&Factor::NoReview], 9.0);
    assert_eq!(both.risk.points[&Factor::TestsFailed], 20.0);
    assert_eq!(both.risk.touches["auth"], 7.0);
    assert_eq!(
        both.risk.touches["migration"], 8.0,
        "from the built-in policy"
    );
    assert_eq!(both.risk.criticality.label.as_deref(), Some("class,tier"));
    assert_eq!(both.risk.criticality.points["gold"], 9.0);
    assert_eq!(both.risk.floors[&Floor::NoProvenance], Tier::High);
    let Thresholds {
        medium,
        high,
        critical,
    } = both.risk.thresholds;
    assert_eq!(
        (medium, high, critical),
        (Some(10.0), Some(21.0), Some(21.0))
    );
    let low = &both.tiers.low;
    assert_eq!(
        (low.max_first_weight, low.min_bake),
        (Some(20), Some(Duration::minutes(2)))
    );
    assert_eq!(low.max_false_rollback, Some(0.02));
    assert_eq!(
        low.sign_off,
        Some(vec![SignOffDemand {
            count: 2,
            groups: vec!["sre".into()]
        }])
    );
    let checks: Vec<_> = both.checks.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        (checks, both.interval),
        (vec!["a/errors", "b/errors"], Some(Duration::seconds(10)))
    );
    assert_eq!(both.sources, ["a@3", "b@3", "built-in"]);
    assert_eq!(both.versions, ["a: 1", "built-in: built-in-1"]);
}

#[test]
fn records_are_kept_as_long_as_any_policy_says() {
    let history = |policies: &[NamedPolicy]| {
        let history = effective(policies).history;
        (history.runs, history.keep_for)
    };
    let a = policy("a", "history: {runs: 20, keepFor: 24h}");
    let b = policy("b", "history: {runs: 5, keepFor: 48h}");
    assert_eq!(history(&[]), (Some(10), None), "as built in");
    assert_eq!(
        history(&[a.clone(), b.clone()]),
        (Some(20), Some(Duration::minutes(48 * 60)))
    );
    assert_eq!(history(&[b]), (Some(5), Some(Duration::minutes(48 * 60))));
    let mut observing = a;
    observing.spec.enforcement = Enforcement::Observe;
    let enforced = demands(&[observing, policy("c", "{}")], None).enforced;
    assert_eq!(enforced.history.runs, Some(20), "observing forgets nothing");
}

#[test]
fn law_7_of_several_policies_the_strictest_demand_on_provenance_wins() {
    let a = policy(
        "a",
        "provenance: {trust: Attested, maxAge: 24h, reviewSources: [Forge, SignedCommit]}",
    );
    let b = policy(
        "b",
        "provenance: {maxAge: 720h, covers: Template, reviewSources: [Trailer, Forge]}",
    );
    let both = effective(&[a.clone(), b.clone()]);
    assert_eq!(
        (both.trust, both.covers),
        (Trust::Attested, Covers::Template)
    );
    assert_eq!(both.max_age, Some(Duration::minutes(24 * 60)));
    assert_eq!(both.review_sources, Some([ReviewSource::Forge].into()));
    assert!(!both.accepts_review(None), "hiding the source does not pay");

    let none = policy("c", "provenance: {reviewSources: []}");
    let nothing = effective(&[a, b, none]);
    assert!(!nothing.accepts_review(Some(ReviewSource::Forge)));
    let any = effective(&[policy("d", "{}")]);
    assert!(any.accepts_review(None) && any.accepts_review(Some(ReviewSource::Flag)));
    assert_eq!((any.max_age, any.covers), (None, Covers::Images));
}

#[test]
fn hiding_never_pays_whatever_a_policy_states() {
    let a = policy("a", "
risk:
  size: [{from: 0, points: 0}, {from: 500, points: 40}]
  points: {sizeUnknown: 0, contributorUnknown: -5, noProvenance: 0, aiShare: 10, testsUnknown: 0, testsFailed: 1, noReview: 0}
  criticality: {points: {gold: 30}}
");
    let points = effective(&[a]).risk;
    let of = |factor| points.points[&factor];
    assert_eq!(of(Factor::SizeUnknown), 40.0);
    assert_eq!(
        (of(Factor::ContributorUnknown), of(Factor::NoProvenance)),
        (10.0, 10.0)
    );
    assert_eq!(
        (of(Factor::TestsUnknown), of(Factor::TestsFailed)),
        (3.0, 3.0)
    );
    assert_eq!(of(Factor::NoReview), of(Factor::StaleReview));
    assert_eq!(points.criticality.points[CRITICAL], 30.0);
}

#[test]
fn a_higher_tier_demands_at_least_what_a_lower_one_does() {
    let a = policy("a", "
tiers:
  low: {maxFirstWeight: 1, minRequests: 999, signOff: [{count: 3}], onScarceEvidence: Hold, steps: [{weight: 1, bake: 10h}]}
  medium: {onScarceEvidence: Promote}
");
    let tiers = effective(std::slice::from_ref(&a)).tiers;
    for tier in Tier::ALL {
        let demands = tiers.get(tier);
        assert_eq!(
            (demands.max_first_weight, demands.min_requests),
            (Some(1), Some(999)),
            "{tier}"
        );
        assert_eq!(
            demands.sign_off,
            Some(vec![SignOffDemand {
                count: 3,
                groups: vec![]
            }]),
            "{tier}"
        );
        assert_eq!(
            weight_at(&demands.steps, Duration::minutes(599)),
            1,
            "{tier}"
        );
        assert!(
            demands.on_scarce_evidence >= Some(OnScarceEvidence::Hold),
            "{tier}"
        );
    }
    let b = policy(
        "b",
        "tiers: {critical: {onScarceEvidence: Promote}, medium: {onScarceEvidence: Promote}}",
    );
    let tiers = effective(&[b]).tiers;
    assert_eq!(
        tiers.low.on_scarce_evidence,
        Some(OnScarceEvidence::Promote)
    );
    assert_eq!(
        tiers.medium.on_scarce_evidence,
        Some(OnScarceEvidence::Hold)
    );
    assert_eq!(
        tiers.critical.on_scarce_evidence,
        Some(OnScarceEvidence::Hold),
        "as tier high"
    );
}

#[test]
fn a_demand_includes_another_only_if_its_signers_always_meet_it() {
    let demand = |count, groups: &[&str]| SignOffDemand {
        count,
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
    };
    assert!(includes(&demand(2, &["a"]), &demand(1, &[])));
    assert!(includes(&demand(1, &["a"]), &demand(1, &["a", "b"])));
    assert!(!includes(&demand(1, &["a", "b"]), &demand(1, &["a"])));
    assert!(!includes(&demand(2, &[]), &demand(1, &["a"])));
    assert!(!includes(&demand(1, &["a"]), &demand(2, &["a"])));
}

/// Share of the traffic that steps give at a time after the first; all of it after the last.
fn weight_at(steps: &[Step], time: Duration) -> i32 {
    let mut end = std::time::Duration::ZERO;
    let step = steps.iter().find(|step| {
        end += step.bake.std();
        time.std() < end
    });
    step.map_or(100, |step| step.weight)
}

fn no_looser_points<K: Ord>(a: &BTreeMap<K, f64>, b: &BTreeMap<K, f64>) -> bool {
    b.iter()
        .all(|(key, points)| a.get(key).is_some_and(|it| it >= points))
}

fn no_looser_tiers<K: Ord>(a: &BTreeMap<K, Tier>, b: &BTreeMap<K, Tier>) -> bool {
    b.iter()
        .all(|(key, tier)| a.get(key).is_some_and(|it| it >= tier))
}

fn no_looser_risk(a: &RiskModel, b: &RiskModel) -> bool {
    let bands = a.size.iter().chain(&b.size).map(|band| band.from);
    let labels = |of: &RiskModel| -> BTreeSet<String> {
        of.criticality
            .label
            .iter()
            .flat_map(|it| it.split(','))
            .map(ToOwned::to_owned)
            .collect()
    };
    bands
        .into_iter()
        .all(|at| points_of_size(&a.size, at) >= points_of_size(&b.size, at))
        && no_looser_points(&a.points, &b.points)
        && no_looser_points(&a.touches, &b.touches)
        && no_looser_points::<Difference>(&a.differences, &b.differences)
        && no_looser_points(&a.criticality.points, &b.criticality.points)
        && a.criticality.otherwise >= b.criticality.otherwise
        && labels(a).is_superset(&labels(b))
        && no_looser_tiers(&a.touches_floor, &b.touches_floor)
        && no_looser_tiers(&a.floors, &b.floors)
        && a.thresholds.medium <= b.thresholds.medium
        && a.thresholds.high <= b.thresholds.high
        && a.thresholds.critical <= b.thresholds.critical
}

fn no_looser_sign_off(a: &[SignOffDemand], b: &[SignOffDemand]) -> bool {
    b.iter()
        .all(|demand| a.iter().any(|other| includes(other, demand)))
}

pub(super) fn no_looser_demands(a: &TierDemands, b: &TierDemands) -> bool {
    let minutes = (0..400).map(|half| Duration::seconds(half * 30));
    minutes
        .into_iter()
        .all(|at| weight_at(&a.steps, at) <= weight_at(&b.steps, at))
        && a.max_first_weight <= b.max_first_weight
        && a.max_increase <= b.max_increase
        && a.min_final_weight >= b.min_final_weight
        && a.min_bake >= b.min_bake
        && a.min_requests >= b.min_requests
        && no_looser_sign_off(
            a.sign_off.as_deref().unwrap(),
            b.sign_off.as_deref().unwrap(),
        )
        && no_looser_sign_off(
            a.promotion_sign_off.as_deref().unwrap(),
            b.promotion_sign_off.as_deref().unwrap(),
        )
        && a.max_false_rollback >= b.max_false_rollback
        && a.max_false_promotion <= b.max_false_promotion
        && a.tolerated_ratio <= b.tolerated_ratio
        && a.tolerated_difference <= b.tolerated_difference
        && a.margin_ratio <= b.margin_ratio
        && a.margin_difference <= b.margin_difference
        && a.extend_at_most >= b.extend_at_most
        && a.on_scarce_evidence >= b.on_scarce_evidence
        && a.switch_without_evidence <= b.switch_without_evidence
        && a.wait_at_most <= b.wait_at_most
        && a.require_router >= b.require_router
        && a.testers_before_sign_off <= b.testers_before_sign_off
        && a.require_digest >= b.require_digest
        && a.require_immutable_config >= b.require_immutable_config
        && a.require_policy_check >= b.require_policy_check
}

fn no_looser_provenance(a: &Effective, b: &Effective) -> bool {
    let is_younger = |than: Duration| a.max_age.is_some_and(|it| it <= than);
    let mut sources = ReviewSource::ALL.map(Some).into_iter().chain([None]);
    a.trust >= b.trust
        && a.covers >= b.covers
        && b.max_age.is_none_or(is_younger)
        && sources.all(|it| !a.accepts_review(it) || b.accepts_review(it))
}

pub(super) fn no_looser(a: &Effective, b: &Effective) -> bool {
    no_looser_risk(&a.risk, &b.risk)
        && no_looser_provenance(a, b)
        && Tier::ALL
            .iter()
            .all(|tier| no_looser_demands(a.tiers.get(*tier), b.tiers.get(*tier)))
        && Tier::ALL
            .iter()
            .all(|tier| no_looser_sign_off(&a.first_sign_off(*tier), &b.first_sign_off(*tier)))
        && b.checks.iter().all(|check| a.checks.contains(check))
        && (b.interval.is_none() || a.interval.is_some() && a.interval <= b.interval)
}

proptest! {
    #[test]
    fn policies_merge_the_same_in_any_order_and_however_often(
        a in arbitrary::policy("a"), b in arbitrary::policy("b"), c in arbitrary::policy("c"),
    ) {
        let all = effective(&[a.clone(), b.clone(), c.clone()]);
        prop_assert_eq!(&effective(&[c.clone(), a.clone(), b.clone(), a.clone()]), &all);
        // Under other names they are merged in another order.
        let other = effective(&[renamed(&a, "z"), renamed(&b, "y"), c.clone()]);
        prop_assert_eq!((&other.risk, other.interval), (&all.risk, all.interval));
        for tier in Tier::ALL {
            prop_assert!(no_looser_demands(other.tiers.get(tier), all.tiers.get(tier)), "law 7: {}", tier);
            prop_assert!(no_looser_demands(all.tiers.get(tier), other.tiers.get(tier)), "law 7: {}", tier);
        }
        let twice = effective(&[a.clone(), renamed(&a, "z"), b, c]);
        prop_assert_eq!(&twice.risk, &all.risk);
        for tier in Tier::ALL {
            prop_assert!(no_looser_demands(twice.tiers.get(tier), all.tiers.get(tier)), "law 7: {}", tier);
            prop_assert!(no_looser_demands(all.tiers.get(tier), twice.tiers.get(tier)), "law 7: {}", tier);
        }
    }

    #[test]
    fn law_7_one_more_policy_never_loosens_what_another_names(
        a in arbitrary::policy("a"), b in arbitrary::policy("b"), c in arbitrary::policy("c"),
    ) {
        let a = naming_all(&a);
        let one = effective(std::slice::from_ref(&a));
        let two = effective(&[a.clone(), b.clone()]);
        prop_assert!(no_looser(&two, &one));
        prop_assert!(no_looser(&effective(&[a, b, c]), &two));
    }

    #[test]
    fn law_7_what_a_policy_leaves_out_may_be_named_by_another_as_strictly_as_built_in(
        a in arbitrary::policy("a"), b in arbitrary::policy("b"),
    ) {
        // Names at least what the built-in policy says, so nothing falls below it.
        let strict = naming_all(&NamedPolicy { name: "b".into(), generation: 1, spec: RolloutPolicySpec::default() });
        let mut b = b;
        b.spec.risk = strictest_risk(&b.spec.risk, &strict.spec.risk);
        b.spec.tiers = each_tier(&b.spec.tiers, &strict.spec.tiers, strictest_demands);
        prop_assert!(no_looser(&effective(&[a.clone(), b]), &effective(&[a])));
    }

    #[test]
    fn law_7_no_policy_makes_a_higher_tier_looser_than_a_lower_one(
        a in arbitrary::policy("a"), b in arbitrary::policy("b"),
    ) {
        let merged = effective(&[a, b]);
        let tiers = &merged.tiers;
        for pair in Tier::ALL.windows(2) {
            let first = [pair[1], pair[0]].map(|tier| merged.first_sign_off(tier));
            prop_assert!(no_looser_sign_off(&first[0], &first[1]), "{}", pair[1]);
            prop_assert!(no_looser_demands(tiers.get(pair[1]), tiers.get(pair[0])), "{}", pair[1]);
            prop_assert!(tiers.get(pair[1]).on_scarce_evidence > Some(OnScarceEvidence::Promote));
        }
    }

    #[test]
    fn a_complete_model_names_everything_and_stays_as_it_is(model in arbitrary::risk_model()) {
        let once = complete(&model);
        prop_assert!(built_in().risk.points.keys().all(|factor| once.points.contains_key(factor)));
        prop_assert!(once.points.values().chain(once.touches.values()).all(|it| (0.0..=100.0).contains(it)));
        prop_assert_eq!(complete(&once), once);
    }
}
