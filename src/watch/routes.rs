//! The watches on routes, of the kinds that Rollouts reference.

use std::sync::Arc;

use countersign_api::RouteKind;
use futures::StreamExt;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use tokio::sync::mpsc;

use crate::api_resource::resource;
use crate::api_server::watch_sentence;
use crate::telemetry::Telemetry;
use crate::timing::ROUTES_INTERVAL;
use crate::watch::claim::Claim;
use crate::watch::task::{LARGE, config};
use crate::watch::trigger::Trigger;

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
    let names = move |claim: &Claim, name: Option<&str>| {
        let mut routes = claim.routes();
        routes.any(|it| it.kind == kind.as_str() && name.is_none_or(|name| it.name == name))
    };
    let concerned = {
        let claims = claims.clone();
        move |route: &PartialObjectMeta<DynamicObject>| {
            let (namespace, name) = (route.namespace(), route.name_any());
            let name = name.strip_suffix("-testers").unwrap_or(&name);
            let known = claims.state();
            let own = known
                .iter()
                .filter(|claim| claim.namespace() == namespace && names(claim, Some(name)));
            let related = own.map(|claim| Trigger::Related(ObjectRef::from_obj(&**claim)));
            related.collect::<Vec<_>>()
        }
    };
    tokio::spawn(async move {
        let mut logged = false;
        let versions = kind.api_versions().iter().cycle();
        for version in versions {
            while !claims.state().iter().any(|claim| names(claim, None)) {
                tokio::time::sleep(ROUTES_INTERVAL).await;
            }
            let resource = resource(version, kind.as_str());
            let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(client.clone(), &resource);
            let mut events = watcher(api, config(LARGE)).boxed();
            // Runs until the watch fails: the kind may be served in another version, or not at all.
            while let Some(event) = events.next().await {
                match event {
                    Ok(watcher::Event::Apply(route) | watcher::Event::Delete(route)) => {
                        logged = false;
                        telemetry.watch_event(kind.as_str());
                        for trigger in concerned(&route) {
                            // The receiver is dropped only when the process ends.
                            let _ = send.send(trigger);
                        }
                    }
                    Ok(watcher::Event::InitDone) => {
                        telemetry.watch_event(kind.as_str());
                        let claims = claims.state();
                        for claim in claims.iter().filter(|claim| names(claim, None)) {
                            let _ = send.send(Trigger::Related(ObjectRef::from_obj(&**claim)));
                        }
                    }
                    Ok(_) => {}
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

/// Whether a watch fails because its kind is not served in this version.
pub(super) fn is_unserved(error: &watcher::Error) -> bool {
    // The response for an unserved path has a code, but no reason.
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404)
}
