//! From counts to a verdict: queries to Prometheus, how answers are counted, and their evidence.

pub mod above_weight;
pub mod budget;
pub mod check_verdict;
pub mod checks;
pub mod confidence;
pub mod count;
pub mod finding;
pub mod gates;
pub mod gather;
pub mod numbers;
pub mod query;
pub mod series;
pub mod statistics;
pub mod summary;
pub mod thresholds;
pub mod verdict;

#[cfg(test)]
mod tests;
