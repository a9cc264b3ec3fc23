//! What must hold of any decision, by the numbers of the design. Every test that makes a decision
//! checks it against these; they share no code path with the gates that they watch.

use std::collections::BTreeSet;

use countersign_api::plan::Tier;
use countersign_api::policy::OnScarceEvidence;
use countersign_api::rollout::{Change, Outcome, RolloutStatus, Stage};
use countersign_api::sign_off::{SignOffDecision, SignOffSpec};
use countersign_api::{Duration, HASH_LABEL};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use crate::analysis::verdict::{self, Verdict};
use crate::analysis::{checks, gather};
use crate::decision::{Action, Decision};
use crate::observation::Observation;
use crate::observation::people::IncidentAnswer;
use crate::observation::workload::JobEnd;
use crate::proposal::Proposal;
use crate::workload::smoke;
use crate::{change, reason};

/// A broken law: its number and what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The law's number in the design.
    pub law: u8,
    /// What was seen.
    pub what: String,
}

/// What kstatus, by which GitOps tools and `helm --wait` go, makes of an object that is not being deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Something is still to come.
    InProgress,
    /// What is asked for serves.
    Current,
    /// It will not come without a person.
    Failed,
}

/// Reads a status as kstatus does (sigs.k8s.io/cli-utils, `status.Compute`); `None` where conditions
/// contradict each other, so that the reading depends on their order.
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

/// Whether tools that read the status go on at the right moment: with what is asked for as the stable
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
        Some(Reading::Current) => {
            let asked = Proposal::of(observation).template_digest;
            let stable = status.stable.as_ref();
            let serves = stable.is_some_and(|it| it.template_digest == asked);
            (!serves).then(|| format!("Current, and stable is another: {}", conditions()))
        }
        Some(Reading::InProgress | Reading::Failed) => None,
    }
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
            expect(1, in_order(observation, before, after), &|| {
                "the first step was taken before its turn, or before what it depends on".into()
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
            after.outcome.is_some() || !has_failed(observation, before),
            &|| "a failed smoke check or pods that all crash did not end the change".into(),
        );
        expect(7, after.tier >= before.tier, &|| {
            format!("tier {} fell to {}", before.tier, after.tier)
        });
        let moved =
            (before.stage, before.step, before.outcome) != (after.stage, after.step, after.outcome);
        let told = after.transitions.len() > before.transitions.len();
        expect(9, !moved || told, &|| "a transition left no line".into());
    }
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
    let misread = misread(observation, &decision.status);
    broken.extend(misread.map(|what| Broken { law: 9, what }));
    broken.extend(broken_by_actions(observation, decision));
    broken.extend(broken_by_adoption(observation, decision));
    broken
}

/// The same of what is done.
fn broken_by_actions(observation: &Observation, decision: &Decision) -> Vec<Broken> {
    let after = decision.status.change.as_ref();
    let mut broken = Vec::new();
    for action in &decision.actions {
        let found = match action {
            Action::PatchRoute { weight, .. } => (!may_have(observation, after, *weight))
                .then(|| (1, format!("a route gives the canary {weight}%"))),
            Action::CreateJob { .. } => (!may_smoke(observation, after)).then(|| {
                let what = "a smoke check was begun while something else holds";
                (6, what.to_owned())
            }),
            Action::SelectRevision { .. } | Action::Adopt { .. }
                if !observation.conflicts.is_empty() =>
            {
                Some((10, "something of another Rollout was written".into()))
            }
            Action::SelectRevision { service, hash } => {
                loses_pods(observation, after, service, hash).then(|| {
                    let what = format!(
                        "Service {service} was pointed at fewer pods than it needs, and has"
                    );
                    (4, what)
                })
            }
            _ => unlawful_scale(observation, decision, action),
        };
        broken.extend(found.map(|(law, what)| Broken { law, what }));
    }
    broken
}

/// The same of what is done about an adopted workload, and of a Rollout that is being deleted.
fn broken_by_adoption(observation: &Observation, decision: &Decision) -> Vec<Broken> {
    let mut broken = Vec::new();
    let run = |change: Option<&Change>| change.map(|change| change.run.clone());
    let before = run(observation.status.change.as_ref());
    let after = run(decision.status.change.as_ref());
    let known = !matches!(observation.workload, Some(Err(_)));
    if after.is_some() && after != before && (!known || observation.deleting) {
        let what = "a change began although what is asked for is not known, or nothing is".into();
        broken.push(Broken { law: 6, what });
    }
    for action in &decision.actions {
        if let Some(what) = unlawful_handover(observation, decision, action) {
            broken.push(Broken { law: 4, what });
        }
        let foreign = matches!(
            action,
            Action::ScaleWorkload { .. } | Action::ReleaseService { .. }
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
    let skipped = after.bake_skipped == Some(before.step) || glass_is_broken(observation, before);
    let baked = skipped
        || step.is_none_or(|step| match &before.available_at {
            // What counts is the time in which its pods were there.
            Some(since) => {
                let lost = before.lost.as_ref().map(|lost| lost.since.0);
                let end = lost.unwrap_or(observation.now);
                end.duration_since(since.0) >= step.bake.signed()
            }
            // A step without a bake may be taken in the very decision that sees its pods.
            None => step.bake == Duration::default(),
        });
    let enough = before.step == 0 || has_pods(observation, before);
    let named = observation.services.values().all(Option::is_some);
    baked
        && enough
        && named
        && !observation.spec.paused
        && after.paused_by.is_none()
        && observation.unreadable_policies.is_empty()
        && observation.unreadable_wishes.is_empty()
        && !matches!(observation.workload, Some(Err(_)))
}

/// Whether the pods that the present stage asks for are available, as far as stable's balance them and the
/// surge has room, and whether the routes give them their share.
fn has_pods(observation: &Observation, before: &Change) -> bool {
    let pods = Pods::of(observation);
    let canary = available(observation, &before.pod_template_hash);
    let weight = i64::from(before.weight);
    if before.stage == Stage::Promoting {
        return canary >= pods.least(100);
    }
    let routed = observation.spec.strategy.canary.traffic.is_some();
    if routed || weight <= 0 {
        return canary >= pods.least(weight).max(pods.desired.min(1))
            && has_its_share(observation, before);
    }
    let stable = observation.status.stable.as_ref();
    let stable = stable.map_or(0, |it| available(observation, &it.pod_template_hash));
    let balanced = weight * stable / (100 - weight).max(1);
    // Behind a Service of its own stable keeps all its pods, and only the surge is left.
    let apart = observation.spec.strategy.canary.stable_service.is_some();
    let room = (pods.desired + pods.surge) * weight / 100;
    let room = if apart { 0 } else { room };
    canary >= balanced.min(room.max(pods.surge)).min(pods.desired).max(1)
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

/// Whether a first step is taken in order: after what the Rollout depends on, and where every limit of
/// every policy has room, counted anew.
fn in_order(observation: &Observation, before: &Change, after: &Change) -> bool {
    before.stage != Stage::Waiting
        || (dependencies_are_stable(observation)
            && (glass_is_broken(observation, before) || has_room(observation, after)))
}

fn has_room(observation: &Observation, after: &Change) -> bool {
    let policies = observation.policies.iter();
    let mut limits = policies.filter_map(|it| Some((&it.name, it.spec.concurrency.as_ref()?)));
    limits.all(|(policy, limit)| {
        let Some(Ok(rivals)) = &observation.rivals else {
            return after.tier < limit.from_tier;
        };
        let counted = rivals.iter().filter(|it| {
            it.queued_at.is_none() && it.tier >= limit.from_tier && it.policies.contains(policy)
        });
        let (near, all) = counted.fold((0, 0), |(near, all), it| {
            (
                near + i32::from(it.namespace == observation.namespace),
                all + 1,
            )
        });
        let has_room = limit.per_namespace.is_none_or(|most| near < most)
            && limit.per_cluster.is_none_or(|most| all < most);
        after.tier < limit.from_tier || has_room
    })
}

fn dependencies_are_stable(observation: &Observation) -> bool {
    let mut names = observation.spec.depends_on.iter();
    names.all(|name| {
        let mut seen = observation.dependencies.iter();
        seen.any(|it| it.name == *name && it.awaited.is_none())
    })
}

/// Whether an action gives a first revision its first pods.
fn gets_first_pods(observation: &Observation, change: &Change, action: &Action) -> bool {
    let own = |name: &str| {
        let mut sets = observation.replica_sets.iter();
        sets.any(|set| {
            set.name == name && set.hash == change.pod_template_hash && set.replicas == 0
        })
    };
    change.initial
        && change.outcome.is_none()
        && match action {
            Action::CreateReplicaSet { hash, replicas, .. } => {
                *hash == change.pod_template_hash && *replicas > 0
            }
            Action::Scale {
                replica_set,
                replicas,
                ..
            } => *replicas > 0 && own(replica_set),
            _ => false,
        }
}

/// Whether what must end a change has been seen, beside its evidence.
fn has_failed(observation: &Observation, before: &Change) -> bool {
    smoke_has_failed(observation, before) || all_pods_crash(observation, before)
}

fn all_pods_crash(observation: &Observation, before: &Change) -> bool {
    let pods = &observation.new_pods;
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
    gathered.evidence = gather::gather(change, &checks, &observation.windows);
    Some(verdict::judge(
        &gathered,
        &checks,
        observation.now,
        observation.lag,
    ))
}

fn evidence_allows(observation: &Observation, before: &Change) -> bool {
    let step = usize::try_from(before.step - 1).ok();
    let step = step.and_then(|index| before.plan.steps.get(index));
    // At weight 0 nobody depends on the canary, and what there is to learn the step says itself.
    if step.is_none_or(|step| step.weight == 0 && step.min_requests == 0) {
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

/// Pods that serve and would go before others serve in their place.
fn unlawful_handover(
    observation: &Observation,
    decision: &Decision,
    action: &Action,
) -> Option<String> {
    let stable = decision.status.stable.as_ref();
    let sets = observation.replica_sets.iter().filter(|set| set.owned);
    let available = |hash: Option<&String>| -> i32 {
        let sets = sets
            .clone()
            .filter(|set| hash.is_none_or(|it| *it == set.hash));
        sets.map(|set| set.available.min(set.replicas)).sum()
    };
    let of_stable = stable.map_or(0, |stable| available(Some(&stable.pod_template_hash)));
    match action {
        Action::ScaleWorkload { from, replicas, .. } if replicas < from => {
            let pods = Pods::of(observation);
            let least = pods.desired - pods.unavailable;
            let serves = of_stable > 0 && i64::from(available(None)) >= least;
            (!serves).then(|| format!("the adopted workload was scaled to {replicas}"))
        }
        Action::SetFinalizer { present: false } if observation.deleting => {
            let wanted = observation.spec.keeps_pods() && !observation.farewell.namespace_ends;
            let others = match &observation.workload {
                Some(Ok(workload)) => workload.available > 0,
                _ => false,
            };
            (wanted && of_stable > 0 && !others)
                .then(|| "pods that are to be kept went with the Rollout".into())
        }
        _ => None,
    }
}

/// The canary backends of the routes, each with its weight and that of the stable one beside it: read
/// straight from what is stored.
fn shares(observation: &Observation) -> impl Iterator<Item = (i64, i64)> {
    let canary = &observation.spec.strategy.canary;
    let names = canary
        .stable_service
        .clone()
        .zip(canary.canary_service.clone());
    let objects = observation
        .routes
        .iter()
        .filter_map(|route| route.object.as_ref().ok());
    let rules = objects.flat_map(|object| {
        let rules = object
            .object
            .pointer("/spec/rules")
            .and_then(Value::as_array);
        rules.into_iter().flatten()
    });
    rules.filter_map(move |rule| {
        let (stable, canary) = names.as_ref()?;
        let backends = rule.get("backendRefs")?.as_array()?;
        let weight = |name: &str| {
            let mut backends = backends.iter();
            let found = backends.find(|it| it.get("name").and_then(Value::as_str) == Some(name))?;
            found.get("weight")?.as_i64()
        };
        Some((weight(stable)?, weight(canary)?))
    })
}

fn largest_share(observation: &Observation) -> i32 {
    let shares =
        shares(observation).map(|(stable, canary)| canary * 100 / (stable + canary).max(1));
    shares
        .max()
        .and_then(|share| i32::try_from(share).ok())
        .unwrap_or(0)
}

/// Whether no Gateway route gives the canary more than the weight of its step, nor much less.
fn has_its_share(observation: &Observation, before: &Change) -> bool {
    let weight = i64::from(before.weight);
    shares(observation).all(|(stable, canary)| {
        let total = stable + canary;
        // Beside other backends the nearest whole weight below is as near as it can be.
        canary * 100 <= weight * total && (canary + 1) * 100 > weight * total
    })
}

/// The pods that a Rollout's spec allows and asks for, resolved as a Deployment does.
struct Pods {
    desired: i64,
    /// Pods beyond `desired`.
    surge: i64,
    /// Pods of `desired` that may be unavailable.
    unavailable: i64,
}

impl Pods {
    fn of(observation: &Observation) -> Self {
        let canary = &observation.spec.strategy.canary;
        let desired = i64::from(observation.spec.replicas.max(0));
        let resolve = |value: &IntOrString, up: bool| match value {
            IntOrString::Int(pods) => i64::from(*pods).max(0),
            IntOrString::String(percent) => {
                let percent = percent.trim_end_matches('%').parse().unwrap_or(0);
                let hundredths = desired * i64::clamp(percent, 0, 1_000);
                if up {
                    (hundredths + 99) / 100
                } else {
                    hundredths / 100
                }
            }
        };
        let surge = resolve(&canary.max_surge, true);
        let unavailable = resolve(&canary.max_unavailable, false).min(desired);
        Self {
            desired,
            surge,
            unavailable: if (surge, unavailable) == (0, 0) {
                1
            } else {
                unavailable
            },
        }
    }

    /// Pods for a share in percent, of which one may not be missing.
    fn part(&self, percent: i64) -> i64 {
        (self.desired * percent.clamp(0, 100) + 99) / 100
    }

    /// Available pods without which a share in percent is not served: as many may be unavailable as of all,
    /// and at least one serves. A share that was rounded down asks for no pod more.
    fn least(&self, percent: i64) -> i64 {
        if percent <= 0 || self.desired == 0 {
            return 0;
        }
        let whole = if percent >= 100 { 100 } else { percent - 1 };
        let part = self.desired * whole / 100 + i64::from(percent < 100);
        (part - self.unavailable).max(1)
    }

    /// The percent of the traffic that so many pods carry.
    fn carry(&self, available: i64) -> i64 {
        if available >= (self.desired - self.unavailable).max(1) {
            return 100;
        }
        available * 100 / self.desired.max(1)
    }

    /// Whether the surge has room for all pods of both revisions.
    const fn room_for_both(&self) -> bool {
        self.surge >= self.desired
    }
}

/// Available pods of a revision, of those that are asked for.
fn available(observation: &Observation, hash: &str) -> i64 {
    let sets = observation.replica_sets.iter();
    let sets = sets.filter(|set| set.owned && set.hash == hash);
    sets.map(|set| i64::from(set.available.min(set.replicas)))
        .sum()
}

fn selected<'a>(observation: &'a Observation, service: &str) -> Option<&'a str> {
    let service = observation.services.get(service)?.as_ref()?;
    service.selector.get(HASH_LABEL).map(String::as_str)
}

/// The percent of the requests that a named Service gets, at most: by the routes that are Gateway API's, or
/// all of them where it is stable's and there is no route.
fn percent_of(observation: &Observation, service: &str) -> i64 {
    let canary = &observation.spec.strategy.canary;
    let is_stable = canary.stable_service.as_deref() == Some(service);
    if canary.traffic.is_none() {
        return if is_stable { 100 } else { 0 };
    }
    let percents = shares(observation).map(|(stable, canary)| {
        let part = if is_stable { stable } else { canary };
        (part * 100 + (stable + canary).max(1) - 1) / (stable + canary).max(1)
    });
    percents.max().unwrap_or(0)
}

/// The percent of the requests that a revision gets, as what sends to it is written.
fn percent_to(observation: &Observation, hash: &str) -> i64 {
    let canary = &observation.spec.strategy.canary;
    let names = [&canary.stable_service, &canary.canary_service];
    let sent = names.into_iter().flatten().map(|service| {
        let selects = selected(observation, service) == Some(hash);
        if selects {
            percent_of(observation, service)
        } else {
            0
        }
    });
    sent.sum::<i64>().min(100)
}

/// Whether a change that has ended may keep nothing any more: its deadline for the way back is over.
fn way_back_is_over(observation: &Observation, change: Option<&Change>) -> bool {
    let deadline = i64::from(observation.spec.progress_deadline_seconds);
    change.is_some_and(|change| {
        let since = change.progressed_at.as_ref();
        let age = since.map(|at| observation.now.duration_since(at.0).as_secs());
        change.outcome.is_some() && age.is_none_or(|age| age >= deadline)
    })
}

/// Whether a Service that gets requests would be pointed at fewer available pods than it needs, while those
/// that it has are more.
fn loses_pods(
    observation: &Observation,
    after: Option<&Change>,
    service: &str,
    hash: &str,
) -> bool {
    let Some(from) = selected(observation, service).filter(|from| *from != hash) else {
        return false;
    };
    let (old, new) = (available(observation, from), available(observation, hash));
    let enough = Pods::of(observation)
        .least(percent_of(observation, service))
        .min(old);
    let over = way_back_is_over(observation, after) && (new > 0 || old == 0);
    new < enough && !over
}

/// Whether a route may give the canary this share now: no more than its step's weight, more than it has
/// only where pods are there for it, and less only as far as stable can carry the rest.
fn may_have(observation: &Observation, after: Option<&Change>, weight: i32) -> bool {
    let Some(change) = after else {
        return false;
    };
    let (pods, weight) = (Pods::of(observation), i64::from(weight));
    let canary = available(observation, &change.pod_template_hash);
    let stable = observation.status.stable.as_ref();
    let stable = stable.map_or(0, |it| available(observation, &it.pod_template_hash));
    let rises =
        shares(observation).any(|(stable, canary)| canary * 100 < weight * (stable + canary));
    let carries = canary * 100 >= weight * (pods.desired - pods.unavailable);
    let most = match change.stage {
        Stage::Waiting | Stage::RolledBack => 0,
        Stage::Stepping => i64::from(change.weight),
        Stage::Promoting | Stage::Promoted | Stage::RollingBack => 100,
    };
    let strategy = &observation.spec.strategy.canary;
    let gave_up = strategy.dynamic_stable || !pods.room_for_both();
    // Where stable gave up pods it gets back what it can carry, unless waiting is over.
    let overloads = change.stage == Stage::RollingBack
        && gave_up
        && canary > 0
        && stable > 0
        && !way_back_is_over(observation, after)
        && 100 - weight > pods.carry(stable);
    weight <= most && (!rises || carries) && !overloads
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
            ..
        } => {
            let mut sets = observation.replica_sets.iter();
            let set = sets.find(|set| set.name == *replica_set)?;
            (&set.hash, i64::from(*replicas), i64::from(set.replicas))
        }
        Action::CreateReplicaSet { hash, replicas, .. } => (hash, i64::from(*replicas), 0),
        _ => return None,
    };
    let pods = Pods::of(observation);
    let change = decision.status.change.as_ref();
    let serves = available(observation, hash);
    if replicas < asked && replicas < serves && !way_back_is_over(observation, change) {
        let percent = percent_to(observation, hash);
        let least = pods.least(percent).min(serves);
        if replicas < least {
            let what = format!(
                "pods that serve {percent}% of the requests were scaled to {replicas}, below {least}"
            );
            return Some((4, what));
        }
    }
    let change = change?;
    if gets_first_pods(observation, change, action) && !dependencies_are_stable(observation) {
        let what = "a first revision got pods before what it depends on was stable";
        return Some((1, what.into()));
    }
    let stable = decision.status.stable.as_ref();
    let is_stable = stable.is_some_and(|stable| stable.pod_template_hash == *hash);
    if is_stable && replicas < asked {
        let least = stable_needs(observation, change, &pods, serves);
        if replicas < least {
            let what = format!("stable was scaled to {replicas} below {least}");
            return Some((4, what));
        }
    }
    if !is_stable && *hash == change.pod_template_hash && replicas > asked {
        let most = canary_may_have(observation, decision, change, &pods);
        if replicas > most {
            let what = format!("the canary was scaled to {replicas} above {most}");
            return Some((1, what));
        }
    }
    None
}

/// Pods of which stable may not ask for fewer: all of them, but for what it was allowed to give up.
fn stable_needs(observation: &Observation, change: &Change, pods: &Pods, serves: i64) -> i64 {
    let under_way = matches!(change.stage, Stage::Stepping | Stage::Promoting);
    if change.initial {
        return 0;
    }
    let canary = &observation.spec.strategy.canary;
    let routed = canary.traffic.is_some();
    if !under_way || (canary.stable_service.is_some() && !routed) {
        return pods.desired;
    }
    if routed && (canary.dynamic_stable || !pods.room_for_both()) {
        return pods.least(100 - i64::from(largest_share(observation)));
    }
    // Above a half the canary is the larger side, and may be larger than the surge.
    let weight = i64::from(change.weight);
    let outgrows =
        change.stage == Stage::Stepping && weight * pods.desired > (100 - weight) * pods.surge;
    if routed || (pods.room_for_both() && !outgrows) {
        return pods.desired;
    }
    // Where a revision's share is that of its pods, what the canary serves is not stable's to serve, and
    // pods that serve nothing make room for those that will.
    let beside = available(observation, &change.pod_template_hash);
    (pods.least(100) - beside).clamp(0, serves)
}

/// The most pods that a canary may be given.
fn canary_may_have(
    observation: &Observation,
    decision: &Decision,
    change: &Change,
    pods: &Pods,
) -> i64 {
    if change.stage == Stage::Promoting {
        return pods.desired;
    }
    if change.stage != Stage::Stepping {
        return 0;
    }
    let weight = i64::from(change.weight);
    if observation.spec.strategy.canary.traffic.is_some() || weight <= 0 {
        let begun = usize::try_from(change.step).unwrap_or(0);
        let sizes = change.plan.steps.iter().take(begun);
        let size = sizes.filter_map(|step| step.scale).next_back();
        let size = pods.part(i64::from(size.unwrap_or(0)));
        return pods.part(weight).max(size).max(1);
    }
    // The share of a revision is that of its pods: no more of them than stable's balance.
    let stable = decision.status.stable.as_ref();
    let stable = stable.map_or(0, |it| available(observation, &it.pod_template_hash));
    (weight * stable / (100 - weight).max(1)).max(1)
}
