//! The statuses of RolloutPolicies and Freezes. No decision depends on them.
//!
//! The leader writes one when the spec, the number of governed Rollouts or the time has changed it. It works
//! from its caches: it reads nothing for a status, and while nothing changes it writes none. See decision 030.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use countersign_api::freeze::FreezeStatus;
use countersign_api::policy::{RolloutPolicySpec, RolloutPolicyStatus};
use countersign_api::{Freeze, MANAGER, RolloutPolicy};
use countersign_core::acceptance::{self, Subject};
use countersign_core::policy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, ObjectMeta};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde_json::json;
use tokio::sync::Notify;

use crate::act::Actor;
use crate::api_server::sentence;
use crate::clock;
use crate::timing::{STATUS_COUNT_INTERVAL, STATUS_RECHECK, STATUS_RETRY, STATUS_SETTLE};
use crate::watch::Caches;

/// Keeps the statuses up to date, and never ends.
pub async fn keep(actor: &Actor, caches: &Caches, governing: &Notify) {
    let mut policies = Statuses::of::<RolloutPolicy>("rolloutpolicies/status");
    let mut freezes = Statuses::of::<Freeze>("freezes/status");
    loop {
        let now = clock::now();
        let next = write_policies(&mut policies, actor, caches, now).await;
        let next = next.min(write_freezes(&mut freezes, actor, caches, now).await);
        tokio::select! {
            () = governing.notified() => {}
            () = tokio::time::sleep(next) => {}
        }
        // Rollouts that are created together are counted together.
        tokio::time::sleep(STATUS_SETTLE).await;
    }
}

/// Writes the statuses of policies that have changed, and returns when one may change by time alone.
async fn write_policies(
    statuses: &mut Statuses<RolloutPolicyStatus>,
    actor: &Actor,
    caches: &Caches,
    now: Timestamp,
) -> Duration {
    let policies = caches.policies.state();
    statuses.keep_only(&policies.iter().map(|it| it.name_any()).collect());
    let mut next = STATUS_RECHECK;
    for policy in policies {
        let before = statuses.present(&policy.metadata, policy.status.as_ref());
        let spec = policy.spec.as_ref();
        let governs = spec.map_or(0, |spec| governed(spec, caches));
        let subject = subject(&policy.metadata, &before.conditions, now);
        let status = acceptance::policy::status(&policy.spec, governs, subject);
        let counted = RolloutPolicyStatus {
            governs: status.governs,
            ..before.clone()
        };
        if status == before {
            continue;
        }
        let wait = if status == counted {
            statuses.count_due_in(&policy.name_any())
        } else {
            Duration::ZERO
        };
        next = next.min(if wait.is_zero() {
            statuses.write(actor, &policy.metadata, status).await
        } else {
            wait
        });
    }
    next
}

/// Writes the statuses of Freezes that have changed, and returns when one may change by time alone.
async fn write_freezes(
    statuses: &mut Statuses<FreezeStatus>,
    actor: &Actor,
    caches: &Caches,
    now: Timestamp,
) -> Duration {
    let freezes = caches.freezes.state();
    statuses.keep_only(&freezes.iter().map(|it| it.name_any()).collect());
    let mut next = STATUS_RECHECK;
    for freeze in freezes {
        if let Some(at) = acceptance::freeze::changes_at(&freeze.spec, now) {
            let wait = Duration::try_from(at.duration_since(now));
            next = next.min(wait.unwrap_or_default());
        }
        let before = statuses.present(&freeze.metadata, freeze.status.as_ref());
        let subject = subject(&freeze.metadata, &before.conditions, now);
        let status = acceptance::freeze::status(&freeze.spec, subject);
        if status != before {
            next = next.min(statuses.write(actor, &freeze.metadata, status).await);
        }
    }
    next
}

/// The number of Rollouts that a policy governs.
fn governed(spec: &RolloutPolicySpec, caches: &Caches) -> usize {
    let none = BTreeMap::new();
    let claims = caches.claims.state();
    let governed = claims.iter().filter(|claim| {
        let namespace = claim.namespace().unwrap_or_default();
        let namespace = caches.namespaces.get(&ObjectRef::new(&namespace));
        let labels = namespace.as_ref().map_or(&none, |it| it.labels());
        policy::governs(spec, labels, claim.labels())
    });
    governed.count()
}

fn subject<'a>(metadata: &ObjectMeta, conditions: &'a [Condition], now: Timestamp) -> Subject<'a> {
    Subject {
        conditions,
        generation: metadata.generation.unwrap_or_default(),
        now,
    }
}

/// The statuses of one kind that this leader has written, by the name of the object.
struct Statuses<S> {
    kind: ApiResource,
    /// The resource by which RBAC and the metrics name the status.
    resource: &'static str,
    written: BTreeMap<String, Written<S>>,
}

/// A status that was written.
struct Written<S> {
    /// The version of the object that it was written over.
    over: Option<String>,
    status: S,
    at: Instant,
}

impl<S: Clone + Default + Serialize> Statuses<S> {
    fn of<K: Resource<DynamicType = ()>>(resource: &'static str) -> Self {
        Self {
            kind: ApiResource::erase::<K>(&()),
            resource,
            written: BTreeMap::new(),
        }
    }

    fn keep_only(&mut self, names: &BTreeSet<String>) {
        self.written.retain(|name, _| names.contains(name));
    }

    /// The status that an object has: what was written last, as long as the cache has the version before.
    fn present(&self, object: &ObjectMeta, cached: Option<&S>) -> S {
        let name = object.name.as_ref();
        let written = name.and_then(|name| self.written.get(name));
        let newer = written.filter(|it| it.over == object.resource_version);
        let present = newer.map(|it| &it.status).or(cached);
        present.cloned().unwrap_or_default()
    }

    /// How long a status of which the count alone has changed is not written yet.
    fn count_due_in(&self, name: &str) -> Duration {
        let written = self.written.get(name);
        written.map_or(Duration::ZERO, |it| {
            STATUS_COUNT_INTERVAL.saturating_sub(it.at.elapsed())
        })
    }

    /// Writes a status, if this replica leads, and returns after what time to check it again.
    async fn write(&mut self, actor: &Actor, object: &ObjectMeta, status: S) -> Duration {
        let name = object.name.clone().unwrap_or_default();
        if actor.lease.check().is_err() {
            return STATUS_RETRY;
        }
        // The uid limits the write to the observed object, not a later one of the same name.
        let body = json!({
            "apiVersion": self.kind.api_version, "kind": self.kind.kind,
            "metadata": { "name": name, "uid": object.uid }, "status": status,
        });
        let api: Api<DynamicObject> = Api::all_with(actor.client.clone(), &self.kind);
        let (parameters, patch) = (PatchParams::apply(MANAGER).force(), Patch::Apply(body));
        let done = api.patch_status(&name, &parameters, &patch).await;
        actor
            .telemetry
            .api_write("patch", self.resource, done.is_ok());
        match done {
            Ok(_) => {
                let written = Written {
                    over: object.resource_version.clone(),
                    status,
                    at: Instant::now(),
                };
                self.written.insert(name, written);
                STATUS_RECHECK
            }
            // It was deleted, and the watch reports that.
            Err(kube::Error::Api(refusal)) if refusal.is_not_found() || refusal.is_conflict() => {
                STATUS_RETRY
            }
            Err(error) => {
                let kind = &self.kind.kind;
                tracing::warn!(%kind, %name, error = %sentence(&error), "a status was not written");
                STATUS_RETRY
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kube::runtime::reflector::{self, store::Writer};
    use kube::runtime::watcher::Event;
    use serde_json::Value;

    use super::*;
    use crate::act::events::Recorder;
    use crate::lease::Lease;
    use crate::stand_in::{Fault, StandIn};
    use crate::telemetry::Telemetry;
    use crate::watch::{Claim, WatchedFreeze, WatchedPolicy};

    const ROOT: &str = "/apis/countersign.dev/v1alpha1";

    /// A leader without watches, and its API server.
    struct Scene {
        server: StandIn,
        actor: Actor,
        caches: Caches,
        claims: Writer<Claim>,
        policies: Writer<WatchedPolicy>,
        freezes: Writer<WatchedFreeze>,
        of_policies: Statuses<RolloutPolicyStatus>,
        of_freezes: Statuses<FreezeStatus>,
    }

    impl Scene {
        fn new() -> Self {
            let server = StandIn::new();
            let client = server.client();
            let lease = Arc::new(Lease::held(client.clone()));
            let telemetry = Arc::new(Telemetry::new());
            let (recorder, _) =
                Recorder::start(client.clone(), "test", lease.clone(), telemetry.clone());
            let (claims_store, claims) = reflector::store();
            let (policies_store, policies) = reflector::store();
            let (freezes_store, freezes) = reflector::store();
            let (namespaces, mut namespace) = reflector::store();
            for (name, team) in [("shop", "a"), ("bank", "b")] {
                let object = json!({
                    "apiVersion": "v1", "kind": "Namespace",
                    "metadata": { "name": name, "labels": { "team": team } },
                });
                let object = serde_json::from_value(object).unwrap();
                namespace.apply_watcher_event(&Event::Apply(object));
            }
            Self {
                server,
                actor: Actor {
                    client,
                    lease,
                    telemetry,
                    recorder,
                },
                caches: Caches {
                    claims: claims_store,
                    policies: policies_store,
                    freezes: freezes_store,
                    namespaces,
                    gaps: Default::default(),
                },
                claims,
                policies,
                freezes,
                of_policies: Statuses::of::<RolloutPolicy>("rolloutpolicies/status"),
                of_freezes: Statuses::of::<Freeze>("freezes/status"),
            }
        }

        /// Creates or edits an object, which the watch reports.
        fn put(&mut self, plural: &str, kind: &str, generation: i64, spec: &Value) {
            let path = format!("{ROOT}/{plural}/one");
            let mut object = self.server.get(&path).unwrap_or_else(|| {
                json!({
                    "apiVersion": "countersign.dev/v1alpha1", "kind": kind,
                    "metadata": { "name": "one" },
                })
            });
            object["metadata"]["generation"] = generation.into();
            object["spec"] = spec.clone();
            self.server.put(&path, object);
            self.watch();
        }

        /// Brings the caches up to date.
        fn watch(&mut self) {
            let get = |plural: &str| self.server.get(&format!("{ROOT}/{plural}/one"));
            if let Some(policy) = get("rolloutpolicies") {
                let policy = serde_json::from_value(policy).unwrap();
                self.policies.apply_watcher_event(&Event::Apply(policy));
            }
            if let Some(freeze) = get("freezes") {
                let freeze = serde_json::from_value(freeze).unwrap();
                self.freezes.apply_watcher_event(&Event::Apply(freeze));
            }
        }

        fn rollout(&mut self, namespace: &str, name: &str) {
            let metadata = json!({ "name": name, "namespace": namespace, "uid": name });
            let claim = serde_json::from_value(json!({ "metadata": metadata })).unwrap();
            self.claims.apply_watcher_event(&Event::Apply(claim));
        }

        /// One round at a time: when the next is due, and the number of its requests.
        async fn round(&mut self, now: &str) -> (Duration, usize) {
            let now = now.parse().unwrap();
            let (actor, caches) = (&self.actor, &self.caches);
            let policies = write_policies(&mut self.of_policies, actor, caches, now).await;
            let freezes = write_freezes(&mut self.of_freezes, actor, caches, now).await;
            (policies.min(freezes), self.server.requests().len())
        }

        fn status(&self, plural: &str) -> Value {
            let path = format!("{ROOT}/{plural}/one");
            self.server.get(&path).unwrap()["status"].clone()
        }
    }

    const NOW: &str = "2026-12-24T17:00:00Z";

    #[tokio::test]
    async fn a_status_is_written_once_and_again_when_the_spec_changes() {
        let mut scene = Scene::new();
        assert_eq!(scene.round(NOW).await, (STATUS_RECHECK, 0));
        scene.rollout("shop", "web");
        scene.rollout("bank", "api");
        scene.put("rolloutpolicies", "RolloutPolicy", 1, &json!({}));
        assert_eq!(scene.round(NOW).await, (STATUS_RECHECK, 1));
        let status = scene.status("rolloutpolicies");
        assert_eq!(
            (&status["observedGeneration"], &status["governs"]),
            (&json!(1), &json!(2))
        );
        assert_eq!(status["conditions"][0]["reason"], "Accepted");
        assert_eq!(scene.round(NOW).await.1, 0, "the watch is behind");
        scene.watch();
        assert_eq!(scene.round(NOW).await, (STATUS_RECHECK, 0));

        let selector = json!({ "namespaceSelector": { "matchLabels": { "team": "b" } } });
        scene.put("rolloutpolicies", "RolloutPolicy", 2, &selector);
        assert_eq!(scene.round(NOW).await.1, 1);
        let status = scene.status("rolloutpolicies");
        assert_eq!(
            (&status["observedGeneration"], &status["governs"]),
            (&json!(2), &json!(1))
        );
    }

    #[tokio::test]
    async fn a_count_alone_is_written_at_most_every_half_minute() {
        let mut scene = Scene::new();
        scene.put("rolloutpolicies", "RolloutPolicy", 1, &json!({}));
        scene.round(NOW).await;
        scene.watch();
        scene.rollout("shop", "web");
        let (next, requests) = scene.round(NOW).await;
        assert_eq!(requests, 0);
        assert!(!next.is_zero() && next <= STATUS_COUNT_INTERVAL, "{next:?}");
        scene.rollout("shop", "api");
        let written = scene.of_policies.written.get_mut("one").unwrap();
        written.at = written.at.checked_sub(STATUS_COUNT_INTERVAL).unwrap();
        assert_eq!(scene.round(NOW).await, (STATUS_RECHECK, 1));
        assert_eq!(scene.status("rolloutpolicies")["governs"], 2);
    }

    #[tokio::test]
    async fn a_policy_that_cannot_be_read_has_a_status_too() {
        let mut scene = Scene::new();
        let newer = json!({ "enforcement": "Foresee" });
        scene.put("rolloutpolicies", "RolloutPolicy", 1, &newer);
        assert_eq!(scene.round(NOW).await.1, 1);
        scene.watch();
        assert_eq!(scene.round(NOW).await.1, 0);
        let status = scene.status("rolloutpolicies");
        assert_eq!(status.get("governs"), None);
        let conditions = status["conditions"].as_array().unwrap();
        let conditions: Vec<_> = conditions
            .iter()
            .map(|it| (&it["type"], &it["status"]))
            .collect();
        let expected = [
            json!("Accepted"),
            json!("False"),
            json!("Stalled"),
            json!("True"),
        ];
        assert_eq!(
            conditions,
            [(&expected[0], &expected[1]), (&expected[2], &expected[3])]
        );
    }

    #[tokio::test]
    async fn a_freeze_is_written_when_it_begins_and_when_it_ends() {
        let mut scene = Scene::new();
        let spec = json!({
            "reason": "a test", "person": { "username": "dave" }, "until": "2026-12-24T17:00:30Z",
        });
        scene.put("freezes", "Freeze", 1, &spec);
        assert_eq!(scene.round(NOW).await, (Duration::from_secs(30), 1));
        let active = |scene: &Scene| scene.status("freezes")["conditions"][1]["status"].clone();
        assert_eq!(active(&scene), "True");
        scene.watch();
        assert_eq!(scene.round(NOW).await, (Duration::from_secs(30), 0));
        assert_eq!(
            scene.round("2026-12-24T17:00:30Z").await,
            (STATUS_RECHECK, 1)
        );
        assert_eq!(active(&scene), "False");
    }

    #[tokio::test]
    async fn a_refused_status_is_written_later() {
        let mut scene = Scene::new();
        scene.put("rolloutpolicies", "RolloutPolicy", 1, &json!({}));
        scene.server.fails(|_| Some(Fault::Refuse(403)));
        assert_eq!(scene.round(NOW).await, (STATUS_RETRY, 1));
        assert_eq!(scene.status("rolloutpolicies"), Value::Null);
        scene.server.fails(|_| None);
        assert_eq!(scene.round(NOW).await, (STATUS_RECHECK, 1));
        assert_eq!(scene.status("rolloutpolicies")["governs"], 0);
    }
}
