//! The operator under test: installed by its chart, run here as a process with the token of the
//! chart's `ServiceAccount`, so that a permission missing from the chart fails a test.

use crate::{
    credentials,
    directory::Directory,
    error::{Error, Result},
    kubectl,
    process::{self, Processes, Supervised},
    tools::Tools,
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

/// Its name in pid files and logs.
const NAME: &str = "operator";
/// The release, and the `ServiceAccount` that the chart names after it.
pub(crate) const RELEASE: &str = "countersign";
pub(crate) const NAMESPACE: &str = "countersign-system";
/// The API group of the chart's policies; not every API server has all their kinds.
const ADMISSION: &str = "admissionregistration.k8s.io/v1";

/// Where it serves its metrics.
pub(crate) const METRICS: &str = "127.0.0.1:8081";

/// The supervised process.
pub(crate) fn process(dir: &Directory) -> Supervised<'_> {
    Supervised { dir, name: NAME }
}

/// The operator to run.
#[derive(Clone, Debug)]
pub struct Operator {
    /// The program.
    pub program: PathBuf,
    /// Its chart, or a file that was rendered from it, without the definitions.
    pub chart: PathBuf,
}

impl Operator {
    /// `program` with the chart of this checkout.
    #[must_use]
    pub fn of_this_checkout(program: PathBuf) -> Self {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/countersign");
        Self { program, chart }
    }

    /// Installs the chart and keeps the operator running.
    pub(crate) async fn start(
        &self,
        client: &Client,
        processes: &Processes,
        tools: &Tools,
        kubeconfig: &Path,
        prometheus_url: &str,
    ) -> Result<()> {
        let dir = processes.dir();
        self.install(client, dir, tools, kubeconfig, prometheus_url)
            .await?;

        let (client, tools, program) = (client.clone(), tools.clone(), self.program.clone());
        let admin = kubeconfig.to_owned();
        let own = dir.join("operator.kubeconfig");
        let prometheus_url = prometheus_url.to_owned();
        processes.supervise(NAME, move || {
            let mut command = tools.launch(&program);
            command
                .arg("run")
                .env("KUBECONFIG", &own)
                .env("COUNTERSIGN_PROMETHEUS_URL", &prometheus_url)
                .env("COUNTERSIGN_PROMETHEUS_LAG", "3s")
                .env("COUNTERSIGN_LISTEN", METRICS)
                .env("POD_NAME", "countersign-0")
                .env("POD_NAMESPACE", NAMESPACE)
                .env(
                    "RUST_LOG",
                    std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned()),
                );
            let (client, admin, own) = (client.clone(), admin.clone(), own.clone());
            async move {
                let token = credentials::token(&client, NAMESPACE, RELEASE).await?;
                credentials::with_token(&admin, &own, &token)?;
                Ok(command)
            }
        });
        Ok(())
    }

    async fn install(
        &self,
        client: &Client,
        dir: &Directory,
        tools: &Tools,
        kubeconfig: &Path,
        prometheus_url: &str,
    ) -> Result<()> {
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": NAMESPACE,
                "labels": { "pod-security.kubernetes.io/enforce": "restricted" },
            },
        });
        Api::<Namespace>::all(client.clone())
            .patch(
                NAMESPACE,
                &PatchParams::apply("cluster"),
                &Patch::Apply(namespace),
            )
            .await
            .map_err(Error::kubernetes(format!("create namespace {NAMESPACE}")))?;

        let mut arguments = ["--namespace", NAMESPACE, "--filename=-"]
            .map(OsString::from)
            .to_vec();
        let manifests = if self.chart.is_dir() {
            self.render(client, tools, prometheus_url).await?
        } else {
            arguments
                .push(concat!("--filename=", env!("CARGO_MANIFEST_DIR"), "/../../crds").into());
            self.rendered(client).await?
        };
        kubectl::apply(tools, dir, kubeconfig, &arguments, &manifests).await?;
        Ok(())
    }

    /// The file's objects, as Helm would have rendered them for this cluster: Kubernetes below 1.36 has
    /// no mutating policies.
    async fn rendered(&self, client: &Client) -> Result<Vec<u8>> {
        let rendered = fs::read_to_string(&self.chart).map_err(Error::file("read", &self.chart))?;
        let mutating = has_mutating_policies(client).await?;
        let documents = rendered
            .split_inclusive("\n---\n")
            .filter(|it| mutating || !it.contains("\nkind: MutatingAdmissionPolicy"));
        Ok(documents.collect::<String>().into_bytes())
    }

    async fn render(
        &self,
        client: &Client,
        tools: &Tools,
        prometheus_url: &str,
    ) -> Result<Vec<u8>> {
        let mut render = tools.program("helm");
        render
            .args(["template", RELEASE])
            .arg(&self.chart)
            .args(["--namespace", NAMESPACE, "--skip-tests"])
            .args(served(client, ADMISSION).await?)
            .arg(format!("--set=prometheus.url={prometheus_url}"));
        process::output(render, &[]).await
    }
}

/// Whether the API server writes what the chart's mutating policies state: Kubernetes has them from 1.36 on.
pub(crate) async fn has_mutating_policies(client: &Client) -> Result<bool> {
    let kinds = served(client, ADMISSION).await?;
    let mut kinds = kinds.iter();
    Ok(kinds.any(|it| it.ends_with("/MutatingAdmissionPolicy")))
}

/// The served kinds of an API version, as arguments for `helm template`, which reads no API server.
async fn served(client: &Client, group_version: &str) -> Result<Vec<String>> {
    let served = client
        .list_api_group_resources(group_version)
        .await
        .map_err(Error::kubernetes(format!(
            "ask what {group_version} serves"
        )))?;
    let argument = |kind| format!("--api-versions={group_version}/{kind}");
    let kinds = served.resources.into_iter().map(|resource| resource.kind);
    Ok(kinds.map(argument).collect())
}
