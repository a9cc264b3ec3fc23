//! A change from its beginning to its end: the state machine, its gates, and what is said about it.

pub mod actions;
