//! What follows from a status and an observation, computed once.

use countersign_api::rollout::{Change, Revision, Split};

use crate::observation::Observation;
use crate::replicas::present::Fleet;
use crate::traffic::routes::Routes;

/// What follows from a status and an observation: pods by their roles, and the desired traffic.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// The observation.
    pub observation: &'a Observation,
    /// The routes that the Rollout names.
    pub routes: &'a Routes<'a>,
    /// The stable revision of the status.
    pub stable: Option<&'a Revision>,
    /// The change of the status.
    pub change: Option<&'a Change>,
    /// The split of the traffic in the status.
    pub split: Option<&'a Split>,
    /// The ReplicaSets by their roles.
    pub fleet: Fleet<'a>,
    /// The desired canary share of the routes, in percent.
    pub share: i32,
    /// The percentage of requests that the present step mirrors.
    pub mirror: Option<i32>,
    /// Why the traffic differs from the status, in a sentence; `None` if it does not.
    pub unsettled: Option<String>,
}
