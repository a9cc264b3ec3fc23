//! The watches on routes, of the kinds that Rollouts reference.

use std::sync::Arc;

use countersign_api::RouteKind;
use futures::StreamExt;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::mpsc;

use crate::api_resource::resource;
use crate::api_server::watch_sentence;
use crate::telemetry::Telemetry;
use crate::timing::ROUTES_INTERVAL;
use crate::watch::changes::hash;
use crate::watch::claim::Claim;
use crate::watch::objects::{News, Objects, Seen, subject};
use crate::watch::task::{LARGE, config};
use crate::watch::trigger::{Trigger, related};

/// A route: its metadata alone.
type Route = PartialObjectMeta<DynamicObject>;

/// Watches routes of one kind once a Rollout references one: most clusters have few of the kinds, and a
/// watch on a missing kind only fails.
pub(super) fn watch_routes(
    kind: RouteKind,
    client: &Client,
    telemetry: &Arc<Telemetry>,
    claims: &Store<Claim>,
    send: mpsc::UnboundedSender<Trigger>,
) {
    let (client, telemetry, claims) = (client.clone(), telemetry.clone(), claims.clone());
    tokio::spawn(async move {
        let mut logged = false;
        let mut objects = Objects::default();
        let versions = kind.api_versions().iter().cycle();
        for version in versions {
            while claims.find(|claim| names(claim, kind, |_| true)).is_none() {
                tokio::time::sleep(ROUTES_INTERVAL).await;
            }
            let resource = resource(version, kind.as_str());
            let api = Api::<Route>::all_with(client.clone(), &resource);
            let mut events = watcher(api, config(LARGE)).boxed();
            // Runs until the watch fails: the kind may be served in another version, or not at all.
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        let listed = matches!(event, watcher::Event::InitDone);
                        let changed =
                            matches!(event, watcher::Event::Apply(_) | watcher::Event::Delete(_));
                        logged &= !changed;
                        if listed || changed {
                            telemetry.watch_event(kind.as_str());
                        }
                        for trigger in triggers(&mut objects, &claims, kind, &event) {
                            // The receiver is dropped only when the process ends.
                            let _ = send.send(trigger);
                        }
                    }
                    Err(error) => {
                        telemetry.watch_error(kind.as_str());
                        // Logged once, since the watch is retried soon. An unserved kind is not logged.
                        if !logged && !is_unserved(&error) {
                            tracing::warn!(%kind, version, error = %watch_sentence(&error), "watch failed; retrying");
                            logged = true;
                        }
                        break;
                    }
                }
            }
            tokio::time::sleep(ROUTES_INTERVAL).await;
        }
    });
}

/// Whether a Rollout references such a route of this kind.
fn names(claim: &Claim, kind: RouteKind, such: impl Fn(u64) -> bool) -> bool {
    let namespace = claim.metadata.namespace.as_deref();
    let mut routes = claim.routes().filter(|it| it.kind == kind.as_str());
    routes.any(|it| such(subject(namespace, &it.name)))
}

fn triggers(
    objects: &mut Objects,
    claims: &Store<Claim>,
    kind: RouteKind,
    event: &watcher::Event<Route>,
) -> Vec<Trigger> {
    let news = objects.news(event, |route| Seen {
        version: hash(&route.metadata.resource_version),
        subject: subject_of(route),
    });
    match (news, event) {
        (
            News::New | News::Changed,
            watcher::Event::Apply(route)
            | watcher::Event::InitApply(route)
            | watcher::Event::Delete(route),
        ) => {
            let own = subject_of(route);
            related(claims, |claim| names(claim, kind, |it| it == own))
        }
        // What happened before the watch causes no event.
        (News::Listed, _) => related(claims, |claim| names(claim, kind, |_| true)),
        (News::Gone(routes), _) => related(claims, |claim| {
            names(claim, kind, |it| routes.contains(&it))
        }),
        _ => Vec::new(),
    }
}

/// The route that a Rollout names; its route of testers has the same name with a suffix.
fn subject_of(route: &Route) -> u64 {
    let name = route.metadata.name.as_deref().unwrap_or_default();
    let name = name.strip_suffix("-testers").unwrap_or(name);
    subject(route.metadata.namespace.as_deref(), name)
}

/// Whether a watch fails because its kind is not served in this version.
pub(super) fn is_unserved(error: &watcher::Error) -> bool {
    // The response for an unserved path has a code, but no reason.
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404)
}
