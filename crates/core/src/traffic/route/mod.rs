//! Routes as the API server stores them: the weights in them that belong to a Rollout, and the JSON patches
//! that change only these.
//!
//! `rules` and `backendRefs` are atomic lists: server-side apply of one weight would own every neighbour's
//! rule. So each weight is patched at its index, after a test that the entry is unchanged.

pub mod patch;
pub mod rule;
pub mod status;
pub mod subsets;
pub mod testers;

#[cfg(test)]
mod tests;
