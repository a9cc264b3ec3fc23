//! The numbers of `core::statistics` and `core::confidence` against those of a second implementation.

use countersign_core::analysis::confidence::interval;
use countersign_core::analysis::statistics::{
    Counts, EProcess, EProcessExt, Test, Tolerance, dispersion, ln_e, ln_e_absolute,
    requests_needed,
};
use serde_json::Value;

use super::{fixture, rows};

fn counts(requests: f64, errors: f64) -> Counts {
    Counts { requests, errors }
}

/// Equal to 9 digits; the addition is for what is 0 there and a rounding error here.
fn assert_agree(what: &str, got: f64, expected: f64) {
    assert!(
        (got - expected).abs() <= 1e-9 * expected.abs() + 1e-14,
        "{what}: {got}, the second implementation {expected}"
    );
}

#[test]
fn the_log_e_value_of_a_window_is_that_of_the_second_implementation() {
    for [n_c, x_c, n_b, x_b, alternative, ratio, difference, expected] in
        rows::<[f64; 8]>(&fixture()["lnE"])
    {
        let (canary, stable) = (counts(n_c, x_c), counts(n_b, x_b));
        let got = ln_e(canary, stable, alternative, Tolerance { ratio, difference });
        assert_agree(&format!("{canary:?} {stable:?}"), got, expected);
    }
    for [n, x, threshold, alternative, expected] in rows::<[f64; 5]>(&fixture()["lnEAbsolute"]) {
        let got = ln_e_absolute(counts(n, x), threshold, alternative);
        assert_agree(&format!("{x} of {n}"), got, expected);
    }
    for [x_c, x_b, n_c, n_b, alternative, ratio, difference, expected] in
        rows::<[f64; 8]>(&fixture()["published"]["lnE"]["values"])
    {
        let tolerance = Tolerance { ratio, difference };
        let got = ln_e(counts(n_c, x_c), counts(n_b, x_b), alternative, tolerance);
        assert!(
            (got - expected).abs() < 5e-13,
            "{got}, published {expected}"
        );
    }
}

#[test]
fn the_evidence_of_a_rollout_is_that_of_the_second_implementation() {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Mixture {
        test: String,
        parameters: Vec<f64>,
        dispersion: f64,
        renewed_before: Vec<usize>,
        share: f64,
        windows: Vec<[f64; 4]>,
        ln_e: Vec<f64>,
    }
    for (which, mixture) in rows::<Mixture>(&fixture()["mixtures"]).iter().enumerate() {
        let test = match (mixture.test.as_str(), mixture.parameters.as_slice()) {
            ("rollBack", &[ratio, difference]) => Test::RollBack(Tolerance { ratio, difference }),
            ("promote", &[ratio, difference]) => Test::Promote(Tolerance { ratio, difference }),
            ("ceiling", &[threshold]) => Test::Ceiling(threshold),
            (other, _) => unreachable!("{other}"),
        };
        let mut evidence = EProcess::start(test);
        assert_eq!(mixture.windows.len(), mixture.ln_e.len());
        for (at, (&[n_c, x_c, n_b, x_b], &expected)) in
            mixture.windows.iter().zip(&mixture.ln_e).enumerate()
        {
            if mixture.renewed_before.contains(&at) {
                evidence.rearm(mixture.share);
            }
            let (canary, stable) = (counts(n_c, x_c), counts(n_b, x_b));
            evidence.observe(test, canary, stable, mixture.dispersion);
            let what = format!("mixture {which} after window {at}");
            assert_agree(&what, evidence.ln_value(), expected);
        }
    }
}

#[test]
fn the_dispersion_is_that_of_the_second_implementation() {
    for case in rows::<Value>(&fixture()["dispersions"]) {
        let windows: Vec<(f64, f64)> = rows(&case["windows"]);
        let windows: Vec<Counts> = windows.iter().map(|&(n, x)| counts(n, x)).collect();
        let expected = case["dispersion"].as_f64().unwrap();
        let got = dispersion(&windows);
        assert_agree("dispersion", got.value, expected);
        assert_eq!(Some(i64::from(got.pairs)), case["pairs"].as_i64());
        assert_eq!(usize::try_from(got.windows).unwrap(), windows.len());
    }
}

#[test]
fn the_intervals_are_those_of_the_second_implementation() {
    for [n, x, dispersion, alpha, low, high] in rows::<[f64; 6]>(&fixture()["intervals"]) {
        let got = interval(counts(n, x), dispersion, alpha);
        let what = format!("{x} of {n} by {dispersion} at {alpha}");
        assert_agree(&format!("{what}, high"), got.high, high);
        assert!(
            (got.low - low).abs() <= 1e-9 * low,
            "{what}: low {}, not {low}",
            got.low
        );
    }
}

#[test]
fn the_requests_needed_are_those_of_the_second_implementation() {
    let fixture = fixture();
    for values in [
        &fixture["requestsNeeded"],
        &fixture["published"]["requestsNeeded"]["values"],
    ] {
        for [beta, difference, expected] in rows::<[f64; 3]>(values) {
            let margin = Tolerance {
                ratio: 1.5,
                difference,
            };
            assert_agree("requests", requests_needed(beta, margin), expected);
        }
    }
}
