//! Simulations of the sequential tests in `core::statistics`, against published numbers.
//!
//! The harness earns its belief first: with it, the naive test that is repeated at every look gives
//! the false alarms published by Armitage and colleagues in 1969. Then it counts false
//! rollbacks, time to detection and false promotions of ours.
//!
//! Every comparison states its margin in standard errors of a binomial share ([`MARGIN`]). The
//! seeds are fixed, so a test does not flicker; the margins are what makes the numbers mean
//! something with any other seed (a right implementation fails one comparison in 16,000).
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a test may panic; counts of runs are small"
)]

use countersign::core::statistics::{Counts, EProcess, Test, Tolerance, dispersion};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Poisson, StandardNormal};

/// Standard errors that a simulated share may be off.
const MARGIN: f64 = 4.0;

/// Runs behind each share of the reference, and behind ours.
const RUNS: usize = 4_000;

const ALPHA: f64 = 0.05;

/// The canary's share of the traffic, step by step.
const STEPS: [f64; 5] = [0.01, 0.05, 0.10, 0.25, 0.50];

/// Windows in a step, and requests of both arms in a window: 10 s of 50 requests/s.
const WINDOWS_A_STEP: usize = 60;
const REQUESTS: f64 = 500.0;

const AS_GOOD_AS_STABLE: Test = Test::RollBack(Tolerance {
    ratio: 1.0,
    difference: 0.0,
});

/// When each run of a simulation crossed its line, in looks counted from 1; sorted.
struct Crossings {
    runs: usize,
    looks: Vec<usize>,
}

impl Crossings {
    fn simulate(runs: usize, seed: u64, mut run: impl FnMut(&mut StdRng) -> Option<usize>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut looks: Vec<usize> = (0..runs).filter_map(|_| run(&mut rng)).collect();
        looks.sort_unstable();
        Self { runs, looks }
    }

    /// The share of the runs that crossed at `look` or before.
    fn share_by(&self, look: usize) -> f64 {
        self.looks.partition_point(|&at| at <= look) as f64 / self.runs as f64
    }

    fn share(&self) -> f64 {
        self.looks.len() as f64 / self.runs as f64
    }

    /// The median look of all runs, if at least half of them crossed.
    fn median(&self) -> Option<usize> {
        self.looks.get(self.runs / 2).copied()
    }

    /// The share is that of a reference of as many runs: they differ by at most [`MARGIN`] standard
    /// errors of the difference of two shares (pooled).
    fn assert_share(&self, what: &str, reference: f64) {
        let share = self.share();
        let pooled = f64::midpoint(share, reference);
        let margin = MARGIN * (2.0 * pooled * (1.0 - pooled) / self.runs as f64).sqrt();
        println!("{what}: {share:.4}, reference {reference:.4} +- {margin:.4}");
        assert!(
            (share - reference).abs() <= margin,
            "{what}: {share}, not {reference} +- {margin}"
        );
    }

    /// The share is below `bound` by at least [`MARGIN`] standard errors, and not nothing.
    fn assert_share_below(&self, what: &str, bound: f64) {
        let share = self.share();
        let margin = MARGIN * (share * (1.0 - share) / self.runs as f64).sqrt();
        println!("{what}: {share:.4} + {margin:.4}, bound {bound}");
        assert!(
            share > 0.0,
            "{what}: the test never crosses, so this bound proves nothing"
        );
        assert!(
            share + margin <= bound,
            "{what}: {share} + {margin} is above {bound}"
        );
    }

    /// Every run crossed, and the median is within a factor of 1.3 of the reference.
    fn assert_all_with_median(&self, what: &str, reference: f64) {
        println!(
            "{what}: {:.4}, median {:?} of {reference}",
            self.share(),
            self.median()
        );
        assert_eq!(
            self.looks.len(),
            self.runs,
            "{what}: some runs never crossed"
        );
        let median = self.median().unwrap() as f64;
        assert!(
            median <= reference * 1.3 && median >= reference / 1.3,
            "{what}: median {median}, not {reference}"
        );
    }
}

/// The traffic of one arm: Poisson numbers of successes and of errors, the latter in bursts.
struct Arm {
    successes: Option<Poisson<f64>>,
    bursts: Option<Poisson<f64>>,
    burst: f64,
}

impl Arm {
    fn new(requests: f64, error_rate: f64, burst: f64) -> Self {
        let poisson = |mean: f64| (mean > 0.0).then(|| Poisson::new(mean).unwrap());
        Self {
            successes: poisson(requests * (1.0 - error_rate)),
            bursts: poisson(requests * error_rate / burst),
            burst,
        }
    }

    fn window(&self, rng: &mut StdRng) -> Counts {
        let mut draw =
            |events: Option<Poisson<f64>>| events.map_or(0.0, |events| events.sample(rng));
        let errors = self.burst * draw(self.bursts);
        Counts {
            requests: draw(self.successes) + errors,
            errors,
        }
    }
}

/// A stretch of a rollout in which nothing changes.
struct Stretch {
    windows: usize,
    canary: Arm,
    stable: Arm,
}

impl Stretch {
    fn new(windows: usize, weight: f64, (canary, stable): (f64, f64), burst: f64) -> Self {
        Self {
            windows,
            canary: Arm::new(REQUESTS * weight, canary, burst),
            stable: Arm::new(REQUESTS * (1.0 - weight), stable, burst),
        }
    }
}

/// A rollout through [`STEPS`] with constant error rates of (canary, stable).
fn rollout(rates: (f64, f64), burst: f64) -> Vec<Stretch> {
    STEPS
        .iter()
        .map(|&weight| Stretch::new(WINDOWS_A_STEP, weight, rates, burst))
        .collect()
}

/// The first window of the rollout at which the test rejects its null hypothesis.
fn first_rejection(
    rng: &mut StdRng,
    (test, alpha): (Test, f64),
    dispersion: f64,
    rollout: &[Stretch],
) -> Option<usize> {
    let mut evidence = EProcess::start(test);
    let windows = rollout
        .iter()
        .flat_map(|stretch| (0..stretch.windows).map(move |_| stretch));
    for (look, stretch) in (1..).zip(windows) {
        let (canary, stable) = (stretch.canary.window(rng), stretch.stable.window(rng));
        evidence.observe(test, canary, stable, dispersion);
        if evidence.ln_value() >= -alpha.ln() {
            return Some(look);
        }
    }
    None
}

fn simulate(runs: usize, seed: u64, test: (Test, f64), rollout: &[Stretch]) -> Crossings {
    Crossings::simulate(runs, seed, |rng| first_rejection(rng, test, 1.0, rollout))
}

#[test]
fn the_harness_reproduces_the_published_cost_of_peeking() {
    let crossings = Crossings::simulate(40_000, 1, |rng| {
        let mut sum = 0.0;
        (1..=20_u32).find_map(|look| {
            let step: f64 = StandardNormal.sample(rng);
            sum += step;
            (sum.abs() > 1.959_964 * f64::from(look).sqrt()).then_some(look as usize)
        })
    });
    for (looks, published) in [
        (1, 0.050),
        (2, 0.083),
        (3, 0.107),
        (4, 0.126),
        (5, 0.142),
        (10, 0.193),
        (20, 0.248),
    ] {
        let share = crossings.share_by(looks);
        // The published shares are rounded to three decimals.
        let error = (published * (1.0 - published) / crossings.runs as f64).sqrt();
        let margin = MARGIN * error + 0.0005;
        println!("{looks} looks: {share:.4}, published {published:.3} +- {margin:.4}");
        assert!(
            (share - published).abs() <= margin,
            "{looks} looks: {share}, not {published}"
        );
    }
}

#[test]
fn a_canary_equal_to_stable_is_seldom_rolled_back() {
    let false_rollbacks = simulate(
        RUNS,
        2,
        (AS_GOOD_AS_STABLE, ALPHA),
        &rollout((0.01, 0.01), 1.0),
    );
    false_rollbacks.assert_share("both at 1 %", 0.022);
    false_rollbacks.assert_share_below("both at 1 %", ALPHA);
}

#[test]
fn a_canary_just_within_the_ratio_is_seldom_rolled_back() {
    let test = Test::RollBack(Tolerance {
        ratio: 1.2,
        difference: 0.0,
    });
    let false_rollbacks = simulate(RUNS, 3, (test, ALPHA), &rollout((0.012, 0.01), 1.0));
    false_rollbacks.assert_share("1.2 % of 1 %, ratio 1.2", 0.020);
    false_rollbacks.assert_share_below("1.2 % of 1 %, ratio 1.2", ALPHA);
}

#[test]
fn a_canary_just_within_the_difference_is_seldom_rolled_back() {
    let test = Test::RollBack(Tolerance {
        ratio: 1.0,
        difference: 0.005,
    });
    let false_rollbacks = simulate(RUNS, 4, (test, ALPHA), &rollout((0.015, 0.01), 1.0));
    false_rollbacks.assert_share("1.5 % of 1 %, difference 0.5 points", 0.023);
    false_rollbacks.assert_share_below("1.5 % of 1 %, difference 0.5 points", ALPHA);
}

#[test]
fn an_outage_that_both_arms_share_does_not_blame_the_canary() {
    // Ten times worse for 40 windows, within the step at 10 %.
    let mut with_outage = rollout((0.01, 0.01), 1.0);
    let step = |windows, rate| Stretch::new(windows, 0.10, (rate, rate), 1.0);
    with_outage.splice(2..3, [step(10, 0.01), step(40, 0.10), step(10, 0.01)]);
    let false_rollbacks = simulate(RUNS, 5, (AS_GOOD_AS_STABLE, ALPHA), &with_outage);
    false_rollbacks.assert_share("shared outage", 0.021);
    false_rollbacks.assert_share_below("shared outage", ALPHA);
}

#[test]
fn at_high_error_rates_the_test_errs_on_the_side_of_the_canary() {
    let false_rollbacks = simulate(
        RUNS,
        6,
        (AS_GOOD_AS_STABLE, ALPHA),
        &rollout((0.30, 0.30), 1.0),
    );
    false_rollbacks.assert_share("both at 30 %", 0.0015);
}

#[test]
fn a_worse_canary_is_caught_as_quickly_as_published() {
    for (canary, median) in [
        (0.02, 43.0),
        (0.03, 13.0),
        (0.05, 5.0),
        (0.10, 2.0),
        (1.00, 1.0),
    ] {
        let plan = [Stretch::new(300, 0.05, (canary, 0.01), 1.0)];
        simulate(1_001, 7, (AS_GOOD_AS_STABLE, ALPHA), &plan)
            .assert_all_with_median(&format!("canary at {canary} of 0.01"), median);
    }
}

#[test]
fn bursts_break_the_test_unless_the_dispersion_corrects_for_them() {
    for (burst, uncorrected) in [(2.0, 0.18), (5.0, 0.46), (10.0, 0.60)] {
        let plan = rollout((0.01, 0.01), burst);
        let false_rollbacks = |dispersion| {
            Crossings::simulate(RUNS, 8, |rng| {
                first_rejection(rng, (AS_GOOD_AS_STABLE, ALPHA), dispersion, &plan)
            })
        };
        let what = format!("bursts of {burst}");
        false_rollbacks(1.0).assert_share(&format!("{what}, uncorrected"), uncorrected);
        // No comparison with the reference here: below the guarantee the share depends on what
        // a burst does to the number of requests. Here it adds to it.
        false_rollbacks(burst).assert_share_below(&format!("{what}, corrected"), ALPHA);
    }
}

#[test]
fn a_dispersion_measured_on_stable_before_the_rollout_is_good_enough() {
    let burst = 5.0;
    let before = Arm::new(REQUESTS, 0.01, burst);
    let plan = rollout((0.01, 0.01), burst);
    let mut measured = Vec::new();
    let false_rollbacks = Crossings::simulate(RUNS, 9, |rng| {
        let windows: Vec<Counts> = (0..30).map(|_| before.window(rng)).collect();
        let dispersion = dispersion(&windows);
        measured.push(dispersion);
        first_rejection(rng, (AS_GOOD_AS_STABLE, ALPHA), dispersion, &plan)
    });
    // Chi-square over 29 degrees of freedom spreads by sqrt(2/29), widened for skewed counts, of
    // its mean: over 4,000 runs a standard error of 0.03.
    let mean = measured.iter().sum::<f64>() / measured.len() as f64;
    println!("mean dispersion {mean:.3}");
    assert!(
        (mean - burst).abs() < 0.15,
        "mean dispersion {mean}, not {burst}"
    );
    false_rollbacks.assert_share_below("bursts of 5, dispersion measured", ALPHA);
}

#[test]
fn a_canary_at_the_margin_is_seldom_promoted() {
    // The margins and the chances of a false promotion of the four tiers.
    for (ratio, difference, beta) in [
        (2.0, 0.005, 0.10),
        (1.5, 0.003, 0.05),
        (1.5, 0.002, 0.05),
        (1.25, 0.001, 0.01),
    ] {
        let test = Test::Promote(Tolerance { ratio, difference });
        let stable = 0.001;
        let plan = rollout((ratio * stable + difference, stable), 1.0);
        simulate(RUNS, 10, (test, beta), &plan)
            .assert_share_below(&format!("promotion at {ratio} x + {difference}"), beta);
    }
}

#[test]
fn the_high_tier_decides_as_quickly_as_published() {
    // 50 requests/s, stable at 0.1 %, steps of 15 minutes; the reference gives minutes.
    let plan = |canary| {
        [0.01, 0.02, 0.05, 0.10, 0.25, 0.50]
            .map(|weight| Stretch::new(90, weight, (canary, 0.001), 1.0))
    };
    let windows_a_minute = 6.0;
    for (canary, minutes) in [(0.01, 8.8), (0.10, 0.7)] {
        simulate(1_001, 11, (AS_GOOD_AS_STABLE, ALPHA), &plan(canary))
            .assert_all_with_median(&format!("canary at {canary}"), minutes * windows_a_minute);
    }
    let promote = Test::Promote(Tolerance {
        ratio: 1.5,
        difference: 0.002,
    });
    simulate(1_001, 12, (promote, ALPHA), &plan(0.001))
        .assert_all_with_median("promotion of a healthy canary", 39.0 * windows_a_minute);
}

#[test]
fn a_ceiling_alarms_above_it_and_seldom_at_it() {
    // 14.4 times the budget of an objective of 99.9 %.
    let test = (Test::Ceiling(0.0144), ALPHA);
    simulate(RUNS, 13, test, &rollout((0.0144, 0.0144), 1.0))
        .assert_share_below("at the ceiling", ALPHA);
    let alarms = simulate(1_001, 14, test, &rollout((0.10, 0.10), 1.0));
    assert_eq!(
        alarms.looks.len(),
        alarms.runs,
        "seven times the ceiling goes unseen in some runs"
    );
}
