//! What people want of one Rollout, read live: sign-offs, interventions, freezes, incidents.
//!
//! What cannot be read holds promotions and never a rollback.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::core::{DeserializeGuard, ObjectMeta};
use kube::{Api, Client, ResourceExt};

use super::cluster::Observer;
use crate::api::{Freeze, Intervention, SignOff};
use crate::core::observation::{NamedFreeze, Observation, SeenIntervention, SeenSignOff};
use crate::core::{policy, sign_off};

impl Observer {
    /// Reads what people want, where a change is under way or can be retried.
    pub(super) async fn people(&self, observation: &mut Observation) {
        let Some(change) = observation.status.change.clone() else {
            return;
        };
        let (namespace, name) = (observation.namespace.clone(), observation.name.clone());
        let interventions = interventions(&self.client, &namespace, &name).await;
        observation.interventions = or_none("interventions", interventions);
        let under_way = change.outcome.is_none() && !change.initial;
        if under_way {
            let sign_offs = sign_offs(&self.client, &namespace, &name).await;
            observation.sign_offs = or_none("sign-offs", sign_offs);
            match self.freezes(observation).await {
                Ok(read) => (observation.freezes, observation.unreadable_freezes) = read,
                Err(error) => {
                    let problem = format!("freezes cannot be read: {error}");
                    observation.unreadable_freezes = vec![problem];
                }
            }
            self.incidents(observation).await;
        }
        let wishes = observation.sign_offs.len() + observation.interventions.len();
        if wishes > 0 || (under_way && sign_off::is_asked_for(&change)) {
            observation.admission = self.admission.check().await;
        }
    }

    /// The freezes that select a Rollout, and what is wrong with those that cannot be read.
    async fn freezes(
        &self,
        observation: &Observation,
    ) -> Result<(Vec<NamedFreeze>, Vec<String>), kube::Error> {
        let api: Api<DeserializeGuard<Freeze>> = Api::all(self.client.clone());
        let (mut freezes, mut unreadable) = (Vec::new(), Vec::new());
        for freeze in api.list(&ListParams::default()).await?.items {
            match freeze.0 {
                Ok(freeze) if selects(&freeze, observation) => freezes.push(NamedFreeze {
                    name: freeze.name_any(),
                    spec: freeze.spec,
                }),
                Ok(_) => {}
                Err(invalid) => {
                    let name = invalid.metadata.name.as_deref().unwrap_or_default();
                    unreadable.push(format!(
                        "Freeze {name} cannot be read by this build: {invalid}"
                    ));
                }
            }
        }
        Ok((freezes, unreadable))
    }

    async fn incidents(&self, observation: &mut Observation) {
        let effective = policy::effective(&observation.policies);
        let now = observation.now;
        let asks = effective
            .incidents
            .into_iter()
            .map(|(policy, incident)| async move {
                (policy, self.prometheus.incident(&incident.query, now).await)
            });
        let answers: BTreeMap<_, _> = futures::future::join_all(asks).await.into_iter().collect();
        observation.incidents = answers;
    }
}

fn selects(freeze: &Freeze, observation: &Observation) -> bool {
    let spec = &freeze.spec;
    let namespace = &observation.namespace_labels;
    spec.namespace_selector
        .as_ref()
        .is_none_or(|it| it.matches(namespace))
        && spec
            .rollout_selector
            .as_ref()
            .is_none_or(|it| it.matches(&observation.labels))
}

/// What people want and nobody can read is not done: nothing depends on it but a promotion.
fn or_none<T>(what: &str, read: Result<Vec<T>, kube::Error>) -> Vec<T> {
    read.unwrap_or_else(|error| {
        tracing::warn!(%error, "{what} could not be read");
        Vec::new()
    })
}

/// One that this build cannot read counts for nothing.
async fn sign_offs(
    client: &Client,
    namespace: &str,
    rollout: &str,
) -> Result<Vec<SeenSignOff>, kube::Error> {
    let api: Api<DeserializeGuard<SignOff>> = Api::namespaced(client.clone(), namespace);
    let items = api.list(&ListParams::default()).await?.items;
    let seen = items.into_iter().filter_map(|it| it.0.ok());
    let seen = seen
        .filter(|it| it.spec.rollout == rollout)
        .map(|it| SeenSignOff {
            name: it.name_any(),
            uid: it.uid().unwrap_or_default(),
            created_at: created_at(&it.metadata),
            answer: it
                .status
                .and_then(|status| {
                    status
                        .conditions
                        .into_iter()
                        .find(|it| it.type_ == "Counts")
                })
                .map(|Condition { status, reason, .. }| (status == "True", reason)),
            spec: it.spec,
        });
    Ok(seen.collect())
}

/// One that this build cannot read is not followed.
async fn interventions(
    client: &Client,
    namespace: &str,
    rollout: &str,
) -> Result<Vec<SeenIntervention>, kube::Error> {
    let api: Api<DeserializeGuard<Intervention>> = Api::namespaced(client.clone(), namespace);
    let items = api.list(&ListParams::default()).await?.items;
    let seen = items.into_iter().filter_map(|it| it.0.ok());
    let seen = seen
        .filter(|it| it.spec.rollout == rollout)
        .map(|it| SeenIntervention {
            name: it.name_any(),
            uid: it.uid().unwrap_or_default(),
            created_at: created_at(&it.metadata),
            version: it
                .resource_version()
                .and_then(|it| it.parse().ok())
                .unwrap_or_default(),
            answered: it
                .status
                .is_some_and(|status| !status.conditions.is_empty()),
            spec: it.spec,
        });
    Ok(seen.collect())
}

fn created_at(metadata: &ObjectMeta) -> Timestamp {
    let created = metadata.creation_timestamp.as_ref();
    created.map_or(Timestamp::UNIX_EPOCH, |at| at.0)
}
