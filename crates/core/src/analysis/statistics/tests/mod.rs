#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::float_cmp,
    reason = "a test may panic, and compares numbers that must not have moved at all"
)]

mod properties;

use countersign_api::counts::{Counts, EProcess};
use proptest::prelude::*;

use crate::analysis::statistics::{
    CountsExt, EProcessExt, LARGEST_COUNT, LN_E_LIMIT, Test, Tolerance, anytime_p, dispersion,
    ln_e, ln_e_absolute, ln_mean, requests_needed,
};

const NO_TOLERANCE: Tolerance = Tolerance {
    ratio: 1.0,
    difference: 0.0,
};
const SOME_TOLERANCE: Tolerance = Tolerance {
    ratio: 1.5,
    difference: 0.002,
};
const EVERY_TEST: [Test; 3] = [
    Test::RollBack(SOME_TOLERANCE),
    Test::Promote(SOME_TOLERANCE),
    Test::Ceiling(0.02),
];

fn counts(requests: f64, errors: f64) -> Counts {
    Counts { requests, errors }
}

fn after(test: Test, windows: &[(Counts, Counts)]) -> EProcess {
    let mut evidence = EProcess::start(test);
    for &(canary, stable) in windows {
        evidence.observe(test, canary, stable, 1.0);
    }
    evidence
}

fn ln_value_of_one(test: Test, canary: Counts, stable: Counts) -> f64 {
    after(test, &[(canary, stable)]).ln_value()
}

/// P(X = 0), P(X = 1), ... P(X = last).
fn poisson(mean: f64, last: u32) -> Vec<f64> {
    let next = |p: &f64, k: u32| p * mean / f64::from(k);
    chances((-mean).exp(), last, next)
}

fn binomial(n: u32, p: f64) -> Vec<f64> {
    let next = |chance: &f64, k: u32| chance * f64::from(n - k + 1) / f64::from(k) * p / (1.0 - p);
    chances((f64::from(n) * (-p).ln_1p()).exp(), n, next)
}

fn chances(first: f64, last: u32, next: impl Fn(&f64, u32) -> f64) -> Vec<f64> {
    (1..=last).fold(vec![first], |mut all, k| {
        all.push(next(&all[all.len() - 1], k));
        all
    })
}

/// The expectation of `e(x_c, x_b)` when the errors of the arms have these chances.
fn expectation(canary: &[f64], stable: &[f64], e: impl Fn(f64, f64) -> f64) -> f64 {
    let mut sum = 0.0;
    for (x_c, p_c) in (0_u32..).zip(canary) {
        for (x_b, p_b) in (0_u32..).zip(stable) {
            sum += p_c * p_b * e(f64::from(x_c), f64::from(x_b));
        }
    }
    sum
}

fn assert_close(got: f64, expected: f64, tolerance: f64) {
    assert!(
        (got - expected).abs() <= tolerance,
        "{got} is not {expected} within {tolerance}"
    );
}

#[test]
fn the_formula_gives_the_published_values() {
    let published = |canary, stable, r| ln_e(canary, stable, r, NO_TOLERANCE);
    assert_close(
        published(counts(100.0, 2.0), counts(900.0, 9.0), 2.0),
        0.337_882_383_272,
        5e-13,
    );
    assert_close(
        published(counts(10.0, 5.0), counts(90.0, 1.0), 10.0),
        7.661_802_147_936,
        5e-13,
    );
    // x ln(r/th) - n (r - th) = 5 ln 3 - 100 * 0.02
    assert_close(
        ln_e_absolute(counts(100.0, 5.0), 0.01, 0.03),
        3.493_061_443_341,
        5e-13,
    );
}

#[test]
fn the_expectation_at_the_boundary_is_1_for_poisson_and_below_it_for_binomial_counts() {
    let (n_c, n_b, p_b) = (100.0, 900.0, 0.01);
    let p_c = SOME_TOLERANCE.ratio * p_b + SOME_TOLERANCE.difference;
    // One alternative of the roll-back test, one of the promote test.
    for r in [4.0, 0.15] {
        let e = |x_c, x_b| ln_e(counts(n_c, x_c), counts(n_b, x_b), r, SOME_TOLERANCE).exp();
        let of_poisson = expectation(&poisson(n_c * p_c, 79), &poisson(n_b * p_b, 79), e);
        assert_close(of_poisson, 1.0, 1e-12);
        let of_binomial = expectation(&binomial(100, p_c), &binomial(900, p_b), e);
        assert!(
            (0.9..1.0 - 1e-4).contains(&of_binomial),
            "{r}: {of_binomial}"
        );
    }
    let e = |x, _| ln_e_absolute(counts(n_c, x), 0.02, 0.06).exp();
    assert_close(expectation(&poisson(n_c * 0.02, 79), &[1.0], e), 1.0, 1e-12);
    let of_binomial = expectation(&binomial(100, 0.02), &[1.0], e);
    assert!((0.9..1.0 - 1e-4).contains(&of_binomial), "{of_binomial}");
}

#[test]
fn the_expectation_of_every_mixture_is_1_at_the_boundary_and_less_inside_the_null() {
    let (n_c, n_b, p_b) = (100.0, 900.0, 0.01);
    let boundary = SOME_TOLERANCE.ratio * p_b + SOME_TOLERANCE.difference;
    let stable = poisson(n_b * p_b, 150);
    for (test, boundary, inside) in [
        (Test::RollBack(SOME_TOLERANCE), boundary, 0.01),
        (Test::Promote(SOME_TOLERANCE), boundary, 0.03),
        (Test::Ceiling(0.001), 0.001, 0.0005),
    ] {
        let mean = |p_c: f64| {
            expectation(&poisson(n_c * p_c, 150), &stable, |x_c, x_b| {
                // Errors above the requests have a chance of 1e-100 here, and would be refused.
                let canary = counts(n_c, x_c.min(n_c));
                ln_value_of_one(test, canary, counts(n_b, x_b)).exp()
            })
        };
        assert_close(mean(boundary), 1.0, 1e-12);
        assert!(mean(inside) < 1.0 - 1e-3, "{test:?}: {}", mean(inside));
    }
}

#[test]
fn dividing_by_the_size_of_the_bursts_restores_the_expectation_of_1() {
    let (n_c, n_b, p, burst) = (100.0, 900.0, 0.01, 5.0);
    let test = Test::RollBack(NO_TOLERANCE);
    let (canary, stable) = (poisson(n_c * p / burst, 20), poisson(n_b * p / burst, 60));
    let mean = |dispersion| {
        expectation(&canary, &stable, |x_c, x_b| {
            let mut evidence = EProcess::start(test);
            let canary = counts(n_c, x_c * burst);
            evidence.observe(test, canary, counts(n_b, x_b * burst), dispersion);
            evidence.ln_value().exp()
        })
    };
    assert_close(mean(burst), 1.0, 1e-12);
    assert!(
        mean(1.0) > 2.0,
        "uncorrected bursts break the test: {}",
        mean(1.0)
    );
}

#[test]
fn windows_without_requests_in_an_arm_move_nothing() {
    let (none, some, failing) = (counts(0.0, 0.0), counts(90.0, 9.0), counts(10.0, 10.0));
    for (canary, stable) in [(none, none), (none, some), (failing, none)] {
        for test in [
            Test::RollBack(SOME_TOLERANCE),
            Test::Promote(SOME_TOLERANCE),
        ] {
            assert_eq!(after(test, &[(canary, stable)]), EProcess::start(test));
        }
    }
    let ceiling = Test::Ceiling(0.02);
    assert_eq!(after(ceiling, &[(none, some)]), EProcess::start(ceiling));
}

#[test]
fn hostile_numbers_move_nothing() {
    let good = counts(100.0, 1.0);
    let hostile = [
        counts(f64::NAN, 0.0),
        counts(100.0, f64::NAN),
        counts(f64::INFINITY, 0.0),
        counts(f64::INFINITY, f64::INFINITY),
        counts(f64::NEG_INFINITY, 0.0),
        counts(100.0, -1.0),
        counts(-100.0, 0.0),
        counts(100.0, 101.0),
        counts(0.0, 1.0),
        counts(1e300, 0.0),
    ];
    for bad in hostile {
        assert!(!bad.is_usable(), "{bad:?}");
        for test in EVERY_TEST {
            assert_eq!(
                after(test, &[(bad, good)]),
                EProcess::start(test),
                "{bad:?}"
            );
        }
        for test in [
            Test::RollBack(SOME_TOLERANCE),
            Test::Promote(SOME_TOLERANCE),
        ] {
            assert_eq!(
                after(test, &[(good, bad)]),
                EProcess::start(test),
                "{bad:?}"
            );
        }
    }
    let infinite = f64::INFINITY;
    for (ratio, difference) in [
        (f64::NAN, 0.0),
        (0.9, 0.0),
        (infinite, 0.0),
        (f64::MAX, 0.0),
        (-2.0, 0.0),
    ]
    .into_iter()
    .chain([(1.0, f64::NAN), (1.0, -0.1), (1.0, 1.1), (1.0, infinite)])
    {
        let tolerance = Tolerance { ratio, difference };
        for test in [Test::RollBack(tolerance), Test::Promote(tolerance)] {
            let moved = after(test, &[(counts(100.0, 0.0), counts(100.0, 50.0))]);
            assert!(moved.ln_value() <= 0.0, "{test:?} {moved:?}");
        }
    }
    for threshold in [f64::NAN, 0.0, -0.5, infinite] {
        let test = Test::Ceiling(threshold);
        let moved = after(test, &[(counts(100.0, 50.0), good)]);
        assert_eq!(moved, EProcess::start(test), "{threshold}");
    }
    for dispersion in [f64::NAN, 0.0, -3.0, 0.99, infinite] {
        for test in EVERY_TEST {
            let mut evidence = EProcess::start(test);
            evidence.observe(test, counts(1e5, 1e3), counts(1e5, 1e2), dispersion);
            assert_eq!(evidence, EProcess::start(test), "{dispersion}");
        }
    }
    for alternative in [f64::NAN, 0.0, -1.0, infinite] {
        assert_eq!(ln_e(good, good, alternative, NO_TOLERANCE), 0.0);
        assert_eq!(ln_e_absolute(good, 0.1, alternative), 0.0);
    }
}

#[test]
fn a_ceiling_judges_the_canary_alone() {
    let test = Test::Ceiling(0.02);
    let canary = counts(100.0, 10.0);
    let alone = ln_value_of_one(test, canary, Counts::default());
    assert!(alone > 5.0, "{alone}");
    assert_eq!(ln_value_of_one(test, canary, counts(f64::NAN, -1.0)), alone);
}

#[test]
fn a_ceiling_has_no_alternative_above_a_rate_of_1() {
    // th = 0.4: the alternatives from 3 * th on are all 1, where n requests that all fail give
    // the e-value (1/0.4)^n exp(-0.6 n).
    let evidence = after(
        Test::Ceiling(0.4),
        &[(counts(10.0, 10.0), Counts::default())],
    );
    for ln_e in &evidence.ln_e[3..] {
        assert_close(*ln_e, 10.0 * (2.5_f64.ln() - 0.6), 1e-12);
    }
    // 14.4 times the budget of an objective of 90 % is more than all requests.
    for threshold in [1.0, 1.44] {
        let test = Test::Ceiling(threshold);
        let evidence = after(test, &[(counts(100.0, 100.0), counts(100.0, 0.0))]);
        assert_eq!(evidence, EProcess::start(test));
    }
}

#[test]
fn a_state_that_does_not_fit_starts_anew() {
    let (canary, stable) = (counts(100.0, 20.0), counts(900.0, 9.0));
    for test in EVERY_TEST {
        let fresh = after(test, &[(canary, stable)]);
        let length = fresh.ln_e.len();
        let mut broken = vec![9.0; length];
        for state in [
            vec![],
            vec![9.0],
            vec![9.0; length - 1],
            vec![9.0; length + 1],
        ] {
            let mut evidence = EProcess { ln_e: state };
            evidence.observe(test, canary, stable, 1.0);
            assert_eq!(evidence, fresh);
        }
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            broken[2] = bad;
            let mut evidence = EProcess {
                ln_e: broken.clone(),
            };
            assert_eq!(evidence.ln_value(), 0.0);
            evidence.observe(test, canary, stable, 1.0);
            assert_eq!(evidence, fresh);
        }
    }
    assert_eq!(EProcess::default().ln_value(), 0.0);
}

#[test]
fn evidence_stays_finite_and_can_turn_back() {
    let (failing, healthy) = (counts(1e12, 1e12), counts(1e12, 0.0));
    for test in EVERY_TEST {
        let mut evidence = after(test, &[(failing, healthy); 3]);
        let failed = evidence.ln_value();
        let json = serde_json::to_value(&evidence).unwrap();
        let numbers = json["lnE"].as_array().unwrap();
        assert!(numbers.iter().all(serde_json::Value::is_number), "{json}");
        for _ in 0..6 {
            evidence.observe(test, healthy, failing, 1.0);
        }
        assert!(
            evidence.ln_e.iter().all(|v| v.abs() <= LN_E_LIMIT),
            "{evidence:?}"
        );
        match test {
            Test::Promote(_) => assert!(failed < -1e6 && evidence.ln_value() > 1e6),
            _ => assert!(failed > 1e6 && evidence.ln_value() < -1e6),
        }
    }
}

#[test]
fn the_alternatives_are_the_published_ones() {
    let (canary, stable) = (counts(100.0, 4.0), counts(900.0, 11.0));
    let worse = [1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0];
    let better = [0.01, 0.1, 0.25, 0.5, 0.7, 0.85, 0.95];
    let of_ratio = |multiple: &f64| ln_e(canary, stable, 1.5 * multiple, SOME_TOLERANCE);
    let of_rate = |multiple: &f64| ln_e_absolute(canary, 0.002, 0.002 * multiple);
    for (test, expected) in [
        (
            Test::RollBack(SOME_TOLERANCE),
            worse.iter().map(of_ratio).collect::<Vec<_>>(),
        ),
        (
            Test::Promote(SOME_TOLERANCE),
            better.iter().map(of_ratio).collect(),
        ),
        (Test::Ceiling(0.002), worse.iter().map(of_rate).collect()),
    ] {
        let got = after(test, &[(canary, stable)]).ln_e;
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(&expected) {
            assert_close(*got, *expected, 1e-12);
        }
    }
}

#[test]
fn the_mixture_is_the_mean_of_the_alternatives() {
    let mean = |values: &[f64]| ln_mean(values).exp();
    assert_close(
        mean(&[1.0_f64.ln(), 3.0_f64.ln(), 8.0_f64.ln()]),
        4.0,
        1e-12,
    );
    // Neither overflow nor underflow.
    assert_close(ln_mean(&[1e9, -1e9]), 1e9 - 2.0_f64.ln(), 1e-6);
    assert_close(ln_mean(&[-1e9, -1e9]), -1e9, 1e-6);
    assert_eq!(ln_mean(&[]), 0.0);
    assert_eq!(ln_mean(&[f64::NEG_INFINITY, 0.0]), 0.0);
}

#[test]
fn the_requests_needed_to_promote_are_the_published_ones() {
    let needed = |beta, ratio, difference| requests_needed(beta, Tolerance { ratio, difference });
    assert_eq!(needed(0.05, 1.5, 0.001), 2_996.0);
    assert_eq!(needed(0.01, 1.25, 0.001), 4_606.0);
    for never in [
        needed(0.05, 1.5, 0.0),
        needed(0.05, 1.5, f64::NAN),
        needed(0.05, 0.5, 0.001),
        needed(0.0, 1.5, 0.001),
        needed(1.0, 1.5, 0.001),
        needed(-1.0, 1.5, 0.001),
        needed(f64::NAN, 1.5, 0.001),
    ] {
        assert_eq!(never, f64::INFINITY);
    }
}

#[test]
fn an_error_free_canary_is_promoted_soon_after_the_requests_needed() {
    for (ratio, difference, beta) in [
        (2.0, 0.005, 0.10),
        (1.5, 0.003, 0.05),
        (1.5, 0.002, 0.05),
        (1.25, 0.001, 0.01),
    ] {
        let margin = Tolerance { ratio, difference };
        let needed = requests_needed(beta, margin);
        let value = |n| ln_value_of_one(Test::Promote(margin), counts(n, 0.0), counts(n, 0.0));
        assert!(value(needed) < -beta.ln());
        assert!(
            value(1.7 * needed) >= -beta.ln(),
            "{ratio} {difference} {beta}"
        );
    }
}

#[test]
fn dispersion_is_the_mean_chi_square_of_adjacent_windows_and_at_least_1() {
    // Of 200 requests in two windows 10 fail, all in the second: (0 - 5)^2 / (1/4 * 10 * 190/199).
    let halves = |errors| [counts(100.0, 0.0), counts(100.0, errors)].repeat(15);
    let of_halves = dispersion(&halves(10.0));
    assert_close(of_halves.value, 4_975.0 / 475.0, 1e-11);
    assert_eq!((of_halves.windows, of_halves.pairs), (30, 15));
    // Windows that say nothing change nothing.
    let mut with_gaps = halves(10.0);
    with_gaps.extend([counts(0.0, 0.0), counts(f64::NAN, 1.0), counts(1.0, 2.0)]);
    assert_eq!(dispersion(&with_gaps), of_halves);
    // Less than independent errors would vary.
    let even = dispersion(&[counts(100.0, 5.0); 40]);
    assert_eq!((even.value, even.pairs), (1.0, 20));
    // Nothing to learn from: no windows, no errors, nothing but errors.
    for windows in [&[][..], &halves(0.0), &[counts(100.0, 100.0); 40]] {
        let unknown = dispersion(windows);
        assert_eq!((unknown.value, unknown.pairs), (1.0, 0));
    }
}

#[test]
fn a_rate_that_drifts_and_an_outage_are_hardly_dispersion() {
    let independent = |at: usize| counts(1_000.0, [8.0, 12.0, 10.0, 10.0][at % 4]);
    let calm: Vec<_> = (0..1_920).map(independent).collect();
    let drifting = (0..1_920).map(|at| counts(1_000.0, f64::from(at / 20)));
    let drifting: Vec<_> = drifting.collect();
    let mut outage = calm.clone();
    for (at, window) in (0..).zip(&mut outage[1_001..1_021]) {
        window.errors = 500.0 + 40.0 * f64::from(at % 2);
    }
    assert!(dispersion(&calm).value < 1.01);
    assert!(dispersion(&drifting).value < 1.01);
    assert!(dispersion(&outage).value < 2.0, "{:?}", dispersion(&outage));
}

#[test]
fn the_anytime_p_value_is_the_reciprocal_of_e_and_at_most_1() {
    assert_close(anytime_p(20.0_f64.ln()), 0.05, 1e-15);
    assert_eq!(anytime_p(-3.0), 1.0);
    assert_eq!(anytime_p(LN_E_LIMIT), 0.0);
    assert_eq!(anytime_p(-LN_E_LIMIT), 1.0);
    assert_eq!(anytime_p(f64::NAN), 1.0);
}
