//! Requests to the API server as the user: connection, refusals and the objects that commands create.

pub mod answer;
pub mod change;
pub mod changer;
pub mod confirm;
pub mod connection;
pub mod refusal;
