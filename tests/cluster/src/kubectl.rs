//! Applying manifests, as a user of the cluster does.

use crate::{
    directory::Directory,
    error::{Error, Result},
    process,
    tools::Tools,
};
use std::{ffi::OsString, path::Path, time::Duration};
use tokio::time::sleep;

/// Applies what `arguments` and `input` name.
pub(crate) async fn apply(
    tools: &Tools,
    dir: &Directory,
    kubeconfig: &Path,
    arguments: &[OsString],
    input: &[u8],
) -> Result<()> {
    // An object of a kind defined in the same breath is refused until the kind is served.
    let mut attempts = 10;
    loop {
        let mut apply = tools.program("kubectl");
        apply
            .args(["apply", "--server-side"])
            .args(arguments)
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            // Another cluster's kinds would be taken for this one's.
            .env("KUBECACHEDIR", dir.kubectl_cache());
        match process::output(apply, input).await {
            Err(Error::Command { output, .. })
                if attempts > 0 && output.contains("no matches for kind") =>
            {
                attempts -= 1;
            }
            outcome => return outcome.map(drop),
        }
        sleep(Duration::from_millis(500)).await;
    }
}
