//! A real Traefik as a gateway: it splits requests among Services by the weights of an `HTTPRoute`,
//! and counts them by Service.
//!
//! Most tests do without, so it is started by the first that calls
//! [`Cluster::gateway`](crate::Cluster::gateway), or by hand with
//! `rm $COUNTERSIGN_CLUSTER_DIR/traefik.stop`. Until then its supervisor waits, as for any process
//! that was stopped. It runs under a `ServiceAccount` of its own; `gateway.yaml` has its rules.

use crate::{
    credentials,
    directory::Directory,
    error::{Error, Result},
    http,
    kinds::Kinds,
    kubectl,
    process::Processes,
    tools::Tools,
    wait::wait_for,
};
use axum::body::Bytes;
use hyper::Response;
use kube::Client;
use serde_json::{Value, json};
use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::Path,
    time::Duration,
};

/// Its name in pid files and logs, and that of all its objects.
const NAME: &str = "traefik";
/// In the pods' range, and in no node's part of it that could ever be used up.
const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 255, 253);
/// Where it takes requests, on the port of the listener in `gateway.yaml`.
const ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(IP, 8000));
/// Where it is scraped.
pub(crate) const METRICS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(IP, 8082));

const MANIFESTS: &str = include_str!("../gateway.yaml");
/// The Gateway's own, as the API server knows it.
const PATH: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/traefik/gateways/traefik";

/// Traefik as it runs, programmed by every `HTTPRoute` that has the [parent](Self::parent_ref).
#[derive(Clone, Copy, Debug)]
pub struct Gateway(());

impl Gateway {
    /// Where to send requests.
    #[must_use]
    pub const fn address(self) -> SocketAddr {
        ADDRESS
    }

    /// An element of `spec.parentRefs` of a route of any namespace.
    #[must_use]
    pub fn parent_ref(self) -> Value {
        json!({ "name": NAME, "namespace": NAME })
    }

    /// Sends one request for a host, with these headers.
    pub async fn get(
        self,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> io::Result<Response<Bytes>> {
        http::get_with(ADDRESS, host, path, headers, Duration::from_secs(5)).await
    }

    /// What it would tell Prometheus now, in the text format.
    pub async fn metrics(self) -> Result<String> {
        let response = http::get(METRICS, NAME, "/metrics", Duration::from_secs(10)).await;
        let response =
            response.map_err(Error::file("read", format!("http://{METRICS}/metrics")))?;
        Ok(String::from_utf8_lossy(response.body()).into_owned())
    }
}

/// Readies everything for [`start`], which is another process's.
pub(crate) fn prepare(
    client: &Client,
    processes: &Processes,
    tools: &Tools,
    kubeconfig: &Path,
) -> Result<()> {
    let dir = processes.dir().clone();
    Directory::write(&dir.stop_file(NAME), "")?;
    let config = dir.join("traefik.yaml");
    Directory::write(&config, configuration().to_string())?;

    let (client, tools, admin) = (client.clone(), tools.clone(), kubeconfig.to_owned());
    let own = dir.join("traefik.kubeconfig");
    processes.supervise(NAME, move || {
        let mut command = tools.program(NAME);
        command
            .arg(format!("--configfile={}", config.display()))
            .env("KUBECONFIG", &own)
            // It would prefer the cluster that this machine is itself a pod of.
            .env_remove("KUBERNETES_SERVICE_HOST");
        let (client, tools, dir) = (client.clone(), tools.clone(), dir.clone());
        let (admin, own) = (admin.clone(), own.clone());
        async move {
            let kinds = Kinds::GatewayApi.folder(&tools)?;
            let arguments = ["--filename".into(), kinds.into(), "--filename=-".into()];
            kubectl::apply(&tools, &dir, &admin, &arguments, MANIFESTS.as_bytes()).await?;
            let token = credentials::token(&client, NAME, NAME).await?;
            credentials::with_token(&admin, &own, &token)?;
            Ok(command)
        }
    });
    Ok(())
}

/// Lets Traefik run, and returns once it does as its Gateway says.
pub(crate) async fn start(dir: &Directory, client: &Client) -> Result<Gateway> {
    let stop = dir.stop_file(NAME);
    match fs::remove_file(&stop) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::file("remove", stop)(error));
        }
        _ => {}
    }
    let ready = wait_for("Traefik is ready", Duration::from_mins(1), async || {
        programmed(client).await?;
        // It answers 404 until a route is there.
        let answer = http::get(ADDRESS, NAME, "/", Duration::from_secs(2)).await;
        answer.map(drop).map_err(|error| error.to_string())
    });
    match ready.await {
        Ok(()) => Ok(Gateway(())),
        Err(error) => Err(dir.obituary(NAME, error.to_string())),
    }
}

/// Whether Traefik has said of the Gateway that it plays it.
async fn programmed(client: &Client) -> Result<(), String> {
    let request = hyper::Request::get(PATH).body(Vec::new());
    let request = request.map_err(|error| error.to_string())?;
    let gateway: Value = client
        .request(request)
        .await
        .map_err(|error| error.to_string())?;
    let conditions = gateway.pointer("/status/conditions");
    conditions
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Programmed" && condition["status"] == "True")
        .then_some(())
        .ok_or_else(|| format!("conditions {conditions:?}"))
}

/// In a file, beside which Traefik reads neither flags nor variables nor files of the machine's.
fn configuration() -> Value {
    json!({
        "global": { "checkNewVersion": false, "sendAnonymousUsage": false },
        "entryPoints": {
            "web": { "address": ADDRESS.to_string() },
            "metrics": { "address": METRICS.to_string() },
        },
        "metrics": { "prometheus": { "entryPoint": "metrics", "addServicesLabels": true } },
        "providers": {
            // Between two changes; a whole 2 s unless said.
            "providersThrottleDuration": "100ms",
            "kubernetesGateway": {},
        },
    })
}
