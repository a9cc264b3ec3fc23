//! The finding of a check.

use countersign_api::rollout::{CheckVerdict, WindowState};

use crate::reason::Reason;

/// The result of one check alone.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// It would roll the canary back alone.
    Fails,
    /// There is no result.
    NoData {
        /// The reason.
        reason: Reason,
        /// The message.
        message: String,
    },
    /// Clean so far, but too little; with what is still needed.
    Scarce(String),
    /// It passes.
    Passes,
}

impl Finding {
    /// The verdict of the finding.
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

/// What a roll-back test detects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The canary is worse than tolerated beside stable.
    Worse,
    /// The canary is above the ceiling.
    AboveCeiling,
}
