//! The end of a change.

use countersign_api::rollout::{Change, Outcome, Revision, RolloutStatus, Stage};
use k8s_openapi::jiff::SignedDuration;

use crate::hold::Hold;
use crate::intervals::{POLL_INTERVAL, RESYNC_INTERVAL};
use crate::observation::Observation;
use crate::reason::Reason;
use crate::replicas::present;
use crate::rollout::context::{self, Behind, Context};
use crate::rollout::requeue::Requeue;
use crate::rollout::{advance, commands, gates, start, transition, watch};
use crate::traffic::view::View;
use crate::traffic::{services, settle};
use crate::workload::{cleanup, tampering};
use crate::{change, observation};

/// The Rollout is being deleted: the change under way is aborted, so that stable serves alone before pods
/// are released. A first revision is kept: there is nothing to roll back to.
pub(super) fn abort_for_deletion(context: &Context, change: &mut Change, requeue: &mut Requeue) {
    if !change.initial {
        let message = "the Rollout is being deleted".into();
        transition::roll_back(context, change, requeue, Reason::Aborted, message);
    }
}

/// The template changed while a change was under way.
pub(super) fn supersede(context: &Context, change: &mut Change, requeue: &mut Requeue) {
    let (outcome, why, message) = if is_stable_again(context, context.before.stable) {
        let message = "the template went back to the stable one".into();
        (Outcome::Reverted, Reason::Reverted, message)
    } else {
        let digest = short(&context.proposal.digest);
        let message = format!("another change took its place: {digest}");
        (Outcome::Superseded, Reason::Superseded, message)
    };
    transition::end(context, change, outcome, why, message);
    requeue.after(SignedDuration::ZERO);
}

/// The change has ended: its pods are removed, and the next change waits until the record is complete.
pub(super) fn finalize(
    context: &Context,
    status: &mut RolloutStatus,
    mut change: Change,
    requeue: &mut Requeue,
) -> (Option<Change>, Option<Hold>) {
    let (observation, proposal) = (context.observation, context.proposal);
    let before = change.outcome;
    let promoted = before == Some(Outcome::Promoted);
    // A retry requested before a rollback is ignored.
    if promoted {
        commands::ignore_interventions(observation, &mut change);
        if let Some(stable) = &mut status.stable {
            start::note_provenance(context, stable);
        }
    }
    watch::watch(context, status, &mut change, requeue);
    if change.outcome != before {
        return (Some(change), None); // recorded before anything else begins
    }
    if change.stage == Stage::RollingBack {
        note_return(context, status, &mut change);
    }
    let Ending {
        gone,
        traffic_is_back,
    } = ending(context, status, &change);
    if gone && change.stage == Stage::RollingBack {
        change.stage = Stage::RolledBack;
        let message = "the rejected revision has no pods left".into();
        transition::record(context, &mut change, Reason::RolledBack, message);
    }
    // A failed change stays failed until the template or its provenance changes.
    let same = context::is_same(&change, proposal);
    let over = match change.outcome {
        Some(Outcome::Promoted) => {
            let replaced = change.template_digest != proposal.template_digest;
            replaced || (gone && !change::is_watched(&change) && change.kept_until.is_none())
        }
        Some(Outcome::RolledBack) if same => {
            gone && commands::is_retried(context, &mut change, requeue)
        }
        _ => gone || !is_stable_again(context, status.stable.as_ref()),
    };
    // The next change is unknown while the adopted workload cannot be read.
    let unreadable = observation::is_unreadable(observation) && !observation.deleting;
    let over = over && traffic_is_back && (!unreadable || promoted);
    let starts = !observation.deleting && !is_stable_again(context, status.stable.as_ref());
    let obstacle =
        || gates::unreadable_policy(observation).or_else(|| start::obstacle(observation));
    if over
        && starts
        && let Some(hold) = obstacle()
    {
        requeue.after(POLL_INTERVAL);
        return (Some(change), Some(hold)); // who must not sign is known by the ended change
    }
    if over && (observation.recorded || ended_long_ago(observation, &change)) {
        let behind = Behind::of(change, proposal);
        return start::rest_or_start(context, status, behind, requeue);
    }
    commands::ignore_interventions(observation, &mut change);
    requeue.after(if over || !traffic_is_back {
        POLL_INTERVAL
    } else {
        RESYNC_INTERVAL
    });
    // What failed stays as it is until an event: an edit or a retry.
    let failed = change.stage == Stage::RolledBack && change.outcome == Some(Outcome::RolledBack);
    if failed && same && !unreadable && !over && !commands::is_to_be_retried(&change) {
        requeue.clear();
    }
    let lost = || gates::stable_lost(observation, status.stable.as_ref());
    let hold = tampering::hold(observation).or_else(lost);
    (Some(change), hold)
}

/// Stable pods that become available after a rollback are progress.
fn note_return(context: &Context, status: &RolloutStatus, change: &mut Change) {
    let stable = status.stable.as_ref();
    let stable = stable.map(|it| it.pod_template_hash.as_str());
    let reached = present::reached(context.observation, stable, 0);
    let requested = present::requested(
        context.observation,
        stable,
        context.before.fleet.limits.desired,
    );
    let reached = advance::at_most(requested, reached);
    advance::note_progress(context.observation, change, reached);
}

/// The state in which an ended change has left the cluster.
struct Ending {
    /// The pods are gone and the traffic is where it should be.
    gone: bool,
    /// The next change would begin neither with the share of this one nor before stable serves again.
    traffic_is_back: bool,
}

fn ending(context: &Context, status: &RolloutStatus, change: &Change) -> Ending {
    let (observation, routes) = (context.observation, context.before.routes);
    let (stable, split) = (status.stable.as_ref(), status.traffic.as_ref());
    let view = View::of(observation, routes, stable, Some(change), split);
    Ending {
        gone: cleanup::stable_is_alone(&view),
        traffic_is_back: change.outcome == Some(Outcome::Promoted)
            || (settle::is_over(&view) && !services::stable_side_waits(&view))
            || change::is_overdue(observation, change),
    }
}

/// Whether the spec requests the stable revision again.
fn is_stable_again(context: &Context, stable: Option<&Revision>) -> bool {
    stable.is_some_and(|stable| stable.template_digest == context.proposal.template_digest)
}

/// A record that cannot be written must not block a fix forever.
fn ended_long_ago(observation: &Observation, change: &Change) -> bool {
    let ended = change.transitions.last().and_then(|line| line.at.as_ref());
    ended.is_none_or(|at| observation.now.duration_since(at.0) >= RESYNC_INTERVAL)
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}
