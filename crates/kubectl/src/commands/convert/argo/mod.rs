//! Argo Rollouts: Rollout, AnalysisTemplate and ClusterAnalysisTemplate.

mod args;
mod blue_green;
mod canary;
mod metrics;
pub mod rollout;
mod steps;
pub mod templates;
mod traffic;

/// The API group.
pub const GROUP: &str = "argoproj.io";
