//! Cluster and Prometheus in, one `Observation` out.

pub mod admission;
pub mod clock;
pub mod cluster;
mod jobs;
mod people;
pub mod prometheus;
pub mod watches;
