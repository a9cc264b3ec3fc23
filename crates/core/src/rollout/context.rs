//! What one decision works with.

use std::collections::BTreeSet;

use countersign_api::rollout::{Change, ExcludedApprovers, Outcome};
use k8s_openapi::jiff::SignedDuration;

use crate::analysis::verdict::Verdict;
use crate::hold::Hold;
use crate::observation::Observation;
use crate::people::freeze::Freezes;
use crate::people::sign_off::SignOffs;
use crate::proposal::Proposal;
use crate::reason::Reason;
use crate::traffic::routes::Routes;
use crate::traffic::view::View;

/// When to look again at what no watch reports.
pub(super) const POLL_INTERVAL: SignedDuration = SignedDuration::from_secs(5);
/// The same for pods of a first revision: that they are there is reported, and there is no way back.
pub(super) const FIRST_PODS: SignedDuration = SignedDuration::from_secs(15);
/// When to look again while routes and Services are not as they should be.
pub(super) const TRAFFIC: SignedDuration = SignedDuration::from_millis(500);
/// How often progress is noted at most; more often where the deadline is short.
pub(super) const PROGRESS: SignedDuration = SignedDuration::from_secs(30);
/// Longest time by which looks for evidence are spread.
pub(super) const LONGEST_SPREAD: SignedDuration = SignedDuration::from_secs(5);
/// When to look again at a change under way if nothing else happens.
pub(super) const RESYNC_INTERVAL: SignedDuration = SignedDuration::from_mins(1);

/// What one decision works with: worked out once, before anything is decided.
#[derive(Debug)]
pub struct Context<'a> {
    /// The observation.
    pub observation: &'a Observation,
    /// What the spec asks for.
    pub proposal: &'a Proposal,
    /// What follows from the status as it was.
    pub before: View<'a>,
}

impl<'a> Context<'a> {
    pub(super) fn of(
        observation: &'a Observation,
        proposal: &'a Proposal,
        routes: &'a Routes<'a>,
    ) -> Self {
        let status = &observation.status;
        let (stable, change) = (status.stable.as_ref(), status.change.as_ref());
        let split = status.traffic.as_ref();
        Self {
            observation,
            proposal,
            before: View::of(observation, routes, stable, change, split),
        }
    }
}

/// What evidence and people say to a change at its gates.
#[derive(Debug)]
pub struct Judgement<'a> {
    /// What the evidence says.
    pub verdict: Verdict,
    /// Whether scarce but clean evidence is accepted now, by the tier or by a person.
    pub scarce_accepted: bool,
    /// What people have signed.
    pub sign_offs: SignOffs<'a>,
    /// What the freezes say.
    pub freezes: Freezes,
}

/// How far a decision takes a change that is under way.
#[derive(Debug)]
pub(super) enum Progress {
    /// A gate is closed.
    Held(Hold),
    /// All gates were open.
    WentOn,
    /// It ends without a promotion.
    RolledBack,
}

/// People who are behind a change.
#[derive(Default)]
pub(super) struct Behind {
    pub(super) changed_by: BTreeSet<String>,
    pub(super) excluded_approvers: ExcludedApprovers,
}

impl Behind {
    /// Another provenance for the same pods has the same people behind it. What was never promoted lives on
    /// in what replaces it: an edit by somebody else makes nobody the approver of their own change.
    pub(super) fn of(change: Change, proposal: &Proposal) -> Self {
        if change.outcome != Some(Outcome::Promoted) {
            return Self {
                changed_by: change.changed_by,
                excluded_approvers: change.excluded_approvers,
            };
        }
        let same = change.template_digest == proposal.template_digest;
        Self {
            changed_by: if same {
                change.changed_by
            } else {
                BTreeSet::new()
            },
            excluded_approvers: ExcludedApprovers::default(),
        }
    }
}

/// Whether a change that has ended is what is asked for still: after a regression the pods count, whoever
/// is said to have written them.
#[must_use]
pub fn is_same(change: &Change, proposal: &Proposal) -> bool {
    let mut lines = change.transitions.iter().rev();
    let regressed = lines.any(|line| line.reason == Reason::Regressed);
    change.digest == proposal.digest
        || (regressed && change.template_digest == proposal.template_digest)
}
