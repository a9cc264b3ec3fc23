//! The gates before every increase of a canary's weight, in their order.
//!
//! The first closed gate is what the change waits for. A gate only holds: it never rolls back and never
//! stops the analysis, which is judged before the gates are evaluated.

use countersign_api::objective::OnBurn;
use countersign_api::policy::Enforcement;
use countersign_api::rollout::{Change, Revision, Stage};
use countersign_api::step::Tier;

use crate::analysis::verdict::Verdict;
use crate::analysis::{above_weight, budget};
use crate::change;
use crate::hold::{Hold, HoldKind};
use crate::observation::{self, Observation};
use crate::people::sign_off;
use crate::provenance::digest;
use crate::queue::{concurrency, dependencies};
use crate::reason::Reason;
use crate::replicas::{self, Limits, Present, present};
use crate::rollout::context::{Context, Judgement};
use crate::text;
use crate::traffic::settle;
use crate::traffic::view::View;
use crate::workload::{adoption, pods, smoke, tampering};

type Gate = fn(&Context, &Change, &Judgement) -> Option<Hold>;

/// The gates in order. The concurrency limit is last, so that a queued change waits for nothing else.
const GATES: [Gate; 16] = [
    references, // the named objects exist, unedited and not claimed elsewhere, images by digest if required
    routable,   // the routes can give the canary a share
    checkable,  // every check can be queried, and one is independent, if the tier requires it
    paused,     // no person requested a pause
    frozen,     // no incident and no change-freeze
    budgeted,   // the error budgets allow it
    has_replicas, // there are replicas to analyse
    dependencies, // the Rollout's dependencies are stable
    capacity,   // the pods for the present weight are available, and a first revision may have some
    split,      // the routes give the canary the present weight, and nothing else gives it more
    bake,       // the present step has lasted long enough
    evidence,   // the analysis passes
    scarcity,   // or the tier accepts scarce evidence
    smoke_check, // the smoke check before the first step has succeeded
    sign_off,   // the people whom the next step demands have signed
    concurrency_limit, // there is room for one more risky change
];

/// The first closed gate before the next step, or before promotion after the last.
#[must_use]
pub fn first_closed(context: &Context, change: &Change, judgement: &Judgement) -> Option<Hold> {
    let mut gates = GATES.iter();
    gates.find_map(|gate| gate(context, change, judgement))
}

/// The result of a closed gate.
#[allow(clippy::unnecessary_wraps)] // so that every gate can return the hold
fn hold(kind: HoldKind, reason: Reason, message: impl Into<String>) -> Option<Hold> {
    Some(Hold {
        kind,
        reason,
        message: message.into(),
    })
}

/// Another Rollout claimed these objects first, so that no Service is written either, or not all ReplicaSets were read:
/// no change begins or advances.
#[must_use]
pub fn conflict(observation: &Observation) -> Option<Hold> {
    let conflicts = observation.conflicts.iter();
    let conflicts = conflicts.chain(&observation.unread_replica_sets);
    let conflicts: Vec<_> = conflicts.map(String::as_str).collect();
    conflicts.first()?;
    hold(HoldKind::Doubt, Reason::Conflict, conflicts.join("; "))
}

/// A policy that cannot be read may govern the Rollout.
pub(super) fn unreadable_policy(observation: &Observation) -> Option<Hold> {
    let policy = observation.unreadable_policies.first()?;
    hold(HoldKind::Doubt, Reason::PolicyUnreadable, policy)
}

fn references(context: &Context, change: &Change, _: &Judgement) -> Option<Hold> {
    let observation = context.observation;
    let present = &context.before.fleet.pods;
    let edited = tampering::hold(observation).or_else(|| tampering::doubt(observation, change));
    if let Some(hold) = edited.or_else(|| conflict(observation)) {
        return Some(hold);
    }
    if let Some(obstacle) = adoption::obstacle(observation, Some(change)) {
        return Some(obstacle);
    }
    if let Some(hold) = unreadable_policy(observation) {
        return Some(hold);
    }
    if let Some(problem) = observation.people.unreadable_requests.first() {
        return hold(HoldKind::Doubt, Reason::RequestsUnreadable, problem);
    }
    if let Some(message) = invalid_template(observation, change) {
        return hold(HoldKind::Doubt, Reason::TemplateInvalid, message);
    }
    if let Some((name, _)) = observation
        .traffic
        .services
        .iter()
        .find(|(_, service)| service.is_none())
    {
        let message = format!(
            "Service {name}, which spec.strategy.canary names, does not exist: create it or remove the name"
        );
        return hold(HoldKind::Doubt, Reason::ServiceNotFound, message);
    }
    if let Some(hold) = pinned(context, change).or_else(|| immutable(context, change)) {
        return Some(hold);
    }
    if change.initial || change.stage == Stage::Promoting {
        return None;
    }
    let scaled_away = present.stable.requested == 0
        && observation.spec.replicas > 0
        && scaled_by_others(observation, context.before.stable);
    stable_lost(observation, context.before.stable).or_else(|| {
        let message = "the stable revision's ReplicaSet was scaled to 0: it is scaled back";
        scaled_away.then(|| hold(HoldKind::Doubt, Reason::StableMissing, message))?
    })
}

/// Whether somebody else scaled the stable revision to what it has, which is not what was last requested for it.
fn scaled_by_others(observation: &Observation, stable: Option<&Revision>) -> bool {
    let hash = stable.map(|it| it.pod_template_hash.as_str());
    let set = present::with_hash(observation, hash);
    set.is_some_and(|set| set.requested.as_ref().is_none_or(|it| it.replicas > 0))
}

/// The stable revision's ReplicaSet was deleted: the change is held until it exists again.
#[must_use]
pub fn stable_lost(observation: &Observation, stable: Option<&Revision>) -> Option<Hold> {
    let stable = stable?;
    let mut sets = observation.replica_sets.iter();
    let found = sets.any(|set| set.hash == stable.pod_template_hash);
    if found || observation.spec.replicas == 0 || observation.deleting {
        return None;
    }
    let message = match (
        &stable.run,
        observation.promoted.get(&stable.template_digest),
    ) {
        (Some(run), Some(_)) => format!(
            "the ReplicaSet of revision {}, which is stable, was deleted: it is created again from the template in RolloutRun {run}",
            stable.revision
        ),
        _ => format!(
            "the ReplicaSet of revision {}, which is stable, was deleted, and no RolloutRun keeps its template: apply that template to the Rollout, or delete the Rollout and create it again",
            stable.revision
        ),
    };
    hold(HoldKind::Doubt, Reason::StableMissing, message)
}

/// Why the API server rejects the pods of the change, in its words.
#[must_use]
pub fn invalid_template(observation: &Observation, change: &Change) -> Option<String> {
    let refused = observation.invalid_revision.as_ref()?;
    let why = observation.write_failure.as_ref()?;
    (*refused == change.pod_template_hash).then(|| format!("{why}: correct the pod template"))
}

fn routable(context: &Context, change: &Change, _: &Judgement) -> Option<Hold> {
    let observation = context.observation;
    let effective = &context.proposal.effective;
    if change.initial {
        return None;
    }
    let demands = effective.tiers.get(change.tier);
    if demands.require_router == Some(true) && !observation::is_routed(observation) {
        let message = format!(
            "tier {} requires routes that give the canary an exact share (requireRouter), and spec.strategy.canary.traffic names none",
            change.tier
        );
        return hold(HoldKind::Doubt, Reason::RouterRequired, message);
    }
    let (why, problem) = context.before.routes.problem.as_ref()?;
    hold(HoldKind::Doubt, *why, problem)
}

fn pinned(context: &Context, change: &Change) -> Option<Hold> {
    let demands = context.proposal.effective.tiers.get(change.tier);
    if change.initial || demands.require_digest != Some(true) {
        return None;
    }
    let image = not_pinned(context.observation)?;
    let message = format!(
        "tier {} requires images by digest (requireDigest), and {image} is named without: write name@sha256:…",
        change.tier
    );
    hold(HoldKind::Doubt, Reason::ImageNotPinned, message)
}

/// The first image that is not named by its digest.
pub(super) fn not_pinned(observation: &Observation) -> Option<String> {
    let images = observation.spec.template.images().into_iter();
    let mut tagged = images.filter(|it| !digest::is_pinned(it));
    tagged.next().map(text::excerpt)
}

fn immutable(context: &Context, change: &Change) -> Option<Hold> {
    let demands = context.proposal.effective.tiers.get(change.tier);
    if change.initial || demands.require_immutable_config != Some(true) {
        return None;
    }
    let name = not_hashed(context.observation)?;
    let message = format!(
        "tier {} requires ConfigMaps and Secrets named by the hash of their content (requireImmutableConfig), and {name} is not: name it as kustomize or kubectl create --append-hash do",
        change.tier
    );
    hold(HoldKind::Doubt, Reason::ConfigNotImmutable, message)
}

/// The first ConfigMap or Secret that is not named by the hash of its content. Kubernetes itself writes that of the
/// API server's authority.
pub(super) fn not_hashed(observation: &Observation) -> Option<String> {
    let names = observation.spec.template.configuration().into_iter();
    let mut plain = names.filter(|it| *it != "kube-root-ca.crt" && !digest::is_hashed(it));
    plain.next().map(text::excerpt)
}

fn checkable(context: &Context, change: &Change, _: &Judgement) -> Option<Hold> {
    let observation = context.observation;
    let checks = &context.proposal.checks;
    if change.initial {
        return None;
    }
    let effective = &context.proposal.effective;
    let demands = effective.tiers.get(change.tier);
    if demands.require_policy_check == Some(true) && !checks.are_independent(effective) {
        let message = format!(
            "tier {} requires a check of a policy or of a router that counts requests (requirePolicyCheck), and there is none",
            change.tier
        );
        return hold(HoldKind::Doubt, Reason::PolicyCheckRequired, message);
    }
    let problem = checks.problem(observation)?;
    hold(HoldKind::Doubt, Reason::CheckInvalid, problem)
}

fn budgeted(context: &Context, change: &Change, judgement: &Judgement) -> Option<Hold> {
    let effective = &context.proposal.effective;
    if change.initial || judgement.sign_offs.has_break_glass() {
        return None;
    }
    if let Some(message) = budget::burns(change, OnBurn::Hold) {
        return hold(HoldKind::Requested, Reason::ErrorBudgetBurn, message);
    }
    let gated = effective.budget_tiers.contains(&change.tier) && change.stage == Stage::Waiting;
    if let Some(message) = budget::spent(change).filter(|_| gated) {
        return hold(HoldKind::Requested, Reason::ErrorBudgetSpent, message);
    }
    let message = budget::unknown(change)?;
    hold(HoldKind::Doubt, Reason::ErrorBudgetUnknown, message)
}

fn paused(context: &Context, change: &Change, _: &Judgement) -> Option<Hold> {
    let observation = context.observation;
    if observation.spec.paused {
        let message = "spec.paused is set; the canary is still judged";
        return hold(HoldKind::Requested, Reason::Paused, message);
    }
    let person = change.paused_by.as_ref()?;
    let message = format!("paused by {person}; the canary is still judged");
    hold(HoldKind::Requested, Reason::Paused, message)
}

fn frozen(_: &Context, change: &Change, judgement: &Judgement) -> Option<Hold> {
    if change.initial || judgement.sign_offs.has_break_glass() {
        return None;
    }
    if !judgement.freezes.in_force.is_empty() {
        return hold(
            HoldKind::Requested,
            Reason::Frozen,
            judgement.freezes.in_force.join("; "),
        );
    }
    let unknown = judgement.freezes.unknown.first()?;
    hold(HoldKind::Doubt, Reason::FreezeUnknown, unknown)
}

fn has_replicas(context: &Context, change: &Change, _: &Judgement) -> Option<Hold> {
    let observation = context.observation;
    let idle = observation.spec.replicas == 0 && !change.initial;
    let message = "spec.replicas is 0: a change is staged once there is traffic to learn from";
    idle.then(|| hold(HoldKind::Requested, Reason::ScaledToZero, message))
        .flatten()
}

fn dependencies(context: &Context, change: &Change, _: &Judgement) -> Option<Hold> {
    let observation = context.observation;
    let awaited = dependencies::awaited_dependencies(observation, change)?;
    hold(HoldKind::Requested, Reason::AwaitingDependency, awaited)
}

/// Whether the pods for the present weight are available and receive that weight.
#[must_use]
pub fn serves(context: &Context, change: &Change) -> bool {
    pods_missing(context, change).is_none() && traffic_missing(context, change).is_none()
}

fn capacity(context: &Context, change: &Change, judgement: &Judgement) -> Option<Hold> {
    first_people(context, change, judgement).or_else(|| pods_missing(context, change))
}

/// A first revision has no pods before its people have signed.
fn first_people(context: &Context, change: &Change, judgement: &Judgement) -> Option<Hold> {
    let (observation, sign_offs) = (context.observation, &judgement.sign_offs);
    let (reason, message) = sign_off::first_awaited(observation, change, sign_offs)?;
    let kind = if reason == Reason::Rejected {
        HoldKind::Requested
    } else {
        HoldKind::People
    };
    hold(kind, reason, message)
}

fn split(context: &Context, change: &Change, _: &Judgement) -> Option<Hold> {
    traffic_missing(context, change).or_else(|| above_weight(context, change))
}

/// Testers of the Rollout's own reach the canary whatever its weight.
fn above_weight(context: &Context, change: &Change) -> Option<Hold> {
    let traffic = context.observation.spec.strategy.canary.traffic.as_ref()?;
    if traffic.testers.is_some() || change.stage != Stage::Stepping {
        return None;
    }
    hold(
        HoldKind::Doubt,
        Reason::AboveWeight,
        above_weight::found(change)?,
    )
}

/// Pods of the new revision that the present weight needs.
pub(super) fn pods_needed(view: &View, change: &Change) -> i32 {
    let (limits, present) = (view.fleet.limits, &view.fleet.pods);
    match change.stage {
        Stage::Stepping => step_pods(limits, change, present),
        Stage::Promoting => promotion_pods(limits),
        Stage::Waiting | Stage::Promoted | Stage::RollingBack | Stage::RolledBack => 0,
    }
}

fn pods_missing(context: &Context, change: &Change) -> Option<Hold> {
    let observation = context.observation;
    let needed = pods_needed(&context.before, change);
    let available = context.before.fleet.pods.canary.available;
    if available >= needed {
        return None;
    }
    let failure = observation
        .replica_sets
        .iter()
        .find(|set| set.hash == change.pod_template_hash)
        .and_then(|set| set.failure.as_ref())
        .or(observation.write_failure.as_ref())
        .cloned()
        .or_else(|| pods::trouble(observation))
        .map(|failure| format!(": {failure}"));
    let message = format!(
        "{available} of {needed} pods of the new revision are available{}",
        failure.unwrap_or_default()
    );
    hold(HoldKind::Doubt, Reason::AwaitingPods, message)
}

/// Pods that a step needs, limited to what the available stable pods can balance.
fn step_pods(limits: Limits, change: &Change, present: &Present) -> i32 {
    let balanced = replicas::balanced(limits, present.stable.available, change.weight);
    present::step_goal(limits, change).canary.min(balanced)
}

/// Pods that must be available before a revision becomes the stable one.
fn promotion_pods(limits: Limits) -> i32 {
    (limits.desired - limits.unavailable).max(limits.desired.min(1))
}

fn traffic_missing(context: &Context, change: &Change) -> Option<Hold> {
    let served = matches!(change.stage, Stage::Stepping | Stage::Promoting);
    let message = settle::awaited(&context.before, change).filter(|_| served && !change.initial)?;
    hold(HoldKind::Doubt, Reason::AwaitingTraffic, message)
}

fn bake(context: &Context, change: &Change, judgement: &Judgement) -> Option<Hold> {
    let observation = context.observation;
    let until = change::bake_ends(change)?;
    if observation.now >= until || judgement.sign_offs.has_break_glass() {
        return None;
    }
    hold(
        HoldKind::Time(until),
        Reason::Baking,
        format!("the step bakes until {until:.0}"),
    )
}

fn evidence(_: &Context, change: &Change, judgement: &Judgement) -> Option<Hold> {
    if change.stage != Stage::Stepping || !change::wants_evidence(change) {
        return None;
    }
    match &judgement.verdict {
        // Tier `low` needs no check, and neither does a change that policies only observe.
        Verdict::NoChecks
            if change.tier > Tier::Low && change.enforcement == Enforcement::Enforce =>
        {
            let message = format!(
                "no check runs in this step, and a change of tier {} requires one: add it to spec.strategy.canary.analysis or to a policy",
                change.tier
            );
            hold(HoldKind::Doubt, Reason::NoChecks, message)
        }
        Verdict::NoData { reason, message } => hold(HoldKind::Doubt, *reason, message),
        Verdict::Fail { message } => hold(HoldKind::Doubt, Reason::AnalysisFailed, message),
        Verdict::NoChecks | Verdict::Scarce { .. } | Verdict::Pass { .. } => None,
    }
}

fn scarcity(_: &Context, change: &Change, judgement: &Judgement) -> Option<Hold> {
    match &judgement.verdict {
        Verdict::Scarce { message }
            if change.stage == Stage::Stepping
                && change::wants_evidence(change)
                && !judgement.scarce_accepted =>
        {
            hold(HoldKind::Scarce, Reason::AwaitingEvidence, message)
        }
        _ => None,
    }
}

fn smoke_check(context: &Context, change: &Change, _: &Judgement) -> Option<Hold> {
    let observation = context.observation;
    let message = smoke::awaited(observation, change)?;
    hold(HoldKind::Doubt, Reason::AwaitingSmoke, message)
}

fn sign_off(context: &Context, change: &Change, judgement: &Judgement) -> Option<Hold> {
    let observation = context.observation;
    let stands = !change.initial && matches!(change.stage, Stage::Waiting | Stage::Stepping);
    if !stands || judgement.sign_offs.has_break_glass() {
        return None;
    }
    let (gate, demands) = sign_off::next_gate(change);
    let missing = judgement.sign_offs.missing(&gate, demands);
    if missing.is_empty() {
        return None;
    }
    let required = format!("gate {gate} requires {}", missing.join(" and "));
    hold(
        HoldKind::People,
        Reason::AwaitingSignOff,
        required + &sign_off::unproven(observation),
    )
}

fn concurrency_limit(context: &Context, change: &Change, judgement: &Judgement) -> Option<Hold> {
    let observation = context.observation;
    let effective = &context.proposal.effective;
    if judgement.sign_offs.has_break_glass() {
        return None;
    }
    let awaited = concurrency::queue_position(observation, change, effective)?;
    hold(HoldKind::Requested, Reason::Queued, awaited.message)
}
