//! Whether the canary gets more of the requests than its weight: past its steps, by an Ingress, a route or a Service
//! of somebody's own.
//!
//! Invariant: only numbers of a router that counts by Service are used. What pods count has probes and scrapes in it, of
//! which each pod has as many.

use countersign_api::analysis::CheckMode;
use countersign_api::counts::Counts;
use countersign_api::rollout::{AboveWeight, Change};
use countersign_api::{Check, Preset};

use crate::analysis::numbers::counted;
use crate::analysis::{query, statistics};

/// Requests that count as one, since those of a session or a retry go to the same side.
const BURST: f64 = 10.0;
/// Largest chance that chance alone reaches the bound.
const CHANCE: f64 = 1e-6;
/// Least number of windows in a row: no single window decides.
const LEAST_WINDOWS: i32 = 4;

/// Largest share of the requests, a fraction, that sticky sessions and retries may give the canary at a weight in
/// percent.
fn tolerated(weight: i32) -> f64 {
    let weight = f64::from(weight);
    (2.0 * weight + 15.0).min(f64::midpoint(weight, 100.0)) / 100.0
}

/// Adds a window to the present run of windows in which the canary has more than is tolerated, or ends the run.
pub(super) fn note(run: &mut Option<AboveWeight>, canary: Counts, stable: Counts, weight: i32) {
    let requests = canary.requests + stable.requests;
    if requests <= 0.0 {
        return;
    }
    if canary.requests <= tolerated(weight) * requests {
        *run = None;
        return;
    }
    let run = run.get_or_insert_default();
    run.windows = run.windows.saturating_add(1);
    run.canary += canary.requests;
    run.requests += requests;
}

/// Whether chance, with bursts, does not explain a run of windows.
fn is_certain(run: &AboveWeight, weight: i32) -> bool {
    let counts = Counts {
        requests: run.requests,
        errors: run.canary,
    };
    let share = run.canary / run.requests;
    let evidence = statistics::ln_e_absolute(counts, tolerated(weight), share) / BURST;
    run.windows >= LEAST_WINDOWS && evidence >= -CHANCE.ln()
}

/// That the canary has far more of the requests than its weight, by the first check that shows it, with its numbers.
#[must_use]
pub fn found(change: &Change) -> Option<String> {
    let weight = change.weight;
    change.evidence.checks.iter().find_map(|evidence| {
        let check = change.checks.get(&evidence.name)?;
        let run = evidence.above_weight.as_ref();
        let run = run.filter(|run| counts_by_service(check) && is_certain(run, weight))?;
        let windows = counted(run.windows, "window");
        Some(format!(
            "check {}: the canary had {:.0}% of {} in the last {windows}, and its weight is {weight}%: remove the Ingress, route or Service that sends to it past the steps",
            evidence.name,
            100.0 * run.canary / run.requests,
            counted(run.requests, "request"),
        ))
    })
}

fn counts_by_service(check: &Check) -> bool {
    check.mode == CheckMode::Required
        && check.preset.is_some_and(Preset::is_beside_pods)
        && query::is_split_by_service(check)
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt as _, SeedableRng as _};
    use rand_distr::{Distribution as _, Poisson};

    use super::*;

    /// Requests that come one by one, all of one kind.
    fn requests(number: f64) -> Counts {
        Counts {
            requests: number,
            errors: 0.0,
        }
    }

    /// After how many windows of so many requests, of which the canary has a share, it is certain.
    fn windows_until_certain(weight: i32, share: f64, per_window: f64) -> Option<i32> {
        let mut run = None;
        (1..=200).find(|_| {
            let canary = per_window * share;
            note(
                &mut run,
                requests(canary),
                requests(per_window - canary),
                weight,
            );
            run.as_ref().is_some_and(|run| is_certain(run, weight))
        })
    }

    #[test]
    fn all_of_the_traffic_is_found_within_minutes() {
        for (weight, per_window, most) in [
            (1, 15.0, 16),
            (5, 15.0, 16),
            (5, 75.0, 4),
            (25, 75.0, 20),
            (50, 75.0, 50),
            (50, 7_500.0, 4),
        ] {
            let windows = windows_until_certain(weight, 1.0, per_window).unwrap();
            assert!(windows <= most, "{weight}%, {per_window}: {windows}");
        }
        // A third of all users by a header of theirs.
        assert!(windows_until_certain(1, 0.3, 300.0).unwrap() <= 20);
    }

    #[test]
    fn neither_the_weight_itself_nor_up_to_twice_of_it_is_found() {
        for weight in [1, 5, 25, 50, 75, 99] {
            let share = f64::from(weight) / 100.0;
            assert_eq!(
                windows_until_certain(weight, share, 7_500.0),
                None,
                "{weight}"
            );
        }
        assert_eq!(windows_until_certain(25, 0.5, 7_500.0), None);
        assert_eq!(windows_until_certain(99, 1.0, 0.0), None, "no requests");
    }

    /// 100 users, of whom some have many times the requests of others, each pinned to a side by the weight, with
    /// requests that come in bursts of five.
    #[test]
    fn sticky_sessions_and_bursts_are_not_found() {
        for seed in 0..20 {
            let mut random = SmallRng::seed_from_u64(seed);
            for weight in [1, 5, 25, 50, 90] {
                let rates: Vec<f64> = (1..=100).map(|user| f64::from(user).powf(-0.6)).collect();
                let all: f64 = rates.iter().sum();
                let share = f64::from(weight) / 100.0;
                let pinned: Vec<bool> = rates.iter().map(|_| random.random_bool(share)).collect();
                for per_window in [10.0, 300.0] {
                    let mut run = None;
                    for window in 0..240 {
                        let (mut canary, mut stable) = (0.0, 0.0);
                        for (rate, pinned) in rates.iter().zip(&pinned) {
                            let bursts = Poisson::new(per_window * rate / all / 5.0).unwrap();
                            let side = if *pinned { &mut canary } else { &mut stable };
                            *side += 5.0 * bursts.sample(&mut random);
                        }
                        note(&mut run, requests(canary), requests(stable), weight);
                        let certain = run.as_ref().is_some_and(|run| is_certain(run, weight));
                        assert!(!certain, "seed {seed}, {weight}%, window {window}: {run:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_window_within_the_weight_ends_the_run() {
        let mut run = None;
        for _ in 0..3 {
            note(&mut run, requests(90.0), requests(10.0), 5);
        }
        let windows = run.as_ref().map(|run: &AboveWeight| run.windows);
        assert_eq!(windows, Some(3));
        note(&mut run, requests(0.0), requests(0.0), 5);
        assert!(run.is_some(), "a window without requests shows nothing");
        note(&mut run, requests(5.0), requests(95.0), 5);
        assert_eq!(run, None);
    }
}
