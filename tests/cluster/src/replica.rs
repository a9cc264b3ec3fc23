//! An operator of a test, beside the chart's: restarted whenever it exits, as by a kubelet, and stopped
//! with its test.

use crate::{
    cluster::Cluster,
    credentials,
    directory::Directory,
    error::{Error, Result},
    operator::{NAMESPACE, RELEASE},
    proxy::{Kill, Plan, Proxy},
};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::process::Command;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The role by which it keeps its lease.
const LEASE: &str = "operator-lease";
/// Delay of a restart: a kubelet waits 10 s before the first, which is too long for tests.
const RESTART_AFTER: Duration = Duration::from_millis(100);

/// The settings of such an operator.
#[derive(Clone)]
pub struct ReplicaPlan {
    /// The program.
    pub program: PathBuf,
    /// The namespace in which it sees Rollouts; all of them if `None`.
    pub namespace: Option<String>,
    /// Its own name.
    pub identity: String,
    /// The namespace of its lease.
    pub lease_namespace: String,
    /// The faults of its requests to the API server.
    pub api_server: Plan,
    /// The faults of its requests to Prometheus.
    pub prometheus: Plan,
    /// Further environment variables.
    pub environment: Vec<(String, String)>,
}

/// The running operator.
#[derive(Debug)]
pub struct Replica {
    /// The proxy before the API server.
    pub api_server: Proxy,
    /// The proxy before Prometheus.
    pub prometheus: Proxy,
    state: Arc<State>,
    log: PathBuf,
    token: PathBuf,
    _running: DropGuard,
}

#[derive(Debug, Default)]
struct State {
    pid: AtomicI32,
    starts: AtomicUsize,
    good_ends: AtomicUsize,
}

impl State {
    fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid.load(SeqCst)) {
            // The process may have exited already.
            let _ = kill_process(pid, signal);
        }
    }
}

impl Replica {
    /// Starts an operator under the chart's `ServiceAccount`.
    pub async fn start(cluster: &Cluster, plan: ReplicaPlan) -> Result<Self> {
        let client = cluster.client();
        grant_lease(&client, &plan.lease_namespace).await?;
        let state = Arc::new(State::default());
        let dying = state.clone();
        let kill: Kill = Arc::new(move || dying.signal(Signal::KILL));
        let upstream = anonymous(cluster.kubeconfig()).await?;
        let scope = plan.namespace.clone();
        let api_server = Proxy::start(upstream, scope, plan.api_server, kill.clone()).await?;
        let upstream = plain(cluster.prometheus_url())?;
        let prometheus = Proxy::start(upstream, None, plan.prometheus, kill).await?;

        let dir = Directory::at(cluster.dir());
        let scoped = plan.namespace.as_deref().unwrap_or("all");
        let name = format!("{scoped}-{}", plan.identity);
        let (own, token) = (
            dir.join(format!("{name}.kubeconfig")),
            dir.join(format!("{name}.token")),
        );
        let log = dir.join(format!("{name}.log"));
        Directory::write(
            &token,
            credentials::token(&client, NAMESPACE, RELEASE).await?,
        )?;
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "own",
            "clusters": [{ "name": "own", "cluster": { "server": api_server.url() } }],
            "users": [{ "name": "own", "user": { "tokenFile": token } }],
            "contexts": [{ "name": "own", "context": { "cluster": "own", "user": "own" } }],
        });
        Directory::write(&own, kubeconfig.to_string())?;

        let end = CancellationToken::new();
        let mut command = Command::new(&plan.program);
        command
            .arg("run")
            .env("KUBECONFIG", &own)
            .env("COUNTERSIGN_PROMETHEUS_URL", prometheus.url())
            .env("COUNTERSIGN_PROMETHEUS_LAG", "3s")
            .env("COUNTERSIGN_LISTEN", "127.0.0.1:0")
            .env("POD_NAME", &plan.identity)
            .env("POD_NAMESPACE", &plan.lease_namespace)
            .envs(plan.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        let keep = keep_running(command, log.clone(), state.clone(), end.clone());
        tokio::spawn(keep);
        Ok(Self {
            api_server,
            prometheus,
            state,
            log,
            token,
            _running: end.drop_guard(),
        })
    }

    /// Kills it; it is restarted automatically.
    pub fn kill(&self) {
        self.state.signal(Signal::KILL);
    }

    /// Freezes it, as a long pause of its machine would.
    pub fn freeze(&self) {
        self.state.signal(Signal::STOP);
    }

    /// Ends a [`freeze`](Self::freeze).
    pub fn thaw(&self) {
        self.state.signal(Signal::CONT);
    }

    /// Number of its starts.
    #[must_use]
    pub fn starts(&self) -> usize {
        self.state.starts.load(SeqCst)
    }

    /// Number of its exits with status 0.
    #[must_use]
    pub fn good_ends(&self) -> usize {
        self.state.good_ends.load(SeqCst)
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        Some(self.state.pid.load(SeqCst)).filter(|pid| *pid != 0)
    }

    /// Its whole log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The file with its token.
    #[must_use]
    pub fn token(&self) -> &Path {
        &self.token
    }
}

/// Runs the program again after each of its ends, until `end`; its log goes to a file.
async fn keep_running(
    mut command: Command,
    log: PathBuf,
    state: Arc<State>,
    end: CancellationToken,
) {
    while !end.is_cancelled() {
        let Ok(log) = fs::File::options().create(true).append(true).open(&log) else {
            return;
        };
        let Ok(mut child) = command.stderr(log).spawn() else {
            return;
        };
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        state.pid.store(pid.unwrap_or_default(), SeqCst);
        state.starts.fetch_add(1, SeqCst);
        tokio::select! {
            ended = child.wait() => {
                let good = ended.is_ok_and(|status| status.success());
                state.good_ends.fetch_add(usize::from(good), SeqCst);
            }
            () = end.cancelled() => return,
        }
        state.pid.store(0, SeqCst);
        tokio::time::sleep(RESTART_AFTER).await;
    }
}

/// Permits the chart's account to keep a lease in another namespace than its own.
async fn grant_lease(client: &Client, namespace: &str) -> Result<()> {
    let roles: Api<Role> = Api::namespaced(client.clone(), namespace);
    let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), namespace);
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": LEASE },
        "rules": [{ "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"] }],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": LEASE },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": LEASE },
        "subjects": [{ "kind": "ServiceAccount", "name": RELEASE, "namespace": NAMESPACE }],
    });
    let apply = PatchParams::apply("cluster").force();
    let granted = async {
        roles.patch(LEASE, &apply, &Patch::Apply(role)).await?;
        bindings.patch(LEASE, &apply, &Patch::Apply(binding)).await
    };
    let granted = granted.await;
    granted
        .map(drop)
        .map_err(Error::kubernetes(format!("grant a lease in {namespace}")))
}

/// A client with no credentials of its own.
async fn anonymous(kubeconfig: &Path) -> Result<Client> {
    let fails = |source| Error::Kubeconfig {
        path: kubeconfig.to_owned(),
        source: Box::new(source),
    };
    let mut kubeconfig_read = Kubeconfig::read_from(kubeconfig).map_err(fails)?;
    for user in &mut kubeconfig_read.auth_infos {
        user.auth_info = None;
    }
    let config = Config::from_custom_kubeconfig(kubeconfig_read, &KubeConfigOptions::default())
        .await
        .map_err(fails)?;
    passing(config)
}

/// A client of a server in plain HTTP.
fn plain(url: &str) -> Result<Client> {
    let uri = url.parse().map_err(|_| Error::Proxy {
        url: url.to_owned(),
    })?;
    passing(Config::new(uri))
}

fn passing(mut config: Config) -> Result<Client> {
    // Lost requests are repeated by the client.
    config.default_retry = false;
    config.read_timeout = None;
    Client::try_from(config).map_err(Error::kubernetes("make a client"))
}
