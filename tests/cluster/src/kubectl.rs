//! Applying and deleting manifests, as a user of the cluster does.

use crate::{
    directory::Directory,
    error::{Error, Result},
    process,
    tools::Tools,
};
use std::{ffi::OsString, path::Path, time::Duration};
use tokio::{process::Command, time::sleep};

/// Runs `kubectl apply` with these arguments and input, and returns its output.
pub(crate) async fn apply(
    tools: &Tools,
    dir: &Directory,
    kubeconfig: &Path,
    arguments: &[OsString],
    input: &[u8],
) -> Result<Vec<u8>> {
    // Applying again does no harm, and an attempt may fail for a moment: where the kind of an object is defined in the
    // same call and not served yet, or where another test creates the same definition.
    let mut attempts = 10;
    loop {
        let mut apply = kubectl(tools, dir, kubeconfig);
        apply.args(["apply", "--server-side"]).args(arguments);
        match process::output(apply, input).await {
            Err(Error::Command { .. }) if attempts > 0 => attempts -= 1,
            outcome => return outcome,
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Runs `kubectl delete` with these arguments, ignoring missing objects, and returns its output once they
/// are deleted.
pub(crate) async fn delete(
    tools: &Tools,
    dir: &Directory,
    kubeconfig: &Path,
    arguments: &[OsString],
) -> Result<Vec<u8>> {
    let mut delete = kubectl(tools, dir, kubeconfig);
    // Without a timeout it would wait forever for an object with a finalizer.
    delete
        .args(["delete", "--ignore-not-found", "--timeout=60s"])
        .args(arguments);
    process::output(delete, &[]).await
}

fn kubectl(tools: &Tools, dir: &Directory, kubeconfig: &Path) -> Command {
    let mut kubectl = tools.program("kubectl");
    kubectl
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        // Otherwise kubectl would use the discovery cache of another cluster.
        .env("KUBECACHEDIR", dir.kubectl_cache());
    kubectl
}
