//! What is read, and how new it must be.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, ResourceExt};

use super::admission::AdmissionCheck;
use super::reads::Reads;
use super::turn::Turns;
use crate::prometheus::Prometheus;
use crate::watch::{Caches, Claim};

/// Where observations come from.
#[derive(Clone)]
pub struct Observer {
    /// The client for live reads.
    pub client: Client,
    /// What the watches keep.
    pub caches: Caches,
    /// Where evidence comes from.
    pub prometheus: Prometheus,
    /// Whether the API server proves who wrote what.
    pub admission: AdmissionCheck,
    /// Lets one look at a time count the changes that are under way.
    pub turns: Turns,
    /// How new what is read must be.
    pub reads: Reads,
}

impl Observer {
    /// The same, reading what the API server has at hand.
    #[must_use]
    pub fn at_hand(&self) -> Self {
        Self {
            reads: Reads::Cached,
            ..self.clone()
        }
    }

    /// The labels of a namespace, if the watch has reported it.
    #[must_use]
    pub fn namespace_labels(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        let key = ObjectRef::<PartialObjectMeta<Namespace>>::new(namespace);
        self.caches
            .namespaces
            .get(&key)
            .map(|found| found.labels().clone())
    }

    /// What the Rollouts of a namespace claim that were there before this one.
    pub(super) fn earlier_claims(&self, name: &str, namespace: &str) -> Vec<Arc<Claim>> {
        let key = ObjectRef::<Claim>::new(name).within(namespace);
        let Some(own) = self.caches.claims.get(&key) else {
            return Vec::new();
        };
        let is_earlier = |other: &Arc<Claim>| {
            other.namespace().as_deref() == Some(namespace) && other.precedes(&own)
        };
        self.caches
            .claims
            .state()
            .into_iter()
            .filter(is_earlier)
            .collect()
    }
}
