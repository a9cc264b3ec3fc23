//! One operator takes over from another in the midst of every stage of a change, and of what precedes and follows
//! one: a newer one from that of the earlier commit, and that one from the newer. `make upgrade` runs it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use countersign_api::rollout::{Outcome, Stage};
use countersign_api::{Intervention, Phase, Rollout, RolloutPolicy, RolloutRun, SignOff};
use countersign_cluster::{Cluster, Fault, Limits, Load, wait_for};
use countersign_core::change;
use countersign_core::reason::Reason;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::release::{CHART, helm};
use crate::rollout::rollout;
use crate::story::{change_of, is_stable};
use crate::{earlier, operator};

const WITHIN: Duration = Duration::from_mins(4);
/// Annotation of a pod that is never ready.
const READY: &str = "cluster.test/ready";
/// Rollouts that are caught in their first revision.
const FIRST: [&str; 2] = ["adopting", "beginning"];
/// Rollouts that must be where they were after another operator has taken over.
const STAYING: [&str; 6] = [
    "baking",
    "beginning",
    "rolled-back",
    "signing",
    "waiting",
    "watched",
];

/// A Rollout for each stage in which its change is caught, and the steps and sign-offs that lead there.
fn rollouts() -> [(&'static str, Value); 8] {
    let steps = |first: &str, second: &str| json!([{ "weight": 25, "bake": first }, { "weight": 50, "bake": second }]);
    let people = json!([{ "count": 1, "groups": ["approvers"] }]);
    let mut asking = steps("2s", "2s");
    asking[0]["signOff"] = people.clone();
    [
        ("waiting", json!({ "steps": asking })),
        (
            "watched",
            json!({ "steps": steps("2s", "2s"), "analysis": { "postPromotion": "20m" } }),
        ),
        ("rolled-back", json!({ "steps": steps("10m", "2s") })),
        (
            "signing",
            json!({ "steps": steps("2s", "2s"), "promotionSignOff": people }),
        ),
        ("baking", json!({ "steps": steps("10m", "2s") })),
        ("stepping", json!({ "steps": steps("20s", "2s") })),
        // From its only step on one pod becomes four.
        (
            "promoting",
            json!({ "steps": [{ "weight": 25, "bake": "20s" }] }),
        ),
        ("rolling", json!({ "steps": steps("10m", "2s") })),
    ]
}

struct Stages {
    cluster: Cluster,
    namespace: String,
}

impl Stages {
    fn objects<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client(), &self.namespace)
    }

    async fn create<K>(&self, object: Value)
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        let object: K = serde_json::from_value(object).unwrap();
        let (objects, parameters) = (self.objects::<K>(), PostParams::default());
        objects.create(&parameters, &object).await.unwrap();
    }

    async fn apply(&self, name: &str, version: &str, canary: &Value) {
        let rollout = rollout(name, version, canary);
        let parameters = PatchParams::apply("service-team").force();
        let rollouts = self.objects::<Rollout>();
        let apply = Patch::Apply(&rollout);
        let applied = rollouts.patch(name, &parameters, &apply);
        applied.await.unwrap();
    }

    async fn pause(&self, name: &str, paused: bool) {
        let patch = Patch::Merge(json!({ "spec": { "paused": paused } }));
        let rollouts = self.objects::<Rollout>();
        let parameters = PatchParams::default();
        let patched = rollouts.patch(name, &parameters, &patch);
        patched.await.unwrap();
    }

    async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Rollout) -> bool) -> Rollout {
        let poll = async || {
            let rollout = self.objects::<Rollout>().get(name).await;
            let rollout = rollout.map_err(|error| error.to_string())?;
            let now = format!("{:?}", rollout.status);
            wanted(&rollout).then_some(rollout).ok_or(now)
        };
        wait_for(&format!("{name}: {what}"), WITHIN, poll)
            .await
            .unwrap()
    }

    async fn abort(&self, name: &str) {
        let rollout = self.objects::<Rollout>().get(name).await.unwrap();
        let mut abort = identity(&rollout);
        abort["action"] = json!("Abort");
        abort["person"] = json!({ "username": "admin" });
        let name = format!("abort-{name}");
        self.create::<Intervention>(json!({ "metadata": { "name": name }, "spec": abort }))
            .await;
    }

    /// A Rollout whose first pods do not become ready, and a Deployment that has its pods.
    async fn begin(&self) {
        let mut beginning = rollout("beginning", "1", &json!({}));
        beginning["spec"]["template"]["metadata"]["annotations"] = json!({ READY: "never" });
        self.create::<Rollout>(beginning).await;
        let app = rollout("adopting", "1", &json!({}));
        let spec = &app["spec"];
        self.create::<Deployment>(json!({
            "metadata": { "name": "adopting" },
            "spec": { "replicas": 4, "selector": spec["selector"], "template": spec["template"] },
        }))
        .await;
        let has_pods = |it: &Rollout| {
            let status = it.status.as_ref();
            status.is_some_and(|it| it.replicas == 4 && it.ready_replicas == 0)
        };
        self.until("beginning", "it has pods, none of them ready", has_pods)
            .await;
        self.until_deployment_has(4).await;
    }

    async fn until_deployment_has(&self, pods: i32) {
        let poll = async || {
            let deployment = self.objects::<Deployment>().get("adopting").await.unwrap();
            let found = deployment.status.and_then(|it| it.available_replicas);
            let found = found.unwrap_or_default();
            (found == pods).then_some(()).ok_or(found)
        };
        let what = format!("the Deployment has {pods} pods");
        wait_for(&what, WITHIN, poll).await.unwrap();
    }

    /// Lets a Rollout adopt the Deployment. It has no pods of its own as long as no ReplicaSet is written.
    async fn adopt(&self) {
        let mut adopting = rollout("adopting", "1", &json!({}));
        let spec = adopting["spec"].as_object_mut().unwrap();
        spec.remove("selector");
        spec.remove("template");
        spec.insert("workloadRef".to_owned(), json!({ "name": "adopting" }));
        self.create::<Rollout>(adopting).await;
        let begins = |it: &Rollout| change_of(it).is_some_and(|it| it.initial);
        self.until("adopting", "the adoption has begun", begins)
            .await;
    }

    /// The first pods of the Rollout become ready.
    async fn become_ready(&self) {
        let pods = self.objects::<Pod>();
        let own = ListParams::default().labels("app=beginning");
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { READY: null } } }));
        let parameters = PatchParams::default();
        for pod in pods.list(&own).await.unwrap() {
            let name = pod.name_any();
            pods.patch(&name, &parameters, &patch).await.unwrap();
        }
    }

    /// Creates the first revisions, sends them requests, and brings each change to its stage, where it stays: no
    /// ReplicaSet is written from the moment on at which `is_stuck` is set.
    async fn are_reached(&self, is_stuck: &AtomicBool) -> Vec<Load> {
        let mut loads = Vec::new();
        for (name, canary) in rollouts() {
            self.create::<Service>(json!({
                "metadata": { "name": name },
                "spec": { "selector": { "app": name }, "ports": [{ "port": 80, "targetPort": 8080 }] },
            }))
            .await;
            self.apply(name, "1", &canary).await;
        }
        self.begin().await;
        for (name, canary) in rollouts() {
            self.until(name, "the first revision is stable", is_stable)
                .await;
            // What is aborted needs no evidence.
            if name != "rolled-back" {
                let limits = Limits {
                    max_requests: 200_000,
                    max_time: Duration::from_mins(20),
                };
                let client = self.cluster.client();
                let load = Load::start(client, &self.namespace, name, 60, limits);
                loads.push(load.await.unwrap());
            }
            self.apply(name, "2", &canary).await;
        }
        let at = |step: i32, weight: i32| {
            move |it: &Rollout| {
                let achieved = it.status.as_ref().and_then(|it| it.weight);
                change_of(it).is_some_and(|it| it.step == step) && achieved == Some(weight)
            }
        };
        // These two are let go once no ReplicaSet is written any more.
        for name in ["stepping", "promoting"] {
            self.until(name, "its step", at(1, 20)).await;
            self.pause(name, true).await;
        }
        for name in ["baking", "rolling", "rolled-back"] {
            self.until(name, "its step", at(1, 20)).await;
        }
        self.abort("rolled-back").await;
        let is_at =
            |stage: Stage| move |it: &Rollout| change_of(it).is_some_and(|it| it.stage == stage);
        let rolled_back = is_at(Stage::RolledBack);
        self.until("rolled-back", "it is at rest", rolled_back)
            .await;
        let is_watched = |it: &Rollout| {
            let status = it.status.as_ref();
            let is_second = status.is_some_and(|it| it.phase == Phase::Stable && it.revision == 2);
            is_second && is_at(Stage::Promoted)(it)
        };
        self.until("watched", "it is promoted", is_watched).await;
        let awaits = |it: &Rollout| {
            let status = it.status.as_ref();
            status.is_some_and(|it| change::waits_for(it, Reason::AwaitingSignOff))
        };
        for (name, stage) in [("waiting", Stage::Waiting), ("signing", Stage::Stepping)] {
            let awaits = |it: &Rollout| awaits(it) && is_at(stage)(it);
            self.until(name, "it waits for people", awaits).await;
        }

        is_stuck.store(true, SeqCst);
        self.pause("stepping", false).await;
        self.pause("promoting", false).await;
        self.abort("rolling").await;
        self.until("stepping", "between two steps", at(2, 20)).await;
        for (name, stage) in [
            ("promoting", Stage::Promoting),
            ("rolling", Stage::RollingBack),
        ] {
            self.until(name, "its stage", is_at(stage)).await;
        }
        self.adopt().await;
        loads
    }

    /// bob had no hand in the changes, and may sign them.
    async fn let_bob_sign(&self) {
        self.create::<RoleBinding>(json!({
            "metadata": { "name": "approvers" },
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "countersign-approver",
            },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob" }],
        }))
        .await;
    }

    async fn sign(&self, name: &str, gate: &str) {
        let rollout = self.objects::<Rollout>().get(name).await.unwrap();
        let mut spec = identity(&rollout);
        spec["decision"] = json!("Approve");
        spec["gate"] = json!(gate);
        spec["approver"] =
            json!({ "username": "bob", "groups": ["approvers", "system:authenticated"] });
        let name = format!("{name}-bob");
        let sign_off = json!({ "metadata": { "name": name }, "spec": spec });
        let sign_off: SignOff = serde_json::from_value(sign_off).unwrap();
        let bob = self.cluster.client_as("bob").await.unwrap();
        let bob: Api<SignOff> = Api::namespaced(bob, &self.namespace);
        let create = PostParams::default();
        let poll = async || bob.create(&create, &sign_off).await;
        let what = "bob's approval is accepted";
        wait_for(what, WITHIN, poll).await.unwrap();
    }
}

/// The fields by which a decision names a change.
fn identity(rollout: &Rollout) -> Value {
    let change = change_of(rollout).unwrap();
    json!({
        "rollout": rollout.metadata.name, "rolloutUid": rollout.metadata.uid,
        "run": change.run, "digest": change.digest,
    })
}

/// Which change it is, and how far it is.
fn progress(rollout: &Rollout) -> Value {
    let change = change_of(rollout).unwrap();
    json!([change.run, change.digest, change.step, change.weight])
}

/// Every change goes on where it was under another operator, and ends as it would have.
async fn another_takes_over(
    cluster: &Cluster,
    name: &str,
    [from, to]: [PathBuf; 2],
    change_release: impl FnOnce(),
) {
    let stages = Stages {
        cluster: cluster.clone(),
        namespace: cluster.namespace(name).await.unwrap(),
    };
    let namespace = &stages.namespace;
    let is_stuck = Arc::new(AtomicBool::new(false));
    let refuses = is_stuck.clone();
    let plan = Arc::new(move |request: &countersign_cluster::ProxiedRequest| {
        let is_write = request.write.is_some() && request.resource == "replicasets";
        if is_write && refuses.load(SeqCst) {
            Fault::Answer {
                status: 503,
                retry_after: None,
            }
        } else {
            Fault::Pass
        }
    });
    let first = format!("{name}-first");
    let replica = operator::start(cluster, namespace, from, &first, plan).await;
    let _loads = stages.are_reached(&is_stuck).await;
    let mut before = Vec::new();
    for name in rollouts().into_iter().map(|(name, _)| name).chain(FIRST) {
        let rollout = stages.objects::<Rollout>().get(name).await.unwrap();
        before.push((name, progress(&rollout)));
    }

    drop(replica);
    change_release();
    let second = format!("{name}-second");
    let faults = operator::no_faults();
    let _replica = operator::start(cluster, namespace, to, &second, faults).await;

    let is_promoted =
        |it: &Rollout| is_stable(it) && it.status.as_ref().is_some_and(|it| it.revision == 2);
    for name in ["stepping", "promoting"] {
        stages.until(name, "it is promoted", is_promoted).await;
    }
    let rolled_back = |it: &Rollout| {
        let change = change_of(it);
        change.is_some_and(|it| it.stage == Stage::RolledBack)
    };
    let what = "it is rolled back";
    stages.until("rolling", what, rolled_back).await;
    for (name, progress_before) in &before {
        if STAYING.contains(name) {
            let rollout = stages.objects::<Rollout>().get(name).await.unwrap();
            assert_eq!(progress(&rollout), *progress_before, "{name}");
        }
    }
    stages.let_bob_sign().await;
    for (name, gate) in [("waiting", "step-1"), ("signing", "promotion")] {
        stages.sign(name, gate).await;
        stages.until(name, "it is promoted", is_promoted).await;
    }
    stages.become_ready().await;
    let serves =
        |it: &Rollout| is_stable(it) && it.status.as_ref().is_some_and(|it| it.revision == 1);
    for name in FIRST {
        stages
            .until(name, "its first revision serves", serves)
            .await;
    }
    stages.until_deployment_has(0).await;

    let runs = stages.objects::<RolloutRun>();
    let runs = runs.list(&ListParams::default()).await.unwrap().items;
    for (name, progress) in &before {
        let own = runs.iter().filter(|it| it.spec.rollout == *name);
        let expected = if FIRST.contains(name) { 1 } else { 2 };
        let count = own.clone().count();
        assert_eq!(count, expected, "{name} has not begun again");
        let mut own = own.filter(|it| it.metadata.name.as_deref() == progress[0].as_str());
        let outcome = own.next().unwrap().spec.progress.outcome;
        let expected = match *name {
            "baking" => None,
            "rolling" | "rolled-back" => Some(Outcome::RolledBack),
            _ => Some(Outcome::Promoted),
        };
        assert_eq!(outcome, expected, "{name}");
    }
}

/// A policy whose times suit a test, once its kind is served.
async fn install_policy(cluster: &Cluster) {
    let steps = json!([{ "weight": 25, "bake": "2s" }, { "weight": 50, "bake": "2s" }]);
    let low = json!({
        "steps": steps, "maxFirstWeight": 50, "maxIncrease": 50, "minFinalWeight": 25, "minBake": "1s",
        "minRequests": 20, "maxFalsePromotion": 0.1, "marginRatio": 2.0, "marginDifference": 0.05,
        "toleratedRatio": 1.2, "extendAtMost": "1m", "onScarceEvidence": "Promote",
        "signOff": [], "promotionSignOff": [],
    });
    let policy = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutPolicy", "metadata": { "name": "stages" },
        "spec": { "tiers": { "low": low } },
    });
    let policies: Api<RolloutPolicy> = Api::all(cluster.client());
    let rollouts: Api<Rollout> = Api::all(cluster.client());
    let parameters = PatchParams::apply("platform-team").force();
    let poll = async || {
        rollouts.list(&ListParams::default()).await?;
        let patch = Patch::Apply(&policy);
        policies.patch("stages", &parameters, &patch).await
    };
    wait_for("the definitions are served", WITHIN, poll)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs the earlier operator, which `make upgrade` builds"]
async fn a_change_in_any_stage_goes_on_under_a_newer_operator_and_under_an_earlier_one() {
    let cluster = Cluster::from_env().await.unwrap();
    let url = format!("--set=prometheus.url={}", cluster.prometheus_url());
    let chart = earlier::chart().unwrap();
    let chart = chart.to_str().unwrap();
    helm(&["install", "countersign", chart, "--create-namespace", &url]);
    install_policy(&cluster).await;
    let present = PathBuf::from(env!("CARGO_BIN_EXE_countersign"));
    let upgrade = || {
        helm(&["upgrade", "countersign", CHART, "--reset-then-reuse-values"]);
    };
    let programs = [earlier::operator(), present.clone()];
    another_takes_over(&cluster, "newer", programs, upgrade).await;
    let roll_back = || {
        helm(&["rollback", "countersign", "1"]);
    };
    let programs = [present, earlier::operator()];
    another_takes_over(&cluster, "earlier", programs, roll_back).await;
}
