//! Nodes without machines: kwok reports them and their pods as running, by the stages in `stages/`.
//!
//! A pod gets `Running` and an address from kwok, then its sockets from [`pods`](crate::pods), which sets
//! the condition `cluster.test/Listening`; only then does kwok make it `Ready`. So a ready pod responds,
//! as with a kubelet's readiness probe.
//!
//! Two annotations change that: `cluster.test/ready: never`, and `cluster.test/ready-after: 5s`. A pod
//! with readiness gates is never ready, as nothing here sets them. A Job's pod succeeds as soon as it
//! runs, unless it has `cluster.test/ends: never`. For pods that do not start see [`pods`](crate::pods).

use crate::{
    error::{Error, Result},
    process::Processes,
    tools::Tools,
    wait::wait_for,
};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

/// Pods have addresses in 10.0.0.0/16, all of them local to the namespace.
#[must_use]
pub(crate) fn is_pod_address(address: Ipv4Addr) -> bool {
    matches!(address.octets(), [10, 0, _, _])
}
/// [`is_pod_address`] as a route.
pub(crate) const POD_RANGE: &str = "10.0.0.0/16";
/// The nodes' own address, in a part of the range that no node ever allocates.
pub(crate) const NODE_ADDRESS: &str = "10.0.255.254";

/// The label of each kwok's own nodes.
const KWOK: &str = "cluster.test/kwok";

/// The nodes of one harness.
#[derive(Clone, Debug)]
pub(crate) struct Nodes {
    names: [String; 2],
    pod_ranges: [&'static str; 2],
    owner: String,
}

impl Nodes {
    /// The nodes of a cluster of the harness.
    pub(crate) fn of_own_cluster() -> Self {
        Self {
            names: ["node-1".to_owned(), "node-2".to_owned()],
            pod_ranges: ["10.0.0.0/18", "10.0.64.0/18"],
            owner: "own".to_owned(),
        }
    }

    /// Nodes to add to a foreign cluster, which may already hold nodes of another harness, as in the test
    /// of this case.
    pub(crate) fn of_given_cluster() -> Self {
        let id = format!("{:06x}", rand::random::<u32>() >> 8);
        Self {
            names: [format!("node-{id}-1"), format!("node-{id}-2")],
            pod_ranges: ["10.0.128.0/18", "10.0.192.0/18"],
            owner: id,
        }
    }

    /// Whether a pod runs on one of them.
    pub(crate) fn include(&self, name: &str) -> bool {
        self.names.iter().any(|own| own == name)
    }

    /// Creates the nodes, starts kwok for them, and returns when both are ready for pods.
    pub(crate) async fn start(
        &self,
        client: &Client,
        processes: &Processes,
        tools: &Tools,
        kubeconfig: &Path,
    ) -> Result<()> {
        let mut kwok = tools.program("kwok");
        kwok.arg("--kubeconfig")
            .arg(kubeconfig)
            .arg(format!(
                "--manage-nodes-with-label-selector={KWOK}={}",
                self.owner
            ))
            .arg(format!("--node-ip={NODE_ADDRESS}"))
            .arg("--node-lease-duration-seconds=40");
        for stage in stages(tools) {
            kwok.arg("--config").arg(stage);
        }
        processes.start("kwok", kwok)?;

        let nodes: Api<Node> = Api::all(client.clone());
        for (name, range) in self.names.iter().zip(self.pod_ranges) {
            self.create(&nodes, name, range).await?;
        }
        for name in &self.names {
            wait_for(
                &format!("node {name} is ready"),
                Duration::from_mins(1),
                async || is_ready(&nodes.get(name).await.map_err(|error| error.to_string())?),
            )
            .await?;
        }
        Ok(())
    }

    /// Removes the nodes from a foreign cluster.
    pub(crate) async fn delete(&self, client: &Client) -> Result<()> {
        let nodes: Api<Node> = Api::all(client.clone());
        for name in &self.names {
            nodes
                .delete(name, &DeleteParams::default())
                .await
                .map_err(Error::kubernetes(format!("delete node {name}")))?;
        }
        Ok(())
    }

    async fn create(&self, nodes: &Api<Node>, name: &str, pod_range: &str) -> Result<()> {
        let action = || format!("create node {name}");
        let mut node = Node::default();
        node.metadata.name = Some(name.to_owned());
        node.metadata.labels = Some(
            [
                (KWOK, self.owner.as_str()),
                ("kubernetes.io/hostname", name),
                ("kubernetes.io/os", "linux"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        );
        node.spec.get_or_insert_default().pod_cidr = Some(pod_range.to_owned());
        node.spec.get_or_insert_default().pod_cidrs = Some(vec![pod_range.to_owned()]);
        nodes
            .create(&PostParams::default(), &node)
            .await
            .map_err(Error::kubernetes(action()))?;

        let room = json!({ "cpu": "1000", "memory": "1Ti", "pods": "10000" });
        let status = json!({ "status": { "allocatable": room, "capacity": room } });
        nodes
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .map_err(Error::kubernetes(action()))?;
        // Admission taints every new node as not ready; the controller that would lift it is off.
        let untainted = json!({ "spec": { "taints": null } });
        nodes
            .patch(name, &PatchParams::default(), &Patch::Merge(untainted))
            .await
            .map_err(Error::kubernetes(action()))?;
        Ok(())
    }
}

/// Upstream's stages where they suffice, otherwise those of the harness.
fn stages(tools: &Tools) -> [PathBuf; 4] {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("stages");
    [
        tools.file("kwok-stages/node-initialize.yaml"),
        ours.join("pod-start-and-ready.yaml"),
        ours.join("pod-complete.yaml"),
        ours.join("pod-delete.yaml"),
    ]
}

fn is_ready(node: &Node) -> Result<(), String> {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    match conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == "Ready")
    {
        Some(condition) if condition.status == "True" => Ok(()),
        other => Err(format!("{other:?}")),
    }
}
