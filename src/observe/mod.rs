//! Cluster and Prometheus in, one `Observation` out.

pub mod clock;
pub mod cluster;
pub mod prometheus;
pub mod watches;
