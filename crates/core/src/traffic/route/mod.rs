//! Routes as the API server stores them: which weights in them are a Rollout's own, and the JSON
//! patches that change these and nothing else.
//!
//! `rules` and `backendRefs` are atomic lists: to apply one weight would take over every neighbour's
//! rule. So each weight is patched at its place, after a test that what stands there is what was seen.

pub mod patch;
pub mod rule;
pub mod status;
pub mod subsets;
pub mod testers;

#[cfg(test)]
mod tests;
