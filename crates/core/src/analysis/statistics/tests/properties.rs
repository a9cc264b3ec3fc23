use super::*;

/// Whole counts of one arm, up to a million requests.
fn any_counts() -> impl Strategy<Value = Counts> {
    (0_u32..1_000_000, 0.0..1.0).prop_map(|(n, share)| {
        let requests = f64::from(n);
        // Mostly small rates, as in production.
        counts(requests, (requests * f64::powi(share, 3)).floor())
    })
}

fn any_tolerance() -> impl Strategy<Value = Tolerance> {
    (1.0..3.0, 0.0..0.02).prop_map(|(ratio, difference)| Tolerance { ratio, difference })
}

fn hostile_number() -> impl Strategy<Value = f64> {
    prop_oneof![
        proptest::num::f64::ANY,
        prop::sample::select(vec![
            f64::NAN,
            f64::INFINITY,
            f64::MIN,
            f64::MAX,
            -1.0,
            -0.0
        ]),
        prop::sample::select(vec![0.0, f64::MIN_POSITIVE, 5e-324, 1.0, LARGEST_COUNT]),
        0.0..1000.0,
    ]
}

fn hostile_counts() -> impl Strategy<Value = Counts> {
    (hostile_number(), hostile_number()).prop_map(|(n, x)| counts(n, x))
}

fn not_above(lower: f64, higher: f64) -> bool {
    lower <= higher + 1e-9 * (1.0 + higher.abs())
}

proptest! {
    #[test]
    fn the_formula_is_the_one_of_the_documentation(
        canary in any_counts(), stable in any_counts(),
        tol in any_tolerance(), multiple in 0.01_f64..100.0,
    ) {
        prop_assume!(canary.requests > 0.0 && stable.requests > 0.0);
        let (Counts { requests: n_c, errors: x_c }, Counts { requests: n_b, errors: x_b }) =
            (canary, stable);
        let Tolerance { ratio: r0, difference: d } = tol;
        let r = multiple * r0;
        let literal = x_c * (r / r0).ln()
            - (x_c + x_b) * ((r * n_c + n_b) / (r0 * n_c + n_b)).ln()
            - d * n_c * n_b * (r - r0) / (r0 * (r * n_c + n_b));
        let got = ln_e(canary, stable, r, tol);
        prop_assert!((got - literal).abs() < 1e-6, "{got} {literal}");
    }

    #[test]
    fn more_errors_of_the_canary_are_evidence_against_it(
        canary in any_counts(), stable in any_counts(),
        tol in any_tolerance(), share in 0.0..1.0,
    ) {
        let worse =
            counts(canary.requests, canary.errors + share * (canary.requests - canary.errors));
        prop_assume!(worse.is_usable());
        for (test, calm, alarmed) in [
            (Test::RollBack(tol), canary, worse),
            (Test::Ceiling(0.01), canary, worse),
            (Test::Promote(tol), worse, canary),
        ] {
            let lower = ln_value_of_one(test, calm, stable);
            let higher = ln_value_of_one(test, alarmed, stable);
            prop_assert!(not_above(lower, higher), "{test:?}: {lower} {higher}");
        }
    }

    #[test]
    fn more_errors_of_stable_speak_for_the_canary(
        canary in any_counts(), stable in any_counts(),
        tol in any_tolerance(), share in 0.0..1.0,
    ) {
        let worse =
            counts(stable.requests, stable.errors + share * (stable.requests - stable.errors));
        prop_assume!(worse.is_usable());
        let roll_back = |stable| ln_value_of_one(Test::RollBack(tol), canary, stable);
        let promote = |stable| ln_value_of_one(Test::Promote(tol), canary, stable);
        prop_assert!(not_above(roll_back(worse), roll_back(stable)));
        prop_assert!(not_above(promote(stable), promote(worse)));
    }

    #[test]
    fn more_successes_of_the_canary_speak_for_it(
        canary in any_counts(), stable in any_counts(),
        tol in any_tolerance(), more in 0.0..1e6,
    ) {
        prop_assume!(canary.requests > 0.0);
        let better = counts(canary.requests + more, canary.errors);
        let value = |test, canary| ln_value_of_one(test, canary, stable);
        for test in [Test::RollBack(tol), Test::Ceiling(0.01)] {
            prop_assert!(not_above(value(test, better), value(test, canary)));
        }
        let promote = Test::Promote(tol);
        prop_assert!(not_above(value(promote, canary), value(promote, better)));
    }

    #[test]
    fn a_wider_difference_is_more_forgiving(
        canary in any_counts(), stable in any_counts(),
        tol in any_tolerance(), more in 0.0..0.02,
    ) {
        let wider = Tolerance { difference: tol.difference + more, ..tol };
        let value = |test| ln_value_of_one(test, canary, stable);
        prop_assert!(not_above(value(Test::RollBack(wider)), value(Test::RollBack(tol))));
        prop_assert!(not_above(value(Test::Promote(tol)), value(Test::Promote(wider))));
    }

    #[test]
    fn no_number_panics_and_only_usable_windows_move_anything(
        canary in hostile_counts(), stable in hostile_counts(), dispersion in hostile_number(),
        ratio in hostile_number(), difference in hostile_number(),
    ) {
        let tol = Tolerance { ratio, difference };
        let pair = canary.is_usable() && stable.is_usable() && tol.is_usable();
        for (test, usable) in [
            (Test::RollBack(tol), pair),
            (Test::Promote(tol), pair),
            (Test::Ceiling(ratio), canary.is_usable() && ratio > 0.0 && ratio < 1.0),
        ] {
            let mut evidence = EProcess::start(test);
            evidence.observe(test, canary, stable, dispersion);
            prop_assert!(evidence.ln_e.iter().all(|v| v.abs() <= LN_E_LIMIT));
            prop_assert!(evidence.ln_value().is_finite());
            prop_assert!((0.0..=1.0).contains(&anytime_p(evidence.ln_value())));
            if !usable || dispersion.is_nan() || dispersion < 1.0 {
                prop_assert_eq!(evidence, EProcess::start(test));
            }
        }
        let stable_before = [canary, stable, counts(100.0, 1.0)].repeat(10);
        prop_assert!((1.0..=f64::MAX).contains(&crate::analysis::statistics::dispersion(&stable_before).value));
        prop_assert!(requests_needed(ratio, tol) > 0.0);
    }

    #[test]
    fn the_evidence_survives_a_restart_of_the_controller(
        windows in prop::collection::vec((any_counts(), any_counts()), 1..20),
        restart in 0_usize..20, which in 0_usize..3,
    ) {
        let test = EVERY_TEST[which];
        let uninterrupted = after(test, &windows);
        let (before, rest) = windows.split_at(restart.min(windows.len()));
        let persisted = serde_json::to_string(&after(test, before)).unwrap();
        let mut resumed: EProcess = serde_json::from_str(&persisted).unwrap();
        for &(canary, stable) in rest {
            resumed.observe(test, canary, stable, 1.0);
        }
        // Not exactly equal: without its feature `float_roundtrip` serde_json may read a
        // number one unit in the last place off.
        for (a, b) in resumed.ln_e.iter().zip(&uninterrupted.ln_e) {
            prop_assert!((a - b).abs() <= 1e-9 * (1.0 + a.abs()), "{a} {b}");
        }
        prop_assert_eq!(resumed.ln_e.len(), uninterrupted.ln_e.len());
    }

    #[test]
    fn nothing_is_promoted_with_fewer_requests_than_needed(
        tol in any_tolerance(), beta in 0.001..0.5, stable in 1.0_f64..1e12,
    ) {
        prop_assume!(tol.difference > 1e-6);
        let test = Test::Promote(tol);
        let canary = counts(requests_needed(beta, tol) - 1.0, 0.0);
        prop_assert!(ln_value_of_one(test, canary, counts(stable, 0.0)) < -beta.ln());
    }
}
