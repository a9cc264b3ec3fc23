//! The human inputs of a Rollout: sign-offs, interventions, freezes, incidents.
//!
//! A failed read holds promotions, but never a rollback.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use countersign_api::rollout::Change;
use countersign_api::{Freeze, FreezeSpec, Intervention, SignOff};
use countersign_core::observation::Observation;
use countersign_core::observation::people::{
    HumanInputs, IncidentAnswer, NamedFreeze, ObservedIntervention, ObservedSignOff,
};
use countersign_core::people::sign_off;
use countersign_core::policy::Effective;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::core::{ApiResource, DynamicObject, ObjectMeta};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::observer::Observer;
use super::reads;
use super::stored::parsed;
use crate::api_resource::untyped;
use crate::api_server::sentence;
use crate::timing::{LIST_TIMEOUT, READ_TIMEOUT};
use crate::watch::Cache;

/// Most objects of a kind that are read of one attempt; if there are more, promotions are held.
const MOST: usize = 1_000;
/// Most objects that are listed to find them, if the API server cannot select them.
const MOST_LISTED: usize = 10_000;

/// What each policy's incident query answered.
type Incidents = BTreeMap<String, IncidentAnswer>;

/// The objects that were read, and what could not be read.
type Readable<T> = (Vec<T>, Vec<String>);

/// The objects that were read; what could not be read is added to the others of its kind.
fn take<T>((read, problems): Readable<T>, unreadable: &mut Vec<String>) -> Vec<T> {
    unreadable.extend(problems);
    read
}

/// A list of objects that people make.
struct List {
    /// The objects, in the plural.
    what: &'static str,
    /// Which of them.
    of: ListParams,
    /// Those that stop a change, by a field.
    stops: Option<&'static str>,
    /// What to do if there are too many.
    remedy: &'static str,
}

impl List {
    /// Those of one attempt. The field selector is the API server's: nobody hides an object from it.
    fn of_attempt(
        what: &'static str,
        stops: &'static str,
        observation: &Observation,
        run: &str,
    ) -> Self {
        let attempt = format!("spec.rolloutUid={},spec.run={run}", observation.uid);
        Self {
            what,
            of: ListParams::default().fields(&attempt).limit(reads::SMALL),
            stops: Some(stops),
            remedy: "abort the change, and limit their number by a ResourceQuota",
        }
    }
}

impl Observer {
    /// The human inputs, if a change is in progress or can be retried.
    pub(super) async fn people(
        &self,
        observation: &Observation,
        effective: &Effective,
    ) -> HumanInputs {
        let Some(change) = &observation.status.change else {
            return HumanInputs::default();
        };
        let under_way = change.outcome.is_none() && !change.initial;
        let incidents = async {
            if under_way {
                self.incidents(observation, effective).await
            } else {
                Incidents::new()
            }
        };
        let (mut inputs, incidents) = tokio::join!(self.said(observation, change), incidents);
        inputs.incidents = incidents;
        let any = !inputs.sign_offs.is_empty() || !inputs.interventions.is_empty();
        let awaited = sign_off::awaits_first(change);
        if any || awaited || (under_way && sign_off::is_required(change)) {
            inputs.admission = self.admission.check().await;
        }
        inputs
    }

    /// What people have said: the sign-offs, interventions and freezes that concern a change.
    async fn said(&self, observation: &Observation, change: &Change) -> HumanInputs {
        let under_way = change.outcome.is_none() && !change.initial;
        let asks = under_way || sign_off::awaits_first(change);
        let (interventions, sign_offs, freezes) = tokio::join!(
            self.interventions(observation, change),
            async {
                if asks {
                    self.sign_offs(observation, change).await
                } else {
                    Default::default()
                }
            },
            async {
                if under_way {
                    self.freezes(observation).await
                } else {
                    Default::default()
                }
            },
        );
        let mut inputs = HumanInputs::default();
        let unreadable = &mut inputs.unreadable_requests;
        inputs.interventions = take(interventions, unreadable);
        inputs.sign_offs = take(sign_offs, unreadable);
        inputs.freezes = take(freezes, &mut inputs.unreadable_freezes);
        inputs
    }

    /// Whether the watch has reported that nobody has said anything of this kind.
    fn is_silent(&self, requests: &Cache, observation: &Observation, change: &Change) -> bool {
        let (namespace, uid) = (&observation.namespace, &observation.uid);
        self.from_watches && requests.has_none(namespace, uid, &change.run)
    }

    /// The freezes that select a Rollout, and what is wrong with those that cannot be read.
    async fn freezes(&self, observation: &Observation) -> Readable<NamedFreeze> {
        let known = !self.caches.freezes_gap.is_open() && self.caches.freezes.len() <= MOST;
        if known && self.from_watches {
            return self.watched_freezes(observation);
        }
        let kind = ApiResource::erase::<Freeze>(&());
        let api = Api::all_with(self.client.clone(), &kind);
        let all = List {
            what: "freezes",
            of: ListParams::default().limit(reads::SMALL),
            stops: None,
            remedy: "delete those that are over",
        };
        readable(&all, &api, &self.no_fields, |mut it: Freeze| {
            // No decision depends on them, and the watch keeps none.
            it.spec.person.groups.clear();
            selects(&it.spec, observation).then(|| NamedFreeze {
                name: it.name_any(),
                spec: it.spec,
            })
        })
        .await
    }

    /// The same as the watch has reported them.
    fn watched_freezes(&self, observation: &Observation) -> Readable<NamedFreeze> {
        let (mut read, mut problems) = (Vec::new(), Vec::new());
        for freeze in self.caches.freezes.state() {
            let name = freeze.name_any();
            match &freeze.spec {
                Ok(spec) if selects(spec, observation) => {
                    let spec = spec.clone();
                    read.push(NamedFreeze { name, spec });
                }
                Ok(_) => {}
                Err(problem) => problems.push(format!(
                    "Freeze {name} cannot be read by this build: {problem}"
                )),
            }
        }
        read.sort_by(|a, b| a.name.cmp(&b.name));
        problems.sort();
        (read, problems)
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

    async fn sign_offs(
        &self,
        observation: &Observation,
        change: &Change,
    ) -> Readable<ObservedSignOff> {
        if self.is_silent(&self.caches.sign_offs, observation, change) {
            return Default::default();
        }
        let run = change.run.as_str();
        let api = untyped::<SignOff>(&self.client, &observation.namespace);
        let stops = "spec.decision=Reject";
        let own = List::of_attempt("sign-offs", stops, observation, run);
        readable(&own, &api, &self.no_fields, |it: SignOff| {
            let spec = &it.spec;
            (spec.rollout_uid == observation.uid && spec.run == run).then(|| ObservedSignOff {
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

    async fn interventions(
        &self,
        observation: &Observation,
        change: &Change,
    ) -> Readable<ObservedIntervention> {
        if self.is_silent(&self.caches.interventions, observation, change) {
            return Default::default();
        }
        let run = change.run.as_str();
        let api = untyped::<Intervention>(&self.client, &observation.namespace);
        let stops = "spec.action=Abort";
        let own = List::of_attempt("interventions", stops, observation, run);
        readable(&own, &api, &self.no_fields, |it: Intervention| {
            let spec = &it.spec;
            (spec.rollout_uid == observation.uid && spec.run == run).then(|| ObservedIntervention {
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

/// The objects of a list through `convert`, and the errors of those that this build cannot read. What was read
/// before an error is kept: a person may have stopped the change.
async fn readable<K, T>(
    list: &List,
    api: &Api<DynamicObject>,
    no_fields: &AtomicBool,
    convert: impl Fn(K) -> Option<T>,
) -> Readable<T>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    let mut read = Read {
        found: BTreeMap::new(),
        unreadable: Vec::new(),
        no_fields,
    };
    let what = list.what;
    let all = async {
        if !read.add(what, api, &list.of, &convert).await? {
            return Ok(());
        }
        // Nobody hides among many others what stops a change, if the API server can select it.
        let selects = !no_fields.load(Ordering::Relaxed);
        let attempt = list.of.field_selector.as_ref().filter(|_| selects);
        if let (Some(attempt), Some(stops)) = (attempt, list.stops) {
            let stopping = format!("{attempt},{stops}");
            let stopping = list.of.clone().fields(&stopping);
            read.add(what, api, &stopping, &convert).await?;
        }
        Err(format!(
            "there are more {what} than the {} that are read: {}",
            read.found.len(),
            list.remedy
        ))
    };
    let all = tokio::time::timeout(LIST_TIMEOUT, all).await;
    let all = all.unwrap_or_else(|_| Err(format!("{what} cannot be read within {LIST_TIMEOUT:?}")));
    read.unreadable.extend(all.err());
    (read.found.into_values().collect(), read.unreadable)
}

/// The objects of a kind that were read, by name.
struct Read<'a, T> {
    found: BTreeMap<String, T>,
    unreadable: Vec<String>,
    /// Whether the API server selects by no field.
    no_fields: &'a AtomicBool,
}

impl<T> Read<'_, T> {
    /// Adds what is listed, and returns whether there is more than is read. The timeout applies per page, so that
    /// many objects can be read.
    async fn add<K>(
        &mut self,
        what: &str,
        api: &Api<DynamicObject>,
        of: &ListParams,
        convert: &impl Fn(K) -> Option<T>,
    ) -> Result<bool, String>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let (mut listed, mut wanted, mut after) = (0_usize, 0_usize, None);
        loop {
            let page = reads::page(api, of, after.as_deref(), Some(self.no_fields));
            let (page, more) = in_time(what, page).await?;
            listed = listed.saturating_add(page.len());
            for object in page {
                let name = object.name_any();
                match parsed(&object) {
                    Ok(object) => {
                        let object = convert(object);
                        wanted += usize::from(object.is_some());
                        self.found.extend(object.map(|it| (name, it)));
                    }
                    Err(invalid) => self.unreadable.push(format!(
                        "{} {name} cannot be read by this build: {invalid}",
                        K::kind(&())
                    )),
                }
            }
            after = more;
            if after.is_none() {
                return Ok(false);
            }
            if listed >= MOST_LISTED || wanted >= MOST {
                return Ok(true);
            }
        }
    }
}

fn selects(spec: &FreezeSpec, observation: &Observation) -> bool {
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
