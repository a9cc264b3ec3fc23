//! The caches of the watches.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use countersign_api::{MANAGED_BY_LABEL, MANAGER, Rollout, RolloutRun};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use crate::api_server::sentence;
use crate::timing::{CACHES_POLL, LEASE_RETRY};
use crate::watch::cache::{Cache, Listed, ends_watch, integer};
use crate::watch::claim::Claim;
use crate::watch::pruned::{rollout, rollout_of_label, rollout_of_set};
use crate::watch::records::rollout_of_record;
use crate::watch::routes::Routes;
use crate::watch::watched::{WatchedFreeze, WatchedPolicy, WatchedTemplate};

/// Objects per page of the lists of a new leader: each may have 256 KiB of annotations, also one that a tenant made.
const PAGE: u32 = 100;

/// The caches of the watches.
#[derive(Clone, Debug)]
pub struct Caches {
    /// Every Rollout's claims.
    pub claims: Store<Claim>,
    /// What the controller writes itself.
    pub written: Written,
    /// For which attempts there are `SignOff`s.
    pub sign_offs: Cache,
    /// For which attempts there are Interventions.
    pub interventions: Cache,
    /// The ready pods behind every Service.
    pub endpoints: Cache,
    /// Every policy.
    pub policies: Store<WatchedPolicy>,
    /// Every Freeze.
    pub freezes: Store<WatchedFreeze>,
    /// Whether Freezes are not listed yet, or may have changed unseen.
    pub freezes_gap: Gap,
    /// Every AnalysisTemplate without its spec, for its status alone.
    pub templates: Store<WatchedTemplate>,
    /// The specs of AnalysisTemplates.
    pub template_specs: Cache,
    /// Every namespace's labels.
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
    /// Whether policies or namespaces may have changed unseen.
    pub gaps: [Gap; 2],
}

/// The caches of what the controller writes, which have to reach own writes.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Every Rollout as a whole.
    pub rollouts: Cache,
    /// The ReplicaSets that the controller owns.
    pub replica_sets: Cache,
    /// The Jobs that the controller owns.
    pub jobs: Cache,
    /// The records of changes, without their templates.
    pub records: Cache,
    /// Every Service.
    pub services: Cache,
    /// The routes and DestinationRules that Rollouts name.
    pub routes: Routes,
}

/// Whether a cache may miss changes: the API server ended its watch for good, and the objects are not
/// listed again yet.
#[derive(Clone, Debug, Default)]
pub struct Gap(Arc<AtomicBool>);

impl Gap {
    /// The gap before the first list.
    pub(super) fn unlisted() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    /// Notes what an event or error of the watch says about its cache.
    pub(super) fn note<K>(&self, event: &Result<watcher::Event<K>, watcher::Error>) {
        match event {
            Ok(watcher::Event::InitDone) => self.0.store(false, Ordering::Release),
            Err(error) if ends_watch(error) => self.0.store(true, Ordering::Release),
            _ => {}
        }
    }

    /// Whether it is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Caches {
    /// Waits until every cache that decisions use has been filled once.
    pub async fn ready(&self) -> bool {
        self.claims.wait_until_ready().await.is_ok()
            && self.policies.wait_until_ready().await.is_ok()
            && self.namespaces.wait_until_ready().await.is_ok()
    }

    /// Opens the caches of what leaders write, once they are listed and it is known what other leaders have written; routes are
    /// listed again.
    pub async fn open(&self, client: &Client) {
        self.written.routes.lead();
        let rollouts = Api::<Rollout>::all(client.clone());
        let sets = Api::<ReplicaSet>::all(client.clone());
        let records = Api::<RolloutRun>::all(client.clone());
        let jobs = Api::<Job>::all(client.clone());
        let all = ListParams::default().limit(PAGE);
        let owned = all.clone().labels(&format!("{MANAGED_BY_LABEL}={MANAGER}"));
        tokio::join!(
            open(&self.written.rollouts, &rollouts, &all, |it| {
                Some(listed(it, rollout(it)))
            }),
            // One without the label by which they are watched is never reported, so that its Rollout's are read.
            open(&self.written.replica_sets, &sets, &all, |it| {
                let set = listed(it, Some(rollout_of_set(it)?));
                let version = set.version.filter(|_| is_managed(it));
                Some(Listed { version, ..set })
            }),
            open(&self.written.records, &records, &all, |it| {
                Some(listed(it, rollout_of_record(it)))
            }),
            open(&self.written.jobs, &jobs, &owned, |it| {
                Some(listed(it, rollout_of_label(it)))
            }),
        );
    }

    /// Why it is not known at present which policies govern a Rollout.
    #[must_use]
    pub fn policies_unknown(&self) -> Option<String> {
        self.gaps.iter().any(Gap::is_open).then(|| {
            "the API server ended a watch, and RolloutPolicies and namespaces are not listed again yet"
                .into()
        })
    }
}

/// What a cache has to reach of an object; `None` if it is no object of the controller.
type Reach = fn(&ObjectMeta) -> Option<Listed>;

/// An object of this Rollout, if it is known, as its cache names it.
fn listed(metadata: &ObjectMeta, rollout: Option<String>) -> Listed {
    Listed {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
        rollout: rollout.unwrap_or_default(),
        version: integer(metadata.resource_version.as_deref()),
    }
}

/// Whether an object has the label by which those of the controller are watched.
fn is_managed(metadata: &ObjectMeta) -> bool {
    let labels = metadata.labels.as_ref();
    labels.is_some_and(|it| it.get(MANAGED_BY_LABEL).is_some_and(|it| it == MANAGER))
}

/// Opens one cache, by the versions of the objects that it has to reach.
async fn open<K>(cache: &Cache, api: &Api<K>, of: &ListParams, reach: Reach)
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    while !cache.is_complete() {
        tokio::time::sleep(CACHES_POLL).await;
    }
    while let Err(error) = try_open(cache, api, of, reach).await {
        tracing::warn!(error = %sentence(&error), "the versions of objects could not be listed; until then Rollouts are read");
        tokio::time::sleep(LEASE_RETRY).await;
    }
}

async fn try_open<K>(
    cache: &Cache,
    api: &Api<K>,
    of: &ListParams,
    reach: Reach,
) -> Result<(), kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let since = Instant::now();
    let mut page = of.clone();
    let mut all = Vec::new();
    loop {
        let list = api.list_metadata(&page).await?;
        all.extend(list.items.iter().filter_map(|it| reach(&it.metadata)));
        let more = list.metadata.continue_.filter(|token| !token.is_empty());
        let Some(token) = more else {
            let version = integer(list.metadata.resource_version.as_deref());
            cache.open(since, version.unwrap_or_default(), all);
            return Ok(());
        };
        page = page.continue_token(&token);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use countersign_api::{Intervention, SignOff};
    use kube::core::{DynamicObject, Status};
    use kube::runtime::reflector::{self, store::Writer};
    use serde_json::Value;

    use super::*;
    use crate::watch::cache::Cached;
    use crate::watch::changes::Pods;
    use crate::watch::endpoints::ReadyPods;
    use crate::watch::records::WatchedRecord;
    use crate::watch::requests::Request;
    use crate::watch::services::WatchedService;

    impl Cache {
        /// A list of these RolloutRuns.
        pub(crate) fn list_records(&self, records: Vec<Value>) {
            list::<WatchedRecord>(self, records);
        }

        /// A list of these AnalysisTemplates.
        pub(crate) fn list_templates(&self, templates: Vec<Value>) {
            list::<WatchedTemplate>(self, templates);
        }
    }

    impl Caches {
        /// A list of these Rollouts and ReplicaSets, of no Job and of no record.
        pub(crate) fn list(&self, rollouts: Vec<Value>, sets: Vec<Value>) {
            list::<Claim>(&self.written.rollouts, rollouts);
            list::<Pods>(&self.written.replica_sets, sets);
            self.list_jobs(Vec::new());
            self.written.records.list_records(Vec::new());
        }

        /// A list of these Jobs.
        pub(crate) fn list_jobs(&self, jobs: Vec<Value>) {
            list::<PartialObjectMeta<Job>>(&self.written.jobs, jobs);
        }

        /// A list of these `SignOff`s and Interventions.
        pub(crate) fn list_requests(&self, sign_offs: Vec<Value>, interventions: Vec<Value>) {
            list::<Request<SignOff>>(&self.sign_offs, sign_offs);
            list::<Request<Intervention>>(&self.interventions, interventions);
        }

        /// A list of these Services.
        pub(crate) fn list_services(&self, services: Vec<Value>) {
            list::<WatchedService>(&self.written.services, services);
        }

        /// A list of these EndpointSlices.
        pub(crate) fn list_endpoints(&self, slices: Vec<Value>) {
            list::<ReadyPods>(&self.endpoints, slices);
        }

        /// A leader's list of these routes or DestinationRules.
        pub(crate) fn list_routes(&self, kind: &str, routes: Vec<Value>) {
            let cache = self.written.routes.of(kind);
            cache.open(Instant::now(), 0, Vec::new());
            list::<DynamicObject>(&cache, routes);
        }

        /// An event about an HTTPRoute.
        pub(crate) fn report_route(&self, route: Value) {
            let kept = serde_json::from_value(route).unwrap();
            let event = Ok(watcher::Event::Apply(kept));
            let cache = self.written.routes.of("HTTPRoute");
            cache.take::<DynamicObject>(event).unwrap();
        }

        /// An event about a ReplicaSet.
        pub(crate) fn report_set(&self, set: Value) {
            let kept = serde_json::from_value(set).unwrap();
            let event = Ok(watcher::Event::Apply(kept));
            self.written.replica_sets.take::<Pods>(event).unwrap();
        }

        /// An event about a RolloutRun.
        pub(crate) fn report_record(&self, record: Value) {
            let kept = serde_json::from_value(record).unwrap();
            let event = Ok(watcher::Event::Apply(kept));
            self.written.records.take::<WatchedRecord>(event).unwrap();
        }

        /// An event about a Job.
        pub(crate) fn report_job(&self, job: Value) {
            let kept = serde_json::from_value(job).unwrap();
            let event = Ok(watcher::Event::Apply(kept));
            self.written
                .jobs
                .take::<PartialObjectMeta<Job>>(event)
                .unwrap();
        }

        /// An event about a Rollout.
        pub(crate) fn report_rollout(&self, rollout: Value) {
            let kept = serde_json::from_value(rollout).unwrap();
            let event = Ok(watcher::Event::Apply(kept));
            self.written.rollouts.take::<Claim>(event).unwrap();
        }
    }

    fn list<K: Cached>(cache: &Cache, all: Vec<Value>) {
        let all = all.into_iter();
        let all = all.map(|it| watcher::Event::InitApply(serde_json::from_value(it).unwrap()));
        let events = std::iter::once(watcher::Event::Init).chain(all);
        for event in events.chain([watcher::Event::InitDone]) {
            cache.take::<K>(Ok(event)).unwrap();
        }
    }

    fn fill<K>(mut writer: Writer<K>)
    where
        K: kube::Resource<DynamicType = ()> + Clone + 'static,
    {
        writer.apply_watcher_event(&watcher::Event::Init);
        writer.apply_watcher_event(&watcher::Event::InitDone);
    }

    #[tokio::test]
    async fn nothing_waits_for_what_serves_statuses_alone() {
        let (claims, of_claims) = reflector::store();
        let (policies, of_policies) = reflector::store();
        let (namespaces, of_namespaces) = reflector::store();
        // Their lists are refused, and so never complete.
        let (freezes, _of_freezes) = reflector::store();
        let (templates, _of_templates) = reflector::store();
        let caches = Caches {
            claims,
            written: Written::default(),
            sign_offs: Cache::opened(),
            interventions: Cache::opened(),
            endpoints: Cache::opened(),
            policies,
            freezes,
            freezes_gap: Gap::unlisted(),
            templates,
            template_specs: Cache::opened(),
            namespaces,
            gaps: Default::default(),
        };
        fill(of_claims);
        fill(of_policies);
        fill(of_namespaces);
        let ready = tokio::time::timeout(Duration::from_secs(10), caches.ready());
        assert!(ready.await.unwrap());
    }

    #[test]
    fn a_cache_misses_changes_from_an_ended_watch_until_its_objects_are_listed() {
        type Event = Result<watcher::Event<()>, watcher::Error>;
        let ended = |code| -> Event {
            let status = Status::failure("too old resource version", "Expired").with_code(code);
            Err(watcher::Error::WatchError(Box::new(status)))
        };
        let gap = Gap::default();
        for (event, open) in [
            (ended(500), false),
            (ended(410), true),
            (Ok(watcher::Event::Init), true),
            (Ok(watcher::Event::InitApply(())), true),
            (Ok(watcher::Event::InitDone), false),
            (Ok(watcher::Event::Apply(())), false),
        ] {
            gap.note(&event);
            assert_eq!(gap.is_open(), open, "{event:?}");
        }
    }
}
