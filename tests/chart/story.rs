//! One release from its installation to its end, under traffic.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use countersign_api::rollout::{Change, Outcome};
use countersign_api::{Phase, Rollout, RolloutPolicy, RolloutRun};
use countersign_cluster::{Cluster, Gateway, Limits, Load, Replica, wait_for};
use countersign_core::change;
use countersign_core::reason::Reason;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt as _;
use kube::api::{
    Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use serde_json::{Value, json};

use crate::release::{CHART, SYSTEM, helm, names, run};
use crate::rollout::rollout;
use crate::{earlier, operator, test_pod};

const WITHIN: Duration = Duration::from_mins(4);
const VALIDATING: &str = "validatingadmissionpolicies,validatingadmissionpolicybindings";
/// Kinds that an older API server does not have.
const MUTATING: &str = "mutatingadmissionpolicies,mutatingadmissionpolicybindings";
const WEBHOOKS: &str = "validatingwebhookconfigurations,mutatingwebhookconfigurations";

/// Further kinds of the chart's objects.
const INSTALLED: &str =
    "deployments,pods,services,serviceaccounts,clusterroles,clusterrolebindings";

struct Story {
    cluster: Cluster,
    namespace: String,
    rollouts: Api<Rollout>,
}

impl Story {
    fn host(&self) -> String {
        format!("{}.example.org", self.namespace)
    }

    fn objects<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client(), &self.namespace)
    }

    fn routes(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
        let resource = ApiResource::from_gvk(&kind);
        Api::namespaced_with(self.cluster.client(), &self.namespace, &resource)
    }

    /// A policy whose times suit a test, once its kind is served.
    async fn policy(&self) {
        let steps = json!([{ "weight": 25, "bake": "20s" }, { "weight": 50, "bake": "2s" }]);
        let tier = |scarce: &str| {
            json!({
                "steps": steps, "maxFirstWeight": 50, "maxIncrease": 50, "minFinalWeight": 50, "minBake": "1s",
                "minRequests": 20, "maxFalsePromotion": 0.1, "marginRatio": 2.0, "marginDifference": 0.05,
                "toleratedRatio": 1.2, "extendAtMost": "1m", "onScarceEvidence": scarce,
                "signOff": [], "promotionSignOff": [],
            })
        };
        let policy = json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutPolicy", "metadata": { "name": "chart" },
            "spec": { "tiers": { "low": tier("Promote"), "medium": tier("Hold") } },
        });
        let policies: Api<RolloutPolicy> = Api::all(self.cluster.client());
        let parameters = PatchParams::apply("platform-team").force();
        let poll = async || {
            self.rollouts.list(&ListParams::default()).await?;
            let patch = Patch::Apply(&policy);
            policies.patch("chart", &parameters, &patch).await
        };
        wait_for("the definitions are served", WITHIN, poll)
            .await
            .unwrap();
    }

    async fn services_and_route(&self, gateway: Gateway) {
        let services: Api<Service> = self.objects();
        for name in ["web", "web-canary"] {
            let service = json!({
                "metadata": { "name": name },
                "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
            });
            let service = serde_json::from_value(service).unwrap();
            let parameters = PostParams::default();
            let created = services.create(&parameters, &service);
            created.await.unwrap();
        }
        let backend =
            |name: &str, weight: i32| json!({ "name": name, "port": 80, "weight": weight });
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": { "name": "web" },
            "spec": {
                "parentRefs": [gateway.parent_ref()], "hostnames": [self.host()],
                "rules": [{ "backendRefs": [backend("web", 1), backend("web-canary", 0)] }],
            },
        });
        let route = serde_json::from_value(route).unwrap();
        let routes = self.routes();
        routes.create(&PostParams::default(), &route).await.unwrap();
    }

    async fn apply(&self, version: &str) {
        let canary = json!({
            "stableService": "web", "canaryService": "web-canary", "drain": "3s",
            "traffic": { "routes": [{ "name": "web" }] },
        });
        let rollout = rollout("web", version, &canary);
        let parameters = PatchParams::apply("service-team").force();
        let patch = Patch::Apply(&rollout);
        let applied = self.rollouts.patch("web", &parameters, &patch);
        applied.await.unwrap();
    }

    async fn pause(&self, paused: bool) {
        let patch = Patch::Merge(json!({ "spec": { "paused": paused } }));
        let parameters = PatchParams::default();
        let patched = self.rollouts.patch("web", &parameters, &patch);
        patched.await.unwrap();
    }

    async fn until(&self, what: &str, wanted: impl Fn(&Rollout) -> bool) -> Rollout {
        let poll = async || {
            let rollout = self.rollouts.get("web").await;
            let rollout = rollout.map_err(|error| error.to_string())?;
            let status = rollout.status.as_ref();
            let now = format!("{:?}", status.map(|it| (it.phase, &it.message)));
            wanted(&rollout).then_some(rollout).ok_or(now)
        };
        wait_for(what, WITHIN, poll).await.unwrap()
    }

    async fn operator(&self, program: PathBuf, identity: &str) -> Replica {
        let faults = operator::no_faults();
        operator::start(&self.cluster, &self.namespace, program, identity, faults).await
    }

    /// The credentials of an operator that was started.
    fn kubeconfig(&self, identity: &str) -> PathBuf {
        let name = format!("{}-{identity}.kubeconfig", self.namespace);
        self.cluster.dir().join(name)
    }

    /// The kinds of the admission policies.
    async fn admission(&self) -> String {
        let has_mutating = self.cluster.has_mutating_policies().await.unwrap();
        let mutating = has_mutating.then_some(MUTATING);
        let kinds: Vec<_> = [VALIDATING].into_iter().chain(mutating).collect();
        kinds.join(",")
    }

    async fn deployment(&self) -> Deployment {
        let deployments: Api<Deployment> = Api::namespaced(self.cluster.client(), SYSTEM);
        deployments.get("countersign").await.unwrap()
    }

    /// Whether the Deployment is that of this commit's chart.
    async fn is_of_this_chart(&self) -> bool {
        let deployment = self.deployment().await;
        deployment.labels()["helm.sh/chart"] != format!("countersign-{}", earlier::VERSION)
    }

    /// What decides where requests go: the route, the selectors of the Services, the pods.
    async fn traffic(&self) -> Value {
        let route = self.routes().get("web").await.unwrap();
        let services: Api<Service> = self.objects();
        let services = services.list(&ListParams::default()).await.unwrap();
        let selectors = services
            .items
            .into_iter()
            .map(|it| it.spec.unwrap().selector);
        let pods: Api<Pod> = self.objects();
        let pods = pods.list(&ListParams::default()).await.unwrap();
        let pods = pods.items.into_iter();
        let mut pods: Vec<_> = pods
            .map(|it| (it.metadata.uid, it.metadata.labels))
            .collect();
        pods.sort();
        json!([route.data["spec"], selectors.collect::<Vec<_>>(), pods])
    }
}

pub fn change_of(rollout: &Rollout) -> Option<&Change> {
    rollout.status.as_ref()?.change.as_ref()
}

/// Which change it is, and how far it is.
fn progress(rollout: &Rollout) -> Value {
    let change = change_of(rollout).unwrap();
    json!([change.run, change.digest, change.step, change.weight])
}

pub fn is_stable(rollout: &Rollout) -> bool {
    let status = rollout.status.as_ref();
    status.is_some_and(|it| it.phase == Phase::Stable && it.change.is_none())
}

fn is_paused(rollout: &Rollout) -> bool {
    let status = rollout.status.as_ref();
    status.is_some_and(|it| change::waits_for(it, Reason::Paused))
}

/// What `countersign check` reports outside `helm test`.
fn check(kubeconfig: &Path, prometheus: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["check", "--wait=0s", "--identity=check"])
        .args(["--namespace", SYSTEM, "--prometheus-url", prometheus])
        .env("KUBECONFIG", kubeconfig)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_release_is_upgraded_rolled_back_and_uninstalled_and_traffic_never_notices() {
    let cluster = Cluster::from_env().await.unwrap();
    let url = format!("--set=prometheus.url={}", cluster.prometheus_url());
    let earlier = earlier::chart();
    let chart = earlier.as_deref().unwrap_or(Path::new(CHART));
    let chart = chart.to_str().unwrap();
    // By their names in the earlier chart, which the upgrade keeps.
    let set = "--set=replicas=3,crds.install=true";
    helm(&[
        "install",
        "countersign",
        chart,
        "--create-namespace",
        &url,
        set,
    ]);

    let namespace = cluster.namespace("chart").await.unwrap();
    let gateway = cluster.gateway().await.unwrap();
    let story = Story {
        rollouts: Api::namespaced(cluster.client(), &namespace),
        cluster,
        namespace,
    };
    assert_eq!(story.is_of_this_chart().await, earlier.is_none());
    earlier::complete_definitions();
    story.policy().await;
    story.services_and_route(gateway).await;
    let replica = story.operator(earlier::operator(), "first").await;
    story.apply("1").await;
    story.until("the first revision is stable", is_stable).await;
    let limits = Limits {
        max_requests: 200_000,
        max_time: Duration::from_mins(20),
    };
    let host = story.host();
    let load = Load::through(gateway, &host, 100, limits);
    let load = load.await.unwrap();

    story.apply("2").await;
    let serves = |it: &Rollout| change_of(it).is_some_and(|it| it.weight > 0);
    story.until("the canary has traffic", serves).await;
    story.pause(true).await;
    let paused = story.until("the change is paused", is_paused).await;
    let in_progress = progress(&paused);
    assert_eq!(in_progress[3], 25, "{in_progress}");

    // As the Deployment does: one operator goes, the other comes.
    let notes = helm(&["upgrade", "countersign", CHART, "--reset-then-reuse-values"]);
    let renamed = "DEPRECATED: replicas is now replicaCount, crds.install is now crds.enabled.";
    assert!(notes.contains(renamed), "{notes}");
    assert_eq!(story.deployment().await.spec.replicas, Some(3));
    drop(replica);
    let replica = story.operator(env!("CARGO_BIN_EXE_countersign").into(), "second");
    let replica = replica.await;
    assert!(story.is_of_this_chart().await);
    test_pod::passes(&story.cluster, &story.kubeconfig("second")).await;
    let after = story.until("the change is paused", is_paused).await;
    assert_eq!(progress(&after), in_progress, "it has not begun again");

    helm(&["rollback", "countersign", "1"]);
    drop(replica);
    let replica = story.operator(earlier::operator(), "third").await;
    assert_eq!(story.is_of_this_chart().await, earlier.is_none());
    let after = story.until("the change is paused", is_paused).await;
    assert_eq!(progress(&after), in_progress, "it has not begun again");

    let policy = ["validatingadmissionpolicy", "owned.countersign.dev"];
    run("kubectl", &[&["delete"][..], &policy].concat());
    let problems = check(&story.kubeconfig("third"), story.cluster.prometheus_url());
    let missing = "ValidatingAdmissionPolicy owned.countersign.dev is missing";
    assert!(problems.contains(missing), "{problems}");
    let unreadable = "CustomResourceDefinition rollouts.countersign.dev cannot be read";
    assert!(
        problems.contains(unreadable),
        "outside helm test: {problems}"
    );
    assert!(
        !problems.contains("Lease") && !problems.contains("query"),
        "{problems}"
    );

    helm(&["upgrade", "countersign", CHART, "--reset-then-reuse-values"]);
    drop(replica);
    let replica = story.operator(env!("CARGO_BIN_EXE_countersign").into(), "fourth");
    let replica = replica.await;
    test_pod::passes(&story.cluster, &story.kubeconfig("fourth")).await;
    story.pause(false).await;
    let promoted =
        |it: &Rollout| is_stable(it) && it.status.as_ref().is_some_and(|it| it.revision == 2);
    story.until("the change is promoted", promoted).await;
    let runs: Api<RolloutRun> = story.objects();
    let runs = runs.list(&ListParams::default()).await.unwrap().items;
    let same = runs
        .iter()
        .find(|it| it.metadata.name.as_deref() == in_progress[0].as_str());
    let outcome = same.unwrap().spec.progress.outcome;
    assert_eq!((runs.len(), outcome), (2, Some(Outcome::Promoted)));

    is_uninstalled(&story, replica, load).await;
    story
        .rollouts
        .delete("web", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    run(
        "kubectl",
        &["delete", "--filename", &format!("{CHART}/crd-files/")],
    );
}

/// Nothing is left that changes traffic, and all that serves it is.
async fn is_uninstalled(story: &Story, replica: Replica, load: Load) {
    let old_pods_are_gone = async || {
        let pods: Api<Pod> = story.objects();
        let pods = pods.list(&ListParams::default()).await.unwrap().items;
        (pods.len() == 4).then_some(()).ok_or(pods.len())
    };
    let gone = wait_for("the old pods are gone", WITHIN, old_pods_are_gone);
    gone.await.unwrap();
    let ours = |it: &String| it.contains("countersign");
    let admission = story.admission().await;
    assert!(names(&admission).iter().any(ours), "before");
    // It ends with its pods; a last write of its own is not Helm's.
    drop(replica);
    let (rollout, before) = (
        story.rollouts.get("web").await.unwrap(),
        story.traffic().await,
    );

    helm(&["uninstall", "countersign"]);
    let pod = ["delete", "pod", test_pod::POD, "--namespace", SYSTEM];
    run("kubectl", &pod);
    let left = async || {
        let mut left = names(&format!("{admission},{WEBHOOKS},{INSTALLED}"));
        left.retain(ours);
        left.is_empty().then_some(()).ok_or(format!("{left:?}"))
    };
    wait_for("nothing of the release is left", WITHIN, left)
        .await
        .unwrap();
    let definitions = names("customresourcedefinitions");
    let kept = definitions
        .iter()
        .filter(|it| it.ends_with(".countersign.dev"));
    assert_eq!(kept.count(), countersign_api::crds().len());

    let served = load.report().requests;
    let goes_on = async || {
        let more = load.report().requests - served;
        (more > 500).then_some(()).ok_or(more)
    };
    wait_for("requests are served", WITHIN, goes_on)
        .await
        .unwrap();
    assert_eq!(story.traffic().await, before);
    let after = story.rollouts.get("web").await.unwrap();
    assert_eq!(
        after.metadata.resource_version,
        rollout.metadata.resource_version
    );
    let report = load.stop().await;
    let failed = (report.http_errors, report.connection_errors);
    assert_eq!(failed, (0, 0), "{:?}", report.last_failure);
}
