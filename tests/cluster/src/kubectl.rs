//! Applying and deleting manifests, as a user of the cluster does.

use crate::{
    directory::Directory,
    error::{Error, Result},
    process,
    tools::Tools,
};
use std::{ffi::OsString, path::Path, time::Duration};
use tokio::{process::Command, time::sleep};

/// Applies what `arguments` and `input` name, and returns what kubectl prints.
pub(crate) async fn apply(
    tools: &Tools,
    dir: &Directory,
    kubeconfig: &Path,
    arguments: &[OsString],
    input: &[u8],
) -> Result<Vec<u8>> {
    // An object of a kind defined in the same breath is refused until the kind is served.
    let mut attempts = 10;
    loop {
        let mut apply = kubectl(tools, dir, kubeconfig);
        apply.args(["apply", "--server-side"]).args(arguments);
        match process::output(apply, input).await {
            Err(Error::Command { output, .. })
                if attempts > 0 && output.contains("no matches for kind") =>
            {
                attempts -= 1;
            }
            outcome => return outcome,
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Deletes what `arguments` name, as far as it is there, and returns what kubectl prints once it is
/// gone.
pub(crate) async fn delete(
    tools: &Tools,
    dir: &Directory,
    kubeconfig: &Path,
    arguments: &[OsString],
) -> Result<Vec<u8>> {
    let mut delete = kubectl(tools, dir, kubeconfig);
    // Without a limit it would wait for ever where a finalizer keeps an object.
    delete
        .args(["delete", "--ignore-not-found", "--timeout=60s"])
        .args(arguments);
    process::output(delete, &[]).await
}

fn kubectl(tools: &Tools, dir: &Directory, kubeconfig: &Path) -> Command {
    let mut kubectl = tools.program("kubectl");
    kubectl
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        // Another cluster's kinds would be taken for this one's.
        .env("KUBECACHEDIR", dir.kubectl_cache());
    kubectl
}
