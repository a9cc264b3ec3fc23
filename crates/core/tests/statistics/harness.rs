//! Simulated rollouts, and when a sequential test rejects its null hypothesis in them.

use countersign_core::analysis::statistics::{Counts, EProcess, EProcessExt, Test, Tolerance};
use countersign_core::analysis::thresholds::RENEWED;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Poisson, StandardNormal};

use super::{fixture, rows};

/// Standard errors that a simulated share may be off.
const MARGIN: f64 = 4.0;

/// Runs behind each share of the reference, and behind ours.
pub(crate) const RUNS: usize = 4_000;

pub(crate) const ALPHA: f64 = 0.05;

/// The canary's share of the traffic, step by step.
pub(crate) const STEPS: [f64; 5] = [0.01, 0.05, 0.10, 0.25, 0.50];

/// Windows in a step, and requests of both arms in a window: 10 s of 50 requests/s.
pub(crate) const WINDOWS_A_STEP: usize = 60;
pub(crate) const REQUESTS: f64 = 500.0;

pub(crate) const AS_GOOD_AS_STABLE: Test = Test::RollBack(Tolerance {
    ratio: 1.0,
    difference: 0.0,
});

/// The windows, counted from 1, in which the runs of a simulation crossed their line; sorted.
pub(crate) struct Crossings {
    pub(crate) runs: usize,
    pub(crate) crossed_at: Vec<usize>,
}

impl Crossings {
    pub(crate) fn simulate(
        runs: usize,
        seed: u64,
        mut run: impl FnMut(&mut StdRng) -> Option<usize>,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut crossed_at: Vec<usize> = (0..runs).filter_map(|_| run(&mut rng)).collect();
        crossed_at.sort_unstable();
        Self { runs, crossed_at }
    }

    /// The share of the runs that crossed in `window` or before.
    fn share_by(&self, window: usize) -> f64 {
        self.crossed_at.partition_point(|&at| at <= window) as f64 / self.runs as f64
    }

    pub(crate) fn share(&self) -> f64 {
        self.crossed_at.len() as f64 / self.runs as f64
    }

    /// The median window of all runs, if at least half of them crossed.
    fn median(&self) -> Option<usize> {
        self.crossed_at.get(self.runs / 2).copied()
    }

    /// The share is that of a reference of as many runs: they differ by at most [`MARGIN`] standard
    /// errors of the difference of two shares (pooled).
    pub(crate) fn assert_share(&self, what: &str, reference: f64) {
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
    pub(crate) fn assert_share_below(&self, what: &str, bound: f64) {
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
    pub(crate) fn assert_all_with_median(&self, what: &str, reference: f64) {
        println!(
            "{what}: {:.4}, median {:?} of {reference}",
            self.share(),
            self.median()
        );
        assert_eq!(
            self.crossed_at.len(),
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
pub(crate) struct Arm {
    successes: Option<Poisson<f64>>,
    bursts: Option<Poisson<f64>>,
    burst: f64,
}

impl Arm {
    pub(crate) fn new(requests: f64, error_rate: f64, burst: f64) -> Self {
        let poisson = |mean: f64| (mean > 0.0).then(|| Poisson::new(mean).unwrap());
        Self {
            successes: poisson(requests * (1.0 - error_rate)),
            bursts: poisson(requests * error_rate / burst),
            burst,
        }
    }

    pub(crate) fn window(&self, rng: &mut StdRng) -> Counts {
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
pub(crate) struct Stretch {
    windows: usize,
    canary: Arm,
    stable: Arm,
}

impl Stretch {
    pub(crate) fn new(
        windows: usize,
        weight: f64,
        (canary, stable): (f64, f64),
        burst: f64,
    ) -> Self {
        Self {
            windows,
            canary: Arm::new(REQUESTS * weight, canary, burst),
            stable: Arm::new(REQUESTS * (1.0 - weight), stable, burst),
        }
    }
}

/// A rollout through [`STEPS`] with constant error rates of (canary, stable).
pub(crate) fn rollout(rates: (f64, f64), burst: f64) -> Vec<Stretch> {
    STEPS
        .iter()
        .map(|&weight| Stretch::new(WINDOWS_A_STEP, weight, rates, burst))
        .collect()
}

/// The first window of the rollout at which the test rejects its null hypothesis.
pub(crate) fn first_rejection(
    rng: &mut StdRng,
    (test, alpha): (Test, f64),
    dispersion: f64,
    rollout: &[Stretch],
) -> Option<usize> {
    let mut evidence = EProcess::start(test);
    let windows = rollout
        .iter()
        .flat_map(|stretch| (0..stretch.windows).map(move |_| stretch));
    for (window, stretch) in (1..).zip(windows) {
        let (canary, stable) = (stretch.canary.window(rng), stretch.stable.window(rng));
        evidence.observe(test, canary, stable, dispersion);
        if evidence.ln_value() >= -alpha.ln() {
            return Some(window);
        }
    }
    None
}

pub(crate) fn simulate(
    runs: usize,
    seed: u64,
    test: (Test, f64),
    rollout: &[Stretch],
) -> Crossings {
    Crossings::simulate(runs, seed, |rng| first_rejection(rng, test, 1.0, rollout))
}

/// The first window after which the operator rolls back: it judges in intervals of `every` windows,
/// adds fresh evidence with each step, and has twice the threshold for that (`core::analysis`).
pub(crate) fn first_rollback(
    every: usize,
    dispersion: f64,
    mut windows: impl Iterator<Item = (Counts, Counts)>,
) -> Option<usize> {
    let test = AS_GOOD_AS_STABLE;
    let mut evidence = EProcess::start(test);
    for interval in 0.. {
        if interval > 0 && (interval * every).is_multiple_of(WINDOWS_A_STEP) {
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
            return Some((interval + 1) * every);
        }
    }
    None
}

pub(crate) fn add(sum: &mut Counts, more: Counts) {
    sum.requests += more.requests;
    sum.errors += more.errors;
}

pub(crate) fn windows(
    rng: &mut StdRng,
    rollout: &[Stretch],
) -> impl Iterator<Item = (Counts, Counts)> {
    rollout
        .iter()
        .flat_map(|stretch| (0..stretch.windows).map(move |_| stretch))
        .map(move |stretch| (stretch.canary.window(rng), stretch.stable.window(rng)))
}

#[test]
fn the_harness_reproduces_the_published_cost_of_peeking() {
    let crossings = Crossings::simulate(40_000, 1, |rng| {
        let mut sum = 0.0;
        (1..=100_u32).find_map(|tests| {
            let step: f64 = StandardNormal.sample(rng);
            sum += step;
            (sum.abs() > 1.959_964 * f64::from(tests).sqrt()).then_some(tests as usize)
        })
    });
    let published: Vec<(usize, f64)> = rows(&fixture()["published"]["peeking"]["values"]);
    for &(tests, published) in &published {
        let share = crossings.share_by(tests);
        // The published shares are rounded to three decimals.
        let error = (published * (1.0 - published) / crossings.runs as f64).sqrt();
        let margin = MARGIN * error + 0.0005;
        println!("{tests} tests: {share:.4}, published {published:.3} +- {margin:.4}");
        assert!(
            (share - published).abs() <= margin,
            "{tests} tests: {share}, not {published}"
        );
    }
    assert_eq!(published.len(), 9);
}
