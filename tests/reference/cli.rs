//! `docs/reference/cli.md`: the help of every command.

use clap::{Args as _, Command};
use countersign::{notify, operator};

use crate::markdown::cell;

const HEAD: &str = "# Command line

The help of every command, generated. What the commands are for, with their exit codes, is in
[kubectl countersign](../kubectl.md); the operator's options with their values in the chart are in
[Operation](../operation.md#options).
";

pub fn page() -> String {
    let plugin = countersign_kubectl::command();
    let mut page = HEAD.to_owned();
    page += "\n## kubectl countersign\n\nEvery command takes these flags.\n";
    page += &block(plugin.clone().disable_version_flag(true), "{options}");
    for command in plugin.get_subcommands() {
        page += &section("kubectl countersign", command);
    }
    let run = operator::Options::augment_args(Command::new("run")).about("Run the operator.");
    let notify = notify::Options::augment_args(Command::new("notify"));
    let notify = notify.about(
        "Send notifications of what happens to Rollouts to the channels of a configuration file.",
    );
    page +=
        "\n## countersign\n\nThe operator. `countersign check` takes the options of `run`, too.\n";
    page += &section("countersign", &run);
    page += &section("countersign", &notify);
    for command in notify.get_subcommands() {
        page += &section("countersign notify", command);
    }
    page
}

fn section(of: &str, command: &Command) -> String {
    let line = format!("{of} {}", command.get_name());
    let about = command.get_long_about().or(command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    let help = block(
        command.clone().bin_name(line.clone()),
        "{usage-heading} {usage}\n\n{all-args}{after-help}",
    );
    let paragraphs: Vec<_> = about.split("\n\n").map(cell).collect();
    format!("\n### {line}\n\n{}\n{help}", paragraphs.join("\n\n"))
}

/// Help by a template of clap, without what depends on the environment.
fn block(command: Command, template: &'static str) -> String {
    let mut command = command
        .disable_help_flag(true)
        .help_template(template)
        .mut_args(|argument| argument.hide_env_values(true));
    let help = command.render_long_help().to_string();
    let lines: Vec<_> = help.lines().map(str::trim_end).collect();
    // A command without arguments leaves the place of theirs empty.
    let help = lines.join("\n").replace("\n\n\n\n", "\n\n");
    format!("\n```text\n{}\n```\n", help.trim_end())
}

#[test]
fn every_command_has_its_usage_its_options_and_its_examples() {
    let page = page();
    for line in [
        "### kubectl countersign approve",
        "Usage: kubectl countersign approve [OPTIONS] <ROLLOUT>",
        "  kubectl countersign approve web --gate promotion --expires 4h",
        "      --prometheus-url <PROMETHEUS_URL>",
        "The exit code is 1 if a finding is `failed`.",
    ] {
        assert!(page.lines().any(|it| it == line), "no {line} in {page}");
    }
    let impersonation = page.matches("--as-group <GROUP>").count();
    assert_eq!(impersonation, 1, "flags of the cluster are listed once");
    assert!(page.matches("\n### ").count() > 25);
}
