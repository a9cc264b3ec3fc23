//! The watches on SignOffs and Interventions, and for which attempts there are any.

use std::borrow::Cow;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Client, Resource};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::telemetry::Telemetry;
use crate::watch::cache::{Cache, Cached, attempt};
use crate::watch::claim::Claim;
use crate::watch::hashing::hash;
use crate::watch::objects::{News, Objects, Seen, among, object, subject_of};
use crate::watch::task::{SMALL, config, kept, run};
use crate::watch::trigger::Trigger;

/// A SignOff or an Intervention.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound = "")]
pub(super) struct Request<K> {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(flatten)]
    data: Value,
    #[serde(skip)]
    kind: PhantomData<fn() -> K>,
}

impl<K: Resource> Resource for Request<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(kind)
    }

    fn group(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::group(kind)
    }

    fn version(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::version(kind)
    }

    fn plural(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(kind)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl<K> Cached for Request<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + 'static,
{
    /// What somebody has said is read; here it is enough that somebody has.
    fn prune(_: Value) -> Value {
        Value::Null
    }

    fn of(&self) -> Option<String> {
        Some(attempt(self.field("rolloutUid")?, self.field("run")?))
    }
}

impl<K> Request<K> {
    fn field(&self, name: &str) -> Option<&str> {
        self.data.get("spec")?.get(name)?.as_str()
    }

    fn rollout(&self) -> Option<ObjectRef<Claim>> {
        let namespace = self.metadata.namespace.as_deref()?;
        Some(ObjectRef::new(self.field("rollout")?).within(namespace))
    }

    fn is_processed(&self) -> bool {
        self.data.pointer("/status/conditions/0").is_some()
    }
}

/// Watches SignOffs or Interventions. Events of processed ones are the controller's own writes.
pub(super) fn watch_requests<K>(
    kind: &'static str,
    client: &Client,
    telemetry: &Arc<Telemetry>,
    claims: &Store<Claim>,
    send: mpsc::UnboundedSender<Trigger>,
) -> Cache
where
    K: Resource<DynamicType = ()> + Clone + Debug + 'static,
{
    let cache = Cache::opened();
    let events = kept::<Request<K>>(client, config(SMALL), &cache);
    let (mut objects, claims) = (Objects::default(), claims.clone());
    run(
        kind,
        telemetry,
        events,
        move |event| triggers(&mut objects, &claims, event),
        send,
    );
    cache
}

fn triggers<K: Resource>(
    objects: &mut Objects,
    claims: &Store<Claim>,
    event: watcher::Event<Request<K>>,
) -> Vec<Trigger> {
    let news = objects.news(&event, |it| Seen {
        version: hash(&it.metadata.resource_version),
        subject: it.rollout().map_or(0, |rollout| subject_of(&rollout)),
    });
    let deleted = matches!(event, watcher::Event::Delete(_));
    match (news, object(event)) {
        (News::New | News::Changed, Some(it)) if deleted || !it.is_processed() => {
            it.rollout().map(Trigger::Related).into_iter().collect()
        }
        (News::Gone(rollouts), _) => among(claims, &rollouts),
        _ => Vec::new(),
    }
}
