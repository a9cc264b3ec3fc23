//! `migrate` and `unmigrate`: a Rollout adopts a Deployment, or returns its pods.
//!
//! Both only create or delete the Rollout as the user; the operator moves the pods. The plan is printed
//! before.

mod common;
mod plan;
pub mod unmigrate;

use std::process::ExitCode;

use countersign_api::Rollout;
use countersign_core::workload::adoption::step;
use futures::TryStreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use kube::api::{ListParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};

use crate::cluster::answer::{PENDING, condition};
use crate::cluster::change::is_seen;
use crate::cluster::changer::stamped;
use crate::cluster::confirm::confirm;
use crate::cluster::connection::{Connection, FIELD_MANAGER};
use crate::commands::migrate::common::{Common, Error, Progress, pending};
use crate::commands::migrate::plan::{Plan, warnings};
use crate::commands::status::lasting;
use crate::failure::Failure;
use crate::output::{Format, document, print, remark};
use countersign_core::text::sanitize;

/// Migrate a Deployment to a Rollout of the same name, without downtime
///
/// Prints the plan, asks for confirmation, creates the Rollout and waits until the Rollout serves. The
/// Deployment remains, scaled to 0, and edits are still made to its template. The exit code is 3 if this
/// takes longer than --timeout; the operator continues.
#[derive(Clone, Debug, clap::Args)]
pub struct Migrate {
    /// Name of the Deployment
    deployment: String,
    /// If true, only print the plan, without changing anything
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    #[command(flatten)]
    common: Common,
}

impl Migrate {
    /// Migrates the Deployment.
    pub async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let deployments = connection.here::<Deployment>();
        let deployment = connection.ask(deployments.get(&self.deployment)).await?;
        self.refuse_taken(connection).await?;
        let plan = Plan::of(&deployment)?;
        let warnings = warnings(connection, &deployment).await;
        let text = document(&plan.manifest, Format::Yaml)?;
        print(&plan.render(&text, &warnings));
        if self.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        if !self.common.yes {
            confirm(&format!("Migrate deployment {}?", sanitize(&plan.name)))?;
        }
        let manifest = stamped(connection, plan.manifest, None).await?;
        let rollout: Rollout = serde_json::from_value(manifest)?;
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        let rollouts = connection.here::<Rollout>();
        connection
            .ask(rollouts.create(&parameters, &rollout))
            .await?;
        print(&format!("rollout {} created\n", sanitize(&plan.name)));
        if rollout.spec.paused {
            remark(
                "the rollout is paused, like the Deployment, and takes over once spec.paused is false",
            );
            return Ok(PENDING.into());
        }
        let taken = until_taken_over(connection, &plan.name);
        let Ok(taken) = tokio::time::timeout(self.common.timeout.std(), taken).await else {
            return Ok(pending(&plan.name, self.common.timeout));
        };
        taken?;
        print(&format!(
            "rollout {0} serves; deployment {0} has given up its pods\n",
            sanitize(&plan.name)
        ));
        Ok(ExitCode::SUCCESS)
    }

    async fn refuse_taken(&self, connection: &Connection) -> Result<(), Failure> {
        let rollouts = connection.here::<Rollout>();
        let all = connection
            .ask(rollouts.list(&ListParams::default()))
            .await?;
        for rollout in all {
            let adopted = rollout.spec.workload_ref.as_ref();
            let name = rollout.name_any();
            if adopted.is_some_and(|it| it.name == self.deployment) {
                let deployment = self.deployment.clone();
                return Err(Error::Adopted { name, deployment }.into());
            }
            if name == self.deployment {
                return Err(Error::Taken(name).into());
            }
        }
        Ok(())
    }
}

/// The messages of a Rollout and of its `Adopted` condition.
fn message(rollout: &Rollout) -> String {
    let Some(status) = rollout.status.as_ref().filter(|_| is_seen(rollout)) else {
        return String::new();
    };
    match condition(&status.conditions, step::ADOPTED) {
        Some(adopted) if status.waiting_for.is_none() => adopted.message.clone(),
        _ => status.message.clone(),
    }
}

async fn until_taken_over(connection: &Connection, name: &str) -> Result<(), Failure> {
    let stream = watcher::watch_object(connection.here::<Rollout>(), name).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut progress = Progress::default();
    loop {
        let rollout = match stream.try_next().await {
            Ok(Some(Some(rollout))) => rollout,
            Ok(_) => return Err(Error::Gone(name.to_owned()).into()),
            Err(error) => {
                lasting(connection, &error)?;
                continue;
            }
        };
        progress.report(&message(&rollout));
        if has_taken_over(&rollout) {
            return Ok(());
        }
    }
}

fn has_taken_over(rollout: &Rollout) -> bool {
    let status = rollout.status.as_ref().filter(|_| is_seen(rollout));
    let adopted = status.and_then(|status| condition(&status.conditions, step::ADOPTED));
    adopted.is_some_and(|adopted| adopted.status == "True")
}

#[cfg(test)]
mod tests;
