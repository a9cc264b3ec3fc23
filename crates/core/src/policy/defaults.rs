//! The built-in policy, which supplies fields that no policy names.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use countersign_api::policy::{
    Criticality, RiskModel, RolloutPolicy, RolloutPolicySpec, Thresholds, TierDemands,
};

use crate::policy::merge;

/// The manifest of the policy that applies if none is installed, with the reason for each value.
pub const BUILT_IN: &str = include_str!("built_in_policy.yaml");

/// The name of the policy in [`BUILT_IN`].
pub const BUILT_IN_NAME: &str = "built-in";

static PARSED: LazyLock<RolloutPolicySpec> = LazyLock::new(|| {
    #[allow(
        clippy::expect_used,
        reason = "a unit test proves that this constant can be read"
    )]
    serde_saphyr::from_str::<RolloutPolicy>(BUILT_IN)
        .expect("the built-in policy can be read")
        .spec
});

/// The policy that applies if none is installed.
#[must_use]
pub fn built_in() -> &'static RolloutPolicySpec {
    &PARSED
}

pub(super) fn filled_risk(risk: &RiskModel, from: &RiskModel) -> RiskModel {
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
        differences_floor: filled(&risk.differences_floor, &from.differences_floor),
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
    merge::strictest_each(named, from, |named, _| named)
}

pub(super) fn filled_demands(demands: &TierDemands, from: &TierDemands) -> TierDemands {
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
        extend_at_most: demands.extend_at_most.or(from.extend_at_most),
        on_scarce_evidence: demands.on_scarce_evidence.or(from.on_scarce_evidence),
        switch_without_evidence: demands
            .switch_without_evidence
            .or(from.switch_without_evidence),
        wait_at_most: demands.wait_at_most.or(from.wait_at_most),
        testers_before_sign_off: demands
            .testers_before_sign_off
            .or(from.testers_before_sign_off),
        require_router: demands.require_router.or(from.require_router),
        require_digest: demands.require_digest.or(from.require_digest),
        require_immutable_config: demands
            .require_immutable_config
            .or(from.require_immutable_config),
        require_policy_check: demands.require_policy_check.or(from.require_policy_check),
    }
}
