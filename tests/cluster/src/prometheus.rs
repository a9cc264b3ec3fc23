//! A real Prometheus that finds the pods through the API server and scrapes them every second.

use crate::{
    directory::Directory,
    error::{Error, Result},
    gateway, http, operator,
    process::{Processes, Supervised},
    tools::Tools,
    wait::wait_for,
};
use serde_json::json;
use std::{fs, net::SocketAddr, path::Path, time::Duration};
use tokio::net::{TcpListener, ToSocketAddrs};

/// Its name in pid files and logs.
const NAME: &str = "prometheus";
/// Its default address, if that is free.
const USUAL: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(
    std::net::Ipv4Addr::LOCALHOST,
    9090,
));

/// The supervised process.
pub(crate) fn process(dir: &Directory) -> Supervised<'_> {
    Supervised { dir, name: NAME }
}

/// Starts Prometheus, and returns its address once it responds to queries.
pub(crate) async fn start(
    processes: &Processes,
    tools: &Tools,
    kubeconfig: &Path,
) -> Result<SocketAddr> {
    let dir = processes.dir().clone();
    let config = dir.join("prometheus.yaml");
    Directory::write(&config, configuration(kubeconfig))?;
    let storage = dir.join(NAME);
    fs::create_dir_all(&storage).map_err(Error::file("create", &storage))?;
    let address = free_address()
        .await
        .map_err(Error::file("find a port for", &storage))?;

    let tools = tools.clone();
    processes.supervise(NAME, move || {
        let mut command = tools.program(NAME);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", storage.display()))
            .arg(format!("--web.listen-address={address}"))
            // New pods are scraped as soon as they are known, not when five seconds are full.
            .arg("--scrape.discovery-reload-interval=250ms")
            .arg("--log.level=warn");
        async { Ok(command) }
    });
    match ready(address).await {
        Ok(()) => Ok(address),
        Err(error) => Err(processes.dir().obituary(NAME, error.to_string())),
    }
}

/// Returns once Prometheus responds to queries.
pub(crate) async fn ready(address: impl ToSocketAddrs + Copy) -> Result<()> {
    wait_for(
        "Prometheus is ready",
        Duration::from_mins(1),
        async || match http::get(address, "prometheus", "/-/ready", Duration::from_secs(2)).await {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => Err(response.status().to_string()),
            Err(error) => Err(error.to_string()),
        },
    )
    .await
}

async fn free_address() -> std::io::Result<SocketAddr> {
    let listener = match TcpListener::bind(USUAL).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind((USUAL.ip(), 0)).await?,
    };
    listener.local_addr()
}

/// Running pods with a TCP port, under the labels that the operator's preset expects; the operator,
/// as the chart's monitors have it scraped; and the gateway, which is down until a test starts it.
fn configuration(kubeconfig: &Path) -> String {
    let kubeconfig = json!(kubeconfig);
    let (gateway, operator) = (gateway::METRICS, operator::METRICS);
    format!(
        r"global:
  scrape_interval: 1s
  scrape_timeout: 1s
  evaluation_interval: 1s
scrape_configs:
- job_name: pods
  kubernetes_sd_configs:
  - role: pod
    kubeconfig_file: {kubeconfig}
  relabel_configs:
  - source_labels: [__meta_kubernetes_pod_phase]
    action: keep
    regex: Running
  - source_labels: [__meta_kubernetes_pod_container_init, __meta_kubernetes_pod_container_port_protocol]
    action: keep
    regex: false;TCP
  - source_labels: [__meta_kubernetes_namespace]
    target_label: namespace
  - source_labels: [__meta_kubernetes_pod_name]
    target_label: pod
  - source_labels: [__meta_kubernetes_pod_label_pod_template_hash]
    target_label: pod_template_hash
- job_name: countersign
  scrape_interval: 2s
  honor_labels: true
  static_configs:
  - targets: ['{operator}']
- job_name: traefik
  static_configs:
  - targets: ['{gateway}']
"
    )
}
