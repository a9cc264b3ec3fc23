//! Flagger: Canary and MetricTemplate.

pub mod canary;
mod metrics;
mod routes;
mod steps;
mod webhooks;

/// The API group.
pub const GROUP: &str = "flagger.app";
