//! The cluster from its start to its end, in the network namespace that this process is in.
//!
//! Order: control plane, then nodes and Prometheus side by side, the serving pods, the operator,
//! and at last the command; the gateway when a test asks for it. The first of these ends it all: the command's end, a component's death,
//! the cut of the lifeline, a signal.

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

/// The variable that names a cluster to use instead of our own.
const GIVEN_KUBECONFIG: &str = "COUNTERSIGN_KUBECONFIG";

/// How long the command has to end when it is asked to.
const GRACE: Duration = Duration::from_secs(5);

/// What to start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the cluster keeps its files.
    pub dir: Directory,
    /// The programs it consists of.
    pub tools: Tools,
    /// The operator to test, if any.
    pub operator: Option<Operator>,
    /// What to run in it, or nothing: then it stays until told to end.
    pub command: Vec<OsString>,
}

impl Plan {
    /// As the command line that `main` reads it from.
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

/// What the parts of a running cluster need of each other.
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

/// Runs a cluster in the present network namespace, or what it takes beside the one whose
/// kubeconfig is given, until its command ends or `end` comes; returns the exit status.
pub(crate) async fn run(
    plan: Plan,
    given: Option<PathBuf>,
    end: impl Future<Output = u8>,
) -> Result<u8> {
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
        // The cluster goes on without us. If this fails it is because the cluster has gone too.
        let _ = tokio::time::timeout(GRACE, running.nodes.delete(&running.client)).await;
    }
    status
}

/// Brings everything up.
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

/// The sockets through which [`forward`] reaches in.
pub(crate) const API_SERVER_SOCKET: &str = "apiserver.sock";
pub(crate) const PROMETHEUS_SOCKET: &str = "prometheus.sock";

fn say(started: Instant, what: &str) {
    eprintln!(
        "cluster: {what} after {:.1} s",
        started.elapsed().as_secs_f64()
    );
}

/// The command, with what it needs to find the cluster.
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
        // Every cluster has the same address; kubectl would take the last one's kinds for this
        // one's.
        .env("KUBECACHEDIR", plan.dir.kubectl_cache());
    command
}

/// As a shell reports it.
pub(crate) fn exit_status(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
