//! Reads the cluster and Prometheus into an `Observation`.

pub mod admission;
mod adoption;
pub mod dry_runs;
mod evidence;
mod history;
mod integrity;
mod jobs;
pub mod observer;
mod people;
mod pods;
mod policies;
pub mod queue;
pub mod queue_lock;
pub mod reads;
mod replica_sets;
pub mod routes;
mod services;
pub mod snapshot;
mod stored;
