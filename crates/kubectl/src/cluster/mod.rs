//! The API server in the user's name: how it is reached, what it refuses, and what it is asked to do.

pub mod answer;
pub mod change;
pub mod confirm;
pub mod connection;
pub mod refusal;
