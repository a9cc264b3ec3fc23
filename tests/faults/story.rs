//! Stories: Rollouts that run once without a fault and then with each fault.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use countersign_api::rollout::{Change, Stage};
use countersign_api::{Phase, Rollout, RolloutPolicy};
use countersign_cluster::{
    Cluster, Fault, Gateway, Kinds, Limits, Load, LoadReport, Plan, ProxiedRequest, Replica,
    ReplicaPlan, wait_for,
};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Api;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
    PostParams,
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::ledger::{Finale, Ledger};
use crate::support::{App, harmless, make_service, risky};

/// Longest fault plus evidence and bakes.
pub const TIMEOUT: Duration = Duration::from_mins(4);
/// If nothing has been written for this long, the run has ended.
const SILENCE: Duration = Duration::from_secs(4);

/// The kind of story.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Story {
    /// A good change, promoted.
    Promoted,
    /// A bad change, rolled back.
    RolledBack,
    /// A good change that waits for a person, behind a route.
    Signed,
    /// A bad change, behind a route.
    Routed,
}

impl Story {
    pub const ALL: [Self; 4] = [Self::Promoted, Self::RolledBack, Self::Signed, Self::Routed];

    fn is_routed(self) -> bool {
        matches!(self, Self::Signed | Self::Routed)
    }

    fn is_good(self) -> bool {
        matches!(self, Self::Promoted | Self::Signed)
    }

    fn app(self) -> App {
        let mut canary = json!({ "drain": "1s" });
        if self.is_routed() {
            canary = json!({
                "drain": "1s", "stableService": APP, "canaryService": CANARY,
                "traffic": { "routes": [{ "name": APP }] },
            });
        }
        let spec = json!({ "progressDeadlineSeconds": 300, "strategy": { "canary": canary } });
        App::new(APP).spec(spec)
    }

    fn change(self) -> App {
        let provenance = if self == Self::Signed {
            risky()
        } else {
            harmless()
        };
        let errors = if self.is_good() { 0.0 } else { 0.5 };
        self.app()
            .version("v2")
            .provenance(provenance)
            .failing(errors)
    }
}

const APP: &str = "shop";
const CANARY: &str = "shop-canary";

/// The faults of one run's operator.
#[derive(Clone)]
pub struct Faults {
    /// On the way to the API server.
    pub api_server: Plan,
    /// On the way to Prometheus.
    pub prometheus: Plan,
    /// More of the operator's environment.
    pub environment: Vec<(String, String)>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            api_server: plan(|_| Fault::Pass),
            prometheus: plan(|_| Fault::Pass),
            environment: vec![],
        }
    }
}

impl Faults {
    pub fn of(api_server: impl Fn(&ProxiedRequest) -> Fault + Send + Sync + 'static) -> Self {
        Self {
            api_server: plan(api_server),
            ..Self::default()
        }
    }
}

pub fn plan(decide: impl Fn(&ProxiedRequest) -> Fault + Send + Sync + 'static) -> Plan {
    Arc::new(decide)
}

/// A run in progress.
pub struct Run {
    pub cluster: Cluster,
    pub namespace: String,
    pub replica: Replica,
    story: Story,
    ledger: Ledger,
}

/// The result of a run.
#[derive(Debug)]
pub struct RunResult {
    pub finale: Finale,
    /// Laws that were broken, by the ledger and by the requests.
    pub broken: Vec<String>,
    /// The operator's writes, in order.
    pub writes: Vec<ProxiedRequest>,
    /// The number of each kind of fault, on both connections.
    pub faults: BTreeMap<String, usize>,
    /// Number of starts of the operator.
    pub starts: usize,
    /// Details for debugging a failure.
    pub tale: String,
}

impl Run {
    pub async fn begin(story: Story, faults: Faults) -> Self {
        let cluster = cluster().await;
        let namespace = cluster.namespace("tale").await.unwrap();
        let ledger = Ledger::open(&cluster, &namespace, story.is_routed());
        let replica = replica(&cluster, &namespace, "first", &namespace, faults).await;
        Self {
            cluster,
            namespace,
            replica,
            story,
            ledger,
        }
    }

    fn rollouts(&self) -> Api<Rollout> {
        Api::namespaced(self.cluster.client(), &self.namespace)
    }

    /// Applies an application, with retries if the API server is away.
    async fn apply(&self, app: &App) -> Result<(), String> {
        let apply = PatchParams::apply("service-team").force();
        let manifest = app.manifest();
        wait_for("the Rollout is applied", TIMEOUT, async || {
            self.rollouts()
                .patch(APP, &apply, &Patch::Apply(&manifest))
                .await
                .map(drop)
        })
        .await
        .map_err(|error| error.to_string())
    }

    async fn until(
        &self,
        what: &str,
        wanted: impl Fn(&Rollout) -> bool,
    ) -> Result<Rollout, String> {
        let poll = async || {
            let rollout = self
                .rollouts()
                .get(APP)
                .await
                .map_err(|error| error.to_string())?;
            let status = rollout.status.clone().unwrap_or_default();
            let state = format!(
                "{:?} {:?}: {}",
                status.phase, status.waiting_for, status.message
            );
            if wanted(&rollout) {
                Ok(rollout)
            } else {
                Err(state)
            }
        };
        wait_for(what, TIMEOUT, poll)
            .await
            .map_err(|error| error.to_string())
    }

    /// The first revision, under load.
    async fn serve(&self) -> Result<Load, String> {
        for name in [APP, CANARY]
            .iter()
            .take(if self.story.is_routed() { 2 } else { 1 })
        {
            make_service(&self.cluster, &self.namespace, name, APP).await;
        }
        let host = format!("{}.example.org", self.namespace);
        let mut gateway = None;
        if self.story.is_routed() {
            let opened = self.cluster.gateway().await.unwrap();
            self.route(opened, &host).await;
            gateway = Some(opened);
        }
        self.apply(&self.story.app()).await?;
        self.until("the first revision serves", |rollout| {
            phase(rollout) == Phase::Stable
        })
        .await?;
        let limits = Limits {
            max_requests: 100_000,
            max_time: Duration::from_mins(10),
        };
        let load = match gateway {
            Some(gateway) => Load::through(gateway, &host, RATE, limits).await,
            None => Load::start(self.cluster.client(), &self.namespace, APP, RATE, limits).await,
        };
        load.map_err(|error| error.to_string())
    }

    async fn route(&self, gateway: Gateway, host: &str) {
        let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
        let api: Api<DynamicObject> = Api::namespaced_with(
            self.cluster.client(),
            &self.namespace,
            &ApiResource::from_gvk(&kind),
        );
        let backend =
            |name: &str, weight: i32| json!({ "name": name, "port": 80, "weight": weight });
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": { "name": APP },
            "spec": {
                "parentRefs": [gateway.parent_ref()], "hostnames": [host],
                "rules": [{ "backendRefs": [backend(APP, 1), backend(CANARY, 0)] }],
            },
        });
        let route = serde_json::from_value(route).unwrap();
        api.create(&PostParams::default(), &route).await.unwrap();
    }

    /// Signs as bob until no sign-off is awaited.
    async fn sign(&self) -> Result<(), String> {
        let client = self.cluster.client_as("bob").await.unwrap();
        let binding: RoleBinding = serde_json::from_value(json!({
            "metadata": { "name": "bob-approves" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "countersign-approver" },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob" }],
        }))
        .unwrap();
        let bindings: Api<RoleBinding> = Api::namespaced(self.cluster.client(), &self.namespace);
        wait_for("bob may approve", TIMEOUT, async || {
            match bindings.create(&PostParams::default(), &binding).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
                result => result.map(drop),
            }
        })
        .await
        .map_err(|error| error.to_string())?;
        let kind = GroupVersionKind::gvk("countersign.dev", "v1alpha1", "SignOff");
        let sign_offs: Api<DynamicObject> =
            Api::namespaced_with(client, &self.namespace, &ApiResource::from_gvk(&kind));
        self.until("a person is waited for", |rollout| {
            phase(rollout) == Phase::AwaitingSignOff
        })
        .await?;
        wait_for("bob has signed", TIMEOUT, async || {
            let rollout = self.rollouts().get(APP).await.map_err(|error| error.to_string())?;
            let status = rollout.status.clone().unwrap_or_default();
            let change = status.change.ok_or("there is no change")?;
            let sign_off = json!({
                "apiVersion": "countersign.dev/v1alpha1", "kind": "SignOff", "metadata": { "name": "by-bob" },
                "spec": {
                    "rollout": APP, "rolloutUid": rollout.metadata.uid, "run": change.run, "digest": change.digest,
                    "decision": "Approve", "reason": "looks good",
                },
            });
            let sign_off = serde_json::from_value(sign_off).unwrap();
            match sign_offs.create(&PostParams::default(), &sign_off).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
                result => result.map(drop).map_err(|error| error.to_string()),
            }
        })
        .await
        .map_err(|error| error.to_string())
    }

    /// Runs the whole story, with `beside` from the start of the change.
    pub async fn complete(&self, beside: impl Future<Output = ()>) -> Result<RunResult, String> {
        let load = self.serve().await?;
        self.apply(&self.story.change()).await?;
        let ((), done) = tokio::join!(beside, self.end());
        done?;
        let report = load.stop().await;
        let mut broken = self.ledger.broken();
        broken.extend(lost(self.story, &report));
        broken.extend(
            self.ledger
                .rose_on_too_little(&self.cluster, &self.namespace)
                .await,
        );
        let mut faults = self.replica.api_server.faults();
        for (kind, count) in self.replica.prometheus.faults() {
            *faults.entry(kind).or_default() += count;
        }
        Ok(RunResult {
            finale: self.ledger.finale(APP),
            broken,
            writes: self.replica.api_server.writes(),
            faults,
            starts: self.replica.starts(),
            tale: self.ledger.tale(APP),
        })
    }

    async fn end(&self) -> Result<(), String> {
        if self.story == Story::Signed {
            self.sign().await?;
        }
        self.until_ended().await?;
        self.ledger.quiet(SILENCE, Duration::from_mins(1)).await
    }

    /// Waits until the change has ended.
    pub async fn until_ended(&self) -> Result<(), String> {
        let good = self.story.is_good();
        let ended = self.until("the change has ended", |rollout| {
            let status = rollout.status.clone().unwrap_or_default();
            let stable = status.stable.map_or(0, |stable| stable.revision);
            match status.phase {
                Phase::Stable => stable == 2,
                Phase::Degraded => !good || status.change.is_some_and(|it| it.outcome.is_some()),
                _ => false,
            }
        });
        ended.await.map(drop)
    }

    /// Waits until the canary has traffic, and is analysed.
    pub async fn until_under_way(&self) {
        let under_way = self.until("the canary has traffic", |rollout| {
            change(rollout).is_some_and(|it| it.weight > 0 && it.outcome.is_none())
        });
        under_way.await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Whether the change is in progress.
    pub async fn is_under_way(&self) -> bool {
        let rollout = self.rollouts().get(APP).await.unwrap();
        change(&rollout).is_some_and(|it| it.outcome.is_none())
    }

    /// The progress of the change: whether it is, or becomes, the stable one; its step.
    pub async fn step(&self) -> (bool, i32) {
        let rollout = self.rollouts().get(APP).await.unwrap();
        let promoted = [Stage::Promoting, Stage::Promoted];
        match change(&rollout) {
            Some(change) => (promoted.contains(&change.stage), change.step),
            None => (rollout.status.unwrap().stable.unwrap().revision == 2, 0),
        }
    }

    /// Details for debugging.
    pub fn evidence(&self) -> String {
        format!("{}\n{}", self.ledger.tale(APP), self.replica.log())
    }

    /// Deletes the namespace, ignoring errors.
    pub async fn clear(self) {
        let namespaces: Api<Namespace> = Api::all(self.cluster.client());
        let _ = namespaces
            .delete(&self.namespace, &DeleteParams::default())
            .await;
    }
}

/// Requests per second.
const RATE: u32 = 80;

/// Requests that failed although none should.
fn lost(story: Story, report: &LoadReport) -> Vec<String> {
    let errors: u64 = report
        .by_revision
        .values()
        .map(|revision| revision.errors)
        .sum();
    let by_canary = if story.is_good() { 0 } else { errors };
    let failed = report.connection_errors + report.http_errors - by_canary;
    let why = &report.last_failure;
    (failed > 0)
        .then(|| {
            format!(
                "{failed} of {} requests were lost: {why:?}",
                report.requests
            )
        })
        .into_iter()
        .collect()
}

/// The change after the first revision.
fn change(rollout: &Rollout) -> Option<&Change> {
    let change = rollout.status.as_ref()?.change.as_ref()?;
    Some(change).filter(|change| !change.initial)
}

pub fn phase(rollout: &Rollout) -> Phase {
    rollout
        .status
        .as_ref()
        .map_or(Phase::Progressing, |status| status.phase)
}

/// An operator limited to one namespace, with its lease there or elsewhere.
pub async fn replica(
    cluster: &Cluster,
    namespace: &str,
    identity: &str,
    lease_namespace: &str,
    faults: Faults,
) -> Replica {
    let plan = ReplicaPlan {
        program: Path::new(env!("CARGO_BIN_EXE_countersign")).to_owned(),
        namespace: Some(namespace.to_owned()),
        identity: identity.to_owned(),
        lease_namespace: lease_namespace.to_owned(),
        api_server: faults.api_server,
        prometheus: faults.prometheus,
        environment: faults.environment,
    };
    Replica::start(cluster, plan).await.unwrap()
}

static READY: OnceCell<()> = OnceCell::const_new();

/// The cluster, with the chart's operator stopped and one policy for all Rollouts.
pub async fn cluster() -> Cluster {
    let cluster = Cluster::from_env().await.unwrap();
    READY
        .get_or_init(async || {
            cluster.stop_operator().await.unwrap();
            cluster.install_kinds(Kinds::GatewayApi).await.unwrap();
            install_policy(&cluster).await;
        })
        .await;
    cluster
}

/// Two short steps, and fast evidence.
async fn install_policy(cluster: &Cluster) {
    let tier = |promotion: Value| {
        json!({
            "steps": [{ "weight": 25, "bake": "1s" }, { "weight": 50, "bake": "1s" }],
            "maxFirstWeight": 50, "maxIncrease": 50, "minFinalWeight": 50, "minBake": "1s", "minRequests": 20,
            "maxFalsePromotion": 0.2, "marginRatio": 4.0, "marginDifference": 0.2, "toleratedRatio": 1.2,
            "extendAtMost": "5m", "onScarceEvidence": "Hold", "waitAtMost": "10m", "signOff": [], "promotionSignOff": promotion,
        })
    };
    let nobody = || tier(json!([]));
    let policy = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutPolicy", "metadata": { "name": "faults" },
        "spec": {
            "risk": { "version": "faults-1" }, "history": { "runs": 0 },
            "tiers": {
                "low": nobody(), "medium": nobody(),
                "high": tier(json!([{ "count": 1, "groups": ["approvers"] }])),
                "critical": nobody(),
            },
        },
    });
    let policies: Api<RolloutPolicy> = Api::all(cluster.client());
    let rollouts: Api<Rollout> = Api::all(cluster.client());
    let apply = PatchParams::apply("platform-team").force();
    let poll = async || {
        rollouts.list(&ListParams::default()).await?;
        policies
            .patch("faults", &apply, &Patch::Apply(&policy))
            .await
    };
    wait_for("the definitions are served", TIMEOUT, poll)
        .await
        .unwrap();
}

/// The result of a story without faults, and its writes; run once.
pub async fn undisturbed(story: Story) -> &'static RunResult {
    static RESULTS: [OnceCell<RunResult>; 4] = [const { OnceCell::const_new() }; 4];
    RESULTS[story as usize]
        .get_or_init(async || {
            let run = Run::begin(story, Faults::default()).await;
            let result = run.complete(async {}).await;
            let result = result.unwrap_or_else(|error| panic!("{error}\n{}", run.evidence()));
            assert_eq!(result.broken, Vec::<String>::new(), "{}", result.tale);
            assert_eq!(result.starts, 1);
            run.clear().await;
            result
        })
        .await
}

/// Runs a story with a fault; `Err` holds the differences from the expected end.
pub async fn run_story(story: Story, faults: Faults) -> Result<RunResult, String> {
    disturbed(story, faults, async |_: &Run| {}).await
}

/// The same with `beside` running concurrently.
pub async fn disturbed(
    story: Story,
    faults: Faults,
    beside: impl AsyncFnOnce(&Run),
) -> Result<RunResult, String> {
    let expected = &undisturbed(story).await.finale;
    let run = Run::begin(story, faults).await;
    let besides = beside(&run);
    let result = run.complete(besides).await;
    let result = result.map_err(|error| format!("{error}\n{}", run.evidence()))?;
    if !result.broken.is_empty() {
        return Err(format!("{:#?}\n{}", result.broken, run.evidence()));
    }
    if result.finale != *expected {
        let (found, evidence) = (&result.finale, run.evidence());
        return Err(format!(
            "it ended as {found:?}\ninstead of {expected:?}\n{evidence}"
        ));
    }
    if run.replica.log().contains("panicked") {
        return Err(format!("it panicked\n{}", run.evidence()));
    }
    run.clear().await;
    Ok(result)
}
