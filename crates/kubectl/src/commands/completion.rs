//! `completion`: shell completion of commands, flags and object names.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Command;
use clap_complete::aot::{Shell, generate};
use countersign_api::{Freeze, Rollout};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use kube::api::ListParams;

use crate::cluster::connection::{Connection, Flags};
use crate::failure::Failure;
use crate::output::print;

/// Name of the binary on the PATH.
const PROGRAM: &str = "kubectl-countersign";

/// The program that kubectl runs to complete `kubectl countersign …`.
const SHIM: &str = "\
#!/bin/sh
# Save this as kubectl_complete-countersign, executable, in a directory of the PATH.
exec kubectl-countersign __complete \"$@\"
";

/// The hidden command that the shim runs, as in cobra.
const COMPLETE: &str = "__complete";

/// cobra's `ShellCompDirectiveNoFileComp`: the shell offers no file names.
const NO_FILES: &str = ":4";

/// Output shell completion code for the specified shell, or the plugin completion program for kubectl
#[derive(Clone, Debug, clap::Args)]
pub struct Completion {
    /// A shell, which completes `kubectl-countersign`, or `kubectl`, which completes `kubectl
    /// countersign`
    #[arg(value_enum)]
    consumer: Consumer,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Consumer {
    /// Bash.
    Bash,
    /// Zsh.
    Zsh,
    /// Fish.
    Fish,
    /// The file `kubectl_complete-countersign` for the PATH.
    Kubectl,
}

impl Completion {
    /// Prints the script.
    pub fn run(self, mut command: Command) -> ExitCode {
        let shell = match self.consumer {
            Consumer::Bash => Shell::Bash,
            Consumer::Zsh => Shell::Zsh,
            Consumer::Fish => Shell::Fish,
            Consumer::Kubectl => {
                print(SHIM);
                return ExitCode::SUCCESS;
            }
        };
        // The script completes the binary, not the name in its help.
        command = command.bin_name(PROGRAM);
        let mut script = Vec::new();
        generate(shell, &mut command, PROGRAM, &mut script);
        print(&String::from_utf8_lossy(&script));
        ExitCode::SUCCESS
    }
}

/// The words to complete, the last one partial, if the first argument is `__complete`. They are no valid
/// command line, so they are taken before clap parses the arguments.
pub fn words_to_complete(arguments: impl Iterator<Item = OsString>) -> Option<Vec<String>> {
    let words = arguments.map(|word| word.to_string_lossy().into_owned());
    let mut words = words.skip(1);
    (words.next()? == COMPLETE).then(|| words.collect())
}

/// Prints the candidates, one a line; nothing if the cluster does not respond.
pub async fn complete(command: &Command, words: &[String]) -> Result<ExitCode, Failure> {
    let last = words.last().map_or("", String::as_str);
    let offered = match candidates(command, words) {
        Candidates::Words(offered) => offered,
        kind => names(&kind, words).await.unwrap_or_default(),
    };
    let fitting = offered.iter().filter(|word| word.starts_with(last));
    let lines: Vec<_> = fitting.map(String::as_str).chain([NO_FILES]).collect();
    print(&(lines.join("\n") + "\n"));
    Ok(ExitCode::SUCCESS)
}

/// Candidates for the last word of a line.
#[derive(Debug, PartialEq, Eq)]
enum Candidates {
    Words(Vec<String>),
    Rollouts,
    Freezes,
    Deployments,
}

async fn names(kind: &Candidates, words: &[String]) -> Result<Vec<String>, Failure> {
    let connection = Connection::open(&flags(words)).await?;
    let all = ListParams::default();
    let named = match kind {
        Candidates::Freezes => {
            let freezes = connection.cluster::<Freeze>();
            let freezes = connection.ask(freezes.list(&all)).await?;
            freezes.iter().map(ResourceExt::name_any).collect()
        }
        Candidates::Deployments => {
            let deployments = connection.here::<Deployment>();
            let deployments = connection.ask(deployments.list(&all)).await?;
            deployments.iter().map(ResourceExt::name_any).collect()
        }
        _ => {
            let rollouts = connection.here::<Rollout>();
            let rollouts = connection.ask(rollouts.list(&all)).await?;
            rollouts.iter().map(ResourceExt::name_any).collect()
        }
    };
    Ok(named)
}

/// The cluster flags among the words; the rest of the line may be incomplete.
fn flags(words: &[String]) -> Flags {
    use clap::{Args, FromArgMatches};
    let command = Flags::augment_args(Command::new(PROGRAM).no_binary_name(true))
        .ignore_errors(true)
        .arg(clap::Arg::new("rest").num_args(0..));
    command
        .try_get_matches_from(words)
        .and_then(|matches| Flags::from_arg_matches(&matches))
        .unwrap_or_default()
}

fn candidates(command: &Command, words: &[String]) -> Candidates {
    let (last, before) = words
        .split_last()
        .map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let subcommand = before.iter().find_map(|word| {
        command
            .get_subcommands()
            .find(|known| known.get_name() == word)
    });
    let Some(subcommand) = subcommand else {
        let commands = command.get_subcommands();
        return Candidates::Words(commands.map(|known| known.get_name().to_owned()).collect());
    };
    let arguments = || subcommand.get_arguments().chain(command.get_arguments());
    if let Some(values) = before.last().and_then(|flag| values_of(arguments(), flag)) {
        return Candidates::Words(values);
    }
    if last.starts_with('-') {
        let flags = arguments().filter_map(clap::Arg::get_long);
        return Candidates::Words(flags.map(|flag| format!("--{flag}")).collect());
    }
    let positional = subcommand.get_positionals().next();
    match positional.map(|argument| (argument.get_id().as_str(), subcommand.get_name())) {
        Some(("rollout", _)) => Candidates::Rollouts,
        Some(("deployment", _)) => Candidates::Deployments,
        Some((_, "unfreeze")) => Candidates::Freezes,
        _ => Candidates::Words(positional.map(possible).unwrap_or_default()),
    }
}

/// The possible values of this word, if it is a flag that takes a value.
fn values_of<'a>(
    mut arguments: impl Iterator<Item = &'a clap::Arg>,
    word: &str,
) -> Option<Vec<String>> {
    let argument = arguments.find(|argument| {
        let long = argument.get_long().map(|long| format!("--{long}"));
        let short = argument.get_short().map(|short| format!("-{short}"));
        long.as_deref() == Some(word) || short.as_deref() == Some(word)
    })?;
    argument
        .get_action()
        .takes_values()
        .then(|| possible(argument))
}

fn possible(argument: &clap::Arg) -> Vec<String> {
    let values = argument.get_possible_values();
    values
        .iter()
        .map(|value| value.get_name().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn offered(line: &str) -> Candidates {
        let words: Vec<_> = line.split(' ').map(ToOwned::to_owned).collect();
        candidates(&crate::Cli::command(), &words)
    }

    fn words(line: &str) -> Vec<String> {
        match offered(line) {
            Candidates::Words(words) => words,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn commands_flags_values_and_names_are_completed() {
        assert!(words("app").contains(&"approve".to_owned()));
        assert!(words("-n shop st").contains(&"status".to_owned()));
        assert_eq!(words("get -o "), ["table", "wide", "json", "yaml"]);
        let flags = words("approve web --");
        assert!(flags.contains(&"--gate".to_owned()) && flags.contains(&"--context".to_owned()));
        assert_eq!(offered("approve -n shop w"), Candidates::Rollouts);
        assert_eq!(offered("unfreeze "), Candidates::Freezes);
        assert_eq!(offered("migrate w"), Candidates::Deployments);
        assert_eq!(offered("unmigrate w"), Candidates::Rollouts);
        assert_eq!(words("completion "), ["bash", "zsh", "fish", "kubectl"]);
    }

    #[test]
    fn only_the_shim_requests_completions() {
        let words = |line: &str| words_to_complete(line.split(' ').map(OsString::from));
        let line = "kubectl-countersign __complete -n shop get w";
        assert_eq!(words(line).unwrap(), ["-n", "shop", "get", "w"]);
        assert_eq!(words("kubectl-countersign get __complete"), None);
    }

    #[test]
    fn names_come_from_the_cluster_that_the_line_names() {
        let words = [
            "approve",
            "--context",
            "prod",
            "-n",
            "shop",
            "--gate",
            "step-1",
            "w",
        ];
        let words: Vec<_> = words.iter().map(ToString::to_string).collect();
        let flags = format!("{:?}", flags(&words));
        assert!(flags.contains(r#"namespace: Some("shop")"#), "{flags}");
        assert!(flags.contains(r#"context: Some("prod")"#), "{flags}");
    }
}
