//! The human inputs of a Rollout, read live: sign-offs, interventions, freezes, incidents.
//!
//! A failed read holds promotions, but never a rollback.

use std::collections::BTreeMap;

use countersign_api::{Freeze, Intervention, SignOff};
use countersign_core::observation::Observation;
use countersign_core::observation::people::{
    HumanInputs, IncidentAnswer, NamedFreeze, SeenIntervention, SeenSignOff,
};
use countersign_core::people::sign_off;
use countersign_core::policy::Effective;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::core::{DeserializeGuard, ObjectMeta};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::observer::Observer;
use super::reads;
use crate::api_server::sentence;
use crate::timing::{LIST_TIMEOUT, READ_TIMEOUT};

/// Most objects of a kind that are read; if there are more, promotions are held.
const MOST: usize = 10_000;

/// What each policy's incident query answered.
type Incidents = BTreeMap<String, IncidentAnswer>;

/// What was read of a list, with what of it could not be read.
type Readable<T> = Result<(Vec<T>, Vec<String>), String>;

/// The objects that were read; what could not be read is added to the others of its kind.
fn take<T>(read: Readable<T>, unreadable: &mut Vec<String>) -> Vec<T> {
    let (read, problems) = read.unwrap_or_else(|problem| (Vec::new(), vec![problem]));
    unreadable.extend(problems);
    read
}

impl Observer {
    /// Reads the human inputs, if a change is in progress or can be retried; always with the latest
    /// resourceVersion.
    pub(super) async fn people(
        &self,
        observation: &Observation,
        effective: &Effective,
    ) -> HumanInputs {
        let mut inputs = HumanInputs::default();
        let unreadable = &mut inputs.unreadable_requests;
        let Some(change) = &observation.status.change else {
            return inputs;
        };
        let (namespace, name) = (&observation.namespace, &observation.name);
        let interventions = self.interventions(namespace, name);
        let under_way = change.outcome.is_none() && !change.initial;
        let awaits_first = sign_off::awaits_first(observation, change);
        if under_way {
            let (interventions, sign_offs, freezes, incidents) = tokio::join!(
                interventions,
                self.sign_offs(namespace, name),
                self.freezes(observation),
                self.incidents(observation, effective),
            );
            inputs.interventions = take(interventions, unreadable);
            inputs.sign_offs = take(sign_offs, unreadable);
            inputs.freezes = take(freezes, &mut inputs.unreadable_freezes);
            inputs.incidents = incidents;
        } else if awaits_first {
            let (interventions, sign_offs) =
                tokio::join!(interventions, self.sign_offs(namespace, name));
            inputs.interventions = take(interventions, unreadable);
            inputs.sign_offs = take(sign_offs, unreadable);
        } else {
            inputs.interventions = take(interventions.await, unreadable);
        }
        let any = !inputs.sign_offs.is_empty() || !inputs.interventions.is_empty();
        if any || awaits_first || (under_way && sign_off::is_required(change)) {
            inputs.admission = self.admission.check().await;
        }
        inputs
    }

    /// The freezes that select a Rollout, and what is wrong with those that cannot be read.
    async fn freezes(&self, observation: &Observation) -> Readable<NamedFreeze> {
        let api = Api::all(self.client.clone());
        readable("freezes", &api, |it: Freeze| {
            selects(&it, observation).then(|| NamedFreeze {
                name: it.name_any(),
                spec: it.spec,
            })
        })
        .await
    }

    async fn incidents(&self, observation: &Observation, effective: &Effective) -> Incidents {
        let now = observation.now;
        let queries = effective.incidents.iter();
        let queries = queries.map(|(policy, incident)| async move {
            let answer = self.prometheus.incident(&incident.query, now).await;
            (policy.clone(), answer)
        });
        let answers = futures::future::join_all(queries).await;
        answers.into_iter().collect()
    }

    async fn sign_offs(&self, namespace: &str, rollout: &str) -> Readable<SeenSignOff> {
        let api = Api::namespaced(self.client.clone(), namespace);
        readable("sign-offs", &api, |it: SignOff| {
            (it.spec.rollout == rollout).then(|| SeenSignOff {
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
            })
        })
        .await
    }

    async fn interventions(&self, namespace: &str, rollout: &str) -> Readable<SeenIntervention> {
        let api = Api::namespaced(self.client.clone(), namespace);
        readable("interventions", &api, |it: Intervention| {
            (it.spec.rollout == rollout).then(|| SeenIntervention {
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
            })
        })
        .await
    }
}

/// The objects of a kind through `convert`, and the errors of those that this build cannot read. The timeout
/// applies per page, so that many objects can be read.
async fn readable<K, T>(
    what: &str,
    api: &Api<DeserializeGuard<K>>,
    convert: impl Fn(K) -> Option<T>,
) -> Result<(Vec<T>, Vec<String>), String>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let read = async {
        let (mut readable, mut unreadable) = (Vec::new(), Vec::new());
        let (mut count, mut after) = (0_usize, None);
        loop {
            let (page, more) = in_time(what, reads::page(api, after.as_deref())).await?;
            count = count.saturating_add(page.len());
            for object in page {
                match object.0 {
                    Ok(object) => readable.extend(convert(object)),
                    Err(invalid) => {
                        let (kind, name) = (K::kind(&()), invalid.metadata.name.as_deref());
                        let name = name.unwrap_or_default();
                        unreadable.push(format!(
                            "{kind} {name} cannot be read by this build: {invalid}"
                        ));
                    }
                }
            }
            after = more;
            if after.is_none() {
                return Ok((readable, unreadable));
            }
            if count >= MOST {
                return Err(format!(
                    "there are more than {MOST} {what}, of which the others are not read: delete those of changes that have ended"
                ));
            }
        }
    };
    tokio::time::timeout(LIST_TIMEOUT, read)
        .await
        .unwrap_or_else(|_| Err(format!("{what} cannot be read within {LIST_TIMEOUT:?}")))
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

/// Limits the time of a read, so that a slow response does not delay the analysis.
pub(super) async fn in_time<T>(
    what: &str,
    read: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, String> {
    match tokio::time::timeout(READ_TIMEOUT, read).await {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(error)) => Err(format!("{what} cannot be read: {}", sentence(&error))),
        Err(_) => Err(format!(
            "{what} cannot be read: no answer within {READ_TIMEOUT:?}"
        )),
    }
}

fn created_at(metadata: &ObjectMeta) -> Timestamp {
    let created = metadata.creation_timestamp.as_ref();
    created.map_or(Timestamp::UNIX_EPOCH, |at| at.0)
}
