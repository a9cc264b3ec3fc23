//! Cluster and Prometheus in, one `Observation` out.

pub mod admission;
mod adoption;
pub mod clock;
pub mod cluster;
mod jobs;
pub mod order;
mod people;
mod pods;
pub mod prometheus;
pub mod reads;
mod replica_sets;
pub mod routes;
mod stored;
pub mod watches;
