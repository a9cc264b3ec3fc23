//! End to end: a real API server, real Prometheus, real HTTP traffic, and the operator under the
//! chart's own `ServiceAccount`. One file a capability; run by `make e2e`: most tests share a cluster, and what disturbs
//! others is `#[ignore]`d and runs in a cluster of its own.

// Helpers of tests fail by panicking, as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
// A story reads best in one piece, counts are exact, and `json!` reads best where it is passed.
#![allow(
    clippy::too_many_lines,
    clippy::similar_names,
    clippy::type_complexity,
    clippy::needless_pass_by_value,
    clippy::float_cmp,
    clippy::cast_precision_loss,
    clippy::large_futures
)]

mod support;

mod adoption;
mod after_promotion;
mod attacks;
mod bad_input;
mod capacity;
mod chart;
mod checks;
mod evidence;
mod examples;
mod freeze;
mod get_started;
mod gitops;
mod identity;
mod inputs;
mod interfaces;
mod leader;
mod life;
#[path = "../gitops/lua.rs"]
mod lua;
mod monitoring;
mod notify;
mod order;
mod permissions;
mod plugin;
mod pod_security;
mod presets;
mod promotion;
mod rollback;
mod routes;
mod sign_off;
mod smoke;
mod statuses;
mod workload;
