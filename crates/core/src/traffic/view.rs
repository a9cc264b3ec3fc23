//! A status seen in the light of an observation: what follows from both, worked out once.

use countersign_api::rollout::{Change, Revision, Split};

use crate::observation::Observation;
use crate::replicas::present::Fleet;
use crate::traffic::routes::Routes;

/// What follows from a status and an observation: pods by their roles, and where the traffic should go.
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
    /// How the traffic is split, in the words of the status.
    pub split: Option<&'a Split>,
    /// The ReplicaSets by their roles.
    pub fleet: Fleet<'a>,
    /// The share that the routes should give the canary now, in percent.
    pub share: i32,
    /// The copy of requests that the present step asks for, in percent.
    pub mirror: Option<i32>,
    /// Why the traffic of the change is not yet as it should be, in a sentence; `None` where it is.
    pub unsettled: Option<String>,
}
