//! How the evidence on a check came to its last value, which alone the status has: what each window added follows from
//! its counts.
//!
//! It is known for the present step only. A step begins with fresh evidence, and the counts do not show when.

use countersign_api::counts::{Counts, EProcess};
use countersign_api::rollout::{Change, CheckEvidence};
use countersign_core::analysis::statistics::{EProcessExt, Test};
use countersign_core::analysis::{gates, thresholds};

/// The evidence after each of the last windows, as a share of the bound at which it decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Curves {
    /// That the canary is worse than tolerated: at its bound it is rolled back.
    pub worse: Vec<f64>,
    /// That the canary is within the margin of the next gate: at its bound the gate opens.
    pub within: Vec<f64>,
}

/// The curves over the windows of the present step; `None` with fewer than two windows.
#[must_use]
pub fn curves(evidence: &CheckEvidence, change: &Change) -> Option<Curves> {
    let check = change.checks.get(&evidence.name)?;
    let of_step = usize::try_from(evidence.step_windows).unwrap_or_default();
    let before = evidence.windows.len().saturating_sub(of_step);
    let windows = evidence.windows.get(before..)?;
    if windows.len() < 2 {
        return None;
    }
    let strictness = &change.plan.strictness;
    let assumed = thresholds::rollback_dispersion(check, evidence.dispersion, change.tier);
    let test = Test::RollBack(thresholds::tolerated(strictness));
    let mut worse = course(&evidence.rollback, test, windows, assumed)?;
    if let Some((process, ceiling)) = evidence.ceiling.as_ref().zip(thresholds::ceiling(check)) {
        let above = course(process, Test::Ceiling(ceiling), windows, assumed)?;
        for (worse, above) in worse.iter_mut().zip(above) {
            *worse = worse.max(above);
        }
    }
    let share = gates::next(change);
    let gate = evidence.gates.iter().find(|gate| gate.share == share)?;
    let test = Test::Promote(gates::tolerance(strictness, share));
    let known = thresholds::dispersion(evidence);
    let within = course(&gate.promote, test, windows, known)?;
    Some(Curves {
        worse: shares(&worse, thresholds::rollback_at(strictness)),
        within: shares(&within, thresholds::promote_at(strictness)),
    })
}

/// ln E after each window: from the last value, what each window added is taken off again. `None` if the alternatives
/// are those of another version.
fn course(last: &EProcess, test: Test, windows: &[[f64; 4]], dispersion: f64) -> Option<Vec<f64>> {
    let mut process = last.clone();
    let mut values = Vec::new();
    for &[requests, errors, stable_requests, stable_errors] in windows.iter().rev() {
        values.push(process.ln_value());
        let canary = Counts { requests, errors };
        let stable = Counts {
            requests: stable_requests,
            errors: stable_errors,
        };
        let mut added = EProcess::start(test);
        added.observe(test, canary, stable, dispersion);
        if added.ln_e.len() != process.ln_e.len() {
            return None;
        }
        for (sum, more) in process.ln_e.iter_mut().zip(added.ln_e) {
            *sum -= more;
        }
    }
    values.reverse();
    Some(values)
}

fn shares(values: &[f64], bound: f64) -> Vec<f64> {
    let share = |value: &f64| if bound > 0.0 { value / bound } else { 0.0 };
    values.iter().map(share).collect()
}

#[cfg(test)]
pub mod tests {
    use countersign_api::Check;
    use countersign_api::rollout::GateEvidence;

    use super::*;
    use crate::view::tests::waiting;

    const WINDOWS: [[f64; 4]; 4] = [
        [100.0, 0.0, 400.0, 2.0],
        [100.0, 1.0, 400.0, 2.0],
        [100.0, 5.0, 400.0, 2.0],
        [100.0, 2.5, 400.0, 2.0],
    ];

    /// ln E after each window of a test, and its process.
    fn observed(test: Test) -> (Vec<f64>, EProcess) {
        let mut process = EProcess::start(test);
        let values = WINDOWS.map(|[n, x, m, y]| {
            let counts = |requests, errors| Counts { requests, errors };
            process.observe(test, counts(n, x), counts(m, y), 1.0);
            process.ln_value()
        });
        (values.to_vec(), process)
    }

    /// A change whose check has counted these windows, the first before the present step.
    pub fn counted() -> (Change, CheckEvidence) {
        let mut change = waiting().change().unwrap().clone();
        change.checks.insert("errors".into(), Check::default());
        let strictness = &change.plan.strictness;
        let share = gates::next(&change);
        let mut evidence = change.evidence.checks[0].clone();
        evidence.windows = WINDOWS.to_vec();
        evidence.step_windows = 3;
        evidence.rollback = observed(Test::RollBack(thresholds::tolerated(strictness))).1;
        let promote = observed(Test::Promote(gates::tolerance(strictness, share))).1;
        evidence.gates = vec![GateEvidence { share, promote }];
        (change, evidence)
    }

    #[test]
    fn the_curves_are_the_values_that_the_tests_had() {
        let (change, evidence) = counted();
        let strictness = &change.plan.strictness;
        let curves = curves(&evidence, &change).unwrap();
        let share = gates::next(&change);
        for (curve, test, bound) in [
            (
                curves.worse,
                Test::RollBack(thresholds::tolerated(strictness)),
                thresholds::rollback_at(strictness),
            ),
            (
                curves.within,
                Test::Promote(gates::tolerance(strictness, share)),
                thresholds::promote_at(strictness),
            ),
        ] {
            let (values, _) = observed(test);
            assert_eq!(curve.len(), 3, "the first window is of the step before");
            for (share, value) in curve.iter().zip(&values[1..]) {
                assert!((share * bound - value).abs() < 1e-9, "{share} {value}");
            }
        }
    }

    #[test]
    fn without_the_windows_of_the_step_or_their_tests_there_is_no_curve() {
        let (change, evidence) = counted();
        let mut fresh = evidence.clone();
        fresh.step_windows = 1;
        assert_eq!(curves(&fresh, &change), None);
        let mut other = evidence;
        other.rollback.ln_e = vec![0.5];
        assert_eq!(curves(&other, &change), None);
    }
}
