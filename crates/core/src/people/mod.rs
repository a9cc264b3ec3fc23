//! What people sign, command and freeze, and what they are told.

pub mod answers;
mod binding;
pub mod eligibility;
pub mod freeze;
pub mod intervention;
pub mod sign_off;
