//! The counts and the evidence that a status holds; what they mean is in `core::statistics`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What one arm served in one window of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Requests served in the window. A sum of extrapolated counters may be fractional.
    pub requests: f64,
    /// Requests that failed (or were slow, if the metric counts those).
    pub errors: f64,
}

/// The evidence gathered so far against the null hypothesis of one test.
///
/// Only this is persisted between windows, beside the end of the last window (so
/// that none is counted twice).
///
/// Healthy windows are evidence too: a regression that comes late must first win back what they
/// took from E. With 25 canary requests a window, 5 % errors against 1 % are caught in 5 windows at
/// the start of a rollout, and in 26 after 200 healthy ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EProcess {
    /// The cumulative log e-value of each alternative, in nats, in the order of the alternatives.
    /// Always finite. The alternatives have equal weights.
    pub ln_e: Vec<f64>,
}
