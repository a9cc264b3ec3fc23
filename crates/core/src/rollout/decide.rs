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
//! A promoted change may still be watched; if it regresses, it is rolled back too.
//!
//! One decision makes at most one transition. The status is written before any action, and the actions
//! follow from the status alone, so a crash at any point loses nothing.

use countersign_api::rollout::{Change, Outcome, RolloutStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;

use crate::change;
use crate::decision::{Action, Decision, Notice};
use crate::hold::Hold;
use crate::limits::LINE_MESSAGE;
use crate::observation::Observation;
use crate::people::answers;
use crate::people::sign_off::{self, SignOffs};
use crate::proposal::Proposal;
use crate::queue::dependencies;
use crate::reason::Reason;
use crate::replicas::present;
use crate::rollout::context::{Behind, Context, Progress};
use crate::rollout::requeue::Requeue;
use crate::rollout::{
    actions, advance, commands, events, finish, record, start, status, transition, write_rate,
};
use crate::text;
use crate::traffic::routes::Routes;
use crate::traffic::view::View;
use crate::traffic::{corrections, services, settle};
use crate::workload::{adoption, scaling, smoke_job, tampering};

/// Decides what to do about one Rollout. Pure: the same observation always gives the same decision.
#[must_use]
pub fn decide(observation: &Observation) -> Decision {
    let proposal = Proposal::of(observation);
    let routes = Routes::of(observation);
    let context = Context::of(observation, &proposal, &routes);
    let mut requeue = Requeue::new(observation.now);
    let mut state = observation.status.clone();
    (state.collision_count, state.waiting_kind) = (proposal.collision_count, None);
    let change = state.change.take();
    let step = step(&context, &mut state, change, &mut requeue);
    state.change = step.change;
    replace_edited(&context, &mut state, &mut requeue);
    if is_rolled_back(&state) && !is_rolled_back(&observation.status) {
        state.last_rollback_at = Some(Time(observation.now));
    }
    let (hold, sign_offs) = (step.hold, step.sign_offs);
    let sign_offs = sign_offs.or_else(|| {
        let change = state.change.as_ref()?;
        Some(SignOffs::of(observation, &proposal, change))
    });
    begin_first(observation, &mut state, hold.as_ref(), sign_offs.as_ref());

    let (stable, change) = (state.stable.as_ref(), state.change.as_ref());
    let view = View::of(observation, &routes, stable, change, None);
    let split = settle::split(&view);
    let view = View {
        split: split.as_ref(),
        ..view
    };
    requeue.for_traffic(&view);
    let recorded = step.ended.as_ref().or(change);
    let record = recorded.and_then(|change| record::of(observation, &proposal, change));
    let answers = answers::of(observation, change, sign_offs.as_ref());
    let mut adopted = state.adopted.clone();
    let mut actions = writes(&view, &proposal, &state, hold.as_ref());
    requeue.after_acting(&view, &actions, step.went_on && step.ended.is_none());
    let adoption = adoption::step(&view, &proposal, &mut adopted, &actions);
    actions.extend(adoption.actions);
    let due = [scaling::next_answer(observation), adoption.requeue_at];
    due.into_iter().flatten().for_each(|at| requeue.at(at));
    let hold = adoption.hold.or(hold);
    let mut notices = events::notices(observation, recorded);
    let described = status::describe(&view, &proposal, adopted.as_ref(), hold.as_ref());
    let others = [
        corrections::notices(&view, &actions),
        services::correction_notices(&view, &actions),
        adoption.notices,
        smoke_job::tampered_notice(observation, change)
            .into_iter()
            .collect(),
        services::canary_serves_notice(&view, &actions)
            .into_iter()
            .collect(),
        services::release_notices(&actions, observation),
    ];
    let services = services::kept_services(&view);
    let decided = RolloutStatus {
        traffic: split,
        services,
        adopted,
        ..state
    };
    let mut status = status::with_description(decided, described);
    match write_rate::throttle_status_write(observation, &mut status, hold.as_ref()) {
        Some(at) => requeue.at(at),
        None => notices.extend(events::hold_notice(observation, hold.as_ref())),
    }
    notices.extend(others.into_iter().flatten());
    Decision {
        status,
        actions,
        answers,
        notices: notices.into_iter().map(sanitized).collect(),
        record,
        requeue_at: requeue.earliest(),
        awaits_traffic: requeue.awaits_traffic(),
    }
}

fn is_rolled_back(status: &RolloutStatus) -> bool {
    let change = status.change.as_ref();
    change.is_some_and(|change| change.outcome == Some(Outcome::RolledBack))
}

/// Replaces an edited ReplicaSet of a revision in use, and keeps what admission made of the others.
fn replace_edited(context: &Context, status: &mut RolloutStatus, requeue: &mut Requeue) {
    let observation = context.observation;
    tampering::keep_admitted(observation, status);
    tampering::rename_taken(observation, context.proposal, status);
    let Some(message) = tampering::replace(observation, context.proposal, status) else {
        return;
    };
    // Without a change under way the Event of the hold is the record.
    match &mut status.change {
        Some(change) if change.outcome.is_some() => {
            change.progressed_at = Some(Time(observation.now)); // the new pods have their whole time
        }
        Some(change) if !change.initial => {
            transition::record(context, change, Reason::Tampered, message);
        }
        Some(_) | None => {}
    }
    requeue.after(SignedDuration::ZERO);
}

/// Remembers that a first revision may have pods: its dependencies are stable and its people have signed. The
/// order in which the gates are evaluated does not matter.
fn begin_first(
    observation: &Observation,
    status: &mut RolloutStatus,
    hold: Option<&Hold>,
    sign_offs: Option<&SignOffs>,
) {
    let Some(change) = status.change.as_mut().filter(|it| is_first(it)) else {
        return;
    };
    let depends = dependencies::awaited_dependencies(observation, change).is_some();
    let unsigned = sign_offs
        .and_then(|sign_offs| sign_off::first_awaited(observation, change, sign_offs))
        .is_some();
    let set = present::with_hash(observation, Some(&change.pod_template_hash));
    let is_held = hold.is_some_and(|it| it.holds_promotion(Some(&*change)));
    // What has pods already keeps them under another hold.
    let may = !depends && !unsigned && (!is_held || set.is_some_and(|set| set.replicas > 0));
    change.begun |= may;
}

fn is_first(change: &Change) -> bool {
    change.initial && change.outcome.is_none()
}

/// Messages of Events quote foreign text.
fn sanitized(notice: Notice) -> Notice {
    Notice {
        message: text::sanitize_to(&notice.message, LINE_MESSAGE),
        ..notice
    }
}

/// The writes that bring the cluster nearer to the status, except for an adopted workload.
fn writes(
    view: &View,
    proposal: &Proposal,
    status: &RolloutStatus,
    hold: Option<&Hold>,
) -> Vec<Action> {
    let (observation, change) = (view.observation, view.change);
    let waits = change.is_some_and(|change| is_first(change) && !change::has_begun(change));
    let stays = waits || hold.is_some_and(|it| it.holds_promotion(change));
    let mut actions = actions::actions(view, proposal, status.adopted.as_ref(), stays);
    actions.extend(smoke_job::actions(observation, change, hold));
    actions
}

/// The result of a decision for the change in the status.
#[derive(Default)]
struct Step<'a> {
    /// The change as it is to be written.
    change: Option<Change>,
    /// A first revision that is promoted: no longer part of the status, but of the record and the Event.
    ended: Option<Change>,
    /// The hold, if a gate is closed.
    hold: Option<Hold>,
    /// Whether all gates were open.
    went_on: bool,
    /// The sign-offs, if they were evaluated.
    sign_offs: Option<SignOffs<'a>>,
}

fn step<'a>(
    context: &Context<'a>,
    status: &mut RolloutStatus,
    change: Option<Change>,
    requeue: &mut Requeue,
) -> Step<'a> {
    let (change, hold) = match change {
        None => start::rest_or_start(context, status, Behind::default(), requeue),
        Some(change) if change.outcome.is_some() => {
            finish::finalize(context, status, change, requeue)
        }
        Some(mut change) if context.observation.deleting => {
            finish::abort_for_deletion(context, &mut change, requeue);
            (Some(change), None)
        }
        Some(mut change) if change.digest != context.proposal.digest => {
            let replaced = change.template_digest != context.proposal.template_digest;
            if replaced && advance::has_served(context.observation, &change) {
                advance::keep_first(context, status, &mut change);
                requeue.after(SignedDuration::ZERO);
                return ended(context, change, Step::default());
            }
            finish::supersede(context, &mut change, requeue);
            (Some(change), None)
        }
        Some(change) => return continue_change(context, status, change, requeue),
    };
    Step {
        change,
        hold,
        ..Step::default()
    }
}

/// Advances the change under way as far as people, evidence and gates allow.
fn continue_change<'a>(
    context: &Context<'a>,
    status: &mut RolloutStatus,
    mut change: Change,
    requeue: &mut Requeue,
) -> Step<'a> {
    start::note_people(context, &mut change);
    change.served = advance::has_served(context.observation, &change);
    commands::apply_interventions(context, &mut change, requeue);
    let mut step = Step::default();
    if change.outcome.is_none() {
        let (progress, sign_offs) = advance::advance(context, status, &mut change, requeue);
        step.sign_offs = Some(sign_offs);
        match progress {
            Progress::Held(hold) => step.hold = Some(hold),
            Progress::WentOn => step.went_on = true,
            Progress::RolledBack => {}
        }
    }
    if change.initial && change.outcome == Some(Outcome::Promoted) {
        if context.observation.write_failure.is_none() {
            requeue.clear();
        }
        return ended(context, change, step);
    }
    step.change = Some(change);
    step
}

/// A first revision that is stable: nothing follows for it, and the status keeps it only until it is recorded.
fn ended<'a>(context: &Context<'a>, change: Change, mut step: Step<'a>) -> Step<'a> {
    if context.observation.write_failure.is_none() {
        step.ended = Some(change);
    } else {
        step.change = Some(change);
    }
    step
}
