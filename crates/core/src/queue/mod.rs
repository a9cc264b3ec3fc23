//! Dependencies of a Rollout, and the queue for concurrent changes.

pub mod concurrency;
pub mod dependencies;
pub mod wake;

#[cfg(test)]
mod tests;
