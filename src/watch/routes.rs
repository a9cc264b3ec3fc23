//! The watches on routes and DestinationRules, of the kinds that Rollouts name. What a Rollout names or owns is kept, and
//! nothing of any other object.
//!
//! What other leaders have written is in a list that begins after this replica leads, so that all is listed again then, and
//! nothing is answered before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use countersign_api::RouteKind;
use countersign_api::traffic::ISTIO;
use countersign_core::field_managers;
use countersign_core::observation::traffic::RouteObject;
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicObject;
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::api_resource::resource;
use crate::api_server::watch_sentence;
use crate::telemetry::Telemetry;
use crate::timing::ROUTES_INTERVAL;
use crate::watch::cache::{Cache, Cached, Kept};
use crate::watch::claim::{Claim, ClaimRoute};
use crate::watch::hashing::hash;
use crate::watch::objects::{News, Objects, Seen, subject};
use crate::watch::pruned::LAST_APPLIED;
use crate::watch::task::{LARGE, config};
use crate::watch::trigger::{Trigger, related};

/// The kind of Istio's objects whose subsets distinguish the sides of a route.
pub const DESTINATION_RULE: &str = "DestinationRule";
/// Where managed fields name the writers of a spec.
const SPEC: &str = "/f:spec";
/// Where they name those of a DestinationRule's subsets, which are one value.
const SUBSETS: &str = "/f:spec/f:subsets";
/// A route for testers has the name of its route with this suffix.
const TESTERS: &str = "-testers";

/// The caches of routes and DestinationRules, by their kind.
#[derive(Clone, Debug)]
pub struct Routes {
    caches: BTreeMap<&'static str, Cache>,
    /// Whether this replica leads.
    leads: watch::Sender<bool>,
}

impl Default for Routes {
    fn default() -> Self {
        let caches = kinds().map(|(kind, _)| (kind, Cache::default()));
        Self {
            caches: caches.collect(),
            leads: watch::Sender::default(),
        }
    }
}

impl Routes {
    /// The cache of a kind. It answers what it has; what it has not may exist all the same, unless a Rollout owns it.
    #[must_use]
    pub fn of(&self, kind: &str) -> Cache {
        self.caches.get(kind).cloned().unwrap_or_default()
    }

    /// Lists all objects again, which includes what other leaders have written.
    pub(super) fn lead(&self) {
        self.leads.send_replace(true);
    }
}

/// The kinds, and the API versions in which each may be served.
fn kinds() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    let routes = RouteKind::ALL.map(|kind| (kind.as_str(), kind.api_versions()));
    routes.into_iter().chain([(DESTINATION_RULE, ISTIO)])
}

/// An object as it is observed, with the last writer of its spec, or of a DestinationRule's subsets.
#[must_use]
pub fn route_object(mut object: DynamicObject) -> RouteObject {
    let kind = object.types.as_ref().map(|it| it.kind.as_str());
    let field = if kind == Some(DESTINATION_RULE) {
        SUBSETS
    } else {
        SPEC
    };
    let fields = object.metadata.managed_fields.take().unwrap_or_default();
    let last = field_managers::last_writer(&fields, field);
    let last_writer = last.and_then(|it| it.manager.clone());
    if let Some(annotations) = &mut object.metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
    RouteObject {
        object: serde_json::to_value(object).unwrap_or(Value::Null),
        last_writer,
    }
}

/// Routes and DestinationRules are the cached objects whose kinds are known by their names alone.
impl Cached for DynamicObject {
    /// Of one without its kind nothing is kept, so that it is read.
    fn prune(object: Value) -> Value {
        let object = serde_json::from_value::<Self>(object).ok();
        let typed = object.filter(|it| it.types.is_some()).map(route_object);
        let json = typed.and_then(|it| serde_json::to_value(it).ok());
        json.unwrap_or_default()
    }

    /// The Rollout that owns it, as that of a route for testers does.
    fn of(&self) -> Option<String> {
        let mut owners = self.metadata.owner_references.iter().flatten();
        let owner = owners.find(|it| it.controller == Some(true) && it.kind == "Rollout")?;
        Some(owner.uid.clone())
    }
}

/// Watches each kind once a Rollout names an object of it: most clusters have few of the kinds, and a watch on a missing
/// kind only fails.
pub(super) fn watch_routes(
    client: &Client,
    telemetry: &Arc<Telemetry>,
    claims: &Store<Claim>,
    send: &mpsc::UnboundedSender<Trigger>,
) -> Routes {
    let routes = Routes::default();
    for (kind, versions) in kinds() {
        let watch = RouteWatch {
            kind,
            claims: claims.clone(),
            cache: routes.of(kind),
            objects: Objects::default(),
            leads: routes.leads.subscribe(),
            telemetry: telemetry.clone(),
            send: send.clone(),
        };
        tokio::spawn(watch.run(versions, client.clone()));
    }
    routes
}

/// The watch on one kind.
struct RouteWatch {
    kind: &'static str,
    claims: Store<Claim>,
    cache: Cache,
    objects: Objects,
    leads: watch::Receiver<bool>,
    telemetry: Arc<Telemetry>,
    send: mpsc::UnboundedSender<Trigger>,
}

impl RouteWatch {
    async fn run(mut self, versions: &'static [&'static str], client: Client) {
        let mut logged = false;
        for version in versions.iter().cycle() {
            while self.claims.find(|it| self.names(it, |_| true)).is_none() {
                tokio::time::sleep(ROUTES_INTERVAL).await;
            }
            let leads = *self.leads.borrow_and_update();
            if leads {
                self.cache.open(Instant::now(), 0, Vec::new());
            }
            let resource = resource(version, self.kind);
            let api = Api::<Kept<DynamicObject>>::all_with(client.clone(), &resource);
            let mut events = watcher(api, config(LARGE)).boxed();
            // Runs until the watch fails, since the kind may be served in another version, or not at all; or until this
            // replica leads.
            loop {
                let event = tokio::select! {
                    Ok(()) = self.leads.changed() => break,
                    event = events.next() => event,
                };
                match event {
                    Some(Ok(event)) => {
                        let changed =
                            matches!(event, watcher::Event::Apply(_) | watcher::Event::Delete(_));
                        logged &= !changed;
                        if changed || matches!(event, watcher::Event::InitDone) {
                            self.telemetry.watch_event(self.kind);
                        }
                        for trigger in self.take(event) {
                            // The receiver is dropped only when the process ends.
                            let _ = self.send.send(trigger);
                        }
                    }
                    Some(Err(error)) => {
                        self.telemetry.watch_error(self.kind);
                        // Logged once, since the watch is retried soon. An unserved kind is not logged.
                        if !logged && !is_unserved(&error) {
                            tracing::warn!(kind = self.kind, version, error = %watch_sentence(&error), "watch failed; retrying");
                            logged = true;
                        }
                        break;
                    }
                    None => break,
                }
            }
            // The next watch does not go on where this one ended.
            self.cache.expire();
            tokio::time::sleep(ROUTES_INTERVAL).await;
        }
    }

    /// Keeps what a Rollout names or owns, and triggers the Rollouts that the event concerns.
    fn take(&mut self, mut event: watcher::Event<Kept<DynamicObject>>) -> Vec<Trigger> {
        let mut concerned = Vec::new();
        if let watcher::Event::Apply(it)
        | watcher::Event::InitApply(it)
        | watcher::Event::Delete(it) = &mut event
        {
            concerned = self.naming(it.meta());
            if concerned.is_empty() {
                it.forget();
            }
        }
        let Ok(event) = self.cache.take::<DynamicObject>(Ok(event)) else {
            return Vec::new();
        };
        let news = self.objects.news(&event, |it| Seen {
            version: hash(&it.metadata.resource_version),
            subject: subject_of(&it.metadata),
        });
        match news {
            News::New | News::Changed => concerned,
            // What happened before the watch causes no event.
            News::Listed => related(&self.claims, |it| self.names(it, |_| true)),
            News::Gone(routes) => related(&self.claims, |it| {
                let namespace = it.metadata.namespace.as_deref();
                self.names(it, |name| routes.contains(&subject(namespace, name)))
            }),
            News::Nothing => Vec::new(),
        }
    }

    /// Triggers the Rollouts that name an object, or the route of one for testers.
    fn naming(&self, object: &ObjectMeta) -> Vec<Trigger> {
        let own = object.name.as_deref().unwrap_or_default();
        let tested = own.strip_suffix(TESTERS);
        related(&self.claims, |claim| {
            claim.metadata.namespace == object.namespace
                && self.names(claim, |name| name == own || Some(name) == tested)
        })
    }

    /// Whether a Rollout names such an object of this kind.
    fn names(&self, claim: &Claim, such: impl Fn(&str) -> bool) -> bool {
        let mut names = claim.routes().filter_map(|it| named(it, self.kind));
        names.any(such)
    }
}

/// The object of this kind that a route of a Rollout names.
fn named<'a>(route: &'a ClaimRoute, kind: &str) -> Option<&'a str> {
    if kind == DESTINATION_RULE {
        return route.destination_rule.as_ref().map(|it| it.name.as_str());
    }
    (route.kind == kind).then_some(route.name.as_str())
}

/// The object that a Rollout names; its route of testers has the same name with a suffix.
fn subject_of(object: &ObjectMeta) -> u64 {
    let name = object.name.as_deref().unwrap_or_default();
    let name = name.strip_suffix(TESTERS).unwrap_or(name);
    subject(object.namespace.as_deref(), name)
}

/// Whether a watch fails because its kind is not served in this version.
fn is_unserved(error: &watcher::Error) -> bool {
    // The response for an unserved path has a code, but no reason.
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404)
}

#[cfg(test)]
mod tests;
