//! Invariants of every decision, numbered as in the design. Every test that makes a decision checks them.
//!
//! The laws compute pods, shares, sign-offs, deadlines and order on their own. They trust, and so cannot
//! find a defect of: the statistics of a verdict (`analysis::{gather, verdict, checks}`, which operating
//! characteristics and a second implementation test), the digests and checks of a spec ([`Proposal`]),
//! whether a promoted change is watched ([`change::is_watched`]), and the name of a smoke Job.

pub mod observe;
pub mod people;
pub mod queue;
mod tampering;
pub mod traffic;

use countersign_api::Duration;
use countersign_api::policy::{Enforcement, OnScarceEvidence};
use countersign_api::rollout::{Change, Outcome, RolloutStatus, Stage};
use countersign_api::sign_off::SignOffDecision;
use countersign_api::step::Tier;

use crate::analysis::checks::{self, Checks};
use crate::analysis::verdict::{self, Verdict};
use crate::analysis::{above_weight, gather};
use crate::change;
use crate::decision::{
    Action, AdoptionAction, Decision, HistoryAction, JobAction, RoutePatch, TrafficAction,
    WorkloadAction,
};
use crate::laws::traffic::Pods;
use crate::observation::Observation;
use crate::observation::people::IncidentAnswer;
use crate::observation::workload::JobEnd;
use crate::proposal::Proposal;
use crate::provenance::digest;
use crate::reason::Reason;
use crate::replicas::present;
use crate::workload::smoke;

/// A broken law: its number and the observed violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The law's number in the design.
    pub law: u8,
    /// The observed violation.
    pub what: String,
}

/// The kstatus of an object that is not being deleted; GitOps tools and `helm --wait` use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The desired state is not reached yet.
    InProgress,
    /// The desired state serves.
    Current,
    /// The desired state is not reached without a person.
    Failed,
}

/// Reads a status as kstatus does (sigs.k8s.io/cli-utils, `status.Compute`); `None` if conditions
/// contradict each other, so that the result depends on their order.
#[must_use]
pub fn kstatus(generation: i64, status: &RolloutStatus) -> Option<Reading> {
    let value = |kind: &str| {
        let mut conditions = status.conditions.iter();
        let found = conditions.find(|it| it.type_ == kind);
        found.map(|it| it.status.as_str())
    };
    let (reconciling, stalled) = (
        value("Reconciling") == Some("True"),
        value("Stalled") == Some("True"),
    );
    let ready = value("Ready");
    if status.observed_generation != generation {
        return Some(Reading::InProgress);
    }
    match (reconciling, stalled, ready) {
        (true, true, _) | (true, _, Some("True")) | (_, true, Some("True")) => None,
        (true, ..) => Some(Reading::InProgress),
        (_, true, _) => Some(Reading::Failed),
        (.., Some("True") | None) => Some(Reading::Current),
        _ => Some(Reading::InProgress),
    }
}

/// Whether tools that read the status proceed at the right moment: once the desired template is the stable
/// revision, and never before.
fn misread(observation: &Observation, status: &RolloutStatus) -> Option<String> {
    if observation.deleting {
        return None;
    }
    let conditions = || {
        let conditions = status.conditions.iter();
        let shown = conditions.map(|it| format!("{}={} ({})", it.type_, it.status, it.reason));
        shown.collect::<Vec<_>>().join(", ")
    };
    match kstatus(observation.generation, status) {
        None => Some(format!("conditions contradict: {}", conditions())),
        // Without the condition, Current is only what kstatus supposes.
        Some(Reading::Current) if !status.conditions.iter().any(|it| it.type_ == "Ready") => Some(
            format!("Current without the condition Ready: {}", conditions()),
        ),
        Some(Reading::Current) => {
            let desired = Proposal::of(observation).template_digest;
            let stable = status.stable.as_ref();
            let serves = stable.is_some_and(|it| it.template_digest == desired);
            (!serves).then(|| format!("Current, and stable is another: {}", conditions()))
        }
        Some(Reading::InProgress | Reading::Failed) => None,
    }
}

/// The laws that a decision breaks; any is a defect of the controller.
#[must_use]
pub fn broken(observation: &Observation, decision: &Decision) -> Vec<Broken> {
    let before = observation.status.change.as_ref();
    let after = decision.status.change.as_ref();
    let same = before
        .zip(after)
        .filter(|(before, after)| before.run == after.run);
    let advances = same.filter(|(before, after)| {
        after.outcome.is_none() && (after.weight > before.weight || after.step > before.step)
    });
    let mut broken = advances.map_or_else(Vec::new, |(before, after)| {
        broken_by_a_step(observation, before, after)
    });
    let mut expect = |law: u8, holds: bool, what: &dyn Fn() -> String| {
        if !holds {
            broken.push(Broken { law, what: what() });
        }
    };

    if let Some((before, after)) = same {
        if verdict(observation, before)
            .is_some_and(|verdict| matches!(verdict, Verdict::Fail { .. }))
            && before.outcome.is_none()
        {
            let gone = after.outcome.is_some()
                && (after.weight == 0 || after.outcome == Some(Outcome::Promoted));
            expect(3, gone, &|| "a failed canary kept its traffic".into());
        }
        expect(
            3,
            after.outcome.is_some() || !has_failed(observation, before),
            &|| "a failed smoke check or pods that all crash did not end the change".into(),
        );
        expect(7, after.tier >= before.tier, &|| {
            format!("tier {} fell to {}", before.tier, after.tier)
        });
        let moved =
            (before.stage, before.step, before.outcome) != (after.stage, after.step, after.outcome);
        let noted = after.transitions.len() > before.transitions.len();
        expect(9, !moved || noted, &|| "a transition left no line".into());
    }
    let mode = after.and_then(|after| observe::unlawful_mode(observation, before, after));
    expect(7, mode.is_none(), &|| mode.unwrap_or_default().into());
    if let Some((before, after)) = same.filter(|(before, _)| change::is_watched(before)) {
        let fails = watched_verdict(observation, before);
        let holds = !matches!(fails, Some(Verdict::Fail { .. })) || !change::is_watched(after);
        expect(3, holds, &|| "a promoted revision broke and stayed".into());
    }
    if let Some(before) = before.filter(|change| change.outcome == Some(Outcome::RolledBack)) {
        let proposal = Proposal::of(observation);
        let again =
            after.is_some_and(|after| after.run != before.run && after.digest == before.digest);
        let retried = before
            .transitions
            .last()
            .is_some_and(|line| line.reason == Reason::Retried);
        expect(
            8,
            !(again && proposal.digest == before.digest) || retried,
            &|| "a rolled-back change was tried again".into(),
        );
    }
    let lines = after.map_or(0, |change| change.transitions.len());
    let known = same.map_or(0, |(before, _)| before.transitions.len());
    expect(
        9,
        decision.notices.len() >= lines.saturating_sub(known),
        &|| "a transition has no Event".into(),
    );
    let misread = misread(observation, &decision.status);
    broken.extend(misread.map(|what| Broken { law: 9, what }));
    let edited = tampering::unlawful_revision(observation, decision);
    broken.extend(edited.map(|what| Broken {
        law: 11,
        what: what.into(),
    }));
    broken.extend(broken_by_actions(observation, decision));
    broken.extend(broken_by_adoption(observation, decision));
    broken
}

/// The laws that the next step breaks.
fn broken_by_a_step(observation: &Observation, before: &Change, after: &Change) -> Vec<Broken> {
    let mut broken = Vec::new();
    let mut expect = |law: u8, holds: bool, what: &dyn Fn() -> String| {
        if !holds {
            broken.push(Broken { law, what: what() });
        }
    };
    expect(1, one_step(before, after), &|| {
        format!("step {} to {}", before.step, after.step)
    });
    expect(1, gates_open(observation, before, after), &|| {
        "a gate was closed when the weight rose".into()
    });
    expect(1, not_frozen(observation, before), &|| {
        "the weight rose during a freeze".into()
    });
    expect(1, has_no_more_than_its_weight(observation, before), &|| {
        "the weight rose though the canary got far more requests than its weight".into()
    });
    expect(1, smoke_has_passed(observation, before), &|| {
        "the first step was taken before the smoke check had succeeded".into()
    });
    expect(1, queue::in_order(observation, before, after), &|| {
        "the first step was taken before the queue or the dependencies allowed it".into()
    });
    expect(
        2,
        people::people_have_signed(observation, before, after),
        &|| "a required sign-off was not given".into(),
    );
    expect(11, tampering::is_as_decided(observation, before), &|| {
        "the weight rose though pods may run another template than was decided".into()
    });
    expect(12, content_is_bound(observation, before), &|| {
        "the weight rose though the tier requires image digests, or configuration named by hash"
            .into()
    });
    expect(6, evidence_allows(observation, before), &|| {
        "the evidence did not allow the step".into()
    });
    broken
}

/// The laws that the actions of a decision break.
fn broken_by_actions(observation: &Observation, decision: &Decision) -> Vec<Broken> {
    let after = decision.status.change.as_ref();
    let mut broken = Vec::new();
    for action in &decision.actions {
        let found = match action {
            Action::Traffic(TrafficAction::SelectRevision { .. })
            | Action::Workload(WorkloadAction::Adopt { .. })
                if !observation.conflicts.is_empty() =>
            {
                Some((10, "something of another Rollout was written".into()))
            }
            Action::Workload(action)
                if after.is_some_and(|it| unsigned_first_pods(observation, it, action)) =>
            {
                Some((2, "a first revision got pods without its people".into()))
            }
            Action::Workload(action) => traffic::unlawful_scale(observation, decision, action),
            Action::Traffic(action) => broken_by_traffic(observation, after, action),
            Action::Job(JobAction::CreateJob(_)) => (!may_smoke(observation, after)).then(|| {
                let what = "a smoke check was begun while something else holds";
                (6, what.to_owned())
            }),
            Action::Job(JobAction::DeleteJob { .. })
            | Action::Adoption(
                AdoptionAction::ScaleWorkload(_) | AdoptionAction::SetFinalizer { .. },
            )
            | Action::History(HistoryAction::DeleteRun { .. }) => None,
        };
        broken.extend(found.map(|(law, what)| Broken { law, what }));
    }
    broken
}

fn unsigned_first_pods(observation: &Observation, after: &Change, action: &WorkloadAction) -> bool {
    traffic::gets_first_pods(observation, after, action)
        && !people::may_have_first_pods(observation, after)
}

/// The laws that a write to a Service or a route breaks.
fn broken_by_traffic(
    observation: &Observation,
    after: Option<&Change>,
    action: &TrafficAction,
) -> Option<(u8, String)> {
    match action {
        TrafficAction::PatchRoute(RoutePatch { weight, .. }) => {
            (!traffic::may_have(observation, after, *weight))
                .then(|| (1, format!("a route gives the canary {weight}%")))
        }
        TrafficAction::SelectRevision { service, hash } => {
            traffic::loses_pods(observation, after, service, hash).then(|| {
                let what =
                    format!("Service {service} was pointed at fewer pods than it needs, and has");
                (4, what)
            })
        }
        TrafficAction::ReleaseService { .. }
        | TrafficAction::SelectSubsets { .. }
        | TrafficAction::ApplyTesters(_)
        | TrafficAction::DeleteTesters { .. } => None,
    }
}

/// The laws that the actions on an adopted workload, or of a Rollout that is being deleted, break.
fn broken_by_adoption(observation: &Observation, decision: &Decision) -> Vec<Broken> {
    let mut broken = Vec::new();
    let run = |change: Option<&Change>| change.map(|change| change.run.clone());
    let before = run(observation.status.change.as_ref());
    let after = run(decision.status.change.as_ref());
    let known = !matches!(observation.workload, Some(Err(_)));
    if after.is_some() && after != before && (!known || observation.deleting) {
        let what = "a change began although the requested revision is unknown or absent".into();
        broken.push(Broken { law: 6, what });
    }
    for action in &decision.actions {
        if let Action::Adoption(action) = action
            && let Some(what) = traffic::unlawful_handover(observation, decision, action)
        {
            broken.push(Broken { law: 4, what });
        }
        let foreign = matches!(
            action,
            Action::Adoption(AdoptionAction::ScaleWorkload(_))
                | Action::Traffic(TrafficAction::ReleaseService { .. })
        );
        if foreign && !observation.conflicts.is_empty() {
            let what = "the workload or the Service of another Rollout was written".into();
            broken.push(Broken { law: 10, what });
        }
    }
    broken
}

fn one_step(before: &Change, after: &Change) -> bool {
    let planned = usize::try_from(after.step - 1)
        .ok()
        .and_then(|index| after.plan.steps.get(index));
    match after.stage {
        Stage::Stepping => {
            after.step == before.step + 1 && planned.is_some_and(|step| step.weight == after.weight)
        }
        Stage::Promoting => usize::try_from(before.step) == Ok(before.plan.steps.len()),
        _ => false,
    }
}

fn gates_open(observation: &Observation, before: &Change, after: &Change) -> bool {
    let step = usize::try_from(before.step - 1)
        .ok()
        .and_then(|index| before.plan.steps.get(index));
    let skipped =
        after.bake_skipped == Some(before.step) || people::has_break_glass(observation, before);
    let baked = skipped
        || step.is_none_or(|step| match &before.available_at {
            // The bake counts only while the step's pods are available.
            Some(since) => {
                let lost = before.lost.as_ref().map(|lost| lost.since.0);
                let end = lost.unwrap_or(observation.now);
                end.duration_since(since.0) >= step.bake.signed()
            }
            // A step without a bake may be taken in the very decision that first observes its pods.
            None => step.bake == Duration::default(),
        });
    let enough = before.step == 0 || has_pods(observation, before);
    let named = observation.traffic.services.values().all(Option::is_some);
    baked
        && enough
        && named
        && !observation.spec.paused
        && after.paused_by.is_none()
        && observation.unreadable_policies.is_empty()
        && observation.people.unreadable_requests.is_empty()
        && !matches!(observation.workload, Some(Err(_)))
}

/// Whether the pods for the present stage are available, as far as stable's balance them and the surge has
/// room, and whether the routes give them their share.
fn has_pods(observation: &Observation, before: &Change) -> bool {
    let pods = Pods::of(observation);
    let canary = traffic::available(observation, &before.pod_template_hash);
    let weight = i64::from(before.weight);
    if before.stage == Stage::Promoting {
        return canary >= pods.least(100);
    }
    let routed = observation.spec.strategy.canary.traffic.is_some();
    if routed || weight <= 0 {
        return canary >= pods.least(weight).max(pods.desired.min(1))
            && traffic::has_its_share(observation, before);
    }
    let stable = observation.status.stable.as_ref();
    let stable = stable.map_or(0, |it| {
        traffic::available(observation, &it.pod_template_hash)
    });
    // Stable pods beyond the requested number are about to be deleted.
    let balanced = weight * stable.min(pods.desired) / (100 - weight).max(1);
    // Behind its own Service stable keeps all its pods, and the canary has only the surge.
    let apart = observation.spec.strategy.canary.stable_service.is_some();
    let room = (pods.desired + pods.surge) * weight / 100;
    let room = if apart { 0 } else { room };
    canary >= balanced.min(room.max(pods.surge)).min(pods.desired).max(1)
}

/// How the smoke check's Job of an attempt ended; `None` if it has not, is not the controller's, or no check is
/// required.
fn smoke_end<'a>(observation: &'a Observation, change: &Change) -> Option<&'a JobEnd> {
    let name = smoke::job_name(&change.run);
    let mut jobs = observation.jobs().iter();
    let job = jobs.find(|job| job.name == name && job.integrity.is_sound())?;
    job.end.as_ref()
}

fn smoke_has_passed(observation: &Observation, before: &Change) -> bool {
    let required = observation.spec.strategy.canary.smoke.is_some() || before.smoke.is_some();
    before.stage != Stage::Waiting
        || !required
        || before.smoke.as_ref().is_some_and(|smoke| smoke.passed)
        || smoke_end(observation, before) == Some(&JobEnd::Succeeded)
}

fn smoke_has_failed(observation: &Observation, before: &Change) -> bool {
    before.stage == Stage::Waiting
        && !before.smoke.as_ref().is_some_and(|smoke| smoke.passed)
        && matches!(smoke_end(observation, before), Some(JobEnd::Failed { .. }))
}

/// Whether something other than the evidence was observed that must end a change.
fn has_failed(observation: &Observation, before: &Change) -> bool {
    smoke_has_failed(observation, before) || all_pods_crash(observation, before)
}

fn all_pods_crash(observation: &Observation, before: &Change) -> bool {
    let Some(pods) = &observation.new_pods else {
        return false;
    };
    let sets = observation.replica_sets.iter();
    let available: i32 = sets
        .filter(|set| set.hash == before.pod_template_hash)
        .map(|set| set.available)
        .sum();
    matches!(before.stage, Stage::Stepping | Stage::Promoting)
        && before.outcome.is_none()
        && !before.initial
        && (pods.existing, available) == (pods.crashing, 0)
        && pods.existing > 0
}

fn may_smoke(observation: &Observation, after: Option<&Change>) -> bool {
    after.is_some_and(|change| {
        change.stage == Stage::Waiting
            && change.outcome.is_none()
            && change.paused_by.is_none()
            && not_frozen(observation, change)
    }) && !observation.spec.paused
        && observation.conflicts.is_empty()
        && observation.unreadable_policies.is_empty()
        && observation.people.unreadable_requests.is_empty()
}

fn not_frozen(observation: &Observation, before: &Change) -> bool {
    let in_force = observation.people.freezes.iter().any(|freeze| {
        let spec = &freeze.spec;
        spec.until
            .as_ref()
            .is_none_or(|until| until.0 > observation.now)
            && (spec.tiers.is_empty() || spec.tiers.contains(&before.tier))
    });
    let enforced = |name: &String| {
        let mut policies = observation.policies.iter();
        let policy = policies.find(|policy| policy.name == *name);
        policy.is_none_or(|policy| observe::is_enforced(policy, before))
    };
    let mut incidents = observation.people.incidents.iter();
    let incident =
        incidents.any(|(policy, answer)| *answer != IncidentAnswer::None && enforced(policy));
    let calm = !in_force && !incident && observation.people.unreadable_freezes.is_empty();
    calm || people::has_break_glass(observation, before)
}

fn has_no_more_than_its_weight(observation: &Observation, before: &Change) -> bool {
    let traffic = observation.spec.strategy.canary.traffic.as_ref();
    if before.stage != Stage::Stepping || traffic.is_none_or(|it| it.testers.is_some()) {
        return true;
    }
    let checks = checks::in_force(before, &Proposal::of(observation).checks);
    above_weight::found(&with_windows(observation, before, &checks)).is_none()
}

/// The verdict on the evidence of an observation; `None` if there is no canary yet.
fn verdict(observation: &Observation, change: &Change) -> Option<Verdict> {
    let under_way = !change.initial && change.outcome.is_none();
    under_way.then(|| watched_verdict(observation, change))?
}

fn watched_verdict(observation: &Observation, change: &Change) -> Option<Verdict> {
    change.evidence.from.as_ref()?;
    let checks = checks::in_force(change, &Proposal::of(observation).checks);
    Some(verdict::judge(
        &with_windows(observation, change, &checks),
        &checks,
        observation.now,
        observation.analysis.lag,
    ))
}

/// A change with the windows of an observation in its evidence.
fn with_windows(observation: &Observation, change: &Change, checks: &Checks) -> Change {
    let mut gathered = change.clone();
    gathered.plan.shares = present::shares(observation, &change.plan.steps);
    // Windows count for the shares that the canary has now.
    gathered.evidence = gather::gather(&gathered, checks, &observation.analysis.windows);
    gathered
}

/// Where policies that are enforced require it, each image is named by its digest, and configuration by its hash.
fn content_is_bound(observation: &Observation, before: &Change) -> bool {
    let demands = || {
        let policies = observation.policies.iter();
        let enforced = policies.filter(move |policy| observe::is_enforced(policy, before));
        enforced.map(move |it| it.spec.tiers.get(before.tier))
    };
    let by_digest = demands().any(|it| it.require_digest == Some(true));
    let by_hash = demands().any(|it| it.require_immutable_config == Some(true));
    let template = &observation.spec.template;
    let mut names = template.configuration().into_iter();
    let is_hashed = |it: &str| it == "kube-root-ca.crt" || digest::is_hashed(it);
    (!by_digest || template.images().iter().all(|it| it.contains("@sha256:")))
        && (!by_hash || names.all(is_hashed))
}

fn evidence_allows(observation: &Observation, before: &Change) -> bool {
    let step = usize::try_from(before.step - 1).ok();
    let step = step.and_then(|index| before.plan.steps.get(index));
    // At weight 0 no user depends on the canary; the step itself demands requests, or none. All traffic at
    // once needs evidence, unless the policy waives it.
    let switches = usize::try_from(before.step) == Ok(before.plan.steps.len())
        && !before.plan.strictness.switch_without_evidence;
    if step.is_none_or(|step| step.weight == 0 && step.min_requests == 0 && !switches) {
        return true;
    }
    // A change that policies only observe continues as in the lowest tier.
    let undemanding = before.tier == Tier::Low || before.enforcement == Enforcement::Observe;
    match verdict(observation, before) {
        Some(Verdict::Pass { .. }) => true,
        Some(Verdict::NoChecks) => undemanding,
        Some(Verdict::Scarce { .. }) => {
            let by_tier = undemanding
                && before.plan.strictness.on_scarce_evidence == OnScarceEvidence::Promote;
            let gate = format!("evidence-{}", before.step);
            by_tier
                || people::signed(observation, before, SignOffDecision::Approve)
                    .any(|spec| spec.gate.as_ref() == Some(&gate))
        }
        _ => false,
    }
}
