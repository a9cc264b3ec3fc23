//! The operator, in place of the pods of the chart's Deployment, which run nothing here.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use countersign_cluster::{Cluster, Fault, Plan, Replica, ReplicaPlan, wait_for};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;

use crate::release::SYSTEM;

/// The lease of one that was killed must expire first.
const LEADS_WITHIN: Duration = Duration::from_mins(4);

/// Starts one for the Rollouts of a namespace, with these faults on its way to the API server; returns once it leads.
pub async fn start(
    cluster: &Cluster,
    namespace: &str,
    program: PathBuf,
    identity: &str,
    api_server: Plan,
) -> Replica {
    let plan = ReplicaPlan {
        program,
        namespace: Some(namespace.to_owned()),
        identity: identity.to_owned(),
        lease_namespace: SYSTEM.to_owned(),
        api_server,
        prometheus: no_faults(),
        environment: Vec::new(),
    };
    let replica = Replica::start(cluster, plan).await.unwrap();
    let leases: Api<Lease> = Api::namespaced(cluster.client(), SYSTEM);
    let leads = async || {
        let lease = leases.get_opt("countersign").await.unwrap()?.spec?;
        let holder = lease.holder_identity?;
        (holder == identity).then_some(())
    };
    let leads = wait_for("the operator leads", LEADS_WITHIN, leads).await;
    leads.unwrap_or_else(|error| panic!("{error}\n{}", replica.log()));
    replica
}

pub fn no_faults() -> Plan {
    Arc::new(|_| Fault::Pass)
}
