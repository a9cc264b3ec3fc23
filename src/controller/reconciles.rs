//! Whole reconciles of a Rollout against a fake API server.

mod bounds;
mod caches;
mod costs;
mod jobs;
mod order;
mod people;
mod pushback;
mod records;
mod tampered;
mod triggers;

use std::sync::Mutex;

use countersign_api::rollout::{Change, RolloutStatus};
use countersign_core::decision::{
    Action as Write, HistoryAction, Notice, TrafficAction, WorkloadAction,
};
use countersign_core::observation::workload::Service as ServiceSeen;
use countersign_core::reason::Reason;
use countersign_core::{Decision, decide};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::*;
use crate::act::{self, Actor, events::Recorder};
use crate::lease::Lease;
use crate::observe::admission::AdmissionCheck;
use crate::observe::dry_runs::DryRuns;
use crate::observe::observer::Observer;
use crate::observe::queue_lock::QueueMutex;
use crate::observe::snapshot::Snapshot;
use crate::prometheus::{Prometheus, PrometheusConfig};
use crate::stand_in::{Fault, ROLLOUTS, RecordedRequest, StandIn};
use crate::telemetry::Telemetry;
use crate::telemetry::server::Reported;
use crate::watch::waiting::Waiting;
use crate::watch::{Cache, Caches, Gap, Scope, Written};

/// An operator without watches, and its API server.
struct Scene {
    server: StandIn,
    context: Arc<Context>,
    claims: kube::runtime::reflector::store::Writer<Claim>,
    policies: kube::runtime::reflector::store::Writer<crate::watch::WatchedPolicy>,
    woken: mpsc::UnboundedReceiver<Trigger>,
}

impl Scene {
    fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = StandIn::new();
        let client = server.client();
        let telemetry = Arc::new(Telemetry::new());
        let lease = Arc::new(Lease::held(client.clone()));
        let (claims_store, claims) = kube::runtime::reflector::store();
        let (namespaces, mut namespace) = kube::runtime::reflector::store();
        let shop =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } });
        namespace.apply_watcher_event(&Event::Apply(serde_json::from_value(shop).unwrap()));
        let written = Written {
            services: Cache::opened(),
            ..Written::default()
        };
        let (policies, of_policies) = kube::runtime::reflector::store();
        let (freezes, _) = kube::runtime::reflector::store();
        let (templates, _) = kube::runtime::reflector::store();
        let (recorder, _) =
            Recorder::start(client.clone(), "test", lease.clone(), telemetry.clone());
        let (wake, woken) = mpsc::unbounded_channel();
        let prometheus = Prometheus::new(&PrometheusConfig::default());
        let context = Context {
            observer: Observer {
                client: client.clone(),
                caches: Caches {
                    claims: claims_store,
                    written: written.clone(),
                    sign_offs: Cache::opened(),
                    interventions: Cache::opened(),
                    endpoints: Cache::opened(),
                    freezes_gap: Gap::default(),
                    policies,
                    freezes,
                    templates,
                    template_specs: Cache::opened(),
                    namespaces,
                    gaps: Default::default(),
                },
                prometheus: prometheus.unwrap(),
                admission: AdmissionCheck::new(client.clone()),
                queue_lock: QueueMutex::default(),
                dry_runs: DryRuns::default(),
                no_fields: Arc::default(),
                from_watches: false,
            },
            actor: Actor {
                client,
                lease,
                telemetry: telemetry.clone(),
                recorder,
                written,
            },
            telemetry,
            failures: Mutex::default(),
            reported: Mutex::default(),
            doubted: Mutex::default(),
            read: Mutex::default(),
            full_read_permits: full_read_permits(),
            pushed_back_until: Mutex::default(),
            waiting: Waiting::new(wake),
        };
        Self {
            server,
            context: Arc::new(context),
            claims,
            policies: of_policies,
            woken,
        }
    }

    /// Creates or updates a Rollout of this name and template.
    fn deploy(&mut self, name: &str, image: &str) -> Arc<Claim> {
        let path = format!("{ROLLOUTS}/{name}");
        let labels = json!({ "app": name });
        let mut rollout = self.server.get(&path).unwrap_or_else(|| {
            json!({
                "apiVersion": "countersign.dev/v1alpha1", "kind": "Rollout",
                "metadata": { "name": name, "creationTimestamp": "2026-01-01T00:00:00Z" },
            })
        });
        rollout["metadata"]["generation"] = json!(1);
        rollout["spec"] = json!({
            "replicas": 1, "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": { "containers": [{ "name": "app", "image": image }] },
            },
        });
        self.server.put(&path, rollout);
        self.claim(name)
    }

    /// The Rollout as a watch would report it now.
    fn claim(&mut self, name: &str) -> Arc<Claim> {
        let stored = self.server.get(&format!("{ROLLOUTS}/{name}")).unwrap();
        let claim: Claim = serde_json::from_value(stored).unwrap();
        self.claims
            .apply_watcher_event(&Event::Apply(claim.clone()));
        Arc::new(claim)
    }

    /// Lists all objects, as their watches do, and opens the caches, as a new leader does.
    async fn watches(&self) {
        let all = |plural: &str| {
            let paths = self.server.paths(plural).into_iter();
            paths.map(|path| self.server.get(&path).unwrap()).collect()
        };
        let caches = &self.context.observer.caches;
        caches.list(all("rollouts"), all("replicasets"));
        caches.list_jobs(all("jobs"));
        caches.list_requests(all("signoffs"), all("interventions"));
        caches.list_services(all("services"));
        caches.list_endpoints(all("endpointslices"));
        caches.list_routes("HTTPRoute", all("httproutes"));
        caches.list_routes("DestinationRule", all("destinationrules"));
        caches.written.records.list_records(all("rolloutruns"));
        caches
            .template_specs
            .list_templates(all("analysistemplates"));
        caches.open(&self.server.client()).await;
    }

    /// A reconcile that an event has caused.
    async fn reconcile_reported(&mut self, name: &str) -> Result<Action, Error> {
        let claim = self.claim(name);
        self.context.report(&ObjectRef::from_obj(&*claim));
        reconcile(claim, self.context.clone()).await
    }

    /// Makes all requested pods of ReplicaSets available.
    fn pods_are_ready(&self) {
        for path in self.server.paths("replicasets") {
            let mut set = self.server.get(&path).unwrap();
            let pods = set["spec"]["replicas"].clone();
            let of = |name: &str| (name.to_owned(), pods.clone());
            let names = ["replicas", "readyReplicas", "availableReplicas"];
            set["status"] = Value::Object(names.into_iter().map(of).collect());
            self.server.put(&path, set);
        }
    }

    async fn reconcile(&mut self, name: &str) -> Result<Action, Error> {
        let claim = self.claim(name);
        reconcile(claim, self.context.clone()).await
    }

    /// A scene with a Rollout whose first revision serves.
    async fn serving(name: &str) -> Self {
        let mut scene = Self::new();
        scene.deploy(name, "app:1");
        for _ in 0..3 {
            scene.reconcile(name).await.unwrap();
            scene.pods_are_ready();
        }
        assert_eq!(scene.status(name)["phase"], "Stable");
        scene
    }

    /// The same once nothing is left to be written.
    async fn at_rest(name: &str) -> Self {
        let mut scene = Self::serving(name).await;
        for _ in 0..3 {
            scene.reconcile(name).await.unwrap();
        }
        scene
    }

    /// Adds a policy, as its watch reports it.
    fn govern(&mut self, policy: Value) {
        let policy = serde_json::from_value(policy).unwrap();
        self.policies.apply_watcher_event(&Event::Apply(policy));
    }

    fn status(&self, name: &str) -> Value {
        let stored = self.server.get(&format!("{ROLLOUTS}/{name}")).unwrap();
        stored["status"].clone()
    }

    fn metrics(&self) -> String {
        self.context.telemetry.encode()
    }
}

fn to(resource: &'static str) -> impl Fn(&RecordedRequest) -> bool {
    move |request| request.path.split('/').any(|part| part == resource)
}

#[tokio::test]
async fn a_promotion_that_is_not_written_is_in_no_metric() {
    let mut scene = Scene::new();
    scene.deploy("web", "app:1");
    for _ in 0..2 {
        scene.reconcile("web").await.unwrap();
    }
    scene.pods_are_ready();
    let is_run = to("rolloutruns");
    scene
        .server
        .fails(move |request| is_run(request).then_some(Fault::Refuse(403)));
    let refused = scene.reconcile("web").await;
    assert!(matches!(refused, Err(Error::Write(_))), "{refused:?}");
    assert_eq!(
        scene.status("web")["phase"],
        "Progressing",
        "it was not written"
    );
    let metrics = scene.metrics();
    assert!(!metrics.contains("phase=\"Stable\""), "{metrics}");
    assert!(!metrics.contains("phase=\"Promoted\""), "{metrics}");

    scene.server.fails(|_| None);
    for _ in 0..2 {
        scene.reconcile("web").await.unwrap();
    }
    assert_eq!(scene.status("web")["phase"], "Stable");
    assert!(scene.metrics().contains("phase=\"Stable\""));
}

/// The late decision of a leader that was cut off until another took over.
async fn late(scene: &Scene, actions: Vec<Write>) -> (Snapshot, Decision) {
    let observed = scene.context.observer.observe("shop", "web", None);
    let snapshot = Box::pin(observed).await.unwrap().unwrap().snapshot;
    let decision = Decision {
        actions,
        ..decide(&snapshot.observation)
    };
    (snapshot, decision)
}

#[tokio::test]
async fn a_late_leader_deletes_nothing_that_is_not_as_it_saw_it() {
    let scene = Scene::serving("web").await;
    let path = scene.server.paths("replicasets").remove(0);
    let replica_set = path.rsplit('/').next().unwrap().to_owned();
    let delete = Write::Workload(WorkloadAction::DeleteReplicaSet { replica_set });
    let (snapshot, decision) = late(&scene, vec![delete]).await;
    let carry_out = async || {
        let (actor, it) = (&scene.context.actor, &snapshot.observation);
        let done = actor.carry_out(&snapshot.rollout, it, &decision, Instant::now());
        done.await
    };
    let mut set = scene.server.get(&path).unwrap();
    set["spec"]["replicas"] = json!(2);
    scene.server.put(&path, set.clone());
    assert!(
        carry_out().await.unwrap_err().is_conflict(),
        "another leader took it"
    );

    let version = json!(snapshot.observation.replica_sets[0].version);
    set["metadata"]["resourceVersion"] = version.clone();
    set["metadata"]["uid"] = json!("another");
    scene.server.put_as_it_is(&path, set.clone());
    assert!(
        carry_out().await.unwrap_err().is_conflict(),
        "it is another one"
    );

    set["metadata"]["uid"] = json!(snapshot.observation.replica_sets[0].uid);
    scene.server.put_as_it_is(&path, set);
    carry_out().await.unwrap();
    assert_eq!(scene.server.get(&path), None);
}

#[tokio::test]
async fn law_10_a_late_leader_releases_no_service_that_selects_another_revision_by_now() {
    let scene = Scene::serving("web").await;
    let path = "/api/v1/namespaces/shop/services/web";
    let service = |selector: Value| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
            "spec": { "selector": selector },
        })
    };
    let selects = |hash: &str| service(json!({ "app": "web", "pod-template-hash": hash }));
    let release = TrafficAction::ReleaseService {
        service: "web".into(),
    };
    let (mut snapshot, decision) = late(&scene, vec![Write::Traffic(release)]).await;
    let as_observed = ServiceSeen {
        kind: "ClusterIP".into(),
        selector: [("pod-template-hash".into(), "old".into())].into(),
    };
    let former = &mut snapshot.observation.traffic.former_services;
    former.insert("web".into(), as_observed);
    let carry_out = async || {
        let (actor, it) = (&scene.context.actor, &snapshot.observation);
        let done = actor.carry_out(&snapshot.rollout, it, &decision, Instant::now());
        done.await
    };
    carry_out()
        .await
        .expect("a Service that is gone is released");

    scene.server.put(path, selects("new"));
    let refused = Error::Write(carry_out().await.unwrap_err());
    assert_eq!(refused.class(), Class::Conflict, "{refused}");
    assert_eq!(refused.result(), "conflict");
    let stored = scene.server.get(path).unwrap();
    assert_eq!(stored["spec"], selects("new")["spec"]);

    scene.server.put(path, selects("old"));
    carry_out().await.unwrap();
    let stored = scene.server.get(path).unwrap();
    assert_eq!(stored["spec"]["selector"], json!({ "app": "web" }));
}

#[tokio::test]
async fn owner_references_of_others_are_left_alone() {
    let scene = Scene::serving("web").await;
    let path = scene.server.paths("replicasets").remove(0);
    let replica_set = path.rsplit('/').next().unwrap().to_owned();
    let uid = format!("uid-of-{ROLLOUTS}/web");
    let (adopt, release) = (
        WorkloadAction::Adopt {
            replica_set: replica_set.clone(),
        },
        WorkloadAction::Release { replica_set },
    );
    for (action, own) in [
        (
            adopt,
            json!([{ "uid": uid, "kind": "Rollout", "name": "web", "controller": true, "apiVersion": "countersign.dev/v1alpha1" }]),
        ),
        (release, json!([{ "$patch": "delete", "uid": uid }])),
    ] {
        let (snapshot, decision) = late(&scene, vec![Write::Workload(action)]).await;
        scene.server.requests();
        let (actor, it) = (&scene.context.actor, &snapshot.observation);
        let done = actor.carry_out(&snapshot.rollout, it, &decision, Instant::now());
        done.await.unwrap();
        let requests = scene.server.requests();
        let write = requests.iter().find(|it| it.path == path).unwrap();
        assert_eq!(write.kind, "application/strategic-merge-patch+json");
        assert_eq!(write.body["metadata"]["ownerReferences"], own);
    }
}

#[tokio::test]
async fn no_reconcile_waits_for_events() {
    let mut scene = Scene::new();
    scene.deploy("web", "app:1");
    let is_event = to("events");
    scene
        .server
        .fails(move |request| is_event(request).then_some(Fault::Hang));
    for _ in 0..3 {
        let reconcile = tokio::time::timeout(Duration::from_secs(5), scene.reconcile("web"));
        reconcile
            .await
            .expect("a reconcile waits for an Event")
            .unwrap();
        scene.pods_are_ready();
    }
    assert_eq!(scene.status("web")["phase"], "Stable");
}

#[tokio::test]
async fn events_for_which_there_is_no_room_are_dropped_and_counted() {
    let scene = Scene::serving("web").await;
    let (snapshot, _) = late(&scene, vec![]).await;
    scene.server.fails(|_| Some(Fault::Hang));
    let notice = Notice {
        reason: "Held".into(),
        action: "Hold".into(),
        message: "for a test".into(),
        warning: false,
    };
    for _ in 0..1_100 {
        scene
            .context
            .actor
            .recorder
            .publish(&snapshot.rollout, &notice);
    }
    let metrics = scene.metrics();
    let dropped = "countersign_events_dropped_total 100\n";
    assert!(metrics.contains(dropped), "{metrics}");
}

#[tokio::test]
async fn a_transition_is_counted_although_what_follows_from_it_hangs() {
    let mut scene = Scene::serving("web").await;
    let claim = scene.deploy("web", "app:2");
    let is_run = to("rolloutruns");
    scene
        .server
        .fails(move |request| (is_run(request) && request.method != "GET").then_some(Fault::Hang));
    let run = Box::pin(reconcile_claim(&claim, &scene.context));
    let ended = guarded(run, Duration::from_secs(1)).await;
    assert_eq!(ended.unwrap_err().result(), "timeout");
    let begun = r#"countersign_transitions_total{namespace="shop",reason="ChangeStarted"} 1"#;
    assert!(scene.metrics().contains(begun), "{}", scene.metrics());
}

#[tokio::test]
async fn law_7_records_that_cannot_be_read_count_as_a_rollback() {
    let start = async |readable: bool| {
        let mut scene = Scene::serving("web").await;
        scene.deploy("web", "app:2");
        let is_run = to("rolloutruns");
        scene.server.fails(move |request| {
            let read = is_run(request) && request.method == "GET";
            (read && !readable).then_some(Fault::Refuse(500))
        });
        scene.reconcile("web").await.unwrap();
        let change = scene.status("web")["change"].clone();
        assert_eq!(change["transitions"][0]["reason"], "ChangeStarted");
        change
    };
    let (known, unknown) = (start(true).await, start(false).await);
    assert!(
        unknown["score"].as_f64() > known["score"].as_f64(),
        "{unknown}"
    );
    let message = unknown["transitions"][0]["message"].as_str().unwrap();
    let expected =
        "it counts as one after a rollback, as the records of earlier changes cannot be read";
    assert!(message.contains(expected), "{message}");
}

#[tokio::test]
async fn nothing_is_begun_before_it_is_known_what_others_claim() {
    let mut scene = Scene::new();
    let claim = scene.deploy("web", "app:1");
    scene
        .claims
        .apply_watcher_event(&Event::Delete((*claim).clone()));
    let observed = scene.context.observer.observe("shop", "web", None);
    let snapshot = Box::pin(observed).await.unwrap().unwrap().snapshot;
    assert_eq!(snapshot.observation.conflicts.len(), 1);
    assert!(decide(&snapshot.observation).actions.is_empty());
}

#[tokio::test]
async fn an_edit_that_the_watch_has_not_reported_claims_no_service_of_an_older_rollout() {
    let mut scene = Scene::new();
    for name in ["api", "web"] {
        scene.deploy(name, "app:1");
    }
    let canary = json!({ "stableService": "api" });
    let edit = |name: &str, generation: u32| {
        let path = format!("{ROLLOUTS}/{name}");
        let mut rollout = scene.server.get(&path).unwrap();
        rollout["spec"]["strategy"] = json!({ "canary": canary });
        rollout["metadata"]["generation"] = json!(generation);
        scene.server.put(&path, rollout);
    };
    edit("api", 1);
    edit("web", 2);
    scene.claim("api");
    let observed = scene.context.observer.observe("shop", "web", None);
    let snapshot = Box::pin(observed).await.unwrap().unwrap().snapshot;
    let conflicts = &snapshot.observation.conflicts;
    let expected = "Rollout api already claims Service api (spec.strategy.canary)";
    assert_eq!(conflicts.as_slice(), [expected]);
    assert!(decide(&snapshot.observation).actions.is_empty());
}

#[tokio::test]
async fn a_rollout_deleted_during_its_reconcile_leaves_nothing_behind() {
    for fails in [true, false] {
        let mut scene = Scene::serving("web").await;
        let claim = scene.claim("web");
        scene
            .claims
            .apply_watcher_event(&Event::Delete((*claim).clone()));
        scene.context.forget(&claim);
        let is_set = to("replicasets");
        scene
            .server
            .fails(move |request| (fails && is_set(request)).then_some(Fault::Refuse(403)));
        let ended = reconcile(claim, scene.context.clone()).await;
        assert_eq!(ended.is_err(), fails);
        assert!(scene.context.failures.lock().unwrap().is_empty());
        assert!(scene.context.reported.lock().unwrap().is_empty());
        assert!(scene.context.read.lock().unwrap().is_empty());
        let metrics = scene.metrics();
        assert!(
            !metrics.contains("phase=\"Stable\",tier=\"low\"} 1"),
            "{metrics}"
        );
        let counted = metrics
            .lines()
            .filter(|it| it.starts_with("countersign_rollouts{"));
        assert!(counted.clone().all(|it| it.ends_with(" 0")), "{metrics}");
        assert!(!metrics.contains("namespace=\"shop\""), "{metrics}");
    }
}
