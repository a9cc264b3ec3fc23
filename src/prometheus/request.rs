//! Requests to Prometheus.

/// A request to Prometheus.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Request {
    /// An instant query.
    At {
        /// PromQL.
        query: String,
        /// The time in Unix seconds.
        time: i64,
    },
    /// A range query.
    Steps {
        /// PromQL.
        query: String,
        /// The start in Unix seconds.
        start: i64,
        /// The end in Unix seconds.
        end: i64,
        /// The step in seconds.
        step: i64,
    },
}

impl Request {
    /// The last time of the response.
    pub(super) const fn end(&self) -> i64 {
        match self {
            Self::At { time: end, .. } | Self::Steps { end, .. } => *end,
        }
    }

    /// Length of the query.
    pub(super) const fn len(&self) -> usize {
        match self {
            Self::At { query, .. } | Self::Steps { query, .. } => query.len(),
        }
    }
}
