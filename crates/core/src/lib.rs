//! The decisions: pure functions of an observation. No async, no client, no clock, no randomness.
//!
//! [`decide`](rollout::decide::decide) is the product; everything else here is a part of it.

pub mod acceptance;
pub mod admission;
pub mod analysis;
pub mod change;
mod condition;
pub mod decision;
pub mod diff;
pub mod estimate;
pub mod field_managers;
pub mod hold;
mod intervals;
pub mod label;
pub mod laws;
pub mod leader;
mod limits;
mod names;
pub mod observation;
pub mod pattern;
pub mod people;
pub mod plan;
pub mod policy;
pub mod proposal;
pub mod provenance;
pub mod queue;
pub mod reason;
pub mod replicas;
pub mod risk;
pub mod rollout;
pub mod simulation;
pub mod text;
pub mod traffic;
pub mod workload;

pub use decision::Decision;
pub use observation::Observation;
pub use rollout::decide::decide;
