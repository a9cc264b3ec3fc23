//! The operator's command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use countersign::operator::{self, Options};
use countersign::{check, notify};

// That of musl, for which the image is built, has one lock for all threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Risk-based progressive delivery for Kubernetes.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator.
    Run(Box<Options>),
    /// Check that an installation is complete: the definitions and admission policies of this version, a leader, and
    /// Prometheus. Takes the options of `run`; prints what is missing, and then exits with status 1.
    Check {
        #[command(flatten)]
        options: Box<Options>,
        /// The length of time to wait for what is missing.
        #[arg(long, default_value = "1m")]
        wait: countersign_api::Duration,
    },
    /// Send notifications of what happens to Rollouts to the channels of a configuration file.
    Notify(Box<notify::Options>),
    /// Print the CustomResourceDefinitions as YAML.
    Crds {
        /// Write one file per kind into this directory instead.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Print the built-in policy as YAML.
    Policy,
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    match Cli::parse().command {
        Command::Run(options) => operator::run(*options)?,
        Command::Check { options, wait } => {
            let problems = check::run(&options, wait.std())?;
            for problem in &problems {
                eprintln!("{problem}");
            }
            if !problems.is_empty() {
                return Ok(ExitCode::FAILURE);
            }
            println!("The installation is complete.");
        }
        Command::Notify(options) => {
            if let Err(error) = notify::run(*options) {
                eprintln!("{error}");
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Crds { dir } => {
            for (name, yaml) in countersign_api::crd_files()? {
                match &dir {
                    Some(dir) => std::fs::write(dir.join(name), yaml)?,
                    None => print!("---\n{yaml}"),
                }
            }
        }
        Command::Policy => print!("{}", countersign_core::policy::defaults::BUILT_IN),
    }
    Ok(ExitCode::SUCCESS)
}
