//! `cluster`: runs a command in a test cluster, or keeps one for a while.

use clap::{Args, Parser, Subcommand};
use countersign_cluster::{
    Result,
    program::{self, Directory, Operator, Plan, Tools},
};
use std::{ffi::OsString, path::PathBuf, process::ExitCode};

/// A real Kubernetes control plane, Prometheus and serving pods in a private network namespace.
#[derive(Parser)]
#[command(name = "cluster", version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Runs a command in a new cluster, which ends with it; the exit status is the command's, or
    /// 125 if the cluster failed. With `COUNTERSIGN_KUBECONFIG` set, that cluster is used instead
    /// of a new one
    Exec {
        #[command(flatten)]
        operator: OperatorArguments,
        /// The directory with the cluster's programs, if they are not to be built
        #[arg(long, value_name = "DIR")]
        tools: Option<PathBuf>,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Starts a cluster in the background, and prints the shell code to `eval` in order to use it
    Up {
        #[command(flatten)]
        operator: OperatorArguments,
    },
    /// Stops the cluster of `up`
    Down,
    /// Internal: the part of `exec` and `up` within the namespace
    #[command(hide = true)]
    Inside(PlanArguments),
    /// Internal: the background process of `up`
    #[command(hide = true)]
    Keep(PlanArguments),
}

#[derive(Args)]
struct OperatorArguments {
    /// The operator to install and run
    #[arg(long, value_name = "PATH")]
    operator: Option<PathBuf>,
    /// Its chart, if not that of this checkout, or a rendered file
    #[arg(long, value_name = "PATH", requires = "operator")]
    chart: Option<PathBuf>,
}

#[derive(Args)]
struct PlanArguments {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    tools: PathBuf,
    #[command(flatten)]
    operator: OperatorArguments,
    #[arg(last = true)]
    command: Vec<OsString>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().action).await {
        Ok(status) => status.into(),
        Err(error) => {
            eprintln!("cluster: {error}");
            125.into()
        }
    }
}

async fn run(action: Action) -> Result<u8> {
    match action {
        Action::Exec {
            operator,
            tools,
            command,
        } => program::exec(operator.into(), tools.map(Tools::at), command).await,
        Action::Up { operator } => {
            print!("{}", program::up(operator.into()).await?);
            Ok(0)
        }
        Action::Down => program::down().await.map(|()| 0),
        Action::Inside(plan) => program::run_inside(plan.into()).await,
        Action::Keep(plan) => program::keep(plan.into()).await,
    }
}

impl From<OperatorArguments> for Option<Operator> {
    fn from(arguments: OperatorArguments) -> Self {
        let mut operator = Operator::of_this_checkout(arguments.operator?);
        if let Some(chart) = arguments.chart {
            operator.chart = chart;
        }
        Some(operator)
    }
}

impl From<PlanArguments> for Plan {
    fn from(arguments: PlanArguments) -> Self {
        Self {
            dir: Directory::at(arguments.dir),
            tools: Tools::at(arguments.tools),
            operator: arguments.operator.into(),
            command: arguments.command,
        }
    }
}
