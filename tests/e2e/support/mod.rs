//! Helpers for a Rollout with its Service, policy and traffic.

mod app;
mod permission;

use std::sync::{Arc, Weak};
use std::time::Duration;

use countersign::clock;
use countersign_api::rollout::Outcome;
use countersign_api::{Phase, Rollout, RolloutPolicy, RolloutRun, Tier};
use countersign_cluster::{Cluster, Limits, Load, wait_for};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource};
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use app::{App, harmless, merge, risky};
pub use permission::Permission;

/// Long enough for a loaded machine with two cores; successful tests do not wait for it.
pub const TIMEOUT: Duration = Duration::from_mins(4);

/// The result of a future, with a timeout.
pub async fn within<T>(what: &str, awaited: impl Future<Output = T>) -> T {
    let awaited = tokio::time::timeout(TIMEOUT, awaited).await;
    awaited.unwrap_or_else(|_| panic!("{what}: not so within {TIMEOUT:?}"))
}

/// Tests that disturb shared processes (the operator, Prometheus) or what holds for all namespaces run alone.
static SHARED: RwLock<()> = RwLock::const_new(());
/// The turn of the tests that run unguarded, while there is one.
static UNGUARDED: Mutex<Weak<RwLockWriteGuard<'static, ()>>> = Mutex::const_new(Weak::new());
static POLICY: OnceCell<()> = OnceCell::const_new();

/// A namespace with a policy whose times suit a test.
pub struct Scene {
    pub cluster: Cluster,
    pub namespace: String,
    /// Whether the API server stamps Rollouts; if not, no stamp is demanded in the scene.
    pub stamped: bool,
    turn: Option<Turn>,
}

/// Held for as long as a scene lasts.
#[expect(dead_code, reason = "what counts is when they are dropped")]
enum Turn {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
    Unguarded(Arc<RwLockWriteGuard<'static, ()>>),
}

/// Pods of a test that has passed would be served and scraped until the last test ends. A failed one keeps them, to
/// find out why.
impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let namespace = std::mem::take(&mut self.namespace);
        let turn = self.turn.take();
        // This runtime ends with the test, and with it the client.
        std::thread::spawn(move || {
            if let Ok(runtime) = tokio::runtime::Runtime::new() {
                runtime.block_on(remove_workloads(&namespace));
            }
            drop(turn);
        });
    }
}

/// Deletes what makes pods, and waits a moment for the end of the Rollouts: their deletion is work of the operator.
async fn remove_workloads(namespace: &str) {
    let Ok(cluster) = Cluster::from_env().await else {
        return;
    };
    let rollouts: Api<Rollout> = Api::namespaced(cluster.client(), namespace);
    let deployments: Api<Deployment> = Api::namespaced(cluster.client(), namespace);
    let (parameters, all) = (DeleteParams::background(), ListParams::default());
    let _ = rollouts.delete_collection(&parameters, &all).await;
    let _ = deployments.delete_collection(&parameters, &all).await;
    let gone = async || {
        let left = rollouts
            .list(&all)
            .await
            .is_ok_and(|it| it.items.is_empty());
        left.then_some(())
    };
    let _ = wait_for("the Rollouts are gone", Duration::from_secs(20), gone).await;
}

impl Scene {
    /// A scene that shares the operator and Prometheus with other tests.
    pub async fn new(name: &str) -> Self {
        Self::with(name, Turn::Shared(SHARED.read().await)).await
    }

    /// A scene that has the operator and Prometheus to itself. Its test is `#[ignore]`d, so that `make e2e-alone` runs
    /// it in another cluster: among tests that share one, all of them would wait for it.
    pub async fn alone(name: &str) -> Self {
        Self::with(name, Turn::Alone(SHARED.write().await)).await
    }

    /// A scene beside no others but such scenes, so that they may all do without the same admission policies.
    pub async fn unguarded(name: &str) -> Self {
        let mut present = UNGUARDED.lock().await;
        let turn = match present.upgrade() {
            Some(turn) => turn,
            None => Arc::new(SHARED.write().await),
        };
        *present = Arc::downgrade(&turn);
        drop(present);
        Self::with(name, Turn::Unguarded(turn)).await
    }

    async fn with(name: &str, turn: Turn) -> Self {
        let cluster = Cluster::from_env().await.unwrap();
        POLICY
            .get_or_init(async || install_policy(&cluster).await)
            .await;
        let namespace = cluster.namespace(name).await.unwrap();
        let stamped = cluster.has_mutating_policies().await.unwrap();
        Self {
            cluster,
            namespace,
            stamped,
            turn: Some(turn),
        }
    }

    pub fn rollouts(&self) -> Api<Rollout> {
        Api::namespaced(self.cluster.client(), &self.namespace)
    }

    pub fn runs(&self) -> Api<RolloutRun> {
        Api::namespaced(self.cluster.client(), &self.namespace)
    }

    pub fn replica_sets(&self) -> Api<ReplicaSet> {
        Api::namespaced(self.cluster.client(), &self.namespace)
    }

    /// Makes the Service that all revisions of an application share.
    pub async fn service(&self, name: &str, app: &str) {
        make_service(&self.cluster, &self.namespace, name, app).await;
    }

    /// Creates a Rollout with its Service and waits until its first revision serves.
    pub async fn serving(&self, app: App) -> App {
        self.service(&app.name, &app.name).await;
        self.apply(&app).await;
        self.until(&app, "the first revision serves", |rollout| {
            phase(rollout) == Phase::Stable
        })
        .await;
        app
    }

    /// Applies an application as a service team would.
    pub async fn apply(&self, app: &App) -> Rollout {
        self.apply_manifest(&app.manifest()).await
    }

    pub async fn apply_manifest(&self, manifest: &Value) -> Rollout {
        let parameters = PatchParams::apply("service-team").force();
        let name = manifest["metadata"]["name"].as_str().unwrap();
        self.rollouts()
            .patch(name, &parameters, &Patch::Apply(manifest))
            .await
            .unwrap()
    }

    pub async fn get(&self, app: &App) -> Rollout {
        self.rollouts().get(&app.name).await.unwrap()
    }

    /// Waits until a Rollout is as wanted, and returns it.
    pub async fn until(&self, app: &App, what: &str, wanted: impl Fn(&Rollout) -> bool) -> Rollout {
        let poll = async || {
            let rollout = self
                .rollouts()
                .get(&app.name)
                .await
                .map_err(|error| error.to_string())?;
            if wanted(&rollout) {
                Ok(rollout)
            } else {
                Err(state_of(&rollout))
            }
        };
        match wait_for(what, TIMEOUT, poll).await {
            Ok(rollout) => rollout,
            Err(error) => panic!(
                "{error}\noperator: {}",
                self.cluster.operator_log_tail(30).unwrap_or_default()
            ),
        }
    }

    /// Applies a new version whose canary is to serve a quarter of the traffic for ten minutes; returns it
    /// with its Rollout, once it has traffic.
    pub async fn baking(&self, app: &App) -> (App, Rollout) {
        let slow = json!({ "steps": [{ "weight": 25, "bake": "10m" }] });
        let next = app.version("v2");
        let next = next.spec(json!({ "strategy": { "canary": slow } }));
        self.apply(&next).await;
        let serves = |rollout: &Rollout| {
            let status = rollout.status.as_ref();
            status.is_some_and(|it| it.weight.is_some_and(|weight| weight > 0))
        };
        let rollout = self.until(&next, "the canary serves", serves).await;
        (next, rollout)
    }

    /// Waits until the record of the latest change after the first revision has an outcome.
    pub async fn outcome(&self, app: &App) -> RolloutRun {
        let poll = async || {
            let runs = self.records(app).await;
            let last = runs
                .into_iter()
                .skip(1)
                .next_back()
                .ok_or("there is no record")?;
            last.spec
                .progress
                .outcome
                .map(|_| last.clone())
                .ok_or(format!("{:?}", last.spec.progress.transitions.last()))
        };
        wait_for("the record has an outcome", TIMEOUT, poll)
            .await
            .unwrap()
    }

    /// All records of an application, oldest first.
    pub async fn records(&self, app: &App) -> Vec<RolloutRun> {
        let runs = self
            .runs()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items;
        let mut runs: Vec<_> = runs
            .into_iter()
            .filter(|run| run.spec.rollout == app.name)
            .collect();
        runs.sort_by_key(|run| run.spec.revision);
        runs
    }

    /// A policy of the scene, in addition to that of all tests: the stricter one wins. A second call
    /// edits it.
    pub async fn policy(&self, spec: Value) {
        let labels = json!({ "kubernetes.io/metadata.name": self.namespace });
        let mut own = json!({ "namespaceSelector": { "matchLabels": labels } });
        merge(&mut own, &spec);
        let policy = json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutPolicy",
            "metadata": { "name": self.namespace }, "spec": own,
        });
        let policies: Api<RolloutPolicy> = Api::all(self.cluster.client());
        let apply = PatchParams::apply("platform-team").force();
        policies
            .patch(&self.namespace, &apply, &Patch::Apply(&policy))
            .await
            .unwrap();
    }

    pub async fn remove_policy(&self) {
        let policies: Api<RolloutPolicy> = Api::all(self.cluster.client());
        policies
            .delete(&self.namespace, &DeleteParams::default())
            .await
            .unwrap();
    }

    /// Sends requests to the application's Service until the load is dropped.
    pub async fn load(&self, app: &App, requests_per_second: u32) -> Load {
        let limits = Limits {
            max_requests: 200_000,
            max_time: Duration::from_mins(5),
        };
        let load = Load::start(
            self.cluster.client(),
            &self.namespace,
            &app.name,
            requests_per_second,
            limits,
        );
        load.await.unwrap()
    }

    /// Binds a user to a `ClusterRole` in the scene's namespace; returns once it is in force.
    pub async fn grant(&self, user: &str, role: &str) {
        let rules = self.rules_of(role).await;
        let binding = binding("ClusterRole", role, user);
        create::<RoleBinding>(&self.namespaced(), binding).await;
        self.until_in_force(user, &self.namespace, &rules).await;
    }

    /// Binds a user to a `ClusterRole` cluster-wide, for cluster-scoped objects; returns once it is in
    /// force.
    pub async fn grant_everywhere(&self, user: &str, role: &str) {
        let rules = self.rules_of(role).await;
        self.bind_everywhere(user, role, &rules).await;
    }

    /// Binds a user to rules of the test's own in the scene's namespace; returns once they are in
    /// force.
    pub async fn grant_rules(&self, user: &str, rules: Value) {
        let role = json!({ "metadata": { "generateName": "test-" }, "rules": rules });
        let role = create::<Role>(&self.namespaced(), role).await;
        let name = role.metadata.name.unwrap();
        create::<RoleBinding>(&self.namespaced(), binding("Role", &name, user)).await;
        self.until_in_force(user, &self.namespace, &role.rules.unwrap_or_default())
            .await;
    }

    /// The same cluster-wide, for cluster-scoped objects.
    pub async fn grant_rules_everywhere(&self, user: &str, rules: Value) {
        let role = json!({ "metadata": { "generateName": "test-" }, "rules": rules });
        let role = create::<ClusterRole>(&Api::all(self.cluster.client()), role).await;
        let (name, rules) = (role.metadata.name.unwrap(), role.rules.unwrap_or_default());
        self.bind_everywhere(user, &name, &rules).await;
    }

    async fn bind_everywhere(&self, user: &str, role: &str, rules: &[PolicyRule]) {
        let binding = binding("ClusterRole", role, user);
        create::<ClusterRoleBinding>(&Api::all(self.cluster.client()), binding).await;
        self.until_in_force(user, "", rules).await;
    }

    /// Whether a user has this verb on a resource of the API group, such as `rollouts` or
    /// `rollouts/status`, in the scene's namespace.
    pub async fn may(&self, user: &str, verb: &str, resource: &str) -> bool {
        self.may_of(countersign_api::GROUP, user, verb, resource)
            .await
    }

    /// The same with a resource of this group.
    pub async fn may_of(&self, group: &str, user: &str, verb: &str, resource: &str) -> bool {
        let permission = Permission {
            verb: verb.to_owned(),
            resource: resource.to_owned(),
            group: group.to_owned(),
            name: None,
        };
        permission
            .is_granted(&self.cluster.client(), user, &self.namespace)
            .await
    }

    /// The rules of a `ClusterRole` for the API group; a built-in one is aggregated a moment after the
    /// chart is installed.
    async fn rules_of(&self, role: &str) -> Vec<PolicyRule> {
        let roles: Api<ClusterRole> = Api::all(self.cluster.client());
        let poll = async || {
            let found = roles.get(role).await.unwrap();
            let rules = found.rules.unwrap_or_default().into_iter();
            let ours: Vec<_> = rules.filter(is_ours).collect();
            (!ours.is_empty()).then_some(ours)
        };
        wait_for("the role covers our resources", TIMEOUT, poll)
            .await
            .unwrap()
    }

    fn namespaced<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client(), &self.namespace)
    }

    /// The API server takes a moment to notice a role and its binding.
    async fn until_in_force(&self, user: &str, namespace: &str, rules: &[PolicyRule]) {
        let client = self.cluster.client();
        for permission in Permission::of(rules) {
            let poll = async || {
                let granted = permission.is_granted(&client, user, namespace).await;
                granted
                    .then_some(())
                    .ok_or_else(|| format!("{user} may not yet {permission}"))
            };
            wait_for("a grant is in force", TIMEOUT, poll)
                .await
                .unwrap();
        }
    }

    /// Waits for the single Event with this reason, which follows the status.
    pub async fn event_once(&self, app: &App, reason: &str) {
        let poll = async || {
            let count = self.events(app, reason).await.len();
            (count > 0).then_some(count)
        };
        let count = wait_for("the Event is published", TIMEOUT, poll).await;
        assert_eq!(count.unwrap(), 1, "{reason}");
    }

    /// Messages of all Events about an application with this reason.
    pub async fn events(&self, app: &App, reason: &str) -> Vec<String> {
        let events: Api<k8s_openapi::api::events::v1::Event> =
            Api::namespaced(self.cluster.client(), &self.namespace);
        let events = events.list(&ListParams::default()).await.unwrap().items;
        let about = |event: &k8s_openapi::api::events::v1::Event| {
            event
                .regarding
                .as_ref()
                .and_then(|regarding| regarding.name.as_deref())
                == Some(&app.name)
                && event.reason.as_deref() == Some(reason)
        };
        events
            .into_iter()
            .filter(about)
            .filter_map(|event| event.note)
            .collect()
    }

    /// Waits until new objects are younger than an application: ages are whole seconds.
    pub async fn younger(&self, app: &App) {
        let created = self.get(app).await.metadata.creation_timestamp.unwrap().0;
        let poll = async || (clock::now().as_second() > created.as_second()).then_some(());
        wait_for("a second has passed", TIMEOUT, poll)
            .await
            .unwrap();
    }

    /// Requested pods by `pod-template-hash`.
    pub async fn pods(&self, hash: &str) -> i32 {
        let revision = ListParams::default().labels(&format!("pod-template-hash={hash}"));
        self.replica_sets()
            .list(&revision)
            .await
            .unwrap()
            .items
            .iter()
            .filter_map(|set| set.spec.replicas)
            .sum()
    }
}

/// Creates an object.
pub async fn create<K>(objects: &Api<K>, object: Value) -> K
where
    K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let object = serde_json::from_value(object).unwrap();
    let made = objects.create(&PostParams::default(), &object).await;
    made.unwrap()
}

/// Makes a Service that selects all revisions of an application.
pub async fn make_service(cluster: &Cluster, namespace: &str, name: &str, app: &str) {
    let service: Service = serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": { "selector": { "app": app }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    }))
    .unwrap();
    let services: Api<Service> = Api::namespaced(cluster.client(), namespace);
    services
        .create(&PostParams::default(), &service)
        .await
        .unwrap();
}

fn is_ours(rule: &PolicyRule) -> bool {
    let group = countersign_api::GROUP.to_owned();
    rule.api_groups
        .as_ref()
        .is_some_and(|groups| groups.contains(&group))
}

fn binding(kind: &str, role: &str, user: &str) -> Value {
    json!({
        "metadata": { "generateName": "test-" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user }],
    })
}

/// The state of a Rollout, for the message of a timeout.
fn state_of(rollout: &Rollout) -> String {
    let status = rollout.status.clone().unwrap_or_default();
    format!(
        "{:?} {:?} waiting for {:?}: {}",
        status.phase, status.step, status.waiting_for, status.message
    )
}

pub fn phase(rollout: &Rollout) -> Phase {
    rollout
        .status
        .as_ref()
        .map_or(Phase::Progressing, |status| status.phase)
}

pub fn waits_for(rollout: &Rollout, reason: &str) -> bool {
    rollout
        .status
        .as_ref()
        .and_then(|status| status.waiting_for.as_deref())
        == Some(reason)
}

pub fn tier(run: &RolloutRun) -> Tier {
    run.spec.risk.tier
}

pub fn ended(run: &RolloutRun, outcome: Outcome) -> bool {
    run.spec.progress.outcome == Some(outcome)
}

pub fn condition<'a>(rollout: &'a Rollout, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let conditions = &rollout.status.as_ref()?.conditions;
    let found = conditions
        .iter()
        .find(|condition| condition.type_ == kind)?;
    Some((&found.status, &found.reason, &found.message))
}

/// The policy of all tests: the built-in risk, with short times.
async fn install_policy(cluster: &Cluster) {
    let tier = |steps: &[i32], scarce: &str| {
        let steps: Vec<_> = steps
            .iter()
            .map(|weight| json!({ "weight": weight, "bake": "2s" }))
            .collect();
        json!({
            "steps": steps, "maxFirstWeight": 50, "maxIncrease": 50, "minFinalWeight": 50, "minBake": "1s", "minRequests": 20,
            "maxFalsePromotion": 0.1, "marginRatio": 2.0, "marginDifference": 0.05, "toleratedRatio": 1.2,
            "extendAtMost": "30s", "onScarceEvidence": scarce, "waitAtMost": "60s", "signOff": [], "promotionSignOff": [],
        })
    };
    let policy = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutPolicy", "metadata": { "name": "e2e" },
        "spec": {
            "risk": { "version": "e2e-1" }, "history": { "runs": 0 },
            "tiers": {
                "low": tier(&[25, 50], "Promote"), "medium": tier(&[20, 35, 50], "Hold"),
                "high": tier(&[5, 20, 35, 50], "Hold"), "critical": tier(&[5, 10, 20, 35, 50], "RollBack"),
            },
        },
    });
    let policies: Api<RolloutPolicy> = Api::all(cluster.client());
    let (rollouts, runs): (Api<Rollout>, Api<RolloutRun>) =
        (Api::all(cluster.client()), Api::all(cluster.client()));
    let apply = PatchParams::apply("platform-team").force();
    // The definitions were just applied; the API server serves them a moment later.
    let poll = async || {
        rollouts.list(&ListParams::default()).await?;
        runs.list(&ListParams::default()).await?;
        policies.patch("e2e", &apply, &Patch::Apply(&policy)).await
    };
    wait_for("the definitions are served", TIMEOUT, poll)
        .await
        .unwrap();
}
