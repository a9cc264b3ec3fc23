//! Writes to the Jobs of smoke checks.

use countersign_api::Rollout;
use countersign_core::Observation;
use countersign_core::decision::JobAction;
use k8s_openapi::api::batch::v1::Job;
use kube::api::DynamicObject;

use super::{Actor, as_manager, as_observed};
use crate::act::error::{Error, Target};
use crate::api_resource::untyped;
use crate::owned;

impl Actor {
    pub(super) async fn act_on_job(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        action: &JobAction,
    ) -> Result<(), Error> {
        let jobs = untyped::<Job>(&self.client, &observation.namespace);
        match action {
            JobAction::CreateJob(new) => {
                // If a Job of this name exists, it is either this Job, which the next reconcile observes,
                // or foreign, which the error reports.
                let write = async {
                    let body = serde_json::from_value(owned::job(rollout, new));
                    let body: DynamicObject = body.map_err(kube::Error::SerdeError)?;
                    jobs.create(&as_manager(), &body).await
                };
                let made = self.write(Target::Job, rollout, "create", write).await?;
                self.written.jobs.reaches(&observation.uid, &made.metadata);
            }
            JobAction::DeleteJob { job, uid } => {
                let as_observed = as_observed(Some(uid), None);
                self.remove(Target::OldJob, rollout, &jobs, job, as_observed)
                    .await?;
                let namespace = &observation.namespace;
                self.written
                    .jobs
                    .deleted(&observation.uid, namespace, job, uid);
            }
        }
        Ok(())
    }
}
