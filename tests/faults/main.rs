//! Faults: a real operator, API server, Prometheus and traffic, with a proxy that injects faults between
//! them. Each story ends as without the fault, and an independent witness sees no law broken. Run by
//! `make faults`; `make test` runs a part of it.

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

#[path = "../e2e/support/mod.rs"]
#[allow(dead_code)]
mod support;

mod ledger;
mod story;

mod clock;
mod crash;
mod flood;
mod leaders;
mod requests;
mod restarts;
mod soak;
mod watches;

/// Concurrent runs of stories: each has an operator and traffic of its own on the same two cores.
const SIDE_BY_SIDE: usize = 8;

/// Whether all faults are tried, as in `make faults`, or a part.
fn is_thorough() -> bool {
    std::env::var("COUNTERSIGN_FAULTS").is_ok_and(|which| which == "all")
}
