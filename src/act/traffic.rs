//! Writes to routes: the weights of a Rollout's own backends, and a route of its own for testers.

use countersign_api::{MANAGED_BY_LABEL, MANAGER, ROLLOUT_UID_LABEL, Rollout, RouteKind};
use countersign_core::Observation;
use countersign_core::decision::Action;
use kube::api::{DynamicObject, Patch, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::{Actor, Error, WEIGHTS, apply, as_seen, owner};
use crate::api_resource::resource;

impl Actor {
    pub(super) async fn act_on_traffic(
        &self,
        rollout: &Rollout,
        observation: &Observation,
        action: &Action,
    ) -> Result<(), Error> {
        let api = |api_version: &str, kind: &str| -> Api<DynamicObject> {
            let resource = resource(api_version, kind);
            Api::namespaced_with(self.client.clone(), &observation.namespace, &resource)
        };
        match action {
            Action::PatchRoute {
                kind,
                name,
                api_version,
                operations,
                ..
            } => {
                let routes = api(api_version, kind.as_str());
                let at = ("routes", name.as_str());
                self.patch_places(WEIGHTS, rollout, &routes, at, operations)
                    .await
            }
            Action::SelectSubsets {
                name,
                api_version,
                operations,
            } => {
                let rules = api(api_version, "DestinationRule");
                let at = ("routes", name.as_str());
                self.patch_places(WEIGHTS, rollout, &rules, at, operations)
                    .await
            }
            Action::ApplyTesters {
                kind,
                api_version,
                exists,
                name,
                spec,
            } => {
                let routes = api(api_version, kind.as_str());
                let body = testers(rollout, api_version, kind.as_str(), name, spec);
                let write = async {
                    if *exists {
                        let (parameters, patch) = (apply(), Patch::Apply(body));
                        return routes.patch(name, &parameters, &patch).await.map(|_| ());
                    }
                    // One of this name that is somebody else's is left alone: the refusal says so.
                    let body = serde_json::from_value(body).map_err(kube::Error::SerdeError)?;
                    let parameters = PostParams {
                        field_manager: Some(MANAGER.into()),
                        ..PostParams::default()
                    };
                    routes.create(&parameters, &body).await.map(|_| ())
                };
                self.write("a route for testers", rollout, "patch", "routes", write)
                    .await
            }
            Action::DeleteTesters {
                kind,
                api_version,
                name,
            } => {
                let routes = api(api_version, kind.as_str());
                let what = "the end of a route for testers";
                let at = ("routes", name.as_str());
                let seen = |field: &str| testers_seen(observation, *kind, name, field);
                let (uid, version) = (seen("uid"), seen("resourceVersion"));
                let as_seen = as_seen(uid.as_ref(), version.as_ref());
                self.remove(what, rollout, &routes, at, as_seen).await
            }
            _ => Ok(()),
        }
    }
}

/// A field of the metadata of the route for testers of this name, as it was observed.
fn testers_seen(
    observation: &Observation,
    kind: RouteKind,
    name: &str,
    field: &str,
) -> Option<String> {
    let routes = observation.routes.iter();
    let own = routes.filter(|route| route.reference.kind == kind);
    let metadata = own.filter_map(|route| route.testers.as_ref()?.object.get("metadata"));
    let mut named = metadata.filter(|it| it.get("name").and_then(Value::as_str) == Some(name));
    Some(named.next()?.get(field)?.as_str()?.to_owned())
}

fn testers(rollout: &Rollout, api_version: &str, kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "labels": { MANAGED_BY_LABEL: MANAGER, ROLLOUT_UID_LABEL: rollout.uid() },
            "ownerReferences": [owner(rollout)],
        },
        "spec": spec,
    })
}
