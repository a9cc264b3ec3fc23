//! The watch on Services, of which what decisions need is kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_core::field_managers;
use countersign_core::observation::workload::Service;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Service as ApiService;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::telemetry::Telemetry;
use crate::watch::cache::{Cache, Cached, Kept};
use crate::watch::changes::hash;
use crate::watch::claim::Claim;
use crate::watch::objects::{News, Objects, Seen, object, subject};
use crate::watch::task::{SMALL, config, run};
use crate::watch::trigger::{Trigger, related};

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

impl WatchedService {
    fn subject(&self) -> u64 {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        subject(self.metadata.namespace.as_deref(), name)
    }
}

/// Watches Services. One whose selector changes concerns the Rollouts that name it.
pub(super) fn watch_services(
    client: &Client,
    telemetry: &Arc<Telemetry>,
    claims: &Store<Claim>,
    send: mpsc::UnboundedSender<Trigger>,
) -> Cache {
    // What other leaders have written is read before a write, as everything is.
    let cache = Cache::opened();
    let kept = cache.clone();
    let events = watcher(
        Api::<Kept<WatchedService>>::all(client.clone()),
        config(SMALL),
    );
    let events = events.map(move |event| kept.take(event));
    let (mut objects, claims) = (Objects::default(), claims.clone());
    let triggers = move |event| triggers(&mut objects, &claims, event);
    run("Service", telemetry, events, triggers, send);
    cache
}

fn triggers(
    objects: &mut Objects,
    claims: &Store<Claim>,
    event: watcher::Event<WatchedService>,
) -> Vec<Trigger> {
    // The first list is news of nothing: all Rollouts are reconciled at the start anyway.
    let is_first_list = !objects.is_listed();
    let news = objects.news(&event, |it| Seen {
        version: hash(&it.spec.selector),
        subject: it.subject(),
    });
    match (news, object(event)) {
        (News::New, Some(_)) if is_first_list => Vec::new(),
        (News::New | News::Changed, Some(it)) => naming(claims, |named| named == it.subject()),
        (News::Gone(services), _) => naming(claims, |named| services.contains(&named)),
        _ => Vec::new(),
    }
}

/// Triggers the Rollouts that name such a Service.
fn naming(claims: &Store<Claim>, such: impl Fn(u64) -> bool) -> Vec<Trigger> {
    related(claims, |claim| {
        let namespace = claim.metadata.namespace.as_deref();
        claim.services().any(|name| such(subject(namespace, name)))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
