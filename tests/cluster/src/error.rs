//! Errors that name the object and the remedy.

use std::{io, path::PathBuf, time::Duration};

/// Every failure of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A test or tool was started outside the cluster.
    #[error(
        "this needs the test cluster, but {variable} is not set: run `make e2e`, \
         or `cluster exec -- COMMAND`"
    )]
    NotInCluster {
        /// The environment variable that `cluster exec` would have set.
        variable: &'static str,
    },

    /// The kernel refused a namespace.
    #[error(
        "cannot make a private network namespace: {reason}\n\
         The test cluster needs unprivileged user namespaces (sysctls user.max_user_namespaces > 0, \
         kernel.unprivileged_userns_clone = 1, kernel.apparmor_restrict_unprivileged_userns = 0; in a \
         container a seccomp profile that allows unshare). Otherwise set COUNTERSIGN_KUBECONFIG to an \
         admin's kubeconfig of a cluster that you bring."
    )]
    Namespace {
        /// The message of `unshare`.
        reason: String,
    },

    /// The pods' addresses do not belong to this machine.
    #[error(
        "the pod addresses 10.0.0.0/16 are not local here ({0}), so the pods cannot serve: run \
         `ip route add local 10.0.0.0/16 dev lo` in the network namespace of the cluster that \
         COUNTERSIGN_KUBECONFIG names"
    )]
    PodRange(#[source] io::Error),

    /// `tools/build.sh` failed, with a message on the terminal.
    #[error("tests/cluster/tools/build.sh failed ({0}); see above")]
    Tools(std::process::ExitStatus),

    /// A program could not be started.
    #[error("cannot start {program}: {source}; {remedy}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
        /// The remedy.
        remedy: &'static str,
    },

    /// A program that should have succeeded did not.
    #[error("`{command}` failed ({status}):\n{output}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// Its output.
        output: String,
    },

    /// A component that should run for as long as the cluster ended.
    #[error("{name} ended ({status}); the end of {}:\n{tail}", log.display())]
    Ended {
        /// The component.
        name: String,
        /// Its exit status.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },

    /// A wait timed out.
    #[error("{what}: not so within {within:?}; last seen: {last}")]
    TimedOut {
        /// What was awaited.
        what: String,
        /// The timeout.
        within: Duration,
        /// The last state observed.
        last: String,
    },

    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// `read`, `write`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },

    /// A kubeconfig is invalid, or lacks the requested user.
    #[error("cannot use the kubeconfig {}: {source}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<kube::config::KubeconfigError>,
    },

    /// An address for which there is no proxy.
    #[error("{url} is no address of a server")]
    Proxy {
        /// The address.
        url: String,
    },

    /// A request to the API server failed.
    #[error("cannot {action}: {source}")]
    Kubernetes {
        /// The failed operation.
        action: String,
        /// Why.
        source: Box<kube::Error>,
    },

    /// A query of Prometheus failed.
    #[error("Prometheus does not answer `{query}`: {reason}")]
    Prometheus {
        /// The query.
        query: String,
        /// Why.
        reason: String,
    },

    /// A request to a pod failed.
    #[error("cannot set the error rate of the pod at {address}: {source}")]
    Pod {
        /// Its address.
        address: String,
        /// Why.
        source: io::Error,
    },

    /// A certificate could not be made.
    #[error("cannot make the cluster's certificates: {0}")]
    Certificates(#[from] rcgen::Error),

    /// `cluster up` was called with `COUNTERSIGN_KUBECONFIG` set.
    #[error(
        "`cluster up` makes a cluster of its own: unset COUNTERSIGN_KUBECONFIG, or use `cluster exec`"
    )]
    NothingToKeep,

    /// `cluster up` was interrupted.
    #[error("interrupted; no cluster is up")]
    Interrupted,

    /// `cluster down` did not end the cluster.
    #[error("the cluster's keeper, process {pid}, did not end within {within:?}: kill it")]
    StillUp {
        /// The keeper.
        pid: i32,
        /// The timeout.
        within: Duration,
    },
}

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// For `map_err` on a request to the API server.
    pub(crate) fn kubernetes(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        |source| Self::Kubernetes {
            action: action.into(),
            source: Box::new(source),
        }
    }

    /// For `map_err` on a file operation.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File {
            action,
            path: path.into(),
            source,
        }
    }
}
