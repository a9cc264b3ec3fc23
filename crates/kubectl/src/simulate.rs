//! `simulate`: whole rollouts in virtual time, before any cluster sees them.
//!
//! Each run is the controller's own state machine in a small world of pods and traffic. Requests are
//! drawn from Poisson distributions, divided by the canary's share of the available pods. Sign-offs
//! are given as soon as they are asked for, or after a time that the caller names.

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Args;
use countersign_api::policy::{RolloutPolicySpec, TierDemands, Tiers};
use countersign_api::rollout::{Change, Outcome, Plan};
use countersign_api::{Analysis, Duration, Step, Tier};
use countersign_core::analysis::statistics::Counts;
use countersign_core::observation::Observation;
use countersign_core::observation::people::NamedPolicy;
use countersign_core::observation::windows::WindowOutcome;
use countersign_core::policy::Effective;
use countersign_core::proposal::Proposal;
use countersign_core::provenance::shown::shown;
use countersign_core::simulation::world::World;
use countersign_core::{decide, reason};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand_distr::{Distribution, Poisson};
use serde::Serialize;

use super::Failure;
use super::explain::Setting;
use super::manifests::{Inputs, Observed};
use super::report::{self, Format, columns, number};

/// Most windows of counting in one command, which takes some minutes.
const MAX_WINDOWS: u128 = 2_000_000;
/// How long a rollout is followed beyond all its bakes, for what it waits for besides.
const SLACK: SignedDuration = SignedDuration::from_hours(100);
/// The standard normal's quantile of 97.5%.
const Z: f64 = 1.959_963_985;

/// Simulate whole rollouts in virtual time, without a cluster: how long, which steps, how often wrong.
#[derive(Args)]
pub struct Simulate {
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    setting: Setting,
    /// Requests a second to all pods together.
    #[arg(long, default_value_t = 50.0, value_parser = rate)]
    rate: f64,
    /// Share of the stable revision's requests that fail.
    #[arg(long, default_value_t = 0.002, value_parser = share)]
    stable_error_rate: f64,
    /// Shares of a worse canary's requests that fail, each a case of its own; without it, ten times stable's.
    #[arg(long, value_delimiter = ',', value_parser = share)]
    canary_error_rate: Vec<f64>,
    /// Rollouts of each case.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,
    /// Where the random numbers begin: the same seed gives the same report.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Pods, instead of the manifest's number.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=100_000))]
    replicas: Option<i32>,
    /// How long people take for each sign-off.
    #[arg(long, default_value = "0s")]
    sign_off_after: Duration,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text
        .parse()
        .ok()
        .filter(|rate| (0.001..=1e7).contains(rate));
    rate.ok_or_else(|| "write a number of requests a second from 0.001 to 10000000".into())
}

fn share(text: &str) -> Result<f64, String> {
    let share = text
        .parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "write a fraction from 0 to 1, such as 0.002".into())
}

/// Why nothing can be simulated.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
enum SimulationError {
    #[error(
        "Rollout {0}: the pods would not change, so there is nothing to simulate: give by --stable what serves now"
    )]
    NoChange(String),
    #[error(
        "Rollout {0}: spec.replicas is 0, so no traffic tells anything: give a number by --replicas"
    )]
    NoPods(String),
    #[error(
        "Rollout {rollout}: {windows} windows of counting are too many to simulate: lower --runs, or raise the analysis' interval"
    )]
    TooLong { rollout: String, windows: u128 },
    #[error(
        "Rollout {rollout}: the state machine broke a law, which is a bug of Countersign: {law}"
    )]
    Broken { rollout: String, law: String },
    #[error("a simulation ended early, which is a bug of Countersign")]
    Lost,
}

/// What was simulated of one Rollout, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Simulation {
    rollout: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    tier: Tier,
    score: f64,
    /// Weights of the steps, in percent.
    weights: Vec<i32>,
    /// People who must sign, over all gates.
    sign_offs: i32,
    /// Largest chance of a false rollback that the tier allows.
    max_false_rollback: f64,
    /// Largest chance of a false promotion that the tier allows.
    max_false_promotion: f64,
    /// The canary as good as stable, then each worse one.
    cases: Vec<Case>,
}

/// Many rollouts of one canary.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    canary_error_rate: f64,
    runs: usize,
    promoted: Share,
    rolled_back: Share,
    /// Rolled back for want of evidence or pods, not for errors.
    overdue: Share,
    /// Waiting for a person to decide on scarce evidence.
    undecided: Share,
    /// Seconds to full promotion, of those that were promoted.
    #[serde(skip_serializing_if = "Option::is_none")]
    promotion: Option<Seconds>,
    /// Seconds from the first traffic to the decision, of those that were rolled back for errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    rollback: Option<Seconds>,
    /// Median number of requests that the canary answered.
    exposed_requests: f64,
    /// Median number of seconds in each step, and in promotion, of those that were promoted.
    step_seconds: Vec<f64>,
}

/// A share of all runs with its 95% interval (Wilson).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Share {
    count: usize,
    of_all: f64,
    low: f64,
    high: f64,
}

/// How long it takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Seconds {
    median: f64,
    p90: f64,
}

impl Simulate {
    /// Simulates every Rollout of the files.
    pub fn run(self) -> Result<ExitCode, Failure> {
        let observed = self.setting.observe(&self.inputs)?;
        let simulations = observed
            .into_iter()
            .map(|observed| self.simulated(observed))
            .collect::<Result<Vec<_>, _>>()?;
        report::print(self.output, &simulations, || {
            let told: Vec<_> = simulations.iter().map(|it| it.told(&self)).collect();
            told.join("\n")
        })?;
        Ok(ExitCode::SUCCESS)
    }

    fn simulated(&self, observed: Observed) -> Result<Simulation, SimulationError> {
        let Observed {
            observation,
            namespace,
            ..
        } = observed;
        let rollout = shown(&observation.name);
        let scene = Scene::of(observation, self)?;
        let worse = match self.canary_error_rate.as_slice() {
            [] => vec![(10.0 * self.stable_error_rate).clamp(0.01, 1.0)],
            rates => rates.to_vec(),
        };
        let rates: Vec<f64> = std::iter::once(self.stable_error_rate)
            .chain(worse)
            .collect();
        let windows = scene.windows() * u128::from(self.runs) * rates.len() as u128;
        if windows > MAX_WINDOWS {
            return Err(SimulationError::TooLong { rollout, windows });
        }
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

// --- One rollout ---------------------------------------------------------------------------------

/// A change that is about to begin.
struct Scene {
    observation: Observation,
    tier: Tier,
    score: f64,
    plan: Plan,
    /// Length of one window of counting.
    interval: Duration,
    /// How long people take before the first step.
    start_after: SignedDuration,
}

/// What users ask for, and how it goes.
struct Traffic {
    rate: f64,
    canary: f64,
    stable: f64,
}

/// What became of one rollout.
struct Run {
    end: End,
    /// From the beginning to the end.
    took: SignedDuration,
    /// From the first traffic to the end.
    served: SignedDuration,
    /// Requests that the canary answered.
    exposed: f64,
    steps: Vec<SignedDuration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Promoted,
    RolledBack,
    Overdue,
    Undecided,
}

impl Scene {
    fn of(mut observation: Observation, asked: &Simulate) -> Result<Self, SimulationError> {
        if let Some(replicas) = asked.replicas {
            observation.spec.replicas = replicas;
            for set in &mut observation.replica_sets {
                (set.replicas, set.current, set.ready, set.available) =
                    (replicas, replicas, replicas, replicas);
            }
        }
        let rollout = shown(&observation.name);
        if observation.spec.replicas == 0 {
            return Err(SimulationError::NoPods(rollout));
        }
        let change = decide(&observation).status.change;
        let change = change.ok_or(SimulationError::NoChange(rollout))?;
        let proposal = Proposal::of(&observation);
        let first = change.plan.steps.first();
        let waits_first = first.is_some_and(|step| !step.sign_off.is_empty());
        let delay = asked.sign_off_after;
        let observation = without_sign_offs(observation, &proposal.effective, &change, delay);
        Ok(Self {
            tier: change.tier,
            score: change.score,
            interval: proposal.checks.interval,
            start_after: if waits_first {
                delay.signed()
            } else {
                SignedDuration::ZERO
            },
            plan: change.plan,
            observation,
        })
    }

    /// The bakes in all, with what people take.
    fn length(&self) -> std::time::Duration {
        let steps = &self.observation.spec.strategy.canary.steps;
        steps.iter().fold(std::time::Duration::ZERO, |sum, step| {
            sum.saturating_add(step.bake.std())
        })
    }

    /// Windows of counting in one run, and as many looks at least.
    fn windows(&self) -> u128 {
        self.length().as_millis() / self.interval.std().as_millis().max(1)
    }

    fn play(&self, traffic: &Traffic, seed: u64) -> Result<Run, SimulationError> {
        let mut world = World::new(self.observation.clone());
        let began = world.observation.now;
        let length = SignedDuration::try_from(self.length()).unwrap_or(SignedDuration::MAX);
        let until = began
            .saturating_add(length.saturating_add(SLACK))
            .unwrap_or(Timestamp::MAX);
        let mut rng = SmallRng::seed_from_u64(seed);
        let window = self.interval.std().as_secs_f64();
        let mut count = |_: Timestamp, share: f64| traffic.count(window, share, &mut rng);
        let mut meter = Meter::from(began);
        world.run(until, &mut count, |observation| {
            meter.read(observation);
            has_ended(observation)
        });
        if let Some(law) = world.broken.first() {
            return Err(SimulationError::Broken {
                rollout: shown(&world.observation.name),
                law: format!("{law:?}"),
            });
        }
        Ok(self.told(&world, began, meter.seconds * traffic.rate))
    }

    fn told(&self, world: &World, began: Timestamp, exposed: f64) -> Run {
        let now = world.observation.now;
        let change = world.observation.status.change.as_ref();
        let starts = change.map(starts).unwrap_or_default();
        let first = starts.first().copied().unwrap_or(now);
        let ends = starts.iter().skip(1).copied().chain([now]);
        Run {
            end: change.map_or(End::Overdue, end),
            took: now.duration_since(began).saturating_add(self.start_after),
            served: now.duration_since(first),
            exposed,
            steps: starts
                .iter()
                .zip(ends)
                .map(|(start, end)| end.duration_since(*start))
                .collect(),
        }
    }
}

impl Traffic {
    /// A window in which the canary serves this share of the requests.
    fn count(&self, seconds: f64, share: f64, rng: &mut SmallRng) -> WindowOutcome {
        let requests = self.rate * seconds;
        let mut draw =
            |mean: f64| Poisson::new(mean).map_or(0.0, |distribution| distribution.sample(rng));
        let mut arm = |requests: f64, errors: f64| {
            let errors_seen = draw(requests * errors);
            Counts {
                requests: draw(requests * (1.0 - errors)) + errors_seen,
                errors: errors_seen,
            }
        };
        WindowOutcome::Counted {
            canary: arm(requests * share, self.canary),
            stable: arm(requests * (1.0 - share), self.stable),
        }
    }
}

/// Adds up for how long the canary answered which share of the requests.
struct Meter {
    since: Timestamp,
    share: f64,
    seconds: f64,
}

impl Meter {
    const fn from(since: Timestamp) -> Self {
        Self {
            since,
            share: 0.0,
            seconds: 0.0,
        }
    }

    fn read(&mut self, observation: &Observation) {
        let passed = observation.now.duration_since(self.since).as_secs_f64();
        self.seconds += self.share * passed;
        self.since = observation.now;
        let status = &observation.status;
        let canary = status
            .change
            .as_ref()
            .map(|change| change.pod_template_hash.as_str());
        let sets = &observation.replica_sets;
        let available = |of_canary: bool| {
            let sets = sets
                .iter()
                .filter(|set| (Some(set.hash.as_str()) == canary) == of_canary);
            f64::from(sets.map(|set| set.available).sum::<i32>())
        };
        let (canary, others) = (available(true), available(false));
        self.share = if canary > 0.0 {
            canary / (canary + others)
        } else {
            0.0
        };
    }
}

/// Whether it is decided, or a person must decide, which no simulation can.
fn has_ended(observation: &Observation) -> bool {
    let status = &observation.status;
    status.waiting_for.as_deref() == Some(reason::AWAITING_PERSON)
        || status
            .change
            .as_ref()
            .is_none_or(|change| change.outcome.is_some())
}

fn end(change: &Change) -> End {
    let failed = change
        .transitions
        .iter()
        .any(|line| line.reason == reason::ANALYSIS_FAILED);
    match change.outcome {
        Some(Outcome::Promoted) => End::Promoted,
        Some(_) if failed => End::RolledBack,
        Some(_) => End::Overdue,
        None => End::Undecided,
    }
}

/// When each step began, and promotion after them.
fn starts(change: &Change) -> Vec<Timestamp> {
    let begins = |reason: &str| [reason::STEP_STARTED, reason::PROMOTING].contains(&reason);
    let lines = change
        .transitions
        .iter()
        .filter(|line| begins(&line.reason));
    lines.filter_map(|line| Some(line.at.as_ref()?.0)).collect()
}

/// The same change where nobody is asked to sign: its plan as the Rollout's own steps, under the
/// policies merged to one. What people take before a later gate is a longer bake before it, in which
/// the canary is judged as it would be while it waits. Freezes are left out.
fn without_sign_offs(
    mut observation: Observation,
    effective: &Effective,
    Change { plan, tier, .. }: &Change,
    delay: Duration,
) -> Observation {
    let gates = plan.steps.iter().skip(1).map(|step| &step.sign_off);
    let gates = gates.chain([&plan.promotion_sign_off]);
    let steps = plan.steps.iter().zip(gates).map(|(step, next)| {
        let mut step = step.clone();
        step.sign_off.clear();
        if !next.is_empty() {
            step.bake = step.bake.std().saturating_add(delay.std()).into();
        }
        step
    });
    let steps: Vec<Step> = steps.collect();
    let last = steps.last().cloned();
    observation.spec.strategy.canary.steps = steps;
    let checks = effective.checks.iter().map(|(name, check)| {
        let mut check = check.clone();
        check.name.clone_from(name);
        check
    });
    let analysis = effective.interval.map(|interval| Analysis {
        interval,
        checks: checks.collect(),
        warm_up: Some(effective.warm_up),
        ..Analysis::default()
    });
    observation.policies = vec![NamedPolicy {
        name: "simulation".into(),
        generation: 0,
        spec: RolloutPolicySpec {
            risk: effective.risk.clone(),
            tiers: unattended(effective.tiers.get(*tier), last.as_ref()),
            analysis,
            ..RolloutPolicySpec::default()
        },
    }];
    observation
}

/// The demands of the change's tier for every tier, since no other counts, without sign-offs.
fn unattended(demands: &TierDemands, last: Option<&Step>) -> Tiers {
    let alone = TierDemands {
        // The Rollout's own steps count; fewer of the tier's are sooner compared with them.
        steps: last.cloned().into_iter().collect(),
        sign_off: Some(Vec::new()),
        promotion_sign_off: Some(Vec::new()),
        ..demands.clone()
    };
    Tiers {
        low: alone.clone(),
        medium: alone.clone(),
        high: alone.clone(),
        critical: alone,
    }
}

fn signatures(plan: &Plan) -> i32 {
    let before_steps = plan.steps.iter().flat_map(|step| &step.sign_off);
    let demands = before_steps.chain(&plan.promotion_sign_off);
    demands.map(|demand| demand.count).sum()
}

// --- Many rollouts -------------------------------------------------------------------------------

impl Case {
    fn of(canary_error_rate: f64, runs: &[Run]) -> Self {
        let ended = |end| runs.iter().filter(move |run| run.end == end);
        let share = |end| Share::of(ended(end).count(), runs.len());
        let promoted = || ended(End::Promoted);
        let steps = promoted().map(|run| run.steps.len()).max().unwrap_or(0);
        let step = |index: usize| {
            let times = promoted().filter_map(|run| run.steps.get(index));
            quantile(times.map(SignedDuration::as_secs_f64).collect(), 0.5)
        };
        Self {
            canary_error_rate,
            runs: runs.len(),
            promoted: share(End::Promoted),
            rolled_back: share(End::RolledBack),
            overdue: share(End::Overdue),
            undecided: share(End::Undecided),
            promotion: Seconds::of(promoted().map(|run| run.took)),
            rollback: Seconds::of(ended(End::RolledBack).map(|run| run.served)),
            exposed_requests: quantile(runs.iter().map(|run| run.exposed).collect(), 0.5)
                .unwrap_or_default()
                .round(),
            step_seconds: (0..steps).filter_map(step).collect(),
        }
    }
}

impl Share {
    /// A count of all runs, with the interval of Wilson, which is sound near 0 and 1 too.
    fn of(count: usize, all: usize) -> Self {
        let (hits, n) = (as_number(count), as_number(all).max(1.0));
        let share = hits / n;
        let middle = share + Z * Z / (2.0 * n);
        let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + Z * Z / n;
        Self {
            count,
            of_all: share,
            low: ((middle - half) / scale).max(0.0),
            high: ((middle + half) / scale).min(1.0),
        }
    }
}

fn as_number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

impl Seconds {
    fn of(times: impl Iterator<Item = SignedDuration>) -> Option<Self> {
        let times: Vec<f64> = times.map(|time| time.as_secs_f64()).collect();
        Some(Self {
            median: quantile(times.clone(), 0.5)?,
            p90: quantile(times, 0.9)?,
        })
    }
}

/// The least value that this share of the values does not exceed.
fn quantile(mut values: Vec<f64>, share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let at = |index: usize| values.get(index).copied();
    let rank = (0..=last).find(|index| as_number(index + 1) >= share * as_number(last + 1));
    at(rank.unwrap_or(last))
}

// --- For people ----------------------------------------------------------------------------------

impl Simulation {
    fn told(&self, asked: &Simulate) -> String {
        let namespace = self.namespace.iter().map(|it| format!("{}/", shown(it)));
        let weights: Vec<_> = self.weights.iter().map(|it| format!("{it}%")).collect();
        let mut text = format!(
            "Rollout {}{}: tier {} with {}; steps {}; {}, each after {}\n",
            namespace.collect::<String>(),
            shown(&self.rollout),
            self.tier,
            number(self.score, "point"),
            weights.join(", "),
            number(self.sign_offs, "sign-off"),
            asked.sign_off_after,
        );
        let settings = format!(
            "{} of each case, {} a second, {} of stable's fail, seed {}\n",
            number(asked.runs, "rollout"),
            number(asked.rate, "request"),
            percent(asked.stable_error_rate),
            asked.seed
        );
        text.push_str(&settings);
        for (index, case) in self.cases.iter().enumerate() {
            text.push('\n');
            text.push_str(&case.told(self, index == 0));
        }
        text
    }
}

impl Case {
    fn told(&self, simulation: &Simulation, healthy: bool) -> String {
        let allowed = |share: f64| format!("at most {} allowed", percent(share));
        let (kind, false_rollback, missed) = if healthy {
            (
                "Healthy canary",
                allowed(simulation.max_false_rollback),
                String::new(),
            )
        } else {
            ("Worse canary", String::new(), "missed".to_owned())
        };
        let mut lines = vec![
            self.promoted.told("promoted", &missed),
            self.rolled_back
                .told("rolled back for errors", &false_rollback),
        ];
        if self.overdue.count > 0 {
            lines.push(
                self.overdue
                    .told("rolled back at a deadline", "too little evidence or pods"),
            );
        }
        if self.undecided.count > 0 {
            lines.push(
                self.undecided
                    .told("waiting for a person", "the evidence is scarce"),
            );
        }
        let mut times = Vec::new();
        times.extend(self.promotion.map(|it| it.told("time to promotion")));
        times.extend(self.rollback.map(|it| it.told("time to rollback")));
        times.push(vec![
            "requests to the canary".into(),
            format!("median {}", self.exposed_requests),
        ]);
        if !self.step_seconds.is_empty() {
            let steps: Vec<_> = self.step_seconds.iter().map(|it| length(*it)).collect();
            times.push(vec![
                "time in steps".into(),
                format!("{}, the last in promotion", steps.join(" ")),
            ]);
        }
        let rate = percent(self.canary_error_rate);
        format!(
            "{kind}: {rate} of its requests fail\n{}{}",
            columns("  ", &lines),
            columns("  ", &times)
        )
    }
}

impl Share {
    fn told(&self, what: &str, note: &str) -> Vec<String> {
        vec![
            what.to_owned(),
            format!("{:>6}", percent(self.of_all)),
            format!("({} to {})", percent(self.low), percent(self.high)),
            note.to_owned(),
        ]
    }
}

impl Seconds {
    fn told(self, what: &str) -> Vec<String> {
        let Self { median, p90 } = self;
        vec![
            what.to_owned(),
            format!("median {}, p90 {}", length(median), length(p90)),
        ]
    }
}

fn percent(share: f64) -> String {
    format!("{}%", (share * 10_000.0).round() / 100.0)
}

fn length(seconds: f64) -> String {
    let rounded = std::time::Duration::from_secs_f64(seconds.clamp(0.0, 1e10).round());
    Duration::from(rounded).to_string()
}

#[cfg(test)]
mod tests {
    use countersign_api::Rollout;
    use countersign_core::simulation::manifest::{Surroundings, observe, with_another_image};
    use serde_json::json;

    use super::*;

    fn observation(annotations: &serde_json::Value) -> Observation {
        let rollout: Rollout = serde_json::from_value(json!({
            "apiVersion": "countersign.dev/v1alpha1",
            "kind": "Rollout",
            "metadata": { "name": "web", "annotations": annotations },
            "spec": {
                "replicas": 20,
                "selector": { "matchLabels": { "app": "web" } },
                "template": {
                    "metadata": { "labels": { "app": "web" } },
                    "spec": { "containers": [{ "name": "web", "image": "example.org/web:2" }] },
                },
                "strategy": { "canary": { "analysis": { "checks": [{ "name": "errors", "preset": "HttpRequestsTotal" }] } } },
            },
        }))
        .unwrap();
        let before = with_another_image(&rollout.spec.template);
        observe(
            &rollout,
            &before,
            Surroundings::default(),
            Timestamp::UNIX_EPOCH,
        )
    }

    fn harmless() -> Observation {
        let annotation = |key: &str| format!("provenance.countersign.dev/{key}");
        observation(&json!({
            annotation("revision"): "1", annotation("approved-revision"): "1", annotation("contributor"): "human",
            annotation("authors"): "alice", annotation("reviewers"): "bob", annotation("tests"): "PASSED",
            annotation("lines-added"): "3", annotation("lines-deleted"): "1",
        }))
    }

    /// A large change by an AI, reviewed and tested.
    fn risky() -> Observation {
        let mut risky = harmless();
        for (key, value) in [
            ("contributor", "ai"),
            ("ai-share", "90"),
            ("agents", "coder acme/model-1"),
            ("human-operator", "alice"),
            ("lines-added", "500"),
            ("touches", "auth"),
        ] {
            let key = format!("provenance.countersign.dev/{key}");
            risky.annotations.insert(key, value.into());
        }
        risky
    }

    fn asked(runs: u32) -> Simulate {
        Simulate {
            inputs: Inputs::default(),
            setting: Setting::default(),
            rate: 50.0,
            stable_error_rate: 0.002,
            canary_error_rate: vec![0.1],
            runs,
            seed: 7,
            replicas: None,
            sign_off_after: Duration::default(),
            output: Format::Table,
        }
    }

    fn simulated(observation: Observation, asked: &Simulate) -> Simulation {
        let observed = Observed {
            observation,
            namespace: None,
            not_governing: Vec::new(),
            provenance_as_before: false,
        };
        asked.simulated(observed).unwrap()
    }

    #[test]
    fn a_healthy_canary_is_seldom_rolled_back_and_a_bad_one_soon() {
        let simulation = simulated(harmless(), &asked(60));
        assert_eq!(simulation.tier, Tier::Low);
        let [healthy, bad] = &simulation.cases[..] else {
            panic!("two cases")
        };
        assert!(
            healthy.rolled_back.low <= simulation.max_false_rollback,
            "{healthy:?}"
        );
        assert_eq!(healthy.step_seconds.len(), simulation.weights.len() + 1);
        let bakes = 3.0 * 300.0;
        let took = healthy.promotion.unwrap().median;
        assert!((bakes..bakes + 120.0).contains(&took), "{took}");
        assert_eq!(bad.promoted.count, 0, "{bad:?}");
        assert!(bad.rollback.unwrap().median < 180.0, "{bad:?}");
        assert!(bad.exposed_requests < healthy.exposed_requests);
    }

    #[test]
    fn the_same_seed_gives_the_same_report_and_another_seed_another() {
        let once = simulated(harmless(), &asked(8));
        assert_eq!(once, simulated(harmless(), &asked(8)));
        let other = Simulate {
            seed: 8,
            ..asked(8)
        };
        assert_ne!(once, simulated(harmless(), &other));
    }

    #[test]
    fn sign_offs_are_counted_and_what_they_take_is_added() {
        let asked = |runs| Simulate {
            rate: 5_000.0,
            ..asked(runs)
        };
        let at_once = simulated(risky(), &asked(4));
        assert!(
            at_once.tier >= Tier::High && at_once.sign_offs > 0,
            "{at_once:?}"
        );
        let late = Simulate {
            sign_off_after: Duration::minutes(30),
            ..asked(4)
        };
        let late = simulated(risky(), &late);
        let took = |it: &Simulation| it.cases[0].promotion.unwrap().median;
        let more = took(&late) - took(&at_once);
        assert!(more >= 30.0 * 60.0 - 60.0, "{more}");
        assert_eq!(late.weights, at_once.weights);
    }

    #[test]
    fn taking_the_sign_offs_out_leaves_the_plan_as_it_is_otherwise() {
        for observation in [observation(&json!({})), risky(), harmless()] {
            let asked = decide(&observation).status.change.unwrap();
            let effective = Proposal::of(&observation).effective;
            let alone = without_sign_offs(observation, &effective, &asked, Duration::default());
            let change = decide(&alone).status.change.unwrap();
            let plan = asked.plan;
            let mut steps = plan.steps.clone();
            for step in &mut steps {
                step.sign_off.clear();
            }
            assert_eq!(
                (change.plan.steps, change.plan.strictness),
                (steps, plan.strictness)
            );
            assert_eq!(change.plan.promotion_sign_off, []);
        }
    }

    #[test]
    fn scarce_evidence_is_told_apart_from_errors() {
        let few = Simulate {
            rate: 1.0,
            ..asked(4)
        };
        let simulation = simulated(risky(), &few);
        let healthy = &simulation.cases[0];
        assert_eq!(
            (healthy.undecided.count, healthy.rolled_back.count),
            (4, 0),
            "{healthy:?}"
        );
    }

    #[test]
    fn what_cannot_be_simulated_says_why() {
        let mut idle = harmless();
        idle.spec.replicas = 0;
        let scene = |observation, asked: &Simulate| Scene::of(observation, asked).err();
        assert_eq!(
            scene(idle, &asked(1)),
            Some(SimulationError::NoPods("web".into()))
        );
        let mut same = harmless();
        let serving = &same.replica_sets[0];
        same.spec.template = serving.template.clone();
        assert_eq!(
            scene(same, &asked(1)),
            Some(SimulationError::NoChange("web".into()))
        );
        let observed = Observed {
            observation: harmless(),
            namespace: None,
            not_governing: Vec::new(),
            provenance_as_before: false,
        };
        let error = asked(100_000).simulated(observed).unwrap_err();
        assert!(matches!(error, SimulationError::TooLong { .. }), "{error}");
    }

    #[test]
    fn shares_come_with_wilsons_interval() {
        let near = |a: f64, b: f64| (a - b).abs() < 1e-4;
        for (count, all, low, high) in [
            (0, 200, 0.0, 0.018_84),
            (1, 200, 0.000_88, 0.027_79),
            (100, 200, 0.431_36, 0.568_64),
            (200, 200, 0.981_16, 1.0),
        ] {
            let share = Share::of(count, all);
            assert!(near(share.low, low) && near(share.high, high), "{share:?}");
        }
    }

    #[test]
    fn quantiles_are_values_that_occurred() {
        let values = || vec![3.0, 1.0, 2.0, 4.0];
        assert_eq!(quantile(values(), 0.5), Some(2.0));
        assert_eq!(quantile(values(), 0.9), Some(4.0));
        assert_eq!(quantile(Vec::new(), 0.5), None);
    }
}
