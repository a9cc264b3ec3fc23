//! The operator's command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use countersign::operator::{self, Options};

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
    /// Print the CustomResourceDefinitions as YAML.
    Crds {
        /// Write one file per kind into this directory instead.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Print the built-in policy as YAML.
    Policy,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    match Cli::parse().command {
        Command::Run(options) => operator::run(*options)?,
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
    Ok(())
}
