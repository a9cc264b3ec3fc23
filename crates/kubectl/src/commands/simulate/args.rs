//! What a simulation is given.

use clap::Args;
use countersign_api::Duration;
use k8s_openapi::jiff::SignedDuration;

use crate::commands::explain::Setting;
use crate::manifests::inputs::Inputs;
use crate::output::report::Format;

/// How long a rollout is followed beyond all its bakes, for what it waits for besides.
pub(super) const SLACK: SignedDuration = SignedDuration::from_hours(100);

/// Simulate whole rollouts in virtual time, without a cluster: how long, which steps, how often wrong.
#[derive(Args)]
pub struct Simulate {
    #[command(flatten)]
    pub(super) inputs: Inputs,
    #[command(flatten)]
    pub(super) setting: Setting,
    /// Requests a second to all pods together.
    #[arg(long, default_value_t = 50.0, value_parser = rate)]
    pub(super) rate: f64,
    /// Share of the stable revision's requests that fail.
    #[arg(long, default_value_t = 0.002, value_parser = share)]
    pub(super) stable_error_rate: f64,
    /// Shares of a worse canary's requests that fail, each a case of its own; without it, ten times stable's.
    #[arg(long, value_delimiter = ',', value_parser = share)]
    pub(super) canary_error_rate: Vec<f64>,
    /// Rollouts of each case.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) runs: u32,
    /// Where the random numbers begin: the same seed gives the same report.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Pods, instead of the manifest's number.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=100_000))]
    pub(super) replicas: Option<i32>,
    /// How long people take for each sign-off.
    #[arg(long, default_value = "0s")]
    pub(super) sign_off_after: Duration,
    /// Form of the output.
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

/// Why nothing can be simulated.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum SimulationError {
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
