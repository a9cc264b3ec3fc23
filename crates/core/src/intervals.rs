//! Intervals that several parts of a decision share.

use k8s_openapi::jiff::SignedDuration;

/// Requeue interval for state that no watch reports.
pub(crate) const POLL_INTERVAL: SignedDuration = SignedDuration::from_secs(5);
/// Requeue interval if no event arrives; a watch event may have been missed.
pub(crate) const RESYNC_INTERVAL: SignedDuration = SignedDuration::from_mins(1);
/// Least time between two corrections of a ReplicaSet, of weights, of subsets or of a route for testers that another writer
/// changes repeatedly.
pub(crate) const CORRECTION_INTERVAL: SignedDuration = SignedDuration::from_secs(5);
