//! The clients and caches of observations, and how fresh their reads must be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, ResourceExt};

use super::admission::AdmissionCheck;
use super::dry_runs::DryRuns;
use super::queue_lock::QueueMutex;
use crate::prometheus::Prometheus;
use crate::watch::{Caches, Claim};

/// Makes observations.
#[derive(Clone)]
pub struct Observer {
    /// The client for live reads.
    pub client: Client,
    /// The caches of the watches.
    pub caches: Caches,
    /// The source of evidence.
    pub prometheus: Prometheus,
    /// The check of the admission policies.
    pub admission: AdmissionCheck,
    /// Lets one reconcile at a time count the changes in progress.
    pub queue_lock: QueueMutex,
    /// What dry runs of ReplicaSets have shown.
    pub dry_runs: DryRuns,
    /// Whether the API server has refused to select objects of people by a field.
    pub no_fields: Arc<AtomicBool>,
    /// Whether what the watches keep may be as they have reported it.
    pub from_watches: bool,
}

impl Observer {
    /// The same observer, of what the watches have reported or of what is read live.
    #[must_use]
    pub fn with(&self, from_watches: bool) -> Self {
        Self {
            from_watches,
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

    /// The claims of older Rollouts of the namespace.
    pub(super) fn earlier_claims(&self, name: &str, namespace: &str) -> Vec<Arc<Claim>> {
        let key = ObjectRef::<Claim>::new(name).within(namespace);
        let Some(own) = self.caches.claims.get(&key) else {
            return Vec::new();
        };
        self.caches.claims.state_filter(|other| {
            other.metadata.namespace.as_deref() == Some(namespace) && other.precedes(&own)
        })
    }
}
