//! Services and routes as they were observed.

use std::collections::BTreeMap;

use countersign_api::RouteReference;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::observation::workload::Service;

/// What splits the traffic of a Rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrafficObjects {
    /// The Services that the Rollout names; `None` for one that does not exist.
    pub services: BTreeMap<String, Option<Service>>,
    /// Services that the status remembers, the spec names no longer, and that still select a revision.
    pub former_services: BTreeMap<String, Service>,
    /// Ready pods behind each of those Services, by the hash of their revision: under an empty hash if the
    /// revision is one of the Rollout's and cannot be determined, under `?` if it is none of them. Read only
    /// while a change is in the status.
    pub endpoints: BTreeMap<String, BTreeMap<String, i32>>,
    /// The routes that the Rollout names, in its order. Read only while a change is in the status.
    pub routes: Vec<Route>,
}

/// A route that the Rollout names, and what belongs to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// How the Rollout names it.
    pub reference: RouteReference,
    /// The route as it is stored.
    pub object: Result<RouteObject, Absence>,
    /// The DestinationRule whose subsets tell the sides apart, where one is named.
    pub destination_rule: Option<Result<RouteObject, Absence>>,
    /// The controller's own route for testers, where there is one.
    pub testers: Option<RouteObject>,
}

/// An object of a router as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteObject {
    /// The whole of it, but for its managed fields.
    pub object: Value,
    /// Who wrote its spec last beside the controller, by the name of the field manager.
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

/// Why an object is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Absence {
    /// The API server does not know its kind.
    NotInstalled,
    /// There is none of that name.
    NotFound,
    /// It could not be read.
    Unreadable {
        /// Why, in the words of the API server.
        message: String,
    },
}
