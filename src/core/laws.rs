//! What must hold of any decision, by the numbers of the design. Every test that makes a decision
//! checks it against these; they share no code path with the gates that they watch.

use std::collections::BTreeSet;

use super::analysis::{self, Verdict};
use super::decision::{Action, Decision};
use super::observation::{IncidentAnswer, JobEnd, Observation};
use super::proposal::Proposal;
use super::replicas::{self, Split};
use super::{checks, decide, reason, smoke, workload};
use crate::api::Duration;
use crate::api::plan::Tier;
use crate::api::policy::OnScarceEvidence;
use crate::api::rollout::{Change, Outcome, Stage};
use crate::api::sign_off::{SignOffDecision, SignOffSpec};

/// A broken law: its number and what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The law's number in the design.
    pub law: u8,
    /// What was seen.
    pub what: String,
}

/// The laws that a decision breaks: none, or the controller has a defect.
#[must_use]
pub fn broken(observation: &Observation, decision: &Decision) -> Vec<Broken> {
    let mut broken = Vec::new();
    let mut expect = |law: u8, holds: bool, what: &dyn Fn() -> String| {
        if !holds {
            broken.push(Broken { law, what: what() });
        }
    };
    let before = observation.status.change.as_ref();
    let after = decision.status.change.as_ref();
    let same = before
        .zip(after)
        .filter(|(before, after)| before.run == after.run);

    if let Some((before, after)) = same {
        let rises =
            after.outcome.is_none() && (after.weight > before.weight || after.step > before.step);
        if rises {
            expect(1, one_step(before, after), &|| {
                format!("step {} to {}", before.step, after.step)
            });
            expect(1, gates_open(observation, before, after), &|| {
                "a gate was closed when the weight rose".into()
            });
            expect(1, not_frozen(observation, before), &|| {
                "the weight rose during a freeze".into()
            });
            expect(1, smoke_has_passed(observation, before), &|| {
                "the first step was taken before the smoke check had succeeded".into()
            });
            expect(2, people_have_signed(observation, before, after), &|| {
                "a sign-off was asked for and not given".into()
            });
            expect(6, evidence_allows(observation, before), &|| {
                "the evidence did not allow the step".into()
            });
        }
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
            after.outcome.is_some() || !smoke_has_failed(observation, before),
            &|| "a failed smoke check did not end the change".into(),
        );
        expect(7, after.tier >= before.tier, &|| {
            format!("tier {} fell to {}", before.tier, after.tier)
        });
        let moved =
            (before.stage, before.step, before.outcome) != (after.stage, after.step, after.outcome);
        let told = after.transitions.len() > before.transitions.len();
        expect(9, !moved || told, &|| "a transition left no line".into());
    }
    if let Some((before, after)) = same.filter(|(before, _)| decide::is_watched(before)) {
        let fails = watched_verdict(observation, before);
        let holds = !matches!(fails, Some(Verdict::Fail { .. })) || !decide::is_watched(after);
        expect(3, holds, &|| "a promoted revision broke and stayed".into());
    }
    if let Some(before) = before.filter(|change| change.outcome == Some(Outcome::RolledBack)) {
        let proposal = Proposal::of(observation);
        let again =
            after.is_some_and(|after| after.run != before.run && after.digest == before.digest);
        let retried = before
            .transitions
            .last()
            .is_some_and(|line| line.reason == reason::RETRIED);
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
        &|| "a line was not told as an Event".into(),
    );
    for action in &decision.actions {
        if let Some(what) = unlawful_scale(observation, decision, action) {
            expect(what.0, false, &|| what.1.clone());
        }
        if matches!(action, Action::CreateJob { .. }) {
            expect(6, may_smoke(observation, after), &|| {
                "a smoke check was begun while something else holds".into()
            });
        }
    }
    expect(
        10,
        observation.conflicts.is_empty()
            || !decision.actions.iter().any(|action| {
                matches!(action, Action::SelectRevision { .. } | Action::Adopt { .. })
            }),
        &|| "something of another Rollout was written".into(),
    );
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
    let skipped = after.bake_skipped == Some(before.step) || glass_is_broken(observation, before);
    let baked = skipped
        || step.is_none_or(|step| match &before.available_at {
            Some(since) => observation.now.duration_since(since.0) >= step.bake.signed(),
            // A step without a bake may be taken in the very decision that sees its pods.
            None => step.bake == Duration::default(),
        });
    let enough = before.step == 0 || {
        let present = workload::present(observation, &observation.status);
        let limits = workload::limits(observation);
        let balanced = replicas::canary_beside(present.stable.available, before.weight);
        present.canary.available >= replicas::goal(limits, before.weight).canary.min(balanced)
    };
    let named = observation.services.values().all(Option::is_some);
    baked
        && enough
        && named
        && !observation.spec.paused
        && after.paused_by.is_none()
        && observation.unreadable_policies.is_empty()
        && observation.unreadable_wishes.is_empty()
}

/// How the smoke check of an attempt ended, as its Job says; `None` where it has not or none is asked.
fn smoke_end<'a>(observation: &'a Observation, change: &Change) -> Option<&'a JobEnd> {
    let name = smoke::job_name(&change.run);
    let mut jobs = observation.jobs.iter();
    jobs.find(|job| job.name == name)?.end.as_ref()
}

fn smoke_has_passed(observation: &Observation, before: &Change) -> bool {
    let asked = observation.spec.strategy.canary.smoke.is_some() || before.smoke.is_some();
    before.stage != Stage::Waiting
        || !asked
        || before.smoke.as_ref().is_some_and(|smoke| smoke.passed)
        || smoke_end(observation, before) == Some(&JobEnd::Succeeded)
}

fn smoke_has_failed(observation: &Observation, before: &Change) -> bool {
    before.stage == Stage::Waiting
        && !before.smoke.as_ref().is_some_and(|smoke| smoke.passed)
        && matches!(smoke_end(observation, before), Some(JobEnd::Failed { .. }))
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
        && observation.unreadable_wishes.is_empty()
}

fn not_frozen(observation: &Observation, before: &Change) -> bool {
    let in_force = observation.freezes.iter().any(|freeze| {
        let spec = &freeze.spec;
        spec.until
            .as_ref()
            .is_none_or(|until| until.0 > observation.now)
            && (spec.tiers.is_empty() || spec.tiers.contains(&before.tier))
    });
    let incident = observation
        .incidents
        .values()
        .any(|answer| *answer != IncidentAnswer::None);
    let calm = !in_force && !incident && observation.unreadable_freezes.is_empty();
    calm || glass_is_broken(observation, before)
}

/// Sign-offs of people who may sign this attempt, counted anew.
fn signed<'a>(
    observation: &'a Observation,
    before: &'a Change,
    decision: SignOffDecision,
) -> impl Iterator<Item = &'a SignOffSpec> {
    let believed = observation.admission.problems.is_empty();
    let since = observation.admission.since;
    let proven = observation.sign_offs.iter();
    let proven = proven.filter(move |seen| since.is_none_or(|since| since < seen.created_at));
    let specs = proven.map(|seen| &seen.spec);
    specs.filter(move |spec| {
        let user = spec.approver.username.to_lowercase();
        believed
            && spec.decision == decision
            && spec.run == before.run
            && spec.digest == before.digest
            && spec
                .expires_at
                .as_ref()
                .is_none_or(|end| end.0 > observation.now)
            && !user.starts_with("system:")
            && !before.barred.users.contains(&user)
            && spec
                .approver
                .groups
                .iter()
                .all(|it| !before.barred.groups.contains(it))
    })
}

fn glass_is_broken(observation: &Observation, before: &Change) -> bool {
    signed(observation, before, SignOffDecision::BreakGlass)
        .next()
        .is_some()
}

fn people_have_signed(observation: &Observation, before: &Change, after: &Change) -> bool {
    let entered = usize::try_from(after.step - 1)
        .ok()
        .and_then(|index| before.plan.steps.get(index));
    let (gate, demands) = match (after.stage, entered) {
        (Stage::Stepping, Some(step)) => (format!("step-{}", after.step), &step.sign_off),
        (Stage::Stepping, None) => return true,
        _ => ("promotion".into(), &before.plan.promotion_sign_off),
    };
    let met = demands.iter().all(|demand| {
        let able = signed(observation, before, SignOffDecision::Approve).filter(|spec| {
            spec.gate.as_ref().is_none_or(|own| *own == gate)
                && (demand.groups.is_empty()
                    || spec
                        .approver
                        .groups
                        .iter()
                        .any(|it| demand.groups.contains(it)))
        });
        let people: BTreeSet<_> = able.map(|spec| &spec.approver.username).collect();
        usize::try_from(demand.count).is_ok_and(|count| people.len() >= count)
    });
    met || glass_is_broken(observation, before)
}

/// The verdict on the evidence that an observation holds; `None` where there is no canary yet.
fn verdict(observation: &Observation, change: &Change) -> Option<Verdict> {
    let under_way = !change.initial && change.outcome.is_none();
    under_way.then(|| watched_verdict(observation, change))?
}

fn watched_verdict(observation: &Observation, change: &Change) -> Option<Verdict> {
    change.evidence.from.as_ref()?;
    let checks = checks::in_force(change, &Proposal::of(observation).checks);
    let mut gathered = change.clone();
    gathered.evidence = analysis::gather(change, &checks, &observation.windows);
    Some(analysis::judge(
        &gathered,
        &checks,
        observation.now,
        observation.lag,
    ))
}

fn evidence_allows(observation: &Observation, before: &Change) -> bool {
    if before.step == 0 {
        return true;
    }
    match verdict(observation, before) {
        Some(Verdict::Pass { .. }) => true,
        Some(Verdict::NoChecks) => before.tier == Tier::Low,
        Some(Verdict::Scarce { .. }) => {
            let by_tier = before.tier == Tier::Low
                && before.plan.strictness.on_scarce_evidence == OnScarceEvidence::Promote;
            let gate = format!("evidence-{}", before.step);
            by_tier
                || signed(observation, before, SignOffDecision::Approve)
                    .any(|spec| spec.gate.as_ref() == Some(&gate))
        }
        _ => false,
    }
}

/// A number of pods that no law allows.
fn unlawful_scale(
    observation: &Observation,
    decision: &Decision,
    action: &Action,
) -> Option<(u8, String)> {
    let (hash, replicas, asked) = match action {
        Action::Scale {
            replica_set,
            replicas,
        } => {
            let set = observation
                .replica_sets
                .iter()
                .find(|set| set.name == *replica_set)?;
            (&set.hash, *replicas, set.replicas)
        }
        Action::CreateReplicaSet { hash, replicas, .. } => (hash, *replicas, 0),
        _ => return None,
    };
    let limits = workload::limits(observation);
    let change = decision.status.change.as_ref()?;
    let goal = match change.stage {
        Stage::Stepping => replicas::goal(limits, change.weight),
        Stage::Promoting => Split {
            stable: if change.initial {
                0
            } else {
                limits.surge.min(limits.desired)
            },
            canary: limits.desired,
        },
        _ => Split {
            stable: limits.desired,
            canary: 0,
        },
    };
    let stable = decision
        .status
        .stable
        .as_ref()
        .is_some_and(|stable| stable.pod_template_hash == *hash);
    if stable && replicas < asked && replicas < goal.stable {
        return Some((
            4,
            format!("stable was scaled to {replicas} below {}", goal.stable),
        ));
    }
    if !stable && *hash == change.pod_template_hash && replicas > asked && replicas > goal.canary {
        return Some((
            1,
            format!("the canary was scaled to {replicas} above {}", goal.canary),
        ));
    }
    None
}
