//! Writes to a workload that a Rollout adopts (its number of pods alone), to the Services that it gives
//! back, and to the Rollout's own finalizer.

use countersign_api::{HASH_LABEL, KEEP_FINALIZER, ROLLOUT_UID_LABEL, Rollout};
use countersign_core::Observation;
use countersign_core::decision::{Action, Serving};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Service;
use kube::api::{ListParams, Patch};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{Actor, Error, field_manager, ignoring_absence, refused};

/// What a refused scaling is called.
const WORKLOAD: &str = "the number of pods of the adopted Deployment";
/// What a refused write of the finalizer is called.
const FINALIZER: &str = "the finalizer";

impl Actor {
    pub(super) async fn act_on_adoption(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        action: &Action,
    ) -> Result<(), Error> {
        match action {
            Action::ScaleWorkload { .. } => self.scale_workload(rollout, observation, action).await,
            Action::ReleaseService { service } => {
                let services: Api<Service> =
                    Api::namespaced(self.client.clone(), &observation.namespace);
                let (parameters, patch) = (
                    field_manager(),
                    Patch::Merge(json!({ "spec": { "selector": { HASH_LABEL: null } } })),
                );
                let write = ignoring_absence(services.patch(service, &parameters, &patch));
                let what = "the selector of a Service";
                self.write(what, rollout, "patch", "services", write).await
            }
            Action::SetFinalizer { present } => {
                self.set_finalizer(rollout, observation, *present).await
            }
            _ => Ok(()),
        }
    }

    /// Scales the workload as it is now: where it has changed since it was observed, or the pods that
    /// are to serve in its place do not, nothing is done, and the next look decides anew.
    async fn scale_workload(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        action: &Action,
    ) -> Result<(), Error> {
        let Action::ScaleWorkload {
            name,
            uid,
            from,
            replicas,
            beside,
        } = action
        else {
            return Ok(());
        };
        let namespace = &observation.namespace;
        let unread = |source| refused(WORKLOAD, rollout, source);
        if let Some(serving) = beside {
            let serve = self.serve(observation, serving).await.map_err(unread)?;
            if !serve {
                return Ok(());
            }
        }
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), namespace);
        let live = deployments.get_opt(name).await.map_err(unread)?;
        let asked = |live: &Deployment| live.spec.replicas.unwrap_or(1);
        let live = live.filter(|live| live.uid().as_ref() == Some(uid) && asked(live) == *from);
        let Some(live) = live else {
            return Ok(());
        };
        let patch = Patch::Merge(json!({
            "metadata": { "uid": uid, "resourceVersion": live.resource_version() },
            "spec": { "replicas": replicas },
        }));
        let parameters = field_manager();
        let write = deployments.patch_scale(name, &parameters, &patch);
        self.write(WORKLOAD, rollout, "patch", "deployments/scale", write)
            .await?;
        Ok(())
    }

    /// Whether at least as many pods of a revision are available as were when it was decided.
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

    /// Adds or removes the finalizer among those that are there now; other controllers' stay.
    async fn set_finalizer(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        present: bool,
    ) -> Result<(), Error> {
        let rollouts: Api<Rollout> = Api::namespaced(self.client.clone(), &observation.namespace);
        let live = rollouts.get_metadata_opt(&observation.name).await;
        let live = live.map_err(|source| refused(FINALIZER, rollout, source))?;
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
        // A list is replaced as a whole, so not over a version that nobody has seen.
        let patch = Patch::Merge(json!({ "metadata": {
            "uid": live.uid(),
            "resourceVersion": live.resource_version(),
            "finalizers": finalizers,
        } }));
        let parameters = field_manager();
        let write = ignoring_absence(rollouts.patch(&observation.name, &parameters, &patch));
        self.write(FINALIZER, rollout, "patch", "rollouts", write)
            .await
    }
}
