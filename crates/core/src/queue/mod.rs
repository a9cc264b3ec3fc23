//! What a Rollout depends on, and whose turn it is.

pub mod concurrency;
pub mod dependencies;
pub mod wake;

#[cfg(test)]
mod tests;
