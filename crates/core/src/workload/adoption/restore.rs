//! Restoring an adopted workload.

use countersign_api::HASH_LABEL;
use countersign_api::rollout::{Adopted, Revision};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::change;
use crate::decision::{Action, HistoryAction, JobAction, TrafficAction, WorkloadAction};
use crate::observation::Observation;
use crate::observation::workload::{Unusable, Workload};
use crate::proposal::Proposal;
use crate::traffic::route::subsets;
use crate::traffic::settle;
use crate::traffic::view::View;
use crate::workload::adoption::step::{self, Step};
use crate::workload::cleanup;

/// The Rollout is being deleted: its pods serve until the workload's do, or for good.
pub(super) fn deletion(
    view: &View,
    proposal: &Proposal,
    adopted: Option<&mut Adopted>,
    others: &[Action],
) -> Step {
    let observation = view.observation;
    if !observation.deletion.awaited {
        return Step::default();
    }
    let ends = observation.deletion.namespace_ends || !observation.spec.keeps_pods();
    if ends || deadline_passed(view) {
        return Step::released();
    }
    let contested = !observation.conflicts.is_empty();
    let adopts = observation.spec.workload_ref.is_some();
    let Some(stable) = view.stable else {
        // Nothing was taken over yet; pods of a first revision may serve all the same.
        let first = view.change.filter(|_| !adopts);
        let first = first.map(|change| change.pod_template_hash.as_str());
        return leave_pods(observation, first);
    };
    let returned = adopted.as_ref().and_then(|it| it.given_back_at.clone());
    if !is_settled(view, returned.is_some(), others) {
        return Step::waits(observation, "all traffic goes back to the stable revision");
    }
    match &observation.workload {
        // Workload and Services may belong to another Rollout and are not written. An adopted Deployment
        // would own orphaned pods beside it, and delete them.
        _ if contested && adopts => {
            Step::waits(observation, "another Rollout claims the same workload")
        }
        _ if contested => leave_pods(observation, Some(&stable.pod_template_hash)),
        Some(Ok(workload)) => restore_workload(view, proposal, adopted, stable, workload),
        // There is no workload to restore, and the pods must stay.
        None | Some(Err(Unusable::Missing)) => {
            leave_pods(observation, Some(&stable.pod_template_hash))
        }
        Some(Err(unusable)) => Step::doubts(observation, &step::sentence(observation, unusable)),
    }
}

/// Whether the deadline has passed and the kept pods receive no requests, so that waiting has no effect.
fn deadline_passed(view: &View) -> bool {
    let observation = view.observation;
    let deadline = change::progress_timeout(observation).as_secs();
    let since = observation.deletion.since;
    let over = since.is_some_and(|it| observation.now.duration_since(it).as_secs() >= deadline);
    over && view.fleet.pods.stable.available == 0
}

/// Whether no change is under way and all writes after its end are done, so that the stable revision has
/// all the traffic. Routes and their weights count too: pending writes to them are in `others`.
fn is_settled(view: &View, returning: bool, others: &[Action]) -> bool {
    let over = view
        .change
        .is_none_or(|change| change.outcome.is_some() && cleanup::stable_is_alone(view));
    let tidying = |action: &Action| {
        matches!(
            action,
            Action::Workload(WorkloadAction::DeleteReplicaSet { .. })
                | Action::History(HistoryAction::DeleteRun { .. })
                | Action::Job(JobAction::DeleteJob { .. })
        )
    };
    over && (returning || others.iter().all(tidying))
}

/// Returns the traffic to an adopted workload, step by step.
fn restore_workload(
    view: &View,
    proposal: &Proposal,
    adopted: Option<&mut Adopted>,
    stable: &Revision,
    workload: &Workload,
) -> Step {
    let observation = view.observation;
    let desired = observation.spec.replicas;
    let (name, available) = (&workload.name, workload.available);
    let returned = adopted.as_ref().and_then(|it| it.given_back_at.clone());
    if returned.is_none() {
        if workload.replicas < desired {
            // Its pods would run a template that has not passed the gates, or was rejected.
            if proposal.template_digest != stable.template_digest {
                let message = format!(
                    "the template of Deployment {name} is not that of the stable revision {}: put that back (`kubectl rollout undo deployment/{name}`), or scale the Deployment to {desired} yourself",
                    stable.revision
                );
                return Step::doubts(observation, &message);
            }
            let mut step = Step::waits(
                observation,
                &format!("Deployment {name} is scaled to {desired}"),
            );
            step.actions.push(step::scale(view, workload, desired));
            return step;
        }
        if !workload.observed || available < desired {
            let message =
                format!("{available} of {desired} pods of Deployment {name} are available");
            return Step::waits(observation, &message);
        }
    }
    let selecting = releases(observation);
    let since = match returned {
        Some(since) if selecting.is_empty() => since.0,
        _ => observation.now,
    };
    if let Some(adopted) = adopted {
        adopted.given_back_at = Some(Time(since));
        adopted.scaled_down = false;
    }
    let due = settle::drained_at(observation, since);
    // An autoscaler may have set another number meanwhile; 0 pods would not serve.
    let needed = desired.min(workload.replicas.max(1));
    if selecting.is_empty() && observation.now >= due && available >= needed {
        return Step::released();
    }
    let mut step = Step::waits(
        observation,
        &format!(
            "Deployment {name} serves; the pods of Rollout {} drain",
            observation.name
        ),
    );
    if selecting.is_empty() && due > observation.now {
        step.requeue_at = Some(due);
    }
    step.actions = selecting;
    step
}

/// The writes that make Services and subsets select the pods of other controllers again.
fn releases(observation: &Observation) -> Vec<Action> {
    let selecting = step::named_services(observation).filter(|name| {
        let service = observation
            .traffic
            .services
            .get(*name)
            .and_then(Option::as_ref);
        service.is_some_and(|it| it.selector.contains_key(HASH_LABEL))
    });
    let services = selecting.map(|service| TrafficAction::ReleaseService {
        service: service.clone(),
    });
    let subsets = observation.traffic.routes.iter().filter_map(|route| {
        let subsets = route.reference.destination_rule.as_ref()?;
        let rule = route.destination_rule.as_ref()?.as_ref().ok()?;
        let operations = subsets::release(rule, subsets).ok()?;
        (!operations.is_empty()).then(|| TrafficAction::SelectSubsets {
            name: subsets.name.clone(),
            api_version: rule.api_version(),
            operations,
        })
    });
    services.chain(subsets).map(Action::Traffic).collect()
}

/// Orphans the pods of a revision; once they have no controller the Rollout may be deleted.
fn leave_pods(observation: &Observation, hash: Option<&str>) -> Step {
    let mut sets = observation.replica_sets.iter().filter(|set| set.owned);
    let Some(set) = sets.find(|set| hash == Some(set.hash.as_str())) else {
        return Step::released();
    };
    let message = format!("ReplicaSet {} keeps serving without an owner", set.name);
    let mut step = Step::waits(observation, &message);
    step.requeue_at = Some(observation.now);
    let replica_set = set.name.clone();
    let release = WorkloadAction::Release { replica_set };
    step.actions.push(Action::Workload(release));
    step
}
