//! A world in virtual time, and the observation that would follow if a manifest were applied.

pub mod manifest;
pub mod router;
pub mod windows;
pub mod world;
