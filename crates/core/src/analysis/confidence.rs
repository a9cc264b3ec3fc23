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
mod tests;
