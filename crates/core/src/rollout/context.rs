//! What one decision works with.

use std::collections::BTreeSet;

use countersign_api::rollout::{Barred, Change, Outcome, WaitingKind};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::observation::Observation;
use crate::proposal::Proposal;
use crate::reason;

/// Most lines of one change, as the schema has it.
pub(super) const MAX_TRANSITIONS: usize = 256;
/// Lines that are kept for how a change ends and what follows.
pub(super) const LAST_LINES: usize = 16;
/// Lines that are kept for broken glass, beyond those of other people.
pub(super) const LOUD_LINES: usize = 16;
/// Most lines about what people sign and command.
pub(super) const MAX_PEOPLE: usize = 80;
/// Most of these about pauses, which anybody may make without end.
pub(super) const MAX_PAUSES: usize = 40;
/// Most sign-offs and interventions that are heard for one change; an abort always is.
pub(super) const MAX_HEARD: usize = 180;
/// Most lines that hold evidence, so that the status of a long story can still be written.
pub(super) const MAX_EVIDENCE: usize = 50;
/// Longest message of a line, in characters.
pub(super) const MAX_MESSAGE: usize = 2_000;
/// The same with those that break the glass, which are never silent.
pub(super) const MAX_LOUD: usize = 195;
/// When to look again at what no watch reports.
pub(super) const SOON: SignedDuration = SignedDuration::from_secs(5);
/// The same for pods of a first revision: that they are there is reported, and there is no way back.
pub(super) const FIRST_PODS: SignedDuration = SignedDuration::from_secs(15);
/// When to look again while routes and Services are not as they should be.
pub(super) const TRAFFIC: SignedDuration = SignedDuration::from_millis(500);
/// How often progress is noted at most; more often where the deadline is short.
pub(super) const PROGRESS: SignedDuration = SignedDuration::from_secs(30);
/// Longest time by which looks for evidence are spread.
pub(super) const LONGEST_SPREAD: SignedDuration = SignedDuration::from_secs(5);
/// When to look again at a change under way if nothing else happens.
pub(super) const LATER: SignedDuration = SignedDuration::from_mins(1);

/// One decision in the making.
pub(super) struct Turn<'a> {
    pub(super) observation: &'a Observation,
    pub(super) proposal: &'a Proposal,
    pub(super) look_again_at: Option<Timestamp>,
    /// Whether all gates were open.
    pub(super) went_on: bool,
    /// Who was behind the change that ended just now, as far as they are behind the next one, too.
    pub(super) behind: Behind,
    /// A first revision that serves now: the status needs it no more, its record and Event do.
    pub(super) ended: Option<Change>,
    /// The kind of the closed gate.
    pub(super) waits: Option<WaitingKind>,
}

/// People who are behind a change.
#[derive(Default)]
pub(super) struct Behind {
    pub(super) changed_by: BTreeSet<String>,
    pub(super) barred: Barred,
}

impl Behind {
    /// Another provenance for the same pods has the same people behind it. What was never promoted lives on
    /// in what replaces it: an edit by somebody else makes nobody the approver of their own change.
    pub(super) fn of(change: Change, proposal: &Proposal) -> Self {
        if change.outcome != Some(Outcome::Promoted) {
            return Self {
                changed_by: change.changed_by,
                barred: change.barred,
            };
        }
        let same = change.template_digest == proposal.template_digest;
        Self {
            changed_by: if same {
                change.changed_by
            } else {
                BTreeSet::new()
            },
            barred: Barred::default(),
        }
    }
}

/// Whether a change that has ended is what is asked for still: after a regression the pods count, whoever
/// is said to have written them.
#[must_use]
pub fn is_same(change: &Change, proposal: &Proposal) -> bool {
    let mut lines = change.transitions.iter().rev();
    let regressed = lines.any(|line| line.reason == reason::REGRESSED);
    change.digest == proposal.digest
        || (regressed && change.template_digest == proposal.template_digest)
}
