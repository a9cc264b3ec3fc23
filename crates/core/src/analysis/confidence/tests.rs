use countersign_api::counts::Counts;
use proptest::prelude::*;

use super::*;

fn counts(requests: f64, errors: f64) -> Counts {
    Counts { requests, errors }
}

/// The target of `TestTwoSidedBetaBinomialMixture` in `test/uniform_boundaries_unittest.cpp` of
/// the package `confseq` by Howard, Waudby-Smith and Ramdas (commit 70b1ef3), there "from a
/// reference implementation in R": `beta_binomial_log_mixture(s = 10, v = 100, v_opt = 100,
/// g = 0.2, h = 0.8, alpha_opt = 0.05)`. That package writes `p = g`, `x = v/(gh) p + s`,
/// `n = v/(gh)`, `a = r/h`, `b = r/g` with `r = 12.60056 - gh`.
#[test]
fn the_mixture_is_the_one_of_confseq() {
    let r = 12.600_56 - 0.2 * 0.8;
    let mean = ln_mean_likelihood(625.0, 135.0, (r / 0.8, r / 0.2));
    let got = mean - ln_likelihood(625.0, 135.0, 0.2);
    assert!((got - -0.694_101_2).abs() < 1e-7, "{got}");
}

/// With a uniform mixture it is Robbins' own: `(n + 1) C(n, x) p^x (1 - p)^(n - x)`, inverted.
#[test]
fn the_uniform_mixture_is_robbins_own() {
    let robbins = 11.0 * 120.0 * 0.3_f64.powi(3) * 0.7_f64.powi(7);
    let got = ln_mean_likelihood(10.0, 3.0, (1.0, 1.0)) - ln_likelihood(10.0, 3.0, 0.3);
    assert!((got + robbins.ln()).abs() < 1e-12, "{got}");
}

#[test]
fn a_canary_at_3_percent_beside_stable_at_a_half_is_surely_four_times_worse() {
    // 3.1 % of 4,210 requests against 0.4 % of 80,911.
    let (canary, stable) = (counts(4_210.0, 131.0), counts(80_911.0, 324.0));
    let factor = times_worse(canary, stable, 1.0, 0.01);
    assert!(
        factor.is_some_and(|factor| (4.0..5.0).contains(&factor)),
        "{factor:?}"
    );
    assert_eq!(times_worse(stable, canary, 1.0, 0.01), None);
    assert_eq!(times_worse(canary, canary, 1.0, 0.01), None);
}

#[test]
fn all_or_none_failing_has_one_open_end() {
    let none = interval(counts(1_000.0, 0.0), 1.0, 0.05);
    let all = interval(counts(1_000.0, 1_000.0), 1.0, 0.05);
    assert_eq!((none.low, all.high), (0.0, 1.0));
    assert!((0.004..0.008).contains(&none.high), "{none:?}");
    assert!((none.high + all.low - 1.0).abs() < 1e-9, "{all:?}");
}

#[test]
fn dispersion_divides_the_counts() {
    let (whole, fifth) = (counts(1_000.0, 35.0), counts(200.0, 7.0));
    assert_eq!(interval(whole, 5.0, 0.05), interval(fifth, 1.0, 0.05));
}

#[test]
fn beyond_a_billion_requests_the_interval_stays_that_of_a_billion() {
    let billion = interval(counts(1e9, 1e6), 1.0, 0.05);
    assert_eq!(interval(counts(4e15, 4e12), 1.0, 0.05), billion);
    assert!(
        billion.low < 0.001 && billion.high - billion.low < 2e-5,
        "{billion:?}"
    );
}

#[test]
fn nothing_is_known_of_what_was_not_counted() {
    let good = counts(100.0, 50.0);
    for bad in [
        counts(0.0, 0.0),
        counts(f64::NAN, 0.0),
        counts(100.0, f64::NAN),
        counts(f64::INFINITY, 1.0),
        counts(100.0, 101.0),
        counts(100.0, -1.0),
        counts(-100.0, 0.0),
        counts(1e300, 0.0),
    ] {
        assert_eq!(interval(bad, 1.0, 0.05), Interval::WHOLE, "{bad:?}");
        assert_eq!(times_worse(bad, good, 1.0, 0.05), None, "{bad:?}");
        assert_eq!(times_worse(good, bad, 1.0, 0.05), None, "{bad:?}");
    }
    for dispersion in [f64::NAN, 0.0, 0.99, -1.0, f64::INFINITY] {
        assert_eq!(interval(good, dispersion, 0.05), Interval::WHOLE);
    }
    for alpha in [f64::NAN, 0.0, -0.1, 1.0, 2.0, f64::INFINITY] {
        assert_eq!(interval(good, 1.0, alpha), Interval::WHOLE);
        assert_eq!(
            times_worse(good, counts(100.0, 0.0), 1.0, 2.0 * alpha),
            None
        );
    }
}

/// Counts up to a hundred million requests, whole or not, mostly of small rates.
fn any_counts() -> impl Strategy<Value = Counts> {
    (0.0_f64..8.0, 0.0_f64..=1.0, any::<bool>()).prop_map(|(digits, share, whole)| {
        let requests = f64::powf(10.0, digits);
        let errors = requests * f64::powi(share, 4);
        if whole {
            counts(requests.floor(), errors.floor())
        } else {
            counts(requests, errors)
        }
    })
}

fn any_alpha() -> impl Strategy<Value = f64> {
    (0.1_f64..12.0).prop_map(|digits| f64::powf(10.0, -digits))
}

fn hostile_number() -> impl Strategy<Value = f64> {
    prop_oneof![
        proptest::num::f64::ANY,
        prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::MAX, -1.0, -0.0]),
        prop::sample::select(vec![0.0, f64::MIN_POSITIVE, 5e-324, 1.0, 9e15]),
        0.0..1000.0,
    ]
}

/// Whether one interval lies in another, but for rounding.
fn within(inner: Interval, outer: Interval) -> bool {
    inner.low >= outer.low * (1.0 - 1e-9) && inner.high <= outer.high * (1.0 + 1e-9)
}

proptest! {
    #[test]
    fn the_observed_rate_is_plausible(
        counts in any_counts(), alpha in any_alpha(), dispersion in 1.0..20.0,
    ) {
        let observed = counts.errors / counts.requests;
        let Interval { low, high } = interval(counts, dispersion, alpha);
        prop_assert!(0.0 <= low && low <= observed && observed <= high && high <= 1.0);
    }

    #[test]
    fn more_requests_at_the_same_rate_say_more(
        before in any_counts(), times in 1.0..10.0, alpha in any_alpha(),
    ) {
        let after = counts(before.requests * times, before.errors * times);
        prop_assert!(within(interval(after, 1.0, alpha), interval(before, 1.0, alpha)));
    }

    #[test]
    fn more_certainty_takes_a_wider_interval(
        counts in any_counts(), alpha in any_alpha(), share in 0.0..1.0,
    ) {
        let (narrow, wide) = (interval(counts, 1.0, alpha), interval(counts, 1.0, alpha * share));
        prop_assert!(within(narrow, wide), "{narrow:?} {wide:?}");
    }

    #[test]
    fn more_dispersion_takes_a_wider_interval(
        counts in any_counts(), alpha in any_alpha(), less in 1.0..20.0, more in 1.0..20.0,
    ) {
        let (narrow, wide) =
            (interval(counts, less, alpha), interval(counts, less * more, alpha));
        prop_assert!(within(narrow, wide), "{narrow:?} {wide:?}");
    }

    #[test]
    fn a_sure_factor_is_below_the_observed_one(
        canary in any_counts(), stable in any_counts(), alpha in any_alpha(),
    ) {
        if let Some(factor) = times_worse(canary, stable, 1.0, alpha) {
            let observed = canary.errors / canary.requests * stable.requests / stable.errors;
            prop_assert!(factor > 1.0 && factor <= observed * (1.0 + 1e-9));
        }
    }

    #[test]
    fn no_number_panics_or_leaves_the_rates(
        requests in hostile_number(), errors in hostile_number(),
        dispersion in hostile_number(), alpha in hostile_number(),
    ) {
        let hostile = counts(requests, errors);
        let Interval { low, high } = interval(hostile, dispersion, alpha);
        prop_assert!(0.0 <= low && low <= high && high <= 1.0, "{low} {high}");
        for (canary, stable) in [(hostile, counts(9.0, 1.0)), (counts(9.0, 9.0), hostile)] {
            let factor = times_worse(canary, stable, dispersion, alpha);
            prop_assert!(factor.is_none_or(|factor| (1.0..=f64::MAX).contains(&factor)));
        }
    }
}
