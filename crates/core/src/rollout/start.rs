//! The start of a change.

use countersign_api::rollout::{Change, Revision, RolloutStatus, Stage};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;

use crate::hold::Hold;
use crate::intervals::{POLL_INTERVAL, RESYNC_INTERVAL};
use crate::label::MAX_VALUE;
use crate::observation::{self, Observation};
use crate::people::{eligibility, sign_off};
use crate::proposal;
use crate::provenance::Contributor;
use crate::reason::Reason;
use crate::replicas::present;
use crate::rollout::context::{Behind, Context};
use crate::rollout::requeue::Requeue;
use crate::rollout::{gates, observe, record, transition};
use crate::workload::{adoption, tampering};

/// Records who must not sign. The list only grows while the change is under way.
pub(super) fn note_people(context: &Context, change: &mut Change) {
    let (observation, proposal) = (context.observation, context.proposal);
    let changer = observation
        .annotations
        .get(countersign_api::CHANGED_BY_ANNOTATION);
    // One changer per line: everybody who changed the Rollout since its template was last promoted.
    let stamped = changer.iter().flat_map(|stamp| stamp.lines());
    let stamped = stamped.filter(|user| !user.is_empty());
    let mut changers = change.changed_by.clone();
    eligibility::add(&mut changers, stamped.map(ToOwned::to_owned));
    let excluded_approvers = eligibility::excluded_approvers(proposal, &changers);
    // On an adopted workload the stamp names others than its changers; they are excluded all the same.
    if observation.spec.workload_ref.is_none() {
        change.changed_by = changers;
    }
    eligibility::add(
        &mut change.excluded_approvers.users,
        excluded_approvers.users,
    );
    change
        .excluded_approvers
        .groups
        .extend(excluded_approvers.groups);
}

/// Provenance that is placed on a stable revision is that revision's: the next template needs its own.
pub(super) fn note_provenance(context: &Context, stable: &mut Revision) {
    let (observation, proposal) = (context.observation, context.proposal);
    let same = stable.template_digest == proposal.template_digest;
    // What an adopted workload runs may be unknown at present.
    if same && proposal.provenance_digest.is_some() && !observation::is_unreadable(observation) {
        let own = &mut stable.provenance_digest;
        own.clone_from(&proposal.provenance_digest);
    }
}

/// Why nothing may start, whatever the change is.
pub(super) fn obstacle(observation: &Observation) -> Option<Hold> {
    gates::conflict(observation).or_else(|| adoption::obstacle(observation, None))
}

/// No change is under way: a new template starts one, new provenance alone does not (the stable pods
/// already run it).
pub(super) fn rest_or_start(
    context: &Context,
    status: &mut RolloutStatus,
    behind: Behind,
    requeue: &mut Requeue,
) -> (Option<Change>, Option<Hold>) {
    let (observation, proposal) = (context.observation, context.proposal);
    if observation.deleting {
        return (None, None);
    }
    if let Some(hold) = obstacle(observation) {
        requeue.after(RESYNC_INTERVAL);
        return (None, Some(hold));
    }
    match &mut status.stable {
        Some(stable) if stable.template_digest == proposal.template_digest => {
            stable.digest.clone_from(&proposal.digest);
            note_provenance(context, stable);
            (None, tampering::hold(observation))
        }
        // A plan is fixed when the change starts, so the policies must be known by then.
        Some(_) if !observation.unreadable_policies.is_empty() => {
            requeue.after(POLL_INTERVAL);
            (None, gates::unreadable_policy(observation))
        }
        _ => (Some(start(context, status, behind, requeue)), None),
    }
}

fn start(
    context: &Context,
    status: &mut RolloutStatus,
    behind: Behind,
    requeue: &mut Requeue,
) -> Change {
    let (observation, proposal) = (context.observation, context.proposal);
    let now = observation.now;
    let initial = status.stable.is_none();
    let after_rollback = proposal::after_rollback(observation);
    let risk = proposal.risk(observation, after_rollback);
    let enforced = proposal.if_enforced(observation, after_rollback);
    let plan = proposal.plan(observation, risk.tier, enforced.as_ref());
    let observed = proposal.observed.as_ref().zip(enforced.as_ref());
    let observed = observed.and_then(|(demands, enforced)| {
        if initial {
            observe::first_at_start(demands, &plan, enforced)
        } else {
            Some(observe::at_start(observation, demands, &plan, enforced))
        }
    });
    // Attested provenance takes precedence over declared provenance.
    let provenance = proposal.attested.as_ref().unwrap_or(&proposal.provenance);
    let contributor = provenance.contributor.unwrap_or(Contributor::Unknown);
    // The records of a deleted Rollout of the same name keep their names.
    let former = observation.former.iter();
    let former = former.filter_map(|run| record::attempt(&run.name)).max();
    // Where none can be known, the time is beyond all numbers of their attempts.
    let found = observation.unreadable_history().is_none() && observation.name.len() <= MAX_VALUE;
    let unknown = (status.attempts == 0 && !found).then(|| now.as_second());
    let earlier = status.attempts.max(former.or(unknown).unwrap_or_default());
    status.attempts = earlier.saturating_add(1);
    status.revision = status.revision.saturating_add(1);
    let mut change = Change {
        digest: proposal.digest.clone(),
        pod_template_hash: proposal.hash.clone(),
        template_digest: proposal.template_digest.clone(),
        provenance_digest: proposal.provenance_digest.clone(),
        stored_template_digest: Some(String::new()),
        inherited_provenance: proposal.inherited_provenance,
        source_revision: proposal.source_revision(observation),
        revision: status.revision,
        run: record::name(&observation.name, &proposal.digest, status.attempts),
        started_at: Some(Time(now)),
        progressed_at: Some(Time(now)),
        initial,
        made_again: proposal.made_again,
        score: risk.score,
        tier: risk.tier,
        contributor: contributor.as_str().to_owned(),
        after_rollback,
        changed_by: behind.changed_by,
        excluded_approvers: behind.excluded_approvers,
        begun: behind.begun,
        served: behind.served,
        enforcement: proposal.enforcement,
        observed,
        plan,
        stage: if initial {
            Stage::Promoting
        } else {
            Stage::Waiting
        },
        weight: if initial { 100 } else { 0 },
        ..Change::default()
    };
    change.plan.shares = present::shares(observation, &change.plan.steps);
    note_people(context, &mut change);
    // A first revision that waits for nobody is recorded once, when it is promoted.
    if !initial || sign_off::is_required(&change) {
        let message = started(observation, &change);
        transition::record(context, &mut change, Reason::ChangeStarted, message);
        requeue.after(SignedDuration::ZERO);
    }
    change
}

/// How a change began, in a sentence.
fn started(observation: &Observation, change: &Change) -> String {
    let steps = change.plan.steps.iter();
    let weights: Vec<_> = steps.map(|step| format!("{}%", step.weight)).collect();
    let course = if change.initial {
        "the first revision, which waits for people before its first pod".to_owned()
    } else {
        format!("steps {}", weights.join(", "))
    };
    let changers: Vec<_> = change.changed_by.iter().map(String::as_str).collect();
    let by = match changers.as_slice() {
        [] => String::new(),
        changers => format!("; changed by {}", changers.join(", ")),
    };
    let restarted = observation.unknown_status.as_ref().map(|unknown| {
        format!("; what was in progress begins again, as this build cannot read {unknown}")
    });
    let unknown = observation.unreadable_history();
    let unknown =
        unknown.map(|problem| format!("; it counts as one after a rollback, as {problem}"));
    format!(
        "tier {} with {:.1} points; {course}{by}{}{}",
        change.tier,
        change.score,
        restarted.unwrap_or_default(),
        unknown.unwrap_or_default(),
    )
}
