//! The operator under test: installed by its chart, run here as a process with the token of the
//! chart's `ServiceAccount`, so that a permission missing from the chart fails a test.

use crate::{
    credentials,
    directory::Directory,
    error::{Error, Result},
    process::{Processes, Supervised},
    tools::Tools,
};
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{Namespace, ServiceAccount},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{io::AsyncWriteExt as _, process::Command, time::sleep};

/// Its name in pid files and logs.
const NAME: &str = "operator";
/// The release, and the `ServiceAccount` that the chart names after it.
const RELEASE: &str = "countersign";
const NAMESPACE: &str = "countersign-system";
/// Where the chart's policies belong; not every API server has all kinds of them.
const ADMISSION: &str = "admissionregistration.k8s.io/v1";

/// The handle by which tests kill it.
pub(crate) fn process(dir: &Directory) -> Supervised<'_> {
    Supervised { dir, name: NAME }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Operator {
    /// The program.
    pub program: PathBuf,
    /// Its chart.
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
        self.install(client, tools, kubeconfig, prometheus_url)
            .await?;

        let (client, tools, program) = (client.clone(), tools.clone(), self.program.clone());
        let admin = kubeconfig.to_owned();
        let own = processes.dir().join("operator.kubeconfig");
        let prometheus_url = prometheus_url.to_owned();
        processes.supervise(NAME, move || {
            let mut command = tools.launch(&program);
            command
                .arg("run")
                .env("KUBECONFIG", &own)
                .env("COUNTERSIGN_PROMETHEUS_URL", &prometheus_url)
                .env("COUNTERSIGN_PROMETHEUS_LAG", "3s")
                .env("COUNTERSIGN_LISTEN", "127.0.0.1:8081")
                .env("POD_NAME", "countersign-0")
                .env("POD_NAMESPACE", NAMESPACE)
                .env(
                    "RUST_LOG",
                    std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned()),
                );
            let (client, admin, own) = (client.clone(), admin.clone(), own.clone());
            async move {
                credentials::with_token(&admin, &own, &token(&client).await?)?;
                Ok(command)
            }
        });
        Ok(())
    }

    async fn install(
        &self,
        client: &Client,
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

        let mut render = tools.program("helm");
        render
            .args(["template", RELEASE])
            .arg(&self.chart)
            .args(["--namespace", NAMESPACE])
            .args(served(client, ADMISSION).await?)
            .arg(format!("--set=prometheus.url={prometheus_url}"));
        let manifests = output(render, &[]).await?;

        // An object of a kind defined in the same breath is refused until the kind is served.
        let mut attempts = 10;
        loop {
            let mut apply = tools.program("kubectl");
            apply
                .args([
                    "apply",
                    "--server-side",
                    "--filename=-",
                    "--namespace",
                    NAMESPACE,
                ])
                .arg(format!("--kubeconfig={}", kubeconfig.display()));
            match output(apply, &manifests).await {
                Err(Error::Command { output, .. })
                    if attempts > 0 && output.contains("no matches for kind") =>
                {
                    attempts -= 1;
                }
                Err(error) => return Err(error),
                Ok(_) => return Ok(()),
            }
            sleep(Duration::from_millis(500)).await;
        }
    }
}

/// What a version of an API group serves, as arguments for `helm template`, which asks no API server.
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

/// A token as the kubelet would mount it.
async fn token(client: &Client) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let mut request = TokenRequest::default();
    request.spec.get_or_insert_default().expiration_seconds = Some(24 * 60 * 60);
    let answer = accounts
        .create_token_request(RELEASE, &PostParams::default(), &request)
        .await
        .map_err(Error::kubernetes(format!(
            "get a token for the chart's ServiceAccount {NAMESPACE}/{RELEASE}"
        )))?;
    Ok(answer
        .status
        .and_then(|status| status.token)
        .unwrap_or_default())
}

/// Runs a command to its end and returns what it prints.
async fn output(mut command: Command, input: &[u8]) -> Result<Vec<u8>> {
    let line = format!("{:?}", command.as_std());
    let run = async {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take();
        let feed = async {
            if let Some(mut stdin) = stdin {
                // It may end without reading all; then its status says what matters.
                let _ = stdin.write_all(input).await;
            }
        };
        let (output, ()) = tokio::join!(child.wait_with_output(), feed);
        output
    };
    let output = run.await.map_err(|source| Error::Start {
        program: line.clone(),
        source,
        remedy: "is it there and executable?",
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Error::Command {
        command: line,
        status: output.status,
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
