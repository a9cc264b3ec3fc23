//! The watch on adopted Deployments.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::mpsc;

use crate::telemetry::Telemetry;
use crate::watch::claim::Claim;
use crate::watch::task::{LARGE, config, run};
use crate::watch::trigger::Trigger;

/// The watch on Deployments, which starts with the first Rollout that adopts one.
pub(super) struct Deployments {
    client: Client,
    telemetry: Arc<Telemetry>,
    claims: Store<Claim>,
    send: mpsc::UnboundedSender<Trigger>,
    watched: bool,
}

impl Deployments {
    pub(super) fn new(
        client: &Client,
        telemetry: &Arc<Telemetry>,
        claims: Store<Claim>,
        send: mpsc::UnboundedSender<Trigger>,
    ) -> Self {
        Self {
            client: client.clone(),
            telemetry: telemetry.clone(),
            claims,
            send,
            watched: false,
        }
    }

    /// Begins the watch if this Rollout is the first that needs it.
    pub(super) fn watch_for(&mut self, claim: &Claim) {
        if self.watched || claim.spec.workload_ref.is_none() {
            return;
        }
        self.watched = true;
        let api: Api<PartialObjectMeta<Deployment>> = Api::all(self.client.clone());
        let (claims, send) = (self.claims.clone(), self.send.clone());
        run(
            "Deployment",
            &self.telemetry,
            watcher::watcher(api, config(LARGE)),
            move |event| {
                match event {
                    watcher::Event::Apply(it) | watcher::Event::Delete(it) => {
                        for rollout in adopters(&claims, Some(&it.metadata)) {
                            // The receiver is dropped only when the process ends.
                            let _ = send.send(Trigger::Related(rollout));
                        }
                    }
                    // Changes before the watch, or while it was disconnected, cause no event.
                    watcher::Event::InitDone => {
                        for rollout in adopters(&claims, None) {
                            let _ = send.send(Trigger::Related(rollout));
                        }
                    }
                    watcher::Event::InitApply(_) | watcher::Event::Init => {}
                }
                None::<Trigger>
            },
            self.send.clone(),
        );
    }
}

/// The Rollouts that adopt a Deployment, or any.
pub(super) fn adopters(
    claims: &Store<Claim>,
    deployment: Option<&ObjectMeta>,
) -> Vec<ObjectRef<Claim>> {
    let adopts = |claim: &Claim| {
        let name = claim.spec.workload_ref.as_ref().map(|it| it.name.as_str());
        name.is_some()
            && deployment.is_none_or(|it| {
                it.name.as_deref() == name && it.namespace == claim.metadata.namespace
            })
    };
    let claims = claims.state();
    let adopters = claims.iter().filter(|claim| adopts(claim));
    adopters
        .map(|claim| ObjectRef::from_obj(&**claim))
        .collect()
}
