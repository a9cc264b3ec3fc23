//! The Services of a Rollout, and conflicting claims on them.

use std::collections::BTreeSet;

use countersign_api::{HASH_LABEL, Rollout};
use countersign_core::observation::traffic::TrafficObjects;
use k8s_openapi::api::core::v1::Service as ApiService;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};

use crate::observe::observer::Observer;
use crate::observe::reads::tried;
use crate::watch::{Claim, Selection};

impl Observer {
    /// The Services of the spec, and former ones that still select a revision.
    pub(super) async fn services(
        &self,
        rollout: &Rollout,
        namespace: &str,
    ) -> Result<TrafficObjects, kube::Error> {
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
            let service = match self.watched_service(namespace, name) {
                Some(known) => Some(known),
                None => tried(|| api.get_opt(name)).await?.map(|service| {
                    let cache = &self.caches.written.services;
                    cache.reaches(&rollout.uid().unwrap_or_default(), &service.metadata);
                    Selection::from(service)
                }),
            };
            Ok::<_, kube::Error>((name.clone(), service))
        });
        let mut objects = TrafficObjects::default();
        for (name, service) in futures::future::try_join_all(services).await? {
            let Selection { service, writer } = service.unwrap_or_default();
            if named.contains(&name) {
                let writer = writer.map(|it| (name.clone(), it));
                objects.selected_by.extend(writer);
                objects.services.insert(name, service);
                continue;
            }
            let former = service.filter(|it| it.selector.contains_key(HASH_LABEL));
            let former = former.map(|it| (name, it));
            objects.former_services.extend(former);
        }
        Ok(objects)
    }

    /// The Service as its watch has reported it; `None` if it has to be read, as one that does not exist.
    fn watched_service(&self, namespace: &str, name: &str) -> Option<Selection> {
        if !self.from_watches {
            return None;
        }
        let json = self.caches.written.services.get(namespace, name)?;
        serde_json::from_str(&json).ok()
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
        // An edit that the watch has not reported yet claims what the Rollout names now.
        let is_edited = own.metadata.generation != rollout.metadata.generation;
        let edited = is_edited.then(|| claim_of(rollout)).flatten();
        let own = edited.as_ref().unwrap_or(&own);
        let earlier = self.earlier_claims(&name, namespace);
        let conflicts = earlier.iter().filter_map(|other| own.conflict(other));
        let mut conflicts: Vec<_> = conflicts.collect();
        conflicts.sort();
        conflicts
    }
}

/// What a Rollout claims as it is stored: with the selector and the template of an adopted workload it is observed, and not stored.
fn claim_of(rollout: &Rollout) -> Option<Claim> {
    let mut json = serde_json::to_value(rollout).ok()?;
    if rollout.spec.workload_ref.is_some() {
        let spec = json.get_mut("spec")?.as_object_mut()?;
        spec.remove("selector");
        spec.remove("template");
    }
    serde_json::from_value(json).ok()
}
