//! `get`: lists Rollouts.

use std::process::ExitCode;

use countersign_api::policy::Enforcement;
use countersign_api::{Rollout, RolloutStatus};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;

use crate::clock;
use crate::cluster::connection::Connection;
use crate::failure::Failure;
use crate::output::{Format, Output, age, print, print_document, remark, table};

/// List Rollouts with their phase, step, weight and tier
#[derive(Clone, Debug, clap::Args)]
pub struct Get {
    /// Name of the Rollout; all Rollouts if omitted
    rollout: Option<String>,
    /// If present, list the requested object(s) across all namespaces
    #[arg(short = 'A', long, conflicts_with = "rollout")]
    all_namespaces: bool,
    /// Selector (label query) to filter on, supports '=', '==', and '!=' (e.g. -l
    /// key1=value1,key2=value2)
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "rollout")]
    selector: Option<String>,
    #[command(flatten)]
    output: Output,
}

impl Get {
    /// Lists the Rollouts.
    pub async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        if let Some(name) = &self.rollout {
            let rollout = connection.rollout(name).await?;
            return self.show_one(rollout);
        }
        let rollouts = if self.all_namespaces {
            connection.everywhere()
        } else {
            connection.here()
        };
        let mut parameters = ListParams::default();
        parameters.label_selector.clone_from(&self.selector);
        let rollouts = connection.ask(rollouts.list(&parameters)).await?.items;
        match self.output.format {
            Format::Json | Format::Yaml => {
                let list = json!({ "apiVersion": "v1", "kind": "List", "items": rollouts });
                print_document(&list, self.output.format)?;
            }
            Format::Table | Format::Wide if rollouts.is_empty() => {
                remark(&self.nothing(connection));
            }
            Format::Table | Format::Wide => self.show(&rollouts),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn show_one(&self, rollout: Rollout) -> Result<ExitCode, Failure> {
        match self.output.format {
            Format::Json | Format::Yaml => print_document(&rollout, self.output.format)?,
            Format::Table | Format::Wide => self.show(&[rollout]),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn show(&self, rollouts: &[Rollout]) {
        let wide = self.output.format == Format::Wide;
        print(&listed(rollouts, self.all_namespaces, wide, clock::now()));
    }

    fn nothing(&self, connection: &Connection) -> String {
        if self.all_namespaces {
            "There is no Rollout in any namespace.".into()
        } else {
            format!(
                "There is no Rollout in namespace {}.",
                connection.namespace()
            )
        }
    }
}

/// The table in kubectl's format.
fn listed(rollouts: &[Rollout], namespaces: bool, wide: bool, now: Timestamp) -> String {
    let mut heading = vec![
        "NAME",
        "PHASE",
        "STEP",
        "WEIGHT",
        "TIER",
        "WAITING-FOR",
        "AGE",
    ];
    if namespaces {
        heading.insert(0, "NAMESPACE");
    }
    if wide {
        heading.extend(["SCORE", "CONTRIBUTOR", "MESSAGE"]);
    }
    let rows: Vec<_> = rollouts
        .iter()
        .map(|rollout| row(rollout, namespaces, wide, now))
        .collect();
    table(&heading, &rows)
}

fn row(rollout: &Rollout, namespace: bool, wide: bool, now: Timestamp) -> Vec<String> {
    let status = rollout.status.clone().unwrap_or_default();
    let created = rollout.creation_timestamp();
    let mut cells = vec![
        rollout.name_any(),
        format!("{:?}", status.phase),
        status.step.clone().unwrap_or_default(),
        status
            .weight
            .map_or_else(String::new, |weight| format!("{weight}%")),
        tier(&status),
        status.waiting_for.clone().unwrap_or_default(),
        created.map_or_else(String::new, |created| age(created.0, now)),
    ];
    if namespace {
        cells.insert(0, rollout.namespace().unwrap_or_default());
    }
    if wide {
        let change = status.change.unwrap_or_default();
        let under_way = !change.run.is_empty();
        let score = under_way.then(|| format!("{:.1}", change.score));
        cells.extend([
            score.unwrap_or_default(),
            change.contributor,
            status.message,
        ]);
    }
    cells
}

/// The tier, and whether policies only observe the change.
fn tier(status: &RolloutStatus) -> String {
    let change = status.change.as_ref();
    let only_observed = change.is_some_and(|it| it.enforcement == Enforcement::Observe);
    let mode = if only_observed { " (observed)" } else { "" };
    let tier = status.tier.map(|tier| format!("{tier}{mode}"));
    tier.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::{at_rest, now, waiting};

    #[test]
    fn the_table_has_a_line_for_each_rollout() {
        let rollouts = [waiting().rollout, at_rest()];
        assert_eq!(
            listed(&rollouts, false, false, now()),
            "\
NAME   PHASE             STEP   WEIGHT   TIER   WAITING-FOR       AGE
web    AwaitingSignOff   1/2    20%      high   AwaitingSignOff   28d
web    Stable            1/2    20%      high                     28d
"
        );
    }

    #[test]
    fn the_wide_table_adds_namespace_score_contributor_and_message() {
        let text = listed(&[waiting().rollout], true, true, now());
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("NAMESPACE   NAME"), "{text}");
        assert!(
            lines[0].ends_with("SCORE   CONTRIBUTOR   MESSAGE"),
            "{text}"
        );
        assert!(
            lines[1].ends_with(
                "12.5    ai            sign-off by 2 people of approvers and by 1 person of senior"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_rollout_without_status_has_empty_cells() {
        let mut rollout = waiting().rollout;
        rollout.status = None;
        let text = listed(&[rollout], false, true, now());
        let cells: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells, ["web", "Progressing", "28d"], "{text}");
    }
}
