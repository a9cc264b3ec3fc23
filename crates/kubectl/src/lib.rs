//! `kubectl countersign`: a file of `commands/` for each command.
//!
//! Commands in [`Command`] need no cluster; those in [`Online`] use the user's kubeconfig and rights, and
//! only create or patch objects as that user.

mod clock;
mod cluster;
mod commands;
mod examples;
mod failure;
pub mod manifests;
mod output;
pub mod stamp;
mod view;

use std::process::ExitCode;

use clap::{ColorChoice, CommandFactory, Parser, Subcommand};
use cluster::connection::{self, Connection};
use commands::{
    check, completion, dashboard, explain, freeze, get, history, intervene, migrate, restart,
    sign_off, simulate, status, undo, version, watch,
};
pub use commands::{convert, lint, report};
use countersign_api::InterventionAction;
use failure::Failure;

/// Control risk-based progressive delivery.
#[derive(Parser)]
#[command(
    name = "kubectl-countersign",
    bin_name = "kubectl countersign",
    version
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// When to color the output; `auto` is on a terminal, unless `NO_COLOR` is set
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: ColorChoice,
    #[command(flatten)]
    cluster: connection::Flags,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Online(Online),
    /// Print the built-in policy as YAML
    #[command(after_help = examples::POLICY)]
    Policy,
    /// Print the CustomResourceDefinitions as YAML
    #[command(after_help = examples::CRDS)]
    Crds,
    #[command(after_help = examples::COMPLETION)]
    Completion(completion::Completion),
    #[command(after_help = examples::CONVERT)]
    Convert(convert::Convert),
    #[command(after_help = examples::VERSION)]
    Version(version::Version),
    #[command(after_help = examples::EXPLAIN)]
    Explain(explain::Explain),
    #[command(after_help = examples::LINT)]
    Lint(lint::Lint),
    #[command(after_help = examples::REPORT)]
    Report(report::Report),
    #[command(after_help = examples::SIMULATE)]
    Simulate(simulate::Simulate),
    #[command(after_help = examples::STAMP)]
    Stamp(Box<stamp::Options>),
}

#[derive(Subcommand)]
enum Online {
    #[command(after_help = examples::CHECK)]
    Check(Box<check::Check>),
    #[command(after_help = examples::GET)]
    Get(get::Get),
    #[command(after_help = examples::STATUS)]
    Status(status::Status),
    #[command(after_help = examples::WATCH)]
    Watch(watch::Watch),
    #[command(after_help = examples::DASHBOARD)]
    Dashboard(dashboard::Dashboard),
    #[command(after_help = examples::HISTORY)]
    History(history::History),
    #[command(after_help = examples::APPROVE)]
    Approve(sign_off::Approve),
    #[command(after_help = examples::REJECT)]
    Reject(sign_off::Reject),
    #[command(after_help = examples::BREAK_GLASS)]
    BreakGlass(sign_off::BreakGlass),
    /// Skip the rest of the current step's bake, but no other gate and no analysis
    #[command(after_help = examples::PROMOTE)]
    Promote(intervene::Intervene),
    /// Roll back the change in progress
    #[command(after_help = examples::ABORT)]
    Abort(intervene::Intervene),
    /// Retry a change that was rolled back
    #[command(after_help = examples::RETRY)]
    Retry(intervene::Intervene),
    /// Pause the change in progress; it is still analysed, and rolled back if it fails
    #[command(after_help = examples::PAUSE)]
    Pause(intervene::Intervene),
    /// Resume a paused change
    #[command(after_help = examples::RESUME)]
    Resume(intervene::Intervene),
    #[command(after_help = examples::UNDO)]
    Undo(undo::Undo),
    #[command(after_help = examples::RESTART)]
    Restart(restart::Restart),
    #[command(after_help = examples::MIGRATE)]
    Migrate(migrate::Migrate),
    #[command(after_help = examples::UNMIGRATE)]
    Unmigrate(migrate::unmigrate::Unmigrate),
    #[command(after_help = examples::FREEZE)]
    Freeze(freeze::Freeze),
    #[command(after_help = examples::UNFREEZE)]
    Unfreeze(freeze::Unfreeze),
}

/// The command line with every command and flag of the plugin.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the plugin. The exit code is 0 on success, 1 on failure, 2 for a wrong command line, 3 if the
/// outcome is pending.
#[must_use]
pub fn main() -> ExitCode {
    let result = match completion::words_to_complete(std::env::args_os()) {
        Some(words) => on_runtime(completion::complete(&Cli::command(), &words)),
        None => run(Cli::parse()),
    };
    result.unwrap_or_else(|failure| {
        let failure = countersign_core::text::sanitize_lines(&failure.to_string());
        output::remark(&format!("{} {failure}", output::Style::Bad.paint("error:")));
        ExitCode::FAILURE
    })
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    output::color(cli.color);
    match cli.command {
        Command::Online(command) => on_runtime(command.run(&cli.cluster)),
        Command::Policy => {
            output::print(countersign_core::policy::defaults::BUILT_IN);
            Ok(ExitCode::SUCCESS)
        }
        Command::Crds => {
            for (_, definition) in countersign_api::crd_files()? {
                output::print(&format!("---\n{definition}"));
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Completion(command) => Ok(command.run(Cli::command())),
        Command::Convert(command) => command.run(),
        Command::Version(command) if command.is_offline() => command.run_offline(),
        Command::Version(command) => on_runtime(async {
            let connection = Connection::open(&cli.cluster).await?;
            command.run(&connection).await
        }),
        Command::Explain(command) => command.run(),
        Command::Lint(command) => command.run(),
        Command::Report(command) if command.is_offline() => command.run_offline(&cli.cluster),
        Command::Report(command) => on_runtime(async {
            let connection = Connection::open(&cli.cluster).await?;
            command.run(&connection).await
        }),
        Command::Simulate(command) => command.run(),
        Command::Stamp(options) => Ok(stamp::run(&options)?),
    }
}

fn on_runtime(
    command: impl Future<Output = Result<ExitCode, Failure>>,
) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(command)
}

impl Online {
    async fn run(self, cluster: &connection::Flags) -> Result<ExitCode, Failure> {
        let connection = &Connection::open(cluster).await?;
        match self {
            // On the heap, since these futures are large.
            Self::Check(command) => Box::pin(command.run(connection)).await,
            Self::Get(command) => Box::pin(command.run(connection)).await,
            Self::Status(command) => Box::pin(command.run(connection)).await,
            Self::Watch(command) => command.run(connection).await,
            Self::Dashboard(command) => Box::pin(command.run(connection)).await,
            Self::History(command) => command.run(connection).await,
            Self::Approve(command) => command.run(connection).await,
            Self::Reject(command) => command.run(connection).await,
            Self::BreakGlass(command) => command.run(connection).await,
            Self::Promote(command) => command.run(InterventionAction::Promote, connection).await,
            Self::Abort(command) => command.run(InterventionAction::Abort, connection).await,
            Self::Retry(command) => command.run(InterventionAction::Retry, connection).await,
            Self::Pause(command) => command.run(InterventionAction::Pause, connection).await,
            Self::Resume(command) => command.run(InterventionAction::Resume, connection).await,
            Self::Undo(command) => command.run(connection).await,
            Self::Restart(command) => command.run(connection).await,
            Self::Migrate(command) => command.run(connection).await,
            Self::Unmigrate(command) => command.run(connection).await,
            Self::Freeze(command) => command.run(connection).await,
            Self::Unfreeze(command) => command.run(connection).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Words as a shell reads them, up to a pipe.
    fn words(line: &str) -> Vec<String> {
        let line = line.split(['|', '>']).next().unwrap();
        let parts = line.split('\'').enumerate();
        let words = parts.flat_map(|(index, part)| match index % 2 {
            0 => part.split_whitespace().map(ToOwned::to_owned).collect(),
            _ => vec![part.to_owned()],
        });
        words.collect()
    }

    #[test]
    fn every_command_has_examples_that_are_valid() {
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let help = command.get_after_help().unwrap_or_else(|| panic!("{name}"));
            let help = help.to_string();
            assert!(help.starts_with("Examples:\n  # "), "{name}: {help}");
            let lines = help.lines();
            let examples = lines.filter_map(|it| it.strip_prefix("  kubectl countersign "));
            let mut count = 0;
            for example in examples {
                assert_eq!(example.split(' ').next(), Some(name));
                let line = [vec!["kubectl-countersign".to_owned()], words(example)].concat();
                Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{error}"));
                count += 1;
            }
            assert!(count > 0, "{name}");
        }
    }

    #[test]
    fn flags_of_the_cluster_may_stand_before_and_after_the_command() {
        for line in [
            "kubectl-countersign -n shop approve web --gate step-1 --yes --full --wait=false",
            "kubectl-countersign approve web --context prod -n shop --run web-1-2",
            "kubectl-countersign get -A -o wide -l app=web",
            "kubectl-countersign status web --wait --timeout 10m",
            "kubectl-countersign reject web --reason no --digest 1a2b3c4d",
            "kubectl-countersign undo web --to-revision 3 --as bob --as-group approvers",
            "kubectl-countersign migrate web --dry-run",
            "kubectl-countersign check web --prometheus monitoring/prometheus:9090",
            "kubectl-countersign check -s https://192.0.2.1 --token t --before-uninstall",
            "kubectl-countersign unmigrate web --yes --timeout 5m",
            "kubectl-countersign approve rollout/web --dry-run=server -o yaml",
            "kubectl-countersign migrate deploy/web --dry-run=client",
            "kubectl-countersign get -A -w --field-selector status.phase=Held -o name",
            "kubectl-countersign history -A --no-headers",
            "kubectl-countersign --color never status web",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{error}"));
        }
        for line in [
            "kubectl-countersign reject web",
            "kubectl-countersign break-glass web",
            "kubectl-countersign approve",
            "kubectl-countersign get web -A",
            "kubectl-countersign status web --timeout 10m",
            "kubectl-countersign approve web --gate all",
            "kubectl-countersign check web --before-uninstall",
            "kubectl-countersign check --prometheus-url http://prometheus",
            "kubectl-countersign approve web -o yaml",
            "kubectl-countersign abort deployment/web",
            "kubectl-countersign get -o jsonpath={.a",
            "kubectl-countersign get --color yes",
            "kubectl-countersign history web -A",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
