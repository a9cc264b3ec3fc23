//! What a check was found to be.

use countersign_api::rollout::{CheckVerdict, WindowState};

use crate::reason::Reason;

/// What one check says by itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// It would roll the canary back if it stood alone.
    Fails,
    /// Nothing can be said.
    NoData {
        /// Why, in one word.
        reason: Reason,
        /// Why, in a sentence.
        message: String,
    },
    /// Clean so far, but too little; with what is still needed.
    Scarce(String),
    /// It passes.
    Passes,
}

impl Finding {
    /// The word for it.
    #[must_use]
    pub fn verdict(&self) -> CheckVerdict {
        match self {
            Self::Fails => CheckVerdict::Failing,
            Self::NoData {
                reason: Reason::Window(WindowState::Waiting),
                ..
            } => CheckVerdict::Waiting,
            Self::NoData { .. } => CheckVerdict::NoData,
            Self::Scarce(_) => CheckVerdict::Scarce,
            Self::Passes => CheckVerdict::Passing,
        }
    }
}

/// What a roll-back test finds wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The canary is worse than tolerated beside stable.
    Worse,
    /// The canary is above the ceiling.
    AboveCeiling,
}
