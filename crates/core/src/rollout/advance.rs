//! The next step of a change.

use countersign_api::Duration;
use countersign_api::rollout::{Change, Loss, Outcome, Reached, RolloutStatus, Stage};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::analysis::gather;
use crate::change;
use crate::intervals::RESYNC_INTERVAL;
use crate::observation::Observation;
use crate::people::freeze;
use crate::people::sign_off::SignOffs;
use crate::queue::concurrency;
use crate::reason::Reason;
use crate::replicas::{Share, present};
use crate::rollout::context::{Context, Judgement, PROGRESS, Progress};
use crate::rollout::requeue::Requeue;
use crate::rollout::{commands, conditions, gates, judge, observe, transition, waiting};
use crate::traffic::view::View;
use crate::workload::smoke;

/// Advances a change under way: evidence is judged first, then the gates are evaluated.
pub(super) fn advance<'a>(
    context: &Context<'a>,
    status: &mut RolloutStatus,
    change: &mut Change,
    requeue: &mut Requeue,
) -> (Progress, SignOffs<'a>) {
    let observation = context.observation;
    requeue.after(RESYNC_INTERVAL);
    observe::announce(context, change);
    judge::tighten(context, change);
    let verdict = judge::judge(context, change, requeue);
    judge::void_if_edited(observation, change);
    let sign_offs = SignOffs::of(observation, context.proposal, change);
    let freezes = freeze::freezes(observation, &context.proposal.effective, change.tier);
    commands::record_sign_offs(context, change, &sign_offs);
    commands::record_smoke_result(context, change);
    let against = judge::verdict_against(context, change, &verdict, &sign_offs, &freezes);
    if let Some((why, message)) = against {
        transition::roll_back(context, change, requeue, why, message);
        return (Progress::RolledBack, sign_offs);
    }
    let moments = [freezes.requeue_at, sign_offs.next_expiry()];
    moments.into_iter().flatten().for_each(|at| requeue.at(at));
    // A Rollout of 0 replicas needs no pods and produces no evidence.
    let idle = observation.spec.replicas == 0;
    let serves = gates::serves(context, change) && !idle;
    note_service(observation, change, serves);
    note_growth(&context.before, change);
    let scarce_accepted = judge::accepts_scarcity(observation, change, &verdict, &sign_offs);
    let judgement = Judgement {
        verdict,
        scarce_accepted,
        sign_offs,
        freezes,
    };
    let hold = gates::first_closed(context, change, &judgement);
    requeue.for_evidence(observation, change);
    smoke::keep_progress(observation, change, hold.as_ref());
    concurrency::keep_place(observation, change, hold.as_ref());
    let progress = if let Some(hold) = hold {
        waiting::wait(context, status, change, hold, requeue)
    } else {
        take_next_step(context, status, change, &judgement);
        Progress::WentOn
    };
    (progress, judgement.sign_offs)
}

/// Bake and warm-up count only while the pods of the step are available. If all pods were lost, the warm-up
/// restarts with the new ones.
fn note_service(observation: &Observation, change: &mut Change, serves: bool) {
    if change.stage != Stage::Stepping {
        return;
    }
    let now = observation.now;
    let cold = present::available(observation, Some(&change.pod_template_hash)) == 0;
    match (&mut change.available_at, &mut change.lost) {
        (None, _) if serves => {
            change.available_at = Some(Time(now));
            change.progressed_at = Some(Time(now));
        }
        (Some(_), None) if !serves => {
            let since = Time(now);
            change.lost = Some(Loss { since, all: cold });
        }
        (Some(_), Some(lost)) if !serves => lost.all |= cold,
        (Some(since), Some(lost)) => {
            let missed = now.duration_since(lost.since.0);
            since.0 = since.0.saturating_add(missed).unwrap_or(now);
            if lost.all {
                change.warm_from = Some(Time(now));
            }
            change.lost = None;
        }
        _ => {}
    }
}

/// Each canary pod that is created or becomes available is progress, as for a Deployment; so is each share
/// that the routers have applied.
fn note_growth(view: &View, change: &mut Change) {
    let (observation, limits) = (view.observation, view.fleet.limits);
    let goal = match change.stage {
        Stage::Stepping => present::step_goal(limits, change).canary,
        Stage::Promoting => limits.desired,
        _ => return,
    };
    let hash = Some(change.pod_template_hash.as_str());
    let requested = present::requested(observation, hash, goal);
    let settled = view.split.filter(|split| split.settled_at.is_some());
    let weight = settled.map_or(0, |split| split.settled_weight.min(change.weight));
    let reached = at_most(requested, present::reached(observation, hash, weight));
    // After a scale-down, pods added later are progress again.
    change.progress = at_most(requested, change.progress);
    note_progress(observation, change, reached);
}

/// Pods beyond the requested number are not progress.
pub(super) fn at_most(pods: i32, reached: Reached) -> Reached {
    Reached {
        pods: reached.pods.min(pods),
        available: reached.available.min(pods),
        ..reached
    }
}

/// Progress is written a few times per deadline, not with every pod.
pub(super) fn note_progress(observation: &Observation, change: &mut Change, reached: Reached) {
    let before = change.progress;
    let more = reached.pods > before.pods
        || reached.available > before.available
        || reached.weight > before.weight;
    let since = change.progressed_at.as_ref();
    let lately = since.is_some_and(|at| {
        let interval = (change::progress_timeout(observation) / 10).min(PROGRESS);
        observation.now.duration_since(at.0) < interval
    });
    if more && !lately {
        change.progress = Reached {
            pods: reached.pods.max(before.pods),
            available: reached.available.max(before.available),
            weight: reached.weight.max(before.weight),
        };
        change.progressed_at = Some(Time(observation.now));
    }
}

/// All gates are open.
fn take_next_step(
    context: &Context,
    status: &mut RolloutStatus,
    change: &mut Change,
    judgement: &Judgement,
) {
    let verdict = &judgement.verdict;
    observe::at_step(context, change, judgement);
    if judgement.scarce_accepted {
        let message = format!(
            "scarce evidence is accepted: {}",
            transition::verdict_line(verdict)
        );
        transition::record(context, change, Reason::ScarceEvidenceAccepted, message);
    }
    let next = usize::try_from(change.step).unwrap_or(0);
    let steps = change.plan.steps.len();
    let weight = change.plan.steps.get(next).map(|step| step.weight);
    match (change.stage, weight) {
        (Stage::Promoting, _) => promote(context, status, change),
        (_, Some(weight)) => {
            transition::enter(context, change, Stage::Stepping, weight);
            change.step += 1;
            let because = match next {
                0 => "the first step".into(),
                _ => transition::verdict_line(verdict),
            };
            let message = format!("step {} of {steps}, weight {weight}%: {because}", next + 1);
            transition::record(context, change, Reason::StepStarted, message);
        }
        (_, None) => {
            transition::enter(context, change, Stage::Promoting, 100);
            let passed = match steps {
                1 => "the only step has passed".to_owned(),
                steps => format!("all {steps} steps have passed"),
            };
            let message = format!("{passed}: {}", transition::verdict_line(verdict));
            transition::record(context, change, Reason::Promoting, message);
        }
    }
}

/// Whether a first revision has had a ready pod that it may have, to which Services send. Where pods of others serve beside it, a
/// Service would move from them to an incomplete revision.
pub(super) fn has_served(observation: &Observation, change: &Change) -> bool {
    let set = present::with_hash(observation, Some(&change.pod_template_hash));
    let alone =
        observation.spec.workload_ref.is_none() && !conditions::has_foreign_pods(observation);
    let serves = || change.begun && set.is_some_and(|set| set.ready > 0);
    change.initial && alone && (change.served || serves())
}

/// A first revision that has served is what the next change is compared with, complete or not: otherwise each
/// change could take the place of a first one that never becomes complete, past all gates.
pub(super) fn keep_first(context: &Context, status: &mut RolloutStatus, change: &mut Change) {
    let message = format!(
        "revision {} is stable now, the first: it has served, and a newer change is there",
        change.revision
    );
    make_stable(context, status, change, message);
}

fn promote(context: &Context, status: &mut RolloutStatus, change: &mut Change) {
    let (revision, tier, score) = (change.revision, change.tier, change.score);
    let message = if change.initial {
        format!(
            "revision {revision} is stable now, the first: tier {tier} with {score:.1} points, and nothing to compare it with"
        )
    } else {
        format!("revision {revision} is stable now")
    };
    make_stable(context, status, change, message);
}

fn make_stable(
    context: &Context,
    status: &mut RolloutStatus,
    change: &mut Change,
    message: String,
) {
    transition::end(
        context,
        change,
        Outcome::Promoted,
        Reason::Promoted,
        message,
    );
    let delay = context.observation.spec.strategy.canary.scale_down_delay;
    // Without a Service or a route that leaves it out, a revision that is kept gets its part of the requests.
    let may_keep = context.before.fleet.limits.share != Share::Pods;
    if delay > Duration::default() && !change.initial && may_keep {
        let until = context.observation.now.saturating_add(delay.signed());
        change.kept_until = until.ok().map(Time);
        change.previous.clone_from(&status.stable);
    }
    if change.post_promotion > Duration::default() && !change.initial {
        let watch = change.post_promotion.signed();
        let until = context.observation.now.saturating_add(watch);
        change.watched_until = until.ok().map(Time);
        change.previous.clone_from(&status.stable);
        let shares = transition::shares(change);
        gather::rearm(&mut change.evidence, shares);
        gather::begin_watch(change, &Time(context.observation.now));
    }
    status.stable = Some(change::revision(change));
}
