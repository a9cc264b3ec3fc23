//! `get`: lists Rollouts, and watches them.

use std::process::ExitCode;

use countersign_api::policy::Enforcement;
use countersign_api::{Rollout, RolloutStatus};
use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};

use crate::clock;
use crate::cluster::connection::Connection;
use crate::cluster::scope::Scope;
use crate::cluster::type_name;
use crate::commands::status::lasting;
use crate::failure::Failure;
use crate::output::list::{ListOutput, Listed, Printed};
use crate::output::{age, print, remark, try_print};

/// List Rollouts with their phase, step, weight and tier
#[derive(Clone, Debug, clap::Args)]
pub struct Get {
    /// Name of the Rollout; all Rollouts if omitted
    #[arg(value_parser = type_name::rollout)]
    rollout: Option<String>,
    #[command(flatten)]
    scope: Scope,
    /// After listing the requested object(s), watch for changes
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    output: ListOutput,
}

impl Get {
    /// Lists the Rollouts.
    pub async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let mut printed = Printed::default();
        let api: Api<Rollout> = self.scope.api(connection);
        let parameters = if let Some(name) = &self.rollout {
            let rollout = connection.rollout(name).await?;
            printed.is_new(&rollout);
            print(&self.one(&rollout, &mut printed)?);
            watcher::Config::default().fields(&format!("metadata.name={name}"))
        } else {
            let rollouts = connection.ask(api.list(&self.scope.list())).await?.items;
            self.print_all(&rollouts, connection, &mut printed)?;
            self.scope.watch()
        };
        if self.watch {
            self.follow(connection, api, parameters, printed).await?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn context(&self) -> Context {
        Context {
            namespaces: self.scope.all_namespaces,
            now: clock::now(),
        }
    }

    fn one(&self, rollout: &Rollout, printed: &mut Printed) -> Result<String, Failure> {
        Ok(self.output.one(rollout, &self.context(), printed)?)
    }

    fn print_all(
        &self,
        rollouts: &[Rollout],
        connection: &Connection,
        printed: &mut Printed,
    ) -> Result<(), Failure> {
        if rollouts.is_empty() && self.output.is_table() {
            let place = self.scope.place(connection);
            remark(&format!("There is no Rollout {place}."));
            return Ok(());
        }
        for rollout in rollouts {
            printed.is_new(rollout);
        }
        print(&self.output.list(rollouts, &self.context(), printed)?);
        Ok(())
    }

    /// Prints each Rollout that changes, until the reader closes the output.
    async fn follow(
        &self,
        connection: &Connection,
        api: Api<Rollout>,
        parameters: watcher::Config,
        mut printed: Printed,
    ) -> Result<(), Failure> {
        let stream = watcher(api, parameters).default_backoff();
        let mut stream = std::pin::pin!(stream);
        while let Some(event) = stream.next().await {
            let rollout = match event {
                Ok(Event::InitApply(rollout) | Event::Apply(rollout) | Event::Delete(rollout)) => {
                    rollout
                }
                Ok(Event::Init | Event::InitDone) => continue,
                Err(error) => {
                    lasting(connection, &error)?;
                    continue;
                }
            };
            let is_new = printed.is_new(&rollout);
            if is_new && try_print(&self.one(&rollout, &mut printed)?).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// What the cells of a Rollout are taken from, besides the object.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Whether the namespace is shown.
    pub namespaces: bool,
    /// The present time.
    pub now: Timestamp,
}

impl Listed for Rollout {
    type Context = Context;

    fn heading(context: &Context, wide: bool) -> Vec<&'static str> {
        let mut heading = vec![
            "NAME",
            "PHASE",
            "STEP",
            "WEIGHT",
            "TIER",
            "WAITING-FOR",
            "AGE",
        ];
        if context.namespaces {
            heading.insert(0, "NAMESPACE");
        }
        if wide {
            heading.extend(["SCORE", "CONTRIBUTOR", "MESSAGE"]);
        }
        heading
    }

    fn row(&self, context: &Context, wide: bool) -> Vec<String> {
        row(self, context.namespaces, wide, context.now)
    }
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

    fn listed(rollouts: &[Rollout], namespaces: bool, arguments: &[&str]) -> String {
        let now = now();
        let context = Context { namespaces, now };
        let output = ListOutput::parsed(arguments);
        output
            .list(rollouts, &context, &mut Printed::default())
            .unwrap()
    }

    #[test]
    fn the_table_has_a_line_for_each_rollout() {
        let rollouts = [waiting().rollout, at_rest()];
        assert_eq!(
            listed(&rollouts, false, &[]),
            "\
NAME   PHASE             STEP   WEIGHT   TIER   WAITING-FOR       AGE
web    AwaitingSignOff   1/2    20%      high   AwaitingSignOff   28d
web    Stable            1/2    20%      high                     28d
"
        );
    }

    #[test]
    fn the_wide_table_adds_namespace_score_contributor_and_message() {
        let text = listed(&[waiting().rollout], true, &["-o", "wide"]);
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
        let text = listed(&[rollout], false, &["-o", "wide"]);
        let cells: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells, ["web", "Progressing", "28d"], "{text}");
    }
}
