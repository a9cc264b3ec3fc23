//! Watches on Services, and on what belongs to one.

use std::sync::Arc;

use kube::Client;
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use tokio::sync::mpsc;

use crate::telemetry::Telemetry;
use crate::watch::cache::{Cache, Cached};
use crate::watch::claim::Claim;
use crate::watch::objects::{News, Objects, Seen, object, subject};
use crate::watch::task::{kept, run};
use crate::watch::trigger::{Trigger, related};

/// A Service, or what belongs to one.
pub(super) trait OfService: Cached<DynamicType = ()> {
    /// The kind, in metrics.
    const KIND: &str;

    /// Which objects are watched.
    fn config() -> watcher::Config;

    /// The hash of what decisions depend on.
    fn version(&self) -> u64;

    /// The name of the Service.
    fn service(&self) -> &str;

    /// Whether a change concerns a Rollout that names the Service.
    fn concerns(claim: &Claim) -> bool;
}

/// Watches a kind of objects. One that changes concerns Rollouts that name its Service.
pub(super) fn watch<K: OfService>(
    client: &Client,
    telemetry: &Arc<Telemetry>,
    claims: &Store<Claim>,
    send: mpsc::UnboundedSender<Trigger>,
) -> Cache {
    // What other leaders have written is read before a write, as everything is.
    let cache = Cache::opened();
    let events = kept::<K>(client, K::config(), &cache);
    let (mut objects, claims) = (Objects::default(), claims.clone());
    let triggers = move |event| triggers(&mut objects, &claims, event);
    run(K::KIND, telemetry, events, triggers, send);
    cache
}

pub(super) fn triggers<K: OfService>(
    objects: &mut Objects,
    claims: &Store<Claim>,
    event: watcher::Event<K>,
) -> Vec<Trigger> {
    // The first list is news of nothing: before it is complete, no decision is made from it.
    let is_listed = objects.is_listed();
    let of = |it: &K| subject(it.meta().namespace.as_deref(), it.service());
    let news = objects.news(&event, |it| Seen {
        version: it.version(),
        subject: of(it),
    });
    match (news, object(event)) {
        (News::New | News::Changed, Some(it)) if is_listed => {
            naming::<K>(claims, |named| named == of(&it))
        }
        (News::Gone(services), _) => naming::<K>(claims, |named| services.contains(&named)),
        _ => Vec::new(),
    }
}

/// Triggers the Rollouts that name such a Service.
fn naming<K: OfService>(claims: &Store<Claim>, such: impl Fn(u64) -> bool) -> Vec<Trigger> {
    related(claims, |claim| {
        let namespace = claim.metadata.namespace.as_deref();
        K::concerns(claim) && claim.services().any(|name| such(subject(namespace, name)))
    })
}
