//! What Prometheus is asked.

/// One question to Prometheus.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Request {
    /// Evaluated at one moment.
    At {
        /// PromQL.
        query: String,
        /// The moment in Unix seconds.
        time: i64,
    },
    /// Evaluated at each step.
    Steps {
        /// PromQL.
        query: String,
        /// The first moment in Unix seconds.
        start: i64,
        /// The last moment in Unix seconds.
        end: i64,
        /// Seconds from one to the next.
        step: i64,
    },
}

impl Request {
    /// The last moment that the answer speaks of.
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
