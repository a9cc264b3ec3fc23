//! `completion`: shell completion of commands, flags and object names.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Command;
use clap_complete::aot::{Shell, generate};
use countersign_api::{Freeze, ROLLOUT_UID_LABEL, Rollout, RolloutRun};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::config::Kubeconfig;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::cluster::connection::{Connection, Flags};
use crate::cluster::refusal::Refusal;
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
    /// `PowerShell`.
    #[value(name = "powershell")]
    PowerShell,
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
            Consumer::PowerShell => Shell::PowerShell,
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

/// Prints the candidates, one per line; nothing if the cluster does not respond.
pub async fn complete(command: &Command, words: &[String]) -> Result<ExitCode, Failure> {
    let last = words.last().map_or("", String::as_str);
    let offered = match candidates(command, words) {
        Candidates::Words(offered) => offered,
        kind => with_type(names(&kind, words).await.unwrap_or_default(), last),
    };
    let fitting = offered.iter().filter(|word| word.starts_with(last));
    let lines: Vec<_> = fitting.map(String::as_str).chain([NO_FILES]).collect();
    print(&(lines.join("\n") + "\n"));
    Ok(ExitCode::SUCCESS)
}

/// Names after the type that the word begins with, if it has one.
fn with_type(names: Vec<String>, word: &str) -> Vec<String> {
    match word.rsplit_once('/') {
        Some((kind, _)) => names.iter().map(|name| format!("{kind}/{name}")).collect(),
        None => names,
    }
}

/// Candidates for the last word of a line.
#[derive(Debug, PartialEq, Eq)]
enum Candidates {
    Words(Vec<String>),
    Rollouts,
    Freezes,
    Deployments,
    Namespaces,
    Contexts,
    Clusters,
    Users,
    /// The gates of this Rollout's change.
    Gates(String),
    /// The RolloutRuns of this Rollout.
    Runs(String),
    /// The revisions of this Rollout.
    Revisions(String),
}

async fn names(kind: &Candidates, words: &[String]) -> Result<Vec<String>, Failure> {
    let flags = flags(words);
    if let Some(names) = flags.kubeconfig().ok().and_then(|it| named(kind, &it)) {
        return Ok(names);
    }
    let connection = &Connection::open(&flags).await?;
    Ok(match kind {
        Candidates::Freezes => listed(connection, connection.cluster::<Freeze>()).await?,
        Candidates::Deployments => listed(connection, connection.here::<Deployment>()).await?,
        Candidates::Namespaces => listed(connection, connection.cluster::<Namespace>()).await?,
        Candidates::Gates(rollout) => gates(&connection.rollout(rollout).await?),
        Candidates::Runs(rollout) => {
            let runs = runs(connection, rollout).await?;
            runs.iter().map(ResourceExt::name_any).collect()
        }
        Candidates::Revisions(rollout) => {
            let runs = runs(connection, rollout).await?;
            runs.iter().map(|it| it.spec.revision.to_string()).collect()
        }
        _ => listed(connection, connection.here::<Rollout>()).await?,
    })
}

/// The names in the kubeconfig, if the candidates come from there.
fn named(kind: &Candidates, kubeconfig: &Kubeconfig) -> Option<Vec<String>> {
    Some(match kind {
        Candidates::Contexts => names_of(&kubeconfig.contexts, |it| &it.name),
        Candidates::Clusters => names_of(&kubeconfig.clusters, |it| &it.name),
        Candidates::Users => names_of(&kubeconfig.auth_infos, |it| &it.name),
        _ => return None,
    })
}

fn names_of<T>(entries: &[T], name: fn(&T) -> &String) -> Vec<String> {
    entries.iter().map(|entry| name(entry).clone()).collect()
}

/// The names of all objects.
async fn listed<K>(connection: &Connection, objects: Api<K>) -> Result<Vec<String>, Refusal>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    let list = connection.ask(objects.list(&ListParams::default())).await?;
    Ok(list.iter().map(ResourceExt::name_any).collect())
}

async fn runs(connection: &Connection, rollout: &str) -> Result<Vec<RolloutRun>, Refusal> {
    let uid = connection.rollout(rollout).await?.uid().unwrap_or_default();
    let parameters = ListParams::default().labels(&format!("{ROLLOUT_UID_LABEL}={uid}"));
    let runs = connection.here::<RolloutRun>();
    Ok(connection.ask(runs.list(&parameters)).await?.items)
}

/// The gates that a sign-off of the present change may name.
fn gates(rollout: &Rollout) -> Vec<String> {
    let change = rollout.status.as_ref().and_then(|it| it.change.as_ref());
    let Some(change) = change else {
        return Vec::new();
    };
    let steps = || (1..).zip(&change.plan.steps);
    let asking = steps().filter(|(_, step)| !step.sign_off.is_empty());
    let asking = asking.map(|(number, _)| format!("step-{number}"));
    let scarce = steps().map(|(number, _)| format!("evidence-{number}"));
    let promotion = ["promotion".to_owned()];
    asking.chain(promotion).chain(scarce).collect()
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
    let of_subcommand = subcommand.into_iter().flat_map(Command::get_arguments);
    let mut arguments = of_subcommand.chain(command.get_arguments());
    if let Some((flag, earlier)) = before.split_last()
        && let Some(argument) = arguments.find(|argument| takes_value(argument, flag))
    {
        return values(argument, || rollout(command, earlier));
    }
    let Some(subcommand) = subcommand else {
        let commands = command.get_subcommands();
        return Candidates::Words(commands.map(|known| known.get_name().to_owned()).collect());
    };
    if last.starts_with('-') {
        let arguments = subcommand.get_arguments().chain(command.get_arguments());
        let flags = arguments.filter_map(clap::Arg::get_long);
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

/// Whether this word is the flag of an argument that takes a value.
fn takes_value(argument: &clap::Arg, word: &str) -> bool {
    let long = argument.get_long().map(|long| format!("--{long}"));
    let short = argument.get_short().map(|short| format!("-{short}"));
    let is_flag = long.as_deref() == Some(word) || short.as_deref() == Some(word);
    is_flag && argument.get_action().takes_values() && !argument.is_require_equals_set()
}

/// Candidates for the value of a flag, some of them of the Rollout that the line names.
fn values(argument: &clap::Arg, rollout: impl FnOnce() -> Option<String>) -> Candidates {
    let none = || Candidates::Words(Vec::new());
    match argument.get_id().as_str() {
        "namespace" | "operator_namespace" => Candidates::Namespaces,
        "context" => Candidates::Contexts,
        "cluster" => Candidates::Clusters,
        "user" => Candidates::Users,
        "gate" => rollout().map_or_else(none, Candidates::Gates),
        "run" => rollout().map_or_else(none, Candidates::Runs),
        "to_revision" => rollout().map_or_else(none, Candidates::Revisions),
        _ => Candidates::Words(possible(argument)),
    }
}

/// The Rollout that an incomplete line names.
fn rollout(command: &Command, words: &[String]) -> Option<String> {
    let command = command.clone().no_binary_name(true).ignore_errors(true);
    let matches = command.try_get_matches_from(words).ok()?;
    let (_, matches) = matches.subcommand()?;
    let rollout = matches.try_get_one::<String>("rollout").ok()?;
    rollout.cloned()
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
        assert_eq!(words("status -o "), ["table", "wide", "json", "yaml"]);
        assert!(words("get -o ").contains(&"jsonpath=".to_owned()));
        let flags = words("approve web --");
        assert!(flags.contains(&"--gate".to_owned()) && flags.contains(&"--context".to_owned()));
        assert_eq!(offered("approve -n shop w"), Candidates::Rollouts);
        assert_eq!(offered("unfreeze "), Candidates::Freezes);
        assert_eq!(offered("migrate w"), Candidates::Deployments);
        assert_eq!(words("get --color "), ["auto", "always", "never"]);
        assert_eq!(offered("unmigrate w"), Candidates::Rollouts);
        assert_eq!(
            words("completion "),
            ["bash", "zsh", "fish", "powershell", "kubectl"]
        );
    }

    #[test]
    fn names_follow_the_type_that_was_written() {
        let names = || vec!["web".to_owned()];
        assert_eq!(with_type(names(), "cro/w"), ["cro/web"]);
        assert_eq!(with_type(names(), "w"), ["web"]);
    }

    #[test]
    fn values_of_flags_are_completed() {
        for (line, expected) in [
            ("get -n ", Candidates::Namespaces),
            ("-n ", Candidates::Namespaces),
            ("get --context p", Candidates::Contexts),
            ("get --cluster ", Candidates::Clusters),
            ("get --user ", Candidates::Users),
            ("approve web --gate ", Candidates::Gates("web".into())),
            (
                "-n shop approve --yes cro/web --gate s",
                Candidates::Gates("web".into()),
            ),
            ("approve web --run ", Candidates::Runs("web".into())),
            (
                "undo web --to-revision ",
                Candidates::Revisions("web".into()),
            ),
            ("approve --gate ", Candidates::Words(Vec::new())),
            ("migrate --dry-run w", Candidates::Deployments),
        ] {
            assert_eq!(offered(line), expected, "{line}");
        }
    }

    #[test]
    fn the_gates_of_a_change_are_those_that_ask_and_those_of_scarce_evidence() {
        let rollout = crate::view::tests::waiting().rollout;
        assert_eq!(
            gates(&rollout),
            ["step-2", "promotion", "evidence-1", "evidence-2"]
        );
        assert!(gates(&crate::view::tests::at_rest()).is_empty());
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
