//! Objects that are no longer needed, and when they may be removed.

use countersign_api::Duration;
use countersign_api::policy::History;
use countersign_api::rollout::{Change, Outcome, Stage};
use k8s_openapi::jiff::Timestamp;

use crate::change;
use crate::decision::{Action, HistoryAction, WorkloadAction};
use crate::limits::MAX_RUNS;
use crate::observation::Observation;
use crate::observation::workload::{PastRun, ReplicaSet};
use crate::replicas::Share;
use crate::traffic::view::View;
use crate::traffic::{settle, share};

/// Whether the promoted revision serves alone, and only the watch or the retention of the previous revision
/// remains.
pub(crate) fn serves_alone(view: &View) -> bool {
    let waits = view
        .change
        .is_some_and(|change| change::is_watched(change) || change.kept_until.is_some());
    waits && stable_is_alone(view)
}

/// Whether no pods exist or are requested except the stable revision's and the kept ones, and the traffic
/// is settled.
#[must_use]
pub fn stable_is_alone(view: &View) -> bool {
    let overdue = view
        .change
        .is_some_and(|change| change::is_overdue(view.observation, change));
    let stable = view.stable.map(|stable| stable.pod_template_hash.as_str());
    let kept = view.fleet.kept.map(|kept| kept.hash.as_str());
    let owned = view.observation.replica_sets.iter();
    let mut rest = owned
        .filter(|set| set.owned && set.matches)
        .filter(|set| ![stable, kept].contains(&Some(set.hash.as_str())));
    (settle::is_over(view) || overdue) && rest.all(|set| set.replicas == 0 && set.current == 0)
}

pub(crate) fn ownership(observation: &Observation) -> Vec<Action> {
    let change = |set: &ReplicaSet| {
        let replica_set = set.name.clone();
        match (set.owned, set.matches) {
            // A ReplicaSet that was orphaned on deletion is not adopted again.
            (false, true) => {
                (!observation.deleting).then_some(WorkloadAction::Adopt { replica_set })
            }
            (true, false) => Some(WorkloadAction::Release { replica_set }),
            // Labels were removed from the ReplicaSet; its pods are the same.
            (true, true) if set.labels_missing => Some(WorkloadAction::Adopt { replica_set }),
            _ => None,
        }
    };
    let changes = observation.replica_sets.iter().filter_map(change);
    changes.map(Action::Workload).collect()
}

/// Whether old pods may be removed: routes have drained, the deadline has passed, or traffic follows pod
/// counts, so that removing rejected pods is what moves it. A router that never reports must not keep pods
/// forever.
pub(super) fn is_served_out(view: &View) -> bool {
    let Some(change) = view.change else {
        return true;
    };
    let by_pods = view.fleet.limits.share == Share::Pods
        && change.outcome.is_some()
        && change.stage != Stage::Promoted;
    let given_up = change.outcome.is_some() && is_given_up(view, change);
    by_pods || given_up || settle::drained(view)
}

/// Whether the deadline has passed for routers that do not report that they have caught up. If stable had
/// to scale up first, the share is removed at the deadline, and the pods wait for a second one.
fn is_given_up(view: &View, change: &Change) -> bool {
    let follows = share::pods_follow(view.fleet.limits);
    let deadlines = if follows && change.stage == Stage::RollingBack {
        2
    } else {
        1
    };
    change::deadlines_passed(view.observation, change) >= deadlines
}

/// Whether there are more empty ReplicaSets than are kept: the records show which of them may go.
#[must_use]
pub fn exceeds_history(observation: &Observation) -> bool {
    let (stable, change) = (&observation.status.stable, &observation.status.change);
    let previous = change.as_ref().and_then(|it| it.previous.as_ref());
    let in_use = stable
        .iter()
        .chain(previous)
        .map(|it| &it.pod_template_hash);
    let in_use: Vec<_> = in_use
        .chain(change.iter().map(|it| &it.pod_template_hash))
        .collect();
    let sets = observation.replica_sets.iter();
    let others = sets.filter(|set| set.owned && is_empty(set) && !in_use.contains(&&set.hash));
    others.count() > history_limit(observation)
}

fn history_limit(observation: &Observation) -> usize {
    usize::try_from(observation.spec.revision_history_limit).unwrap_or(0)
}

const fn is_empty(set: &ReplicaSet) -> bool {
    set.replicas == 0 && set.current == 0
}

/// Empty ReplicaSets and ended records beyond what is kept, oldest first; none while the records were not read,
/// since they show which revisions were stable.
pub(crate) fn history(view: &View, kept: History) -> Vec<Action> {
    let observation = view.observation;
    if !matches!(observation.history, Some(Ok(_))) {
        return Vec::new();
    }
    let sets = old_sets(view);
    let runs = old_runs(view, kept, &sets);
    let runs = runs.map(|run| {
        Action::History(HistoryAction::DeleteRun {
            run: run.name.clone(),
        })
    });
    let sets = sets.iter().map(|set| {
        Action::Workload(WorkloadAction::DeleteReplicaSet {
            replica_set: set.name.clone(),
        })
    });
    sets.chain(runs).collect()
}

/// Empty ReplicaSets beyond `revisionHistoryLimit`.
fn old_sets<'a>(view: &View<'a>) -> Vec<&'a ReplicaSet> {
    let observation = view.observation;
    let previous = view.change.and_then(|it| it.previous.as_ref());
    let may_return =
        |set: &ReplicaSet| previous.is_some_and(|previous| previous.pod_template_hash == set.hash);
    let others = view.fleet.others.iter().copied();
    let mut sets: Vec<_> = others
        .filter(|set| is_empty(set) && !may_return(set))
        .collect();
    // A revision that was stable outlives one that never was, or was so longer ago.
    sets.sort_by_key(|set| (last_promotion(observation, &set.hash), set.revision));
    sets.truncate(sets.len().saturating_sub(history_limit(observation)));
    sets
}

/// Ended records that neither the Rollout nor a policy keeps, if these ReplicaSets are deleted.
fn old_runs<'a>(
    view: &View<'a>,
    kept: History,
    forgotten: &[&ReplicaSet],
) -> impl Iterator<Item = &'a PastRun> {
    let observation = view.observation;
    let previous = view.change.and_then(|it| it.previous.as_ref());
    let in_use: Vec<_> = view
        .change
        .map(|change| &change.run)
        .into_iter()
        .chain(view.stable.and_then(|it| it.run.as_ref()))
        .chain(previous.and_then(|it| it.run.as_ref()))
        .collect();
    // By which the revisions that are left are ordered later.
    let orders_revisions = |run: &PastRun| {
        let hash = &run.pod_template_hash;
        let is_forgotten = forgotten.iter().any(|set| set.hash == *hash);
        let exists = observation.replica_sets.iter().any(|set| set.hash == *hash);
        let is_last = run.ended_at == last_promotion(observation, hash);
        run.outcome == Some(Outcome::Promoted) && exists && is_last && !is_forgotten
    };
    // A policy that cannot be read may keep any record.
    let unknown = !observation.unreadable_policies.is_empty();
    let is_kept = move |run: &PastRun| {
        let age = run.ended_at.map(|at| observation.now.duration_since(at));
        let recent = |time: Duration| age.is_some_and(|age| age < time.signed());
        unknown || kept.keep_for.is_some_and(recent)
    };
    let mut runs: Vec<_> = observation
        .history()
        .iter()
        .filter(|run| run.outcome.is_some() && !in_use.contains(&&run.name))
        .collect();
    let floor = kept.runs.and_then(|it| usize::try_from(it).ok());
    let limit = history_limit(observation).max(floor.unwrap_or(0));
    let excess = runs.len().saturating_sub(limit);
    let too_many = runs.len().saturating_sub(MAX_RUNS);
    runs.retain(|run| !orders_revisions(run));
    runs.sort_by_key(|run| run.started_at);
    let oldest = runs.into_iter().take(excess).enumerate();
    let old = oldest.filter(move |(place, run)| *place < too_many || !is_kept(run));
    old.map(|(_, run)| run)
}

/// When a revision was last promoted, by the records of earlier changes.
fn last_promotion(observation: &Observation, hash: &str) -> Option<Timestamp> {
    let promoted = observation
        .history()
        .iter()
        .filter(|run| run.outcome == Some(Outcome::Promoted) && run.pod_template_hash == hash);
    promoted.filter_map(|run| run.ended_at).max()
}
