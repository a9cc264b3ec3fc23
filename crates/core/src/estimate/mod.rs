//! Estimates from counts and times, each with an interval of 95 %: proportions, rates, medians and odds ratios.
//!
//! Pure arithmetic for reports on what has ended. None of it decides about a change: evidence about a canary that
//! is looked at again and again is judged by `analysis::statistics`.

pub mod median;
pub mod odds;
pub mod proportion;
pub mod rate;

use serde::Serialize;

/// The standard normal deviate that 2.5 % exceed: half of what an interval of 95 % leaves out.
const DEVIATE: f64 = 1.959_963_984_540_054;

/// An interval of 95 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}
