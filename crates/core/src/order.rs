//! The order of changes among Rollouts: what one depends on comes first, and of risky ones only so many
//! are under way at once.
//!
//! First come, first served. A change whose other gates are all open writes down since when
//! (`queuedAt`), so that the others see it. In a later look all of them are read anew, and it goes on
//! if those that were there before leave room. Looks at this gate come one after the other (see
//! `observe::order`), so no two changes take the same place.
//!
//! Invariant: a change waits only for those under way and for those that came before it, so no two
//! ever wait for each other.

use std::collections::{BTreeMap, BTreeSet};

use countersign_api::Rollout;
use countersign_api::plan::Tier;
use countersign_api::rollout::{Change, Outcome, RolloutStatus, Stage};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::hold::Hold;
use crate::observation::Observation;
use crate::observation::people::{Dependency, Rival};
use crate::policy::Effective;
use crate::text::shown;
use crate::{change, reason};

/// Most Rollouts that are named in a sentence.
const MOST_NAMED: usize = 5;
/// When to look again at what no watch reports.
const SOON: SignedDuration = SignedDuration::from_secs(5);
/// When to look again if another look was just counting.
const COUNTED: SignedDuration = SignedDuration::from_secs(2);
/// Longest time between two looks of a change that waits for others. The end of a change wakes those
/// who wait, so this only mends what was missed.
const LATEST: SignedDuration = SignedDuration::from_mins(1);

// --- What a Rollout depends on -------------------------------------------------------------------

/// Whether a change waits for what its Rollout depends on: before its first step, and a first revision
/// before it has any pod. One that has begun goes on whatever becomes of them.
#[must_use]
pub fn asks_for_dependencies(observation: &Observation, change: &Change) -> bool {
    let begun = || {
        let mut sets = observation.replica_sets.iter();
        sets.any(|set| set.owned && set.hash == change.pod_template_hash && set.replicas > 0)
    };
    let before = match change.stage {
        Stage::Waiting => true,
        Stage::Promoting => change.initial && !begun(),
        _ => false,
    };
    before && change.outcome.is_none() && !observation.spec.depends_on.is_empty()
}

/// What a change waits for among the Rollouts that its own depends on, in a sentence.
#[must_use]
pub fn awaited_dependencies(observation: &Observation, change: &Change) -> Option<String> {
    if !asks_for_dependencies(observation, change) {
        return None;
    }
    let awaited = observation.spec.depends_on.iter().filter_map(|name| {
        let mut seen = observation.dependencies.iter();
        match seen.find(|it| it.name == *name) {
            Some(seen) => seen.awaited.clone(),
            None => Some(format!("Rollout {name} was not looked at yet")),
        }
    });
    let awaited: Vec<_> = awaited.collect();
    (!awaited.is_empty()).then(|| awaited.join("; "))
}

/// Dependencies as they are where all is well.
#[must_use]
pub fn all_stable(names: &[String]) -> Vec<Dependency> {
    let stable = |name: &String| Dependency {
        name: name.clone(),
        awaited: None,
    };
    names.iter().map(stable).collect()
}

/// Why a Rollout is not stable, in a sentence; `None` where it is.
#[must_use]
pub fn unstable(rollout: &Rollout) -> Option<String> {
    let why = if rollout.metadata.deletion_timestamp.is_some() {
        Some("is being deleted".to_owned())
    } else {
        match &rollout.status {
            Some(status) if Some(status.observed_generation) == rollout.metadata.generation => {
                unsettled(status)
            }
            _ => Some("was edited and not looked at since".to_owned()),
        }
    };
    why.map(|why| format!("Rollout {} {why}", rollout.name_any()))
}

fn unsettled(status: &RolloutStatus) -> Option<String> {
    if status.stable.is_none() {
        return Some("has no stable revision yet".into());
    }
    let moving = status.change.as_ref().and_then(|change| {
        let kept = change::is_watched(change) || change.kept_until.is_some();
        let message = || shown(&status.message, 200);
        match change.outcome {
            None => Some(format!("has a change under way: {}", message())),
            Some(Outcome::Promoted) if kept => None,
            Some(Outcome::Promoted) => Some("removes the pods of its last revision".into()),
            Some(Outcome::RolledBack) => Some(format!("was rolled back: {}", message())),
            Some(Outcome::Superseded | Outcome::Reverted) => Some("has just ended a change".into()),
        }
    });
    moving.or_else(|| {
        let mut conditions = status.conditions.iter();
        let available = conditions.find(|it| it.type_ == "Available");
        let enough = available.is_some_and(|it| it.status == "True");
        (!enough).then(|| "has too few available pods".to_owned())
    })
}

/// A way from one Rollout to another by what each depends on, with both ends.
#[must_use]
pub fn way(
    depends_on: &BTreeMap<String, Vec<String>>,
    from: &str,
    to: &str,
) -> Option<Vec<String>> {
    let mut ways = vec![vec![from.to_owned()]];
    let mut seen = BTreeSet::from([from.to_owned()]);
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            let Some(last) = way.last() else { continue };
            if last == to {
                return Some(way);
            }
            for next in depends_on.get(last).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    longer.push(way.iter().chain([next]).cloned().collect());
                }
            }
        }
        ways = longer;
    }
    None
}

/// That two Rollouts that depend on each other wait for ever, in a sentence.
#[must_use]
pub fn circle(own: &str, way_back: &[String]) -> String {
    let names: Vec<_> = [own]
        .into_iter()
        .chain(way_back.iter().map(String::as_str))
        .collect();
    format!(
        "spec.dependsOn goes round in a circle: {}",
        names.join(", ")
    )
}

// --- How many changes are under way at once ------------------------------------------------------

/// A limit of a policy, in the namespace or among all that it governs.
#[derive(Debug)]
struct Limit<'a> {
    policy: &'a str,
    from_tier: Tier,
    most: usize,
    in_namespace: bool,
}

impl Limit<'_> {
    fn concerns(&self, it: &Rival) -> bool {
        it.tier >= self.from_tier && it.policies.iter().any(|policy| policy == self.policy)
    }

    /// Whether two changes count for each other.
    fn joins(&self, a: &Rival, b: &Rival) -> bool {
        let near = !self.in_namespace || a.namespace == b.namespace;
        near && self.concerns(a) && self.concerns(b)
    }
}

fn limits(effective: &Effective) -> impl Iterator<Item = Limit<'_>> {
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

/// Where the changes are that may count for a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// In the same namespace.
    Namespace,
    /// In any namespace.
    Cluster,
}

/// How far the limits of the policies reach, whatever the tier: it may rise in the very look that
/// counts. `None` where there is none.
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

/// A turn that has not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// Why, in a sentence.
    pub message: String,
    /// When to look again, unless somebody's end is noticed before.
    pub patience: SignedDuration,
}

/// Whether a change waits for its turn before its first step; `None` where it may go on.
#[must_use]
pub fn awaited_turn(
    observation: &Observation,
    change: &Change,
    effective: &Effective,
) -> Option<Awaited> {
    if change.initial || change.stage != Stage::Waiting || change.outcome.is_some() {
        return None;
    }
    let limits: Vec<_> = limits(effective).collect();
    let limited = limits.iter().find(|limit| limit.from_tier <= change.tier)?;
    let (Some(queued_at), Some(rivals)) = (&change.queued_at, &observation.rivals) else {
        return Some(unanswered(observation, limited));
    };
    let rivals = match rivals {
        Ok(rivals) => rivals,
        Err(problem) => {
            let problem = shown(problem, 400);
            return Some(Awaited {
                message: format!("whose turn it is cannot be told: {problem}"),
                patience: SOON,
            });
        }
    };
    let own = Rival {
        namespace: observation.namespace.clone(),
        name: observation.name.clone(),
        uid: observation.uid.clone(),
        policies: limits.iter().map(|it| it.policy.to_owned()).collect(),
        tier: change.tier,
        queued_at: Some(queued_at.0),
    };
    let full = full(&own, rivals, &limits)?;
    Some(described(&own, rivals, full))
}

/// Before anything is counted the wish to go on is written down; while another look counts, what was
/// said stays said.
fn unanswered(observation: &Observation, limit: &Limit) -> Awaited {
    let message = if is_queued(&observation.status) {
        observation.status.message.clone()
    } else {
        format!(
            "asks for its turn: policy {} limits how many changes of tier {} or above are under way at once",
            limit.policy, limit.from_tier
        )
    };
    Awaited {
        message,
        patience: COUNTED,
    }
}

fn is_queued(status: &RolloutStatus) -> bool {
    change::hold_reason(status) == Some(reason::QUEUED)
}

/// The limit that has no place left for a change. Those that came before it take theirs first, but only
/// where they can: one that is held up in its own namespace keeps no place for all others.
fn full<'a>(own: &Rival, rivals: &'a [Rival], limits: &'a [Limit<'a>]) -> Option<&'a Limit<'a>> {
    let (mut queue, mut taken): (Vec<&Rival>, Vec<&Rival>) =
        rivals.iter().partition(|it| it.queued_at.is_some());
    queue.retain(|it| is_before(it, own));
    queue.sort_by_key(|it| (it.queued_at, &it.uid));
    let full = |it: &Rival, taken: &[&Rival]| {
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

fn is_before(it: &Rival, own: &Rival) -> bool {
    (it.queued_at, &it.uid) < (own.queued_at, &own.uid)
}

fn described(own: &Rival, rivals: &[Rival], limit: &Limit) -> Awaited {
    let (waiting, under_way): (Vec<&Rival>, Vec<&Rival>) = rivals
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
    // The further behind, the less often: reading all others is not free.
    let places = i32::try_from(place).unwrap_or(i32::MAX);
    Awaited {
        message,
        patience: SOON.saturating_mul(places).min(LATEST),
    }
}

fn named(rivals: &[&Rival]) -> String {
    let names = rivals.iter().take(MOST_NAMED);
    let names: Vec<_> = names
        .map(|it| format!("{}/{}", it.namespace, it.name))
        .collect();
    let more = rivals.len().saturating_sub(MOST_NAMED);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    names.join(", ") + &more
}

/// Keeps the place of a change in the queue: from when it first waits for its turn until it goes on.
/// Whatever else holds it meanwhile costs it no place, and nobody waits for it.
pub fn keep_place(observation: &Observation, change: &mut Change, hold: Option<&Hold>) {
    match hold {
        None => change.queued_at = None,
        Some(hold) if hold.reason == reason::QUEUED => {
            change.queued_at.get_or_insert(Time(observation.now));
        }
        Some(_) => {}
    }
}

/// When to look again at a change that waits for other Rollouts.
#[must_use]
pub fn patience(
    observation: &Observation,
    change: &Change,
    effective: &Effective,
    hold: &Hold,
) -> Option<SignedDuration> {
    match hold.reason.as_str() {
        reason::AWAITING_DEPENDENCY => Some(SOON),
        // It is in the queue only once that is written.
        reason::QUEUED if !is_queued(&observation.status) => Some(SignedDuration::ZERO),
        reason::QUEUED => awaited_turn(observation, change, effective).map(|it| it.patience),
        _ => None,
    }
}

// --- Who waits for whom --------------------------------------------------------------------------

/// Since when a Rollout waits for others, where its status says so.
#[must_use]
pub fn waits_since(status: &RolloutStatus) -> Option<Timestamp> {
    let change = status.change.as_ref()?;
    let since = match change::hold_reason(status)? {
        reason::AWAITING_DEPENDENCY => change.started_at.as_ref(),
        reason::QUEUED => change.queued_at.as_ref(),
        _ => None,
    };
    since.map(|since| since.0)
}

/// Whether a decision ends what others may wait for.
#[must_use]
pub fn frees(before: &RolloutStatus, after: &RolloutStatus) -> bool {
    let ends = takes_place(before) && !takes_place(after);
    ends || (unsettled(before).is_some() && unsettled(after).is_none())
}

fn takes_place(status: &RolloutStatus) -> bool {
    status.change.as_ref().is_some_and(|change| {
        let under_way = change.outcome.is_none() && change.stage != Stage::Waiting;
        !change.initial && (under_way || change.stage == Stage::RollingBack)
    })
}

#[cfg(test)]
mod tests {
    use countersign_api::policy::Concurrency;
    use countersign_api::rollout::Revision;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

    use super::*;
    use crate::policy::effective;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A change of tier high in `namespace/name`, governed by policy `p`.
    fn rival(name: &str, queued_at: Option<i64>) -> Rival {
        let (namespace, name) = name.split_once('/').unwrap();
        Rival {
            namespace: namespace.into(),
            name: name.into(),
            uid: name.into(),
            policies: vec!["p".into()],
            tier: Tier::High,
            queued_at: queued_at.map(second),
        }
    }

    fn limited(per_namespace: Option<i32>, per_cluster: Option<i32>) -> Effective {
        let mut effective = effective(&[]);
        let limit = Concurrency {
            from_tier: Tier::High,
            per_namespace,
            per_cluster,
        };
        effective.concurrency = vec![("p".into(), limit)];
        effective
    }

    fn goes_on(own: &Rival, rivals: &[Rival], effective: &Effective) -> bool {
        let limits: Vec<_> = limits(effective).collect();
        full(own, rivals, &limits).is_none()
    }

    #[test]
    fn the_first_who_asked_goes_first() {
        let one = limited(Some(1), None);
        let own = rival("shop/cart", Some(2));
        assert!(goes_on(&own, &[], &one));
        assert!(!goes_on(&own, &[rival("shop/web", None)], &one));
        assert!(goes_on(&own, &[rival("bank/web", None)], &one));
        assert!(!goes_on(&own, &[rival("shop/web", Some(1))], &one));
        assert!(goes_on(&own, &[rival("shop/web", Some(3))], &one));
        // Of two of one moment just one goes.
        let same = rival("shop/web", Some(2));
        assert!(goes_on(&own, std::slice::from_ref(&same), &one));
        assert!(!goes_on(&same, &[own], &one));
    }

    #[test]
    fn only_changes_of_the_tier_that_the_policy_governs_count() {
        let one = limited(None, Some(1));
        let own = rival("shop/cart", Some(2));
        let mut harmless = rival("shop/web", None);
        harmless.tier = Tier::Medium;
        let mut ungoverned = rival("shop/web", None);
        ungoverned.policies = vec![];
        assert!(goes_on(&own, &[harmless, ungoverned], &one));
        assert!(!goes_on(&own, &[rival("bank/web", None)], &one));
    }

    #[test]
    fn one_that_is_held_up_by_another_limit_keeps_no_place_for_itself() {
        let two = limited(Some(1), Some(2));
        let running = rival("bank/login", None);
        let held_up = rival("bank/ledger", Some(1)); // bank is full
        let own = rival("shop/cart", Some(2));
        assert!(goes_on(&own, &[running.clone(), held_up], &two));
        let able = rival("mail/queue", Some(1));
        assert!(!goes_on(&own, &[running, able], &two));
    }

    #[test]
    fn never_more_than_the_limit_go_on_whatever_the_order_of_looks() {
        let effective = limited(Some(2), Some(3));
        let names = ["a/1", "a/2", "a/3", "b/4", "b/5", "c/6"];
        let mut all: Vec<_> = names
            .iter()
            .zip([5, 1, 4, 2, 2, 3])
            .map(|(name, at)| rival(name, Some(at)))
            .collect();
        // Everybody looks again and again, the last first.
        for _ in 0..3 {
            for index in (0..all.len()).rev() {
                let own = all[index].clone();
                let mut others = all.clone();
                others.remove(index);
                if own.queued_at.is_some() && goes_on(&own, &others, &effective) {
                    all[index].queued_at = None;
                }
            }
        }
        let under_way: Vec<_> = all.iter().filter(|it| it.queued_at.is_none()).collect();
        let names: Vec<_> = under_way.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["2", "4", "5"], "those who asked first");
    }

    #[test]
    fn the_sentence_names_place_policy_and_those_before() {
        let effective = limited(Some(1), None);
        let limits: Vec<_> = limits(&effective).collect();
        let own = rival("shop/cart", Some(9));
        let rivals = [rival("shop/login", None), rival("shop/web", Some(3))];
        let awaited = described(&own, &rivals, &limits[0]);
        assert_eq!(
            awaited.message,
            "place 2 in the queue: policy p allows 1 change of tier high or above at once in this namespace; under way: shop/login; before it: shop/web"
        );
        assert_eq!(awaited.patience, SOON * 2);
    }

    #[test]
    fn limits_reach_the_cluster_where_one_of_them_does() {
        assert_eq!(reach(&effective(&[])), None);
        assert_eq!(reach(&limited(Some(1), None)), Some(Reach::Namespace));
        assert_eq!(reach(&limited(Some(1), Some(2))), Some(Reach::Cluster));
    }

    #[test]
    fn circles_are_found() {
        let depends_on: BTreeMap<String, Vec<String>> = [
            ("a", vec!["b", "x"]),
            ("b", vec!["c", "d"]),
            ("c", vec!["c"]),
            ("d", vec!["a"]),
        ]
        .into_iter()
        .map(|(name, on)| (name.into(), on.into_iter().map(Into::into).collect()))
        .collect();
        assert_eq!(way(&depends_on, "b", "a").unwrap(), ["b", "d", "a"]);
        assert_eq!(way(&depends_on, "a", "a").unwrap(), ["a"]);
        assert_eq!(way(&depends_on, "x", "a"), None);
        assert_eq!(way(&depends_on, "c", "a"), None);
        assert_eq!(
            circle("a", &way(&depends_on, "b", "a").unwrap()),
            "spec.dependsOn goes round in a circle: a, b, d, a"
        );
        assert_eq!(
            circle("a", &way(&depends_on, "a", "a").unwrap()),
            "spec.dependsOn goes round in a circle: a, a"
        );
    }

    fn settled() -> RolloutStatus {
        let available = Condition {
            type_: "Available".into(),
            status: "True".into(),
            reason: "EnoughPods".into(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(second(0)),
        };
        RolloutStatus {
            stable: Some(Revision::default()),
            conditions: vec![available],
            ..RolloutStatus::default()
        }
    }

    fn with(edit: impl FnOnce(&mut Change)) -> RolloutStatus {
        let mut change = Change::default();
        edit(&mut change);
        RolloutStatus {
            change: Some(change),
            ..settled()
        }
    }

    #[test]
    fn stable_is_at_rest_and_available_or_watched() {
        assert_eq!(unsettled(&settled()), None);
        let watched = with(|change| {
            change.outcome = Some(Outcome::Promoted);
            change.watched_until = Some(Time(second(9)));
        });
        assert_eq!(unsettled(&watched), None);
        for (status, why) in [
            (RolloutStatus::default(), "no stable revision"),
            (with(|_| {}), "a change under way"),
            (
                with(|change| change.outcome = Some(Outcome::RolledBack)),
                "was rolled back",
            ),
            (
                with(|change| change.outcome = Some(Outcome::Promoted)),
                "removes the pods",
            ),
            (
                RolloutStatus {
                    conditions: vec![],
                    ..settled()
                },
                "too few available pods",
            ),
        ] {
            let said = unsettled(&status).unwrap();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn others_are_woken_when_a_place_or_a_dependency_becomes_free() {
        let stepping = with(|change| change.stage = Stage::Stepping);
        let rolling_back = with(|change| {
            change.stage = Stage::RollingBack;
            change.outcome = Some(Outcome::RolledBack);
        });
        let rolled_back = with(|change| {
            change.stage = Stage::RolledBack;
            change.outcome = Some(Outcome::RolledBack);
        });
        assert!(!frees(&stepping, &stepping));
        assert!(!frees(&stepping, &rolling_back), "its pods are still there");
        assert!(frees(&rolling_back, &rolled_back));
        assert!(frees(&rolled_back, &settled()));
        assert!(!frees(&settled(), &stepping));
    }
}
