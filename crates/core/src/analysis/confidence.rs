//! Confidence sequences: displayed error rates, with intervals that hold at every reading.
//!
//! The usual 95 % interval is wrong somewhere along a rollout far more often than in 5 % of rollouts, as it
//! is made for a single reading. [`interval`] covers the true rate at *all* readings at once with a chance
//! of at least `1 - alpha`, so a person may read it at any time.
//!
//! **Invariant:** pure arithmetic, for display only. No decision depends on it: it assumes that the error
//! rate of an arm is constant, which the tests of [`statistics`](crate::analysis::statistics) do not.
//!
//! Sources: Robbins, "Statistical methods related to the law of the iterated logarithm" (1970);
//! Howard, Ramdas and others, "Time-uniform, nonparametric, nonasymptotic confidence sequences"
//! (2021), whose beta-binomial mixture this is; Waudby-Smith and Ramdas, "Estimating means of
//! bounded random variables by betting" (2024).

use countersign_api::counts::Counts;
use statrs::function::beta::checked_ln_beta;

use crate::analysis::statistics::CountsExt;

/// The Beta distribution over which alternatives are mixed, Jeffreys' prior: sharp for rates near
/// 0, where healthy arms are, and near 1, where broken ones are. Any choice is valid.
const MIXTURE: (f64, f64) = (0.5, 0.5);

/// Above this number of requests the interval is that of this number at the same rate, hence wider than
/// necessary: the log gamma function of more leaves too few digits after subtraction.
const MOST_REQUESTS: f64 = 1e9;

/// An interval of error rates, as fractions of requests: from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The lowest rate that is plausible.
    pub low: f64,
    /// The highest rate that is plausible.
    pub high: f64,
}

impl Interval {
    /// The interval without any data.
    pub const WHOLE: Self = Self {
        low: 0.0,
        high: 1.0,
    };
}

/// The rates that an arm's counts so far do not rule out: all `p` with
///
/// ```text
/// ln B(x + a, n - x + b) - ln B(a, b) - x ln p - (n - x) ln(1 - p) < ln(1/alpha)
/// ```
///
/// for `x` errors of `n` requests, counted from the start, and `a = b = 1/2`. The left side is the
/// logarithm of a mixture of likelihood ratios, which for the true rate is a martingale that starts
/// at 1; by Ville's inequality the chance that the true rate is *ever* left out is at most `alpha`,
/// however often one looks. Counts are divided by `dispersion` (at least 1), as if each so many
/// requests shared one fate; see [`dispersion`](crate::analysis::statistics::dispersion).
///
/// It assumes one constant rate: with every request, its chance to fail is `p` whatever came before.
/// If the rate changes, as in an outage, there is no such `p`, and the interval may leave out both
/// what the rate was and what it is. It contains the observed rate in any case.
///
/// [`Interval::WHOLE`] if nothing is known: no requests, counts that are not usable, a dispersion
/// below 1, or an `alpha` that is not between 0 and 1.
#[must_use]
pub fn interval(counts: Counts, dispersion: f64, alpha: f64) -> Interval {
    if !(counts.is_usable() && dispersion >= 1.0 && alpha > 0.0 && alpha < 1.0) {
        return Interval::WHOLE;
    }
    let divisor = dispersion.max(counts.requests / MOST_REQUESTS);
    let (requests, errors) = (counts.requests / divisor, counts.errors / divisor);
    if requests <= 0.0 {
        return Interval::WHOLE;
    }
    let observed = (errors / requests).min(1.0);
    let mean = ln_mean_likelihood(requests, errors, MIXTURE);
    let plausible = |rate| mean - ln_likelihood(requests, errors, rate) < -alpha.ln();
    // The mixture is convex in the rate, and at most 1 at the observed one.
    Interval {
        low: edge(observed, 0.0, plausible),
        high: edge(observed, 1.0, plausible),
    }
}

/// The largest factor by which the canary's error rate surely exceeds stable's: the low end of the canary's
/// [`interval`] over the high end of stable's, each at `alpha / 2`, so that the chance of ever returning
/// too large a factor is at most `alpha`.
///
/// `None` if it is 1 or less: it is not certain that the canary is worse.
///
/// Both rates must be constant. An outage that both arms share while the canary's weight grows is
/// spread unevenly over their sums and can look like a difference between them; the roll-back test,
/// which compares window by window, is not misled by it.
#[must_use]
pub fn times_worse(canary: Counts, stable: Counts, dispersion: f64, alpha: f64) -> Option<f64> {
    let canary = interval(canary, dispersion, alpha / 2.0);
    let stable = interval(stable, dispersion, alpha / 2.0);
    let factor = canary.low / stable.high;
    (factor > 1.0).then_some(factor)
}

/// The logarithm of the likelihood of the counts, averaged over rates that are Beta(a, b).
fn ln_mean_likelihood(requests: f64, errors: f64, (a, b): (f64, f64)) -> f64 {
    // Both parameters are positive, so there is no error; one would rule nothing out.
    let ln_beta = |a, b| checked_ln_beta(a, b).unwrap_or(f64::NEG_INFINITY);
    ln_beta(errors + a, requests - errors + b) - ln_beta(a, b)
}

/// The logarithm of the likelihood of the counts at one rate; infinite if they are impossible.
fn ln_likelihood(requests: f64, errors: f64, rate: f64) -> f64 {
    // No count means no factor, even where its logarithm is infinite.
    let factor = |count: f64, ln: f64| if count > 0.0 { count * ln } else { 0.0 };
    factor(errors, rate.ln()) + factor(requests - errors, (-rate).ln_1p())
}

/// The end of the range of `plausible` between a rate for which it holds and a bound, to the last digit,
/// rounded outwards. The bound itself if it holds there too.
fn edge(holds: f64, bound: f64, plausible: impl Fn(f64) -> bool) -> f64 {
    if plausible(bound) {
        return bound;
    }
    let (mut inside, mut outside) = (holds, bound);
    loop {
        let middle = f64::midpoint(inside, outside);
        if middle <= inside.min(outside) || middle >= inside.max(outside) {
            return outside;
        }
        if plausible(middle) {
            inside = middle;
        } else {
            outside = middle;
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::float_cmp,
    reason = "a test compares numbers that must be exact"
)]
mod tests {
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
}
