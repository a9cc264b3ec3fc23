//! One tenant makes more objects than anybody reads, and large AnalysisTemplates, and the API of Events hangs: a bad
//! change of another tenant is rolled back all the same, and the operator's memory stays below its limit.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use countersign_api::{AnalysisTemplate, Phase, Rollout};
use countersign_cluster::{Cluster, Fault, Limits, Load, Replica, ReplicaPlan, wait_for};
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams,
};
use serde_json::{Value, json};

use crate::is_thorough;
use crate::requests::when;
use crate::story::{TIMEOUT, cluster, phase, plan};
use crate::support::{App, make_service};

/// KiB of the operator's memory by the chart's values.
const LIMIT: u64 = 256 * 1024;
/// Longest time from a bad change until it is rolled back, on a machine with two cores.
const ROLLED_BACK_WITHIN: Duration = Duration::from_mins(1);
/// Objects that are made at once.
const AT_ONCE: usize = 64;
/// ReplicaSets of 1 MB with the labels of the application's, fewer than make the operator hold its changes.
const PLANTED: usize = 150;

/// The objects of the flood: in `make test` more than the operator reads, in `make faults` twenty thousand.
fn flood() -> usize {
    if is_thorough() { 20_000 } else { 2_000 }
}

/// AnalysisTemplates of 80 kB, of which the operator keeps no query.
fn large_templates() -> usize {
    flood() / 20
}

/// A tenant with one application.
struct Tenant {
    cluster: Cluster,
    namespace: String,
    app: App,
}

impl Tenant {
    /// A tenant whose first revision serves.
    async fn serving(cluster: &Cluster, name: &str, app: App) -> Self {
        let tenant = Self {
            cluster: cluster.clone(),
            namespace: cluster.namespace(name).await.unwrap(),
            app,
        };
        make_service(
            cluster,
            &tenant.namespace,
            &tenant.app.name,
            &tenant.app.name,
        )
        .await;
        tenant.apply(&tenant.app).await;
        let serves = |rollout: &Rollout| phase(rollout) == Phase::Stable;
        tenant.until("the first revision serves", serves).await;
        tenant
    }

    fn rollouts(&self) -> Api<Rollout> {
        Api::namespaced(self.cluster.client(), &self.namespace)
    }

    async fn apply(&self, app: &App) {
        let (parameters, manifest) = (PatchParams::apply("service-team").force(), app.manifest());
        let (rollouts, patch) = (self.rollouts(), Patch::Apply(&manifest));
        let applied = rollouts.patch(&app.name, &parameters, &patch).await;
        applied.unwrap();
    }

    async fn until(&self, what: &str, wanted: impl Fn(&Rollout) -> bool) -> Rollout {
        let poll = async || {
            let rollout = self.rollouts().get(&self.app.name).await;
            let rollout = rollout.map_err(|error| error.to_string())?;
            let status = rollout.status.clone().unwrap_or_default();
            let state = format!("{:?}: {}", status.phase, status.message);
            if wanted(&rollout) {
                Ok(rollout)
            } else {
                Err(state)
            }
        };
        let reached = wait_for(what, TIMEOUT, poll).await;
        reached.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Makes this many interventions on the change under way, each as large as it may be.
    async fn flood(&self, rollout: &Rollout, count: usize) {
        let kind = GroupVersionKind::gvk("countersign.dev", "v1alpha1", "Intervention");
        let resource = ApiResource::from_gvk(&kind);
        let client = self.cluster.client();
        let api: Api<DynamicObject> = Api::namespaced_with(client, &self.namespace, &resource);
        let pause = |name: String| -> DynamicObject {
            serde_json::from_value(pause(rollout, &name)).unwrap()
        };
        let parameters = PostParams::default();
        // The API server's policies observe the change a moment later.
        let first = pause("first".into());
        let poll = async || api.create(&parameters, &first).await;
        wait_for("the change can be paused", TIMEOUT, poll)
            .await
            .unwrap();
        let made = futures::stream::iter(1..count).map(async |number| {
            let intervention = pause(format!("flood-{number}"));
            api.create(&parameters, &intervention).await
        });
        let made = made.buffer_unordered(AT_ONCE);
        let made = made
            .filter(|made| std::future::ready(made.is_ok()))
            .count()
            .await;
        assert_eq!(made, count - 1, "not all of the flood was made");
    }

    /// Makes ReplicaSets without pods that the operator lists with those of the application.
    async fn plant(&self) {
        let sets: Api<ReplicaSet> = Api::namespaced(self.cluster.client(), &self.namespace);
        let (parameters, labels) = (PostParams::default(), json!({ "app": "planted" }));
        let container = json!({
            "name": "app", "image": "example.org/planted:v1",
            "env": [{ "name": "NOTE", "value": "x".repeat(1_000_000) }],
        });
        let made = futures::stream::iter(0..PLANTED).map(async |number| {
            let set = json!({
                "metadata": { "name": format!("planted-{number}"), "labels": { "app": self.app.name } },
                "spec": { "replicas": 0, "selector": { "matchLabels": labels }, "template": {
                    "metadata": { "labels": labels }, "spec": { "containers": [container] },
                } },
            });
            let set = serde_json::from_value(set).unwrap();
            sets.create(&parameters, &set).await
        });
        let made = made.buffer_unordered(8);
        let made = made.filter(|made| std::future::ready(made.is_ok()));
        assert_eq!(made.count().await, PLANTED, "not all were made");
    }

    fn templates(&self) -> Api<AnalysisTemplate> {
        Api::namespaced(self.cluster.client(), &self.namespace)
    }

    /// Writes this many AnalysisTemplates with as many and as long checks as they may have.
    async fn write_templates(&self, count: usize) {
        let templates = self.templates();
        let made = futures::stream::iter(0..count).map(async |number| {
            let name = format!("flood-{number}");
            let text = name.repeat(4_000 / name.len());
            let query = format!(r#"x{{revision="{{{{revision}}}}",text="{text}"}}"#);
            let check = |number: usize| {
                let name = format!("check-{number}");
                json!({ "name": name, "errors": query, "total": query })
            };
            let checks: Vec<_> = (0..10).map(check).collect();
            let template = json!({
                "apiVersion": "countersign.dev/v1alpha1", "kind": "AnalysisTemplate",
                "metadata": { "name": name }, "spec": { "checks": checks },
            });
            let template = serde_json::from_value(template).unwrap();
            templates.create(&PostParams::default(), &template).await
        });
        let made = made.buffer_unordered(8);
        let made = made.filter(|made| std::future::ready(made.is_ok()));
        assert_eq!(made.count().await, count, "not all were written");
    }

    /// Waits until each of these templates has a status.
    async fn has_statuses(&self, count: usize) {
        let templates = self.templates();
        for number in 0..count {
            let name = format!("flood-{number}");
            let poll = async || {
                let template = templates.get(&name).await.map_err(|it| it.to_string())?;
                let status = template.status.unwrap_or_default();
                let mut conditions = status.conditions.iter();
                let accepted = conditions.any(|it| it.type_ == "Accepted" && it.status == "True");
                if accepted {
                    Ok(())
                } else {
                    Err(format!("{:?}", status.conditions))
                }
            };
            let reached = wait_for(&name, TIMEOUT, poll).await;
            reached.unwrap_or_else(|error| panic!("{error}"));
        }
    }

    async fn clear(self) {
        let namespaces: Api<Namespace> = Api::all(self.cluster.client());
        let parameters = DeleteParams::background();
        let _ = namespaces.delete(&self.namespace, &parameters).await;
    }
}

fn pause(rollout: &Rollout, name: &str) -> Value {
    let change = rollout.status.as_ref().and_then(|it| it.change.as_ref());
    let change = change.unwrap();
    json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "Intervention",
        "metadata": { "name": name, "annotations": { "note": "x".repeat(4_000) } },
        "spec": {
            "rollout": rollout.metadata.name, "rolloutUid": rollout.metadata.uid,
            "run": change.run, "digest": change.digest, "action": "Pause", "reason": "x".repeat(1_000),
        },
    })
}

fn is_under_way(rollout: &Rollout) -> bool {
    let change = rollout.status.as_ref().and_then(|it| it.change.as_ref());
    change.is_some_and(|it| !it.initial && it.weight > 0 && it.outcome.is_none())
}

/// The most resident memory that a process ever had, in KiB.
fn peak(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mut lines = status.lines();
    let peak = lines.find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn a_flood_of_one_tenant_and_hanging_events_delay_no_rollback_of_another() {
    let cluster = cluster().await;
    let lease = cluster.namespace("flooded").await.unwrap();
    let replica = ReplicaPlan {
        program: Path::new(env!("CARGO_BIN_EXE_countersign")).to_owned(),
        namespace: None,
        identity: "flooded".to_owned(),
        lease_namespace: lease,
        api_server: plan(|request| when(request.resource == "events", Fault::Hang)),
        prometheus: plan(|_| Fault::Pass),
        environment: Vec::new(),
    };
    let replica = Replica::start(&cluster, replica).await.unwrap();
    let noisy = App {
        checks: false,
        ..App::new("noisy")
    };
    let noisy = Tenant::serving(&cluster, "noisy", noisy).await;
    let quiet = Tenant::serving(&cluster, "quiet", App::new("quiet")).await;
    let limits = Limits {
        max_requests: 100_000,
        max_time: Duration::from_mins(10),
    };
    let client = cluster.client();
    let load = Load::start(client, &quiet.namespace, &quiet.app.name, 80, limits);
    let load = load.await.unwrap();

    let steps = json!([{ "weight": 25, "bake": "1h" }]);
    let slow =
        json!({ "progressDeadlineSeconds": 7_200, "strategy": { "canary": { "steps": steps } } });
    noisy.plant().await;
    noisy.apply(&noisy.app.version("v2").spec(slow)).await;
    let rollout = noisy.until("a change bakes", is_under_way).await;
    noisy.flood(&rollout, flood()).await;
    noisy.write_templates(large_templates()).await;

    let begun = Instant::now();
    quiet.apply(&quiet.app.version("v2").failing(0.5)).await;
    let degraded = |rollout: &Rollout| phase(rollout) == Phase::Degraded;
    let degraded = quiet.until("the bad change is rolled back", degraded).await;
    let (took, peak) = (begun.elapsed(), peak(replica.pid().unwrap()));
    let message = degraded.status.unwrap().message;
    eprintln!(
        "rolled back in {took:?} with {} MiB: {message}",
        peak / 1024
    );
    assert!(took < ROLLED_BACK_WITHIN, "{took:?}\n{}", replica.log());
    assert!(message.starts_with("AnalysisFailed"), "{message}");
    assert!(peak < LIMIT, "{peak} KiB");
    assert_eq!(replica.starts(), 1, "{}", replica.log());
    assert!(replica.api_server.faults()["Hang"] > 0, "no Event hung");
    let still = noisy.rollouts().get(&noisy.app.name).await.unwrap();
    assert!(is_under_way(&still), "what was paused was promoted");
    noisy.has_statuses(large_templates()).await;

    load.stop().await;
    noisy.clear().await;
    quiet.clear().await;
}
