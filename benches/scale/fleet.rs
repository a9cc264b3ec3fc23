//! Rollouts, policies and pods, as service and platform teams create them.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::ops::Range;
use std::time::{Duration, Instant};

use countersign_api::{Phase, Rollout, RolloutPolicy, RolloutRun};
use countersign_cluster::{Cluster, Limits, Load, wait_for};
use futures::future::try_join_all;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Result;

/// Timeout of every wait, long enough for a loaded machine; the benchmark fails after it.
pub const WAIT_TIMEOUT: Duration = Duration::from_mins(5);
/// Most concurrent requests of the benchmark.
const AT_ONCE: usize = 16;
/// Rollouts in one namespace.
const TOGETHER: usize = 100;
/// Idle Rollouts beyond this number have no pods: those would measure the control plane.
const WITH_PODS: usize = 1_000;

/// Returns once the operator's kinds are served.
pub async fn served(cluster: &Cluster) -> Result<()> {
    let client = cluster.client();
    let (rollouts, runs, policies): (Api<Rollout>, Api<RolloutRun>, Api<RolloutPolicy>) = (
        Api::all(client.clone()),
        Api::all(client.clone()),
        Api::all(client),
    );
    wait_for("the definitions are served", WAIT_TIMEOUT, async || {
        let one = ListParams::default().limit(1);
        rollouts.list(&one).await?;
        runs.list(&one).await?;
        policies.list(&one).await
    })
    .await?;
    Ok(())
}

/// A policy for one namespace, with these steps for every tier and times that suit a measurement.
pub async fn policy(cluster: &Cluster, namespace: &str, weights: &[i32], bake: &str) -> Result<()> {
    let steps: Vec<_> = weights
        .iter()
        .map(|weight| json!({ "weight": weight, "bake": bake }))
        .collect();
    let tier = json!({
        "steps": steps, "maxFirstWeight": 50, "maxIncrease": 50, "minFinalWeight": 50, "minBake": "1s",
        "minRequests": 20, "maxFalsePromotion": 0.1, "marginRatio": 2.0, "marginDifference": 0.05,
        "toleratedRatio": 1.2, "onScarceEvidence": "Hold", "waitAtMost": "60s", "signOff": [], "promotionSignOff": [],
    });
    let policy = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutPolicy", "metadata": { "name": namespace },
        "spec": {
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } },
            "tiers": { "low": tier, "medium": tier, "high": tier, "critical": tier },
        },
    });
    let policies: Api<RolloutPolicy> = Api::all(cluster.client());
    let apply = PatchParams::apply("platform-team").force();
    policies
        .patch(namespace, &apply, &Patch::Apply(&policy))
        .await?;
    Ok(())
}

/// A Service of pods with this label `app`.
pub async fn service(client: &Client, namespace: &str, name: &str, app: &str) -> Result<()> {
    let service: Service = serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": { "selector": { "app": app }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    }))?;
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    services.create(&PostParams::default(), &service).await?;
    Ok(())
}

/// A Rollout of an application with reviewed and tested changes.
pub struct App<'a> {
    pub name: &'a str,
    pub version: &'a str,
    pub replicas: i32,
    /// Share of requests that fail, 0 to 1; without it nothing is served or scraped.
    pub serves: Option<f64>,
    pub interval: &'a str,
    /// Further fields of `strategy.canary`.
    pub canary: Value,
}

impl App<'_> {
    pub fn manifest(&self) -> Value {
        let provenance = [
            ("revision", self.version),
            ("approved-revision", self.version),
            ("contributor", "human"),
            ("authors", "alice@example.org"),
            ("reviewers", "bob@example.org"),
            ("tests", "PASSED"),
            ("lines-added", "3"),
            ("lines-deleted", "2"),
            ("files-changed", "1"),
        ];
        let annotations: serde_json::Map<_, _> = provenance
            .into_iter()
            .map(|(key, value)| (format!("provenance.countersign.dev/{key}"), value.into()))
            .collect();
        let mut canary = self.canary.clone();
        if let Some(canary) = canary.as_object_mut() {
            let checks = json!([{ "name": "errors", "preset": "HttpRequestsTotal" }]);
            let analysis = json!({ "interval": self.interval, "checks": checks });
            canary.insert("analysis".into(), analysis);
        }
        json!({
            "apiVersion": "countersign.dev/v1alpha1",
            "kind": "Rollout",
            "metadata": { "name": self.name, "annotations": annotations },
            "spec": {
                "replicas": self.replicas,
                "selector": { "matchLabels": { "app": self.name } },
                "template": self.template(),
                "strategy": { "canary": canary },
            },
        })
    }

    fn template(&self) -> Value {
        let mut container = json!({
            "name": "app",
            "image": format!("example.org/{}:{}", self.name, self.version),
            "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
        });
        if let (Some(error_rate), Some(container)) = (self.serves, container.as_object_mut()) {
            let env = json!([{ "name": "ERROR_RATE", "value": error_rate.to_string() }]);
            container.insert("env".into(), env);
            container.insert("ports".into(), json!([{ "containerPort": 8080 }]));
        }
        json!({
            "metadata": { "labels": { "app": self.name } },
            "spec": {
                "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
                "containers": [container],
            },
        })
    }
}

/// Applies an object as a service team does.
pub async fn apply<K>(objects: &Api<K>, name: &str, manifest: &Value) -> Result<()>
where
    K: Clone + Debug + DeserializeOwned,
{
    let parameters = PatchParams::apply("service-team").force();
    objects
        .patch(name, &parameters, &Patch::Apply(manifest))
        .await?;
    Ok(())
}

/// Many idle Rollouts, each of one replica, a hundred per namespace.
pub struct Fleet {
    cluster: Cluster,
    namespaces: Vec<String>,
    size: usize,
}

impl Fleet {
    pub fn new(cluster: &Cluster) -> Self {
        Self {
            cluster: cluster.clone(),
            namespaces: Vec::new(),
            size: 0,
        }
    }

    pub fn size(&self) -> usize {
        self.size
    }

    pub fn namespaces(&self) -> Vec<&str> {
        self.namespaces.iter().map(String::as_str).collect()
    }

    /// Creates Rollouts up to this number; returns the seconds until the last of them was Healthy.
    pub async fn grow(&mut self, size: usize) -> Result<f64> {
        self.make_room(size).await?;
        let took = self.change_to("v1", self.size..size, is_stable).await?;
        self.size = size;
        Ok(took)
    }

    async fn make_room(&mut self, size: usize) -> Result<()> {
        while self.namespaces.len() * TOGETHER < size {
            self.namespaces.push(self.cluster.namespace("fleet").await?);
        }
        Ok(())
    }

    /// Returns when all are deleted.
    pub async fn end(self) -> Result<()> {
        let namespaces = self.namespaces.iter();
        try_join_all(namespaces.map(|it| remove(&self.cluster, it))).await?;
        Ok(())
    }

    /// Changes the first `number` Rollouts; returns when each has a canary.
    pub async fn change(&self, number: usize) -> Result<()> {
        let under_way = |it: &DynamicObject| {
            let weight = it
                .data
                .pointer("/status/change/weight")
                .and_then(Value::as_i64);
            weight.is_some_and(|weight| weight > 0)
                && it.data.pointer("/status/change/outcome").is_none()
        };
        self.change_to("v2", 0..number, under_way).await?;
        Ok(())
    }

    /// Reverts that change; returns when each is Healthy.
    pub async fn change_back(&self, number: usize) -> Result<()> {
        self.change_to("v1", 0..number, is_stable).await?;
        Ok(())
    }

    async fn change_to(
        &self,
        version: &str,
        range: Range<usize>,
        done: impl Fn(&DynamicObject) -> bool,
    ) -> Result<f64> {
        let manifest = |number| {
            let app = App {
                name: &name(number),
                version,
                replicas: i32::from(number < WITH_PODS),
                serves: None,
                interval: "15s",
                canary: json!({}),
            };
            app.manifest()
        };
        self.apply::<Rollout>(range, manifest, done).await
    }

    /// Applies one object of each number, 16 at a time; returns the seconds until the last of them is as expected.
    async fn apply<K>(
        &self,
        range: Range<usize>,
        manifest: impl Fn(usize) -> Value,
        done: impl Fn(&DynamicObject) -> bool,
    ) -> Result<f64>
    where
        K: Resource<DynamicType = ()>,
    {
        let kind = ApiResource::erase::<K>(&());
        let all: Api<DynamicObject> = Api::all_with(self.cluster.client(), &kind);
        let names = range.clone().map(name).collect();
        let started = Instant::now();
        let make = stream::iter(range.map(Ok)).try_for_each_concurrent(AT_ONCE, async |number| {
            let namespace = self.namespaces.get(number / TOGETHER);
            let namespace = namespace.ok_or("there is no namespace for it")?;
            let api: Api<DynamicObject> =
                Api::namespaced_with(self.cluster.client(), namespace, &kind);
            apply(&api, &name(number), &manifest(number)).await
        });
        tokio::try_join!(make, each_is(all, names, done))?;
        Ok(started.elapsed().as_secs_f64())
    }
}

fn is_stable(rollout: &DynamicObject) -> bool {
    rollout
        .data
        .pointer("/status/phase")
        .and_then(Value::as_str)
        == Some("Stable")
}

/// Deletes a namespace, and returns when all that was in it is gone.
pub async fn remove(cluster: &Cluster, namespace: &str) -> Result<()> {
    let (client, now) = (cluster.client(), DeleteParams::default());
    let namespaces: Api<Namespace> = Api::all(client);
    namespaces.delete(namespace, &now).await?;
    wait_for("a namespace is gone", WAIT_TIMEOUT, async || {
        let left = namespaces.get_opt(namespace).await;
        let left = left.map_err(|error| error.to_string())?;
        left.is_none().then_some(()).ok_or("not yet".to_owned())
    })
    .await?;
    Ok(())
}

fn name(number: usize) -> String {
    format!("app-{number:04}")
}

/// Waits until each of these objects is, or was, as expected.
async fn each_is(
    api: Api<DynamicObject>,
    mut names: BTreeSet<String>,
    wanted: impl Fn(&DynamicObject) -> bool,
) -> Result<()> {
    let mut objects = watcher(api, watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .boxed();
    let watch = async {
        while !names.is_empty() {
            let object = objects.try_next().await?.ok_or("the watch has ended")?;
            if wanted(&object) {
                names.remove(&object.name_any());
            }
        }
        Ok(())
    };
    let outcome = tokio::time::timeout(WAIT_TIMEOUT, watch).await;
    outcome.unwrap_or_else(|_| Err(format!("{} are not as wanted: {names:?}", names.len()).into()))
}

/// The time of the control plane alone: seconds from the first of `number` plain Deployments until the last of them
/// is available.
pub async fn plain_deployments(cluster: &Cluster, number: usize) -> Result<f64> {
    let manifest = |number| {
        let app = App {
            name: &name(number),
            version: "v1",
            replicas: 1,
            serves: None,
            interval: "",
            canary: Value::Null,
        };
        json!({
            "apiVersion": Deployment::api_version(&()), "kind": Deployment::kind(&()),
            "metadata": { "name": app.name },
            "spec": { "replicas": 1, "selector": { "matchLabels": { "app": app.name } }, "template": app.template() },
        })
    };
    let available = |it: &DynamicObject| {
        it.data
            .pointer("/status/availableReplicas")
            .and_then(Value::as_i64)
            == Some(1)
    };
    let mut fleet = Fleet::new(cluster);
    fleet.make_room(number).await?;
    let took = fleet
        .apply::<Deployment>(0..number, manifest, available)
        .await?;
    fleet.end().await?;
    Ok(took)
}

/// One application whose change takes five steps, with its traffic.
pub struct FiveSteps {
    cluster: Cluster,
    namespace: String,
    load: Load,
}

impl FiveSteps {
    const NAME: &str = "shop";
    const REPLICAS: i32 = 20;

    /// Its first version, once it serves.
    pub async fn serving(cluster: &Cluster) -> Result<Self> {
        let namespace = cluster.namespace("steps").await?;
        // Long enough for the evidence, as bakes are.
        policy(cluster, &namespace, &[5, 10, 20, 35, 50], "15s").await?;
        service(&cluster.client(), &namespace, Self::NAME, Self::NAME).await?;
        Self::promoted(cluster, &namespace, "v1").await?;
        let limits = Limits {
            max_requests: 100_000,
            max_time: WAIT_TIMEOUT,
        };
        let load = Load::start(cluster.client(), &namespace, Self::NAME, 150, limits).await?;
        Ok(Self {
            cluster: cluster.clone(),
            namespace,
            load,
        })
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Changes it, and returns when the change is promoted.
    pub async fn change(&self) -> Result<()> {
        Self::promoted(&self.cluster, &self.namespace, "v2").await
    }

    /// Returns when it is deleted.
    pub async fn end(self) -> Result<()> {
        drop(self.load);
        remove(&self.cluster, &self.namespace).await
    }

    async fn promoted(cluster: &Cluster, namespace: &str, version: &str) -> Result<()> {
        let rollouts: Api<Rollout> = Api::namespaced(cluster.client(), namespace);
        let app = App {
            name: Self::NAME,
            version,
            replicas: Self::REPLICAS,
            serves: Some(0.0),
            interval: "1s",
            canary: json!({}),
        };
        apply(&rollouts, app.name, &app.manifest()).await?;
        wait_for("the version has all traffic", WAIT_TIMEOUT, async || {
            let rollout = rollouts
                .get(Self::NAME)
                .await
                .map_err(|it| it.to_string())?;
            let seen = rollout.metadata.generation;
            let status = rollout.status.unwrap_or_default();
            let all = status.updated_replicas == Self::REPLICAS
                && status.available_replicas == Self::REPLICAS
                && status.replicas == Self::REPLICAS;
            if seen == Some(status.observed_generation) && status.phase == Phase::Stable && all {
                Ok(())
            } else {
                Err(format!(
                    "{:?} {:?}: {}",
                    status.phase, status.step, status.message
                ))
            }
        })
        .await?;
        Ok(())
    }
}
