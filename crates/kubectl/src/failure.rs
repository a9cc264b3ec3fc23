//! How a command fails.

/// What went wrong, as it is printed; each command has a typed error of its own.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
