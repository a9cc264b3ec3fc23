//! The RolloutPolicies that apply to a Rollout.

use std::collections::BTreeMap;

use countersign_core::observation::people::NamedPolicy;
use countersign_core::policy;
use kube::ResourceExt;

use crate::observe::observer::Observer;
use crate::watch::WatchedPolicy;

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

fn read_policy(policy: &WatchedPolicy) -> Result<NamedPolicy, String> {
    let name = policy.name_any();
    match &policy.spec {
        Ok(spec) => Ok(NamedPolicy {
            name,
            generation: policy.metadata.generation.unwrap_or_default(),
            spec: spec.clone(),
        }),
        Err(problem) => Err(format!(
            "RolloutPolicy {name} cannot be read by this build: {problem}"
        )),
    }
}
