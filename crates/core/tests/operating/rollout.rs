//! One simulated rollout: Poisson requests, errors in bursts, windows of 15 s, the real tests and gates.

use countersign_api::rollout::Change;
use countersign_api::{Check, Step, Tier};
use countersign_core::analysis::statistics::{self, Counts, EProcess, EProcessExt, Test};
use countersign_core::analysis::{gates, thresholds};
use countersign_core::{plan, policy};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Poisson};

/// Seconds in a window.
const WINDOW: f64 = 15.0;

/// Windows of history: a day of at most 1,920.
const HISTORY: usize = 1_920;

/// A change of a tier of the built-in policy, in its first step.
pub(crate) fn change_of(tier: Tier) -> Change {
    Change {
        tier,
        step: 1,
        plan: plan::plan_for(tier, &[], &[], &policy::effective(&[])),
        ..Change::default()
    }
}

/// The traffic of a service, and how much of it fails.
pub(crate) struct Service {
    pub(crate) rate: f64,
    pub(crate) stable: f64,
    pub(crate) canary: f64,
    /// Errors come in bursts of this size.
    pub(crate) burst: f64,
    /// Share of the errors that come one by one.
    pub(crate) single: f64,
    /// Whether a fifth of everything failed for five minutes of the day before, and the error rate drifted.
    pub(crate) outage: bool,
    /// Windows of history.
    pub(crate) history: usize,
}

impl Service {
    pub(crate) fn healthy(rate: f64, errors: f64) -> Self {
        Self {
            rate,
            stable: errors,
            canary: errors,
            burst: 1.0,
            single: 0.0,
            outage: false,
            history: HISTORY,
        }
    }

    fn window(&self, rng: &mut SmallRng, share: f64, errors: f64) -> Counts {
        let requests = self.rate * WINDOW * share;
        let mut draw = |mean: f64| Poisson::new(mean).map_or(0.0, |it| it.sample(rng));
        let errors_of = requests * errors;
        let bursts = self.burst * draw(errors_of * (1.0 - self.single) / self.burst);
        let errors_seen = bursts + draw(errors_of * self.single);
        Counts {
            requests: draw(requests * (1.0 - errors)) + errors_seen,
            errors: errors_seen,
        }
    }

    fn day_before(&self, rng: &mut SmallRng) -> Vec<Counts> {
        let errors = |at: usize| match at {
            1_001..1_021 if self.outage => 0.2,
            // Twice as many at noon as at midnight.
            _ if self.outage => self.stable * (1.0 + at as f64 / HISTORY as f64),
            _ => self.stable,
        };
        (0..self.history)
            .map(|at| self.window(rng, 1.0, errors(at)))
            .collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Promoted,
    RolledBack,
    /// The evidence was scarce for longer than the tier allows, and a person is required.
    Undecided,
}

pub(crate) struct Run {
    pub(crate) end: End,
    pub(crate) seconds: f64,
    /// Requests that the canary failed.
    pub(crate) failed: f64,
}

pub(crate) fn simulate(runs: u64, seed: u64, change: &Change, service: &Service) -> Vec<Run> {
    let run = |at: u64| {
        one(
            &mut SmallRng::seed_from_u64(seed * 1_000_003 + at),
            change,
            service,
        )
    };
    (0..runs).map(run).collect()
}

fn one(rng: &mut SmallRng, change: &Change, service: &Service) -> Run {
    let strictness = &change.plan.strictness;
    let known = statistics::dispersion(&service.day_before(rng));
    let assumed = thresholds::rollback_dispersion(&Check::default(), Some(known), change.tier);
    let roll_back = Test::RollBack(thresholds::tolerated(strictness));
    let mut worse = EProcess::start(roll_back);
    let mut within: Vec<_> = gates::shares(&change.plan)
        .into_iter()
        .map(|share| {
            let test = Test::Promote(gates::tolerance(strictness, share));
            (share, test, EProcess::start(test))
        })
        .collect();
    let (mut windows, mut failed) = (0.0, 0.0);
    let run = |end, windows: f64, failed| Run {
        end,
        seconds: windows * WINDOW,
        failed,
    };
    for (number, step) in (1..).zip(&change.plan.steps) {
        let next = gates::next(&Change {
            step: number,
            ..change.clone()
        });
        if number > 1 {
            worse.rearm(thresholds::RENEWED / change.plan.steps.len() as f64);
        }
        let share = f64::from(step.weight) / 100.0;
        let bake = step.bake.std().as_secs_f64();
        let until = bake + strictness.extend_at_most.std().as_secs_f64();
        let (mut time, mut requests) = (0.0, 0.0);
        loop {
            let canary = service.window(rng, share, service.canary);
            let stable = service.window(rng, 1.0 - share, service.stable);
            (windows, time, requests) = (windows + 1.0, time + WINDOW, requests + canary.requests);
            failed += canary.errors;
            worse.observe(roll_back, canary, stable, assumed);
            for (_, test, process) in &mut within {
                process.observe(*test, canary, stable, known.value);
            }
            if worse.ln_value() >= thresholds::rollback_at(strictness) {
                return run(End::RolledBack, windows, failed);
            }
            let gate = within.iter().find(|(share, ..)| *share == next).unwrap();
            let open = gate.2.ln_value() >= thresholds::promote_at(strictness);
            if time >= bake && open && requests >= step.min_requests as f64 {
                break;
            }
            if time >= until && change.tier == Tier::Low {
                break;
            }
            if time >= until {
                return run(End::Undecided, windows, failed);
            }
        }
    }
    run(End::Promoted, windows, failed)
}

/// Whether a canary that is as bad from the start to the end ever opens one gate of the plan.
pub(crate) fn openings(
    runs: u64,
    seed: u64,
    change: &Change,
    gate: i32,
    service: &Service,
) -> Vec<bool> {
    let test = Test::Promote(gates::tolerance(&change.plan.strictness, gate));
    let before: Vec<&Step> = change
        .plan
        .steps
        .iter()
        .take_while(|step| step.weight < gate)
        .collect();
    let run = |at: u64| {
        let mut rng = SmallRng::seed_from_u64(seed * 1_000_003 + at);
        let mut process = EProcess::start(test);
        let late = rng.random_range(1.0..4.0); // the step lasts longer than its bake
        before.iter().any(|step| {
            let windows = late * step.bake.std().as_secs_f64() / WINDOW;
            let share = f64::from(step.weight) / 100.0;
            (0..windows as usize).any(|_| {
                let canary = service.window(&mut rng, share, service.canary);
                let stable = service.window(&mut rng, 1.0 - share, service.stable);
                process.observe(test, canary, stable, 1.0);
                process.ln_value() >= thresholds::promote_at(&change.plan.strictness)
            })
        })
    };
    (0..runs).map(run).collect()
}
