//! `restart`: new pods of the same template, staged like any other change.

use std::process::ExitCode;

use countersign_api::Rollout;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::clock;
use crate::cluster::change::rejected;
use crate::cluster::changer::edit;
use crate::cluster::connection::Connection;
use crate::cluster::type_name;
use crate::cluster::write::DryRun;
use crate::failure::Failure;
use crate::output::print;
use countersign_core::text::sanitize;

/// The annotation that `kubectl rollout restart` sets.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// Restart all pods as a change of its own, staged by its risk
#[derive(Clone, Debug, clap::Args)]
pub struct Restart {
    /// Name of the Rollout
    #[arg(value_parser = type_name::rollout)]
    rollout: String,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Why the Rollout is not restarted.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(
        "rollout {0} has a change in progress, which a restart would supersede: wait for its end, or abort it"
    )]
    UnderWay(String),
    #[error(
        "rollout {rollout} runs the template of Deployment {deployment}: restart that, by `kubectl rollout restart deployment/{deployment}`, which is a change like any other"
    )]
    Adopts { rollout: String, deployment: String },
    #[error(
        "rollout {rollout} has the template of revision {revision}, which was rolled back, and a restart would stage that again: go back to the stable revision by `kubectl countersign undo {rollout}` and restart then, or try revision {revision} once more by `kubectl countersign retry {rollout}`"
    )]
    Rejected { rollout: String, revision: i64 },
}

/// Why the Rollout must not be restarted in its current state.
fn refusal(rollout: &Rollout) -> Option<Error> {
    let name = sanitize(&rollout.name_any());
    let change = rollout.status.as_ref().and_then(|it| it.change.as_ref());
    if change.is_some_and(|change| change.outcome.is_none()) {
        return Some(Error::UnderWay(name));
    }
    if let Some(adopted) = &rollout.spec.workload_ref {
        return Some(Error::Adopts {
            rollout: name,
            deployment: sanitize(&adopted.name),
        });
    }
    rejected(rollout).map(|change| Error::Rejected {
        rollout: name,
        revision: change.revision,
    })
}

impl Restart {
    /// Restarts the pods.
    pub async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let patched = async |rollout: &Rollout| match refusal(rollout) {
            Some(refusal) => Err(Failure::from(refusal)),
            None => Ok((patch(rollout, clock::now()), ())),
        };
        let (restarted, ()) = edit(connection, &self.rollout, self.dry_run, patched).await?;
        if !self.dry_run.shows(&restarted)? {
            print(&format!("rollout {} restarts\n", sanitize(&self.rollout)));
        }
        Ok(ExitCode::SUCCESS)
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
    use countersign_api::rollout::Outcome;
    use countersign_core::provenance::digest::template_digest;

    use super::*;
    use crate::view::tests::{at_rest, now, waiting};

    #[test]
    fn what_was_rolled_back_is_not_restarted() {
        let mut rollout = waiting().rollout;
        let digest = template_digest(&rollout.spec.template);
        let under_way = refusal(&rollout).unwrap();
        assert!(matches!(under_way, Error::UnderWay(_)), "{under_way}");
        let change = rollout.status.as_mut().unwrap().change.as_mut().unwrap();
        (change.outcome, change.template_digest) = (Some(Outcome::RolledBack), digest);
        let message = refusal(&rollout).unwrap().to_string();
        for part in ["revision 7, which was rolled back", "undo web", "retry web"] {
            assert!(message.contains(part), "{part} is not in: {message}");
        }
        // Another template since then, such as the stable one after `undo`.
        rollout.spec.template.0["metadata"]["annotations"] = json!({ "a": "b" });
        assert!(refusal(&rollout).is_none());
        assert!(refusal(&at_rest()).is_none());
    }

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
