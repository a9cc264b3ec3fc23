//! The Job of a smoke check.

use countersign_api::rollout::Change;
use countersign_api::{HASH_LABEL, NEVER_SERVES, PodTemplate, Smoke};
use serde_json::{Map, Value, json};

use crate::decision::{Action, JobAction, NewJob, Notice};
use crate::hold::Hold;
use crate::observation::Observation;
use crate::reason::Reason;
use crate::workload::smoke;

/// Placeholder for the image under test.
pub const IMAGE: &str = "{{image}}";

/// The Job to create, and the Jobs to delete: those that are no longer awaited, and one that the controller did not make.
#[must_use]
pub fn actions(
    observation: &Observation,
    change: Option<&Change>,
    hold: Option<&Hold>,
) -> Vec<Action> {
    let change = change.filter(|change| smoke::is_awaited(observation, change));
    let name = change.map(|change| smoke::job_name(&change.run));
    let replaced = change.and_then(|change| smoke::to_replace(observation, change));
    let stopped = observation
        .jobs()
        .iter()
        .filter(|job| match &name {
            Some(awaited) if job.name == *awaited => replaced.is_some(),
            Some(_) | None => job.end.is_none(),
        })
        .map(|job| JobAction::DeleteJob {
            job: job.name.clone(),
            uid: job.uid.clone(),
        });
    let made = to_make(observation, change, hold).map(JobAction::CreateJob);
    stopped.chain(made).map(Action::Job).collect()
}

/// The Event for a Job that somebody else wrote.
#[must_use]
pub fn tampered_notice(observation: &Observation, change: Option<&Change>) -> Option<Notice> {
    let change = change.filter(|it| smoke::is_awaited(observation, it))?;
    let job = smoke::to_replace(observation, change)?;
    // The controller itself made it if the check was edited since.
    job.integrity.edit()?.writer.as_ref()?;
    Some(Notice {
        reason: Reason::Tampered.into(),
        action: "DeleteJob".into(),
        message: smoke::disbelief(observation, job)?,
        warning: true,
    })
}

fn to_make(
    observation: &Observation,
    change: Option<&Change>,
    hold: Option<&Hold>,
) -> Option<NewJob> {
    let change = change
        .filter(|change| smoke::is_held_for(hold) && smoke::job(observation, change).is_none())?;
    demanded(observation, change).filter(|_| observation.unreadable_jobs().is_none())
}

/// The Job that the smoke check of the spec demands for a change.
#[must_use]
pub fn demanded(observation: &Observation, change: &Change) -> Option<NewJob> {
    let smoke = observation.spec.strategy.canary.smoke.as_ref()?;
    Some(NewJob {
        name: smoke::job_name(&change.run),
        run: change.run.clone(),
        deadline: smoke::job_deadline(smoke),
        template: template(observation, change, smoke),
    })
}

/// The check's pods: the spec's template with the image under test, its environment, and the end of the log
/// as the termination message of a failed container.
pub(super) fn template(observation: &Observation, change: &Change, smoke: &Smoke) -> PodTemplate {
    let mut template = smoke.template.0.clone();
    // A revision's label would count its requests as the canary's, and move a Service to it.
    if let Some(Value::Object(labels)) = template.pointer_mut("/metadata/labels") {
        labels.remove(HASH_LABEL);
    }
    if let Some(Value::Object(spec)) = template.get_mut("spec") {
        let own = spec.get("activeDeadlineSeconds").and_then(Value::as_u64);
        let timeout = smoke.timeout.std().as_secs().max(1);
        let deadline = own.map_or(timeout, |own| own.min(timeout));
        spec.insert("activeDeadlineSeconds".into(), json!(deadline));
        spec.insert("restartPolicy".into(), json!("Never"));
        gate_readiness(spec);
        for list in ["initContainers", "containers"] {
            let containers = spec.get_mut(list).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                if let Value::Object(container) = container {
                    complete(container, observation, change);
                }
            }
        }
    }
    PodTemplate(template)
}

fn gate_readiness(spec: &mut Map<String, Value>) {
    let gate = json!({ "conditionType": NEVER_SERVES });
    match spec.get_mut("readinessGates") {
        Some(Value::Array(gates)) if gates.contains(&gate) => {}
        Some(Value::Array(gates)) => gates.push(gate),
        _ => {
            spec.insert("readinessGates".into(), json!([gate]));
        }
    }
}

fn complete(container: &mut Map<String, Value>, observation: &Observation, change: &Change) {
    let under_test = observation
        .spec
        .template
        .0
        .pointer("/spec/containers/0/image");
    if let Some(image) = container.get_mut("image").filter(|image| *image == IMAGE)
        && let Some(under_test) = under_test
    {
        image.clone_from(under_test);
    }
    container
        .entry("terminationMessagePolicy")
        .or_insert_with(|| json!("FallbackToLogsOnError"));
    let env = container.entry("env").or_insert_with(|| json!([]));
    if env.is_null() {
        *env = json!([]);
    }
    let Value::Array(env) = env else { return };
    for (name, value) in [
        ("COUNTERSIGN_ROLLOUT", &observation.name),
        ("COUNTERSIGN_REVISION", &change.pod_template_hash),
        ("COUNTERSIGN_DIGEST", &change.digest),
    ] {
        let is_set = |own: &Value| own.get("name").and_then(Value::as_str) == Some(name);
        if !env.iter().any(is_set) {
            env.push(json!({ "name": name, "value": value }));
        }
    }
}
