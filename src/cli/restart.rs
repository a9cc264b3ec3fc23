//! `restart`: new pods of the same template, which is a change like any other.

use std::process::ExitCode;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::Failure;
use super::connection::{Connection, FIELD_MANAGER};
use super::output::{print, shown};
use super::refusal::Refusal;
use crate::api::Rollout;
use crate::observe::clock;

/// The annotation that kubectl sets on Deployments for the same end.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// Replace all pods by new ones of the same template: a change like any other, staged by its risk
#[derive(Clone, Debug, clap::Args)]
pub struct Restart {
    /// Name of the Rollout
    rollout: String,
}

/// Why nothing is restarted.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(
        "rollout {0} has a change under way, whose place a restart would take: wait for its end, or abort it"
    )]
    UnderWay(String),
    #[error(
        "rollout {rollout} runs the template of Deployment {deployment}: restart that, by `kubectl rollout restart deployment/{deployment}`, which is a change like any other"
    )]
    Adopts { rollout: String, deployment: String },
}

impl Restart {
    /// Restarts the pods.
    pub async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        connection
            .edit(async || self.attempt(connection).await)
            .await?;
        print(&format!("rollout {} restarts\n", shown(&self.rollout)));
        Ok(ExitCode::SUCCESS)
    }

    /// Restarts what is there now; or says that it was written meanwhile.
    async fn attempt(&self, connection: &Connection) -> Result<Option<Refusal>, Failure> {
        let rollout = connection.rollout(&self.rollout).await?;
        let change = rollout
            .status
            .as_ref()
            .and_then(|status| status.change.as_ref());
        if change.is_some_and(|change| change.outcome.is_none()) {
            return Err(Error::UnderWay(shown(&self.rollout)).into());
        }
        if let Some(adopted) = &rollout.spec.workload_ref {
            let adopts = Error::Adopts {
                rollout: shown(&self.rollout),
                deployment: shown(&adopted.name),
            };
            return Err(adopts.into());
        }
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(patch(&rollout, clock::now()));
        let rollouts = connection.here::<Rollout>();
        let request = rollouts.patch(&self.rollout, &parameters, &patch);
        match connection.ask(request).await {
            Ok(_) => Ok(None),
            Err(conflict @ Refusal::Conflict) => Ok(Some(conflict)),
            Err(other) => Err(other.into()),
        }
    }
}

fn patch(rollout: &Rollout, now: Timestamp) -> Value {
    json!({
        "metadata": { "resourceVersion": rollout.resource_version() },
        "spec": { "template": { "metadata": { "annotations": { RESTARTED_AT: format!("{now:.0}") } } } },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::view::tests::{at_rest, now};

    #[test]
    fn a_restart_changes_one_annotation_of_the_pods() {
        assert_eq!(
            patch(&at_rest(), now()),
            json!({
                "metadata": { "resourceVersion": "4711" },
                "spec": { "template": { "metadata": { "annotations": {
                    "kubectl.kubernetes.io/restartedAt": "2026-03-01T12:10:00Z",
                } } } },
            })
        );
    }
}
