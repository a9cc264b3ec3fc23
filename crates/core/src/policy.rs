//! Which policies govern a Rollout, and what they demand of it together.
//!
//! Three rules, in this order: the strictest of several policies wins, field by field; what none of
//! them names is taken from the built-in policy; and an order that no policy can break is restored
//! (an unknown answer weighs at least as much as any declared one, a higher tier asks for at least
//! as much as a lower one). Start with [`effective`].
//!
//! Invariant: naming a field in one more policy never loosens what another policy names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use countersign_api::freeze::{FreezeWindow, IncidentQuery};
use countersign_api::plan::{SignOffDemand, Tier};
use countersign_api::policy::{
    Band, Concurrency, Criticality, Factor, OnScarceEvidence, People, RiskModel, RolloutPolicy,
    RolloutPolicySpec, Thresholds, TierDemands, Tiers, Trust, TrustedKey,
};
use countersign_api::{Check, Duration, Objective};

use crate::observation::people::NamedPolicy;
use crate::plan::strictest_steps;

/// The manifest of the policy that applies where none is installed, with the reason for each value.
pub const BUILT_IN: &str = include_str!("built_in_policy.yaml");

/// The name of the policy in [`BUILT_IN`].
pub const BUILT_IN_NAME: &str = "built-in";

/// The label value of a service whose change has at least the tier of floor `criticalService`.
pub const CRITICAL: &str = "critical";

/// Most points that one factor can have.
const MAX_POINTS: f64 = 100.0;

/// What all policies that govern a Rollout demand together. Nothing is left out in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// How risk is scored, with every field set.
    pub risk: RiskModel,
    /// What each tier demands, with every field set; a higher tier demands at least what a lower one does.
    pub tiers: Tiers,
    /// The checks of all policies, each under the name `policy/check`.
    pub checks: Vec<(String, Check)>,
    /// The objectives of all policies, each under the name `policy/objective`.
    pub objectives: Vec<(String, Objective)>,
    /// The shortest interval that a policy names.
    pub interval: Option<Duration>,
    /// The longest warm-up that a policy names.
    pub warm_up: Duration,
    /// The longest watch after a promotion that a policy names.
    pub post_promotion: Duration,
    /// Tiers whose changes do not start while an error budget is spent.
    pub budget_tiers: BTreeSet<Tier>,
    /// Where all this comes from: each policy as `name@generation`, and `built-in` where it filled gaps.
    pub sources: Vec<String>,
    /// Versions of the risk weights, each as `policy: version`.
    pub versions: Vec<String>,
    /// Everybody's names and the agents' groups, of all policies.
    pub people: People,
    /// Which provenance may lower the risk.
    pub trust: Trust,
    /// Keys by policy: an attestation must be signed by one key of each policy that has any.
    pub keys: Vec<Vec<TrustedKey>>,
    /// Windows of freezing, each under the name `policy/window`.
    pub windows: Vec<FreezeWindow>,
    /// Incident queries, each with the name of its policy.
    pub incidents: Vec<(String, IncidentQuery)>,
    /// Limits on changes that run at once, each with the name of its policy.
    pub concurrency: Vec<(String, Concurrency)>,
}

static PARSED: LazyLock<RolloutPolicySpec> = LazyLock::new(|| {
    #[allow(
        clippy::expect_used,
        reason = "a unit test proves that this constant can be read"
    )]
    serde_saphyr::from_str::<RolloutPolicy>(BUILT_IN)
        .expect("the built-in policy can be read")
        .spec
});

/// The policy that applies where none is installed.
#[must_use]
pub fn built_in() -> &'static RolloutPolicySpec {
    &PARSED
}

/// Whether a policy governs a Rollout with these labels in a namespace with those.
#[must_use]
pub fn governs(
    spec: &RolloutPolicySpec,
    namespace_labels: &BTreeMap<String, String>,
    rollout_labels: &BTreeMap<String, String>,
) -> bool {
    let selected = |selector: &Option<countersign_api::Selector>,
                    labels: &BTreeMap<String, String>| {
        selector
            .as_ref()
            .is_none_or(|selector| selector.matches(labels))
    };
    selected(&spec.namespace_selector, namespace_labels)
        && selected(&spec.rollout_selector, rollout_labels)
}

/// What these policies demand together; the built-in policy alone where there are none.
#[must_use]
pub fn effective(policies: &[NamedPolicy]) -> Effective {
    let mut policies: Vec<&NamedPolicy> = policies.iter().collect();
    policies.sort_by(|a, b| (&a.name, a.generation).cmp(&(&b.name, b.generation)));
    policies.dedup();

    let (risk, tiers) = policies.iter().fold(
        (RiskModel::default(), Tiers::default()),
        |(risk, tiers), NamedPolicy { spec, .. }| {
            (
                strictest_risk(&risk, &spec.risk),
                each_tier(&tiers, &spec.tiers, strictest_demands),
            )
        },
    );
    let filled_risk = filled_risk(&risk, &built_in().risk);
    let filled_tiers = each_tier(&tiers, &built_in().tiers, filled_demands);
    let fills = policies.is_empty() || filled_risk != risk || filled_tiers != tiers;

    let mut sources: Vec<_> = policies
        .iter()
        .map(|policy| format!("{}@{}", policy.name, policy.generation))
        .collect();
    let mut versions: Vec<_> = policies
        .iter()
        .filter_map(|policy| {
            Some(format!(
                "{}: {}",
                policy.name,
                policy.spec.risk.version.as_ref()?
            ))
        })
        .collect();
    if fills {
        sources.push(BUILT_IN_NAME.to_owned());
        versions.extend(
            built_in()
                .risk
                .version
                .as_ref()
                .map(|it| format!("{BUILT_IN_NAME}: {it}")),
        );
    }
    let analyses = || {
        policies
            .iter()
            .filter_map(|it| Some((&it.name, it.spec.analysis.as_ref()?)))
    };
    Effective {
        risk: ordered(filled_risk),
        tiers: rising(&filled_tiers),
        checks: analyses()
            .flat_map(|(policy, analysis)| analysis.checks.iter().map(move |check| (policy, check)))
            .map(|(policy, check)| (format!("{policy}/{}", check.name), check.clone()))
            .collect(),
        objectives: analyses()
            .flat_map(|(policy, analysis)| analysis.objectives.iter().map(move |it| (policy, it)))
            .map(|(policy, it)| (format!("{policy}/{}", it.name), it.clone()))
            .collect(),
        interval: analyses().map(|(_, analysis)| analysis.interval).min(),
        warm_up: longest(analyses().filter_map(|(_, analysis)| analysis.warm_up)),
        post_promotion: longest(analyses().filter_map(|(_, analysis)| analysis.post_promotion)),
        budget_tiers: policies
            .iter()
            .flat_map(|it| it.spec.error_budget.tiers.iter().copied())
            .collect(),
        sources,
        versions,
        people: all_people(&policies),
        trust: policies
            .iter()
            .filter_map(|it| it.spec.provenance.trust)
            .max()
            .unwrap_or_default(),
        keys: policies
            .iter()
            .map(|it| it.spec.provenance.keys.clone())
            .filter(|keys| !keys.is_empty())
            .collect(),
        windows: policies.iter().flat_map(|it| named_windows(it)).collect(),
        incidents: policies
            .iter()
            .filter_map(|it| Some((it.name.clone(), it.spec.freeze.incident.clone()?)))
            .collect(),
        concurrency: policies
            .iter()
            .filter_map(|it| Some((it.name.clone(), it.spec.concurrency.clone()?)))
            .collect(),
    }
}

fn longest(durations: impl Iterator<Item = Duration>) -> Duration {
    durations.max().unwrap_or_default()
}

fn all_people(policies: &[&NamedPolicy]) -> People {
    let all = || policies.iter().map(|it| &it.spec.people);
    People {
        aliases: all().flat_map(|it| it.aliases.clone()).collect(),
        agent_groups: all().flat_map(|it| it.agent_groups.clone()).collect(),
    }
}

fn named_windows(policy: &NamedPolicy) -> impl Iterator<Item = FreezeWindow> {
    policy
        .spec
        .freeze
        .windows
        .iter()
        .map(|window| FreezeWindow {
            name: format!("{}/{}", policy.name, window.name),
            ..window.clone()
        })
}

/// A risk model with every field set, in the order that no policy can break. Scores are counted by
/// such a model only, so that the laws hold for whatever a policy says.
#[must_use]
pub fn complete(risk: &RiskModel) -> RiskModel {
    ordered(filled_risk(
        &strictest_risk(&RiskModel::default(), risk),
        &built_in().risk,
    ))
}

/// Points of a size: those of the highest band that it reaches.
#[must_use]
pub fn points_of_size(bands: &[Band], lines: i64) -> f64 {
    bands
        .iter()
        .filter(|band| band.from <= lines)
        .map(|band| band.points)
        .fold(0.0, f64::max)
}

// --- The strictest of two ------------------------------------------------------------------------

fn strictest<T>(a: Option<T>, b: Option<T>, of: impl FnOnce(T, T) -> T) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(of(a, b)),
        (a, b) => a.or(b),
    }
}

fn strictest_each<K: Ord + Clone, V: Copy>(
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

fn strictest_risk(a: &RiskModel, b: &RiskModel) -> RiskModel {
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
    // A policy that gives a value no points of its own says of it what it says otherwise.
    let points = values.into_iter().filter_map(|value| {
        let a = a_points.get(value).copied().or(a.otherwise);
        let b = b_points.get(value).copied().or(b.otherwise);
        Some((value.clone(), strictest(a, b, f64::max)?))
    });
    Criticality {
        // No label holds a comma, so this says: whichever of them weighs most counts.
        label: names(a.label.as_deref(), b.label.as_deref(), ","),
        points: points.collect(),
        otherwise: strictest(a.otherwise, b.otherwise, f64::max),
    }
}

/// Both lists of names as one, in order and without repetition.
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
fn strictest_bands(a: &[Band], b: &[Band]) -> Vec<Band> {
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

fn each_tier(
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

fn strictest_demands(a: &TierDemands, b: &TierDemands) -> TierDemands {
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
        // A larger chance is the stricter one: weaker evidence then suffices to roll back.
        max_false_rollback: strictest(a.max_false_rollback, b.max_false_rollback, f64::max),
        max_false_promotion: strictest(a.max_false_promotion, b.max_false_promotion, f64::min),
        tolerated_ratio: strictest(a.tolerated_ratio, b.tolerated_ratio, f64::min),
        tolerated_difference: strictest(a.tolerated_difference, b.tolerated_difference, f64::min),
        margin_ratio: strictest(a.margin_ratio, b.margin_ratio, f64::min),
        margin_difference: strictest(a.margin_difference, b.margin_difference, f64::min),
        on_scarce_evidence: strictest(
            a.on_scarce_evidence,
            b.on_scarce_evidence,
            OnScarceEvidence::max,
        ),
        wait_at_most: strictest(a.wait_at_most, b.wait_at_most, Duration::min),
        require_router: strictest(a.require_router, b.require_router, |a, b| a || b),
    }
}

/// The demands of both policies; `None` where neither names any, which is not the same as an empty list.
fn either_demands(
    a: Option<&[SignOffDemand]>,
    b: Option<&[SignOffDemand]>,
) -> Option<Vec<SignOffDemand>> {
    a.or(b)?;
    Some(every_demand(a.unwrap_or_default(), b.unwrap_or_default()))
}

/// All demands of both lists, without those that another one includes.
fn every_demand(a: &[SignOffDemand], b: &[SignOffDemand]) -> Vec<SignOffDemand> {
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
            .any(|other| other != demand && includes(other, demand))
    };
    all.iter()
        .filter(|demand| !included(demand))
        .cloned()
        .collect()
}

/// Whether any signers that meet `a` also meet `b`.
#[must_use]
pub fn includes(a: &SignOffDemand, b: &SignOffDemand) -> bool {
    let each_of_a_may_sign_b = b.groups.is_empty()
        || (!a.groups.is_empty() && a.groups.iter().all(|group| b.groups.contains(group)));
    a.count >= b.count && each_of_a_may_sign_b
}

// --- What none of the policies names -------------------------------------------------------------

fn filled_risk(risk: &RiskModel, from: &RiskModel) -> RiskModel {
    let Thresholds {
        medium,
        high,
        critical,
    } = risk.thresholds;
    RiskModel {
        version: risk.version.clone().or_else(|| from.version.clone()),
        size: if risk.size.is_empty() {
            from.size.clone()
        } else {
            risk.size.clone()
        },
        points: filled(&risk.points, &from.points),
        touches: filled(&risk.touches, &from.touches),
        touches_floor: filled(&risk.touches_floor, &from.touches_floor),
        differences: filled(&risk.differences, &from.differences),
        criticality: Criticality {
            label: risk
                .criticality
                .label
                .clone()
                .or_else(|| from.criticality.label.clone()),
            points: filled(&risk.criticality.points, &from.criticality.points),
            otherwise: risk.criticality.otherwise.or(from.criticality.otherwise),
        },
        floors: filled(&risk.floors, &from.floors),
        thresholds: Thresholds {
            medium: medium.or(from.thresholds.medium),
            high: high.or(from.thresholds.high),
            critical: critical.or(from.thresholds.critical),
        },
    }
}

fn filled<K: Ord + Clone, V: Copy>(
    named: &BTreeMap<K, V>,
    from: &BTreeMap<K, V>,
) -> BTreeMap<K, V> {
    strictest_each(named, from, |named, _| named)
}

fn filled_demands(demands: &TierDemands, from: &TierDemands) -> TierDemands {
    let steps = if demands.steps.is_empty() {
        &from.steps
    } else {
        &demands.steps
    };
    TierDemands {
        steps: steps.clone(),
        max_first_weight: demands.max_first_weight.or(from.max_first_weight),
        max_increase: demands.max_increase.or(from.max_increase),
        min_final_weight: demands.min_final_weight.or(from.min_final_weight),
        min_bake: demands.min_bake.or(from.min_bake),
        min_requests: demands.min_requests.or(from.min_requests),
        sign_off: demands.sign_off.clone().or_else(|| from.sign_off.clone()),
        promotion_sign_off: demands
            .promotion_sign_off
            .clone()
            .or_else(|| from.promotion_sign_off.clone()),
        max_false_rollback: demands.max_false_rollback.or(from.max_false_rollback),
        max_false_promotion: demands.max_false_promotion.or(from.max_false_promotion),
        tolerated_ratio: demands.tolerated_ratio.or(from.tolerated_ratio),
        tolerated_difference: demands.tolerated_difference.or(from.tolerated_difference),
        margin_ratio: demands.margin_ratio.or(from.margin_ratio),
        margin_difference: demands.margin_difference.or(from.margin_difference),
        on_scarce_evidence: demands.on_scarce_evidence.or(from.on_scarce_evidence),
        wait_at_most: demands.wait_at_most.or(from.wait_at_most),
        require_router: demands.require_router.or(from.require_router),
    }
}

// --- The order that no policy can break ----------------------------------------------------------

/// Restores what law 7 rests on. It only ever raises points and lowers thresholds.
///
/// - Nothing lowers a score: points are from 0 to 100.
/// - Hiding does not pay: an unknown answer weighs at least as much as any that could be declared.
///   Failed tests alone weigh more than unknown ones.
/// - `critical` weighs at least as much as any other criticality.
fn ordered(mut risk: RiskModel) -> RiskModel {
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
    risk.size = strictest_bands(&risk.size, &[]);

    let largest_band = points_of_size(&risk.size, i64::MAX);
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
    *high = strictest(*high, *critical, f64::min);
    *medium = strictest(*medium, *high, f64::min);
    risk
}

fn raise(points: &mut BTreeMap<Factor, f64>, factor: Factor, least: f64) {
    points
        .entry(factor)
        .and_modify(|it| *it = it.max(least))
        .or_insert(least);
}

/// Lets every tier demand at least what the tiers below it do, and only the lowest promote on
/// scarce evidence.
fn rising(tiers: &Tiers) -> Tiers {
    let above = |lower: &TierDemands, own: &TierDemands| {
        let mut demands = strictest_demands(lower, own);
        demands.on_scarce_evidence = strictest(
            demands.on_scarce_evidence,
            Some(OnScarceEvidence::Extend),
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

/// Policies of every shape, also such as the API server would refuse.
#[cfg(test)]
pub(super) mod arbitrary {
    use countersign_api::plan::Step;
    use countersign_api::policy::{Difference, Floor};
    use countersign_api::{Analysis, Preset};
    use proptest::collection::{btree_map, vec};
    use proptest::option::of;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn points() -> impl Strategy<Value = f64> {
        (-20_i32..=120).prop_map(|points| f64::from(points) / 2.0)
    }

    fn tier() -> impl Strategy<Value = Tier> {
        select(Tier::ALL.as_slice())
    }

    fn keys<K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + 'static>(
        names: &'static [&'static str],
    ) -> impl Strategy<Value = K> {
        select(names).prop_map(|name| serde_json::from_value(name.into()).unwrap())
    }

    fn factor() -> impl Strategy<Value = Factor> {
        let all: Vec<_> = built_in().risk.points.keys().copied().collect();
        select(all)
    }

    fn difference() -> impl Strategy<Value = Difference> {
        let all: Vec<_> = built_in().risk.differences.keys().copied().collect();
        select(all)
    }

    pub(crate) fn risk_model() -> impl Strategy<Value = RiskModel> {
        let words = || select(["auth", "Auth", "api", "migration", "other"].as_slice());
        let levels =
            || select(["low", "normal", "high", "critical", "Critical", "gold"].as_slice());
        let labels = select(["countersign.dev/criticality", "a", "b"].as_slice());
        let floor = keys::<Floor>(&[
            "noProvenance",
            "autonomousAgent",
            "criticalService",
            "testsFailed",
        ]);
        (
            (
                of(select(["1", "2"].as_slice()).prop_map(ToOwned::to_owned)),
                vec(
                    (0_i64..2000, points()).prop_map(|(from, points)| Band { from, points }),
                    0..4,
                ),
                btree_map(factor(), points(), 0..6),
                btree_map(words().prop_map(ToOwned::to_owned), points(), 0..3),
                btree_map(words().prop_map(ToOwned::to_owned), tier(), 0..3),
                btree_map(difference(), points(), 0..4),
            ),
            of(labels.prop_map(ToOwned::to_owned)),
            btree_map(levels().prop_map(ToOwned::to_owned), points(), 0..4),
            of(points()),
            btree_map(floor, tier(), 0..3),
            (of(0.0..60.0), of(0.0..60.0), of(0.0..60.0)),
        )
            .prop_map(
                |(first, label, levels, otherwise, floors, (medium, high, critical))| {
                    let (version, size, points, touches, touches_floor, differences) = first;
                    RiskModel {
                        version,
                        size,
                        points,
                        touches,
                        touches_floor,
                        differences,
                        criticality: Criticality {
                            label,
                            points: levels,
                            otherwise,
                        },
                        floors,
                        thresholds: Thresholds {
                            medium,
                            high,
                            critical,
                        },
                    }
                },
            )
    }

    fn sign_offs() -> impl Strategy<Value = Vec<SignOffDemand>> {
        let groups = vec(
            select(["senior", "sre"].as_slice()).prop_map(ToOwned::to_owned),
            0..3,
        );
        vec(
            (1..4, groups).prop_map(|(count, groups)| SignOffDemand { count, groups }),
            0..3,
        )
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        vec((1..99, 1_u64..30, 0_i64..50, sign_offs()), 0..4).prop_map(|mut parts| {
            parts.sort_by_key(|(weight, ..)| *weight);
            let step = |(weight, minutes, min_requests, sign_off)| Step {
                weight,
                bake: Duration::minutes(minutes),
                min_requests,
                sign_off,
                ..Step::default()
            };
            parts.into_iter().map(step).collect()
        })
    }

    fn demands() -> impl Strategy<Value = TierDemands> {
        let scarce = select(
            [
                OnScarceEvidence::Promote,
                OnScarceEvidence::Extend,
                OnScarceEvidence::Hold,
                OnScarceEvidence::RollBack,
            ]
            .as_slice(),
        );
        let minutes = || (0_u64..3000).prop_map(Duration::minutes);
        (
            (steps(), sign_offs(), sign_offs()),
            (of(1..=100), of(1..=100), of(0..=99), of(0_i64..1000)),
            (of(minutes()), of(minutes()), of(scarce), of(any::<bool>())),
            (
                of(0.001..0.5),
                of(0.001..0.5),
                of(1.0..9.0),
                of(0.0..0.1),
                of(1.0..9.0),
                of(0.001..0.1),
            ),
        )
            .prop_map(|(lists, numbers, others, chances)| {
                let (steps, sign_off, promotion_sign_off): (_, Vec<_>, Vec<_>) = lists;
                let sign_off = (!sign_off.is_empty()).then_some(sign_off);
                let (max_first_weight, max_increase, min_final_weight, min_requests) = numbers;
                let (min_bake, wait_at_most, on_scarce_evidence, require_router) = others;
                TierDemands {
                    steps,
                    max_first_weight,
                    max_increase,
                    min_final_weight,
                    min_bake,
                    min_requests,
                    sign_off,
                    promotion_sign_off: (!promotion_sign_off.is_empty())
                        .then_some(promotion_sign_off),
                    max_false_rollback: chances.0,
                    max_false_promotion: chances.1,
                    tolerated_ratio: chances.2,
                    tolerated_difference: chances.3,
                    margin_ratio: chances.4,
                    margin_difference: chances.5,
                    on_scarce_evidence,
                    wait_at_most,
                    require_router,
                }
            })
    }

    pub(crate) fn policy(name: &'static str) -> impl Strategy<Value = NamedPolicy> {
        let tiers = (demands(), demands(), demands(), demands()).prop_map(
            |(low, medium, high, critical)| Tiers {
                low,
                medium,
                high,
                critical,
            },
        );
        let analysis = of(
            (1_u64..60, select(["errors", "latency"].as_slice())).prop_map(|(seconds, name)| {
                Analysis {
                    interval: Duration::seconds(seconds),
                    checks: vec![Check {
                        name: name.to_owned(),
                        preset: Some(Preset::HttpRequestsTotal),
                        ..Check::default()
                    }],
                    ..Analysis::default()
                }
            }),
        );
        (1_i64..9, risk_model(), tiers, analysis).prop_map(
            move |(generation, risk, tiers, analysis)| {
                let spec = RolloutPolicySpec {
                    risk,
                    tiers,
                    analysis,
                    ..RolloutPolicySpec::default()
                };
                NamedPolicy {
                    name: name.to_owned(),
                    generation,
                    spec,
                }
            },
        )
    }
}

#[cfg(test)]
#[allow(
    clippy::float_cmp,
    reason = "no number is computed: each is one of those given"
)]
mod tests {
    use countersign_api::Selector;
    use countersign_api::plan::Step;
    use countersign_api::policy::{Difference, Floor};
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn policy(name: &str, spec: &str) -> NamedPolicy {
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
    fn naming_all(policy: &NamedPolicy) -> NamedPolicy {
        let mut policy = policy.clone();
        policy.spec.risk = complete(&policy.spec.risk);
        policy.spec.tiers = each_tier(&policy.spec.tiers, &built_in().tiers, filled_demands);
        policy
    }

    #[test]
    fn the_built_in_policy_can_be_read_and_names_every_field() {
        let policy: RolloutPolicy = serde_saphyr::from_str(BUILT_IN).unwrap();
        assert_eq!(policy.metadata.name.as_deref(), Some(BUILT_IN_NAME));

        // Read as plain data, so that an empty list counts as named.
        let written: Value = serde_saphyr::from_str(BUILT_IN).unwrap();
        let crd = serde_json::to_value(&countersign_api::crds()[1]).unwrap();
        let members = |of: &Value, path: &str| -> BTreeSet<String> {
            let members = of.pointer(path).and_then(Value::as_object);
            members
                .unwrap_or_else(|| panic!("{path}"))
                .keys()
                .cloned()
                .collect()
        };
        let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
        for part in [
            "risk",
            "risk/points",
            "risk/differences",
            "risk/criticality",
            "risk/floors",
            "risk/thresholds",
            "tiers",
            "tiers/low",
            "tiers/medium",
            "tiers/high",
            "tiers/critical",
        ] {
            let known = format!("{schema}/{}/properties", part.replace('/', "/properties/"));
            assert_eq!(
                members(&written, &format!("/spec/{part}")),
                members(&crd, &known),
                "{part}"
            );
        }
        assert!(built_in().risk.size.len() > 1 && built_in().risk.version.is_some());
    }

    #[test]
    fn the_documentation_gives_the_built_in_demands() {
        let docs = include_str!("../../../docs/policy.md");
        let tiers = serde_json::to_value(&built_in().tiers).unwrap();
        let first = |tier: Tier| built_in().tiers.get(tier).steps.first().cloned().unwrap();
        let same = |tier: Tier| {
            let alike = |step: &Step| {
                (step.bake, step.min_requests) == (first(tier).bake, first(tier).min_requests)
            };
            built_in().tiers.get(tier).steps.iter().all(alike)
        };
        assert!(
            Tier::ALL.into_iter().all(same),
            "one bake and one number for all steps of a tier"
        );
        let row = |of: &dyn Fn(Tier) -> String| format!("| {} |", Tier::ALL.map(of).join(" | "));
        let weights = |tier: Tier| -> Vec<String> {
            built_in()
                .tiers
                .get(tier)
                .steps
                .iter()
                .map(|step| step.weight.to_string())
                .collect()
        };
        let mut rows = vec![
            (
                "| `steps` |".to_owned(),
                row(&|tier| weights(tier).join(", ")),
            ),
            (
                "| | … `bake`".to_owned(),
                row(&|tier| first(tier).bake.to_string()),
            ),
            (
                "| | … `minRequests`".to_owned(),
                row(&|tier| first(tier).min_requests.to_string()),
            ),
        ];
        let low = tiers["low"].as_object().unwrap();
        for (field, _) in low.iter().filter(|(_, value)| !value.is_array()) {
            let value = |tier: Tier| match &tiers[tier.as_str()][field] {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.as_f64().unwrap().to_string(),
                Value::Bool(yes) => yes.to_string(),
                other => panic!("{field}: {other}"),
            };
            rows.push((format!("| `{field}` |"), row(&value)));
        }
        assert_eq!(rows.len(), 3 + 14);
        for (begin, end) in rows {
            let found = docs
                .lines()
                .any(|line| line.starts_with(&begin) && line.ends_with(&end));
            assert!(found, "docs/policy.md lacks {begin} … {end}");
        }
    }

    #[test]
    fn without_policies_the_built_in_one_applies_as_it_is_written() {
        let effective = effective(&[]);
        assert_eq!(
            effective.risk,
            built_in().risk,
            "the built-in policy keeps the order by itself"
        );
        for tier in Tier::ALL {
            let (found, written) = (effective.tiers.get(tier), built_in().tiers.get(tier));
            let expected = TierDemands {
                sign_off: either_demands(written.sign_off.as_deref(), None),
                promotion_sign_off: either_demands(written.promotion_sign_off.as_deref(), None),
                ..written.clone()
            };
            assert_eq!(*found, expected, "{tier}");
        }
        assert_eq!(effective.sources, ["built-in"]);
        assert_eq!(effective.versions, ["built-in: built-in-1"]);
        assert!(effective.checks.is_empty() && effective.interval.is_none());
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
    fn a_single_policy_may_be_looser_than_the_built_in_one() {
        let a = policy(
            "a",
            "
risk: {points: {noReview: 1, staleReview: 0}, thresholds: {critical: 60}}
tiers: {high: {minBake: 6m, signOff: []}}
",
        );
        let effective = effective(&[a]);
        assert_eq!(effective.risk.points[&Factor::NoReview], 1.0);
        assert_eq!(effective.risk.thresholds.critical, Some(60.0));
        assert_eq!(effective.tiers.high.min_bake, Some(Duration::minutes(6)));
        assert_eq!(
            effective.tiers.high.sign_off,
            Some(vec![]),
            "an empty list asks for none"
        );
    }

    #[test]
    fn hiding_never_pays_whatever_a_policy_says() {
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
            Some(OnScarceEvidence::Extend)
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

    fn no_looser_demands(a: &TierDemands, b: &TierDemands) -> bool {
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
            && a.on_scarce_evidence >= b.on_scarce_evidence
            && a.wait_at_most <= b.wait_at_most
            && a.require_router >= b.require_router
    }

    fn no_looser(a: &Effective, b: &Effective) -> bool {
        no_looser_risk(&a.risk, &b.risk)
            && Tier::ALL
                .iter()
                .all(|tier| no_looser_demands(a.tiers.get(*tier), b.tiers.get(*tier)))
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
            let tiers = effective(&[a, b]).tiers;
            for pair in Tier::ALL.windows(2) {
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
}
