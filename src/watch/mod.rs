//! The watches, each in a task of its own with its own backoff, so that a failing watch delays no other.
//!
//! | watch | kept in memory | why |
//! |---|---|---|
//! | Rollouts | all but managed fields; beside that selector, pod labels, Services, `dependsOn`, names of AnalysisTemplates, the place of a change among others ([`Claim`]) | triggers, decisions; who claims which pods and Services, depends on whom, and goes next |
//! | ReplicaSets that the controller owns | numbers of pods, the recorded template if the stored one is the same; hashes of what decisions depend on, and of the Rollout | triggers, decisions |
//! | Jobs that the controller owns | how they ended, and what those run that have not; hashes of the version and the Rollout | triggers, decisions |
//! | RolloutPolicies | spec and status | every decision; their statuses |
//! | `SignOff`s, Interventions | hashes of the version and the Rollout; for which attempts there are any | triggers; what nobody has said need not be read |
//! | Freezes | spec, without the groups of the person, and status | triggers, decisions; their statuses |
//! | RolloutRuns | names, outcome, times, and digests of template and provenance; found by the name of their Rollout | decisions |
//! | AnalysisTemplates | identity, what their conditions say, and status; the spec, up to 8 KiB | their statuses; decisions |
//! | Services | type, selector and its last other writer | triggers, decisions |
//! | EndpointSlices of Services | the names of their ready pods | triggers of changes under way, decisions |
//! | routes and DestinationRules, of the kinds that a Rollout names | all but managed fields of those that a Rollout names or owns; of all hashes of the version and the name | triggers, decisions |
//! | Namespaces | labels | which policies govern, criticality |
//! | Deployments, from the first that is adopted | nothing | triggers |
//!
//! The other inputs of a decision (pods, what people have said) are read live, and so is everything before a write, but for
//! the exceptions that `docs/decisions/036` names.
//!
//! A watch that was disconnected for too long lists its objects again. Then only Rollouts are reconciled whose objects
//! have changed since (`objects`): every restart of an API server would otherwise cost a reconcile of every Rollout.

pub mod batch;
mod cache;
mod caches;
mod changes;
mod claim;
mod deployments;
mod endpoints;
pub(crate) mod hashing;
mod objects;
mod of_service;
mod pruned;
mod records;
mod requests;
mod routes;
mod services;
pub(crate) mod task;
mod trigger;
pub mod waiting;
mod watched;

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_api::{Intervention, MANAGED_BY_LABEL, MANAGER, SignOff};
use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::{mpsc, watch};

use crate::telemetry::Telemetry;
pub use crate::watch::cache::Cache;
use crate::watch::cache::Cached;
pub use crate::watch::caches::{Caches, Gap, Written};
use crate::watch::changes::{ClaimChanges, Pods, strip_claim};
pub use crate::watch::claim::Claim;
use crate::watch::deployments::Deployments;
pub use crate::watch::endpoints::{ReadyPods, SERVICE_LABEL};
use crate::watch::hashing::hash;
use crate::watch::objects::{News, Objects, Seen, among, object, subject_of};
use crate::watch::records::watch_records;
pub use crate::watch::records::{PastRecord, rollout_of_record};
use crate::watch::requests::watch_requests;
use crate::watch::routes::watch_routes;
pub use crate::watch::routes::{DESTINATION_RULE, Routes, route_object};
pub use crate::watch::services::Selection;
use crate::watch::services::WatchedService;
use crate::watch::task::{LARGE, SMALL, config, kept, run};
use crate::watch::trigger::owner;
pub use crate::watch::trigger::{Scope, Trigger};
pub use crate::watch::watched::{WatchedFreeze, WatchedPolicy, WatchedTemplate};

/// The running watches: their caches and triggers.
pub struct Watches {
    /// The caches.
    pub caches: Caches,
    /// The Rollouts to reconcile.
    pub triggers: mpsc::UnboundedReceiver<Trigger>,
    /// The sender of further triggers.
    pub wake: mpsc::UnboundedSender<Trigger>,
    /// Notified of what the statuses of policies, Freezes and AnalysisTemplates may depend on.
    pub governing: watch::Sender<()>,
}

/// Starts all watches; they end with the process.
#[must_use]
pub fn start(client: &Client, telemetry: &Arc<Telemetry>) -> Watches {
    let (send, triggers) = mpsc::unbounded_channel();
    let (governing, _) = watch::channel(());
    let rollouts = Cache::default();
    let claims = watch_claims(
        client,
        telemetry,
        &rollouts,
        send.clone(),
        governing.clone(),
    );
    let gaps = [Gap::default(), Gap::default()];
    let policies = watch_policies(client, telemetry, &gaps[0], send.clone(), governing.clone());
    let namespaces = watch_namespaces(client, telemetry, &gaps[1], governing.clone());
    let sets = Owned::<Pods> {
        kind: "ReplicaSet",
        version: Pods::version,
        is_expected: Pods::is_blank,
    };
    let replica_sets = sets.watch(client, telemetry, &claims, send.clone());
    let jobs = Owned::<PartialObjectMeta<Job>> {
        kind: "Job",
        version: |job| hash(&job.metadata.resource_version),
        is_expected: |_| false,
    };
    let jobs = jobs.watch(client, telemetry, &claims, send.clone());
    let sign_offs = watch_requests::<SignOff>("SignOff", client, telemetry, &claims, send.clone());
    let interventions =
        watch_requests::<Intervention>("Intervention", client, telemetry, &claims, send.clone());
    let routes = watch_routes(client, telemetry, &claims, &send);
    let services = of_service::watch::<WatchedService>(client, telemetry, &claims, send.clone());
    let endpoints = of_service::watch::<ReadyPods>(client, telemetry, &claims, send.clone());
    let freezes_gap = Gap::unlisted();
    let freezes = watch_freezes(
        client,
        telemetry,
        &freezes_gap,
        send.clone(),
        governing.clone(),
    );
    let template_specs = Cache::opened();
    let templates = watch_templates(client, telemetry, &template_specs, governing.clone());
    Watches {
        caches: Caches {
            claims,
            written: Written {
                rollouts,
                replica_sets,
                jobs,
                records: watch_records(client, telemetry),
                services,
                routes,
            },
            sign_offs,
            interventions,
            endpoints,
            policies,
            freezes,
            freezes_gap,
            templates,
            template_specs,
            namespaces,
            gaps,
        },
        triggers,
        wake: send,
        governing,
    }
}

fn watch_claims(
    client: &Client,
    telemetry: &Arc<Telemetry>,
    cache: &Cache,
    send: mpsc::UnboundedSender<Trigger>,
    governing: watch::Sender<()>,
) -> Store<Claim> {
    let (store, writer) = reflector::store();
    let events = kept(client, config(LARGE), cache).modify(strip_claim);
    let mut changes = ClaimChanges::new(store.clone());
    let mut deployments = Deployments::new(client, telemetry, store.clone(), send.clone());
    run(
        "Rollout",
        telemetry,
        reflector::reflector(writer, events),
        move |event| {
            if let watcher::Event::Apply(claim) | watcher::Event::InitApply(claim) = &event {
                deployments.watch_for(claim);
            }
            let triggers = changes.triggers(event);
            if !triggers.is_empty() {
                governing.send_replace(());
            }
            triggers
        },
        send,
    );
    store
}

fn watch_policies(
    client: &Client,
    telemetry: &Arc<Telemetry>,
    gap: &Gap,
    send: mpsc::UnboundedSender<Trigger>,
    governing: watch::Sender<()>,
) -> Store<WatchedPolicy> {
    let (store, writer) = reflector::store();
    let api = Api::<WatchedPolicy>::all(client.clone());
    let events = watcher(api, config(LARGE)).modify(|it| watched::strip(&mut it.metadata));
    let gap = gap.clone();
    let mut scopes = Scopes::default();
    run(
        "RolloutPolicy",
        telemetry,
        reflector::reflector(writer, events).inspect(move |event| gap.note(event)),
        move |event| {
            governing.send_replace(());
            let changed = scopes.changed(&event, Scope::of_policy);
            changed.into_iter().map(Trigger::Governed)
        },
        send,
    );
    store
}

/// The last seen scope and generation of objects that select Rollouts, by uid.
#[derive(Default)]
struct Scopes {
    known: BTreeMap<Option<String>, (Scope, Option<i64>)>,
    /// The objects that were known when the current list began, and are not listed yet.
    before: BTreeMap<Option<String>, (Scope, Option<i64>)>,
    listed: bool,
}

impl Scopes {
    /// The old and the new scope of an object that an event has changed.
    fn changed<K: ResourceExt>(
        &mut self,
        event: &watcher::Event<K>,
        scope: impl Fn(&K) -> Scope,
    ) -> Vec<Scope> {
        let now = |it: &K| (scope(it), it.meta().generation);
        let changed = match event {
            watcher::Event::Apply(it) => {
                let now = now(it);
                let before = self.known.insert(it.uid(), now.clone());
                (before.as_ref() != Some(&now)).then(|| vec![before, Some(now)])
            }
            watcher::Event::Delete(it) => {
                self.known.remove(&it.uid());
                Some(vec![Some(now(it))])
            }
            watcher::Event::Init => {
                self.before.append(&mut self.known);
                None
            }
            watcher::Event::InitApply(it) => {
                let now = now(it);
                let before = self.before.remove(&it.uid());
                self.known.insert(it.uid(), now.clone());
                // At the start all Rollouts are reconciled anyway.
                let changed = self.listed && before.as_ref() != Some(&now);
                changed.then(|| vec![before, Some(now)])
            }
            watcher::Event::InitDone => {
                self.listed = true;
                let gone = std::mem::take(&mut self.before);
                Some(gone.into_values().map(Some).collect())
            }
        };
        let scopes = changed.into_iter().flatten().flatten();
        scopes.map(|(scope, _)| scope).collect()
    }
}

fn watch_namespaces(
    client: &Client,
    telemetry: &Arc<Telemetry>,
    gap: &Gap,
    governing: watch::Sender<()>,
) -> Store<PartialObjectMeta<Namespace>> {
    let (store, writer) = reflector::store();
    let events = watcher(
        Api::<PartialObjectMeta<Namespace>>::all(client.clone()),
        config(SMALL),
    )
    .modify(|namespace| {
        namespace.metadata.managed_fields = None;
        namespace.metadata.annotations = None;
    });
    let gap = gap.clone();
    let (send, _) = mpsc::unbounded_channel();
    run(
        "Namespace",
        telemetry,
        reflector::reflector(writer, events).inspect(move |event| gap.note(event)),
        move |_| {
            governing.send_replace(());
            None::<Trigger>
        },
        send,
    );
    store
}

/// A kind of object that Rollouts own.
struct Owned<K> {
    kind: &'static str,
    /// The hash of what decisions depend on.
    version: fn(&K) -> u64,
    /// Whether an object that is seen for the first time is as the controller has just created it.
    is_expected: fn(&K) -> bool,
}

impl<K: Cached<DynamicType = ()>> Owned<K> {
    /// Reconciles the owners of the objects, and keeps these; events without a relevant change trigger nothing.
    fn watch(
        self,
        client: &Client,
        telemetry: &Arc<Telemetry>,
        claims: &Store<Claim>,
        send: mpsc::UnboundedSender<Trigger>,
    ) -> Cache {
        let cache = Cache::default();
        let own = config(LARGE).labels(&format!("{MANAGED_BY_LABEL}={MANAGER}"));
        let events = kept(client, own, &cache);
        let (mut objects, claims) = (Objects::default(), claims.clone());
        let kind = self.kind;
        let triggers = move |event| self.triggers(&mut objects, &claims, event);
        run(kind, telemetry, events, triggers, send);
        cache
    }

    fn triggers(
        &self,
        objects: &mut Objects,
        claims: &Store<Claim>,
        event: watcher::Event<K>,
    ) -> Vec<Trigger> {
        let news = objects.news(&event, |it| Seen {
            version: (self.version)(it),
            subject: owner(it.meta()).map_or(0, |rollout| subject_of(&rollout)),
        });
        let is_lost = matches!(event, watcher::Event::Delete(_));
        match (news, object(event)) {
            (News::New, Some(it)) if (self.is_expected)(&it) => Vec::new(),
            (News::New | News::Changed, Some(it)) => {
                let trigger = if is_lost {
                    Trigger::Lost
                } else {
                    Trigger::Related
                };
                owner(it.meta()).map(trigger).into_iter().collect()
            }
            (News::Gone(rollouts), _) => {
                let rollouts = among(claims, &rollouts).into_iter();
                rollouts.map(Trigger::lost).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn watch_freezes(
    client: &Client,
    telemetry: &Arc<Telemetry>,
    gap: &Gap,
    send: mpsc::UnboundedSender<Trigger>,
    governing: watch::Sender<()>,
) -> Store<WatchedFreeze> {
    let (store, writer) = reflector::store();
    let api = Api::<WatchedFreeze>::all(client.clone());
    let events = watcher(api, config(SMALL)).modify(|freeze| {
        watched::strip(&mut freeze.metadata);
        if let Ok(spec) = &mut freeze.spec {
            spec.person.groups.clear();
        }
    });
    let gap = gap.clone();
    let mut scopes = Scopes::default();
    run(
        "Freeze",
        telemetry,
        reflector::reflector(writer, events).inspect(move |event| gap.note(event)),
        move |event| {
            governing.send_replace(());
            let changed = scopes.changed(&event, Scope::of_freeze);
            changed.into_iter().map(Trigger::Frozen)
        },
        send,
    );
    store
}

fn watch_templates(
    client: &Client,
    telemetry: &Arc<Telemetry>,
    specs: &Cache,
    governing: watch::Sender<()>,
) -> Store<WatchedTemplate> {
    let (store, writer) = reflector::store();
    let events = kept(client, config(LARGE), specs);
    let (send, _) = mpsc::unbounded_channel();
    run(
        "AnalysisTemplate",
        telemetry,
        reflector::reflector(writer, events),
        move |_| {
            governing.send_replace(());
            None::<Trigger>
        },
        send,
    );
    store
}

#[cfg(test)]
mod tests;
