//! A response with its time.

use std::sync::Arc;

use countersign_core::analysis::series::Series;

use crate::prometheus::clock_skew::Reading;

/// The response to one request.
#[derive(Clone)]
pub(super) struct Reply {
    /// The series.
    pub(super) series: Arc<Vec<Series>>,
    /// Size of the response in bytes.
    pub(super) bytes: usize,
    /// Prometheus' clock in this response.
    pub(super) reading: Option<Reading>,
}
