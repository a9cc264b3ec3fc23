//! The caches of the watches.

use countersign_api::RolloutPolicy;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::reflector::Store;

use crate::watch::claim::Claim;

/// The caches of the watches.
#[derive(Clone, Debug)]
pub struct Caches {
    /// Every Rollout's claims.
    pub claims: Store<Claim>,
    /// Every policy; one that cannot be read is kept as an error.
    pub policies: Store<DeserializeGuard<RolloutPolicy>>,
    /// Every namespace's labels.
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
}

impl Caches {
    /// Waits until every cache has been filled once.
    pub async fn ready(&self) -> bool {
        self.claims.wait_until_ready().await.is_ok()
            && self.policies.wait_until_ready().await.is_ok()
            && self.namespaces.wait_until_ready().await.is_ok()
    }
}
