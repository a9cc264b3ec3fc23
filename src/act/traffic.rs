//! Writes to Services and routes: the selectors of a Rollout's Services, the weights of its backends, and
//! its route for testers.

use countersign_api::{
    HASH_LABEL, MANAGED_BY_LABEL, MANAGER, ROLLOUT_UID_LABEL, Rollout, RouteKind,
};
use countersign_core::Observation;
use countersign_core::decision::{TestersRoute, TrafficAction};
use countersign_core::replicas::present;
use k8s_openapi::api::core::v1::Service;
use kube::api::DynamicObject;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::{Actor, absent_as_none, as_manager, as_observed, patch_places};
use crate::act::error::{Error, Target};
use crate::api_resource::resource;
use crate::owned::owner;
use crate::watch::DESTINATION_RULE;

impl Actor {
    pub(super) async fn act_on_traffic(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        action: &TrafficAction,
    ) -> Result<(), Error> {
        let services: Api<Service> = Api::namespaced(self.client.clone(), &observation.namespace);
        match action {
            TrafficAction::SelectRevision { service, hash } => {
                let operations = selection(observation, service, hash);
                let write = patch_places(&services, service, &operations);
                let written = self.write(Target::Selector, rollout, "patch", write);
                let written = written.await?;
                self.written
                    .services
                    .reaches(&observation.uid, &written.metadata);
                Ok(())
            }
            TrafficAction::ReleaseService { service } => {
                let operations = release(observation, service);
                let write = patch_places(&services, service, &operations);
                let write = absent_as_none(write);
                let written = self.write(Target::Selector, rollout, "patch", write);
                if let Some(written) = written.await? {
                    self.written
                        .services
                        .reaches(&observation.uid, &written.metadata);
                }
                Ok(())
            }
            TrafficAction::PatchRoute(patch) => {
                let kind = patch.kind.as_str();
                let routes = self.routes_of(observation, &patch.api_version, kind);
                let write = patch_places(&routes, &patch.name, &patch.operations);
                let written = self.write(Target::RouteWeights, rollout, "patch", write);
                self.note_route(observation, kind, &written.await?);
                Ok(())
            }
            TrafficAction::SelectSubsets {
                name,
                api_version,
                operations,
            } => {
                let rules = self.routes_of(observation, api_version, DESTINATION_RULE);
                let write = patch_places(&rules, name, operations);
                let written = self.write(Target::RouteWeights, rollout, "patch", write);
                self.note_route(observation, DESTINATION_RULE, &written.await?);
                Ok(())
            }
            TrafficAction::ApplyTesters(testers) => {
                self.apply_testers(rollout, observation, testers).await
            }
            TrafficAction::DeleteTesters {
                kind,
                api_version,
                name,
            } => {
                let routes = self.routes_of(observation, api_version, kind.as_str());
                let observed = |field: &str| testers_field(observation, *kind, name, field);
                let (uid, version) = (observed("uid"), observed("resourceVersion"));
                let as_observed = as_observed(uid.as_ref(), version.as_ref());
                self.remove(Target::OldTestersRoute, rollout, &routes, name, as_observed)
                    .await?;
                let (namespace, uid) = (&observation.namespace, uid.unwrap_or_default());
                let cache = self.written.routes.of(kind.as_str());
                cache.deleted(&observation.uid, namespace, name, &uid);
                Ok(())
            }
        }
    }

    async fn apply_testers(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        testers: &TestersRoute,
    ) -> Result<(), Error> {
        let (name, kind) = (&testers.name, testers.kind.as_str());
        let routes = self.routes_of(observation, &testers.api_version, kind);
        let uid = testers_field(observation, testers.kind, name, "uid");
        let write = async {
            if testers.exists {
                let operations = as_decided(uid.as_deref(), &testers.spec);
                return patch_places(&routes, name, &operations).await;
            }
            let body = testers_route(rollout, testers);
            // A foreign route of this name is left alone, which the error reports.
            let body = serde_json::from_value(body).map_err(kube::Error::SerdeError)?;
            routes.create(&as_manager(), &body).await
        };
        let written = self.write(Target::TestersRoute, rollout, "patch", write);
        self.note_route(observation, kind, &written.await?);
        Ok(())
    }

    fn routes_of(
        &self,
        observation: &Observation,
        api_version: &str,
        kind: &str,
    ) -> Api<DynamicObject> {
        let resource = resource(api_version, kind);
        Api::namespaced_with(self.client.clone(), &observation.namespace, &resource)
    }

    fn note_route(&self, observation: &Observation, kind: &str, written: &DynamicObject) {
        let cache = self.written.routes.of(kind);
        cache.reaches(&observation.uid, &written.metadata);
    }
}

/// A metadata field of the observed route for testers.
fn testers_field(
    observation: &Observation,
    kind: RouteKind,
    name: &str,
    field: &str,
) -> Option<String> {
    let routes = observation.traffic.routes.iter();
    let own = routes.filter(|route| route.reference.kind == kind);
    let metadata = own.filter_map(|route| route.testers.as_ref()?.object.get("metadata"));
    let mut named = metadata.filter(|it| it.get("name").and_then(Value::as_str) == Some(name));
    Some(named.next()?.get(field)?.as_str()?.to_owned())
}

fn testers_route(rollout: &Rollout, testers: &TestersRoute) -> Value {
    json!({
        "apiVersion": testers.api_version,
        "kind": testers.kind.as_str(),
        "metadata": {
            "name": testers.name,
            "labels": { MANAGED_BY_LABEL: MANAGER, ROLLOUT_UID_LABEL: rollout.uid() },
            "ownerReferences": [owner(rollout)],
        },
        "spec": testers.spec,
    })
}

/// Replaces the whole spec of the observed route for testers: applied fields would leave those that others added.
fn as_decided(uid: Option<&str>, spec: &Value) -> [Value; 2] {
    [
        json!({ "op": "test", "path": "/metadata/uid", "value": uid }),
        json!({ "op": "replace", "path": "/spec", "value": spec }),
    ]
}

/// Points a Service at a revision, if it still points at the observed one.
fn selection(observation: &Observation, service: &str, hash: &str) -> Vec<Value> {
    let place = format!("/spec/selector/{HASH_LABEL}");
    match present::selected(observation, service) {
        Some(observed) => vec![
            json!({ "op": "test", "path": place, "value": observed }),
            json!({ "op": "replace", "path": place, "value": hash }),
        ],
        None if has_selector(observation, service) => {
            vec![json!({ "op": "add", "path": place, "value": hash })]
        }
        None => {
            // A Service without a selector also gets the pods' own labels, which it keeps when it is
            // released.
            let mut selector = observation.spec.selector.match_labels.clone();
            selector.insert(HASH_LABEL.to_owned(), hash.to_owned());
            vec![json!({ "op": "add", "path": "/spec/selector", "value": selector })]
        }
    }
}

fn has_selector(observation: &Observation, service: &str) -> bool {
    let observed = observation
        .traffic
        .services
        .get(service)
        .and_then(Option::as_ref);
    observed.is_some_and(|it| !it.selector.is_empty())
}

/// Lets a Service select the pods of all revisions again, if it still selects the observed one.
fn release(observation: &Observation, service: &str) -> [Value; 2] {
    let place = format!("/spec/selector/{HASH_LABEL}");
    let named = observation
        .traffic
        .services
        .get(service)
        .and_then(Option::as_ref);
    let observed = named.or_else(|| observation.traffic.former_services.get(service));
    let observed = observed.and_then(|it| it.selector.get(HASH_LABEL));
    [
        json!({ "op": "test", "path": place, "value": observed }),
        json!({ "op": "remove", "path": place }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_for_testers_keeps_nothing_that_others_added() {
        let decided = json!({ "rules": [{ "backendRefs": [{ "name": "web-canary" }] }] });
        let mut stored = json!({ "metadata": { "uid": "1" }, "spec": decided });
        stored["spec"]["hostnames"] = json!(["everybody.example.org"]);
        stored["spec"]["rules"][0]["filters"] = json!([{ "type": "URLRewrite" }]);
        let operations = as_decided(Some("1"), &decided);
        let patch: json_patch::Patch = serde_json::from_value(json!(operations)).unwrap();
        let mut another = stored.clone();
        another["metadata"]["uid"] = json!("2");
        json_patch::patch(&mut stored, &patch).unwrap();
        assert_eq!(stored["spec"], decided);
        json_patch::patch(&mut another, &patch).unwrap_err();
    }
}
