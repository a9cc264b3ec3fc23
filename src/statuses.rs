//! The statuses of RolloutPolicies, Freezes and AnalysisTemplates. No decision depends on them.
//!
//! The leader writes one when the spec, the number of Rollouts or the time has changed it. It works from its
//! caches: it reads nothing for a status, and while nothing changes it writes none. See decision 030.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_api::freeze::FreezeStatus;
use countersign_api::policy::{RolloutPolicySpec, RolloutPolicyStatus};
use countersign_api::template::AnalysisTemplateStatus;
use countersign_api::{AnalysisTemplate, Freeze, MANAGER, RolloutPolicy};
use countersign_core::acceptance::{self, Subject};
use countersign_core::policy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, ObjectMeta, Status};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;

use crate::act::Actor;
use crate::api_server::sentence;
use crate::clock;
use crate::timing::{STATUS_COUNT_INTERVAL, STATUS_RECHECK, STATUS_RETRY, STATUS_SETTLE};
use crate::watch::Caches;

/// Keeps the statuses up to date, and never ends.
pub async fn keep(actor: &Actor, caches: &Caches, governing: &watch::Sender<()>) {
    let mut policies = Statuses::of::<RolloutPolicy>("rolloutpolicies/status");
    let mut freezes = Statuses::of::<Freeze>("freezes/status");
    let mut templates = Statuses::of::<AnalysisTemplate>("analysistemplates/status");
    // However many templates a tenant writes, no policy and no Freeze waits for them.
    tokio::join!(
        repeat(governing, async |now| {
            write_policies(&mut policies, actor, caches, now).await
        }),
        repeat(governing, async |now| {
            write_freezes(&mut freezes, actor, caches, now).await
        }),
        repeat(governing, async |now| {
            write_templates(&mut templates, actor, caches, now).await
        }),
    );
}

/// Writes the statuses of one kind after each change, and after the time that `write` returns.
async fn repeat(governing: &watch::Sender<()>, mut write: impl AsyncFnMut(Timestamp) -> Duration) {
    let mut changes = governing.subscribe();
    loop {
        let next = write(clock::now()).await;
        tokio::select! {
            _ = changes.changed() => {}
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
    let mut next = STATUS_RECHECK;
    for policy in statuses.reported(&caches.policies) {
        let before = statuses.present(&policy.metadata, policy.status.as_ref());
        let spec = policy.spec.as_ref();
        let governs = spec.map_or(0, |spec| governed(spec, caches));
        let subject = subject(&policy.metadata, &before.conditions, now);
        let status = acceptance::policy::status(&policy.spec, governs, subject);
        let counted = RolloutPolicyStatus {
            governs: status.governs,
            ..before.clone()
        };
        let change = Change::of(&before, &counted, &status);
        let due = statuses.update(actor, &policy.metadata, status, change);
        next = next.min(due.await);
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
    let mut next = STATUS_RECHECK;
    for freeze in statuses.reported(&caches.freezes) {
        if let Some(at) = acceptance::freeze::changes_at(&freeze.spec, now) {
            let wait = Duration::try_from(at.duration_since(now));
            next = next.min(wait.unwrap_or_default());
        }
        let before = statuses.present(&freeze.metadata, freeze.status.as_ref());
        let subject = subject(&freeze.metadata, &before.conditions, now);
        let status = acceptance::freeze::status(&freeze.spec, subject);
        let change = Change::of(&before, &before, &status);
        let due = statuses.update(actor, &freeze.metadata, status, change);
        next = next.min(due.await);
    }
    next
}

/// Writes the statuses of AnalysisTemplates that have changed, and returns when to write those that wait.
async fn write_templates(
    statuses: &mut Statuses<AnalysisTemplateStatus>,
    actor: &Actor,
    caches: &Caches,
    now: Timestamp,
) -> Duration {
    let uses = uses(caches);
    let mut next = STATUS_RECHECK;
    for template in statuses.reported(&caches.templates) {
        let before = statuses.present(&template.metadata, template.status.as_ref());
        let used_by = uses.get(&(template.namespace(), template.name_any()));
        let subject = subject(&template.metadata, &before.conditions, now);
        let used_by = used_by.copied().unwrap_or_default();
        let status = acceptance::template::status(&template.acceptance, used_by, subject);
        let counted = AnalysisTemplateStatus {
            used_by: status.used_by,
            ..before.clone()
        };
        let change = Change::of(&before, &counted, &status);
        let due = statuses.update(actor, &template.metadata, status, change);
        next = next.min(due.await);
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

/// The number of Rollouts that use an AnalysisTemplate, by its namespace and name.
fn uses(caches: &Caches) -> BTreeMap<(Option<String>, String), usize> {
    let mut uses = BTreeMap::new();
    for claim in caches.claims.state() {
        for name in claim.templates() {
            *uses.entry((claim.namespace(), name.clone())).or_default() += 1;
        }
    }
    uses
}

fn subject<'a>(metadata: &ObjectMeta, conditions: &'a [Condition], now: Timestamp) -> Subject<'a> {
    Subject {
        conditions,
        generation: metadata.generation.unwrap_or_default(),
        now,
    }
}

/// What of a status has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Nothing,
    /// The number of Rollouts alone.
    Count,
    Other,
}

impl Change {
    /// What has changed from `before`, which is `counted` with the new number of Rollouts.
    fn of<S: PartialEq>(before: &S, counted: &S, status: &S) -> Self {
        if status == before {
            Self::Nothing
        } else if status == counted {
            Self::Count
        } else {
            Self::Other
        }
    }
}

/// The statuses of one kind that this leader has written.
struct Statuses<S> {
    kind: ApiResource,
    /// The resource by which RBAC and the metrics name the status.
    resource: &'static str,
    /// By namespace and name, until the watch has reported them.
    written: BTreeMap<Key, Written<S>>,
    /// When the API server last failed, or refused what it may refuse of any object, and of which one: then one request is
    /// repeated, however many objects there are.
    refused: Option<(Instant, Key)>,
}

/// Namespace and name.
type Key = (Option<String>, String);

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
            refused: None,
        }
    }

    /// The objects of a cache, first those after the one that was refused, which would else keep the others from being
    /// written. What the cache has in a newer version is forgotten, unless it was written a moment ago, and what is gone.
    fn reported<K>(&mut self, cache: &Store<K>) -> Vec<Arc<K>>
    where
        K: Resource<DynamicType = ()> + Clone + 'static,
    {
        self.written.retain(|(namespace, name), written| {
            let mut object = ObjectRef::<K>::new(name);
            object.namespace.clone_from(namespace);
            cache.get(&object).is_some_and(|it| {
                let recent = written.at.elapsed() < STATUS_COUNT_INTERVAL;
                recent || it.meta().resource_version == written.over
            })
        });
        let mut all = cache.state();
        let refused = self.refused.as_ref().map(|(_, refused)| refused);
        let refused = all.iter().position(|it| Some(&key(it.meta())) == refused);
        all.rotate_left(refused.map_or(0, |at| at.saturating_add(1)));
        all
    }

    /// The status that an object has: what was written last, as long as the cache has the version before.
    fn present(&self, object: &ObjectMeta, cached: Option<&S>) -> S {
        let written = self.written.get(&key(object));
        let newer = written.filter(|it| it.over == object.resource_version);
        let present = newer.map(|it| &it.status).or(cached);
        present.cloned().unwrap_or_default()
    }

    /// Writes a status that has changed, and returns after what time to check it again.
    async fn update(
        &mut self,
        actor: &Actor,
        object: &ObjectMeta,
        status: S,
        change: Change,
    ) -> Duration {
        let wait = match change {
            Change::Nothing => return STATUS_RECHECK,
            Change::Count => self.pause().max(self.count_due_in(object)),
            Change::Other => self.pause(),
        };
        if wait.is_zero() {
            self.write(actor, object, status).await
        } else {
            wait
        }
    }

    /// How long a status of which the count alone has changed is not written yet.
    fn count_due_in(&self, object: &ObjectMeta) -> Duration {
        let written = self.written.get(&key(object));
        written.map_or(Duration::ZERO, |it| {
            STATUS_COUNT_INTERVAL.saturating_sub(it.at.elapsed())
        })
    }

    /// How long none is written yet.
    fn pause(&self) -> Duration {
        self.refused.as_ref().map_or(Duration::ZERO, |(at, _)| {
            STATUS_RETRY.saturating_sub(at.elapsed())
        })
    }

    /// Writes a status, if this replica leads, and returns after what time to check it again.
    async fn write(&mut self, actor: &Actor, object: &ObjectMeta, status: S) -> Duration {
        if actor.lease.check().is_err() {
            return STATUS_RETRY;
        }
        let (namespace, name) = key(object);
        // The uid limits the write to the observed object, not a later one of the same name.
        let body = json!({
            "apiVersion": self.kind.api_version, "kind": self.kind.kind,
            "metadata": { "name": name, "uid": object.uid }, "status": status,
        });
        let client = actor.client.clone();
        let api: Api<DynamicObject> = match &namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &self.kind),
            None => Api::all_with(client, &self.kind),
        };
        let (parameters, patch) = (PatchParams::apply(MANAGER).force(), Patch::Apply(body));
        let done = api.patch_status(&name, &parameters, &patch).await;
        actor
            .telemetry
            .api_write("patch", self.resource, done.is_ok());
        let Err(error) = done else {
            let written = Written {
                over: object.resource_version.clone(),
                status,
                at: Instant::now(),
            };
            self.written.insert((namespace, name), written);
            return STATUS_RECHECK;
        };
        // A definition without statuses answers as if there were no object.
        let of_one = |it: &Status| it.is_conflict() || it.is_invalid();
        if !matches!(&error, kube::Error::Api(refusal) if of_one(refusal)) {
            self.refused = Some((Instant::now(), key(object)));
        }
        // The watch reports its deletion.
        let of_deleted = |it: &Status| it.is_conflict() || it.is_not_found();
        if !matches!(&error, kube::Error::Api(refusal) if of_deleted(refusal)) {
            let kind = &self.kind.kind;
            tracing::warn!(%kind, %name, error = %sentence(&error), "a status was not written");
        }
        STATUS_RETRY
    }
}

/// Namespace and name of an object.
fn key(object: &ObjectMeta) -> Key {
    let name = object.name.clone();
    (object.namespace.clone(), name.unwrap_or_default())
}

#[cfg(test)]
mod tests;
