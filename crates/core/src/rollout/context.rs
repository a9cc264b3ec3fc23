//! The inputs of one decision.

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

/// Requeue interval for the pods of a first revision; a watch reports them as well.
pub(super) const FIRST_PODS: SignedDuration = SignedDuration::from_secs(15);
/// Requeue interval while routes and Services differ from the desired state.
pub(super) const TRAFFIC: SignedDuration = SignedDuration::from_millis(500);
/// Least time between two writes of progress; less if the progress deadline is short.
pub(super) const PROGRESS: SignedDuration = SignedDuration::from_secs(30);
/// Largest offset by which evidence reads of different Rollouts are spread.
pub(super) const LONGEST_SPREAD: SignedDuration = SignedDuration::from_secs(5);

/// The inputs of one decision, computed once before anything is decided.
#[derive(Debug)]
pub struct Context<'a> {
    /// The observation.
    pub observation: &'a Observation,
    /// What the spec requests.
    pub proposal: &'a Proposal,
    /// The view of the previous status.
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

/// The evidence, sign-offs and freezes that apply to a change at its gates.
#[derive(Debug)]
pub struct Judgement<'a> {
    /// The verdict of the analysis.
    pub verdict: Verdict,
    /// Whether scarce but clean evidence is accepted now, by the tier or by a person.
    pub scarce_accepted: bool,
    /// The sign-offs.
    pub sign_offs: SignOffs<'a>,
    /// The freezes.
    pub freezes: Freezes,
}

/// How far a decision advances a change under way.
#[derive(Debug)]
pub(super) enum Progress {
    /// A gate is closed.
    Held(Hold),
    /// All gates were open.
    WentOn,
    /// The change was rolled back.
    RolledBack,
}

/// The people behind a change.
#[derive(Default)]
pub(super) struct Behind {
    pub(super) changed_by: BTreeSet<String>,
    pub(super) excluded_approvers: ExcludedApprovers,
    /// Whether the same pods were let go as a first revision, and have served.
    pub(super) begun: bool,
    pub(super) served: bool,
}

impl Behind {
    /// The same pods with another provenance have the same people. Changers of a change that was never
    /// promoted carry over to its replacement, so that an edit by another person makes nobody an approver.
    pub(super) fn of(change: Change, proposal: &Proposal) -> Self {
        let same_pods = change.initial && change.pod_template_hash == proposal.hash;
        if change.outcome != Some(Outcome::Promoted) {
            return Self {
                changed_by: change.changed_by,
                excluded_approvers: change.excluded_approvers,
                begun: same_pods && change.begun,
                served: same_pods && change.served,
            };
        }
        let same = change.template_digest == proposal.template_digest;
        Self {
            changed_by: if same {
                change.changed_by
            } else {
                BTreeSet::new()
            },
            ..Self::default()
        }
    }
}

/// Whether a change that has ended is still the requested one, wherever traffic goes now. After a regression only
/// the pods count, not their declared authors.
#[must_use]
pub fn is_same(change: &Change, proposal: &Proposal) -> bool {
    let mut lines = change.transitions.iter().rev();
    let regressed = lines.any(|line| line.reason == Reason::Regressed);
    let declared = change.provenance_digest == proposal.provenance_digest;
    change.digest == proposal.digest
        || (change.template_digest == proposal.template_digest && (regressed || declared))
}
