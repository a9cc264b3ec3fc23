//! End to end: a real API server, real Prometheus, real HTTP traffic, and the operator under the
//! chart's own ServiceAccount. One file a capability; run by `make e2e`.

mod support;

mod bad_input;
mod evidence;
mod life;
mod promotion;
mod rollback;
mod workload;
