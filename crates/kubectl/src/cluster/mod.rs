//! Requests to the API server as the user: connection, refusals and the objects that commands create.

pub mod access;
pub mod answer;
pub mod change;
pub mod changer;
pub mod confirm;
pub mod connection;
pub mod installation;
pub mod refusal;
pub mod scope;
pub mod type_name;
pub mod write;
