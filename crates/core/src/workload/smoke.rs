//! The smoke check: whether it is required, the state of its Job, and the consequence of its end.
//!
//! The Job is created once only the check itself and people are waited for, so that its outcome is known to
//! those who sign. The outcome is stored in the change: a Job that is deleted after its success is not run
//! again, and one that is deleted before its end is created again.
//!
//! Invariant: only a Job that has succeeded lets a change advance, and only one that the controller is known to have
//! made; one that somebody else made is deleted. Any other state holds, and ends in a
//! rollback by the Job's failure, its own deadline, or [`deadline`].

use countersign_api::rollout::{Change, Stage};
use countersign_api::{Duration, Smoke};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::hold::Hold;
use crate::limits::FOREIGN_TEXT;
use crate::observation::Observation;
use crate::observation::workload::{Integrity, Job, JobEnd};
use crate::reason::Reason;
use crate::text::sanitize_to;
use crate::workload::failure;
use crate::{change, names};

/// Longest name of a Job, in characters: its pods carry it in a label.
const MAX_NAME: usize = 63;

/// How much later than its pods the Job itself times out. A pod that exceeds its own deadline is kept with
/// its log; one that is stopped by its Job is deleted.
const GRACE: std::time::Duration = std::time::Duration::from_secs(10);
/// Most Jobs of one check that are replaced because they differ, by a webhook whose answers differ or a controller.
const MOST_REPLACED: i32 = 3;
/// The reason of a Job or a pod that exceeded its deadline.
const TOO_LONG: &str = "DeadlineExceeded";

/// The name of the Job of the attempt with this RolloutRun.
#[must_use]
pub fn job_name(run: &str) -> String {
    // The digest and the number at the end distinguish attempts.
    let mut parts = run.rsplitn(3, '-');
    let (attempt, digest) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let rollout = parts.next().unwrap_or_default();
    names::ending(rollout, &format!("{digest}-{attempt}-smoke"), MAX_NAME)
}

/// Whether a change requires a smoke check that has not succeeded yet. Once a change has waited for the
/// check, it stays required even if it is removed from the spec.
#[must_use]
pub fn is_awaited(observation: &Observation, change: &Change) -> bool {
    let progress = change.smoke.as_ref();
    let required = observation.spec.strategy.canary.smoke.is_some() || progress.is_some();
    let passed = progress.is_some_and(|progress| progress.passed);
    let waits = change.stage == Stage::Waiting && change.outcome.is_none() && !change.initial;
    waits && required && !passed
}

pub(super) fn job<'a>(observation: &'a Observation, change: &Change) -> Option<&'a Job> {
    let name = job_name(&change.run);
    observation.jobs().iter().find(|job| job.name == name)
}

/// The Job of a check that is awaited.
fn awaited_job<'a>(observation: &'a Observation, change: &Change) -> Option<&'a Job> {
    job(observation, change).filter(|_| is_awaited(observation, change))
}

/// The awaited Job, if it differs from the one that the check demands and is to be replaced. Once so many were, it stays
/// as it is.
pub(super) fn to_replace<'a>(observation: &'a Observation, change: &Change) -> Option<&'a Job> {
    let edited = job(observation, change).filter(|job| job.integrity.edit().is_some());
    edited.filter(|_| is_awaited(observation, change) && !is_given_up(observation))
}

/// By the status as it was read, so that one decision replaces, counts and describes alike.
fn is_given_up(observation: &Observation) -> bool {
    let change = observation.status.change.as_ref();
    let progress = change.and_then(|it| it.smoke.as_ref());
    progress.is_some_and(|it| it.replaced >= MOST_REPLACED)
}

/// Why a Job is not believed, in a sentence.
pub(super) fn disbelief(observation: &Observation, job: &Job) -> Option<String> {
    let name = &job.name;
    match &job.integrity {
        Integrity::Sound | Integrity::Admitted { .. } => None,
        Integrity::Unverified { message } => Some(format!(
            "it is not known whether Job {name} is the one of the smoke check: {}",
            sanitize_to(message, FOREIGN_TEXT)
        )),
        Integrity::Edited(edit) => {
            let writer = edit.writer.as_deref();
            let writer = writer.map(|it| format!(", as {} wrote", sanitize_to(it, FOREIGN_TEXT)));
            let remedy = if is_given_up(observation) {
                format!(
                    "and so were {MOST_REPLACED} before it: exempt Jobs from the webhook or controller that edits them, then delete it"
                )
            } else {
                "it is deleted and made again".to_owned()
            };
            Some(format!(
                "Job {name} is not the one of the smoke check: its {} differs{}; {remedy}",
                edit.what,
                writer.unwrap_or_default()
            ))
        }
    }
}

/// The message that an awaited check has succeeded.
#[must_use]
pub fn success(observation: &Observation, change: &Change) -> Option<String> {
    let job = awaited_job(observation, change).filter(|it| it.integrity.is_sound())?;
    (job.end == Some(JobEnd::Succeeded)).then(|| format!("Job {} has succeeded", job.name))
}

/// The message that an awaited check has failed, with the end of its log. A Job that cannot be verified counts, since
/// its failure lets nothing through.
#[must_use]
pub fn failure(observation: &Observation, change: &Change) -> Option<String> {
    let job = awaited_job(observation, change).filter(|it| it.integrity.edit().is_none())?;
    let Some(JobEnd::Failed { reason, message }) = &job.end else {
        return None;
    };
    let failed = job.failures.first();
    let too_long = reason == TOO_LONG || failed.is_some_and(|it| it.reason == TOO_LONG);
    let timeout = observation
        .spec
        .strategy
        .canary
        .smoke
        .as_ref()
        .filter(|_| too_long)
        .map(|smoke| format!(" took longer than {}:", smoke.timeout));
    let how = failed.map_or_else(
        || {
            let seen = job.waiting.clone();
            let seen = seen.or_else(|| last_hold(observation, change));
            let seen = seen.map(|seen| format!("; {}", sanitize_to(&seen, FOREIGN_TEXT)));
            let (reason, message) = (sanitize_to(reason, 40), sanitize_to(message, 200));
            format!("{reason}: {message}{}", seen.unwrap_or_default())
        },
        failure::describe,
    );
    let timeout = timeout.unwrap_or_else(|| " failed:".into());
    Some(format!("Job {}{timeout} {how}", job.name))
}

/// Why nothing had started at the last reconcile: the pods of a Job that timed out are deleted.
fn last_hold(observation: &Observation, change: &Change) -> Option<String> {
    let status = &observation.status;
    let started = change.smoke.as_ref()?.started_at.is_some();
    let waited = change::waits_for(status, Reason::AwaitingSmoke);
    (waited && !started).then(|| status.message.clone())
}

/// The state of an awaited check, in a sentence; `None` if none is awaited.
#[must_use]
pub fn awaited(observation: &Observation, change: &Change) -> Option<String> {
    if !is_awaited(observation, change) {
        return None;
    }
    let name = job_name(&change.run);
    if let Some(problem) = observation.unreadable_jobs() {
        let problem = sanitize_to(problem, FOREIGN_TEXT);
        return Some(format!(
            "Job {name} of the smoke check cannot be read: {problem}"
        ));
    }
    let doubted = job(observation, change).and_then(|job| disbelief(observation, job));
    if doubted.is_some() {
        return doubted;
    }
    let because = |why: Option<&String>| {
        why.map(|why| format!(": {}", sanitize_to(why, FOREIGN_TEXT)))
            .unwrap_or_default()
    };
    Some(match job(observation, change) {
        Some(job) if job.started => format!("the smoke check runs as Job {name}"),
        Some(job) => format!(
            "no container of the smoke check's Job {name} has started yet{}",
            because(job.waiting.as_ref())
        ),
        None if observation.spec.strategy.canary.smoke.is_none() => format!(
            "the smoke check's Job {name} is missing and cannot be created, as spec.strategy.canary.smoke was removed: restore the field, or abort the change"
        ),
        None => format!(
            "the smoke check's Job {name} is not created yet{}",
            because(observation.write_failure.as_ref())
        ),
    })
}

/// Updates the progress of an awaited check: its deadline runs only while nothing else is waited for.
pub fn keep_progress(observation: &Observation, change: &mut Change, hold: Option<&Hold>) {
    if !is_awaited(observation, change) {
        return;
    }
    if !is_held_for(hold) {
        if let Some(progress) = &mut change.smoke {
            (progress.since, progress.started_at) = (None, None);
        }
        return;
    }
    let now = || Time(observation.now);
    let started = job(observation, change).is_some_and(|job| job.started);
    let replaces = to_replace(observation, change).is_some();
    let progress = change.smoke.get_or_insert_default();
    progress.since.get_or_insert_with(now);
    if started {
        progress.started_at.get_or_insert_with(now);
    }
    progress.replaced += i32::from(replaces);
}

pub(super) fn is_held_for(hold: Option<&Hold>) -> bool {
    hold.is_some_and(|hold| hold.reason == Reason::AwaitingSmoke)
}

/// When an awaited check times out although its Job has not failed: the Job cannot be created, none of its
/// containers starts, or it outlives its own deadline.
#[must_use]
pub fn deadline(observation: &Observation, change: &Change) -> Option<Timestamp> {
    let progress = change.smoke.as_ref().filter(|progress| !progress.passed)?;
    let spec = &observation.spec;
    let timeout = change::progress_timeout(observation);
    let (since, timeout) = match &progress.started_at {
        None => (progress.since.as_ref()?, timeout),
        Some(at) => {
            let smoke = spec.strategy.canary.smoke.as_ref();
            let runs = smoke.map_or(GRACE.into(), job_deadline).signed();
            (at, timeout.saturating_add(runs))
        }
    };
    Some(since.0.saturating_add(timeout).unwrap_or(Timestamp::MAX))
}

pub(super) fn job_deadline(smoke: &Smoke) -> Duration {
    smoke.timeout.std().saturating_add(GRACE).into()
}

#[cfg(test)]
mod tests;
