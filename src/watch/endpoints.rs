//! EndpointSlices as they are watched, of which the names of the ready pods are kept.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::runtime::watcher;
use serde::Deserialize;
use serde_json::Value;

use crate::watch::cache::Cached;
use crate::watch::claim::Claim;
use crate::watch::hashing::hash;
use crate::watch::of_service::OfService;
use crate::watch::task::{LARGE, config};

/// Label of an `EndpointSlice` with the name of its Service.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// The ready pods of an `EndpointSlice`.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "EndpointSlice")]
#[serde(from = "EndpointSlice")]
pub struct ReadyPods {
    metadata: ObjectMeta,
    /// Their names, sorted.
    pub names: Vec<String>,
}

impl From<EndpointSlice> for ReadyPods {
    fn from(slice: EndpointSlice) -> Self {
        let endpoints = slice.endpoints.into_iter().flatten();
        let ready = endpoints.filter(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.is_none_or(|it| it.ready.unwrap_or(true))
        });
        let names = ready.filter_map(|endpoint| endpoint.target_ref?.name);
        let mut names: Vec<_> = names.collect();
        // The order of endpoints says nothing.
        names.sort_unstable();
        Self {
            metadata: slice.metadata,
            names,
        }
    }
}

impl Cached for ReadyPods {
    /// The names alone.
    fn prune(slice: Value) -> Value {
        let pods = serde_json::from_value::<Self>(slice);
        pods.map(|it| Value::from(it.names)).unwrap_or_default()
    }

    fn of(&self) -> Option<String> {
        self.named_service().map(ToOwned::to_owned)
    }
}

impl ReadyPods {
    /// The name of their Service.
    #[must_use]
    pub fn named_service(&self) -> Option<&str> {
        let labels = self.metadata.labels.as_ref()?;
        labels.get(SERVICE_LABEL).map(String::as_str)
    }
}

impl OfService for ReadyPods {
    const KIND: &str = "EndpointSlice";

    fn config() -> watcher::Config {
        config(LARGE).labels(SERVICE_LABEL)
    }

    fn version(&self) -> u64 {
        hash(&self.names)
    }

    fn service(&self) -> &str {
        self.named_service().unwrap_or_default()
    }

    /// At rest no decision depends on endpoints.
    fn concerns(claim: &Claim) -> bool {
        claim.is_changing()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::watch::cache::{Cache, Kept};
    use crate::watch::objects::Objects;
    use crate::watch::of_service::triggers;
    use crate::watch::trigger::Trigger;

    /// A slice of Service `web` with these pods, of which those that end in `!` are not ready.
    fn slice(uid: &str, pods: &[&str]) -> Value {
        let endpoints = pods.iter().map(|pod| {
            json!({
                "addresses": ["10.0.0.1"], "conditions": { "ready": !pod.ends_with('!') },
                "targetRef": { "kind": "Pod", "name": pod.trim_end_matches('!') },
            })
        });
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": uid, "namespace": "shop", "uid": uid, "resourceVersion": "1",
                "labels": { SERVICE_LABEL: "web" },
            },
            "endpoints": endpoints.collect::<Vec<_>>(), "ports": [{ "port": 8080 }],
        })
    }

    #[test]
    fn of_a_slice_the_names_of_its_ready_pods_are_kept() {
        assert_eq!(
            ReadyPods::prune(slice("1", &["b", "c!", "a"])),
            json!(["a", "b"])
        );
        let mut undecided = slice("1", &["a"]);
        undecided["endpoints"][0]["conditions"] = json!({ "ready": null });
        let why = "it is to be interpreted as ready";
        assert_eq!(ReadyPods::prune(undecided), json!(["a"]), "{why}");
        let mut empty = slice("1", &[]);
        empty["endpoints"] = Value::Null;
        assert_eq!(ReadyPods::prune(empty.clone()), json!([]));
        let empty: Kept<ReadyPods> = serde_json::from_value(empty).unwrap();
        assert_eq!(empty.meta().uid.as_deref(), Some("1"));
        let mut foreign = slice("1", &["a"]);
        foreign["endpoints"][0]["targetRef"] = Value::Null;
        assert_eq!(ReadyPods::prune(foreign), json!([]));
    }

    #[test]
    fn the_slices_of_a_service_are_found_by_its_name() {
        let cache = Cache::opened();
        let listed = |it: Value| watcher::Event::InitApply(serde_json::from_value(it).unwrap());
        let (first, second) = (slice("1", &["a"]), slice("2", &["b"]));
        let events = [watcher::Event::Init, listed(first), listed(second)];
        for event in events {
            assert_eq!(cache.of_service("shop", "web"), None, "it is not listed");
            cache.take::<ReadyPods>(Ok(event)).unwrap();
        }
        let done = Ok(watcher::Event::InitDone);
        cache.take::<ReadyPods>(done).unwrap();
        let kept = cache.of_service("shop", "web").unwrap().into_iter();
        let kept = kept.map(|json| json.to_string());
        assert_eq!(kept.collect::<Vec<_>>(), [r#"["a"]"#, r#"["b"]"#]);
        assert_eq!(cache.of_service("shop", "other"), Some(Vec::new()));
        assert_eq!(cache.of_service("bank", "web"), Some(Vec::new()));
    }

    /// A Rollout that names a Service.
    fn claim(name: &str, service: &str, status: &Value) -> Claim {
        serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": "shop", "uid": name },
            "spec": { "strategy": { "canary": { "canaryService": service } } },
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn ready_pods_concern_the_rollouts_that_name_their_service_and_have_a_change_under_way() {
        let (claims, mut writer) = kube::runtime::reflector::store();
        let changing = json!({ "change": { "stage": "Stepping" } });
        let over = json!({ "change": { "stage": "Promoted", "outcome": "Promoted" } });
        for (name, service, status) in [
            ("changing", "web", &changing),
            ("over", "web", &over),
            ("idle", "web", &json!({})),
            ("other", "api", &changing),
        ] {
            let claim = claim(name, service, status);
            writer.apply_watcher_event(&watcher::Event::Apply(claim));
        }
        let mut objects = Objects::default();
        let mut on = |event: watcher::Event<ReadyPods>| {
            let triggers = triggers(&mut objects, &claims, event).into_iter();
            let names = triggers.map(|trigger| match trigger {
                Trigger::Related(rollout) => rollout.name,
                other => format!("{other:?}"),
            });
            names.collect::<Vec<_>>()
        };
        let slice = |uid: &str, pods: &[&str]| -> ReadyPods {
            serde_json::from_value(slice(uid, pods)).unwrap()
        };
        let first = slice("1", &["a", "b!"]);
        assert_eq!(on(watcher::Event::Init), [""; 0]);
        assert_eq!(on(watcher::Event::InitApply(first)), [""; 0]);
        assert_eq!(on(watcher::Event::InitDone), [""; 0]);
        let same = slice("1", &["b!", "a", "c!"]);
        assert_eq!(on(watcher::Event::Apply(same)), [""; 0], "none is ready");
        let ready = slice("1", &["a", "b"]);
        assert_eq!(on(watcher::Event::Apply(ready.clone())), ["changing"]);
        let another = slice("2", &["c"]);
        assert_eq!(on(watcher::Event::Apply(another.clone())), ["changing"]);
        assert_eq!(on(watcher::Event::Delete(another)), ["changing"]);
        // The watch was away.
        assert_eq!(on(watcher::Event::Init), [""; 0]);
        let made = slice("3", &["d"]);
        assert_eq!(on(watcher::Event::InitApply(made)), ["changing"]);
        assert_eq!(on(watcher::Event::InitApply(ready)), [""; 0]);
        assert_eq!(on(watcher::Event::InitDone), [""; 0]);
        assert_eq!(on(watcher::Event::Init), [""; 0]);
        let gone = on(watcher::Event::InitDone);
        assert_eq!(gone, ["changing"]);
    }
}
