//! Sign-offs, interventions and freezes, and the conditions on them.

pub mod answers;
mod binding;
pub mod eligibility;
pub mod freeze;
pub mod intervention;
pub mod sign_off;
