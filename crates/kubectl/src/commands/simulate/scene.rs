//! The simulated change with its pods and traffic.

use countersign_api::policy::{RolloutPolicySpec, TierDemands, Tiers};
use countersign_api::rollout::{Change, Outcome, Plan, Transition};
use countersign_api::{Analysis, Duration, Step, Tier};
use countersign_core::analysis::statistics::Counts;
use countersign_core::observation::Observation;
use countersign_core::observation::people::NamedPolicy;
use countersign_core::observation::windows::WindowOutcome;
use countersign_core::policy::Effective;
use countersign_core::proposal::Proposal;
use countersign_core::reason::Reason;
use countersign_core::simulation::world::World;
use countersign_core::text::excerpt;
use countersign_core::{change, decide};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand_distr::{Distribution, Poisson};

use crate::commands::simulate::args::{SLACK, Simulate, SimulationError};

/// A change that is about to begin.
pub(super) struct Scene {
    pub(super) observation: Observation,
    pub(super) tier: Tier,
    pub(super) score: f64,
    pub(super) plan: Plan,
    /// Length of one measurement window.
    pub(super) interval: Duration,
    /// Time until the sign-offs before the first step are given.
    pub(super) start_after: SignedDuration,
}

/// Request rate and error rates.
pub(super) struct Traffic {
    pub(super) rate: f64,
    pub(super) canary: f64,
    pub(super) stable: f64,
}

/// The result of one rollout.
pub(super) struct Run {
    pub(super) end: End,
    /// From the beginning to the end.
    pub(super) took: SignedDuration,
    /// From the first traffic to the end.
    pub(super) served: SignedDuration,
    /// Requests that the canary answered.
    pub(super) exposed: f64,
    /// Requests that the canary failed.
    pub(super) failed: f64,
    pub(super) steps: Vec<SignedDuration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Promoted,
    RolledBack,
    Overdue,
    Undecided,
}

impl Scene {
    pub(super) fn of(
        mut observation: Observation,
        options: &Simulate,
    ) -> Result<Self, SimulationError> {
        if let Some(replicas) = options.replicas {
            observation.spec.replicas = replicas;
            for set in &mut observation.replica_sets {
                (set.replicas, set.current, set.ready, set.available) =
                    (replicas, replicas, replicas, replicas);
            }
        }
        let rollout = excerpt(&observation.name);
        if observation.spec.replicas == 0 {
            return Err(SimulationError::NoPods(rollout));
        }
        let change = decide(&observation).status.change;
        let change = change.ok_or(SimulationError::NoChange(rollout))?;
        let proposal = Proposal::of(&observation);
        let first = change.plan.steps.first();
        let waits_first = first.is_some_and(|step| !step.sign_off.is_empty());
        let delay = options.sign_off_after;
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

    /// The sum of all bakes and of the time until sign-offs.
    fn length(&self) -> std::time::Duration {
        let steps = &self.observation.spec.strategy.canary.steps;
        steps.iter().fold(std::time::Duration::ZERO, |sum, step| {
            sum.saturating_add(step.bake.std())
        })
    }

    /// Measurement windows of one run; there are at least as many reconciles.
    pub(super) fn windows(&self) -> u128 {
        self.length().as_millis() / self.interval.std().as_millis().max(1)
    }

    pub(super) fn play(&self, traffic: &Traffic, seed: u64) -> Result<Run, SimulationError> {
        let mut world = World::new(self.observation.clone());
        let began = world.observation.now;
        let waits = self.plan.strictness.extend_at_most.std();
        let steps = u32::try_from(self.plan.steps.len()).unwrap_or(u32::MAX);
        let length = self.length().saturating_add(waits.saturating_mul(steps));
        let length = SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX);
        let until = began
            .saturating_add(length.saturating_add(SLACK))
            .unwrap_or(Timestamp::MAX);
        let mut rng = SmallRng::seed_from_u64(seed);
        let window = self.interval.std().as_secs_f64();
        let mut failed = 0.0;
        let mut count = |_: Timestamp, share: f64| {
            let outcome = traffic.count(window, share, &mut rng);
            if let WindowOutcome::Counted { canary, .. } = &outcome {
                failed += canary.errors;
            }
            outcome
        };
        let mut meter = Meter::from(began);
        world.run(until, &mut count, |observation| {
            meter.read(observation);
            has_ended(observation)
        });
        if let Some(law) = world.broken.first() {
            return Err(SimulationError::Broken {
                rollout: excerpt(&world.observation.name),
                law: format!("{law:?}"),
            });
        }
        let exposed = meter.seconds * traffic.rate;
        Ok(self.outcome(&world, began, (exposed, failed)))
    }

    fn outcome(&self, world: &World, began: Timestamp, (exposed, failed): (f64, f64)) -> Run {
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
            failed,
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

/// Integrates the canary's share of the requests over time.
pub(super) struct Meter {
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

/// Whether the rollout has ended, or waits for a person's decision, which is not simulated.
pub(super) fn has_ended(observation: &Observation) -> bool {
    let status = &observation.status;
    change::waits_for(status, Reason::AwaitingPerson)
        || status
            .change
            .as_ref()
            .is_none_or(|change| change.outcome.is_some())
}

pub(super) fn end(change: &Change) -> End {
    let failed = change
        .transitions
        .iter()
        .any(|line| line.reason == Reason::AnalysisFailed);
    match change.outcome {
        Some(Outcome::Promoted) => End::Promoted,
        Some(_) if failed => End::RolledBack,
        Some(_) => End::Overdue,
        None => End::Undecided,
    }
}

/// When each step began, and promotion after them.
pub(super) fn starts(change: &Change) -> Vec<Timestamp> {
    let begins =
        |line: &&Transition| line.reason == Reason::StepStarted || line.reason == Reason::Promoting;
    let lines = change.transitions.iter().filter(begins);
    lines.filter_map(|line| Some(line.at.as_ref()?.0)).collect()
}

/// The same change without sign-offs: its plan as the Rollout's own steps, under one merged policy. The
/// time until a later sign-off becomes a longer bake, since the canary is analysed while it waits.
/// Freezes are left out.
pub(super) fn without_sign_offs(
    mut observation: Observation,
    effective: &Effective,
    Change {
        plan,
        tier,
        enforcement,
        ..
    }: &Change,
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
    let canary = &mut observation.spec.strategy.canary;
    canary.steps = steps;
    canary.promotion_sign_off.clear();
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
            enforcement: *enforcement,
            risk: effective.risk.clone(),
            tiers: unattended(effective.tiers.get(*tier), last.as_ref()),
            analysis,
            ..RolloutPolicySpec::default()
        },
    }];
    observation
}

/// The demands of the change's tier for every tier, without sign-offs.
pub(super) fn unattended(demands: &TierDemands, last: Option<&Step>) -> Tiers {
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

pub(super) fn signatures(plan: &Plan) -> i32 {
    let before_steps = plan.steps.iter().flat_map(|step| &step.sign_off);
    let demands = before_steps.chain(&plan.promotion_sign_off);
    demands.map(|demand| demand.count).sum()
}
