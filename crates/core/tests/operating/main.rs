//! What the evidence of the built-in policy does to healthy and to bad changes: simulated rollouts of each tier
//! through the real tests, gates and thresholds, at a service of few and of many requests.
//!
//! The numbers of `docs/policy.md` are those that `the_table` prints:
//! `cargo test -p countersign-core --test operating -- --ignored --nocapture`.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a test may panic; counts of runs are small"
)]

mod rollout;

use countersign_api::Tier;
use countersign_core::analysis::gates;
use rollout::{End, Run, Service, simulate};

/// Requests a second of the whole service.
const RATES: [f64; 4] = [1.0, 5.0, 50.0, 500.0];

/// Standard errors that a simulated share may be off.
const MARGIN: f64 = 4.0;

/// 0.2% of stable's requests fail.
const STABLE: f64 = 0.002;

fn share(runs: &[Run], of: impl Fn(&Run) -> bool) -> f64 {
    runs.iter().filter(|run| of(run)).count() as f64 / runs.len() as f64
}

/// A share may be above a bound by chance only.
fn assert_at_most(what: &str, share: f64, bound: f64, runs: usize) {
    let error = (bound * (1.0 - bound) / runs as f64).sqrt();
    println!("{what}: {share:.4}, at most {bound}");
    assert!(
        share <= bound + MARGIN * error,
        "{what}: {share}, not at most {bound}"
    );
}

fn quantile(runs: &[Run], of: impl Fn(&Run) -> f64, share: f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1) as f64;
    values
        .get((share * last).round() as usize)
        .copied()
        .unwrap_or(f64::NAN)
}

fn ended(end: End) -> impl Fn(&Run) -> bool {
    move |run| run.end == end
}

/// Whatever the traffic, a healthy change of every tier is promoted, and seldom rolled back.
#[test]
fn healthy_changes_of_every_tier_are_promoted_at_5_50_and_500_requests_a_second() {
    // Four standard errors below the shares of the table in docs/policy.md.
    for (tier, least) in [
        (Tier::Low, [0.97, 0.97, 0.97]),
        (Tier::Medium, [0.975, 0.975, 0.97]),
        (Tier::High, [0.94, 0.96, 0.97]),
        (Tier::Critical, [0.92, 0.94, 0.95]),
    ] {
        let change = rollout::change_of(tier);
        for (rate, least) in RATES[1..].iter().zip(least) {
            let runs = simulate(200, 1, &change, &Service::healthy(*rate, STABLE));
            let promoted = share(&runs, ended(End::Promoted));
            println!("{tier} at {rate}/s: {promoted}");
            assert!(
                promoted >= least,
                "{tier} at {rate}/s: {promoted}, not {least}"
            );
            let rolled_back = share(&runs, ended(End::RolledBack));
            let alpha = change.plan.strictness.max_false_rollback;
            assert_at_most(
                &format!("{tier} at {rate}/s, rolled back"),
                rolled_back,
                alpha,
                200,
            );
        }
    }
}

/// A canary exactly as bad as a gate tolerates opens it with a chance of at most beta, at any time.
#[test]
fn at_its_own_boundary_a_gate_opens_with_a_chance_of_at_most_beta() {
    for tier in Tier::ALL {
        let change = rollout::change_of(tier);
        let beta = change.plan.strictness.max_false_promotion;
        for rate in [5.0, 50.0, 500.0] {
            for gate in gates::shares(&change.plan) {
                let at = gates::tolerance(&change.plan.strictness, gate);
                let canary = (at.ratio * STABLE + at.difference).min(1.0);
                let service = Service {
                    canary,
                    ..Service::healthy(rate, STABLE)
                };
                let runs = rollout::openings(400, 2, &change, gate, &service);
                let opened =
                    runs.iter().filter(|opened| **opened).count() as f64 / runs.len() as f64;
                assert_at_most(
                    &format!("{tier} at {rate}/s, gate to {gate}%"),
                    opened,
                    beta,
                    400,
                );
            }
        }
    }
}

/// Errors come in rare bursts; a day of history shows how large they are.
#[test]
fn rare_bursts_do_not_roll_healthy_changes_back() {
    for tier in Tier::ALL {
        let change = rollout::change_of(tier);
        let alpha = change.plan.strictness.max_false_rollback;
        for (rate, errors, burst, single) in [
            (100.0, 0.0003, 10.0, 0.0),
            (100.0, 0.0001, 10.0, 0.0),
            (100.0, 0.000_03, 10.0, 0.0),
            (100.0, 0.0004, 10.0, 0.5),
            (100.0, 0.001, 30.0, 0.5),
            (500.0, 0.0004, 50.0, 0.5),
        ] {
            let service = Service {
                burst,
                single,
                ..Service::healthy(rate, errors)
            };
            let runs = simulate(300, 3, &change, &service);
            let rolled_back = share(&runs, ended(End::RolledBack));
            let what = format!("{tier}, bursts of {burst} at {errors}, {single} of them single");
            assert_at_most(&what, rolled_back, alpha, 300);
        }
    }
}

/// An error rate that drifts over the day, or an outage in it, hardly blunts the test.
#[test]
fn five_times_the_errors_are_rolled_back_as_soon_after_a_day_with_an_outage() {
    for tier in Tier::ALL {
        let change = rollout::change_of(tier);
        for rate in [50.0, 500.0] {
            let failed = |outage| {
                let service = Service {
                    canary: 5.0 * STABLE,
                    outage,
                    ..Service::healthy(rate, STABLE)
                };
                let runs = simulate(100, 4, &change, &service);
                let rolled_back = share(&runs, ended(End::RolledBack));
                assert!(rolled_back >= 0.95, "{tier} at {rate}/s: {rolled_back}");
                quantile(&runs, |run| run.failed, 0.5)
            };
            let (calm, after) = (failed(false), failed(true));
            println!("{tier} at {rate}/s: {calm} failed requests, {after} after an outage");
            assert!(after <= 2.0 * calm, "{tier} at {rate}/s: {after} of {calm}");
        }
    }
}

#[test]
#[ignore = "prints the table of docs/policy.md, and takes minutes"]
fn the_table() {
    let cases = [
        ("healthy", 1.0, 0.0),
        ("2 times", 2.0, 0.0),
        ("5 times", 5.0, 0.0),
        ("10 times", 10.0, 0.0),
        ("fails", 0.0, 0.5),
    ];
    println!(
        "| tier | requests/s | canary | promoted | rolled back | undecided | min (p90) | failed requests (p90) |"
    );
    for tier in Tier::ALL {
        let change = rollout::change_of(tier);
        for rate in RATES {
            for (what, times, plus) in cases {
                let canary = times * STABLE + plus;
                let service = Service {
                    canary,
                    ..Service::healthy(rate, STABLE)
                };
                let runs = simulate(200, 5, &change, &service);
                let (good, bad, open) = (
                    share(&runs, ended(End::Promoted)),
                    share(&runs, ended(End::RolledBack)),
                    share(&runs, ended(End::Undecided)),
                );
                let minutes = |p| quantile(&runs, |run| run.seconds / 60.0, p);
                let failed = |p| quantile(&runs, |run| run.failed, p);
                println!(
                    "| {tier} | {rate} | {what} | {good:.3} | {bad:.3} | {open:.3} | {:.0} ({:.0}) | {:.0} ({:.0}) |",
                    minutes(0.5),
                    minutes(0.9),
                    failed(0.5),
                    failed(0.9)
                );
            }
        }
    }
}
