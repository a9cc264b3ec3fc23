//! `kubectl countersign`: a file a command.

pub mod stamp;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What went wrong, as it is printed; each command has a typed error of its own.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Rollouts that are treated by their risk.
#[derive(Parser)]
#[command(
    name = "kubectl-countersign",
    bin_name = "kubectl countersign",
    version
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the built-in policy as YAML.
    Policy,
    /// Derive provenance annotations from a range of git commits.
    Stamp(Box<stamp::Options>),
}

/// Runs the plugin: 0 where all went well, 1 where it did not, 2 for a wrong command line.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = run(cli);
    result.unwrap_or_else(|failure| {
        eprintln!("error: {failure}");
        ExitCode::FAILURE
    })
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    match cli.command {
        Command::Policy => print!("{}", crate::core::policy::BUILT_IN),
        Command::Stamp(options) => return Ok(stamp::run(&options)?),
    }
    Ok(ExitCode::SUCCESS)
}
