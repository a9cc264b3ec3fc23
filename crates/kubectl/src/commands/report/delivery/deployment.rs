//! RolloutRuns as deployments: what reached users, whether it failed, and how long it took.

use std::collections::BTreeMap;

use countersign_api::rollout::{Outcome, Transition};
use countersign_api::{Duration, PROVENANCE_PREFIX, PodTemplate, RolloutRun};
use countersign_core::provenance::{Contributor, Provenance, State};
use countersign_core::reason::Reason;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::commands::report::coverage::{began, full_name};

/// A promoted change that is taken back later than this was replaced for other reasons than a failure.
const TAKEN_BACK_WITHIN: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Ends of a change that had served and in which nobody found a fault.
const BLAMELESS: [Reason; 2] = [Reason::WaitExpired, Reason::RolledBackByFreeze];

/// A change that had a share of the users' traffic and was promoted, or failed.
#[derive(Debug)]
pub struct Deployment<'a> {
    /// Its record.
    pub run: &'a RolloutRun,
    /// Who wrote it, as declared; `None` if that is not known.
    pub contributor: Option<Contributor>,
    /// Its changed lines, if they are known.
    pub lines: Option<u32>,
    /// When it was promoted, or failed.
    pub at: Timestamp,
    /// Whether it was rolled back, or taken back after its promotion.
    pub failed: bool,
    /// From its newest commit to its promotion.
    pub lead_time: Option<Duration>,
    /// How long users had it while it failed.
    pub restored_in: Option<Duration>,
    /// Whether it is the first one after a failed one of the same Rollout.
    pub is_rework: bool,
}

/// How a deployment ended.
enum End {
    Promoted(Timestamp),
    Failed(Timestamp, Option<Duration>),
}

/// A revision that became stable.
struct Stable<'a> {
    template: Option<&'a str>,
    at: Timestamp,
    /// Its place among the deployments; a first revision has none.
    deployment: Option<usize>,
}

/// The deployments of all Rollouts. First revisions are none, since they replace nothing, and neither are changes
/// that ended before they had any traffic.
#[must_use]
pub fn deployments(runs: &[RolloutRun]) -> Vec<Deployment<'_>> {
    let mut rollouts: BTreeMap<String, Vec<&RolloutRun>> = BTreeMap::new();
    for run in runs {
        rollouts.entry(full_name(run)).or_default().push(run);
    }
    let mut all = Vec::new();
    for mut runs in rollouts.into_values() {
        runs.sort_by_key(|run| (began(run), run.spec.revision));
        all.extend(of_rollout(&runs));
    }
    all
}

/// When a change ended, if it did so without a deployment.
#[must_use]
pub fn ended_without(run: &RolloutRun) -> Option<Timestamp> {
    let progress = &run.spec.progress;
    let is_none = progress.outcome? != Outcome::Promoted && end(run).is_none();
    let ended = progress.ended_at.as_ref().filter(|_| is_none)?;
    Some(ended.0)
}

/// The deployments of one Rollout; its records are in the order of time.
fn of_rollout<'a>(runs: &[&'a RolloutRun]) -> Vec<Deployment<'a>> {
    let mut deployments: Vec<Deployment<'a>> = Vec::new();
    let mut stable: Vec<Stable<'a>> = Vec::new();
    let mut is_rework = false;
    for &run in runs {
        let template = run.spec.template_digest.as_deref();
        let promoted = promoted_at(run);
        if let Some((index, restored_in)) =
            promoted.and_then(|at| taken_back(&stable, template, at))
            && let Some(last) = deployments.get_mut(index)
        {
            last.failed = true;
            last.restored_in = restored_in;
            is_rework = true;
        }
        let end = end(run);
        if let Some(at) = promoted {
            stable.push(Stable {
                template,
                at,
                deployment: end.is_some().then_some(deployments.len()),
            });
        }
        let Some(end) = end else { continue };
        let mut deployment = Deployment::of(run, &end);
        deployment.is_rework = is_rework;
        is_rework = deployment.failed;
        deployments.push(deployment);
    }
    deployments
}

impl<'a> Deployment<'a> {
    fn of(run: &'a RolloutRun, end: &End) -> Self {
        let provenance = provenance(run);
        let (at, failed, restored_in) = match end {
            End::Promoted(at) => (*at, false, None),
            End::Failed(at, restored_in) => (*at, true, *restored_in),
        };
        let committed_at = provenance.committed_at.filter(|_| !failed);
        Self {
            run,
            contributor: provenance.contributor,
            lines: provenance.lines,
            at,
            failed,
            lead_time: committed_at.and_then(|committed| between(committed, at)),
            restored_in,
            is_rework: false,
        }
    }
}

/// How a change ended that had served; `None` if it did not, or ended in another way than by promotion or failure.
fn end(run: &RolloutRun) -> Option<End> {
    let progress = &run.spec.progress;
    let lines = &progress.transitions;
    if !lines.iter().any(|line| is_step(line) && line.weight > 0) {
        return None;
    }
    match progress.outcome? {
        Outcome::Promoted => promoted_at(run).map(End::Promoted),
        Outcome::RolledBack | Outcome::Reverted => failure(lines),
        Outcome::Superseded => None,
    }
}

/// When a change that was rolled back failed, and how long users had it in the step in which it failed: the steps
/// before were judged, and passed.
fn failure(lines: &[Transition]) -> Option<End> {
    let last = lines.iter().rposition(|line| line.weight > 0)?;
    let (serving, ended) = lines.split_at_checked(last + 1)?;
    let cause = ended.first()?;
    if BLAMELESS.iter().any(|reason| cause.reason == *reason) {
        return None;
    }
    let at = time(cause)?;
    let mut serving = serving.iter().rev();
    let begin = serving.find(|line| is_step(line) || line.reason == Reason::Promoted);
    let gone = ended.iter().find(|line| line.reason == Reason::RolledBack);
    let restored_in = begin
        .and_then(time)
        .zip(gone.or(Some(cause)).and_then(time));
    Some(End::Failed(
        at,
        restored_in.and_then(|(begin, gone)| between(begin, gone)),
    ))
}

/// The deployment that a promotion takes back, and for how long users had it: the template is the one that was
/// stable before.
fn taken_back(
    stable: &[Stable<'_>],
    template: Option<&str>,
    at: Timestamp,
) -> Option<(usize, Option<Duration>)> {
    let [.., before, last] = stable else {
        return None;
    };
    let returns = template.is_some() && before.template == template && last.template != template;
    let is_soon = at.duration_since(last.at) <= TAKEN_BACK_WITHIN;
    let index = last.deployment.filter(|_| returns && is_soon)?;
    Some((index, between(last.at, at)))
}

/// Whether a step began. A first revision takes none.
fn is_step(line: &Transition) -> bool {
    line.reason == Reason::StepStarted || line.reason == Reason::Promoting
}

/// When a change was promoted, if that is its outcome.
fn promoted_at(run: &RolloutRun) -> Option<Timestamp> {
    let progress = &run.spec.progress;
    let mut lines = progress.transitions.iter();
    let line = lines.find(|line| line.reason == Reason::Promoted)?;
    time(line).filter(|_| progress.outcome == Some(Outcome::Promoted))
}

fn time(line: &Transition) -> Option<Timestamp> {
    line.at.as_ref().map(|at| at.0)
}

fn between(from: Timestamp, to: Timestamp) -> Option<Duration> {
    let length = std::time::Duration::try_from(to.duration_since(from));
    length.ok().map(Duration::from)
}

/// The provenance of a record. It was compared with the image when the change began, and counts only if nothing was
/// wrong with it.
fn provenance(run: &RolloutRun) -> Provenance {
    let recorded = &run.spec.provenance;
    if recorded.state != State::Declared.to_string() {
        return Provenance::default();
    }
    let annotations = recorded.annotations.iter();
    let annotations = annotations
        .filter(|(key, _)| *key != "image")
        .map(|(key, value)| (format!("{PROVENANCE_PREFIX}{key}"), value.clone()));
    Provenance::read(&annotations.collect(), &PodTemplate::default())
}
