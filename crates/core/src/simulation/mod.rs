//! A world in virtual time, and the observation after a manifest was applied.

pub mod manifest;
pub mod router;
pub mod windows;
pub mod world;
