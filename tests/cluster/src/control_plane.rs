//! etcd, API server, controller manager and scheduler, as plain processes on the loopback address
//! of a network namespace of their own, hence on fixed ports.

use crate::{
    audit,
    credentials::{
        self, CA, SERVER_CERTIFICATE, SERVER_KEY, SERVICE_ACCOUNT_KEY, SERVICE_ACCOUNT_PUBLIC_KEY,
        TOKENS,
    },
    directory::Directory,
    error::Result,
    process::{Processes, Supervised},
    tools::Tools,
    wait::wait_for,
};
use kube::Client;
use std::{net::SocketAddr, time::Duration};
use tokio::process::Command;

/// The API server's URL inside the namespace.
pub(crate) const API_SERVER: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(
    std::net::Ipv4Addr::LOCALHOST,
    6443,
));
const ETCD_URL: &str = "http://127.0.0.1:2379";

/// Their names in pid files and logs.
pub(crate) const ETCD: &str = "etcd";
pub(crate) const API_SERVER_NAME: &str = "kube-apiserver";

/// The API server requires an advertised address other than loopback. Nothing listens there.
const ADVERTISED: &str = "10.1.0.1";
/// Disjoint from the pods' range.
const SERVICES: &str = "10.96.0.0/16";

/// Cold binaries on a busy machine are slow; usually five seconds suffice.
const TIMEOUT: Duration = Duration::from_secs(90);

/// Starts the four components, and returns an administrator's client once the API server serves.
pub(crate) async fn start(processes: &Processes, tools: &Tools) -> Result<Client> {
    let dir = processes.dir();
    credentials::write(dir, &format!("https://{API_SERVER}"))?;
    let kubeconfig = dir.kubeconfig();
    let file = |flag: &str, name: &str| format!("--{flag}={}", dir.join(name).display());
    let kubeconfig_flag = format!("--kubeconfig={}", kubeconfig.display());

    let start_etcd = {
        let (tools, data) = (tools.clone(), file("data-dir", "etcd"));
        move || etcd(&tools, &data)
    };
    processes.start_stoppable(ETCD, start_etcd)?;
    audit::keep(dir)?;
    let start_api_server = {
        let (tools, dir) = (tools.clone(), dir.clone());
        move || api_server(&tools, &dir)
    };
    processes.start_stoppable(API_SERVER_NAME, start_api_server)?;

    let client = credentials::client(&kubeconfig, None).await?;
    wait_for("the API server is ready", TIMEOUT, async || {
        ready(&client).await
    })
    .await?;

    let mut controller_manager = tools.control_plane("kube-controller-manager");
    controller_manager
        .arg(&kubeconfig_flag)
        // The nodes have no kubelet whose heartbeats could be missed, and bring their own pod
        // ranges.
        .arg("--controllers=*,-node-ipam-controller,-node-lifecycle-controller")
        .arg(file("root-ca-file", CA))
        .arg(file(
            "service-account-private-key-file",
            SERVICE_ACCOUNT_KEY,
        ))
        .args(["--leader-elect=false", "--secure-port=0"])
        .args(["--kube-api-qps=500", "--kube-api-burst=1000"]);
    processes.start("kube-controller-manager", controller_manager)?;

    let mut scheduler = tools.control_plane("kube-scheduler");
    scheduler
        .arg(&kubeconfig_flag)
        .args(["--leader-elect=false", "--secure-port=0"])
        .args(["--kube-api-qps=500", "--kube-api-burst=1000"]);
    processes.start("kube-scheduler", scheduler)?;

    Ok(client)
}

async fn ready(client: &Client) -> Result<(), String> {
    let request = hyper::Request::get("/readyz")
        .body(Vec::new())
        .map_err(|error| error.to_string())?;
    client
        .request_text(request)
        .await
        .map(drop)
        .map_err(|error| error.to_string())
}

fn etcd(tools: &Tools, data: &str) -> Command {
    let mut etcd = tools.control_plane(ETCD);
    etcd.arg(data)
        .arg(format!("--listen-client-urls={ETCD_URL}"))
        .arg(format!("--advertise-client-urls={ETCD_URL}"))
        // etcd has no peers, but needs a socket for them.
        .arg("--listen-peer-urls=http://127.0.0.1:2380")
        .arg("--log-level=warn")
        // A crash of the machine may lose the data, which is temporary anyway.
        .arg("--unsafe-no-fsync");
    etcd
}

fn api_server(tools: &Tools, dir: &Directory) -> Command {
    let file = |flag: &str, name: &str| format!("--{flag}={}", dir.join(name).display());
    let mut api_server = tools.control_plane(API_SERVER_NAME);
    api_server
        .arg(format!("--etcd-servers={ETCD_URL}"))
        .arg(format!("--bind-address={}", API_SERVER.ip()))
        .arg(format!("--secure-port={}", API_SERVER.port()))
        // Without a default route the API server cannot detect its address, nor publish it in an
        // EndpointSlice.
        .arg(format!("--advertise-address={ADVERTISED}"))
        .arg("--endpoint-reconciler-type=none")
        .arg(format!("--service-cluster-ip-range={SERVICES}"))
        .arg(file("tls-cert-file", SERVER_CERTIFICATE))
        .arg(file("tls-private-key-file", SERVER_KEY))
        .arg(file("token-auth-file", TOKENS))
        .arg("--authorization-mode=Node,RBAC")
        .arg("--service-account-issuer=https://kubernetes.default.svc")
        .arg(file(
            "service-account-signing-key-file",
            SERVICE_ACCOUNT_KEY,
        ))
        .arg(file("service-account-key-file", SERVICE_ACCOUNT_PUBLIC_KEY))
        .args(audit::arguments(dir));
    api_server
}

/// Restarts the named component, the API server or etcd; returns once the API server is ready.
pub(crate) async fn restart(dir: &Directory, name: &'static str, client: &Client) -> Result<()> {
    let process = Supervised { dir, name };
    process.stop().await?;
    process.start().await?;
    wait_for("the API server is ready again", TIMEOUT, async || {
        ready(client).await
    })
    .await
}
