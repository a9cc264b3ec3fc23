//! A workload that a Rollout adopts, and what a Rollout leaves behind when it is deleted.
//!
//! ```text
//!              own pods serve, `drain` passes             the Rollout is deleted
//!   TakingOver ───────────────────────────── TakenOver ───────────────────────────── GivingBack
//!                 workload scaled to 0       │   ▲       workload scaled up, Services let go
//!                                            └───┘
//!                               somebody scaled it up: scaled down again
//! ```
//!
//! The workload keeps its pod template, which is what the Rollout runs: editing it is a change. Its own
//! pods go only while the stable revision can serve, and the Rollout's only once the workload's do.

use countersign_api::HASH_LABEL;
use countersign_api::rollout::{Adopted, Change, Revision, RolloutStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::analysis::numbers::counted;
use crate::decision::{Action, Notice, Serving};
use crate::hold::{Hold, HoldKind};
use crate::observation::workload::{Unusable, Workload};
use crate::observation::{self, Observation};
use crate::proposal::Proposal;
use crate::replicas::present;
use crate::text::shown;
use crate::traffic::route::subsets;
use crate::{reason, workload};

/// The condition that tells whether the Rollout serves in place of the workload.
pub const ADOPTED: &str = "Adopted";
/// Least time from one scaling down to the next, where somebody scales the workload up again and again.
const AT_MOST_EVERY: SignedDuration = SignedDuration::from_mins(1);
/// When to look again after a write, which a watch reports as well.
const SOON: SignedDuration = SignedDuration::from_secs(2);
/// When to look again while people are waited for.
const LATER: SignedDuration = SignedDuration::from_mins(1);
/// Longest part of a message that is another's.
const MAX_FOREIGN: usize = 400;

/// What is to be done about the adopted workload, and what is to be said.
#[derive(Debug, Default)]
pub struct Step {
    /// What to do, after everything else.
    pub actions: Vec<Action>,
    /// What to say in Events.
    pub notices: Vec<Notice>,
    /// What the deletion of the Rollout waits for.
    pub hold: Option<Hold>,
    /// When to look again.
    pub look_again_at: Option<Timestamp>,
}

/// The next step of taking over or giving back. `others` is what else is done now: pods are given back
/// only when nothing else is left to do.
#[must_use]
pub fn step(
    observation: &Observation,
    proposal: &Proposal,
    status: &mut RolloutStatus,
    others: &[Action],
) -> Step {
    let name = observation.spec.workload_ref.as_ref().map(|it| &it.name);
    match (name, &status.adopted) {
        (None, _) => status.adopted = None,
        (Some(name), Some(adopted)) if adopted.name == *name => {}
        (Some(name), _) => {
            status.adopted = Some(Adopted {
                name: name.clone(),
                ..Adopted::default()
            });
        }
    }
    if observation.deleting {
        return farewell(observation, proposal, status, others);
    }
    let mut step = match &observation.workload {
        Some(Ok(workload)) if observation.conflicts.is_empty() => {
            take_over(observation, status, workload)
        }
        _ => Step::default(),
    };
    let keeps = observation.spec.keeps_pods();
    if keeps != observation.farewell.awaited {
        step.actions.push(Action::SetFinalizer { present: keeps });
    }
    step.notices.extend(misdirection(observation));
    step
}

/// What the Rollout was last known to be asked for, while its workload cannot be read: so nothing
/// begins and nothing is replaced, and what is under way goes on being judged.
#[must_use]
pub fn last_known(observation: &Observation) -> Option<Revision> {
    if !observation::is_unreadable(observation) {
        return None;
    }
    let status = &observation.status;
    let change = status.change.as_ref().map(|change| Revision {
        pod_template_hash: change.pod_template_hash.clone(),
        template_digest: change.template_digest.clone(),
        digest: change.digest.clone(),
        revision: change.revision,
        run: Some(change.run.clone()),
    });
    change.or_else(|| status.stable.clone())
}

/// Why nothing begins or goes on: the workload cannot be adopted as it is.
#[must_use]
pub fn obstacle(observation: &Observation, change: Option<&Change>) -> Option<Hold> {
    let message = match observation.workload.as_ref()? {
        Err(unusable) => sentence(observation, unusable),
        Ok(workload) => fewer_pods(observation, change?, workload)?,
    };
    Some(Hold {
        kind: HoldKind::Doubt,
        reason: reason::WORKLOAD_INVALID.into(),
        message,
    })
}

/// A Rollout of fewer pods would take over traffic that it cannot carry: one pod, where `replicas`
/// was merely left out.
fn fewer_pods(observation: &Observation, change: &Change, workload: &Workload) -> Option<String> {
    let asked = observation.spec.replicas;
    let takes_over = change.initial && observation.status.stable.is_none();
    (takes_over && asked < workload.replicas).then(|| {
        let (name, replicas) = (&workload.name, workload.replicas);
        format!(
            "spec.replicas asks for {} where Deployment {name} asks for {replicas}: set spec.replicas to {replicas}, or scale the Deployment down first",
            counted(asked, "pod")
        )
    })
}

/// Why the workload cannot be used, in a sentence.
fn sentence(observation: &Observation, unusable: &Unusable) -> String {
    let name = observation.spec.workload_ref.as_ref();
    let name = name.map_or("", |it| it.name.as_str());
    match unusable {
        Unusable::Missing => {
            format!("Deployment {name}, which spec.workloadRef names, does not exist: create it")
        }
        Unusable::Unreadable { message } => format!(
            "Deployment {name} cannot be read: {}",
            shown(message, MAX_FOREIGN)
        ),
        Unusable::Unfit { message } => {
            format!("Deployment {name} {}", shown(message, MAX_FOREIGN))
        }
    }
}

// --- taking over ---------------------------------------------------------------------------------

fn take_over(observation: &Observation, status: &mut RolloutStatus, workload: &Workload) -> Step {
    let handed_over = is_handed_over(observation, status);
    let Some(mut adopted) = status.adopted.take() else {
        return Step::default();
    };
    if !handed_over {
        adopted.handed_over_at = None;
    } else if adopted.handed_over_at.is_none() {
        adopted.handed_over_at = Some(Time(observation.now));
    }
    let step = if workload.replicas == 0 {
        adopted.scaled_down = true;
        Step::default()
    } else if adopted.scaled_down {
        scale_down_again(observation, status, &mut adopted, workload)
    } else {
        scale_down(observation, status, &adopted, workload)
    };
    status.adopted = Some(adopted);
    step
}

/// Whether the stable revision serves with all of its pods, and no Service or route sends elsewhere.
fn is_handed_over(observation: &Observation, status: &RolloutStatus) -> bool {
    let Some(stable) = &status.stable else {
        return false;
    };
    let available = present::present(observation, status).stable.available;
    let change = status.change.as_ref().map(|it| &it.pod_template_hash);
    let own = |hash: Option<&String>| {
        hash == Some(&stable.pod_template_hash) || (hash.is_some() && hash == change)
    };
    let services = named_services(observation).all(|name| {
        let service = observation.services.get(name).and_then(Option::as_ref);
        service.is_some_and(|service| own(service.selector.get(HASH_LABEL)))
    });
    let split = status.traffic.as_ref();
    available > 0
        && available >= observation.spec.replicas
        && services
        && split.is_none_or(|split| split.settled_at.is_some())
}

fn named_services(observation: &Observation) -> impl Iterator<Item = &String> {
    let canary = &observation.spec.strategy.canary;
    canary.stable_service.iter().chain(&canary.canary_service)
}

/// Takes the workload's pods away once nothing has been sent to them for long enough.
fn scale_down(
    observation: &Observation,
    status: &RolloutStatus,
    adopted: &Adopted,
    workload: &Workload,
) -> Step {
    let Some(since) = &adopted.handed_over_at else {
        return Step::default();
    };
    // Without the finalizer the pods would be gone with the Rollout.
    if observation.spec.keeps_pods() && !observation.farewell.awaited {
        return Step::at(observation.now);
    }
    let settled = status.traffic.as_ref().and_then(|it| it.settled_at.clone());
    let since = settled.map_or(since.0, |settled| settled.0.max(since.0));
    let due = after_drain(observation, since);
    if observation.now < due {
        return Step::at(due);
    }
    Step {
        actions: vec![scale(observation, status, workload, 0)],
        ..Step::after(observation, SOON)
    }
}

/// Somebody scaled the workload up: its pods would serve beside the revisions, untold by any weight.
fn scale_down_again(
    observation: &Observation,
    status: &RolloutStatus,
    adopted: &mut Adopted,
    workload: &Workload,
) -> Step {
    if !can_serve(observation, status) {
        return Step::default();
    }
    let last = adopted.corrected_at.as_ref().map(|at| at.0);
    let due = last.and_then(|last| last.saturating_add(AT_MOST_EVERY).ok());
    if let Some(due) = due.filter(|due| *due > observation.now) {
        return Step::at(due);
    }
    adopted.corrected_at = Some(Time(observation.now));
    Step {
        actions: vec![scale(observation, status, workload, 0)],
        notices: vec![Notice {
            reason: reason::WORKLOAD_SCALED_DOWN.into(),
            action: "ScaleDown".into(),
            message: format!(
                "{}: it is scaled down again",
                scaled_up(observation, workload)
            ),
            warning: true,
        }],
        ..Step::after(observation, SOON)
    }
}

/// Whether the revisions carry the traffic without the workload's pods.
fn can_serve(observation: &Observation, status: &RolloutStatus) -> bool {
    let present = present::present(observation, status);
    let limits = present::limits(observation);
    let available = present.stable.available + present.canary.available;
    present.stable.available > 0 && available >= limits.desired - limits.unavailable
}

fn scaled_up(observation: &Observation, workload: &Workload) -> String {
    let who = workload.scaled_by.as_deref();
    let who = who.map_or_else(|| "somebody".into(), |who| shown(who, MAX_FOREIGN));
    format!(
        "{who} scaled Deployment {} to {}, while Rollout {} serves in its place: remove `replicas` from where the Deployment comes from, such as its GitOps source, and scale the Rollout instead",
        workload.name,
        counted(workload.replicas, "pod"),
        observation.name
    )
}

fn scale(
    observation: &Observation,
    status: &RolloutStatus,
    workload: &Workload,
    replicas: i32,
) -> Action {
    let beside = status.stable.as_ref().map(|stable| Serving {
        hash: stable.pod_template_hash.clone(),
        available: present::present(observation, status).stable.available,
    });
    Action::ScaleWorkload {
        name: workload.name.clone(),
        uid: workload.uid.clone(),
        from: workload.replicas,
        replicas,
        beside: beside.filter(|_| replicas < workload.replicas),
    }
}

fn after_drain(observation: &Observation, since: Timestamp) -> Timestamp {
    let drain = observation.spec.strategy.canary.drain.signed();
    since.saturating_add(drain).unwrap_or(Timestamp::MAX)
}

// --- what is said --------------------------------------------------------------------------------

/// Whether the Rollout serves in place of the workload: a word and a sentence for the condition.
#[must_use]
pub fn standing(
    observation: &Observation,
    status: &RolloutStatus,
    hold: Option<&Hold>,
) -> Option<(bool, &'static str, String)> {
    let adopted = status.adopted.as_ref()?;
    let (stands, why, message) = progress(observation, status, adopted, hold);
    Some(match misdirected(observation) {
        Some(sentence) => {
            let message = format!("{sentence}; {message}");
            (stands, reason::AUTOSCALER_MISDIRECTED, message)
        }
        None => (stands, why, message),
    })
}

fn progress(
    observation: &Observation,
    status: &RolloutStatus,
    adopted: &Adopted,
    hold: Option<&Hold>,
) -> (bool, &'static str, String) {
    let (name, rollout) = (&adopted.name, &observation.name);
    if let Some(hold) = hold.filter(|_| observation.deleting) {
        return (false, reason::GIVING_BACK, hold.message.clone());
    }
    if !observation.conflicts.is_empty() {
        return (false, reason::CONFLICT, observation.conflicts.join("; "));
    }
    let workload = match &observation.workload {
        Some(Ok(workload)) => workload,
        Some(Err(unusable)) => {
            let message = sentence(observation, unusable);
            return (false, reason::WORKLOAD_INVALID, message);
        }
        None => return (false, reason::TAKING_OVER, String::new()),
    };
    if workload.replicas == 0 && adopted.scaled_down {
        let message = format!(
            "Rollout {rollout} serves in place of Deployment {name}, whose template it runs"
        );
        return (true, reason::TAKEN_OVER, message);
    }
    if adopted.scaled_down {
        let message = scaled_up(observation, workload);
        return (false, reason::WORKLOAD_SCALED_DOWN, message);
    }
    let available = present::present(observation, status).stable.available;
    let message = match (&status.stable, &adopted.handed_over_at) {
        (None, _) => {
            format!("Deployment {name} keeps its pods until the first revision is stable")
        }
        (Some(_), None) => format!(
            "Deployment {name} keeps its pods until all {} of Rollout {rollout} serve: {available} are available",
            observation.spec.replicas
        ),
        (Some(_), Some(_)) => format!(
            "Rollout {rollout} serves; Deployment {name} is scaled down after {}",
            observation.spec.strategy.canary.drain
        ),
    };
    (false, reason::TAKING_OVER, message)
}

/// An autoscaler that aims at what has no pods of its own any more, with what to do about it.
fn misdirected(observation: &Observation) -> Option<String> {
    let workload = observation.workload.as_ref()?.as_ref().ok()?;
    let mut astray = workload.autoscalers.iter().filter(|it| !it.aims_at_rollout);
    let first = &astray.next()?.name;
    let others = match astray.count() {
        0 => String::new(),
        others => format!(", and so do {others} more"),
    };
    let (name, rollout) = (&workload.name, &observation.name);
    let mut right = workload.autoscalers.iter().filter(|it| it.aims_at_rollout);
    let remedy = right.next().map_or_else(
        || format!("aim it at Rollout {rollout}"),
        |right| {
            format!(
                "remove it, as HorizontalPodAutoscaler {} aims at Rollout {rollout}",
                right.name
            )
        },
    );
    Some(format!(
        "HorizontalPodAutoscaler {first} aims at Deployment {name}, which gives up its pods{others}: {remedy}"
    ))
}

/// That autoscalers are misdirected is told when it is first seen.
fn misdirection(observation: &Observation) -> Option<Notice> {
    let message = misdirected(observation)?;
    let mut conditions = observation.status.conditions.iter();
    let told = conditions.any(|it| it.type_ == ADOPTED && it.message.contains(&message));
    (!told).then(|| Notice {
        reason: reason::AUTOSCALER_MISDIRECTED.into(),
        action: "Adopt".into(),
        message,
        warning: true,
    })
}

// --- giving back ---------------------------------------------------------------------------------

/// The Rollout is being deleted: its pods go on to serve until others do, or for good.
fn farewell(
    observation: &Observation,
    proposal: &Proposal,
    status: &mut RolloutStatus,
    others: &[Action],
) -> Step {
    if !observation.farewell.awaited {
        return Step::default();
    }
    let ends = observation.farewell.namespace_ends || !observation.spec.keeps_pods();
    if ends || is_in_vain(observation, status) {
        return Step::released();
    }
    let contested = !observation.conflicts.is_empty();
    let adopts = observation.spec.workload_ref.is_some();
    let Some(stable) = status.stable.clone() else {
        // Nothing was handed over yet; pods of a first revision may serve all the same.
        let first = status.change.as_ref().filter(|_| !adopts);
        let first = first.map(|change| change.pod_template_hash.clone());
        return leave_pods(observation, first.as_deref());
    };
    if !is_calm(observation, status, others) {
        return Step::waits(observation, "all traffic goes back to the stable revision");
    }
    match &observation.workload {
        // Workload and Services may be another Rollout's, and are left alone. Pods that are let go beside
        // an adopted Deployment would be its own, and it asks for none.
        _ if contested && adopts => {
            Step::waits(observation, "another Rollout claims the same workload")
        }
        _ if contested => leave_pods(observation, Some(&stable.pod_template_hash)),
        Some(Ok(workload)) => give_back(observation, proposal, status, &stable, workload),
        // There is nothing to give them back to, and they must not go.
        None | Some(Err(Unusable::Missing)) => {
            leave_pods(observation, Some(&stable.pod_template_hash))
        }
        Some(Err(unusable)) => Step::doubts(observation, &sentence(observation, unusable)),
    }
}

/// Whether waiting is of no use: the deadline is over, and the pods that are kept serve nobody.
fn is_in_vain(observation: &Observation, status: &RolloutStatus) -> bool {
    let deadline = i64::from(observation.spec.progress_deadline_seconds);
    let since = observation.farewell.since;
    let over = since.is_some_and(|it| observation.now.duration_since(it).as_secs() >= deadline);
    over && present::present(observation, status).stable.available == 0
}

/// Whether no change is under way and everything that follows from its end is done, so that the stable
/// revision has all the traffic. Routes and their weights count too: what is still to be written about
/// them is among the other actions.
fn is_calm(observation: &Observation, status: &RolloutStatus, others: &[Action]) -> bool {
    let over = status.change.as_ref().is_none_or(|change| {
        change.outcome.is_some() && workload::stable_is_alone(observation, status)
    });
    let returning = status.adopted.as_ref();
    let returning = returning.is_some_and(|adopted| adopted.given_back_at.is_some());
    let tidying = |action: &Action| {
        matches!(
            action,
            Action::DeleteReplicaSet { .. } | Action::DeleteRun { .. } | Action::DeleteJob { .. }
        )
    };
    over && (returning || others.iter().all(tidying))
}

/// Gives the traffic back to an adopted workload, step by step.
fn give_back(
    observation: &Observation,
    proposal: &Proposal,
    status: &mut RolloutStatus,
    stable: &Revision,
    workload: &Workload,
) -> Step {
    let desired = observation.spec.replicas;
    let (name, available) = (&workload.name, workload.available);
    let returned = status
        .adopted
        .as_ref()
        .and_then(|it| it.given_back_at.clone());
    if returned.is_none() {
        if workload.replicas < desired {
            // Its pods would run what the gates have not let through, or have thrown out.
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
            step.actions
                .push(scale(observation, status, workload, desired));
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
    if let Some(adopted) = &mut status.adopted {
        adopted.given_back_at = Some(Time(since));
        adopted.scaled_down = false;
    }
    let due = after_drain(observation, since);
    // An autoscaler may have set another number meanwhile; none at all is no service.
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
        step.look_again_at = Some(due);
    }
    step.actions = selecting;
    step
}

/// What lets Services, and subsets of routes, select the pods of other controllers again.
fn releases(observation: &Observation) -> Vec<Action> {
    let selecting = named_services(observation).filter(|name| {
        let service = observation.services.get(*name).and_then(Option::as_ref);
        service.is_some_and(|it| it.selector.contains_key(HASH_LABEL))
    });
    let services = selecting.map(|service| Action::ReleaseService {
        service: service.clone(),
    });
    let subsets = observation.routes.iter().filter_map(|route| {
        let subsets = route.reference.destination_rule.as_ref()?;
        let rule = route.destination_rule.as_ref()?.as_ref().ok()?;
        let operations = subsets::release(rule, subsets).ok()?;
        (!operations.is_empty()).then(|| Action::SelectSubsets {
            name: subsets.name.clone(),
            api_version: rule.api_version(),
            operations,
        })
    });
    services.chain(subsets).collect()
}

/// Leaves the pods of a revision to themselves; once they belong to nobody the Rollout may go.
fn leave_pods(observation: &Observation, hash: Option<&str>) -> Step {
    let mut sets = observation.replica_sets.iter().filter(|set| set.owned);
    let Some(set) = sets.find(|set| hash == Some(set.hash.as_str())) else {
        return Step::released();
    };
    let message = format!("ReplicaSet {} is left to serve", set.name);
    let mut step = Step::waits(observation, &message);
    step.look_again_at = Some(observation.now);
    step.actions.push(Action::Release {
        replica_set: set.name.clone(),
    });
    step
}

impl Step {
    fn at(moment: Timestamp) -> Self {
        Self {
            look_again_at: Some(moment),
            ..Self::default()
        }
    }

    fn after(observation: &Observation, delay: SignedDuration) -> Self {
        Self::at(
            observation
                .now
                .saturating_add(delay)
                .unwrap_or(Timestamp::MAX),
        )
    }

    fn waits(observation: &Observation, message: &str) -> Self {
        Self {
            hold: Some(Hold {
                kind: HoldKind::Wish,
                reason: reason::GIVING_BACK.into(),
                message: format!("the Rollout is being deleted: {message}"),
            }),
            ..Self::after(observation, SOON)
        }
    }

    /// Only a person can mend it; meanwhile the stable revision serves.
    fn doubts(observation: &Observation, message: &str) -> Self {
        Self {
            hold: Some(Hold {
                kind: HoldKind::Doubt,
                reason: reason::WORKLOAD_INVALID.into(),
                message: format!("the Rollout is being deleted and waits: {message}"),
            }),
            ..Self::after(observation, LATER)
        }
    }

    /// Nothing is left to wait for.
    fn released() -> Self {
        Self {
            actions: vec![Action::SetFinalizer { present: false }],
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {

    //! Whole stories are in `tests/virtual_time/adoption.rs`.

    use countersign_api::MANAGER;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
    use serde_json::json;

    use super::*;
    use crate::change::releases_services;
    use crate::field_managers::last_scaler;
    use crate::manifest;
    use crate::observation::workload::Autoscaler;

    fn adopting() -> Observation {
        let template = json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "image": "web:1" }] } });
        let rollout = serde_json::from_value(json!({
            "metadata": { "name": "web" },
            "spec": {
                "replicas": 4, "workloadRef": { "name": "web" },
                "selector": { "matchLabels": { "app": "web" } }, "template": template,
            },
        }));
        let template = countersign_api::PodTemplate(template);
        let around = manifest::Surroundings::default();
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut observation = manifest::observe(&rollout.unwrap(), &template, around, now);
        observation.farewell.awaited = true;
        observation.workload = Some(Ok(Workload {
            name: "web".into(),
            uid: "1".into(),
            replicas: 4,
            current: 4,
            available: 4,
            observed: true,
            scaled_by: None,
            autoscalers: Vec::new(),
        }));
        observation
    }

    fn next(observation: &Observation) -> (Step, RolloutStatus) {
        let mut status = observation.status.clone();
        let proposal = Proposal::of(observation);
        let step = step(observation, &proposal, &mut status, &[]);
        (step, status)
    }

    #[test]
    fn pods_are_taken_away_after_the_drain_and_only_with_the_finalizer() {
        let mut observation = adopting();
        let (step, status) = next(&observation);
        assert!(step.actions.is_empty());
        assert_eq!(
            step.look_again_at,
            Some(after_drain(&observation, observation.now))
        );
        observation.status = status;
        observation.now = step.look_again_at.unwrap();
        let (step, _) = next(&observation);
        let serving = Serving {
            hash: observation.replica_sets[0].hash.clone(),
            available: 4,
        };
        assert_eq!(
            step.actions,
            [Action::ScaleWorkload {
                name: "web".into(),
                uid: "1".into(),
                from: 4,
                replicas: 0,
                beside: Some(serving),
            }]
        );
        observation.farewell.awaited = false;
        let (step, _) = next(&observation);
        assert_eq!(step.actions, [Action::SetFinalizer { present: true }]);
    }

    #[test]
    fn an_autoscaler_at_each_of_the_two_is_one_too_many() {
        let mut observation = adopting();
        let aims = |name: &str, aims_at_rollout| Autoscaler {
            name: name.into(),
            aims_at_rollout,
        };
        let Some(Ok(workload)) = &mut observation.workload else {
            panic!("it is adopted");
        };
        workload.autoscalers = vec![aims("a", false), aims("b", false), aims("c", true)];
        assert_eq!(
            misdirected(&observation).unwrap(),
            "HorizontalPodAutoscaler a aims at Deployment web, which gives up its pods, and so do 1 more: remove it, as HorizontalPodAutoscaler c aims at Rollout web"
        );
    }

    #[test]
    fn the_last_who_scaled_is_the_newest_other_owner_of_the_number() {
        let entry = |manager: &str, at: &str, path: &str| -> ManagedFieldsEntry {
            serde_json::from_value(json!({
                "manager": manager, "operation": "Update", "time": at,
                "fieldsV1": { "f:spec": { path: {} } },
            }))
            .unwrap()
        };
        let fields = [
            entry("kubectl", "2026-01-01T00:00:00Z", "f:replicas"),
            entry("argocd", "2026-01-02T00:00:00Z", "f:replicas"),
            entry("editor", "2026-01-03T00:00:00Z", "f:template"),
            entry(MANAGER, "2026-01-04T00:00:00Z", "f:replicas"),
        ];
        assert_eq!(last_scaler(&fields), Some("argocd"));
        assert_eq!(last_scaler(&fields[2..]), None);
    }

    #[test]
    fn what_cannot_be_used_is_said_with_its_name() {
        let mut observation = adopting();
        for (unusable, told) in [
            (Unusable::Missing, "create it"),
            (
                Unusable::Unreadable {
                    message: "no\u{1b}[2J right".into(),
                },
                "Deployment web cannot be read: no",
            ),
            (
                Unusable::Unfit {
                    message: "selects nothing".into(),
                },
                "Deployment web selects nothing",
            ),
        ] {
            observation.workload = Some(Err(unusable));
            let hold = obstacle(&observation, None).unwrap();
            assert_eq!(hold.reason, reason::WORKLOAD_INVALID);
            assert!(hold.message.contains(told) && !hold.message.contains('\u{1b}'));
            let proposal = Proposal::of(&observation);
            let stable = observation.status.stable.clone().unwrap();
            assert_eq!(proposal.template_digest, stable.template_digest);
        }
    }

    #[test]
    fn services_are_let_go_only_once_the_workload_serves() {
        let mut observation = adopting();
        observation.deleting = true;
        let hash = observation.replica_sets[0].hash.clone();
        observation.spec.strategy.canary.stable_service = Some("front".into());
        let service = crate::observation::workload::Service {
            kind: "ClusterIP".into(),
            selector: [(HASH_LABEL.to_owned(), hash)].into(),
        };
        observation.services.insert("front".into(), Some(service));
        let set = |observation: &mut Observation, replicas, available| {
            if let Some(Ok(it)) = &mut observation.workload {
                (it.replicas, it.available) = (replicas, available);
            }
        };
        set(&mut observation, 0, 0);
        let (step, _) = next(&observation);
        assert!(matches!(
            step.actions[..],
            [Action::ScaleWorkload {
                replicas: 4,
                beside: None,
                ..
            }]
        ));
        set(&mut observation, 4, 3);
        assert!(next(&observation).0.actions.is_empty());
        set(&mut observation, 4, 4);
        let (step, status) = next(&observation);
        let release = Action::ReleaseService {
            service: "front".into(),
        };
        assert_eq!(step.actions, [release]);
        assert!(releases_services(&observation, &status));
    }
}
