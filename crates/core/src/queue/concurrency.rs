//! The order of changes among Rollouts: dependencies come first, and only a limited number of risky changes
//! is under way at once.
//!
//! First come, first served. A change whose other gates are all open records `queuedAt`, so that the others
//! see it. In a later reconcile all of them are read again, and the change advances if earlier ones leave
//! room. Reconciles at this gate are serialised (see `observe::queue_lock`), so no two changes take the same
//! place.
//!
//! Invariant: a change waits only for changes under way and for those that came before it, so no two ever
//! wait for each other.

use countersign_api::rollout::{Change, RolloutStatus, Stage};
use countersign_api::step::Tier;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;

use crate::change;
use crate::hold::Hold;
use crate::intervals::POLL_INTERVAL;
use crate::limits::FOREIGN_TEXT;
use crate::observation::Observation;
use crate::observation::people::ConcurrentChange;
use crate::policy::Effective;
use crate::reason::Reason;
use crate::text::sanitize_to;

/// Most Rollouts that a message names.
const MOST_NAMED: usize = 5;
/// Requeue interval if another reconcile held the queue lock.
const COUNTED: SignedDuration = SignedDuration::from_secs(2);
/// Longest time between two reconciles of a queued change. The end of a change wakes the waiting ones, so
/// this only repairs a missed wake-up.
const LATEST: SignedDuration = SignedDuration::from_mins(1);

/// A limit of a policy, in the namespace or among all that it governs.
#[derive(Debug)]
pub(super) struct Limit<'a> {
    policy: &'a str,
    from_tier: Tier,
    most: usize,
    in_namespace: bool,
}

impl Limit<'_> {
    fn concerns(&self, it: &ConcurrentChange) -> bool {
        it.tier >= self.from_tier && it.policies.iter().any(|policy| policy == self.policy)
    }

    /// Whether both changes fall under this limit together.
    fn joins(&self, a: &ConcurrentChange, b: &ConcurrentChange) -> bool {
        let near = !self.in_namespace || a.namespace == b.namespace;
        near && self.concerns(a) && self.concerns(b)
    }
}

pub(super) fn limits(effective: &Effective) -> impl Iterator<Item = Limit<'_>> {
    effective.concurrency.iter().flat_map(|(policy, it)| {
        let limit = |most: Option<i32>, in_namespace: bool| {
            most.map(|most| Limit {
                policy,
                from_tier: it.from_tier,
                most: usize::try_from(most).unwrap_or(0),
                in_namespace,
            })
        };
        let both = [limit(it.per_namespace, true), limit(it.per_cluster, false)];
        both.into_iter().flatten()
    })
}

/// The scope of the changes that may count for a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// In the same namespace.
    Namespace,
    /// In any namespace.
    Cluster,
}

/// The scope of the policies' limits, for any tier: the tier may rise in the very reconcile that counts.
/// `None` if there is no limit.
#[must_use]
pub fn reach(effective: &Effective) -> Option<Reach> {
    let mut limits = limits(effective).peekable();
    limits.peek()?;
    Some(if limits.all(|limit| limit.in_namespace) {
        Reach::Namespace
    } else {
        Reach::Cluster
    })
}

/// A place in the queue that has to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// The message.
    pub message: String,
    /// When to requeue, unless the end of another change is observed before.
    pub requeue_after: SignedDuration,
}

/// Whether a change is queued before its first step; `None` if it may advance.
#[must_use]
pub fn queue_position(
    observation: &Observation,
    change: &Change,
    effective: &Effective,
) -> Option<Awaited> {
    if change.initial || change.stage != Stage::Waiting || change.outcome.is_some() {
        return None;
    }
    let limits: Vec<_> = limits(effective).collect();
    let limited = limits.iter().find(|limit| limit.from_tier <= change.tier)?;
    let (Some(queued_at), Some(concurrent_changes)) =
        (&change.queued_at, &observation.concurrent_changes)
    else {
        return Some(not_counted(observation, limited));
    };
    let concurrent_changes = match concurrent_changes {
        Ok(concurrent_changes) => concurrent_changes,
        Err(problem) => {
            let problem = sanitize_to(problem, FOREIGN_TEXT);
            return Some(Awaited {
                message: format!("the position in the queue is unknown: {problem}"),
                requeue_after: POLL_INTERVAL,
            });
        }
    };
    let own = ConcurrentChange {
        namespace: observation.namespace.clone(),
        name: observation.name.clone(),
        uid: observation.uid.clone(),
        policies: limits.iter().map(|it| it.policy.to_owned()).collect(),
        tier: change.tier,
        queued_at: Some(queued_at.0),
    };
    let full = full(&own, concurrent_changes, &limits)?;
    Some(described(&own, concurrent_changes, full))
}

/// The first pass only records `queuedAt`. While another reconcile holds the queue lock the previous
/// message is kept.
fn not_counted(observation: &Observation, limit: &Limit) -> Awaited {
    let message = if is_queued(&observation.status) {
        observation.status.message.clone()
    } else {
        format!(
            "joins the queue: policy {} limits how many changes of tier {} or above are under way at once",
            limit.policy, limit.from_tier
        )
    };
    Awaited {
        message,
        requeue_after: COUNTED,
    }
}

fn is_queued(status: &RolloutStatus) -> bool {
    change::waits_for(status, Reason::Queued)
}

/// The limit without a place left for a change. Earlier changes take theirs first, but only if they can:
/// one that is held by a limit of its own namespace takes no place of the others.
pub(super) fn full<'a>(
    own: &ConcurrentChange,
    concurrent_changes: &'a [ConcurrentChange],
    limits: &'a [Limit<'a>],
) -> Option<&'a Limit<'a>> {
    let (mut queue, mut taken): (Vec<&ConcurrentChange>, Vec<&ConcurrentChange>) =
        concurrent_changes
            .iter()
            .partition(|it| it.queued_at.is_some());
    queue.retain(|it| is_before(it, own));
    queue.sort_by_key(|it| (it.queued_at, &it.uid));
    let full = |it: &ConcurrentChange, taken: &[&ConcurrentChange]| {
        limits.iter().find(|limit| {
            let others = taken.iter().filter(|other| limit.joins(it, other));
            limit.concerns(it) && others.count() >= limit.most
        })
    };
    for it in queue {
        if full(it, &taken).is_none() {
            taken.push(it);
        }
    }
    full(own, &taken)
}

fn is_before(it: &ConcurrentChange, own: &ConcurrentChange) -> bool {
    (it.queued_at, &it.uid) < (own.queued_at, &own.uid)
}

pub(super) fn described(
    own: &ConcurrentChange,
    concurrent_changes: &[ConcurrentChange],
    limit: &Limit,
) -> Awaited {
    let (waiting, under_way): (Vec<&ConcurrentChange>, Vec<&ConcurrentChange>) = concurrent_changes
        .iter()
        .filter(|it| limit.joins(own, it))
        .partition(|it| it.queued_at.is_some());
    let before: Vec<_> = waiting
        .into_iter()
        .filter(|it| is_before(it, own))
        .collect();
    let place = before.len() + 1;
    let (changes, reach) = (
        if limit.most == 1 { "change" } else { "changes" },
        if limit.in_namespace {
            "in this namespace"
        } else {
            "among all that it governs"
        },
    );
    let names = [("under way", under_way), ("before it", before)];
    let names = names.iter().filter(|(_, who)| !who.is_empty());
    let names: Vec<_> = names
        .map(|(what, who)| format!("; {what}: {}", named(who)))
        .collect();
    let names = names.concat();
    let message = format!(
        "place {place} in the queue: policy {} allows {} {changes} of tier {} or above at once {reach}{names}",
        limit.policy, limit.most, limit.from_tier
    );
    // Reading all other Rollouts is costly: the further behind, the less often.
    let places = i32::try_from(place).unwrap_or(i32::MAX);
    Awaited {
        message,
        requeue_after: POLL_INTERVAL.saturating_mul(places).min(LATEST),
    }
}

fn named(concurrent_changes: &[&ConcurrentChange]) -> String {
    let names = concurrent_changes.iter().take(MOST_NAMED);
    let names: Vec<_> = names
        .map(|it| format!("{}/{}", it.namespace, it.name))
        .collect();
    let more = concurrent_changes.len().saturating_sub(MOST_NAMED);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    names.join(", ") + &more
}

/// Keeps `queuedAt` from when a change first waits in the queue until it advances. Holds of another kind
/// keep the place, and no other change waits for it.
pub fn keep_place(observation: &Observation, change: &mut Change, hold: Option<&Hold>) {
    match hold {
        None => change.queued_at = None,
        Some(hold) if hold.reason == Reason::Queued => {
            change.queued_at.get_or_insert(Time(observation.now));
        }
        Some(_) => {}
    }
}

/// When to requeue a change that waits for other Rollouts.
#[must_use]
pub fn requeue_after(
    observation: &Observation,
    change: &Change,
    effective: &Effective,
    hold: &Hold,
) -> Option<SignedDuration> {
    match hold.reason {
        Reason::AwaitingDependency => Some(POLL_INTERVAL),
        // The change is queued only once `queuedAt` is written.
        Reason::Queued if !is_queued(&observation.status) => Some(SignedDuration::ZERO),
        Reason::Queued => queue_position(observation, change, effective).map(|it| it.requeue_after),
        _ => None,
    }
}
