//! The sequential tests in `core::statistics` and the intervals in `core::confidence`: against a
//! second implementation, against published numbers, and in simulations.
//!
//! `fixtures/statistics.json` holds what `fixtures/statistics.py` computes in another way, and what
//! others published, with their sources.
//!
//! The simulations' harness earns its belief first: with it, the naive test that is repeated at every look gives
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

use countersign_core::analysis::confidence::{interval, times_worse};
use countersign_core::analysis::series::{FirstIncrement, Series, Span, increase};
use countersign_core::analysis::statistics::{
    Counts, EProcess, EProcessExt, Test, Tolerance, dispersion, ln_e, ln_e_absolute,
    requests_needed,
};
use countersign_core::analysis::thresholds::RENEWED;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Poisson, StandardNormal};
use serde_json::Value;

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

/// What a second implementation gives, and what others published.
fn fixture() -> Value {
    serde_json::from_str(include_str!("fixtures/statistics.json")).unwrap()
}

fn rows<T: serde::de::DeserializeOwned>(values: &Value) -> Vec<T> {
    let rows: Vec<T> = serde_json::from_value(values.clone()).unwrap();
    assert!(!rows.is_empty(), "there is nothing to compare");
    rows
}

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

#[test]
fn the_harness_reproduces_the_published_cost_of_peeking() {
    let crossings = Crossings::simulate(40_000, 1, |rng| {
        let mut sum = 0.0;
        (1..=100_u32).find_map(|look| {
            let step: f64 = StandardNormal.sample(rng);
            sum += step;
            (sum.abs() > 1.959_964 * f64::from(look).sqrt()).then_some(look as usize)
        })
    });
    let published: Vec<(usize, f64)> = rows(&fixture()["published"]["peeking"]["values"]);
    for &(looks, published) in &published {
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
    assert_eq!(published.len(), 9);
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
        let windows: Vec<Counts> = (0..1_920).map(|_| before.window(rng)).collect();
        let dispersion = dispersion(&windows).value;
        measured.push(dispersion);
        first_rejection(rng, (AS_GOOD_AS_STABLE, ALPHA), dispersion, &plan)
    });
    // A weighted mean over 960 pairs without the two largest, each counted for at most 50: a few hundredths
    // below the burst.
    let mean = measured.iter().sum::<f64>() / measured.len() as f64;
    println!("mean dispersion {mean:.3}");
    assert!(
        (mean - burst).abs() < 0.25,
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

/// The first window after which the operator rolls back: it looks after each `every` windows, adds
/// fresh evidence with each step, and has twice the threshold for that (`core::analysis`).
fn first_rollback(
    every: usize,
    dispersion: f64,
    mut windows: impl Iterator<Item = (Counts, Counts)>,
) -> Option<usize> {
    let test = AS_GOOD_AS_STABLE;
    let mut evidence = EProcess::start(test);
    for look in 0.. {
        if look > 0 && (look * every).is_multiple_of(WINDOWS_A_STEP) {
            evidence.rearm(RENEWED / STEPS.len() as f64);
        }
        let (mut canary, mut stable) = (Counts::default(), Counts::default());
        for _ in 0..every {
            let window = windows.next()?;
            add(&mut canary, window.0);
            add(&mut stable, window.1);
        }
        evidence.observe(test, canary, stable, dispersion);
        if evidence.ln_value() >= ((1.0 + RENEWED) / ALPHA).ln() {
            return Some((look + 1) * every);
        }
    }
    None
}

fn add(sum: &mut Counts, more: Counts) {
    sum.requests += more.requests;
    sum.errors += more.errors;
}

fn windows(rng: &mut StdRng, rollout: &[Stretch]) -> impl Iterator<Item = (Counts, Counts)> {
    rollout
        .iter()
        .flat_map(|stretch| (0..stretch.windows).map(move |_| stretch))
        .map(move |stretch| (stretch.canary.window(rng), stretch.stable.window(rng)))
}

#[test]
fn at_every_peeking_frequency_a_healthy_canary_is_seldom_rolled_back() {
    // Ten times worse for 40 windows, half of them before the weight rises from 5 to 10 %.
    let step = |windows, weight, rate| Stretch::new(windows, weight, (rate, rate), 1.0);
    let mut with_outage = rollout((0.01, 0.01), 1.0);
    with_outage.splice(
        1..3,
        [
            step(40, 0.05, 0.01),
            step(20, 0.05, 0.10),
            step(20, 0.10, 0.10),
            step(40, 0.10, 0.01),
        ],
    );
    let ramp = rollout((0.01, 0.01), 1.0);
    let in_bursts = rollout((0.01, 0.01), 5.0);
    let before = Arm::new(REQUESTS, 0.01, 5.0);
    for every in [1, 2, 5, 10, 30] {
        for (what, plan) in [("ramping weights", &ramp), ("shared outage", &with_outage)] {
            Crossings::simulate(RUNS / 2, 15, |rng| {
                first_rollback(every, 1.0, windows(rng, plan))
            })
            .assert_share_below(&format!("{what}, a look in {every} windows"), ALPHA);
        }
        Crossings::simulate(RUNS / 2, 16, |rng| {
            let before: Vec<Counts> = (0..1_920).map(|_| before.window(rng)).collect();
            first_rollback(every, dispersion(&before).value, windows(rng, &in_bursts))
        })
        .assert_share_below(&format!("bursts of 5, a look in {every} windows"), ALPHA);
    }
}

#[test]
fn the_operators_rule_catches_a_worse_canary_as_quickly_as_published() {
    // The reference has one process from the start and half the threshold.
    for (canary, reference) in [
        (0.02, 43.0),
        (0.03, 13.0),
        (0.05, 5.0),
        (0.10, 2.0),
        (1.00, 1.0),
    ] {
        let plan = [Stretch::new(300, 0.05, (canary, 0.01), 1.0)];
        let caught =
            Crossings::simulate(RUNS, 17, |rng| first_rollback(1, 1.0, windows(rng, &plan)));
        caught.assert_all_with_median(&format!("canary at {canary} of 0.01"), reference);
    }
}

/// The counters of one pod, with the samples of its last two scrapes.
struct Pod {
    arm: Arm,
    succeeded: Series,
    failed: Series,
}

impl Pod {
    fn new(arm: Arm) -> Self {
        let counter = || Series {
            samples: vec![(-1.0, 0.0)],
            ..Series::default()
        };
        Self {
            arm,
            succeeded: counter(),
            failed: counter(),
        }
    }

    /// Serves until the scrape at this moment; now and then the process restarts first and begins
    /// again from zero. What it really served, and whether it restarted.
    fn serve(&mut self, rng: &mut StdRng, at: f64) -> (Counts, bool) {
        let served = self.arm.window(rng);
        let growths = [served.requests - served.errors, served.errors];
        let counters = [&mut self.succeeded, &mut self.failed];
        let last = |counter: &Series| counter.samples.last().map_or(0.0, |(_, value)| *value);
        // A reset that no counter shows, since it has outgrown its old value, is lost to everyone.
        let visible = |(counter, &growth): (&&mut Series, &f64)| {
            last(counter) > growth || last(counter) <= 0.0
        };
        let restarts = rng.random_bool(0.05) && counters.iter().zip(&growths).all(visible);
        for (counter, growth) in counters.into_iter().zip(growths) {
            let before = last(counter);
            let value = if restarts { growth } else { before + growth };
            counter.samples.push((at, value));
            if counter.samples.len() > 2 {
                counter.samples.remove(0);
            }
        }
        (served, restarts)
    }
}

#[test]
fn counters_that_reset_are_counted_exactly_and_blame_nobody() {
    let mut resets = 0;
    let false_rollbacks = Crossings::simulate(RUNS / 2, 18, |rng| {
        // The pods of an arm stay the same ones while its share of the traffic changes.
        let pods =
            |weight: f64| [(); 2].map(|()| Pod::new(Arm::new(REQUESTS * weight / 2.0, 0.01, 1.0)));
        let mut arms = [pods(0.0), pods(0.0)];
        let counted = (0..STEPS.len() * WINDOWS_A_STEP).map(|k| {
            let weight = STEPS[k / WINDOWS_A_STEP];
            let start = 15.0 * k as f64;
            let span = Span {
                start,
                end: start + 15.0,
            };
            let mut counted = [Counts::default(); 2];
            for ((pods, share), counted) in arms
                .iter_mut()
                .zip([weight, 1.0 - weight])
                .zip(&mut counted)
            {
                let mut served = Counts::default();
                for pod in pods.iter_mut() {
                    if k.is_multiple_of(WINDOWS_A_STEP) {
                        pod.arm = Arm::new(REQUESTS * share / 2.0, 0.01, 1.0);
                    }
                    let (more, restarted) = pod.serve(rng, span.end - 1.0);
                    add(&mut served, more);
                    resets += usize::from(restarted);
                }
                let growth = |counter: fn(&Pod) -> &Series| -> f64 {
                    pods.iter()
                        .map(|pod| {
                            let series = std::slice::from_ref(counter(pod));
                            increase(series, &[], span, FirstIncrement::FromFirstSample).unwrap()
                        })
                        .sum()
                };
                let errors = growth(|pod| &pod.failed);
                let requests = errors + growth(|pod| &pod.succeeded);
                *counted = Counts { requests, errors };
                assert_eq!(*counted, served);
            }
            (counted[0], counted[1])
        });
        first_rollback(1, 1.0, counted)
    });
    println!("{resets} resets");
    assert!(resets > 30 * false_rollbacks.runs);
    false_rollbacks.assert_share_below("counters that reset", ALPHA);
}

/// What was counted up to and including each window.
fn totals(
    windows: impl Iterator<Item = (Counts, Counts)>,
) -> impl Iterator<Item = (Counts, Counts)> {
    windows.scan((Counts::default(), Counts::default()), |sums, window| {
        add(&mut sums.0, window.0);
        add(&mut sums.1, window.1);
        Some(*sums)
    })
}

#[test]
fn an_interval_seldom_ever_leaves_out_the_rate() {
    // A level at which few runs suffice to see that it is used up in part.
    let alpha = 0.2;
    for (burst, canary, stable) in [(1.0, 0.02, 0.01), (1.0, 0.3, 0.3), (5.0, 0.02, 0.02)] {
        let plan = [Stretch::new(300, 0.05, (canary, stable), burst)];
        let what = format!("{canary} of {stable}, bursts of {burst}");
        let ever = |seed, wrong: &dyn Fn((Counts, Counts)) -> bool| {
            Crossings::simulate(RUNS / 10, seed, |rng| {
                totals(windows(rng, &plan)).position(wrong)
            })
        };
        ever(19, &|(counts, _)| {
            let rates = interval(counts, burst, alpha);
            canary < rates.low || canary > rates.high
        })
        .assert_share_below(&format!("{what}: rate left out"), alpha);
        // Two intervals at half the level each: too seldom wrong to ask for any such run.
        let overstated = ever(20, &|(canary_so_far, stable_so_far)| {
            times_worse(canary_so_far, stable_so_far, burst, alpha)
                .is_some_and(|factor| factor > canary / stable)
        });
        println!("{what}: factor overstated {:.4}", overstated.share());
        assert!(overstated.share() <= alpha);
    }
}
