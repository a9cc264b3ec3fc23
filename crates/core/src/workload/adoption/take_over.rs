//! Taking a workload over.

use countersign_api::HASH_LABEL;
use countersign_api::rollout::Adopted;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::analysis::numbers::counted;
use crate::decision::Notice;
use crate::limits::FOREIGN_TEXT;
use crate::observation::Observation;
use crate::observation::workload::Workload;
use crate::reason::Reason;
use crate::text::sanitize_to;
use crate::traffic::settle;
use crate::traffic::view::View;
use crate::workload::adoption::step::{self, ADOPTED, AT_MOST_EVERY, Step, WRITE_INTERVAL};

pub(super) fn take_over(view: &View, adopted: &mut Adopted, workload: &Workload) -> Step {
    if !is_handed_over(view) {
        adopted.handed_over_at = None;
    } else if adopted.handed_over_at.is_none() {
        adopted.handed_over_at = Some(Time(view.observation.now));
    }
    if workload.replicas == 0 {
        adopted.scaled_down = true;
        Step::default()
    } else if adopted.scaled_down {
        scale_down_again(view, adopted, workload)
    } else {
        scale_down(view, adopted, workload)
    }
}

/// Whether the stable revision serves with all of its pods, and no Service or route sends elsewhere.
fn is_handed_over(view: &View) -> bool {
    let observation = view.observation;
    let Some(stable) = view.stable else {
        return false;
    };
    let available = view.fleet.pods.stable.available;
    let change = view.change.map(|it| &it.pod_template_hash);
    let own = |hash: Option<&String>| {
        hash == Some(&stable.pod_template_hash) || (hash.is_some() && hash == change)
    };
    let services = step::named_services(observation).all(|name| {
        let service = observation
            .traffic
            .services
            .get(name)
            .and_then(Option::as_ref);
        service.is_some_and(|service| own(service.selector.get(HASH_LABEL)))
    });
    available > 0
        && available >= observation.spec.replicas
        && services
        && view.split.is_none_or(|split| split.settled_at.is_some())
}

/// Scales the workload to 0 once its pods have received no requests for the drain time.
fn scale_down(view: &View, adopted: &Adopted, workload: &Workload) -> Step {
    let observation = view.observation;
    let Some(since) = &adopted.handed_over_at else {
        return Step::default();
    };
    // Without the finalizer the pods would be deleted with the Rollout.
    if observation.spec.keeps_pods() && !observation.deletion.awaited {
        return Step::at(observation.now);
    }
    let settled = view.split.and_then(|it| it.settled_at.clone());
    let since = settled.map_or(since.0, |settled| settled.0.max(since.0));
    let due = settle::drained_at(observation, since);
    if observation.now < due {
        return Step::at(due);
    }
    Step {
        actions: vec![step::scale(view, workload, 0)],
        ..Step::after(observation, WRITE_INTERVAL)
    }
}

/// The workload was scaled up: its pods would serve beside the revisions, outside of any weight.
fn scale_down_again(view: &View, adopted: &mut Adopted, workload: &Workload) -> Step {
    let observation = view.observation;
    if !can_serve(view) {
        return Step::default();
    }
    let last = adopted.corrected_at.as_ref().map(|at| at.0);
    let due = last.and_then(|last| Some((last, last.saturating_add(AT_MOST_EVERY).ok()?)));
    // A clock that was set back must not delay the correction.
    if let Some((_, due)) = due.filter(|(last, due)| (*last..*due).contains(&observation.now)) {
        return Step::at(due);
    }
    adopted.corrected_at = Some(Time(observation.now));
    Step {
        actions: vec![step::scale(view, workload, 0)],
        notices: vec![Notice {
            reason: Reason::WorkloadScaledDown.into(),
            action: "ScaleDown".into(),
            message: format!(
                "{}: it is scaled down again",
                scaled_up(observation, workload)
            ),
            warning: true,
        }],
        ..Step::after(observation, WRITE_INTERVAL)
    }
}

/// Whether the revisions carry the traffic without the workload's pods.
fn can_serve(view: &View) -> bool {
    let (limits, present) = (view.fleet.limits, &view.fleet.pods);
    let available = present.stable.available + present.canary.available;
    present.stable.available > 0 && available >= limits.desired - limits.unavailable
}

pub(super) fn scaled_up(observation: &Observation, workload: &Workload) -> String {
    let who = workload.scaled_by.as_deref();
    let who = who.map_or_else(|| "somebody".into(), |who| sanitize_to(who, FOREIGN_TEXT));
    format!(
        "{who} scaled Deployment {} to {}, while Rollout {} serves in its place: remove `replicas` from where the Deployment comes from, such as its GitOps source, and scale the Rollout instead",
        workload.name,
        counted(workload.replicas, "pod"),
        observation.name
    )
}

/// An autoscaler that targets the adopted workload, with the remedy.
pub(super) fn autoscaler_targets_workload(observation: &Observation) -> Option<String> {
    let workload = observation.workload.as_ref()?.as_ref().ok()?;
    let mut astray = workload.autoscalers.iter().filter(|it| !it.targets_rollout);
    let first = &astray.next()?.name;
    let others = match astray.count() {
        0 => String::new(),
        others => format!(", and so do {others} more"),
    };
    let (name, rollout) = (&workload.name, &observation.name);
    let mut right = workload.autoscalers.iter().filter(|it| it.targets_rollout);
    let remedy = right.next().map_or_else(
        || format!("set its target to Rollout {rollout}"),
        |right| {
            format!(
                "remove it, as HorizontalPodAutoscaler {} targets Rollout {rollout}",
                right.name
            )
        },
    );
    Some(format!(
        "HorizontalPodAutoscaler {first} targets Deployment {name}, which gives up its pods{others}: {remedy}"
    ))
}

/// The Event for an autoscaler that targets the adopted workload, once.
pub(super) fn misdirected_autoscaler(observation: &Observation) -> Option<Notice> {
    let message = autoscaler_targets_workload(observation)?;
    let mut conditions = observation.status.conditions.iter();
    let reported = conditions.any(|it| it.type_ == ADOPTED && it.message.contains(&message));
    (!reported).then(|| Notice {
        reason: Reason::AutoscalerMisdirected.into(),
        action: "Adopt".into(),
        message,
        warning: true,
    })
}
