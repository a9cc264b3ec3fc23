//! The number of pods of each revision.

use countersign_api::rollout::{Change, Stage};
use k8s_openapi::jiff::Timestamp;

use crate::decision::{Action, NewReplicaSet, WorkloadAction};
use crate::intervals::CORRECTION_INTERVAL;
use crate::observation::Observation;
use crate::observation::workload::ReplicaSet;
use crate::proposal::{self, Proposal};
use crate::replicas::{self, Limits, Next, Share, Split, present};
use crate::traffic::services;
use crate::traffic::view::View;
use crate::workload::{cleanup, tampering};
use crate::{change, names};

/// Longest name of a ReplicaSet, in characters; leaves room for the suffix of its pods.
const MAX_NAME: usize = 240;

/// The name of a revision's ReplicaSet, by the Rollout's name and the revision's hash.
#[must_use]
pub fn set_name(rollout: &str, hash: &str) -> String {
    names::ending(rollout, hash, MAX_NAME)
}

/// Applies the spec's `minReadySeconds` to the ReplicaSets of stable and canary. A longer time makes
/// serving pods unavailable until it has passed, so the write waits until no share depends on their number.
pub(crate) fn min_ready_seconds(view: &View) -> Vec<Action> {
    let seconds = view.observation.spec.min_ready_seconds;
    let at_rest = view
        .change
        .is_none_or(|change| change.stage == Stage::RolledBack);
    let sets = [view.fleet.stable, view.fleet.canary].into_iter().flatten();
    let outdated = sets.filter(|set| {
        let harmless = seconds < set.min_ready_seconds || set.replicas == 0 || at_rest;
        set.min_ready_seconds != seconds && harmless && !view.observation.deleting
    });
    let action = |set: &ReplicaSet| {
        Action::Workload(WorkloadAction::SetMinReadySeconds {
            replica_set: set.name.clone(),
            seconds,
        })
    };
    outdated.map(action).collect()
}

pub(crate) fn scaling(
    view: &View,
    proposal: &Proposal,
    services_move: bool,
    held: bool,
) -> Vec<Action> {
    let observation = view.observation;
    let roles = present::roles(view.stable, view.change);
    let next = next_pods(view, held);
    let revision = view.change.map_or(0, |change| change.revision);
    let stable_revision = view.stable.map_or(0, |stable| stable.revision);
    let wanted = [
        (
            roles.stable,
            view.fleet.stable,
            next.stable,
            stable_revision,
        ),
        (roles.canary, view.fleet.canary, next.canary, revision),
    ];
    let mut actions = Vec::new();
    for (hash, set, replicas, revision) in wanted {
        let Some(hash) = hash else { continue };
        actions.extend(match set {
            Some(set) => scale(observation, set, replicas, revision),
            None => create(view, proposal, (hash, revision), replicas),
        });
    }
    // Pods that a Service still selects are not removed before the Service has moved, and pods that served
    // not before routers and endpoints have caught up.
    if !services_move {
        let served_out = cleanup::is_served_out(view);
        let others = view.fleet.others.iter().zip(next.others);
        let others = others.filter(|(set, _)| {
            let goes = served_out || set.available == 0;
            goes && !services::is_selected(view, set)
        });
        let same =
            |(set, replicas): (&&ReplicaSet, i32)| scale(observation, set, replicas, set.revision);
        actions.extend(others.filter_map(same));
    }
    actions.extend(view.fleet.kept.and_then(|set| {
        let replicas = kept_pods(view.fleet.limits, set);
        scale(observation, set, replicas, set.revision)
    }));
    actions
}

/// The number of pods of the kept previous revision. It follows the Rollout, but does not grow if stable
/// gave up capacity to the surge.
fn kept_pods(limits: Limits, set: &ReplicaSet) -> i32 {
    let gave_up = match limits.share {
        Share::Services => false,
        Share::RoutesAlone => true,
        Share::Pods | Share::Routes => limits.surge < limits.desired,
    };
    if gave_up {
        set.replicas.min(limits.desired)
    } else {
        limits.desired
    }
}

/// Scales a ReplicaSet, and sets the new revision number of a reused one: the history is ordered by these
/// numbers.
fn scale(
    observation: &Observation,
    set: &ReplicaSet,
    replicas: i32,
    revision: i64,
) -> Option<Action> {
    let repeated = set.requested.is_some_and(|it| it.replicas == replicas);
    let waits = repeated && correction_due(observation, set).is_some();
    let renumbered = set.revision > 0 && set.revision != revision;
    let differs = set.replicas != replicas || renumbered;
    (differs && !waits).then(|| {
        Action::Workload(WorkloadAction::Scale {
            replica_set: set.name.clone(),
            replicas,
            revision,
        })
    })
}

/// When to correct a ReplicaSet that was scaled just after the controller scaled it; `None` if at once.
/// Repeated writes are corrected at most once per `CORRECTION_INTERVAL`.
fn correction_due(observation: &Observation, set: &ReplicaSet) -> Option<Timestamp> {
    let last = set.requested.filter(|it| it.replicas != set.replicas)?;
    let due = last.at.saturating_add(CORRECTION_INTERVAL).ok()?;
    // A clock that was set back must not delay the correction.
    (last.at..due).contains(&observation.now).then_some(due)
}

/// When to requeue for ReplicaSets that another writer keeps scaling.
#[must_use]
pub fn next_answer(observation: &Observation) -> Option<Timestamp> {
    let sets = observation.replica_sets.iter().filter(|set| set.owned);
    sets.filter_map(|set| correction_due(observation, set))
        .min()
}

/// Creates a revision's ReplicaSet from the template in the spec if that has its digest, else that of a stable
/// revision from what recorded it.
fn create(
    view: &View,
    proposal: &Proposal,
    (hash, revision): (&str, i64),
    replicas: i32,
) -> Option<Action> {
    let observation = view.observation;
    let stable = view.stable.filter(|it| it.pod_template_hash == hash);
    let change = view.change.filter(|it| it.pod_template_hash == hash);
    let of_stable = stable.map(|it| &it.template_digest);
    let template_digest = of_stable.or(change.map(|it| &it.template_digest))?;
    let template = if *template_digest == proposal.template_digest {
        &observation.spec.template
    } else {
        proposal::recorded(observation, of_stable?)?
    };
    let first = view
        .change
        .is_none_or(|change| change.initial && change::has_begun(change));
    let orphaned = observation
        .replica_sets
        .iter()
        .any(|set| !set.owned && set.hash == hash);
    // The template of an adopted workload is absent while it cannot be read. A ReplicaSet that was orphaned
    // on deletion is not adopted again.
    let left = template.is_absent() || observation.deleting;
    if orphaned || left || (replicas == 0 && !first) {
        return None;
    }
    let set = NewReplicaSet {
        name: set_name(&observation.name, hash),
        hash: hash.to_owned(),
        template_digest: template_digest.clone(),
        revision,
        replicas,
        template: template.clone(),
    };
    Some(Action::Workload(WorkloadAction::CreateReplicaSet(set)))
}

fn next_pods(view: &View, held: bool) -> Next {
    let (limits, present) = (view.fleet.limits, &view.fleet.pods);
    let kept = || Next {
        stable: present.stable.requested,
        canary: present.canary.requested,
        others: present.others.iter().map(|pods| pods.requested).collect(),
    };
    let at_rest = || replicas::next(limits, 0, replicas::goal(limits, 0, 0), present);
    // May exceed the surge: stable must not wait for room that the pods take which serve in its place.
    let ahead = |next: Next| Next {
        stable: limits.desired.max(next.stable),
        ..next
    };
    // Nor for the room of pods that no longer serve: they may go only after routers and endpoints follow.
    let short = limits.share != Share::Pods && present.stable.available < limits.at_least();
    let waits = services::stable_side_waits(view);
    let at_rest_or_ahead = || {
        if waits || short {
            ahead(at_rest())
        } else {
            at_rest()
        }
    };
    // If the new change runs the previous stable revision, its pods may still receive requests.
    let drains =
        limits.share != Share::Pods && (!cleanup::is_served_out(view) || serves_stable_side(view));
    let draining = |next: Next| Next {
        canary: next
            .canary
            .max(if drains { present.canary.requested } else { 0 }),
        ..next
    };
    let Some(change) = view.change else {
        return at_rest_or_ahead();
    };
    match change.stage {
        Stage::Promoting if held => held_pods(view, change, kept()),
        Stage::Promoting => replicas::next(limits, 100, promotion(view, change), present),
        Stage::RollingBack if waits => ahead(kept()),
        Stage::RollingBack if retention_over(view, change) => Next {
            canary: 0,
            ..at_rest()
        },
        Stage::Stepping => {
            let mut goal = present::step_goal(limits, change);
            let most = limits.at_most().max(goal.total());
            goal.stable = goal.stable.max(stable_floor(view));
            goal.canary = goal.canary.min((most - goal.stable).max(1));
            let next = replicas::next(limits, change.weight, goal, present);
            let least = if short { goal.stable } else { 0 };
            draining(Next {
                stable: next.stable.max(least),
                ..next
            })
        }
        Stage::RollingBack => {
            let mut next = at_rest();
            let kept = canary_part(view);
            next.canary = next.canary.max(kept.min(present.canary.requested));
            if limits.share != Share::Pods {
                // May exceed the surge: stable must not wait for room that the rejected pods take.
                next.stable = next.stable.max(limits.desired);
            }
            next
        }
        Stage::Waiting => draining(at_rest_or_ahead()),
        Stage::Promoted | Stage::RolledBack => at_rest_or_ahead(),
    }
}

/// The pods of a held promotion; `kept` are the present ones.
fn held_pods(view: &View, change: &Change, kept: Next) -> Next {
    let (limits, present) = (view.fleet.limits, &view.fleet.pods);
    let goal = held_promotion(view, change);
    let shrinks =
        goal.stable <= present.stable.requested && goal.canary <= present.canary.requested;
    let replaces = tampering::is_present(view.observation);
    if shrinks && !replaces {
        // Both at once, since one after the other would move the split.
        return Next {
            stable: goal.stable,
            canary: goal.canary,
            ..kept
        };
    }
    let next = replicas::next(limits, 100, goal, present);
    // Stable must not wait for the room that pods of an edited ReplicaSet take, which serve until it does.
    let ahead = limits.share != Share::Pods && replaces;
    let least = if ahead { goal.stable } else { 0 };
    Next {
        stable: next.stable.max(least),
        ..next
    }
}

/// Stable pods that must stay, since routes still give them a share.
fn stable_floor(view: &View) -> i32 {
    let (observation, limits) = (view.observation, view.fleet.limits);
    if matches!(limits.share, Share::Pods | Share::Services) {
        return 0;
    }
    let split = observation.status.traffic.as_ref();
    let share = split.map_or(0, |it| it.lowest_weight);
    // The status has the routes as they were before its own decision changed them.
    let share = share.min(view.routes.present_share);
    // The canary's Service has fallen back to stable, or is about to: stable's pods then serve both sides.
    let service = observation.spec.strategy.canary.canary_service.as_deref();
    let stable = observation.status.stable.as_ref();
    let fell_back = stable.is_some_and(|it| reaches(observation, service, &it.pod_template_hash));
    let share = if fell_back { 0 } else { share };
    replicas::stable_for(limits, share, view.fleet.pods.canary.available)
}

/// Whether a Service sends to a revision: it selects the revision, or still has endpoints of it.
fn reaches(observation: &Observation, service: Option<&str>, hash: &str) -> bool {
    service.is_some_and(|service| {
        let behind = observation.traffic.endpoints.get(service);
        behind.is_some_and(|it| it.contains_key(hash))
            || present::selected(observation, service) == Some(hash)
    })
}

/// Whether the stable side still sends to the canary's pods: they stood in for it, or were stable before.
fn serves_stable_side(view: &View) -> bool {
    let service = view
        .observation
        .spec
        .strategy
        .canary
        .stable_service
        .as_deref();
    view.change.is_some_and(|change| {
        let hash = change.pod_template_hash.as_str();
        let mut subsets = view.routes.all.iter().filter_map(|it| it.subsets);
        reaches(view.observation, service, hash) || subsets.any(|(stable, _)| stable == Some(hash))
    })
}

/// Rejected pods that must stay, since they may still receive requests. If stable has yet to scale up, they
/// are removed as the traffic moves.
fn canary_part(view: &View) -> i32 {
    let limits = view.fleet.limits;
    if rejected_is_served_out(view) && view.share == 0 {
        return 0;
    }
    let share = view.split.map_or(100, |it| it.highest_weight);
    let share = if serves_stable_side(view) { 100 } else { share };
    match limits.share {
        Share::RoutesAlone if share > 0 => replicas::part(limits.desired, share),
        _ => limits.desired,
    }
}

/// Until the promotion the canary grows beside stable, which keeps what the surge has room for and, with
/// routes, the pods for its present share.
fn promotion(view: &View, change: &Change) -> Split {
    let limits = view.fleet.limits;
    let stable = match limits.share {
        _ if change.initial => 0,
        Share::Pods => limits.surge.min(limits.desired),
        Share::Services => limits.desired,
        Share::Routes => limits.surge.min(limits.desired).max(stable_floor(view)),
        Share::RoutesAlone => stable_floor(view),
    };
    let canary = match limits.share {
        // Services switch at once, which needs room for both revisions.
        Share::Pods | Share::Services => limits.desired,
        _ => limits.desired.min((limits.at_most() - stable).max(1)),
    };
    Split { stable, canary }
}

/// A held promotion keeps its split, scaled with the Rollout; a lost or edited ReplicaSet of stable is created
/// again as far as it serves.
fn held_promotion(view: &View, change: &Change) -> Split {
    let (limits, present) = (view.fleet.limits, &view.fleet.pods);
    let lost = view.fleet.stable.is_none() || tampering::is_present(view.observation);
    let desired = limits.desired;
    let (stable, canary) = (present.stable.requested, present.canary.requested);
    if desired == 0 || change.initial {
        let canary = if canary > 0 && change::has_begun(change) {
            desired
        } else {
            0
        };
        return Split { stable: 0, canary };
    }
    let weight = change::present_step(change).map_or(0, |step| step.weight);
    let begun = replicas::goal(
        limits,
        weight,
        present::scale_of(change).unwrap_or_default(),
    );
    if limits.share == Share::Pods {
        let split = match canary {
            0 => begun,
            _ if lost => Split {
                stable: (desired - canary).max(stable),
                canary,
            },
            _ => Split { stable, canary },
        };
        return replicas::scaled(limits, begun, split);
    }
    let needed = match limits.share {
        Share::RoutesAlone => stable_floor(view),
        Share::Routes if limits.surge < desired => stable_floor(view),
        _ => desired,
    };
    let most = match limits.share {
        Share::Services => desired.saturating_mul(2),
        _ => limits.at_most(),
    };
    let room = |taken: i32, least: i32| (most - taken).max(least);
    let canary = canary
        .max(begun.canary)
        .min(desired)
        .min(room(needed, begun.canary));
    let stable = stable.max(needed).min(desired).min(room(canary, needed));
    Split { stable, canary }
}

/// Rejected pods may serve what stable cannot carry yet, until the deadline and the drain have passed.
fn retention_over(view: &View, change: &Change) -> bool {
    // Rejected pods are better than none.
    view.fleet.pods.stable.available > 0
        && change::is_overdue(view.observation, change)
        && rejected_is_served_out(view)
}

/// Whether rejected pods are no longer needed. The stable side selects them for as long as its Service is not written,
/// as while another Rollout claims it: without them its requests would reach no pod.
fn rejected_is_served_out(view: &View) -> bool {
    let selected = |change: &Change| services::stable_selects(view, &change.pod_template_hash);
    cleanup::is_served_out(view) && !view.change.is_some_and(selected)
}
