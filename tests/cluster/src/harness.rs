//! Runs the cluster in the network namespace of this process.
//!
//! Order: control plane, then nodes and Prometheus concurrently, the serving pods, the operator, and last
//! the command; the gateway when a test requests it. The cluster ends with the first of: the command's
//! exit, a component's exit, the cut of the lifeline, a signal.

use crate::{
    cluster::{self, DIR, KUBECONFIG, PROMETHEUS_URL},
    control_plane, credentials,
    directory::Directory,
    error::{Error, Result},
    forward, gateway,
    nodes::{NODE_ADDRESS, Nodes},
    operator::Operator,
    pods,
    process::{self, Processes},
    prometheus,
    tools::Tools,
};
use kube::Client;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    env,
    ffi::{OsStr, OsString},
    future::pending,
    net::SocketAddr,
    os::unix::{fs::symlink, process::ExitStatusExt as _},
    path::PathBuf,
    process::ExitStatus,
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, process::Command};

/// The variable with the kubeconfig of a cluster to use instead of a new one.
const GIVEN_KUBECONFIG: &str = "COUNTERSIGN_KUBECONFIG";

/// Grace period of the command after its signal.
const GRACE: Duration = Duration::from_secs(5);

/// The plan of a cluster.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The state directory.
    pub dir: Directory,
    /// The programs it consists of.
    pub tools: Tools,
    /// The operator to test, if any.
    pub operator: Option<Operator>,
    /// The command to run; if empty, the cluster runs until a signal.
    pub command: Vec<OsString>,
}

impl Plan {
    /// The plan as a command line for `main`.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec![
            "--dir".into(),
            self.dir.path().into(),
            "--tools".into(),
            self.tools.dir().into(),
        ];
        if let Some(operator) = &self.operator {
            arguments.extend(["--operator".into(), operator.program.clone().into()]);
            arguments.extend(["--chart".into(), operator.chart.clone().into()]);
        }
        if !self.command.is_empty() {
            arguments.push("--".into());
            arguments.extend(self.command.iter().cloned());
        }
        arguments
    }
}

/// The shared state of a running cluster.
struct Running {
    client: Client,
    kubeconfig: PathBuf,
    prometheus: SocketAddr,
    nodes: Nodes,
}

/// The kubeconfig of the cluster to use, if there is one.
pub(crate) fn given_kubeconfig() -> Option<PathBuf> {
    env::var_os(GIVEN_KUBECONFIG).map(PathBuf::from)
}

/// Runs a cluster in the current network namespace, or the harness' parts beside a given cluster, until
/// its command exits or `end` resolves; returns the exit status.
pub(crate) async fn run(
    plan: Plan,
    given: Option<PathBuf>,
    end: impl Future<Output = u8>,
) -> Result<u8> {
    open_as_many_files_as_allowed();
    let (processes, mut obituaries) = Processes::new(plan.dir.clone());
    let mut death = std::pin::pin!(async {
        match obituaries.recv().await {
            Some(obituary) => obituary,
            None => pending().await,
        }
    });
    let mut end = std::pin::pin!(end);

    let running = tokio::select! {
        obituary = &mut death => return Err(obituary),
        status = &mut end => return Ok(status),
        running = start(&plan, &processes, given.clone()) => running?,
    };
    let status = match plan.command.split_first() {
        None => tokio::select! {
            obituary = &mut death => Err(obituary),
            status = &mut end => Ok(status),
        },
        Some((program, arguments)) => {
            let mut command = command(&plan, &running, program, arguments);
            let mut child = command.spawn().map_err(|source| Error::Start {
                program: program.display().to_string(),
                source,
                remedy: "is it there and executable?",
            })?;
            tokio::select! {
                obituary = &mut death => {
                    process::end(&mut child, GRACE).await;
                    Err(obituary)
                }
                status = &mut end => {
                    process::end(&mut child, GRACE).await;
                    Ok(status)
                }
                ended = child.wait() => Ok(ended.map_or(1, exit_status)),
            }
        }
    };
    if given.is_some() {
        // The foreign cluster continues. A failure here means that it has ended too.
        let _ = tokio::time::timeout(GRACE, running.nodes.delete(&running.client)).await;
    }
    status
}

/// An ordinary user's session begins with 1,024 open files; the pods' sockets and the requests to them need more.
/// Everything that is started inherits the limit.
fn open_as_many_files_as_allowed() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Raising it to its maximum needs no permission; if it fails, the limit remains as it was.
    let _ = setrlimit(Resource::Nofile, most);
}

/// Starts everything.
async fn start(plan: &Plan, processes: &Processes, given: Option<PathBuf>) -> Result<Running> {
    let (dir, tools) = (&plan.dir, &plan.tools);
    let started = Instant::now();
    symlink(tools.dir(), dir.tools()).map_err(Error::file("create", dir.tools()))?;
    TcpListener::bind((NODE_ADDRESS, 0))
        .await
        .map_err(Error::PodRange)?;

    let (kubeconfig, client, nodes) = if let Some(kubeconfig) = given {
        let client = credentials::client(&kubeconfig, None).await?;
        (kubeconfig, client, Nodes::of_given_cluster())
    } else {
        let client = control_plane::start(processes, tools).await?;
        (dir.kubeconfig(), client, Nodes::of_own_cluster())
    };
    say(started, "the API server is up");
    tokio::spawn(pods::serve(client.clone(), nodes.clone()));
    let ((), prometheus, ()) = tokio::try_join!(
        nodes.start(&client, processes, tools, &kubeconfig),
        prometheus::start(processes, tools, &kubeconfig),
        cluster::default_account(&client, "default"),
    )?;
    gateway::prepare(&client, processes, tools, &kubeconfig)?;
    if let Some(operator) = &plan.operator {
        let prometheus_url = cluster::url_of(prometheus);
        operator
            .start(&client, processes, tools, &kubeconfig, &prometheus_url)
            .await?;
    }
    if plan.command.is_empty() {
        forward::out_of(&dir.join(API_SERVER_SOCKET), control_plane::API_SERVER)?;
        forward::out_of(&dir.join(PROMETHEUS_SOCKET), prometheus)?;
        Directory::write(&dir.ready_file(), "")?;
    }
    say(started, "the cluster is up");
    Ok(Running {
        client,
        kubeconfig,
        prometheus,
        nodes,
    })
}

/// The sockets of [`forward`].
pub(crate) const API_SERVER_SOCKET: &str = "apiserver.sock";
pub(crate) const PROMETHEUS_SOCKET: &str = "prometheus.sock";

fn say(started: Instant, what: &str) {
    eprintln!(
        "cluster: {what} after {:.1} s",
        started.elapsed().as_secs_f64()
    );
}

/// The command, with the cluster's environment variables.
fn command(plan: &Plan, running: &Running, program: &OsStr, arguments: &[OsString]) -> Command {
    let path = env::var_os("PATH").unwrap_or_default();
    let path = [plan.tools.dir().as_os_str(), &path].join(OsStr::new(":"));
    let mut command = plan.tools.launch(program);
    command
        .args(arguments)
        .env("PATH", path)
        .env(KUBECONFIG, &running.kubeconfig)
        .env(DIR, plan.dir.path())
        .env(PROMETHEUS_URL, cluster::url_of(running.prometheus))
        // Every cluster has the same address, so kubectl would use the discovery cache of another.
        .env("KUBECACHEDIR", plan.dir.kubectl_cache());
    command
}

/// The exit status as in a shell.
pub(crate) fn exit_status(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
