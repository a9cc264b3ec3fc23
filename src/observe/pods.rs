//! Why pods do not start, or how they failed.

use countersign_api::HASH_LABEL;
use countersign_api::rollout::Stage;
use countersign_core::Observation;
use countersign_core::observation::workload::{ContainerFailure, NewPods, ReplicaSet};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodStatus};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::observer::Observer;
use super::people::in_time;
use super::reads;

/// Most pods of a revision that are read; if there are more, they never count as all crashing.
const MAX_PODS: usize = 500;
/// Longest message of a container in characters, as the kubelet keeps it; longer ones are cut.
pub(super) const MAX_MESSAGE: usize = 4_096;
/// The kubelet's reason for a container in restart backoff.
const CRASH_LOOP: &str = "CrashLoopBackOff";
/// Restarts from which a container in backoff counts as crashing.
const WAITING_RESTARTS: i32 = 2;
/// The same for a container that is running again.
const RESTARTS: i32 = 3;
/// Waiting reasons of every starting container, which are no fault.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];

impl Observer {
    /// Reads how the pods of the new revision fare while they are waited for, but not for each of them that starts: their
    /// troubles are found without an event, and before anything is written. It must not keep the evidence from being judged,
    /// so a missing answer is only reported.
    pub(super) async fn new_pods(&self, observation: &Observation) -> Option<NewPods> {
        if self.from_watches {
            return None;
        }
        let set = awaited(observation)?;
        let mut selector = format!("{HASH_LABEL}={}", set.hash);
        if !observation.spec.selector.is_empty() {
            selector = format!("{selector},{}", observation.spec.selector);
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &observation.namespace);
        // Others may make pods with these labels, too, so they are paged; the time of all pages is that of one read.
        let of = ListParams::default().labels(&selector).limit(reads::SMALL);
        let own = |pod: Pod| status_of(pod, &set.uid);
        let read = reads::collect_at_most(MAX_PODS, &pods, &of, own);
        Some(match in_time("its pods", read).await {
            Ok((statuses, more)) => describe(statuses, more),
            Err(problem) => NewPods {
                trouble: Some(problem),
                ..NewPods::default()
            },
        })
    }
}

/// The ReplicaSet of a change in progress with fewer available pods than requested.
fn awaited(observation: &Observation) -> Option<&ReplicaSet> {
    let change = observation.status.change.as_ref()?;
    let begun = matches!(change.stage, Stage::Stepping | Stage::Promoting);
    if !begun || change.outcome.is_some() {
        return None;
    }
    let mut sets = observation.replica_sets.iter();
    sets.find(|set| {
        set.owned && set.hash == change.pod_template_hash && set.available < set.replicas
    })
}

/// The status of a pod of the ReplicaSet with this uid, unless it is being deleted.
fn status_of(pod: Pod, uid: &str) -> Option<PodStatus> {
    let is_own = is_controlled_by(&pod, uid) && pod.metadata.deletion_timestamp.is_none();
    is_own.then(|| pod.status.unwrap_or_default())
}

/// The state of the pods of a ReplicaSet, of which more may exist.
fn describe(pods: Vec<PodStatus>, more: bool) -> NewPods {
    let (ended, active): (Vec<_>, Vec<_>) = pods
        .into_iter()
        .partition(|status| matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")));
    let crashes: Vec<_> = active.iter().filter_map(crash).collect();
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    NewPods {
        existing: count(active.len()).saturating_add(i32::from(more)),
        crashing: count(crashes.len()),
        trouble: active.iter().chain(&ended).find_map(trouble),
        crash: crashes.into_iter().next(),
    }
}

/// Whether the object with this uid controls a pod.
pub(super) fn is_controlled_by(pod: &Pod, uid: &str) -> bool {
    let mut owners = pod.owner_references().iter();
    owners.any(|owner| owner.controller == Some(true) && owner.uid == uid)
}

/// The containers of a pod, in the order in which they start.
pub(super) fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten())
}

/// The containers of a pod that failed and are not restarted.
pub(super) fn failures(status: &PodStatus) -> impl Iterator<Item = ContainerFailure> {
    containers(status).filter_map(|container| {
        let end = container.state.as_ref()?.terminated.as_ref()?;
        // The reason of the pod is more specific than that of its killed container.
        (end.exit_code != 0).then(|| failure(container, end, status.reason.as_ref()))
    })
}

fn failure(
    container: &ContainerStatus,
    end: &ContainerStateTerminated,
    reason: Option<&String>,
) -> ContainerFailure {
    ContainerFailure {
        container: container.name.clone(),
        exit_code: end.exit_code,
        reason: reason.or(end.reason.as_ref()).cloned().unwrap_or_default(),
        message: end_of(end.message.as_deref().unwrap_or_default()),
    }
}

/// The last termination of a crashing container of a pod.
fn crash(status: &PodStatus) -> Option<ContainerFailure> {
    containers(status).find_map(|container| {
        let ended = last_end(container);
        let waits = waiting_reason(container) == Some(CRASH_LOOP);
        let fails = ended.is_some_and(|end| end.exit_code != 0) && !container.ready;
        let again_and_again = (waits && container.restart_count >= WAITING_RESTARTS)
            || (fails && container.restart_count >= RESTARTS);
        let none = ContainerStateTerminated::default();
        again_and_again.then(|| failure(container, ended.unwrap_or(&none), None))
    })
}

fn last_end(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let states = [&container.state, &container.last_state];
    let mut states = states.into_iter().flatten();
    states.find_map(|state| state.terminated.as_ref())
}

fn waiting_reason(container: &ContainerStatus) -> Option<&str> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    waiting.reason.as_deref()
}

/// Why a pod does not start, from its status; `None` if the status does not show it.
pub(super) fn trouble(status: &PodStatus) -> Option<String> {
    let of_scheduler = || {
        let mut conditions = status.conditions.iter().flatten();
        let refused = conditions.find(|it| it.type_ == "PodScheduled" && it.status == "False")?;
        sentence(refused.reason.as_ref(), refused.message.as_ref())
    };
    let ended = || {
        let failed = failures(status).next()?;
        let (container, code) = (failed.container, failed.exit_code);
        Some(format!(
            "container {container} exited with {code} ({})",
            failed.reason
        ))
    };
    containers(status)
        .find_map(waits)
        .or_else(of_scheduler)
        .or_else(|| sentence(status.reason.as_ref(), status.message.as_ref()))
        .or_else(ended)
}

fn waits(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_ref();
    if reason.is_some_and(|reason| STARTING.contains(&reason.as_str())) {
        return None;
    }
    // The last termination is more useful than the length of the backoff.
    let end = last_end(container).filter(|_| reason.is_some_and(|reason| reason == CRASH_LOOP));
    let why = match end {
        Some(end) => {
            let how = end.reason.as_deref().unwrap_or_default();
            format!("{CRASH_LOOP}: it exited with {} ({how})", end.exit_code)
        }
        None => sentence(reason, waiting.message.as_ref())?,
    };
    Some(format!("container {}: {why}", container.name))
}

fn sentence(reason: Option<&String>, message: Option<&String>) -> Option<String> {
    let parts: Vec<_> = [reason, message]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    (!parts.is_empty()).then(|| parts.join(": "))
}

/// The end of a message, whose length the API server does not limit.
fn end_of(message: &str) -> String {
    let from = message.len().saturating_sub(MAX_MESSAGE);
    let from = (from..=message.len()).find(|at| message.is_char_boundary(*at));
    from.and_then(|at| message.get(at..))
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests;
