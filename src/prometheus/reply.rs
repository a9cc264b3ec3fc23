//! An answer, and when it was given.

use std::sync::Arc;

use countersign_core::analysis::series::Series;

use crate::prometheus::clock_skew::Reading;

/// What Prometheus gave for one question.
#[derive(Clone)]
pub(super) struct Reply {
    /// The series.
    pub(super) series: Arc<Vec<Series>>,
    /// Size of the answer.
    pub(super) bytes: usize,
    /// What Prometheus' clock showed.
    pub(super) reading: Option<Reading>,
}
