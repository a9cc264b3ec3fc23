//! Writes to an adopted workload (only `spec.replicas`), and to the Rollout's finalizer.

use countersign_api::{HASH_LABEL, KEEP_FINALIZER, ROLLOUT_UID_LABEL, Rollout};
use countersign_core::Observation;
use countersign_core::decision::{AdoptionAction, Serving, WorkloadScale};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::api::{ListParams, Patch};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{Actor, absent_as_none, field_manager};
use crate::act::error::{Error, Target};

impl Actor {
    pub(super) async fn act_on_adoption(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        action: &AdoptionAction,
    ) -> Result<(), Error> {
        match action {
            AdoptionAction::ScaleWorkload(scale) => {
                self.scale_workload(rollout, observation, scale).await
            }
            AdoptionAction::SetFinalizer { present } => {
                self.set_finalizer(rollout, observation, *present).await
            }
        }
    }

    /// Scales the adopted workload. If it has changed since it was observed, or the pods that replace its
    /// own are not available, nothing is written, and the next reconcile decides again.
    async fn scale_workload(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        scale: &WorkloadScale,
    ) -> Result<(), Error> {
        let WorkloadScale { name, uid, .. } = scale;
        let unread = |source| Error::refused(Target::WorkloadReplicas, rollout, source);
        if let Some(serving) = &scale.beside {
            let serve = self.serve(observation, serving).await.map_err(unread)?;
            if !serve {
                return Ok(());
            }
        }
        let deployments: Api<Deployment> =
            Api::namespaced(self.client.clone(), &observation.namespace);
        let live = deployments.get_opt(name).await.map_err(unread)?;
        let replicas = |live: &Deployment| live.spec.replicas.unwrap_or(1);
        let is_same =
            |live: &Deployment| live.uid().as_ref() == Some(uid) && replicas(live) == scale.from;
        let Some(live) = live.filter(is_same) else {
            return Ok(());
        };
        let patch = Patch::Merge(json!({
            "metadata": { "uid": uid, "resourceVersion": live.resource_version() },
            "spec": { "replicas": scale.replicas },
        }));
        let parameters = field_manager();
        let write = deployments.patch_scale(name, &parameters, &patch);
        self.write(Target::WorkloadReplicas, rollout, "patch", write)
            .await?;
        Ok(())
    }

    /// Whether at least as many pods of a revision are available as at the decision.
    async fn serve(
        &self,
        observation: &Observation,
        serving: &Serving,
    ) -> Result<bool, kube::Error> {
        let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &observation.namespace);
        let (uid, hash) = (&observation.uid, &serving.hash);
        let selector = format!("{ROLLOUT_UID_LABEL}={uid},{HASH_LABEL}={hash}");
        let sets = sets.list(&ListParams::default().labels(&selector)).await?;
        let statuses = sets.iter().filter_map(|set| set.status.as_ref());
        let available: i32 = statuses.filter_map(|it| it.available_replicas).sum();
        Ok(available >= serving.available)
    }

    /// Adds or removes the finalizer; foreign finalizers are kept.
    async fn set_finalizer(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        present: bool,
    ) -> Result<(), Error> {
        let rollouts: Api<Rollout> = Api::namespaced(self.client.clone(), &observation.namespace);
        let live = rollouts.get_metadata_opt(&observation.name).await;
        let live = live.map_err(|source| Error::refused(Target::Finalizer, rollout, source))?;
        let Some(live) = live.filter(|live| live.uid() == rollout.uid()) else {
            return Ok(());
        };
        let mut finalizers = live.finalizers().to_vec();
        finalizers.retain(|it| it != KEEP_FINALIZER);
        if present {
            finalizers.push(KEEP_FINALIZER.into());
        }
        if finalizers == live.finalizers() {
            return Ok(());
        }
        // A merge patch replaces the whole list, so it applies to this version only.
        let patch = Patch::Merge(json!({ "metadata": {
            "uid": live.uid(),
            "resourceVersion": live.resource_version(),
            "finalizers": finalizers,
        } }));
        let parameters = field_manager();
        let write = absent_as_none(rollouts.patch(&observation.name, &parameters, &patch));
        let written = self.write(Target::Finalizer, rollout, "patch", write);
        if let Some(written) = written.await? {
            self.written
                .rollouts
                .reaches(&observation.uid, &written.metadata);
        }
        Ok(())
    }
}
