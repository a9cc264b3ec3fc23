//! The gates between the steps: each needs the evidence that the share behind it is worth.
//!
//! At a share `w` of the traffic a canary can do `w` times its excess errors to the service. A gate to `w`
//! therefore tolerates `1/w` times the excess that the promotion tolerates, so that the number of failed
//! requests which the canary may add to the service is the same at every step.

use std::collections::BTreeSet;

use countersign_api::counts::EProcess;
use countersign_api::rollout::{Change, CheckEvidence, GateEvidence, Plan, Stage, Strictness};

use crate::analysis::statistics::{EProcessExt, Test, Tolerance};
use crate::analysis::thresholds;

/// The share of the promotion, in percent.
pub const PROMOTION: i32 = 100;

/// How much worse than stable a canary must surely not be for a gate to open a share of the traffic, in
/// percent from 1 to 100.
///
/// With the margin `R1`, `d1` of the tier and the share `w` as a fraction, the gate tests
/// `p_c >= p_b + ((R1 - 1) p_b + d1) / w`, that is a ratio of `1 + (R1 - 1)/w` and a difference of `d1/w`.
/// At 100 it is the margin itself. The null hypotheses are nested: a larger share tolerates less.
#[must_use]
pub fn tolerance(strictness: &Strictness, share: i32) -> Tolerance {
    let share = f64::from(share.clamp(1, PROMOTION)) / 100.0;
    Tolerance {
        ratio: 1.0 + (strictness.margin_ratio - 1.0) / share,
        difference: (strictness.margin_difference / share).min(1.0),
    }
}

/// The share of the traffic, in percent, that the next gate opens; 0 if the next step sends no requests.
#[must_use]
pub fn next(change: &Change) -> i32 {
    let step = usize::try_from(change.step).unwrap_or(0);
    share_of(&change.plan, step).unwrap_or(PROMOTION)
}

/// The share that the canary has in the present step, in percent; 0 before the first.
#[must_use]
pub(super) fn present(change: &Change) -> i32 {
    if matches!(change.stage, Stage::Promoting | Stage::Promoted) {
        return PROMOTION;
    }
    let step = usize::try_from(change.step).unwrap_or(0);
    let step = step.checked_sub(1);
    step.and_then(|step| share_of(&change.plan, step))
        .unwrap_or(0)
}

fn share_of(plan: &Plan, step: usize) -> Option<i32> {
    let weight = plan.steps.get(step)?.weight;
    Some(plan.shares.get(step).copied().unwrap_or(weight))
}

/// The shares that the gates of a plan open. The gate to the first step needs no evidence.
#[must_use]
pub fn shares(plan: &Plan) -> BTreeSet<i32> {
    let later = (1..plan.steps.len()).filter_map(|step| share_of(plan, step));
    later
        .filter(|share| *share > 0)
        .chain([PROMOTION])
        .collect()
}

/// Brings the gates of a check in line with the plan. A new gate begins with the evidence for the next
/// stricter one, which holds for it too, as what it must rule out is ruled out there already.
pub(super) fn align(gates: &mut Vec<GateEvidence>, plan: &Plan, strictness: &Strictness) {
    let shares = shares(plan);
    if gates
        .iter()
        .map(|gate| gate.share)
        .eq(shares.iter().copied())
    {
        return;
    }
    let known = std::mem::take(gates);
    gates.extend(shares.into_iter().map(|share| {
        let as_strict = known.iter().find(|gate| gate.share >= share);
        let promote = as_strict.map_or_else(
            || EProcess::start(Test::Promote(tolerance(strictness, share))),
            |gate| gate.promote.clone(),
        );
        GateEvidence { share, promote }
    }));
}

/// ln E of the evidence for a gate; 0 (none) for one that is not known yet.
pub(super) fn ln_value(evidence: &CheckEvidence, share: i32) -> f64 {
    let mut gates = evidence.gates.iter();
    let gate = gates.find(|gate| gate.share == share);
    gate.map_or(0.0, |gate| gate.promote.ln_value())
}

/// Whether the evidence opens the gate to a share.
pub(super) fn is_open(evidence: &CheckEvidence, share: i32, strictness: &Strictness) -> bool {
    share == 0 || ln_value(evidence, share) >= thresholds::promote_at(strictness)
}

#[cfg(test)]
mod tests {
    use countersign_api::Step;
    use countersign_api::counts::Counts;
    use proptest::prelude::*;

    use super::*;

    fn strictness(ratio: f64, difference: f64) -> Strictness {
        Strictness {
            margin_ratio: ratio,
            margin_difference: difference,
            max_false_promotion: 0.05,
            ..Strictness::default()
        }
    }

    fn plan(weights: &[i32]) -> Plan {
        let step = |weight: &i32| Step {
            weight: *weight,
            ..Step::default()
        };
        Plan {
            steps: weights.iter().map(step).collect(),
            ..Plan::default()
        }
    }

    #[test]
    fn a_gate_tolerates_in_proportion_to_the_share_that_it_opens() {
        for (share, ratio, difference) in [
            (100, 2.0, 0.005),
            (50, 3.0, 0.01),
            (25, 5.0, 0.02),
            (5, 21.0, 0.1),
            (1, 101.0, 0.5),
        ] {
            let got = tolerance(&strictness(2.0, 0.005), share);
            assert!((got.ratio - ratio).abs() < 1e-9, "{share}: {got:?}");
            assert!(
                (got.difference - difference).abs() < 1e-12,
                "{share}: {got:?}"
            );
        }
        // No error rate is above 1.
        assert!(tolerance(&strictness(1.5, 0.03), 1).difference <= 1.0);
    }

    #[test]
    fn the_first_step_has_no_gate_and_the_promotion_always_has_one() {
        let shares = |weights: &[i32]| shares(&plan(weights)).into_iter().collect::<Vec<_>>();
        assert_eq!(shares(&[5, 25, 50]), [25, 50, 100]);
        assert_eq!(shares(&[1, 1, 2]), [1, 2, 100]);
        assert_eq!(shares(&[0, 5]), [5, 100]);
        assert_eq!(shares(&[]), [100]);
        let of_pods = Plan {
            shares: vec![25, 25, 50],
            ..plan(&[5, 20, 50])
        };
        let change = |step| Change {
            step,
            plan: of_pods.clone(),
            ..Change::default()
        };
        let nexts: Vec<_> = (0..=3).map(|step| next(&change(step))).collect();
        assert_eq!(nexts, [25, 25, 50, 100]);
        assert_eq!((present(&change(0)), present(&change(2))), (0, 25));
    }

    #[test]
    fn a_gate_that_a_plan_gains_begins_with_the_evidence_of_the_next_stricter_one() {
        let strictness = strictness(2.0, 0.005);
        let gate = |share, value| GateEvidence {
            share,
            promote: EProcess {
                ln_e: vec![value; 7],
            },
        };
        let mut gates = vec![gate(50, 2.0), gate(100, 1.0)];
        align(&mut gates, &plan(&[5, 20, 50, 75]), &strictness);
        assert_eq!(
            gates,
            [gate(20, 2.0), gate(50, 2.0), gate(75, 1.0), gate(100, 1.0)]
        );
        let mut none = Vec::new();
        align(&mut none, &plan(&[5, 50]), &strictness);
        assert_eq!(none, [gate(50, 0.0), gate(100, 0.0)]);
    }

    proptest! {
        /// A canary that is worse than the gate to a larger share tolerates is not ruled out by a smaller one,
        /// and one that the promotion rules out every gate rules out.
        #[test]
        fn the_null_hypotheses_are_nested(
            ratio in 1.0..10.0, difference in 0.000_001..1.0, rate in 0.0..1.0_f64, share in 1..=100i32, more in 0..100i32,
        ) {
            let strictness = strictness(ratio, difference);
            let bound = |share: i32| -> f64 {
                let Tolerance { ratio, difference } = tolerance(&strictness, share);
                f64::min(ratio * rate + difference, 1.0)
            };
            let larger = (share + more).min(100);
            prop_assert!(bound(larger) <= bound(share) + 1e-12);
            prop_assert!(bound(share) >= rate - 1e-12);
        }

        /// What a canary exactly at a gate's boundary adds to the service behind that gate does not depend on
        /// the gate.
        #[test]
        fn the_damage_at_the_boundary_is_the_same_behind_every_gate(
            ratio in 1.0..3.0, difference in 0.000_1..0.01, rate in 0.0..0.01, share in 1..=100i32,
        ) {
            let strictness = strictness(ratio, difference);
            let added = |share: i32| -> f64 {
                let at = tolerance(&strictness, share);
                let excess = at.ratio * rate + at.difference - rate;
                f64::from(share) / 100.0 * excess
            };
            prop_assert!(tolerance(&strictness, share).difference >= 1.0 || (added(share) - added(100)).abs() < 1e-9);
        }

        /// Healthy windows open the gates in the order of their shares.
        #[test]
        fn without_errors_a_smaller_share_has_at_least_the_evidence_of_a_larger_one(
            windows in proptest::collection::vec(1.0..500.0_f64, 1..20), weight in 1..50i32,
        ) {
            let strictness = strictness(1.5, 0.002);
            let plan = plan(&[1, weight, 50]);
            let mut gates = Vec::new();
            align(&mut gates, &plan, &strictness);
            for requests in windows {
                let (canary, stable) = (Counts { requests, errors: 0.0 }, Counts { requests: 10.0 * requests, errors: 0.0 });
                for gate in &mut gates {
                    gate.promote.observe(Test::Promote(tolerance(&strictness, gate.share)), canary, stable, 1.0);
                }
            }
            for pair in gates.windows(2) {
                prop_assert!(pair[0].promote.ln_value() >= pair[1].promote.ln_value() - 1e-9);
            }
        }
    }
}
