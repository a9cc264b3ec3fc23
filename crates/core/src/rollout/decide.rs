//! The state machine: from one observation to one decision.
//!
//! ```text
//!            change seen            gates open            last step done         pods available
//!   Stable ───────────── Waiting ───────────── Stepping ───────────────── Promoting ─────────── Promoted
//!     ▲                     │                     │  ▲ next step              │                    │
//!     │                     │ evidence fails, a deadline passes, a newer or  │                    │
//!     │                     ▼ the stable template appears                    ▼                    │
//!     │                RollingBack ──────────── RolledBack (Degraded until the template changes)  │
//!     └───────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! What was promoted may be watched on: where it breaks, it is rolled back too.
//!
//! One decision makes at most one transition; it is written to the status before anything is done
//! about it, and what is done follows from the status alone, so a crash at any point loses nothing.

use countersign_api::rollout::{Outcome, RolloutStatus};

use crate::decision::Decision;
use crate::hold::Hold;
use crate::observation::Observation;
use crate::people::answers;
use crate::proposal::Proposal;
use crate::queue::dependencies;
use crate::rollout::context::{Behind, MAX_MESSAGE, Turn};
use crate::rollout::{actions, events, record, status, write_rate};
use crate::text;
use crate::traffic::{corrections, services, settle};
use crate::workload::{adoption, scaling, smoke_job};

/// Decides what to do about one Rollout. Pure: the same observation always gives the same decision.
#[must_use]
pub fn decide(observation: &Observation) -> Decision {
    let proposal = Proposal::of(observation);
    let mut status = observation.status.clone();
    status.collision_count = proposal.collision_count;
    let mut turn = Turn {
        observation,
        proposal: &proposal,
        look_again_at: None,
        went_on: false,
        behind: Behind::default(),
        ended: None,
        waits: None,
    };
    let hold = turn.take(&mut status);
    status.waiting_kind = turn.waits;
    let answers = answers::of(observation, &proposal, &status);
    let told = turn.ended.as_ref().or(status.change.as_ref());
    let record = told.and_then(|change| record::of(observation, &proposal, change));
    settle::note(observation, &mut status);
    services::note_services(observation, &mut status);
    turn.look_at_traffic(&status);
    // A first revision gets no pods before what it depends on is stable, whichever gate is asked first.
    let begun = status.change.as_ref();
    let depends = begun
        .is_some_and(|change| dependencies::awaited_dependencies(observation, change).is_some());
    let mut actions = actions::actions(
        observation,
        &proposal,
        &status,
        depends || hold.as_ref().is_some_and(|it| it.holds_promotion(begun)),
    );
    actions.extend(smoke_job::actions(observation, &status, hold.as_ref()));
    turn.look_again_after_acting(&status, &actions);
    if let Some(due) = scaling::next_answer(observation) {
        turn.look_again(due);
    }
    let adoption = adoption::step(observation, &proposal, &mut status, &actions);
    actions.extend(adoption.actions);
    adoption
        .look_again_at
        .into_iter()
        .for_each(|at| turn.look_again(at));
    let hold = adoption.hold.or(hold);
    let mut notices = events::notices(observation, turn.ended.as_ref().or(status.change.as_ref()));
    status::describe(observation, &proposal, &mut status, hold.as_ref());
    if let Some(at) = write_rate::keep_quiet(observation, &mut status, hold.as_ref()) {
        turn.look_again(at);
    } else {
        notices.extend(events::hold_notice(observation, hold.as_ref()));
    }
    notices.extend(corrections::correction_notice(observation, &status));
    notices.extend(adoption.notices);
    notices.extend(services::stand_in_notice(observation, &status, &actions));
    notices.extend(services::release_notices(&actions, observation));
    // Much of what is told are the words of others.
    for notice in &mut notices {
        notice.message = text::shown(&notice.message, MAX_MESSAGE);
    }
    Decision {
        status,
        actions,
        answers,
        notices,
        record,
        look_again_at: turn.look_again_at,
    }
}

impl Turn<'_> {
    pub(super) fn take(&mut self, status: &mut RolloutStatus) -> Option<Hold> {
        match status.change.take() {
            None => self.rest_or_start(status),
            Some(change) if change.outcome.is_some() => self.conclude(status, change),
            Some(change) if self.observation.deleting => {
                self.leave(status, change);
                None
            }
            Some(change) if change.digest != self.proposal.digest => {
                self.replace(status, change);
                None
            }
            Some(mut change) => {
                self.note_people(&mut change);
                self.hear_interventions(&mut change);
                let hold = if change.outcome.is_none() {
                    self.advance(status, &mut change)
                } else {
                    None
                };
                // Nothing follows for it; where it could not be recorded the status keeps it for that.
                let over = change.initial && change.outcome == Some(Outcome::Promoted);
                if over && self.observation.write_failure.is_none() {
                    self.look_again_at = None;
                    self.ended = Some(change);
                } else {
                    status.change = Some(change);
                }
                hold
            }
        }
    }
}
