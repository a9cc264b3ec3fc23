//! `cluster exec`: a cluster for one command.

use crate::{
    directory::Directory,
    error::{Error, Result},
    harness::{self, Plan},
    namespace,
    operator::Operator,
    tools::Tools,
};
use std::{env, ffi::OsString, fs, future::pending};

/// The exit statuses of an interrupted command: nothing has failed, nothing is kept.
const INTERRUPTED: [u8; 3] = [129, 130, 143];

/// Runs `command` in a new cluster, or in that of `COUNTERSIGN_KUBECONFIG`, and returns its exit status.
/// Builds the cluster's programs unless they are given.
pub async fn exec(
    operator: Option<Operator>,
    tools: Option<Tools>,
    command: Vec<OsString>,
) -> Result<u8> {
    // Before the namespace, which has no network to build anything from.
    let tools = match tools {
        Some(tools) => tools,
        None => Tools::build().await?,
    };
    let dir = tempfile::Builder::new()
        .prefix("countersign-cluster-")
        .tempdir()
        .map_err(Error::file("create a directory in", env::temp_dir()))?;
    let mut plan = Plan {
        dir: Directory::at(dir.path()),
        tools,
        operator,
        command,
    };

    let outcome = if let Some(given) = harness::given_kubeconfig() {
        plan.tools = plan.tools.tied();
        harness::run(plan, Some(given), namespace::signalled()).await
    } else {
        namespace::run(&plan, pending()).await
    };
    if !matches!(&outcome, Ok(0)) && !matches!(&outcome, Ok(status) if INTERRUPTED.contains(status))
    {
        let kept = dir.keep();
        // Most of the data, and less useful than the logs.
        let _ = fs::remove_dir_all(kept.join("etcd"));
        eprintln!("cluster: logs and all else are kept in {}", kept.display());
    }
    outcome
}
