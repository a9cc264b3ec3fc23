//! The watch after a promotion, and the rollback from it.

use countersign_api::objective::OnBurn;
use countersign_api::rollout::{Change, Outcome, RolloutStatus};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::analysis::verdict::{self, Verdict};
use crate::analysis::{budget, summary};
use crate::change;
use crate::observation::Observation;
use crate::proposal;
use crate::reason::Reason;
use crate::replicas::present;
use crate::rollout::context::Context;
use crate::rollout::requeue::Requeue;
use crate::rollout::{judge, transition};

/// After the promotion a change is watched by checks that need no comparison. If one fails, or the template
/// is reverted, the previous revision becomes stable again, without steps.
pub(super) fn watch(
    context: &Context,
    status: &mut RolloutStatus,
    change: &mut Change,
    requeue: &mut Requeue,
) {
    let observation = context.observation;
    let Some(previous) = &change.previous else {
        return;
    };
    if previous.template_digest == context.proposal.template_digest {
        let message = "the template went back to the previous revision".into();
        let end = (Outcome::Reverted, Reason::Reverted, message);
        restore_previous(context, status, change, requeue, end);
        return;
    }
    keep_previous(observation, change, requeue);
    let Some(until) = change.watched_until.clone() else {
        return;
    };
    let verdict = judge::judge(context, change, requeue);
    let broken = match verdict {
        Verdict::Fail { message } => Some(message),
        _ => budget::burns(change, OnBurn::RollBack),
    };
    if let Some(message) = broken {
        let end = (Outcome::RolledBack, Reason::Regressed, message);
        restore_previous(context, status, change, requeue, end);
        return;
    }
    requeue.for_evidence(observation, change);
    if observation.now < until.0 {
        requeue.at(until.0);
        return;
    }
    let judged = verdict::has_counted_until(change, until.0);
    let deadline =
        change::progress_timeout(observation).saturating_add(observation.analysis.lag.signed());
    let latest = until.0.saturating_add(deadline).unwrap_or(Timestamp::MAX);
    if !judged && observation.now < latest {
        return; // the last windows are not read yet
    }
    change.watched_until = None;
    keep_previous(observation, change, requeue);
    let message = if judged {
        format!("nothing broke for {}", change.post_promotion)
    } else {
        let seen = summary::line(&change.evidence);
        format!(
            "it could not be judged to the end of {}: {seen}",
            change.post_promotion
        )
    };
    transition::record(context, change, Reason::Watched, message);
}

/// The previous revision is recorded while its pods are kept or the change is watched.
fn keep_previous(observation: &Observation, change: &mut Change, requeue: &mut Requeue) {
    match &change.kept_until {
        Some(until) if until.0 > observation.now => requeue.at(until.0),
        _ => change.kept_until = None,
    }
    if change.kept_until.is_none() && change.watched_until.is_none() {
        change.previous = None;
    }
}

/// Makes the previous revision the stable one again, if its ReplicaSet still exists.
fn restore_previous(
    context: &Context,
    status: &mut RolloutStatus,
    change: &mut Change,
    requeue: &mut Requeue,
    (outcome, why, message): (Outcome, Reason, String),
) {
    let observation = context.observation;
    (change.watched_until, change.kept_until) = (None, None);
    let Some(previous) = change.previous.take() else {
        return;
    };
    let is_kept = observation.replica_sets.iter().any(|set| {
        set.owned
            && set.edit().is_none()
            && set.hash == previous.pod_template_hash
            && set.template_digest == previous.template_digest
    });
    if is_kept || proposal::recorded(observation, &previous.template_digest).is_some() {
        let returned = present::reached(observation, Some(&previous.pod_template_hash), 0);
        status.stable = Some(previous);
        transition::end(context, change, outcome, why, message);
        change.progress = returned;
    } else {
        let message = format!("the previous revision is no longer kept: {message}");
        transition::record(context, change, Reason::PreviousMissing, message);
    }
    requeue.after(SignedDuration::ZERO);
}
