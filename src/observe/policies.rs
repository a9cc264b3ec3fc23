//! The RolloutPolicies that apply to a Rollout.

use std::collections::BTreeMap;

use countersign_api::RolloutPolicy;
use countersign_core::observation::people::NamedPolicy;
use countersign_core::policy;
use kube::ResourceExt;
use kube::core::DeserializeGuard;

use crate::observe::observer::Observer;

impl Observer {
    pub(super) fn policies(
        &self,
        namespace_labels: Option<&BTreeMap<String, String>>,
        labels: &BTreeMap<String, String>,
    ) -> (Vec<NamedPolicy>, Vec<String>) {
        let none = BTreeMap::new();
        let namespace_labels = namespace_labels.unwrap_or(&none);
        let mut readable = Vec::new();
        let mut unreadable = Vec::new();
        for policy in self.caches.policies.state() {
            match read_policy(&policy) {
                Ok(policy) if policy::governs(&policy.spec, namespace_labels, labels) => {
                    readable.push(policy);
                }
                Ok(_) => {}
                Err(problem) => unreadable.push(problem),
            }
        }
        readable.sort_by(|a, b| a.name.cmp(&b.name));
        unreadable.sort();
        (readable, unreadable)
    }
}

pub(super) fn read_policy(policy: &DeserializeGuard<RolloutPolicy>) -> Result<NamedPolicy, String> {
    match &policy.0 {
        Ok(policy) => Ok(NamedPolicy {
            name: policy.name_any(),
            generation: policy.metadata.generation.unwrap_or_default(),
            spec: policy.spec.clone(),
        }),
        Err(invalid) => {
            let name = invalid.metadata.name.as_deref().unwrap_or_default();
            Err(format!(
                "RolloutPolicy {name} cannot be read by this build: {invalid}"
            ))
        }
    }
}
