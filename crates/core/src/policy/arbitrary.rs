//! Policies of every shape, including those that the API server would reject.

use countersign_api::first_revision::FirstRevision;
use countersign_api::policy::{
    Band, Criticality, Difference, Factor, Floor, OnScarceEvidence, RiskModel, RolloutPolicySpec,
    Thresholds, TierDemands, Tiers,
};
use countersign_api::provenance::{Covers, ProvenanceDemands, ReviewSource, Trust};
use countersign_api::step::{SignOffDemand, Step, Tier};
use countersign_api::{Analysis, Check, Duration, Preset};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use crate::observation::people::NamedPolicy;
use crate::policy::defaults::built_in;

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
    let levels = || select(["low", "normal", "high", "critical", "Critical", "gold"].as_slice());
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
            btree_map(difference(), tier(), 0..3),
        ),
        of(labels.prop_map(ToOwned::to_owned)),
        btree_map(levels().prop_map(ToOwned::to_owned), points(), 0..4),
        of(points()),
        btree_map(floor, tier(), 0..3),
        (of(0.0..60.0), of(0.0..60.0), of(0.0..60.0)),
    )
        .prop_map(
            |(first, label, levels, otherwise, floors, (medium, high, critical))| {
                let (version, size, points, touches, touches_floor, differences, differences_floor) =
                    first;
                RiskModel {
                    version,
                    size,
                    points,
                    touches,
                    touches_floor,
                    differences,
                    differences_floor,
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

/// Boxed, as the demands of several policies do not fit on the stack of a test beside their strategies.
fn demands() -> BoxedStrategy<TierDemands> {
    let scarce = select(
        [
            OnScarceEvidence::Promote,
            OnScarceEvidence::Hold,
            OnScarceEvidence::RollBack,
        ]
        .as_slice(),
    );
    let minutes = || (0_u64..3000).prop_map(Duration::minutes);
    (
        (steps(), sign_offs(), sign_offs()),
        (of(1..=100), of(1..=100), of(0..=99), of(0_i64..1000)),
        (
            (of(minutes()), of(minutes()), of(minutes())),
            of(scarce),
            (
                of(any::<bool>()),
                of(any::<bool>()),
                of(any::<bool>()),
                of(any::<bool>()),
                of(any::<bool>()),
                of(any::<bool>()),
            ),
        ),
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
            let ((min_bake, wait_at_most, extend_at_most), on_scarce_evidence, waivers) = others;
            let (switch_without_evidence, testers_before_sign_off, require_router, ..) = waivers;
            let (.., require_digest, require_immutable_config, require_policy_check) = waivers;
            TierDemands {
                steps,
                max_first_weight,
                max_increase,
                min_final_weight,
                min_bake,
                min_requests,
                sign_off,
                promotion_sign_off: (!promotion_sign_off.is_empty()).then_some(promotion_sign_off),
                max_false_rollback: chances.0,
                max_false_promotion: chances.1,
                tolerated_ratio: chances.2,
                tolerated_difference: chances.3,
                margin_ratio: chances.4,
                margin_difference: chances.5,
                extend_at_most,
                on_scarce_evidence,
                switch_without_evidence,
                wait_at_most,
                testers_before_sign_off,
                require_router,
                require_digest,
                require_immutable_config,
                require_policy_check,
            }
        })
        .boxed()
}

fn provenance() -> BoxedStrategy<ProvenanceDemands> {
    let trust = of(select([Trust::Declared, Trust::Attested].as_slice()));
    let covers = of(select([Covers::Images, Covers::Template].as_slice()));
    let max_age = of((1_u64..100).prop_map(Duration::minutes));
    let review_sources = of(vec(select(ReviewSource::ALL.as_slice()), 0..4));
    (trust, covers, max_age, review_sources)
        .prop_map(
            |(trust, covers, max_age, review_sources)| ProvenanceDemands {
                trust,
                keys: Vec::new(),
                max_age,
                covers,
                review_sources,
            },
        )
        .boxed()
}

pub(crate) fn policy(name: &'static str) -> impl Strategy<Value = NamedPolicy> {
    let tiers =
        (demands(), demands(), demands(), demands()).prop_map(|(low, medium, high, critical)| {
            Tiers {
                low,
                medium,
                high,
                critical,
            }
        });
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
    let first_revision =
        of(
            (tier(), sign_offs()).prop_map(|(from_tier, sign_off)| FirstRevision {
                from_tier,
                sign_off,
            }),
        );
    (
        1_i64..9,
        risk_model(),
        tiers,
        analysis,
        provenance(),
        first_revision,
    )
        .prop_map(
            move |(generation, risk, tiers, analysis, provenance, first_revision)| {
                let spec = RolloutPolicySpec {
                    risk,
                    tiers,
                    analysis,
                    provenance,
                    first_revision,
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
