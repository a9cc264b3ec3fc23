//! Taking over.

use countersign_api::HASH_LABEL;
use countersign_api::rollout::{Adopted, RolloutStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::analysis::numbers::counted;
use crate::decision::Notice;
use crate::observation::Observation;
use crate::observation::workload::Workload;
use crate::reason;
use crate::replicas::present;
use crate::text::shown;
use crate::workload::adoption::step::{self, ADOPTED, AT_MOST_EVERY, MAX_FOREIGN, SOON, Step};

pub(super) fn take_over(
    observation: &Observation,
    status: &mut RolloutStatus,
    workload: &Workload,
) -> Step {
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
    let services = step::named_services(observation).all(|name| {
        let service = observation.services.get(name).and_then(Option::as_ref);
        service.is_some_and(|service| own(service.selector.get(HASH_LABEL)))
    });
    let split = status.traffic.as_ref();
    available > 0
        && available >= observation.spec.replicas
        && services
        && split.is_none_or(|split| split.settled_at.is_some())
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
    let due = step::after_drain(observation, since);
    if observation.now < due {
        return Step::at(due);
    }
    Step {
        actions: vec![step::scale(observation, status, workload, 0)],
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
        actions: vec![step::scale(observation, status, workload, 0)],
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

pub(super) fn scaled_up(observation: &Observation, workload: &Workload) -> String {
    let who = workload.scaled_by.as_deref();
    let who = who.map_or_else(|| "somebody".into(), |who| shown(who, MAX_FOREIGN));
    format!(
        "{who} scaled Deployment {} to {}, while Rollout {} serves in its place: remove `replicas` from where the Deployment comes from, such as its GitOps source, and scale the Rollout instead",
        workload.name,
        counted(workload.replicas, "pod"),
        observation.name
    )
}

/// An autoscaler that aims at what has no pods of its own any more, with what to do about it.
pub(super) fn misdirected(observation: &Observation) -> Option<String> {
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
pub(super) fn misdirection(observation: &Observation) -> Option<Notice> {
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
