//! Whether what the watches have reported is still what the API server has.

use std::collections::BTreeMap;

use countersign_api::{ROLLOUT_UID_LABEL, Rollout};
use countersign_core::Observation;
use countersign_core::observation::people::HumanInputs;
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::api::ListParams;
use kube::core::ObjectMeta;
use kube::{Api, ResourceExt};

use super::observer::Observer;
use super::reads::{self, tried};
use super::replica_sets::is_rollout;
use super::snapshot::Snapshot;

impl Observer {
    /// Whether a snapshot is true of all that was not read for it: the Rollout and its ReplicaSets by their versions, its
    /// Services, what people have said, and that no awaited pod is in trouble.
    pub async fn is_current(&self, snapshot: &Snapshot) -> Result<bool, kube::Error> {
        let observation = &snapshot.observation;
        let (versions, services, people, pods) = tokio::join!(
            self.has_versions(snapshot),
            self.has_services(snapshot),
            self.has_said(observation),
            self.new_pods(observation),
        );
        let starting = pods.is_none_or(|it| it.trouble.is_none() && it.crashing == 0);
        Ok(versions? && services? && people && starting)
    }

    async fn has_services(&self, snapshot: &Snapshot) -> Result<bool, kube::Error> {
        let Snapshot {
            rollout,
            observation,
        } = snapshot;
        let live = self.services(rollout, &observation.namespace).await?;
        let observed = &observation.traffic;
        Ok(live.services == observed.services
            && live.former_services == observed.former_services
            && live.selected_by == observed.selected_by)
    }

    /// Only metadata are read.
    async fn has_versions(&self, snapshot: &Snapshot) -> Result<bool, kube::Error> {
        let it = &snapshot.observation;
        let rollouts: Api<Rollout> = Api::namespaced(self.client.clone(), &it.namespace);
        let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &it.namespace);
        let own = format!("{ROLLOUT_UID_LABEL}={}", it.uid);
        let own = ListParams::default().labels(&own).limit(reads::SMALL);
        let (rollout, sets) = tokio::try_join!(
            tried(|| rollouts.get_metadata_opt(&it.name)),
            tried(|| sets.list_metadata(&own)),
        )?;
        let observed = &snapshot.rollout;
        let is_same = rollout.is_some_and(|live| {
            live.uid() == observed.uid() && live.resource_version() == observed.resource_version()
        });
        let more = sets.metadata.continue_.is_some_and(|it| !it.is_empty());
        let live = sets.items.iter().map(|set| &set.metadata);
        let live = live.filter(|set| is_own(set, &it.uid)).map(|set| {
            let version = set.resource_version.clone().unwrap_or_default();
            (set.uid.clone().unwrap_or_default(), version)
        });
        let live: BTreeMap<_, _> = live.collect();
        let observed = it.replica_sets.iter();
        let observed = observed.map(|set| (set.uid.clone(), set.version.clone()));
        let observed: BTreeMap<_, _> = observed.collect();
        Ok(is_same && !more && live == observed)
    }

    /// Whether people have said what was observed.
    async fn has_said(&self, observation: &Observation) -> bool {
        let Some(change) = &observation.status.change else {
            return true;
        };
        let observed = &observation.people;
        let live = HumanInputs {
            incidents: observed.incidents.clone(),
            admission: observed.admission.clone(),
            ..self.said(observation, change).await
        };
        live == *observed
    }
}

/// Whether a ReplicaSet is among those that are observed of the Rollout with this uid.
fn is_own(set: &ObjectMeta, uid: &str) -> bool {
    let mut owners = set.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true));
    set.deletion_timestamp.is_none() && owner.is_none_or(|owner| is_rollout(owner, uid))
}
