//! What a change waits for.

use countersign_api::rollout::{Change, WaitingKind};
use k8s_openapi::jiff::Timestamp;

use crate::reason::{Reason, Wait};

/// Why a change is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The kind of wait, which decides what happens at the deadline.
    pub kind: HoldKind,
    /// Why, in one word.
    pub reason: Reason,
    /// Why, in a sentence.
    pub message: String,
}

impl Hold {
    /// Whether a promotion keeps its pods and traffic: for every hold except one for the pods and the
    /// traffic of the promotion itself. A first revision is held by people alone.
    #[must_use]
    pub fn holds_promotion(&self, change: Option<&Change>) -> bool {
        let wait = self.reason.class().wait;
        if change.is_some_and(|it| it.initial) {
            wait == Wait::Hold
        } else {
            !matches!(wait, Wait::Pods | Wait::Traffic)
        }
    }
}

/// Kinds of waits, by what ends them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldKind {
    /// A requested hold or an idle workload; no deadline runs.
    Requested,
    /// People must sign or decide; their own deadline runs.
    People,
    /// Time alone ends it.
    Time(Timestamp),
    /// Pods, references or data are missing; the progress deadline rolls back.
    Doubt,
    /// Evidence is clean but scarce; after `extendAtMost` of waiting the tier decides.
    Scarce,
}

impl HoldKind {
    /// The kind as the status stores it.
    #[must_use]
    pub fn remembered(self) -> WaitingKind {
        match self {
            Self::Requested => WaitingKind::Requested,
            Self::People => WaitingKind::People,
            Self::Time(_) => WaitingKind::Time,
            Self::Doubt => WaitingKind::Doubt,
            Self::Scarce => WaitingKind::Scarce,
        }
    }
}
