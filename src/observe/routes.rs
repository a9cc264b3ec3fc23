//! The routes of a Rollout, and the endpoints of its Services. Observed only while the status has a change, the Rollout is
//! being deleted, or an edited ReplicaSet is being replaced.

use std::collections::BTreeMap;

use countersign_api::Rollout;
use countersign_api::traffic::{ISTIO, RouteReference};
use countersign_core::Observation;
use countersign_core::observation::traffic::{Absence, Route, RouteObject};
use countersign_core::observation::workload::ReplicaSet;
use countersign_core::traffic::routes::{shared_rules, testers_name};
use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DynamicObject, ListParams};
use kube::{Api, ResourceExt};
use serde_json::Value;

use super::observer::Observer;
use super::reads::tried;
use super::replica_sets::is_rollout;
use crate::api_resource::resource;
use crate::api_server::sentence;
use crate::watch::{DESTINATION_RULE, ReadyPods, SERVICE_LABEL, route_object};

/// Longest prefix of a ReplicaSet's name in the names of its pods, in bytes.
const MAX_BASE: usize = 58;
/// Length of the generated suffix, in bytes.
const SUFFIX: usize = 5;

/// Ready pods by revision, of each Service.
type Endpoints = BTreeMap<String, BTreeMap<String, i32>>;
/// The names of the ready pods behind each Service.
type Pods = BTreeMap<String, Vec<String>>;

impl Observer {
    /// Reads routes and endpoints, if the status has a change, the Rollout is being deleted, or pods of another
    /// ReplicaSet than the stable one may serve.
    pub(super) async fn traffic(
        &self,
        rollout: &Rollout,
        observation: &Observation,
    ) -> (Endpoints, Vec<Route>) {
        let at_rest = observation.status.change.is_none() && !observation.deleting;
        if at_rest && !has_other_pods(observation) {
            return Default::default();
        }
        let traffic = observation.spec.strategy.canary.traffic.as_ref();
        let routes = traffic.into_iter().flat_map(|traffic| &traffic.routes);
        let routes = routes.map(|it| self.route(rollout, observation, it));
        tokio::join!(self.endpoints(observation), join_all(routes))
    }

    /// Notes rules that an older Rollout of the namespace already splits.
    pub(super) fn note_shared_rules(&self, observation: &mut Observation) {
        if observation.traffic.routes.is_empty() {
            return;
        }
        let shared = self
            .earlier_claims(&observation.name, &observation.namespace)
            .into_iter()
            .flat_map(|claim| {
                let rules = shared_rules(observation, |service| claim.claims_service(service));
                let name = claim.name_any();
                rules
                    .into_iter()
                    .map(move |rule| format!("Rollout {name} already splits {rule}"))
            });
        let shared: Vec<_> = shared.collect();
        observation.conflicts.extend(shared);
    }

    async fn route(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        reference: &RouteReference,
    ) -> Route {
        let namespace = &observation.namespace;
        let read = async |kind: &str, versions: &[&str], name: &str| {
            self.read(namespace, kind, versions, name).await
        };
        let kind = reference.kind;
        let object = read(kind.as_str(), kind.api_versions(), &reference.name);
        let destination_rule = async {
            let subsets = reference.destination_rule.as_ref()?;
            Some(read(DESTINATION_RULE, ISTIO, &subsets.name).await)
        };
        let testers = async {
            if !kind.matches_headers() {
                return None;
            }
            let own = testers_name(&reference.name);
            let Some(owned) = self.owned_routes(rollout, namespace, kind.as_str()) else {
                return read(kind.as_str(), kind.api_versions(), &own).await.ok();
            };
            let is_own = |it: &RouteObject| {
                let name = it.object.pointer("/metadata/name").and_then(Value::as_str);
                name == Some(own.as_str())
            };
            owned.into_iter().find(is_own)
        };
        let (object, destination_rule, testers) = tokio::join!(object, destination_rule, testers);
        Route {
            reference: reference.clone(),
            object,
            destination_rule,
            testers: testers.filter(|route| is_owned(route, rollout)),
        }
    }

    async fn endpoints(&self, observation: &Observation) -> Endpoints {
        let services: Vec<_> = observation
            .traffic
            .services
            .keys()
            .map(String::as_str)
            .collect();
        if services.is_empty() {
            return Endpoints::default();
        }
        let namespace = &observation.namespace;
        let pods = match self.watched_pods(namespace, &services) {
            Some(pods) => Ok(pods),
            None => self.read_pods(namespace, &services).await,
        };
        match pods {
            Ok(pods) => {
                let sets = &observation.replica_sets;
                let ready = pods.into_iter();
                ready
                    .map(|(service, pods)| (service, by_revision(pods, sets)))
                    .collect()
            }
            // Without endpoints no weight is raised; a rollback does not need them.
            Err(error) => {
                tracing::warn!(rollout = %observation.name, error = %sentence(&error), "endpoints could not be read");
                Endpoints::default()
            }
        }
    }

    /// The ready pods as the watch has reported them; `None` if they have to be read.
    fn watched_pods(&self, namespace: &str, services: &[&str]) -> Option<Pods> {
        if !self.from_watches {
            return None;
        }
        let pods = services.iter().map(|service| {
            let slices = self.caches.endpoints.of_service(namespace, service)?;
            let slices = slices.iter();
            let names = slices.map(|json| serde_json::from_str::<Vec<String>>(json).ok());
            let names = names.collect::<Option<Vec<_>>>()?;
            Some(((*service).to_owned(), names.concat()))
        });
        pods.collect()
    }

    async fn read_pods(&self, namespace: &str, services: &[&str]) -> Result<Pods, kube::Error> {
        let slices: Api<ReadyPods> = Api::namespaced(self.client.clone(), namespace);
        let of_services = format!("{SERVICE_LABEL} in ({})", services.join(","));
        let of_services = ListParams::default().labels(&of_services);
        let slices = tried(|| slices.list(&of_services)).await?;
        let none = services.iter().map(|it| ((*it).to_owned(), Vec::new()));
        let mut pods: Pods = none.collect();
        for slice in slices.items {
            if let Some(behind) = slice.named_service().and_then(|it| pods.get_mut(it)) {
                behind.extend(slice.names);
            }
        }
        Ok(pods)
    }

    /// An object as its watch has reported it; `None` if it has to be read, as one that does not exist.
    fn watched_route(&self, namespace: &str, kind: &str, name: &str) -> Option<RouteObject> {
        if !self.from_watches {
            return None;
        }
        let json = self.caches.written.routes.of(kind).get(namespace, name)?;
        serde_json::from_str(&json).ok()
    }

    /// The routes that the Rollout owns, as their watch has reported them; `None` if they have to be read.
    fn owned_routes(
        &self,
        rollout: &Rollout,
        namespace: &str,
        kind: &str,
    ) -> Option<Vec<RouteObject>> {
        if !self.from_watches {
            return None;
        }
        let uid = rollout.uid()?;
        let routes = self
            .caches
            .written
            .routes
            .of(kind)
            .of_rollout(namespace, &uid)?;
        let routes = routes.iter();
        routes.map(|json| serde_json::from_str(json).ok()).collect()
    }

    /// An object as its watch has reported it, or else read in the first version that is served.
    async fn read(
        &self,
        namespace: &str,
        kind: &str,
        versions: &[&str],
        name: &str,
    ) -> Result<RouteObject, Absence> {
        if let Some(route) = self.watched_route(namespace, kind, name) {
            return Ok(route);
        }
        for version in versions {
            let resource = resource(version, kind);
            let api: Api<DynamicObject> =
                Api::namespaced_with(self.client.clone(), namespace, &resource);
            match tried(|| api.get(name)).await {
                Ok(mut object) => {
                    object.types.get_or_insert_with(|| kube::core::TypeMeta {
                        api_version: (*version).to_owned(),
                        kind: kind.to_owned(),
                    });
                    return Ok(route_object(object));
                }
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    // A 404 for an object has its name in the details; a 404 for an unserved path has
                    // not.
                    let named = status
                        .details
                        .as_ref()
                        .is_some_and(|it| !it.name.is_empty());
                    if named {
                        return Err(Absence::NotFound);
                    }
                }
                Err(error) => {
                    let message = sentence(&error);
                    return Err(Absence::Unreadable { message });
                }
            }
        }
        Err(Absence::NotInstalled)
    }
}

/// Whether a ReplicaSet other than the stable one has pods, such as an edited one that is being replaced.
fn has_other_pods(observation: &Observation) -> bool {
    let stable = observation.status.stable.as_ref();
    let mut sets = observation.replica_sets.iter();
    stable.is_some_and(|stable| {
        sets.any(|set| set.owned && set.has_pods() && set.hash != stable.pod_template_hash)
    })
}

fn is_owned(route: &RouteObject, rollout: &Rollout) -> bool {
    let owners = route.object.pointer("/metadata/ownerReferences").cloned();
    let owners = owners.and_then(|it| serde_json::from_value::<Vec<OwnerReference>>(it).ok());
    let uid = rollout.uid().unwrap_or_default();
    let mut owners = owners.iter().flatten();
    owners.any(|owner| owner.controller == Some(true) && is_rollout(owner, &uid))
}

/// Ready pods by the hash of their ReplicaSet, derived from their names.
fn by_revision(mut pods: Vec<String>, sets: &[ReplicaSet]) -> BTreeMap<String, i32> {
    // A pod with two address families is in two slices.
    pods.sort_unstable();
    pods.dedup();
    let mut by_revision = BTreeMap::new();
    for pod in &pods {
        *by_revision.entry(revision(pod, sets)).or_insert(0) += 1;
    }
    by_revision
}

fn revision(pod: &str, sets: &[ReplicaSet]) -> String {
    let base = |set: &ReplicaSet| -> String {
        let name = format!("{}-", set.name);
        name.chars().take(MAX_BASE).collect()
    };
    let base_of_pod = pod.len().checked_sub(SUFFIX).and_then(|end| pod.get(..end));
    let mut makers = sets.iter().filter(|set| base_of_pod == Some(&base(set)));
    match (makers.next(), makers.next()) {
        (Some(maker), None) => maker.hash.clone(),
        (Some(_), Some(_)) => String::new(),
        (None, _) => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use countersign_api::PodTemplate;
    use countersign_core::observation::workload::Integrity;

    use super::*;

    fn set(name: &str, hash: &str) -> ReplicaSet {
        ReplicaSet {
            name: name.into(),
            uid: String::new(),
            version: String::new(),
            hash: hash.into(),
            template_digest: String::new(),
            revision: 1,
            owned: true,
            matches: true,
            labels_missing: false,
            replicas: 1,
            current: 1,
            ready: 1,
            available: 1,
            min_ready_seconds: 0,
            requested: None,
            failure: None,
            template: PodTemplate::default(),
            integrity: Integrity::Sound,
        }
    }

    #[test]
    fn endpoints_are_distinguished_by_the_names_of_their_pods() {
        let pods = [
            "web-aaa-x1y2z",
            "web-bbb-x1y2z",
            "web-7d9f-x1y2z",
            "web-aaa-x1y2z",
        ];
        let pods = pods.map(ToOwned::to_owned).to_vec();
        let sets = [set("web-aaa", "aaa"), set("web-bbb", "bbb")];
        let ready = by_revision(pods, &sets);
        let expected = [("aaa", 1), ("bbb", 1), ("?", 1)].map(|(hash, n)| (hash.to_owned(), n));
        assert_eq!(ready, expected.into());
    }

    #[test]
    fn names_too_long_to_distinguish_two_revisions_count_for_either() {
        let long = "a".repeat(60);
        let sets = [
            set(&format!("{long}-aaa"), "aaa"),
            set(&format!("{long}-bbb"), "bbb"),
        ];
        let pod = format!("{}x1y2z", "a".repeat(MAX_BASE));
        assert_eq!(revision(&pod, &sets), "");
        assert_eq!(revision(&pod, &sets[..1]), "aaa");
    }
}
