//! `unmigrate`: returns an adopted Deployment's pods.

use std::process::ExitCode;

use countersign_api::rollout::Outcome;
use countersign_api::{KEEP_FINALIZER, Rollout};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::{WatchStreamExt, watcher};

use crate::cluster::confirm::confirm;
use crate::cluster::connection::Connection;
use crate::cluster::refusal::Refusal;
use crate::cluster::type_name;
use crate::cluster::write::DryRun;
use crate::commands::migrate::common::{Common, Error, Progress, numbered, pending};
use crate::commands::status::lasting;
use crate::failure::Failure;
use crate::output::print;
use crate::output::report::number;
use countersign_core::text::sanitize;

/// Return the pods of an adopted Deployment and delete the Rollout, without downtime
///
/// Prints the plan, asks for confirmation, deletes the Rollout and waits until the Deployment serves. The
/// exit code is 3 if this takes longer than --timeout; the operator continues.
#[derive(Clone, Debug, clap::Args)]
pub struct Unmigrate {
    /// Name of the Rollout
    #[arg(value_parser = type_name::rollout)]
    rollout: String,
    #[command(flatten)]
    dry_run: DryRun,
    #[command(flatten)]
    common: Common,
}

impl Unmigrate {
    /// Returns the pods of the Deployment.
    pub async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let rollout = connection.rollout(&self.rollout).await?;
        let deployment = returns(&rollout)?;
        let deployments = connection.here::<Deployment>();
        // The Deployment must exist.
        connection.ask(deployments.get(&deployment)).await?;
        if !self.dry_run.has_output() {
            print(&way_back(&rollout, &deployment));
        }
        if self.dry_run.is_on() {
            if self.dry_run.is_server() {
                self.delete(connection, &rollout).await?;
            }
            if self.dry_run.has_output() {
                self.dry_run.shows(&rollout)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        if !self.common.yes {
            confirm(&format!("Restore deployment {}?", sanitize(&deployment)))?;
        }
        if rollout.metadata.deletion_timestamp.is_none() {
            self.delete(connection, &rollout).await?;
            print(&format!(
                "rollout {} is being deleted\n",
                sanitize(&self.rollout)
            ));
        }
        let back = async {
            until_gone(connection, &self.rollout).await?;
            until_available(connection, &deployment).await
        };
        let Ok(back) = tokio::time::timeout(self.common.timeout.std(), back).await else {
            return Ok(pending(&self.rollout, self.common.timeout));
        };
        back?;
        print(&format!(
            "deployment {} serves; rollout {} deleted\n",
            sanitize(&deployment),
            sanitize(&self.rollout)
        ));
        Ok(ExitCode::SUCCESS)
    }

    /// Background deletion; foreground deletion would delete the pods first.
    async fn delete(&self, connection: &Connection, rollout: &Rollout) -> Result<(), Refusal> {
        let mut parameters = DeleteParams::background().preconditions(Preconditions {
            uid: rollout.uid(),
            resource_version: None,
        });
        parameters.dry_run = self.dry_run.is_server();
        let rollouts = connection.here::<Rollout>();
        connection
            .ask(rollouts.delete(&self.rollout, &parameters))
            .await?;
        Ok(())
    }
}

/// The Deployment whose pods are returned, or why they cannot be.
pub(super) fn returns(rollout: &Rollout) -> Result<String, Error> {
    let name = rollout.name_any();
    let Some(adopted) = &rollout.spec.workload_ref else {
        return Err(Error::AdoptsNothing(name));
    };
    if !rollout.spec.keeps_pods() {
        return Err(Error::WouldDelete(name));
    }
    if !rollout.finalizers().iter().any(|it| it == KEEP_FINALIZER) {
        return Err(Error::NotKept(name));
    }
    let status = rollout.status.clone().unwrap_or_default();
    let change = status.change.filter(|_| status.stable.is_some());
    let serves = change.is_none_or(|it| it.outcome == Some(Outcome::Promoted));
    if serves || rollout.metadata.deletion_timestamp.is_some() {
        return Ok(adopted.name.clone());
    }
    Err(Error::OtherTemplate {
        rollout: name,
        deployment: adopted.name.clone(),
        state: format!("it is {:?}, {}", status.phase, status.message),
    })
}

pub(super) fn way_back(rollout: &Rollout, deployment: &str) -> String {
    let (name, deployment) = (sanitize(&rollout.name_any()), sanitize(deployment));
    let replicas = rollout.spec.replicas;
    let canary = &rollout.spec.strategy.canary;
    let services = canary.stable_service.iter().chain(&canary.canary_service);
    let services: Vec<_> = services.map(|it| sanitize(it)).collect();
    let mut steps = vec![format!(
        "Rollout {name} is deleted; its pods continue to serve. A change in progress by then is rolled back."
    )];
    steps.push(format!(
        "The operator scales Deployment {deployment} to {replicas} and waits until all of its pods are available."
    ));
    if !services.is_empty() {
        steps.push(format!(
            "The label pod-template-hash is taken out of the selectors of {}, so that they reach the Deployment's pods.",
            services.join(" and ")
        ));
    }
    steps.push(format!(
        "After {} the pods of the Rollout go, with its records. From then on, Deployment {deployment} rolls out its own changes.",
        canary.drain
    ));
    let mut text = format!("Deployment {deployment} gets its pods back:\n\n");
    text += &numbered(&steps);
    text + "\n"
}

pub(super) async fn until_gone(connection: &Connection, name: &str) -> Result<(), Failure> {
    let stream = watcher::watch_object(connection.here::<Rollout>(), name).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut progress = Progress::default();
    loop {
        match stream.try_next().await {
            Ok(Some(Some(rollout))) => {
                let deleted = rollout.metadata.deletion_timestamp.is_some();
                let message = rollout.status.as_ref().map(|it| it.message.as_str());
                progress.report(message.filter(|_| deleted).unwrap_or_default());
            }
            Ok(_) => return Ok(()),
            Err(error) => lasting(connection, &error)?,
        }
    }
}

pub(super) async fn until_available(connection: &Connection, name: &str) -> Result<(), Failure> {
    let stream = watcher::watch_object(connection.here::<Deployment>(), name).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut progress = Progress::default();
    while let Some(event) = stream.next().await {
        match event {
            Ok(Some(deployment)) => {
                let spec = deployment.spec;
                let status = deployment.status.unwrap_or_default();
                let (requested, available) = (
                    spec.replicas.unwrap_or(1),
                    status.available_replicas.unwrap_or(0),
                );
                if available >= requested {
                    return Ok(());
                }
                progress.report(&format!(
                    "{available} of {} are available",
                    number(requested, "pod")
                ));
            }
            Ok(None) => {}
            Err(error) => lasting(connection, &error)?,
        }
    }
    Ok(())
}
