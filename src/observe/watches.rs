//! The watches, each in a task of its own with its own backoff, so that a sick one stalls no other.
//!
//! | watch | kept in memory | why |
//! |---|---|---|
//! | Rollouts | selector, pod labels, Services, `dependsOn`, whether a change is under way ([`Claim`]) | triggers; who claims which pods and Services, and depends on whom |
//! | ReplicaSets that the controller owns | a hash of what decisions depend on | triggers |
//! | Jobs that the controller owns | nothing | triggers |
//! | RolloutPolicies | whole | every decision |
//! | `SignOff`s, Interventions | nothing | triggers |
//! | Freezes | what they select | triggers |
//! | routes, of the kinds that a Rollout names | nothing | triggers |
//! | Namespaces | labels | which policies govern, criticality |
//! | Deployments, from the first that is adopted | nothing | triggers |
//!
//! Objects that a decision is made from (the Rollout, its ReplicaSets, Jobs and Services) are read live.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use countersign_api::{
    Freeze, Intervention, MANAGED_BY_LABEL, MANAGER, Rollout, RolloutPolicy, RouteKind, Selector,
    SignOff,
};
use countersign_core::reason;
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{ApiResource, DeserializeGuard, DynamicObject, PartialObjectMeta};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::adoption::Deployments;
use super::routes;
use crate::telemetry::Telemetry;

/// A Rollout reduced to what other Rollouts must know of it. A field of another shape than this
/// build knows cannot stop the watch.
#[derive(Resource, Clone, Debug, Default, Deserialize, Serialize)]
#[resource(inherit = "Rollout")]
#[serde(default)]
pub struct Claim {
    /// Name, labels and a hash of the annotations.
    pub metadata: ObjectMeta,
    /// The parts that claim something.
    pub spec: ClaimSpec,
    /// How it stands.
    pub status: ClaimStatus,
}

/// How a Rollout stands.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimStatus {
    /// Percent of the traffic that its canary has.
    pub weight: i32,
    /// Whether it has a stable revision.
    pub stable: Option<ClaimRevision>,
    /// What it waits for, in one word.
    pub waiting_for: Option<String>,
    /// Its last change.
    pub change: Option<ClaimChange>,
}

/// Whether a change is under way.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaimChange {
    /// How it ended; `None` while it is under way.
    pub outcome: Option<String>,
}

/// That there is a revision, whichever.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct ClaimRevision {}

/// What a Rollout claims.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimSpec {
    /// The pods that it selects.
    pub selector: Selector,
    /// Its pods' metadata.
    pub template: ClaimTemplate,
    /// The workload that it adopts.
    pub workload_ref: Option<ClaimWorkload>,
    /// Its strategy.
    pub strategy: ClaimStrategy,
    /// The Rollouts that it depends on.
    pub depends_on: Vec<String>,
}

/// A workload that a Rollout adopts.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaimWorkload {
    /// Its name.
    pub name: String,
}

/// Metadata of the pods that a Rollout makes.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaimTemplate {
    /// Metadata of the pods.
    pub metadata: ClaimLabels,
}

/// Labels of the pods that a Rollout makes.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaimLabels {
    /// Labels of the pods.
    pub labels: BTreeMap<String, String>,
}

/// The strategy of a Rollout, as far as it claims something.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaimStrategy {
    /// The canary.
    pub canary: ClaimServices,
}

/// The Services that a Rollout claims.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimServices {
    /// Service of the stable revision.
    pub stable_service: Option<String>,
    /// Service of the canary.
    pub canary_service: Option<String>,
    /// Its routes.
    pub traffic: Option<ClaimTraffic>,
}

/// The routes that a Rollout names. One that this build does not know is left out.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaimTraffic {
    /// The routes.
    pub routes: Vec<ClaimRoute>,
}

/// A route that a Rollout names.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaimRoute {
    /// Its kind, as it is written.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl Claim {
    fn routes(&self) -> impl Iterator<Item = &ClaimRoute> {
        let traffic = self.spec.strategy.canary.traffic.as_ref();
        traffic.into_iter().flat_map(|traffic| &traffic.routes)
    }

    /// Whether this Rollout claims a Service of this name.
    #[must_use]
    pub fn claims_service(&self, name: &str) -> bool {
        self.services().any(|service| service == name)
    }

    fn services(&self) -> impl Iterator<Item = &String> {
        let canary = &self.spec.strategy.canary;
        canary.stable_service.iter().chain(&canary.canary_service)
    }

    /// What this Rollout and `other` both claim, in a sentence.
    #[must_use]
    pub fn conflict(&self, other: &Self) -> Option<String> {
        let name = other.name_any();
        if let Some(service) = self
            .services()
            .find(|service| other.services().any(|s| s == *service))
        {
            return Some(format!(
                "Rollout {name} already claims Service {service} (spec.strategy.canary)"
            ));
        }
        let workload = |claim: &Self| claim.spec.workload_ref.as_ref().map(|it| it.name.clone());
        if let Some(workload) = workload(self).filter(|own| workload(other).as_ref() == Some(own)) {
            return Some(format!(
                "Rollout {name} already adopts Deployment {workload} (spec.workloadRef)"
            ));
        }
        // The pods of an adopted workload are known by the workload alone.
        let pods = |a: &Self, b: &Self| {
            !a.spec.selector.is_empty() && a.spec.selector.matches(&b.spec.template.metadata.labels)
        };
        (pods(self, other) || pods(other, self))
            .then(|| format!("Rollout {name} already claims the same pods (spec.selector)"))
    }

    /// Whether `other` may go on once this Rollout is gone: it claims the same, or depends on it.
    #[must_use]
    pub fn held_up(&self, other: &Self) -> bool {
        let waits = other.status.waiting_for.as_deref() == Some(reason::CONFLICT);
        let depends = other.spec.depends_on.contains(&self.name_any());
        self.metadata.namespace == other.metadata.namespace
            && (waits || depends || self.conflict(other).is_some())
    }

    /// Whether a change of it is under way.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        let change = self.status.change.as_ref();
        change.is_some_and(|change| change.outcome.is_none())
    }

    /// Whether nothing serves yet, as far as is known, that could be lost.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.status.stable.is_none() && self.spec.workload_ref.is_none()
    }

    /// Whether this Rollout was there first.
    #[must_use]
    pub fn precedes(&self, other: &Self) -> bool {
        let age = |claim: &Self| {
            (
                claim.metadata.creation_timestamp.clone().map(|at| at.0),
                claim.uid(),
            )
        };
        age(self) < age(other)
    }
}

/// What the watches keep in memory.
#[derive(Clone, Debug)]
pub struct Caches {
    /// Every Rollout's claims.
    pub claims: Store<Claim>,
    /// Every policy; one that cannot be read is kept as an error.
    pub policies: Store<DeserializeGuard<RolloutPolicy>>,
    /// Every namespace's labels.
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
}

impl Caches {
    /// Waits until every cache has been filled once.
    pub async fn ready(&self) -> bool {
        self.claims.wait_until_ready().await.is_ok()
            && self.policies.wait_until_ready().await.is_ok()
            && self.namespaces.wait_until_ready().await.is_ok()
    }
}

/// The running watches: the caches, and the Rollouts that something happened to.
pub struct Watches {
    /// The caches.
    pub caches: Caches,
    /// Rollouts to look at.
    pub triggers: mpsc::UnboundedReceiver<Trigger>,
    /// Where more of them may be sent.
    pub wake: mpsc::UnboundedSender<Trigger>,
}

/// The Rollouts that a policy or a Freeze selects: all of them by a selector that is absent, or that this
/// build cannot read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    namespaces: Option<Selector>,
    rollouts: Option<Selector>,
}

impl Scope {
    fn of(freeze: &DynamicObject) -> Self {
        let selector = |name: &str| {
            let found = freeze.data.pointer(&format!("/spec/{name}"))?;
            serde_json::from_value(found.clone()).ok()
        };
        Self {
            namespaces: selector("namespaceSelector"),
            rollouts: selector("rolloutSelector"),
        }
    }

    /// Whether it selects a Rollout. One in a namespace whose labels are not known may be selected.
    #[must_use]
    pub fn selects(&self, claim: &Claim, namespace: Option<&BTreeMap<String, String>>) -> bool {
        let selected = |by: Option<&Selector>, labels: Option<&BTreeMap<String, String>>| {
            by.is_none_or(|by| labels.is_none_or(|labels| by.matches(labels)))
        };
        selected(self.namespaces.as_ref(), namespace)
            && selected(self.rollouts.as_ref(), Some(claim.labels()))
    }
}

/// Which Rollouts to look at.
#[derive(Clone, Debug)]
pub enum Trigger {
    /// The Rollout itself was touched.
    Touched(Arc<Claim>),
    /// The Rollout is gone; others of its namespace may have waited for that.
    Deleted(Arc<Claim>),
    /// A policy that selects these Rollouts has changed.
    Governed(Scope),
    /// A Freeze that selects these Rollouts has changed: it concerns those with a change under way.
    Frozen(Scope),
    /// Something of the Rollout's was touched.
    Related(ObjectRef<Claim>),
    /// Something that concerns all of them was touched.
    All,
}

/// How often it is looked whether a kind of routes is named, or served.
const ROUTES_INTERVAL: Duration = Duration::from_secs(2);

pub(super) fn config() -> watcher::Config {
    // A dead connection is noticed after this time; page by page keeps the first list small.
    watcher::Config::default().timeout(60).page_size(100)
}

/// Starts all watches; they end with the process.
#[must_use]
pub fn start(client: &Client, telemetry: &Arc<Telemetry>) -> Watches {
    let (send, triggers) = mpsc::unbounded_channel();
    let claims = watch_claims(client, telemetry, send.clone());
    let policies = watch_policies(client, telemetry, send.clone());
    let namespaces = watch_namespaces(client, telemetry);
    let mut seen = Seen::default();
    watch_owned(
        "ReplicaSet",
        client,
        telemetry,
        send.clone(),
        move |event| pods_have_news(&mut seen, event),
    );
    watch_owned::<PartialObjectMeta<Job>>("Job", client, telemetry, send.clone(), |_| true);
    watch_wishes::<SignOff>("SignOff", client, telemetry, send.clone());
    watch_wishes::<Intervention>("Intervention", client, telemetry, send.clone());
    for kind in RouteKind::ALL {
        watch_routes(kind, client, telemetry, &claims, send.clone());
    }
    watch_freezes(client, telemetry, send.clone());
    Watches {
        caches: Caches {
            claims,
            policies,
            namespaces,
        },
        triggers,
        wake: send,
    }
}

fn watch_claims(
    client: &Client,
    telemetry: &Arc<Telemetry>,
    send: mpsc::UnboundedSender<Trigger>,
) -> Store<Claim> {
    let (store, writer) = reflector::store();
    let events = watcher(Api::<Claim>::all(client.clone()), config()).modify(strip_claim);
    let mut news = ClaimNews::new(store.clone());
    let mut deployments = Deployments::new(client, telemetry, store.clone(), send.clone());
    run(
        "Rollout",
        telemetry,
        reflector::reflector(writer, events),
        move |event| {
            if let watcher::Event::Apply(claim) | watcher::Event::InitApply(claim) = &event {
                deployments.watch_for(claim);
            }
            news.triggers(event)
        },
        send,
    );
    store
}

/// What is news of the Rollouts in a store that is written before each event comes here.
struct ClaimNews {
    store: Store<Claim>,
    seen: Seen,
    /// What was known when the present list began.
    before: Vec<Arc<Claim>>,
}

impl ClaimNews {
    fn new(store: Store<Claim>) -> Self {
        Self {
            store,
            seen: Seen::default(),
            before: Vec::new(),
        }
    }

    fn triggers(&mut self, event: watcher::Event<Claim>) -> Vec<Trigger> {
        match event {
            watcher::Event::Apply(claim) | watcher::Event::InitApply(claim) => {
                // The controller's own status writes change none of it; they need no second look.
                let version = (claim.metadata.generation, claim.annotations());
                let news = self.seen.is_news(&claim.metadata, &version);
                let touched = news.then(|| Trigger::Touched(Arc::new(claim)));
                touched.into_iter().collect()
            }
            watcher::Event::Delete(claim) => vec![self.deleted(Arc::new(claim))],
            // The store has its old content until the new list is complete.
            watcher::Event::Init => {
                self.before = self.store.state();
                Vec::new()
            }
            // What was deleted while the watch was away leaves no event: it is missing in the list.
            watcher::Event::InitDone => {
                let mut before = std::mem::take(&mut self.before);
                before.retain(|claim| {
                    let now = self.store.get(&ObjectRef::from_obj(&**claim));
                    now.is_none_or(|now| now.metadata.uid != claim.metadata.uid)
                });
                before.into_iter().map(|it| self.deleted(it)).collect()
            }
        }
    }

    fn deleted(&mut self, claim: Arc<Claim>) -> Trigger {
        self.seen.forget(&claim.metadata);
        Trigger::Deleted(claim)
    }
}

/// Keeps what conflicts need, and of the annotations only whether they change.
fn strip_claim(claim: &mut Claim) {
    claim.metadata.managed_fields = None;
    let annotations = claim.metadata.annotations.take().unwrap_or_default();
    let annotations = hash(&annotations).to_string();
    claim.metadata.annotations = Some(BTreeMap::from([(String::new(), annotations)]));
}

fn watch_policies(
    client: &Client,
    telemetry: &Arc<Telemetry>,
    send: mpsc::UnboundedSender<Trigger>,
) -> Store<DeserializeGuard<RolloutPolicy>> {
    let (store, writer) = reflector::store();
    let events = watcher(
        Api::<DeserializeGuard<RolloutPolicy>>::all(client.clone()),
        config(),
    );
    let mut scopes = Scopes::default();
    let scope = |it: &DeserializeGuard<RolloutPolicy>| {
        let policy = it.0.as_ref();
        policy.map_or_else(
            |_| Scope::default(),
            |policy| Scope {
                namespaces: policy.spec.namespace_selector.clone(),
                rollouts: policy.spec.rollout_selector.clone(),
            },
        )
    };
    run(
        "RolloutPolicy",
        telemetry,
        reflector::reflector(writer, events),
        move |event| {
            let changed = scopes.changed(&event, scope);
            changed.into_iter().map(Trigger::Governed)
        },
        send,
    );
    store
}

/// What was last seen of objects that select Rollouts, by their uids: the scope and the generation.
#[derive(Default)]
struct Scopes {
    known: BTreeMap<Option<String>, (Scope, Option<i64>)>,
    /// What was known when the present list began, but for what it has named so far.
    before: BTreeMap<Option<String>, (Scope, Option<i64>)>,
    listed: bool,
}

impl Scopes {
    /// The scopes that an object had before and has now, where an event has changed it.
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
                // At the start all Rollouts are looked at anyway.
                let news = self.listed && before.as_ref() != Some(&now);
                news.then(|| vec![before, Some(now)])
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
) -> Store<PartialObjectMeta<Namespace>> {
    let (store, writer) = reflector::store();
    let events = watcher(
        Api::<PartialObjectMeta<Namespace>>::all(client.clone()),
        config(),
    )
    .modify(|namespace| {
        namespace.metadata.managed_fields = None;
        namespace.metadata.annotations = None;
    });
    let (send, _) = mpsc::unbounded_channel();
    run(
        "Namespace",
        telemetry,
        reflector::reflector(writer, events),
        |_| None::<Trigger>,
        send,
    );
    store
}

/// What was last seen of objects, by hashes of their uids: many of them are remembered.
#[derive(Default)]
struct Seen(BTreeMap<u64, u64>);

impl Seen {
    fn key(metadata: &ObjectMeta) -> u64 {
        hash(&metadata.uid)
    }

    /// Whether it is another than what was last seen of the object, by its metadata that people and
    /// controllers set and by this.
    fn is_news(&mut self, metadata: &ObjectMeta, version: &impl Hash) -> bool {
        let deleted = metadata.deletion_timestamp.is_some();
        let owners = metadata.owner_references.iter().flatten();
        let owners: Vec<_> = owners.map(|owner| &owner.uid).collect();
        let version = hash(&(deleted, owners, &metadata.labels, version));
        self.0.insert(Self::key(metadata), version) != Some(version)
    }

    fn knows(&self, metadata: &ObjectMeta) -> bool {
        self.0.contains_key(&Self::key(metadata))
    }

    fn forget(&mut self, metadata: &ObjectMeta) {
        self.0.remove(&Self::key(metadata));
    }
}

fn hash(it: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    it.hash(&mut hasher);
    hasher.finish()
}

/// A ReplicaSet reduced to what a decision depends on.
#[derive(Resource, Clone, Debug, Default, Deserialize, Serialize)]
#[resource(inherit = "ReplicaSet")]
#[serde(default)]
struct Pods {
    metadata: ObjectMeta,
    spec: PodsAsked,
    status: PodsThere,
}

#[derive(Clone, Debug, Default, Hash, Deserialize, Serialize)]
#[serde(default)]
struct PodsAsked {
    replicas: i32,
}

#[derive(Clone, Debug, Default, Hash, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
struct PodsThere {
    replicas: i32,
    available_replicas: i32,
    conditions: Vec<PodsTrouble>,
}

#[derive(Clone, Debug, Default, Hash, Deserialize, Serialize)]
#[serde(default)]
struct PodsTrouble {
    r#type: String,
    status: String,
    message: String,
}

impl Pods {
    /// What must change for another decision: not how many pods have begun to start, but that the last
    /// one is gone.
    fn version(&self) -> impl Hash {
        let Self { spec, status, .. } = self;
        let gone = spec.replicas == 0 && status.replicas == 0;
        (spec, gone, status.available_replicas, &status.conditions)
    }

    /// Whether it was only just made, as the controller does it, and nothing has come of it.
    fn is_blank(&self) -> bool {
        self.status.available_replicas == 0 && self.status.conditions.is_empty()
    }
}

/// Whether something of a ReplicaSet has changed that a decision depends on.
fn pods_have_news(seen: &mut Seen, event: &watcher::Event<Pods>) -> bool {
    match event {
        watcher::Event::Apply(it) => {
            let made = !seen.knows(&it.metadata) && it.is_blank();
            seen.is_news(&it.metadata, &it.version()) && !made
        }
        watcher::Event::Delete(it) => {
            seen.forget(&it.metadata);
            true
        }
        watcher::Event::Init => {
            *seen = Seen::default();
            false
        }
        watcher::Event::InitApply(it) => seen.is_news(&it.metadata, &it.version()),
        watcher::Event::InitDone => true,
    }
}

/// Watches what the controller makes for single Rollouts; what is no news wakes nobody.
fn watch_owned<K>(
    kind: &'static str,
    client: &Client,
    telemetry: &Arc<Telemetry>,
    send: mpsc::UnboundedSender<Trigger>,
    mut is_news: impl FnMut(&watcher::Event<K>) -> bool + Send + 'static,
) where
    K: Resource<DynamicType = ()> + std::fmt::Debug + Clone + DeserializeOwned + Send + 'static,
{
    let config = config().labels(&format!("{MANAGED_BY_LABEL}={MANAGER}"));
    let events = watcher(Api::<K>::all(client.clone()), config);
    let mut listed_before = false;
    run(
        kind,
        telemetry,
        events,
        move |event| {
            let is_news = is_news(&event);
            match event {
                watcher::Event::Apply(it) | watcher::Event::Delete(it) if is_news => {
                    owner(it.meta()).map(Trigger::Related)
                }
                // What vanished while the watch was away leaves no event, so all are looked at; at
                // the start they are anyway.
                watcher::Event::InitDone => {
                    std::mem::replace(&mut listed_before, true).then_some(Trigger::All)
                }
                _ => None,
            }
        },
        send,
    );
}

/// Watches what people want of single Rollouts. One that was answered is the controller's own write.
fn watch_wishes<K: Resource<DynamicType = ()>>(
    kind: &'static str,
    client: &Client,
    telemetry: &Arc<Telemetry>,
    send: mpsc::UnboundedSender<Trigger>,
) {
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let mut listed_before = false;
    run(
        kind,
        telemetry,
        watcher(api, config()),
        move |event| match event {
            watcher::Event::Apply(it) if it.data.pointer("/status/conditions/0").is_none() => {
                concerned(&it)
            }
            watcher::Event::Delete(it) => concerned(&it),
            watcher::Event::Apply(_) | watcher::Event::InitApply(_) | watcher::Event::Init => None,
            watcher::Event::InitDone => {
                std::mem::replace(&mut listed_before, true).then_some(Trigger::All)
            }
        },
        send,
    );
}

fn concerned(wish: &DynamicObject) -> Option<Trigger> {
    let rollout = wish.data.pointer("/spec/rollout")?.as_str()?;
    let namespace = wish.namespace()?;
    Some(Trigger::Related(ObjectRef::new(rollout).within(&namespace)))
}

fn watch_freezes(
    client: &Client,
    telemetry: &Arc<Telemetry>,
    send: mpsc::UnboundedSender<Trigger>,
) {
    let resource = ApiResource::erase::<Freeze>(&());
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let mut scopes = Scopes::default();
    run(
        "Freeze",
        telemetry,
        watcher(api, config()),
        move |event| {
            let changed = scopes.changed(&event, Scope::of);
            changed.into_iter().map(Trigger::Frozen)
        },
        send,
    );
}

/// Watches routes of one kind from when a Rollout names one: most clusters have few of the kinds, and a
/// watch on one that is not installed only fails.
fn watch_routes(
    kind: RouteKind,
    client: &Client,
    telemetry: &Arc<Telemetry>,
    claims: &Store<Claim>,
    send: mpsc::UnboundedSender<Trigger>,
) {
    let (client, telemetry, claims) = (client.clone(), telemetry.clone(), claims.clone());
    let names = move |claim: &Claim, name: Option<&str>| {
        let mut routes = claim.routes();
        routes.any(|it| it.kind == kind.as_str() && name.is_none_or(|name| it.name == name))
    };
    let concerned = {
        let claims = claims.clone();
        move |route: &PartialObjectMeta<DynamicObject>| {
            let (namespace, name) = (route.namespace(), route.name_any());
            let name = name.strip_suffix("-testers").unwrap_or(&name);
            let known = claims.state();
            let own = known
                .iter()
                .filter(|claim| claim.namespace() == namespace && names(claim, Some(name)));
            let related = own.map(|claim| Trigger::Related(ObjectRef::from_obj(&**claim)));
            related.collect::<Vec<_>>()
        }
    };
    tokio::spawn(async move {
        let mut told = false;
        let versions = kind.api_versions().iter().cycle();
        for version in versions {
            while !claims.state().iter().any(|claim| names(claim, None)) {
                tokio::time::sleep(ROUTES_INTERVAL).await;
            }
            let resource = routes::resource(version, kind.as_str());
            let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(client.clone(), &resource);
            let mut events = watcher(api, config()).boxed();
            // Until it fails: it may be served in another version, or not at all.
            while let Some(event) = events.next().await {
                match event {
                    Ok(watcher::Event::Apply(route) | watcher::Event::Delete(route)) => {
                        told = false;
                        telemetry.watch_event(kind.as_str());
                        for trigger in concerned(&route) {
                            // The receiver is gone only when the process ends.
                            let _ = send.send(trigger);
                        }
                    }
                    Ok(watcher::Event::InitDone) => {
                        telemetry.watch_event(kind.as_str());
                        let claims = claims.state();
                        for claim in claims.iter().filter(|claim| names(claim, None)) {
                            let _ = send.send(Trigger::Related(ObjectRef::from_obj(&**claim)));
                        }
                    }
                    Ok(_) => {}
                    Err(error) => {
                        telemetry.watch_error(kind.as_str());
                        // Said once, as it is tried again soon. That nobody serves the kind is no news.
                        if !told && !is_unserved(&error) {
                            tracing::warn!(%kind, version, %error, "watch failed; it is tried again");
                            told = true;
                        }
                        break;
                    }
                }
            }
            tokio::time::sleep(ROUTES_INTERVAL).await;
        }
    });
}

/// Whether a watch fails because its kind is not served in this version.
fn is_unserved(error: &watcher::Error) -> bool {
    // Of a path that is not served the answer has no reason, but a code.
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404)
}

fn owner(metadata: &ObjectMeta) -> Option<ObjectRef<Claim>> {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    let owner = owners
        .iter()
        .find(|owner| owner.controller == Some(true) && owner.kind == "Rollout")?;
    Some(ObjectRef::new(&owner.name).within(metadata.namespace.as_deref()?))
}

/// Longest pause before a watch is tried again: an API server that is back must not be waited for.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The usual growing pauses of a watch, but none so long that a rollback would notice.
#[derive(Default)]
struct Brief(watcher::DefaultBackoff);

impl Iterator for Brief {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|pause| pause.min(LONGEST_PAUSE))
    }
}

impl Backoff for Brief {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// Runs one watch for ever: errors are counted and waited out, events become triggers.
pub(super) fn run<K, T>(
    kind: &'static str,
    telemetry: &Arc<Telemetry>,
    events: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + 'static,
    mut triggers: impl FnMut(watcher::Event<K>) -> T + Send + 'static,
    send: mpsc::UnboundedSender<Trigger>,
) where
    K: Send + 'static,
    T: IntoIterator<Item = Trigger>,
{
    let telemetry = telemetry.clone();
    tokio::spawn(async move {
        let mut events = events.backoff(Brief::default()).boxed();
        loop {
            match events.try_next().await {
                Ok(Some(event)) => {
                    telemetry.watch_event(kind);
                    for trigger in triggers(event) {
                        // The receiver is gone only when the process ends.
                        let _ = send.send(trigger);
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    telemetry.watch_error(kind);
                    tracing::warn!(kind, %error, "watch failed; it is tried again");
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(name: &str, uid: &str) -> Claim {
        let metadata = json!({ "name": name, "namespace": "shop", "uid": uid, "generation": 1 });
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    #[test]
    fn what_was_deleted_while_the_watch_was_away_is_told_from_the_new_list() {
        let (store, mut writer) = reflector::store();
        let mut news = ClaimNews::new(store);
        let mut on = |event: watcher::Event<Claim>| {
            writer.apply_watcher_event(&event);
            let triggers = news.triggers(event);
            let words = triggers.iter().map(|trigger| match trigger {
                Trigger::Touched(it) => format!("touched {}", it.name_any()),
                Trigger::Deleted(it) => format!("deleted {}", it.uid().unwrap()),
                other => format!("{other:?}"),
            });
            words.collect::<Vec<_>>()
        };
        let list = |on: &mut dyn FnMut(watcher::Event<Claim>) -> Vec<String>, claims: &[Claim]| {
            let mut words = on(watcher::Event::Init);
            for claim in claims {
                words.extend(on(watcher::Event::InitApply(claim.clone())));
            }
            words.extend(on(watcher::Event::InitDone));
            words
        };
        let all = [claim("a", "1"), claim("b", "2"), claim("c", "3")];
        let first = list(&mut on, &all);
        assert_eq!(first, ["touched a", "touched b", "touched c"]);
        assert_eq!(list(&mut on, &all), [""; 0], "nothing is news");
        let fewer = [claim("a", "1"), claim("c", "4")];
        let mut words = list(&mut on, &fewer);
        words.sort();
        assert_eq!(words, ["deleted 2", "deleted 3", "touched c"]);
        // A list that breaks off is begun anew.
        assert_eq!(on(watcher::Event::Init), [""; 0]);
        assert_eq!(on(watcher::Event::InitApply(claim("a", "1"))), [""; 0]);
        assert_eq!(list(&mut on, &fewer[1..]), ["deleted 1"]);
        assert_eq!(on(watcher::Event::Apply(claim("b", "2"))), ["touched b"]);
    }

    fn freeze(uid: &str, generation: i64, team: Option<&str>) -> DynamicObject {
        let selector = team.map_or(
            Value::Null,
            |team| json!({ "matchLabels": { "team": team } }),
        );
        serde_json::from_value(json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "Freeze",
            "metadata": { "name": "freeze", "uid": uid, "generation": generation },
            "spec": { "rolloutSelector": selector },
        }))
        .unwrap()
    }

    #[test]
    fn an_edit_concerns_what_the_old_and_the_new_object_select() {
        let mut scopes = Scopes::default();
        let teams = |scopes: &mut Scopes, event: watcher::Event<DynamicObject>| {
            let changed = scopes.changed(&event, Scope::of);
            let team = |it: Scope| it.rollouts.map(|it| it.match_labels["team"].clone());
            let teams: Vec<_> = changed.into_iter().map(team).collect();
            teams
        };
        let (a, b) = (Some("a".to_owned()), Some("b".to_owned()));
        let first = freeze("1", 1, Some("a"));
        for event in [
            watcher::Event::Init,
            watcher::Event::InitApply(first.clone()),
            watcher::Event::InitDone,
            watcher::Event::Apply(first.clone()),
        ] {
            assert_eq!(
                teams(&mut scopes, event),
                [],
                "all are looked at at the start"
            );
        }
        let second = freeze("1", 2, Some("b"));
        let edited = teams(&mut scopes, watcher::Event::Apply(second.clone()));
        assert_eq!(edited, [a, b.clone()]);
        let everybody = freeze("2", 1, None);
        assert_eq!(
            teams(&mut scopes, watcher::Event::Apply(everybody.clone())),
            [None]
        );
        // While the watch was away the first was deleted and the other edited.
        assert_eq!(teams(&mut scopes, watcher::Event::Init), []);
        let news = freeze("2", 2, None);
        assert_eq!(
            teams(&mut scopes, watcher::Event::InitApply(news)),
            [None, None]
        );
        assert_eq!(teams(&mut scopes, watcher::Event::InitDone), [b]);
        assert_eq!(
            teams(&mut scopes, watcher::Event::Delete(everybody)),
            [None]
        );
    }
}
