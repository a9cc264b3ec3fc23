//! Writes to the Jobs of smoke checks.

use countersign_api::{MANAGED_BY_LABEL, MANAGER, ROLLOUT_UID_LABEL, RUN_ANNOTATION, Rollout};
use countersign_core::Observation;
use countersign_core::decision::{JobAction, NewJob};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{ApiResource, DynamicObject};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::{Actor, as_observed, create};
use crate::act::error::{Error, Target};
use crate::owned::owner;

/// `ttlSecondsAfterFinished` of a smoke check's Job: its pods and logs are kept for this many seconds.
const JOB_KEPT: i32 = 86_400;

impl Actor {
    pub(super) async fn act_on_job(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        action: &JobAction,
    ) -> Result<(), Error> {
        let kind = ApiResource::erase::<Job>(&());
        let client = self.client.clone();
        let jobs: Api<DynamicObject> = Api::namespaced_with(client, &observation.namespace, &kind);
        match action {
            JobAction::CreateJob(new) => {
                // If a Job of this name exists, it is either this Job, which the next reconcile observes,
                // or foreign, which the error reports.
                let write = async {
                    let body = serde_json::from_value(job(rollout, new));
                    let body: DynamicObject = body.map_err(kube::Error::SerdeError)?;
                    jobs.create(&create(), &body).await
                };
                self.write(Target::Job, rollout, "create", write).await?;
                Ok(())
            }
            JobAction::DeleteJob { job, uid } => {
                let as_observed = as_observed(Some(uid), None);
                self.remove(Target::OldJob, rollout, &jobs, job, as_observed)
                    .await
            }
        }
    }
}

/// The Job of a smoke check: a single attempt, deleted some time after its end.
fn job(rollout: &Rollout, new: &NewJob) -> Value {
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": new.name,
            "labels": { MANAGED_BY_LABEL: MANAGER, ROLLOUT_UID_LABEL: rollout.uid() },
            "annotations": { RUN_ANNOTATION: new.run },
            "ownerReferences": [owner(rollout)],
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": new.deadline.std().as_secs(),
            "ttlSecondsAfterFinished": JOB_KEPT,
            "template": new.template.0,
        },
    })
}
