//! Services as they are watched: what decisions need of them.

use std::collections::BTreeMap;

use countersign_core::field_managers;
use countersign_core::observation::workload::Service;
use k8s_openapi::api::core::v1::Service as ApiService;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::runtime::watcher;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::watch::cache::Cached;
use crate::watch::claim::Claim;
use crate::watch::hashing::hash;
use crate::watch::of_service::OfService;
use crate::watch::task::{SMALL, config};

/// What decisions need of a Service.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Selection {
    /// Its selector, if it has a spec.
    pub service: Option<Service>,
    /// The last writer of the selector, which is one value, unless that is this controller: who writes it takes it
    /// over from all others.
    pub writer: Option<String>,
}

impl From<ApiService> for Selection {
    fn from(service: ApiService) -> Self {
        let fields = service.metadata.managed_fields.as_deref();
        let fields = fields.unwrap_or_default();
        let writer = field_managers::last_writer(fields, "/f:spec/f:selector");
        let writer = writer.and_then(|writer| writer.manager.clone());
        let service = service.spec.map(|spec| Service {
            kind: spec.type_.unwrap_or_default(),
            selector: spec.selector.unwrap_or_default(),
        });
        Self { service, writer }
    }
}

/// A Service as its watch decodes it.
#[derive(Resource, Clone, Debug, Default, Deserialize)]
#[resource(inherit = "ApiService")]
#[serde(default)]
pub(super) struct WatchedService {
    metadata: ObjectMeta,
    spec: WatchedSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct WatchedSpec {
    selector: BTreeMap<String, String>,
}

impl Cached for WatchedService {
    /// One that this build cannot read is read again where it is named, which reports the problem.
    fn prune(service: Value) -> Value {
        let service = serde_json::from_value::<ApiService>(service);
        let selection = service.map(Selection::from).map(serde_json::to_value);
        selection.and_then(|it| it).unwrap_or_default()
    }

    fn of(&self) -> Option<String> {
        None
    }
}

impl OfService for WatchedService {
    const KIND: &str = "Service";

    fn config() -> watcher::Config {
        config(SMALL)
    }

    fn version(&self) -> u64 {
        hash(&self.spec.selector)
    }

    fn service(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn concerns(_: &Claim) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::watch::objects::Objects;
    use crate::watch::of_service::triggers;
    use crate::watch::trigger::Trigger;

    #[test]
    fn the_selector_of_a_service_and_who_else_wrote_it_are_kept() {
        let written = |manager: &str, at: &str| {
            json!({
                "manager": manager, "operation": "Update", "time": at,
                "fieldsV1": { "f:spec": { "f:selector": {} } },
            })
        };
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "web", "managedFields": [
                written("countersign", "2026-01-01T00:00:00Z"), written("kubectl-edit", "2026-01-02T00:00:00Z"),
            ] },
            "spec": { "type": "ClusterIP", "selector": { "app": "web" }, "clusterIP": "10.0.0.1" },
        });
        let kept = json!({
            "service": { "kind": "ClusterIP", "selector": { "app": "web" } },
            "writer": "kubectl-edit",
        });
        assert_eq!(WatchedService::prune(service), kept);
        assert_eq!(WatchedService::prune(json!({ "spec": 1 })), Value::Null);
    }

    #[test]
    fn a_selector_that_changes_concerns_the_rollouts_that_name_its_service() {
        let (claims, mut writer) = kube::runtime::reflector::store();
        for (name, service) in [("web", "web"), ("other", "api")] {
            let claim = json!({
                "metadata": { "name": name, "namespace": "shop", "uid": name },
                "spec": { "strategy": { "canary": { "stableService": service } } },
            });
            let claim: Claim = serde_json::from_value(claim).unwrap();
            writer.apply_watcher_event(&watcher::Event::Apply(claim));
        }
        let service = |hash: &str, status: &str| -> WatchedService {
            serde_json::from_value(json!({
                "metadata": { "name": "web", "namespace": "shop", "uid": "1" },
                "spec": { "selector": { "app": "web", "pod-template-hash": hash } }, "status": status,
            }))
            .unwrap()
        };
        let mut objects = Objects::default();
        let mut on = |event: watcher::Event<WatchedService>| {
            let triggers = triggers(&mut objects, &claims, event).into_iter();
            let names = triggers.map(|trigger| match trigger {
                Trigger::Related(rollout) => rollout.name,
                other => format!("{other:?}"),
            });
            names.collect::<Vec<_>>()
        };
        assert_eq!(on(watcher::Event::Init), [""; 0]);
        assert_eq!(on(watcher::Event::InitApply(service("a", ""))), [""; 0]);
        assert_eq!(on(watcher::Event::InitDone), [""; 0]);
        let balanced = watcher::Event::Apply(service("a", "another address"));
        assert_eq!(on(balanced), [""; 0], "no decision depends on it");
        assert_eq!(on(watcher::Event::Apply(service("b", ""))), ["web"]);
        assert_eq!(on(watcher::Event::Delete(service("b", ""))), ["web"]);
        assert_eq!(on(watcher::Event::Apply(service("b", ""))), ["web"]);
        // It was deleted while the watch was away.
        assert_eq!(on(watcher::Event::Init), [""; 0]);
        assert_eq!(on(watcher::Event::InitDone), ["web"]);
    }
}
