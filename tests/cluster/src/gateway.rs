//! A real Traefik as a gateway: it splits requests among Services by the weights of an `HTTPRoute`,
//! and counts them by Service.
//!
//! Most tests do not need it, so it is started by the first that calls
//! [`Cluster::gateway`](crate::Cluster::gateway), or by hand with `rm
//! $COUNTERSIGN_CLUSTER_DIR/traefik.stop`. Until then its supervisor waits, as for any stopped process.
//! It runs under a `ServiceAccount` of its own, with the rules of `gateway.yaml`.

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
/// In the pods' range, in a part of it that no node ever allocates.
const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 255, 253);
/// The address for requests, on the port of the listener in `gateway.yaml`.
const ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(IP, 8000));
/// The address for scrapes.
pub(crate) const METRICS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(IP, 8082));

const MANIFESTS: &str = include_str!("../gateway.yaml");
/// The Gateway object.
const PATH: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/traefik/gateways/traefik";

/// A running Traefik, configured by every `HTTPRoute` with the [parent](Self::parent_ref).
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

    /// Its current metrics, in the text format.
    pub async fn metrics(self) -> Result<String> {
        let response = http::get(METRICS, NAME, "/metrics", Duration::from_secs(10)).await;
        let response =
            response.map_err(Error::file("read", format!("http://{METRICS}/metrics")))?;
        Ok(String::from_utf8_lossy(response.body()).into_owned())
    }
}

/// Prepares everything for [`start`], which another process calls.
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
            // Otherwise Traefik would use the cluster of which this machine is a pod.
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

/// Starts Traefik, and returns once its Gateway is programmed.
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
        // It answers 404 without a route.
        let answer = http::get(ADDRESS, NAME, "/", Duration::from_secs(2)).await;
        answer.map(drop).map_err(|error| error.to_string())
    });
    match ready.await {
        Ok(()) => Ok(Gateway(())),
        Err(error) => Err(dir.obituary(NAME, error.to_string())),
    }
}

/// Whether Traefik has marked the Gateway as programmed.
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

/// In a file, so that Traefik reads no flags, variables or other files of the machine.
fn configuration() -> Value {
    json!({
        "global": { "checkNewVersion": false, "sendAnonymousUsage": false },
        "entryPoints": {
            "web": { "address": ADDRESS.to_string() },
            "metrics": { "address": METRICS.to_string() },
        },
        "metrics": { "prometheus": { "entryPoint": "metrics", "addServicesLabels": true } },
        "providers": {
            // Between two changes; the default is 2 s.
            "providersThrottleDuration": "100ms",
            "kubernetesGateway": {},
        },
    })
}
