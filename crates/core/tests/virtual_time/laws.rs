//! Each law is seen to break: a decision is made in a real moment of a rollout, one thing in it is
//! changed, and `core::laws` names the law. So none of them holds because it checks nothing.

use countersign_api::policy::Enforcement;
use countersign_api::rollout::{Change, Outcome, Stage};
use countersign_core::decision::{Action, Decision, RoutePatch, TrafficAction, WorkloadAction};
use countersign_core::laws;
use countersign_core::observation::workload::{Edit, Integrity, Service, Unusable};

use super::*;

/// What a decision breaks once it was doctored; undoctored it breaks nothing.
fn broken(world: &mut World, traffic: Rates, doctor: impl FnOnce(&mut Decision)) -> Vec<u8> {
    let mut decision = world.reconcile(&mut steady(5_000.0, traffic.0, traffic.1));
    lawful(world);
    doctor(&mut decision);
    let broken = laws::broken(&world.observation, &decision);
    broken.into_iter().map(|it| it.law).collect()
}

/// Error rates of the canary and of stable.
type Rates = (f64, f64);
const GOOD: Rates = (0.0, 0.0);

fn under_way(decision: &mut Decision) -> &mut Change {
    decision.status.change.as_mut().expect("a change")
}

/// Takes the next step, with its line and its Event.
fn take_a_step(decision: &mut Decision) {
    let change = under_way(decision);
    let step = usize::try_from(change.step).unwrap();
    let next = change.plan.steps.get(step);
    let next = next.map(|next| (Stage::Stepping, next.weight));
    (change.stage, change.weight) = next.unwrap_or((Stage::Promoting, 100));
    change.step += i32::from(step < change.plan.steps.len());
    let line = change.transitions.last().expect("a line").clone();
    change.transitions.push(line);
    let notice = countersign_core::decision::Notice {
        reason: "StepStarted".into(),
        action: String::new(),
        message: String::new(),
        warning: false,
    };
    decision.notices.push(notice);
}

/// A change in its first step, in which so many seconds of its bake are over.
fn stepping(seconds: i64) -> World {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    let mut traffic = steady(5_000.0, 0.0, 0.0);
    assert!(world.run(after(20), &mut traffic, |o| {
        let change = o.status.change.as_ref();
        change.is_some_and(|it| it.step == 1 && it.available_at.is_some())
    }));
    let until = world.observation.now + SignedDuration::from_secs(seconds);
    world.run(until, &mut traffic, |_| false);
    world
}

/// Two Services without a route, on which the first revision serves; `v2` is about to begin.
fn with_services() -> World {
    let mut seen = observation("v1");
    for name in ["web", "web-canary"] {
        let service = Service {
            kind: "ClusterIP".into(),
            selector: [("app".into(), "shop".into())].into(),
        };
        seen.traffic.services.insert(name.into(), Some(service));
    }
    let canary = &mut seen.spec.strategy.canary;
    (canary.stable_service, canary.canary_service) =
        (Some("web".into()), Some("web-canary".into()));
    let mut world = begin(seen);
    assert!(world.run(after(10), &mut steady(1_000.0, 0.0, 0.0), World::at_rest));
    change(&mut world, "v2", harmless());
    world
}

#[test]
pub(super) fn law_1_is_broken_by_a_step_before_its_bake_is_over() {
    assert_eq!(broken(&mut stepping(60), GOOD, take_a_step), [1]);
}

#[test]
pub(super) fn law_1_is_broken_by_a_step_whose_pods_are_not_there() {
    let mut world = stepping(290);
    let change = world.observation.status.change.clone().unwrap();
    for set in &mut world.observation.replica_sets {
        if set.hash == change.pod_template_hash {
            (set.available, set.ready) = (0, 0);
        }
    }
    world.observation.now += SignedDuration::from_secs(20);
    assert!(broken(&mut world, GOOD, take_a_step).contains(&1));
}

#[test]
pub(super) fn law_1_is_broken_by_two_steps_at_once_in_a_pause_and_in_a_freeze() {
    let mut world = stepping(295);
    world.observation.spec.paused = true;
    world.observation.now += SignedDuration::from_secs(20);
    assert_eq!(broken(&mut world, GOOD, take_a_step), [1]);

    let mut world = stepping(295);
    world.observation.people.unreadable_freezes = vec!["Freeze x cannot be read".into()];
    world.observation.now += SignedDuration::from_secs(20);
    assert_eq!(broken(&mut world, GOOD, take_a_step), [1]);

    let mut world = stepping(295);
    world.observation.now += SignedDuration::from_secs(20);
    let twice = |decision: &mut Decision| {
        take_a_step(decision); // the decision takes one of its own
    };
    assert_eq!(broken(&mut world, GOOD, twice), [1]);
}

#[test]
pub(super) fn law_1_is_broken_by_a_canary_with_more_pods_than_its_weight() {
    let grow = |decision: &mut Decision| {
        let hash = under_way(decision).pod_template_hash.clone();
        decision
            .actions
            .push(Action::Workload(WorkloadAction::Scale {
                replica_set: format!("shop-{hash}"),
                replicas: 2,
                revision: 2,
            }));
    };
    assert_eq!(broken(&mut stepping(60), GOOD, grow), [1]);
}

/// For each router, by Services and by subsets.
#[test]
pub(super) fn law_1_is_broken_by_a_share_for_which_there_are_no_pods() {
    for subsets in [None, Some(("v-stable", "v-canary"))] {
        let mut world = super::routes::routed(|_| {});
        change(&mut world, "v2", harmless());
        let mut traffic = steady(5_000.0, 0.0, 0.0);
        assert!(world.run(after(60 * 24 * 10), &mut traffic, |o| {
            o.status.change.as_ref().is_some_and(|it| it.step == 1)
        }));
        let seen = &mut world.observation;
        let backend = |host: &str, subset: Option<&str>, weight: i64| json!({ "destination": { "host": host, "subset": subset }, "weight": weight });
        let (stable, canary) = match subsets {
            Some((stable, canary)) => (
                backend("web", Some(stable), 100),
                backend("web", Some(canary), 0),
            ),
            None => (
                backend("web.shop.svc.cluster.local", None, 100),
                backend("web-canary", None, 0),
            ),
        };
        let route = &mut seen.traffic.routes[0];
        route.reference.kind = countersign_api::RouteKind::VirtualService;
        route.reference.destination_rule =
            subsets.map(|(stable, canary)| countersign_api::traffic::Subsets {
                name: "web".into(),
                stable_subset: stable.into(),
                canary_subset: canary.into(),
            });
        let object = route.object.as_mut().unwrap();
        object.object = json!({ "spec": { "http": [{ "route": [stable, canary] }] } });
        let weight = seen.status.change.as_ref().unwrap().weight;
        for set in &mut seen.replica_sets {
            if set.revision == 2 {
                (set.available, set.ready) = (0, 0);
            }
        }
        let raise = Decision {
            actions: vec![Action::Traffic(TrafficAction::PatchRoute(RoutePatch {
                kind: countersign_api::RouteKind::VirtualService,
                name: "web".into(),
                api_version: String::new(),
                weight,
                operations: vec![],
            }))],
            ..countersign_core::decide(seen)
        };
        let broken = laws::broken(seen, &raise);
        assert!(
            broken.iter().any(|it| it.law == 1),
            "{subsets:?}: {broken:?}"
        );
    }
}

#[test]
pub(super) fn law_2_is_broken_by_a_step_that_nobody_signed() {
    let mut world = serving();
    let mut policy = unattended();
    policy.spec.tiers.low.sign_off = Some(serde_json::from_value(json!([{ "count": 1 }])).unwrap());
    world.observation.policies = vec![policy];
    change(&mut world, "v2", harmless());
    let mut traffic = steady(5_000.0, 0.0, 0.0);
    assert!(world.run(after(20), &mut traffic, |o| {
        o.status.waiting_for.as_deref() == Some("AwaitingSignOff")
    }));
    assert_eq!(broken(&mut world, GOOD, take_a_step), [2]);
    // Nor is it enough that its author signs.
    people::approve(&mut world, "alice", &[]);
    assert_eq!(broken(&mut world, GOOD, take_a_step), [2]);
}

#[test]
pub(super) fn law_2_is_broken_by_a_promotion_without_the_sign_off_that_the_rollout_requires() {
    let mut world = serving();
    let canary = &mut world.observation.spec.strategy.canary;
    canary.promotion_sign_off = serde_json::from_value(json!([{ "groups": ["product"] }])).unwrap();
    change(&mut world, "v2", harmless());
    let mut traffic = steady(5_000.0, 0.0, 0.0);
    assert!(world.run(after(60), &mut traffic, |o| {
        o.status.waiting_for.as_deref() == Some("AwaitingSignOff")
    }));
    let change = world.observation.status.change.as_mut().unwrap();
    change.plan.promotion_sign_off.clear();
    assert_eq!(broken(&mut world, GOOD, take_a_step), [2]);
}

#[test]
pub(super) fn law_3_is_broken_by_a_canary_that_fails_and_stays() {
    let mut world = stepping(60);
    world.observation.now += SignedDuration::from_secs(60);
    let before = world.observation.status.clone();
    let stay = |decision: &mut Decision| decision.status = before;
    assert_eq!(broken(&mut world, (0.4, 0.0), stay), [3]);
}

#[test]
pub(super) fn law_4_is_broken_by_stable_that_gives_up_pods() {
    let world = &mut stepping(60);
    let stable = world.observation.status.stable.clone().unwrap();
    let shrink = |decision: &mut Decision| {
        decision
            .actions
            .push(Action::Workload(WorkloadAction::Scale {
                replica_set: format!("shop-{}", stable.pod_template_hash),
                replicas: 19,
                revision: 1,
            }));
    };
    assert_eq!(broken(world, GOOD, shrink), [4]);
}

#[test]
pub(super) fn law_4_is_broken_by_a_service_that_moves_to_fewer_pods() {
    let mut world = with_services();
    let mut traffic = steady(5_000.0, 0.0, 0.0);
    assert!(world.run(after(30), &mut traffic, |o| {
        o.status
            .change
            .as_ref()
            .is_some_and(|it| it.weight == 25 && it.available_at.is_some())
    }));
    let switch = |decision: &mut Decision| {
        let hash = under_way(decision).pod_template_hash.clone();
        decision
            .actions
            .push(Action::Traffic(TrafficAction::SelectRevision {
                service: "web".into(),
                hash,
            }));
    };
    assert_eq!(broken(&mut world, GOOD, switch), [4]);
    // Stable's pods carry everything until then, though the canary has some.
    let stable = world.observation.status.stable.clone().unwrap();
    let shrink = |decision: &mut Decision| {
        decision
            .actions
            .push(Action::Workload(WorkloadAction::Scale {
                replica_set: format!("shop-{}", stable.pod_template_hash),
                replicas: 5,
                revision: 1,
            }));
    };
    assert!(broken(&mut world, GOOD, shrink).contains(&4));
}

#[test]
pub(super) fn law_6_is_broken_by_a_step_on_no_data_and_by_a_change_to_something_unknown() {
    let mut world = stepping(0);
    let until = world.observation.now + SignedDuration::from_secs(310);
    world.run(until, &mut *uncounted(Uncounted::NoSeries), |_| false);
    let mut decision = world.reconcile(&mut *uncounted(Uncounted::NoSeries));
    lawful(&world);
    take_a_step(&mut decision);
    let broken = laws::broken(&world.observation, &decision);
    let broken: Vec<_> = broken.into_iter().map(|it| it.law).collect();
    assert_eq!(broken, [6]);

    let mut world = serving();
    change(&mut world, "v2", harmless());
    let mut decision = world.reconcile(&mut steady(5_000.0, 0.0, 0.0));
    assert!(decision.status.change.is_some(), "a change begins");
    world.observation.workload = Some(Err(Unusable::Missing));
    decision.actions.clear();
    let broken = laws::broken(&world.observation, &decision);
    assert!(broken.iter().any(|it| it.law == 6), "{broken:?}");
}

#[test]
pub(super) fn law_7_is_broken_by_a_tier_that_falls() {
    let mut world = serving();
    change(&mut world, "v2", risky());
    let mut traffic = steady(5_000.0, 0.0, 0.0);
    assert!(world.run(after(20), &mut traffic, |o| o.status.step.is_some()));
    let ease = |decision: &mut Decision| under_way(decision).tier = Tier::Low;
    assert_eq!(broken(&mut world, GOOD, ease), [7]);
}

#[test]
pub(super) fn law_7_is_broken_by_a_mode_that_changes_and_by_looser_thresholds() {
    let observe = |decision: &mut Decision| under_way(decision).enforcement = Enforcement::Observe;
    assert_eq!(broken(&mut stepping(60), GOOD, observe), [7]);

    let starting = || {
        let mut world = serving();
        world.observation.policies[0].spec.enforcement = Enforcement::Observe;
        change(&mut world, "v2", risky());
        world
    };
    let enforce = |decision: &mut Decision| under_way(decision).enforcement = Enforcement::Enforce;
    assert_eq!(broken(&mut starting(), GOOD, enforce), [7]);
    let loosen = |decision: &mut Decision| under_way(decision).plan.strictness.margin_ratio = 9.0;
    assert_eq!(broken(&mut starting(), GOOD, loosen), [7]);
}

#[test]
pub(super) fn law_8_is_broken_by_another_attempt_that_nobody_requested() {
    let mut world = stepping(60);
    let mut bad = steady(5_000.0, 0.4, 0.0);
    assert!(world.run(after(60), &mut bad, |o| o.status.phase == Phase::Degraded));
    let again = |decision: &mut Decision| {
        let change = under_way(decision);
        change.run.push_str("-again");
        change.outcome = None::<Outcome>;
        change.transitions.clear();
    };
    assert_eq!(broken(&mut world, GOOD, again), [8]);
}

#[test]
pub(super) fn law_9_is_broken_by_a_transition_without_a_line_and_a_line_without_an_event() {
    let taken = || {
        let mut world = stepping(295);
        world.observation.now += SignedDuration::from_secs(20);
        world
    };
    let mut world = taken();
    let before = world.observation.status.change.clone().unwrap();
    let silent = |decision: &mut Decision| {
        assert_eq!(under_way(decision).step, 2, "it takes a step");
        under_way(decision).transitions = before.transitions;
    };
    assert_eq!(broken(&mut world, GOOD, silent), [9]);
    let quiet = |decision: &mut Decision| decision.notices.clear();
    assert_eq!(broken(&mut taken(), GOOD, quiet), [9]);
}

#[test]
fn law_9_is_broken_by_conditions_that_tools_misread() {
    let set = |kind: &'static str, value: &'static str| {
        move |decision: &mut Decision| {
            let mut conditions = decision.status.conditions.iter_mut();
            let condition = conditions.find(|it| it.type_ == kind).unwrap();
            value.clone_into(&mut condition.status);
        }
    };
    let contradict = set("Stalled", "True");
    assert_eq!(broken(&mut stepping(60), GOOD, contradict), [9]);
    let too_early = |decision: &mut Decision| {
        set("Reconciling", "False")(decision);
        set("Ready", "True")(decision);
    };
    assert_eq!(broken(&mut stepping(60), GOOD, too_early), [9]);
    let silent = |decision: &mut Decision| decision.status.conditions.clear();
    assert_eq!(broken(&mut serving(), GOOD, silent), [9]);
}

#[test]
fn law_11_is_broken_by_a_step_beside_an_edited_stable_replica_set() {
    let mut world = stepping(295);
    world.observation.now += SignedDuration::from_secs(20);
    let decision = world.clone().reconcile(&mut steady(5_000.0, 0.0, 0.0));
    assert_eq!(decision.status.change.unwrap().step, 2, "it takes a step");
    for integrity in [
        Integrity::Edited(Edit::default()),
        Integrity::Unverified {
            message: String::new(),
        },
    ] {
        let mut world = world.clone();
        world.observation.replica_sets[0].integrity = integrity;
        assert_eq!(broken(&mut world, GOOD, take_a_step), [11]);
    }
}

#[test]
pub(super) fn law_10_is_broken_by_a_write_to_what_another_rollout_claims() {
    let mut world = with_services();
    world.observation.conflicts = vec!["Rollout other already claims Service web".into()];
    let stable = world.observation.status.stable.clone().unwrap();
    let write = |decision: &mut Decision| {
        decision
            .actions
            .push(Action::Traffic(TrafficAction::SelectRevision {
                service: "web".into(),
                hash: stable.pod_template_hash,
            }));
    };
    assert_eq!(broken(&mut world, GOOD, write), [10]);
}
