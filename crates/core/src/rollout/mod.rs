//! A change from its beginning to its end: the state machine, its gates, and the status it reports.

pub mod actions;
pub mod advance;
pub mod commands;
pub mod conditions;
pub mod context;
pub mod deadlines;
pub mod decide;
pub mod events;
pub mod finish;
pub mod gates;
pub mod judge;
pub mod observe;
pub mod record;
pub mod requeue;
pub mod start;
pub mod status;
pub mod transition;
pub mod waiting;
pub mod watch;
pub mod write_rate;

#[cfg(test)]
mod tests;
