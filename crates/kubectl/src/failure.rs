//! How a command fails.

/// The printed error; each command has a typed error of its own.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
