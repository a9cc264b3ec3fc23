//! `simulate`: rollouts in virtual time, without a cluster.
//!
//! Each run is the controller's own state machine with simulated pods and traffic. Requests are drawn
//! from Poisson distributions, divided by the canary's share of the available pods. Sign-offs are given
//! as soon as they are required, or after `--sign-off-after`.

mod args;
mod report;
mod scene;
mod sweep;

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use args::Simulate;
use args::SimulationError;
use countersign_core::text::excerpt;

use crate::commands::simulate::report::{Case, Simulation};
use crate::commands::simulate::scene::{Run, Scene, Traffic, signatures};
use crate::failure::Failure;
use crate::manifests::Observed;

/// Most measurement windows of one command, which take some minutes; more are an error.
const MAX_WINDOWS: u128 = 2_000_000;
impl Simulate {
    /// Simulates every Rollout of the files.
    pub fn run(self) -> Result<ExitCode, Failure> {
        if self.sweep {
            let sweep = self.sweep()?;
            crate::output::report::print(self.output, &sweep, || sweep.render(&self))?;
            return Ok(ExitCode::SUCCESS);
        }
        let inputs = self.inputs.as_ref().ok_or(SimulationError::NothingGiven)?;
        let observed = self.setting.observe(inputs)?;
        let simulations = observed
            .into_iter()
            .map(|observed| self.simulated(observed))
            .collect::<Result<Vec<_>, _>>()?;
        crate::output::report::print(self.output, &simulations, || {
            let rendered: Vec<_> = simulations.iter().map(|it| it.render(&self)).collect();
            rendered.join("\n")
        })?;
        Ok(ExitCode::SUCCESS)
    }

    fn simulated(&self, observed: Observed) -> Result<Simulation, SimulationError> {
        let Observed {
            observation,
            namespace,
            ..
        } = observed;
        let rollout = excerpt(&observation.name);
        let scene = Scene::of(observation, self)?;
        let worse = match self.canary_error_rate.as_slice() {
            [] => vec![(10.0 * self.stable_error_rate).clamp(0.01, 1.0)],
            rates => rates.to_vec(),
        };
        let rates: Vec<f64> = std::iter::once(self.stable_error_rate)
            .chain(worse)
            .collect();
        let what = format!("Rollout {rollout}");
        self.bounded(&what, scene.windows() * rates.len() as u128)?;
        let case = |canary: &f64| self.case(&scene, *canary);
        let strictness = scene.plan.strictness;
        Ok(Simulation {
            rollout: scene.observation.name.clone(),
            namespace,
            tier: scene.tier,
            score: scene.score,
            weights: scene.plan.steps.iter().map(|step| step.weight).collect(),
            sign_offs: signatures(&scene.plan),
            max_false_rollback: strictness.max_false_rollback,
            max_false_promotion: strictness.max_false_promotion,
            cases: rates.iter().map(case).collect::<Result<_, _>>()?,
        })
    }

    /// Refuses what would take too long; `windows` are those of one run of each case.
    fn bounded(&self, what: &str, windows: u128) -> Result<(), SimulationError> {
        let windows = windows * u128::from(self.runs);
        let what = what.to_owned();
        if windows > MAX_WINDOWS {
            return Err(SimulationError::TooLong { what, windows });
        }
        Ok(())
    }

    /// All runs of one canary, divided among the processors; each run has random numbers of its own.
    fn case(&self, scene: &Scene, canary: f64) -> Result<Case, SimulationError> {
        let next = AtomicUsize::new(0);
        let runs = usize::try_from(self.runs).unwrap_or(usize::MAX);
        let work = || {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= runs {
                    return Ok(done);
                }
                let seed = self.seed.wrapping_add(index as u64);
                done.push((index, scene.play(&self.traffic(canary), seed)?));
            }
        };
        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let done = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..workers.min(runs)).map(|_| scope.spawn(work)).collect();
            let joined = workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or(Err(SimulationError::Lost)));
            joined.collect::<Result<Vec<_>, _>>()
        })?;
        let mut done: Vec<(usize, Run)> = done.into_iter().flatten().collect();
        done.sort_by_key(|(index, _)| *index);
        let runs: Vec<Run> = done.into_iter().map(|(_, run)| run).collect();
        Ok(Case::of(canary, &runs))
    }

    fn traffic(&self, canary: f64) -> Traffic {
        Traffic {
            rate: self.rate,
            canary,
            stable: self.stable_error_rate,
        }
    }
}

#[cfg(test)]
mod tests;
