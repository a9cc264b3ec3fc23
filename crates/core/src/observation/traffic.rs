//! Observed Services and routes.

use std::collections::BTreeMap;

use countersign_api::RouteReference;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::observation::workload::Service;

/// The Services and routes that split the traffic of a Rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrafficObjects {
    /// The Services that the Rollout names; `None` for one that does not exist.
    pub services: BTreeMap<String, Option<Service>>,
    /// Services in the status that were removed from the spec and still select a revision.
    pub former_services: BTreeMap<String, Service>,
    /// Who wrote the selector of a named Service last, by the name of the field manager, if it was not the
    /// controller.
    pub selected_by: BTreeMap<String, String>,
    /// Ready pods behind each of those Services, by the hash of their revision: under an empty hash if the
    /// revision is one of the Rollout's and cannot be determined, under `?` if it is none of them. Read only
    /// while a change is in the status.
    pub endpoints: BTreeMap<String, BTreeMap<String, i32>>,
    /// The routes that the Rollout names, in its order. Read only while a change is in the status.
    pub routes: Vec<Route>,
}

/// A route that the Rollout names, and the objects that belong to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// The reference in the Rollout.
    pub reference: RouteReference,
    /// The stored route.
    pub object: Result<RouteObject, Absence>,
    /// The DestinationRule with the subsets of the two sides, if one is named.
    pub destination_rule: Option<Result<RouteObject, Absence>>,
    /// The controller's own route for testers, if it exists.
    pub testers: Option<RouteObject>,
}

/// A stored object of a router.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteObject {
    /// The object without its managed fields and the manifest of client-side apply.
    pub object: Value,
    /// The last writer of its spec, or of a DestinationRule's subsets, except the controller, by the name of the
    /// field manager.
    pub last_writer: Option<String>,
}

impl RouteObject {
    /// Its API version, such as `gateway.networking.k8s.io/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        let version = self.object.get("apiVersion").and_then(Value::as_str);
        version.unwrap_or_default().to_owned()
    }
}

/// Why an object is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Absence {
    /// The API server does not serve its kind.
    NotInstalled,
    /// No object has that name.
    NotFound,
    /// It could not be read.
    Unreadable {
        /// Why, in the words of the API server.
        message: String,
    },
}
