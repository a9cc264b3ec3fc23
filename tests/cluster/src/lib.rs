//! A real Kubernetes for tests and the demo, as plain processes in a private network namespace.
//!
//! `cluster exec -- COMMAND` runs a command in it; [`Cluster::from_env`] is how a test that was
//! started so finds it. The API server, etcd, the controllers, the scheduler, Prometheus and the
//! HTTP requests are real, and so is Traefik, which a test may put before its pods. Nodes and containers are not: kwok says that pods run, and this crate
//! answers on the pods' addresses with the error rate and latency that their template sets.
//!
//! Where to start: [`Cluster`], [`Load`] and [`wait_for`] to write a test; `harness` for what is
//! started in which order; `namespace` for why nothing is left behind; `pods` for what a pod can be
//! requested to do; [`Kinds`] for definitions of other projects' kinds.

mod audit;
mod cluster;
mod control_plane;
mod credentials;
mod directory;
mod error;
mod exec;
mod forward;
mod gateway;
mod harness;
mod http;
mod keeper;
mod kinds;
mod kubectl;
mod load;
mod namespace;
mod nodes;
mod operator;
mod pods;
mod process;
mod prometheus;
mod proxy;
mod replica;
mod tools;
mod wait;

pub use audit::{ApiRequest, RequestLog};
pub use cluster::{Cluster, Sample, new_namespace};
pub use error::{Error, Result};
pub use gateway::Gateway;
pub use kinds::Kinds;
pub use load::{Limits, Load, LoadReport, RevisionCount};
pub use proxy::{Events, Fault, Plan, ProxiedRequest, Proxy};
pub use replica::{Replica, ReplicaPlan};
pub use wait::{Polled, wait_for};

/// Modules of the program `cluster`.
pub mod program {
    pub use crate::{
        directory::Directory,
        exec::exec,
        harness::Plan,
        keeper::{down, keep, up},
        namespace::run_inside,
        operator::Operator,
        tools::Tools,
    };
}
