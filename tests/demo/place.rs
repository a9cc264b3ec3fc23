//! Where the demo runs: in the test cluster, or in one that exists already.

use std::time::Duration;

use countersign_cluster::{Cluster, Limits, Load, new_namespace};
use kube::Client;
use kube::api::DynamicObject;

use crate::{Result, existing};

/// The place.
pub enum Place {
    /// The test cluster: its pods are simulated, and the requests are sent from here.
    Test(Cluster),
    /// The cluster of `KUBECONFIG`, with real pods; one of them sends the requests.
    Existing(Client),
}

/// The times and requests that suit a place.
pub struct Pace {
    pub poll_interval: Duration,
    pub start_within: Duration,
    pub end_within: Duration,
    pub requests_per_second: u32,
    /// Enough for the evidence of a strict tier.
    pub many_requests_per_second: u32,
}

impl Place {
    /// The place that the command line names.
    pub async fn chosen() -> Result<Self> {
        match std::env::args().nth(1).as_deref() {
            None => Ok(Self::Test(Cluster::from_env().await?)),
            Some("existing") => Ok(Self::Existing(existing::connect().await?)),
            Some(other) => Err(format!("{other}: the only argument is `existing`").into()),
        }
    }

    pub fn pace(&self) -> Pace {
        match self {
            Self::Test(_) => Pace {
                poll_interval: Duration::from_millis(100),
                start_within: Duration::from_mins(1),
                end_within: Duration::from_mins(3),
                requests_per_second: 300,
                many_requests_per_second: 900,
            },
            // Images are pulled, windows are long, and the nodes are somebody's.
            Self::Existing(_) => Pace {
                poll_interval: Duration::from_secs(1),
                start_within: Duration::from_mins(5),
                end_within: Duration::from_mins(40),
                requests_per_second: 100,
                many_requests_per_second: 300,
            },
        }
    }

    /// An administrator's client.
    pub fn client(&self) -> Client {
        match self {
            Self::Test(cluster) => cluster.client(),
            Self::Existing(client) => client.clone(),
        }
    }

    /// A client of a person of this group.
    pub async fn client_as(&self, user: &str, group: &str) -> Result<Client> {
        match self {
            Self::Test(cluster) => Ok(cluster.client_as(user).await?),
            Self::Existing(_) => existing::client_as(user, group).await,
        }
    }

    /// Creates a namespace for the demo.
    pub async fn namespace(&self) -> Result<String> {
        Ok(new_namespace(&self.client(), "demo").await?)
    }

    /// What is applied for an object of `examples/`.
    pub fn adapted(&self, object: DynamicObject, namespace: &str, tag: &str) -> DynamicObject {
        match self {
            Self::Test(_) => object,
            Self::Existing(_) => existing::adapted(object, namespace, tag),
        }
    }

    /// Sends requests to a Service for as long as the demo lasts; the counts are known where they are sent from here.
    pub async fn load(&self, namespace: &str, service: &str, rate: u32) -> Result<Option<Load>> {
        let pace = self.pace();
        let limits = Limits {
            max_requests: 300_000,
            max_time: pace.start_within + pace.end_within,
        };
        match self {
            Self::Test(cluster) => {
                let load = Load::start(cluster.client(), namespace, service, rate, limits);
                Ok(Some(load.await?))
            }
            Self::Existing(client) => {
                existing::start_sender(client, namespace, service, rate).await?;
                Ok(None)
            }
        }
    }

    /// Removes what the demo has created; the test cluster ends anyway.
    pub async fn clean_up(&self, namespace: &str) -> Result<()> {
        match self {
            Self::Test(_) => Ok(()),
            Self::Existing(client) => existing::clean_up(client, namespace).await,
        }
    }

    /// Returns when the demo is interrupted, if something is to be removed then.
    pub async fn interrupted(&self) {
        match self {
            Self::Test(_) => std::future::pending().await,
            // An error means that no signal can be waited for: the demo would leave everything behind.
            Self::Existing(_) => drop(tokio::signal::ctrl_c().await),
        }
    }
}
