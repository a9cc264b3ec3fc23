//! The sequential tests in `core::statistics` and the intervals in `core::confidence`: against a
//! second implementation, against published numbers, and in simulations.
//!
//! `../fixtures/statistics.json` holds what `../fixtures/statistics.py` computes in another way, and what
//! others published, with their sources.
//!
//! The harness of the simulations is checked first: in it, the naive test that is repeated after every
//! window gives the false alarms published by Armitage and colleagues in 1969. Then it counts false
//! rollbacks, time to detection and false promotions of ours.
//!
//! Every comparison states its margin in standard errors of a binomial share ([`harness::MARGIN`]). The
//! seeds are fixed, so a test does not flicker; the margins are what makes the numbers mean
//! something with any other seed (a right implementation fails one comparison in 16,000).
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a test may panic; counts of runs are small"
)]

mod characteristics;
mod counters;
mod harness;
mod second_implementation;

use serde_json::Value;

/// What a second implementation gives, and what others published.
fn fixture() -> Value {
    serde_json::from_str(include_str!("../fixtures/statistics.json")).unwrap()
}

fn rows<T: serde::de::DeserializeOwned>(values: &Value) -> Vec<T> {
    let rows: Vec<T> = serde_json::from_value(values.clone()).unwrap();
    assert!(!rows.is_empty(), "there is nothing to compare");
    rows
}
