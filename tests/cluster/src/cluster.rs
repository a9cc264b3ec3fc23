//! The interface of the cluster for tests.

use crate::{
    audit::{ApiRequest, RequestLog},
    control_plane, credentials,
    directory::Directory,
    error::{Error, Result},
    gateway::{self, Gateway},
    http,
    kinds::{self, Kinds},
    operator, prometheus,
    wait::wait_for,
};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, PostParams},
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    env, fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// The variable that holds the state directory for the command run in the cluster.
pub(crate) const DIR: &str = "COUNTERSIGN_CLUSTER_DIR";
/// The variable that holds the address of Prometheus.
pub(crate) const PROMETHEUS_URL: &str = "PROMETHEUS_URL";
/// kubectl's variable.
pub(crate) const KUBECONFIG: &str = "KUBECONFIG";

/// The test cluster that this process runs in.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    kubeconfig: PathBuf,
    prometheus_url: String,
    dir: Directory,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Cluster")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// One series of a Prometheus query: its labels and its current value.
pub type Sample = (BTreeMap<String, String>, f64);

impl Cluster {
    /// Finds the cluster in the environment that `cluster exec` has set.
    pub async fn from_env() -> Result<Self> {
        let dir = Directory::at(required(DIR)?);
        let kubeconfig = PathBuf::from(required(KUBECONFIG)?);
        let prometheus_url = required(PROMETHEUS_URL)?;
        let client = credentials::client(&kubeconfig, None).await?;
        Ok(Self {
            client,
            kubeconfig,
            prometheus_url,
            dir,
        })
    }

    /// An administrator's client.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The administrator's kubeconfig, with a context for each user of [`client_as`](Self::client_as).
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The URL of Prometheus.
    #[must_use]
    pub fn prometheus_url(&self) -> &str {
        &self.prometheus_url
    }

    /// The state directory: logs, process ids, certificates.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Creates a namespace for a test, with the restricted pod security standard, and returns its name
    /// once pods can be created in it. If the API server does not stamp Rollouts, no stamp is demanded there.
    pub async fn namespace(&self, prefix: &str) -> Result<String> {
        new_namespace(&self.client, prefix).await
    }

    /// Whether the API server has mutating policies, which fill in who writes: Kubernetes from 1.36 on.
    pub async fn has_mutating_policies(&self) -> Result<bool> {
        operator::has_mutating_policies(&self.client).await
    }

    /// A client for one of the users alice (group service-team), bob (approvers), carol (approvers and
    /// senior), dave (oncall). Tests must grant their rights.
    pub async fn client_as(&self, user: &str) -> Result<Client> {
        credentials::client(&self.kubeconfig, Some(user)).await
    }

    /// Makes every running pod of a revision fail this share of requests from now on, 0 to 1.
    pub async fn set_error_rate(&self, namespace: &str, revision: &str, rate: f64) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
        let revision = ListParams::default().labels(&format!("pod-template-hash={revision}"));
        let pods = pods
            .list(&revision)
            .await
            .map_err(Error::kubernetes("list pods"))?;
        let addresses = pods
            .items
            .iter()
            .filter_map(|pod| pod.status.as_ref()?.pod_ip.as_deref());
        for address in addresses {
            let path = format!("/error-rate/{rate}");
            http::get((address, 8080_u16), address, &path, Duration::from_secs(10))
                .await
                .map_err(|source| Error::Pod {
                    address: address.to_owned(),
                    source,
                })?;
        }
        Ok(())
    }

    /// Sends an instant query to Prometheus, whose result must be a vector.
    pub async fn query(&self, expression: &str) -> Result<Vec<Sample>> {
        let fails = |reason: String| Error::Prometheus {
            query: expression.to_owned(),
            reason,
        };
        let path = format!("/api/v1/query?query={}", percent_encoded(expression));
        let response = http::get(
            self.prometheus(),
            "prometheus",
            &path,
            Duration::from_secs(10),
        )
        .await
        .map_err(|error| fails(error.to_string()))?;
        let answer: Value = serde_json::from_slice(response.body())
            .map_err(|error| fails(format!("{}: {error}", response.status())))?;
        samples(&answer).ok_or_else(|| fails(answer.to_string()))
    }

    /// Kills the operator as a crash would, and returns once it has exited; it is restarted after 0.3 s.
    pub async fn kill_operator(&self) -> Result<()> {
        operator::process(&self.dir).kill().await
    }

    /// Kills the operator until [`start_operator`](Self::start_operator).
    pub async fn stop_operator(&self) -> Result<()> {
        operator::process(&self.dir).stop().await
    }

    /// Starts a stopped operator, or thaws a frozen one; does not wait for it to be ready.
    pub async fn start_operator(&self) -> Result<()> {
        operator::process(&self.dir).start().await
    }

    /// Freezes the operator, as a long pause of its machine would.
    pub async fn freeze_operator(&self) -> Result<()> {
        operator::process(&self.dir).freeze().await
    }

    /// The last `lines` lines of the operator's log.
    pub fn operator_log_tail(&self, lines: usize) -> Result<String> {
        self.dir.log_tail("operator", lines)
    }

    /// All requests of operators to the API server so far, in the order of the responses. Only a cluster
    /// of the harness logs them.
    pub fn requests(&self) -> Result<Vec<ApiRequest>> {
        self.request_log().news()
    }

    /// An incremental reader of these requests, from the first on.
    #[must_use]
    pub fn request_log(&self) -> RequestLog {
        RequestLog::from_its_start(&self.dir)
    }

    /// Restarts the API server; returns once it is ready.
    pub async fn restart_api_server(&self) -> Result<()> {
        control_plane::restart(&self.dir, control_plane::API_SERVER_NAME, &self.client).await
    }

    /// Restarts etcd with its data; returns once the API server is ready.
    pub async fn restart_etcd(&self) -> Result<()> {
        control_plane::restart(&self.dir, control_plane::ETCD, &self.client).await
    }

    /// Stops Prometheus: connections are refused until [`start_prometheus`](Self::start_prometheus).
    pub async fn stop_prometheus(&self) -> Result<()> {
        prometheus::process(&self.dir).stop().await
    }

    /// Starts a stopped Prometheus, or thaws a frozen one; returns once it responds. Its data is kept.
    pub async fn start_prometheus(&self) -> Result<()> {
        prometheus::process(&self.dir).start().await?;
        prometheus::ready(self.prometheus()).await
    }

    /// Freezes Prometheus: connections are accepted, but get no response, until
    /// [`start_prometheus`](Self::start_prometheus).
    pub async fn freeze_prometheus(&self) -> Result<()> {
        prometheus::process(&self.dir).freeze().await
    }

    /// Traefik as a gateway before the pods: the first call starts it, and any call returns once it is
    /// ready for routes. It runs as long as the cluster.
    pub async fn gateway(&self) -> Result<Gateway> {
        gateway::start(&self.dir, &self.client).await
    }

    /// Installs definitions, if missing, and returns once they are served. They remain until
    /// [`remove_kinds`](Self::remove_kinds), for all tests.
    pub async fn install_kinds(&self, kinds: Kinds) -> Result<()> {
        kinds::install(&self.dir, &self.client, &self.kubeconfig, kinds).await
    }

    /// Removes kinds with all objects of all tests, and returns once they are no longer served. Not
    /// [`Kinds::GatewayApi`] after [`gateway`](Self::gateway): Traefik would lose its Gateway.
    pub async fn remove_kinds(&self, kinds: Kinds) -> Result<()> {
        kinds::remove(&self.dir, &self.client, &self.kubeconfig, kinds).await
    }

    /// The harness has made the URL from an address alone.
    fn prometheus(&self) -> &str {
        self.prometheus_url
            .trim_start_matches("http://")
            .trim_end_matches('/')
    }
}

/// The URL of Prometheus from the variable.
pub(crate) fn url_of(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// Creates a namespace as [`Cluster::namespace`] does, in any cluster.
pub async fn new_namespace(client: &Client, prefix: &str) -> Result<String> {
    let mut namespace = Namespace::default();
    namespace.metadata.generate_name = Some(format!("{prefix}-"));
    let is_stamped = operator::has_mutating_policies(client).await?;
    let labels = namespace.labels_mut();
    let mut label = |name: &str, value: &str| labels.insert(name.to_owned(), value.to_owned());
    label("pod-security.kubernetes.io/enforce", "restricted");
    if !is_stamped {
        label("countersign.dev/stamp", "optional");
    }
    let name = Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await
        .map_err(Error::kubernetes(format!("create a namespace {prefix}-…")))?
        .name_any();
    default_account(client, &name).await?;
    Ok(name)
}

/// Returns once pods can be created in a namespace: admission requires its default service account.
pub(crate) async fn default_account(client: &Client, namespace: &str) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let what = format!("namespace {namespace} has its default ServiceAccount");
    wait_for(&what, Duration::from_mins(1), async || {
        match accounts.get_opt("default").await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("none".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
}

fn required(variable: &'static str) -> Result<String> {
    env::var(variable).map_err(|_| Error::NotInCluster { variable })
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |encoded, byte| {
        encoded + &format!("%{byte:02X}")
    })
}

fn samples(answer: &Value) -> Option<Vec<Sample>> {
    let result = answer.pointer("/data/result")?.as_array()?;
    let sample = |series: &Value| {
        let labels = series.get("metric")?.as_object()?.iter();
        let labels =
            labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.into())));
        Some((
            labels.collect(),
            series.pointer("/value/1")?.as_str()?.parse().ok()?,
        ))
    };
    result.iter().map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_answer_to_a_query_is_its_series() {
        let answer = json!({ "data": { "resultType": "vector", "result": [
            { "metric": { "code": "500" }, "value": [1_700_000_000.0, "12"] },
        ] } });
        let labels = BTreeMap::from([("code".to_owned(), "500".to_owned())]);
        assert_eq!(samples(&answer), Some(vec![(labels, 12.0)]));
        assert_eq!(samples(&json!({ "status": "error" })), None);
    }
}
