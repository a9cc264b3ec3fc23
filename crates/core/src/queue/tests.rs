use std::collections::BTreeMap;

use countersign_api::policy::Concurrency;
use countersign_api::rollout::{Change, Outcome, Revision, RolloutStatus, Stage};
use countersign_api::step::Tier;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::intervals::POLL_INTERVAL;
use crate::observation::people::ConcurrentChange;
use crate::policy::{Effective, effective};
use crate::queue::concurrency::{Reach, described, full, limits, reach};
use crate::queue::dependencies::{cycle_message, dependency_path, unsettled};
use crate::queue::wake::releases_slot;

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A change of tier high in `namespace/name`, governed by policy `p`.
fn concurrent_change(name: &str, queued_at: Option<i64>) -> ConcurrentChange {
    let (namespace, name) = name.split_once('/').unwrap();
    ConcurrentChange {
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

fn goes_on(
    own: &ConcurrentChange,
    concurrent_changes: &[ConcurrentChange],
    effective: &Effective,
) -> bool {
    let limits: Vec<_> = limits(effective).collect();
    full(own, concurrent_changes, &limits).is_none()
}

#[test]
fn the_first_queued_goes_first() {
    let one = limited(Some(1), None);
    let own = concurrent_change("shop/cart", Some(2));
    assert!(goes_on(&own, &[], &one));
    assert!(!goes_on(&own, &[concurrent_change("shop/web", None)], &one));
    assert!(goes_on(&own, &[concurrent_change("bank/web", None)], &one));
    assert!(!goes_on(
        &own,
        &[concurrent_change("shop/web", Some(1))],
        &one
    ));
    assert!(goes_on(
        &own,
        &[concurrent_change("shop/web", Some(3))],
        &one
    ));
    // Of two of one moment just one goes.
    let same = concurrent_change("shop/web", Some(2));
    assert!(goes_on(&own, std::slice::from_ref(&same), &one));
    assert!(!goes_on(&same, &[own], &one));
}

#[test]
fn only_changes_of_the_tier_that_the_policy_governs_count() {
    let one = limited(None, Some(1));
    let own = concurrent_change("shop/cart", Some(2));
    let mut harmless = concurrent_change("shop/web", None);
    harmless.tier = Tier::Medium;
    let mut ungoverned = concurrent_change("shop/web", None);
    ungoverned.policies = vec![];
    assert!(goes_on(&own, &[harmless, ungoverned], &one));
    assert!(!goes_on(&own, &[concurrent_change("bank/web", None)], &one));
}

#[test]
fn one_that_is_held_up_by_another_limit_keeps_no_place_for_itself() {
    let two = limited(Some(1), Some(2));
    let running = concurrent_change("bank/login", None);
    let held_up = concurrent_change("bank/ledger", Some(1)); // bank is full
    let own = concurrent_change("shop/cart", Some(2));
    assert!(goes_on(&own, &[running.clone(), held_up], &two));
    let able = concurrent_change("mail/queue", Some(1));
    assert!(!goes_on(&own, &[running, able], &two));
}

#[test]
fn never_more_than_the_limit_are_under_way_whatever_the_order_of_reconciles() {
    let effective = limited(Some(2), Some(3));
    let names = ["a/1", "a/2", "a/3", "b/4", "b/5", "c/6"];
    let mut all: Vec<_> = names
        .iter()
        .zip([5, 1, 4, 2, 2, 3])
        .map(|(name, at)| concurrent_change(name, Some(at)))
        .collect();
    // All are reconciled repeatedly, the last first.
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
    assert_eq!(names, ["2", "4", "5"], "those queued first");
}

#[test]
fn the_sentence_names_place_policy_and_those_before() {
    let effective = limited(Some(1), None);
    let limits: Vec<_> = limits(&effective).collect();
    let own = concurrent_change("shop/cart", Some(9));
    let concurrent_changes = [
        concurrent_change("shop/login", None),
        concurrent_change("shop/web", Some(3)),
    ];
    let awaited = described(&own, &concurrent_changes, &limits[0]);
    assert_eq!(
        awaited.message,
        "place 2 in the queue: policy p allows 1 change of tier high or above at once in this namespace; under way: shop/login; before it: shop/web"
    );
    assert_eq!(awaited.requeue_after, POLL_INTERVAL * 2);
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
    assert_eq!(
        dependency_path(&depends_on, "b", "a").unwrap(),
        ["b", "d", "a"]
    );
    assert_eq!(dependency_path(&depends_on, "a", "a").unwrap(), ["a"]);
    assert_eq!(dependency_path(&depends_on, "x", "a"), None);
    assert_eq!(dependency_path(&depends_on, "c", "a"), None);
    assert_eq!(
        cycle_message("a", &dependency_path(&depends_on, "b", "a").unwrap()),
        "spec.dependsOn is a cycle: a, b, d, a"
    );
    assert_eq!(
        cycle_message("a", &dependency_path(&depends_on, "a", "a").unwrap()),
        "spec.dependsOn is a cycle: a, a"
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
        let message = unsettled(&status).unwrap();
        assert!(message.contains(why), "{message}");
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
    assert!(!releases_slot(&stepping, &stepping));
    assert!(
        !releases_slot(&stepping, &rolling_back),
        "its pods are still there"
    );
    assert!(releases_slot(&rolling_back, &rolled_back));
    assert!(releases_slot(&rolled_back, &settled()));
    assert!(!releases_slot(&settled(), &stepping));
}
