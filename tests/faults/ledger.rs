//! An independent witness: records every version of every object of a namespace, in the API server's
//! order, and checks the laws on them. It shares no code with the operator's decisions and bypasses every
//! proxy. Versions during a gap of its own watch are not checked.

mod laws;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use countersign_api::rollout::{Change, Outcome, RolloutStatus, Stage};
use countersign_api::{
    CHANGED_BY_ANNOTATION, HASH_LABEL, REVISION_ANNOTATION, Rollout, SignOffDecision, SignOffSpec,
};
use countersign_cluster::Cluster;
use futures::TryStreamExt as _;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use laws::{State, judge, rise};

/// The watched kinds; the last one if it is installed.
const KINDS: [(&str, &str, &str); 6] = [
    ("countersign.dev", "v1alpha1", "Rollout"),
    ("countersign.dev", "v1alpha1", "RolloutRun"),
    ("countersign.dev", "v1alpha1", "SignOff"),
    ("apps", "v1", "ReplicaSet"),
    ("", "v1", "Service"),
    ("gateway.networking.k8s.io", "v1", "HTTPRoute"),
];

/// Versions older than this are in order: no watch is later.
const LATE: Duration = Duration::from_secs(10);
/// Delay before a broken watch is reopened; versions in the gap are not checked.
const BLINK: Duration = Duration::from_millis(100);
/// Lines of a Rollout's history that are kept.
const LINES: usize = 300;

/// One version of one object.
#[derive(Clone, Debug)]
struct Entry {
    version: u64,
    kind: &'static str,
    /// The Rollout that it belongs to.
    rollout: String,
    object: DynamicObject,
    deleted: bool,
    came: Instant,
    /// Unix time of its arrival, in seconds.
    time: f64,
}

/// A change left one of its steps for more traffic or for promotion.
#[derive(Clone, Debug)]
struct Rise {
    rollout: String,
    time: f64,
    hash: String,
    from: i32,
    /// Requests to the canary that the step requires.
    least: i64,
}

/// The recorded versions, and the broken laws.
pub struct Ledger {
    book: Arc<Mutex<Book>>,
    _watching: DropGuard,
}

#[derive(Default)]
struct Book {
    /// Versions that may still be out of order.
    recent: BTreeMap<(u64, String), Entry>,
    newest: u64,
    /// The newest version of each object.
    last: BTreeMap<String, u64>,
    /// Version ranges (exclusive, inclusive) in which one of a Rollout may have been missed.
    unseen: Vec<(String, u64, u64)>,
    seen: BTreeMap<String, State>,
    rises: Vec<Rise>,
    broken: Vec<String>,
}

impl Book {
    /// Enters a version; a list has only the newest one.
    fn enter(&mut self, entry: Entry, listed: bool) {
        self.newest = self.newest.max(entry.version);
        let object = format!("{}/{}", entry.kind, entry.object.name_any());
        let last = self.last.insert(object.clone(), entry.version);
        if let Some(last) = last.filter(|last| listed && *last < entry.version) {
            self.unseen
                .push((entry.rollout.clone(), last, entry.version));
        }
        self.recent.insert((entry.version, object), entry);
    }

    /// Whether the known state of the Rollout may have been stale at that version.
    fn is_unseen(&self, entry: &Entry) -> bool {
        let mut unseen = self.unseen.iter();
        unseen.any(|(rollout, after, until)| {
            *rollout == entry.rollout && (*after + 1..=*until).contains(&entry.version)
        })
    }

    /// Checks the versions before this time, in order.
    fn judge(&mut self, until: Instant) {
        while let Some(first) = self
            .recent
            .first_entry()
            .filter(|it| it.get().came <= until)
        {
            let entry = first.remove();
            let unseen = self.is_unseen(&entry);
            let after = self.seen.entry(entry.rollout.clone()).or_default();
            let before = after.clone();
            after.take(&entry);
            if unseen {
                continue;
            }
            self.rises.extend(rise(&before, after, &entry));
            let found = judge(&before, after, &entry).into_iter();
            let found = found.map(|it| format!("{} at {}: {it}", entry.rollout, entry.version));
            self.broken.extend(found);
        }
    }
}

/// The final state of a Rollout, as far as it must not depend on faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finale {
    /// Phase of the Rollout.
    pub phase: String,
    /// The stable revision.
    pub stable: i64,
    /// Weights of the change, in order, from its first step on.
    pub weights: Vec<i32>,
    /// Pods by revision; those without any are left out.
    pub pods: BTreeMap<i64, i32>,
    /// The outcome of each revision, by its RolloutRun.
    pub outcomes: BTreeMap<i64, String>,
    /// The revision that each Service selects.
    pub services: BTreeMap<String, i64>,
    /// The canary's weight in the route.
    pub route: Option<i64>,
}

impl Ledger {
    pub fn open(cluster: &Cluster, namespace: &str, routed: bool) -> Self {
        let book = Arc::new(Mutex::new(Book::default()));
        let end = CancellationToken::new();
        for (group, version, kind) in KINDS.into_iter().take(if routed { 6 } else { 5 }) {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            let api = Api::namespaced_with(cluster.client(), namespace, &resource);
            let watching = watch(api, kind, book.clone());
            let end = end.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = watching => {}
                    () = end.cancelled() => {}
                }
            });
        }
        Self {
            book,
            _watching: end.drop_guard(),
        }
    }

    /// The ledger, as far as it is in order; all of it if `over`.
    fn read(&self, over: bool) -> MutexGuard<'_, Book> {
        let mut book = self.book.lock().unwrap();
        let now = Instant::now();
        book.judge(if over {
            now
        } else {
            now.checked_sub(LATE).unwrap_or(now)
        });
        book
    }

    /// Checks the ordered versions, so that they need not be kept.
    pub fn keep_small(&self) {
        drop(self.read(false));
    }

    /// Waits until nothing that the operator writes has changed for this long.
    pub async fn quiet(&self, silence: Duration, timeout: Duration) -> Result<(), String> {
        let (begun, mut last, mut since) = (Instant::now(), 0, Instant::now());
        while since.elapsed() < silence {
            let newest = self.book.lock().unwrap().newest;
            if newest != last {
                (last, since) = (newest, Instant::now());
            }
            if begun.elapsed() >= timeout {
                return Err("the cluster does not come to rest".into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// The state of a Rollout.
    pub fn finale(&self, name: &str) -> Finale {
        let book = self.read(true);
        let seen = book.seen.get(name).cloned().unwrap_or_default();
        let status = seen.status().cloned().unwrap_or_default();
        let revision = |hash: &String| {
            let set = seen.sets.values().find(|set| set.hash == *hash);
            set.map(|set| set.revision)
        };
        let serving = seen.sets.values().filter(|set| set.requested > 0);
        let services = seen.services.iter();
        Finale {
            phase: format!("{:?}", status.phase),
            stable: status.stable.map_or(0, |stable| stable.revision),
            weights: seen.weights.clone(),
            pods: serving.map(|set| (set.revision, set.requested)).collect(),
            outcomes: seen.runs.clone(),
            services: services
                .filter_map(|(service, hash)| Some((service.clone(), revision(hash.as_ref()?)?)))
                .collect(),
            route: seen.route,
        }
    }

    /// The broken laws, each in a sentence with the version.
    pub fn broken(&self) -> Vec<String> {
        self.read(true).broken.clone()
    }

    /// Laws 3 and 6 by Prometheus itself: before a canary's weight rose, it had the requests that its
    /// step requires, without failures.
    pub async fn rose_on_too_little(&self, cluster: &Cluster, namespace: &str) -> Vec<String> {
        let rises = self.read(true).rises.clone();
        let mut broken = Vec::new();
        for rise in rises {
            let count = async |more: &str| {
                let (hash, time) = (&rise.hash, rise.time);
                let query = format!(
                    "sum(http_requests_total{{namespace='{namespace}',pod_template_hash='{hash}'{more}}} @ {time:.3})"
                );
                let samples = cluster.query(&query).await.unwrap();
                samples.first().map_or(0.0, |(_, count)| *count)
            };
            let (all, failed) = (count("").await, count(",code=~'5..'").await);
            let what = format!(
                "{} left step {} with {failed} of {all}",
                rise.rollout, rise.from
            );
            if all < rise.least as f64 {
                broken.push(format!("law 6: {what} requests, not {}", rise.least));
            }
            if failed * 4.0 > all {
                broken.push(format!("law 3: {what} requests failed"));
            }
        }
        broken
    }

    /// Pods that are requested for a Rollout.
    pub fn pods(&self, name: &str) -> i32 {
        let book = self.read(true);
        let sets = book
            .seen
            .get(name)
            .into_iter()
            .flat_map(|seen| seen.sets.values());
        sets.map(|set| set.requested).sum()
    }

    /// ReplicaSets that belong to no Rollout.
    pub fn orphans(&self) -> usize {
        let book = self.read(true);
        let seen = book.seen.values().filter(|seen| seen.rollout.is_none());
        seen.map(|seen| seen.sets.len()).sum()
    }

    /// The last versions of a Rollout in lines, for debugging.
    pub fn tale(&self, name: &str) -> String {
        let book = self.read(true);
        let lines = book
            .seen
            .get(name)
            .map(|seen| seen.tale.iter().cloned().collect::<Vec<_>>());
        lines.unwrap_or_default().join("\n")
    }
}

/// Enters every version of every object of a kind.
async fn watch(api: Api<DynamicObject>, kind: &'static str, book: Arc<Mutex<Book>>) {
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
    loop {
        let (object, listed, deleted) = match events.try_next().await {
            Ok(Some(watcher::Event::Apply(it))) => (it, false, false),
            Ok(Some(watcher::Event::InitApply(it))) => (it, true, false),
            Ok(Some(watcher::Event::Delete(it))) => (it, false, true),
            Ok(Some(_)) => continue,
            Err(_) => {
                tokio::time::sleep(BLINK).await;
                continue;
            }
            Ok(None) => return,
        };
        let entry = Entry {
            version: object.resource_version().unwrap().parse().unwrap(),
            kind,
            rollout: rollout_of(kind, &object),
            object,
            deleted,
            came: Instant::now(),
            time: now(),
        };
        book.lock().unwrap().enter(entry, listed);
    }
}

fn now() -> f64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
    since.unwrap().as_secs_f64()
}

/// A version as a line.
fn line(entry: &Entry) -> String {
    let value = |path: &str| {
        let value = entry.object.data.pointer(path);
        value.map(ToString::to_string).unwrap_or_default()
    };
    let paths: &[&str] = match entry.kind {
        "Rollout" => &[
            "/spec/replicas",
            "/status/phase",
            "/status/waitingFor",
            "/status/change/stage",
            "/status/change/step",
            "/status/change/weight",
            "/status/change/outcome",
            "/status/message",
        ],
        "ReplicaSet" => &["/spec/replicas", "/status/availableReplicas"],
        "Service" => &["/spec/selector"],
        "HTTPRoute" => &["/spec/rules/0/backendRefs"],
        "SignOff" => &["/spec/decision", "/spec/gate", "/spec/approver/username"],
        _ => &["/spec/progress/outcome"],
    };
    let values: Vec<_> = paths.iter().map(|path| value(path)).collect();
    let deleted = if entry.deleted { " deleted" } else { "" };
    let (version, kind, name) = (entry.version, entry.kind, entry.object.name_any());
    format!("{version} {kind} {name}{deleted} {}", values.join(" "))
}

/// The Rollout that an object belongs to; Services and routes are named after it here.
fn rollout_of(kind: &str, object: &DynamicObject) -> String {
    let name = object.name_any();
    match kind {
        "RolloutRun" | "SignOff" => object
            .data
            .pointer("/spec/rollout")
            .and_then(Value::as_str)
            .unwrap()
            .to_owned(),
        "ReplicaSet" => {
            let owner = object
                .owner_references()
                .iter()
                .find(|owner| owner.controller == Some(true));
            owner.map(|owner| owner.name.clone()).unwrap_or_default()
        }
        _ => name.strip_suffix("-canary").unwrap_or(&name).to_owned(),
    }
}
