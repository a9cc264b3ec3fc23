//! The Services of a Rollout, and conflicting claims on them.

use std::collections::{BTreeMap, BTreeSet};

use countersign_api::{HASH_LABEL, Rollout};
use countersign_core::observation::workload::Service;
use k8s_openapi::api::core::v1::Service as ApiService;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};

use crate::observe::observer::Observer;
use crate::watch::Claim;

impl Observer {
    /// The Services of the spec, and former ones that still select a revision.
    pub(super) async fn services(
        &self,
        rollout: &Rollout,
        namespace: &str,
    ) -> Result<(BTreeMap<String, Option<Service>>, BTreeMap<String, Service>), kube::Error> {
        let api: Api<ApiService> = Api::namespaced(self.client.clone(), namespace);
        let canary = &rollout.spec.strategy.canary;
        let named: BTreeSet<_> = canary
            .stable_service
            .iter()
            .chain(&canary.canary_service)
            .collect();
        let remembered = rollout.status.iter().flat_map(|status| &status.services);
        let former = remembered.filter(|it| !named.contains(it));
        let services = named.iter().copied().chain(former).map(async |name| {
            let service = self.reads.get_opt(&api, name).await?;
            let service = service.and_then(|service| service.spec);
            let service = service.map(|spec| Service {
                kind: spec.type_.unwrap_or_default(),
                selector: spec.selector.unwrap_or_default(),
            });
            Ok::<_, kube::Error>((name.clone(), service))
        });
        let services = futures::future::try_join_all(services).await?;
        let (services, former): (Vec<_>, Vec<_>) = services
            .into_iter()
            .partition(|(name, _)| named.contains(name));
        let former = former.into_iter().filter_map(|(name, service)| {
            let service = service.filter(|it: &Service| it.selector.contains_key(HASH_LABEL))?;
            Some((name, service))
        });
        Ok((services.into_iter().collect(), former.collect()))
    }

    pub(super) fn conflicts(&self, rollout: &Rollout, namespace: &str) -> Vec<String> {
        let name = rollout.name_any();
        let key = ObjectRef::<Claim>::new(&name).within(namespace);
        let own = self.caches.claims.get(&key);
        let Some(own) = own.filter(|own| own.metadata.uid == rollout.metadata.uid) else {
            return vec![format!(
                "the watch has not reported Rollout {name} yet, so conflicting claims are not known: nothing starts before that"
            )];
        };
        let earlier = self.earlier_claims(&name, namespace);
        let conflicts = earlier.iter().filter_map(|other| own.conflict(other));
        let mut conflicts: Vec<_> = conflicts.collect();
        conflicts.sort();
        conflicts
    }
}
