//! The chart on a cluster that has none of its kinds, with the real Helm: installed from an earlier commit, upgraded and
//! rolled back with a change in progress, tested, uninstalled, while requests are served. Run by `make harness`;
//! `make upgrade` runs `stages`, too.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]
#![allow(
    clippy::too_many_lines,
    clippy::large_futures,
    reason = "a story reads best in one piece"
)]

mod earlier;
mod operator;
mod release;
mod rollout;
mod stages;
mod story;
mod test_pod;
