//! Countersign: risk-based progressive delivery for Kubernetes.
//!
//! This is the operator. Dependencies point one way:
//! `main -> operator -> controller -> observe, act -> countersign_core -> countersign_api`.
//! Start with [`countersign_core::decide`]: it is the product.

pub mod act;
mod api_resource;
pub mod api_server;
pub mod check;
pub mod clock;
pub mod controller;
pub mod lease;
pub mod notify;
pub mod observe;
pub mod operator;
mod owned;
pub mod prometheus;
pub mod retention;
#[cfg(test)]
mod stand_in;
pub mod statuses;
pub mod telemetry;
mod throttling;
mod timing;
pub mod watch;
