//! Arguments and errors of `simulate`.

use clap::Args;
use countersign_api::Duration;
use k8s_openapi::jiff::SignedDuration;

use crate::commands::explain::Setting;
use crate::manifests::inputs::Inputs;
use crate::output::report::Format;

/// Simulated time beyond all bakes and sign-offs, after which a run ends.
pub(super) const SLACK: SignedDuration = SignedDuration::from_hours(100);

/// Simulate rollouts in virtual time, without a cluster: duration, steps, and rates of wrong decisions.
#[derive(Args, Clone)]
#[command(mut_group("Inputs", |group| group.required(false)))]
pub struct Simulate {
    #[command(flatten)]
    pub(super) inputs: Option<Inputs>,
    #[command(flatten)]
    pub(super) setting: Setting,
    /// Requests per second to all pods together.
    #[arg(long, default_value_t = 50.0, value_parser = rate)]
    pub(super) rate: f64,
    /// Error rate of the stable revision, from 0 to 1.
    #[arg(long, default_value_t = 0.002, value_parser = share)]
    pub(super) stable_error_rate: f64,
    /// Error rates of worse canaries, each a separate case; if omitted, ten times the stable rate.
    #[arg(long, value_delimiter = ',', value_parser = share)]
    pub(super) canary_error_rate: Vec<f64>,
    /// Compare services of 1, 5, 50 and 500 requests a second in every tier of --policy, instead of Rollouts
    #[arg(long, conflicts_with_all = ["Inputs", "rate", "canary_error_rate", "replicas", "sign_off_after", "stable"])]
    pub(super) sweep: bool,
    /// Number of rollouts per case.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) runs: u32,
    /// Seed of the random numbers; the same seed gives the same report.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Number of pods, instead of spec.replicas.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=100_000))]
    pub(super) replicas: Option<i32>,
    /// Time until each sign-off is given.
    #[arg(long, default_value = "0s")]
    pub(super) sign_off_after: Duration,
    /// Output format.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(super) output: Format,
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

/// Why a Rollout cannot be simulated.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum SimulationError {
    #[error(
        "Rollout {0}: the pods would not change, so there is nothing to simulate: give the deployed Rollout with --stable"
    )]
    NoChange(String),
    #[error(
        "Rollout {0}: spec.replicas is 0, so there is no traffic to analyse: give a number with --replicas"
    )]
    NoPods(String),
    #[error(
        "{what}: {windows} windows of counting are too many to simulate: lower --runs, or raise the analysis' interval"
    )]
    TooLong { what: String, windows: u128 },
    #[error("give Rollouts with -f or -k, or compare request rates with --sweep")]
    NothingGiven,
    #[error(
        "Rollout {rollout}: the state machine broke a law, which is a bug of Countersign: {law}"
    )]
    Broken { rollout: String, law: String },
    #[error("a simulation ended early, which is a bug of Countersign")]
    Lost,
}
