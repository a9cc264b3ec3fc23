//! Anytime-valid tests of "is the canary worse than stable?" from counts of requests and errors.
//!
//! Each window of time gives the requests and errors of both arms. A window is turned into a
//! *log e-value* per alternative ([`ln_e`], [`ln_e_absolute`]); an [`EProcess`] adds them up and
//! mixes the alternatives. Under the null hypothesis the mixture is a non-negative supermartingale
//! that starts at 1, so by Ville's inequality the chance that it *ever* reaches `1/alpha` is at
//! most `alpha`, however often one looks and whenever one stops. The decision is therefore
//!
//! ```text
//! evidence.ln_value() >= -alpha.ln()
//! ```
//!
//! Start reading at [`Test`], which names the three questions and the hypothesis each one tests.
//!
//! **Invariant:** pure arithmetic. No clock, no randomness, no I/O, no panic; the same windows give
//! the same evidence. What cannot be a count (NaN, infinity, a negative number, more errors than
//! requests) moves nothing in either direction: the reader of the metrics rejects such windows
//! with a reason, and this module makes sure that one that slips through proves nothing.
//!
//! Sources: Lindon and Malek, "Anytime-valid inference for multinomial count data" (2022); Turner,
//! Ly and Grünwald, safe 2x2 tests; Robbins' method of mixtures.

pub use countersign_api::counts::Counts;
pub use countersign_api::counts::EProcess;
use countersign_api::rollout::Dispersion;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much worse than the tolerated rate the alternatives of [`Test::RollBack`] and
/// [`Test::Ceiling`] are: near 1 for slow leaks, 100 for a canary that fails outright.
const WORSE: [f64; 8] = [1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0];

/// How much better than the margin the alternatives of [`Test::Promote`] are.
const BETTER: [f64; 7] = [0.01, 0.1, 0.25, 0.5, 0.7, 0.85, 0.95];

/// Above 2^53 a double no longer counts by ones; no honest counter gets there.
const LARGEST_COUNT: f64 = 9_007_199_254_740_992.0;

/// Bound of a persisted log e-value, so that a status always holds finite JSON numbers.
///
/// Lowering a log e-value only weakens evidence. Raising one to `-LN_E_LIMIT` adds at most
/// `exp(-1e9)` to E, which is nothing beside `alpha`.
const LN_E_LIMIT: f64 = 1e9;

/// Most errors, and most chi-square, for which a pair of windows counts in [`dispersion`].
const LARGEST_BURST: f64 = 50.0;

/// The begin and the end of an outage, each in a pair of windows.
const EDGES: usize = 2;

/// Properties of [`Counts`].
pub trait CountsExt {
    /// Whether these can be counts: finite, not negative, and no more errors than requests.
    ///
    /// Counts that are not usable move no [`EProcess`] whose [`Test`] reads them.
    #[must_use]
    fn is_usable(&self) -> bool;
}

impl CountsExt for Counts {
    fn is_usable(&self) -> bool {
        (0.0..=LARGEST_COUNT).contains(&self.requests)
            && (0.0..=self.requests).contains(&self.errors)
    }
}

/// How much worse than stable a canary may be: an error rate of up to
/// `ratio * stable + difference`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tolerance {
    /// Tolerated multiple of stable's error rate, at least 1.
    pub ratio: f64,
    /// Tolerated addition to the error rate, a fraction of requests: 0.001 is 0.1 percentage
    /// point. From 0 to 1.
    pub difference: f64,
}

impl Tolerance {
    fn is_usable(&self) -> bool {
        (1.0..=f64::MAX).contains(&self.ratio) && (0.0..=1.0).contains(&self.difference)
    }
}

/// The log e-value of one window, two arms: evidence that the canary's error rate is `alternative`
/// times stable's, against the bound `p_c = ratio * p_b + difference`.
///
/// With `r` the alternative, `R0` and `d` the tolerance, `n` requests and `x` errors of canary (c)
/// and stable (b):
///
/// ```text
/// x_c ln(r/R0) - (x_c + x_b) ln((r n_c + n_b)/(R0 n_c + n_b))
///     - d n_c n_b (r - R0)/(R0 (r n_c + n_b))
/// ```
///
/// For `r > R0` the expectation of its exponential is at most 1 if `p_c <= R0 p_b + d`: it tests
/// "no worse than tolerated". For `r < R0` it is at most 1 if `p_c >= R0 p_b + d`: it tests "worse
/// than the margin". Both hold whatever `p_b` is in this window, for Poisson counts and for sums of
/// independent values in \[0, 1\], because `E exp(a x) <= exp(n p (e^a - 1))`.
///
/// Dimensionless, in nats. 0 ("nothing learnt") if either arm had no requests, since nothing can
/// then be compared, and if a count, the tolerance or the alternative (which must be positive) is
/// not usable.
#[must_use]
pub fn ln_e(canary: Counts, stable: Counts, alternative: f64, tol: Tolerance) -> f64 {
    if !(canary.is_usable() && stable.is_usable() && tol.is_usable() && alternative > 0.0) {
        return 0.0;
    }
    if canary.requests <= 0.0 || stable.requests <= 0.0 {
        return 0.0;
    }
    // The formula with each logarithm written as that of 1 + something: nothing cancels when the
    // alternative is close to the tolerance or one arm is far larger than the other.
    let total = alternative * canary.requests + stable.requests;
    let excess = alternative - tol.ratio;
    let canary_tilt = stable.requests * excess / total / tol.ratio;
    let stable_tilt = -canary.requests * excess / total;
    finite_or_zero(
        canary.errors * canary_tilt.ln_1p() + stable.errors * stable_tilt.ln_1p()
            - tol.difference * canary.requests * canary_tilt,
    )
}

/// The log e-value of one window, one arm: evidence that its error rate is `alternative`, against
/// the bound `p = threshold`.
///
/// ```text
/// x ln(r/th) - n (r - th)
/// ```
///
/// Both rates are fractions of requests. For `alternative > threshold` the expectation of the
/// exponential is at most 1 if `p <= threshold`, by the same inequality as [`ln_e`].
///
/// In nats. 0 if the counts are not usable or a rate is not a positive finite number; a threshold
/// of 0 cannot be tested (one error would disprove it) and must be refused where it is configured.
#[must_use]
pub fn ln_e_absolute(canary: Counts, threshold: f64, alternative: f64) -> f64 {
    if !(canary.is_usable() && threshold > 0.0 && alternative > 0.0) {
        return 0.0;
    }
    let excess = alternative - threshold;
    finite_or_zero(canary.errors * (excess / threshold).ln_1p() - canary.requests * excess)
}

/// The three hypotheses of an analysis. Each names its null hypothesis; an [`EProcess`] gathers evidence
/// against it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Test {
    /// Null: in every window the canary is no worse than tolerated, `p_c <= ratio * p_b +
    /// difference`. Evidence against it rolls back; `alpha` bounds the chance of a false rollback.
    RollBack(Tolerance),
    /// Null: in every window the canary is worse by at least the margin, `p_c >= ratio * p_b +
    /// difference`. Evidence against it lets a step pass; `alpha` (there called beta) bounds the
    /// chance of a false promotion.
    Promote(Tolerance),
    /// Null: in every window the canary's error rate is at most this fraction of requests (a burn rate
    /// times one minus the objective). Stable's counts are ignored. Evidence against it shows that the
    /// objective is missed, not by whose fault.
    Ceiling(f64),
}

impl Test {
    /// The alternatives, as multiples of the boundary of the null.
    fn multiples(self) -> &'static [f64] {
        match self {
            Self::RollBack(_) | Self::Ceiling(_) => &WORSE,
            Self::Promote(_) => &BETTER,
        }
    }

    /// The log e-value of one window for the alternative at `multiple` times the boundary.
    fn ln_e(self, canary: Counts, stable: Counts, multiple: f64) -> f64 {
        match self {
            Self::RollBack(tol) | Self::Promote(tol) => {
                ln_e(canary, stable, multiple * tol.ratio, tol)
            }
            // No rate is above 1, so an alternative there is waste. The lower bound is for a
            // ceiling of 1 or more, which nothing can exceed: its e-value stays at 1.
            Self::Ceiling(threshold) => {
                let alternative = (multiple * threshold).min(1.0).max(threshold);
                ln_e_absolute(canary, threshold, alternative)
            }
        }
    }
}

/// The operations of an [`EProcess`].
pub trait EProcessExt {
    /// No evidence yet: E = 1.
    #[must_use]
    fn start(test: Test) -> Self;

    /// Folds in one window, disjoint from all earlier ones.
    ///
    /// `dispersion` (at least 1) divides all counts: errors that come in bursts of up to that many
    /// are then worth one, which keeps the guarantee when errors are not independent; see
    /// [`dispersion`]. A window with an unusable count, tolerance or dispersion moves nothing.
    ///
    /// A persisted state that does not fit the test (wrong number of entries, not finite) is discarded: the
    /// process restarts with this window.
    fn observe(&mut self, test: Test, canary: Counts, stable: Counts, dispersion: f64);

    /// Adds `share` of fresh evidence (E = 1) to that gathered so far, so that a regression which
    /// begins now does not first have to win back what healthy windows took.
    ///
    /// The sum of a process and of shares that start later is a non-negative supermartingale too; its
    /// start is 1 plus all shares, by which the threshold must be raised.
    fn rearm(&mut self, share: f64);

    /// Drops what speaks for a rejection, and keeps what speaks against it. Evidence that is lost keeps the guarantee.
    fn forgive(&mut self);

    /// Drops what exceeds this `ln E`. Evidence that is lost keeps the guarantee.
    fn cap(&mut self, most: f64);

    /// `ln E`, in nats: the logarithm of the mean e-value of the alternatives. The null hypothesis
    /// is rejected at level `alpha` the first time this is at least `-ln(alpha)`.
    ///
    /// Always finite; 0 (no evidence) for a state that is empty or not finite.
    #[must_use]
    fn ln_value(&self) -> f64;
}

impl EProcessExt for EProcess {
    fn start(test: Test) -> Self {
        Self {
            ln_e: vec![0.0; test.multiples().len()],
        }
    }

    fn observe(&mut self, test: Test, canary: Counts, stable: Counts, dispersion: f64) {
        let multiples = test.multiples();
        // A restart rather than an error: the alternatives change with an upgrade, which must not leave a
        // rollout stuck until a person edits its status. It is safe in both directions: E = 1 neither
        // promotes nor rolls back, and evidence is gathered again.
        if self.ln_e.len() != multiples.len() || !all_finite(&self.ln_e) {
            *self = Self::start(test);
        }
        if dispersion.is_nan() || dispersion < 1.0 {
            return;
        }
        for (sum, &multiple) in self.ln_e.iter_mut().zip(multiples) {
            // A log e-value is proportional to the counts, so this divides the counts.
            let learnt = test.ln_e(canary, stable, multiple) / dispersion;
            *sum = (*sum + learnt).clamp(-LN_E_LIMIT, LN_E_LIMIT);
        }
    }

    fn rearm(&mut self, share: f64) {
        for sum in &mut self.ln_e {
            let (high, low) = (sum.max(share.ln()), sum.min(share.ln()));
            *sum = finite_or_zero(high + (low - high).exp().ln_1p());
        }
    }

    fn forgive(&mut self) {
        for sum in &mut self.ln_e {
            *sum = sum.min(0.0);
        }
    }

    fn cap(&mut self, most: f64) {
        let surplus = (self.ln_value() - most).max(0.0);
        for sum in &mut self.ln_e {
            *sum -= surplus;
        }
    }

    fn ln_value(&self) -> f64 {
        ln_mean(&self.ln_e)
    }
}

/// The logarithm of the mean of e-values given by their logarithms, in nats.
///
/// A mean of e-values is an e-value whatever their dependence, so it also joins several metrics:
/// fail when it reaches `-ln(alpha)`. 0 (no evidence) if there are none or one is not finite.
#[must_use]
pub fn ln_mean(ln_e: &[f64]) -> f64 {
    if ln_e.is_empty() || !all_finite(ln_e) {
        return 0.0;
    }
    let (largest, count) = ln_e
        .iter()
        .fold((f64::MIN, 0.0), |(max, n), &v| (v.max(max), n + 1.0));
    // Relative to the largest, or the exponentials overflow.
    let mean = ln_e.iter().map(|v| (v - largest).exp()).sum::<f64>() / count;
    largest + mean.ln()
}

/// The fewest canary requests after which [`Test::Promote`] can pass with no error anywhere:
/// `ln(1/beta) / difference`, rounded up.
///
/// A lower bound to show a person who waits: without errors no process passes sooner, and the
/// mixture takes up to 1.7 times as many while stable has at least the canary's traffic.
///
/// Infinite, which JSON cannot say, if the margin has no additive part: then only errors of stable
/// can show that the canary has fewer. Also if `beta` is not in (0, 1) or the margin is not usable,
/// since such a test never passes.
#[must_use]
pub fn requests_needed(beta: f64, margin: Tolerance) -> f64 {
    if beta > 0.0 && beta < 1.0 && margin.is_usable() && margin.difference > 0.0 {
        (-beta.ln() / margin.difference).ceil()
    } else {
        f64::INFINITY
    }
}

/// How clustered a service's errors are: the mean, over pairs of adjacent windows weighted by their errors, of
/// the chi-square of equal error rates in both, and at least 1.
///
/// Given `T` errors in `N` requests of a pair, of which the first window has `x` in `n`, and `q = n/N`:
///
/// ```text
/// (x - q T)^2 / (q (1 - q) T (N - T)/(N - 1))
/// ```
///
/// Its expectation is 1 for independent errors and `b` for errors in bursts of `b`; by the weights, single
/// errors do not hide the bursts among them. As only neighbours are compared, an error rate that drifts over
/// the day is no dispersion. No pair counts for more than [`LARGEST_BURST`], and the two that say most are left
/// out of eight or more each, so that neither the errors of an outage nor its two edges outweigh the rest of
/// the day. It is measured before the canary starts and kept for the rollout: measured later
/// it could depend on what it corrects.
///
/// Windows without requests or with unusable counts are left out. Pairs in which none or all of the
/// requests failed say nothing about clustering.
#[must_use]
pub fn dispersion(windows: &[Counts]) -> Dispersion {
    let usable = windows.iter().filter(|w| w.is_usable() && w.requests > 0.0);
    let usable: Vec<_> = usable.collect();
    let capped =
        |(errors, ratio): (f64, f64)| (errors.min(LARGEST_BURST), ratio.min(LARGEST_BURST));
    let pairs = usable.chunks_exact(2).filter_map(chi_square).map(capped);
    let mut pairs: Vec<(f64, f64)> = pairs.collect();
    pairs.sort_by(|a, b| (b.0 * b.1).total_cmp(&(a.0 * a.1)));
    let kept = pairs.iter().skip((pairs.len() / 8).min(EDGES));
    let (sum, weights) = kept.fold((0.0, 0.0), |(sum, weights), (weight, ratio)| {
        (sum + weight * ratio, weights + weight)
    });
    let count = |length: usize| i32::try_from(length).unwrap_or(i32::MAX);
    Dispersion {
        value: finite_or_zero(sum / weights).max(1.0), // no pair gives 0/0
        windows: count(usable.len()),
        pairs: count(pairs.len()),
    }
}

/// The errors of two windows, and the chi-square, of one degree of freedom, of equal error rates in both.
fn chi_square(pair: &[&Counts]) -> Option<(f64, f64)> {
    let [a, b] = pair else { return None };
    let (requests, errors) = (a.requests + b.requests, a.errors + b.errors);
    let share = a.requests / requests;
    let failing = (requests - errors) / (requests - 1.0);
    let variance = share * (1.0 - share) * errors * failing;
    let ratio = (a.errors - share * errors).powi(2) / variance;
    (variance > 0.0 && ratio.is_finite()).then_some((errors, ratio))
}

/// The anytime-valid p-value of a log e-value, `min(1, 1/E)`, for display.
///
/// Of the largest `ln_value()` so far it is a p-value that holds however often it is looked at.
/// 1 (no evidence) for NaN.
#[must_use]
pub fn anytime_p(ln_e: f64) -> f64 {
    (-ln_e).exp().min(1.0)
}

fn finite_or_zero(value: f64) -> f64 {
    if value.is_finite() { value } else { 0.0 }
}

fn all_finite(values: &[f64]) -> bool {
    values.iter().all(|v| v.is_finite())
}

#[cfg(test)]
mod tests;
