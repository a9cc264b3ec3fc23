//! Clocks: what counts as progress, and which deadline runs during which hold.

mod progress;
mod verdicts;

use countersign_api::rollout::Stage;
use countersign_core::laws;
use countersign_core::people::sign_off;
use countersign_core::rollout::decide;

use super::evidence::{BURNING, HEALTHY, stands, with_objective};
use super::people::{approve, command, go_on, minutes_on, requiring, step, waits_for};
use super::*;

pub(crate) use progress::*;
pub(crate) use verdicts::*;

/// A world in which v1 serves with so many pods, of which one more at a time may be replaced.
fn crowded(replicas: i32, surge: i32, deadline: i32) -> World {
    let mut first = observation("v1");
    first.spec.replicas = replicas;
    first.spec.progress_deadline_seconds = deadline;
    let canary = &mut first.spec.strategy.canary;
    canary.max_surge = k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(surge);
    let mut world = begin(first);
    assert!(world.run(after(20), &mut steady(1_000.0, 0.0, 0.0), World::at_rest));
    world
}

fn rolled_back_or_promoted(o: &Observation) -> bool {
    o.status.phase == Phase::Degraded || (World::at_rest(o) && o.status.revision == 2)
}

fn stage(world: &World) -> Stage {
    world.observation.status.change.as_ref().unwrap().stage
}

fn at(o: &Observation, reason: &str) -> Timestamp {
    let change = o.status.change.as_ref().unwrap();
    let line = change.transitions.iter().find(|line| line.reason == reason);
    let line = line.unwrap_or_else(|| panic!("{reason} in {:?}", change.transitions));
    line.at.as_ref().unwrap().0
}

/// One step, of half of the traffic, with this bake.
fn halves(world: &mut World, bake: &str) {
    let canary = &mut world.observation.spec.strategy.canary;
    canary.steps = serde_json::from_value(json!([{ "weight": 50, "bake": bake }])).unwrap();
}

/// Finding F13: the team's own deadline does not decide when a tier promotes on scarce evidence.
#[test]
pub(super) fn a_short_progress_deadline_makes_scarce_evidence_no_better() {
    let mut world = crowded(20, 20, 30);
    change(&mut world, "v2", harmless());
    let scarce = |world: &mut World, minutes| {
        let until = minutes_on(world, minutes);
        world.run(until, &mut steady(1.0, 0.0, 0.0), |_| false);
        lawful(world);
        (step(world), waits_for(world).map(ToOwned::to_owned))
    };
    let awaiting = Some("AwaitingEvidence".to_owned());
    assert_eq!(scarce(&mut world, 7), (1, awaiting.clone()));
    assert_eq!(
        scarce(&mut world, 6),
        (1, awaiting),
        "its bake ended 8 minutes ago"
    );
    assert_eq!(scarce(&mut world, 5).0, 2);
}

/// While people are waited for, one error after hours makes what had passed scarce (FOUND.md C6).
#[test]
pub(super) fn evidence_that_becomes_scarce_after_a_long_sign_off_wait_has_its_whole_time() {
    use countersign_api::policy::OnScarceEvidence;
    for (on_scarce, loses_a_pod) in [
        (OnScarceEvidence::RollBack, false),
        (OnScarceEvidence::Hold, false),
        (OnScarceEvidence::RollBack, true),
    ] {
        let mut world = serving();
        let mut policy = unattended();
        let low = &mut policy.spec.tiers.low;
        low.promotion_sign_off = Some(serde_json::from_value(json!([{ "count": 1 }])).unwrap());
        low.on_scarce_evidence = Some(on_scarce);
        world.observation.policies = vec![policy];
        halves(&mut world, "5m");
        change(&mut world, "v2", harmless());
        let awaits_sign_off = |o: &Observation| o.status.phase == Phase::AwaitingSignOff;
        let until = minutes_on(&world, 60);
        assert!(world.run(until, &mut steady(40.0, 0.0, 0.0), awaits_sign_off));
        let until = minutes_on(&world, 60);
        world.run(until, &mut steady(1.0, 0.0, 0.0), |_| false);
        assert_eq!(waits_for(&world), Some("AwaitingSignOff"));
        if loses_a_pod {
            let canary = &mut world.observation.replica_sets[1];
            (canary.available, canary.ready) = (canary.available - 1, canary.ready - 1);
            world.pods_ready_after = None;
            let until = minutes_on(&world, 1);
            world.run(until, &mut steady(40.0, 0.05, 0.0), |_| false);
            assert_eq!(waits_for(&world), Some("AwaitingPods"));
            let canary = &mut world.observation.replica_sets[1];
            (canary.available, canary.ready) = (canary.replicas, canary.replicas);
        }
        // One error now and then on the canary's side: nothing to roll back for, too little to continue by.
        let mut errors = steady(40.0, 0.05, 0.0);
        let scarce = |o: &Observation| o.status.waiting_for.as_deref() == Some("AwaitingEvidence");
        let until = minutes_on(&world, 30);
        assert!(world.run(until, &mut errors, scarce), "{on_scarce:?}");
        let since = world.observation.now;
        let over = |o: &Observation| o.status.waiting_for.as_deref() != Some("AwaitingEvidence");
        let until = minutes_on(&world, 60);
        world.run(until, &mut steady(1.0, 0.0, 0.0), over);
        let took = world.observation.now.duration_since(since).as_secs();
        let least = if loses_a_pod { 510 } else { 570 };
        assert!(took >= least, "{on_scarce:?}: {took} s");
        lawful(&world);
    }
}

/// A budget that burns and holds is a requested hold: no clock runs meanwhile, and all do after it
/// (FOUND.md C7).
#[test]
pub(super) fn no_requested_hold_uses_up_the_deadline_of_what_follows_it() {
    type Requested = fn(&mut World, bool);
    let wishes: [(&str, Requested); 4] = [
        ("ErrorBudgetBurn", |world, on| {
            let rates = if on { BURNING } else { HEALTHY };
            stands(world, rates);
        }),
        ("Paused", |world, on| world.observation.spec.paused = on),
        ("Frozen", |world, on| {
            let freezes = on.then(|| super::people::freeze(|_| {}));
            world.observation.people.freezes = freezes.into_iter().collect();
        }),
        ("ScaledToZero", |world, on| {
            world.observation.spec.replicas = if on { 0 } else { 20 };
        }),
    ];
    for (reason, wish) in wishes {
        for after_it in ["pods", "data", "evidence"] {
            let mut world = with_objective("Hold");
            change(&mut world, "v2", harmless());
            let in_step = |o: &Observation| {
                let change = o.status.change.as_ref();
                change.is_some_and(|it| it.step == 1 && it.available_at.is_some())
            };
            let until = minutes_on(&world, 30);
            assert!(world.run(until, &mut steady(5_000.0, 0.0, 0.0), in_step));
            wish(&mut world, true);
            let until = minutes_on(&world, 60);
            world.run(until, &mut steady(5_000.0, 0.0, 0.0), |_| false);
            assert_eq!(waits_for(&world), Some(reason));
            wish(&mut world, false);
            let mut traffic: Box<dyn FnMut(Timestamp, f64) -> WindowOutcome> = match after_it {
                "data" => uncounted(Uncounted::NoSeries),
                "evidence" => Box::new(steady(1.0, 0.0, 0.0)),
                _ => Box::new(steady(5_000.0, 0.0, 0.0)),
            };
            if after_it == "pods" {
                lose_pods(&mut world, 1);
            }
            let until = minutes_on(&world, 9);
            world.run(until, &mut *traffic, |_| false);
            let change = world.observation.status.change.as_ref().unwrap();
            assert_eq!(change.outcome, None, "{reason}, {after_it}");
            lawful(&world);
        }
    }
}

/// Takes so many pods of the canary, which do not come back until they are given.
fn lose_pods(world: &mut World, number: i32) {
    let hash = world.observation.status.change.as_ref().unwrap();
    let hash = hash.pod_template_hash.clone();
    let mut sets = world.observation.replica_sets.iter_mut();
    let set = sets.find(|set| set.hash == hash).unwrap();
    set.available = (set.available - number).max(0);
    set.ready = set.available;
}

fn give_pods(world: &mut World) {
    for set in &mut world.observation.replica_sets {
        set.available = set.replicas;
        set.ready = set.replicas;
    }
}

/// Waiting for evidence has a clock of its own (FOUND.md L8).
#[test]
pub(super) fn pods_that_are_missing_after_a_long_wait_for_evidence_have_their_whole_time() {
    let mut world = serving();
    let mut policy = unattended();
    policy.spec.tiers.low.on_scarce_evidence =
        Some(countersign_api::policy::OnScarceEvidence::RollBack);
    world.observation.policies = vec![policy];
    halves(&mut world, "5m");
    change(&mut world, "v2", harmless());
    let scarce = |o: &Observation| o.status.waiting_for.as_deref() == Some("AwaitingEvidence");
    let until = minutes_on(&world, 60);
    assert!(world.run(until, &mut steady(1.0, 0.0, 0.0), scarce));
    let until = minutes_on(&world, 8);
    world.run(until, &mut steady(1.0, 0.0, 0.0), |_| false);
    lose_pods(&mut world, 1);
    let until = minutes_on(&world, 5);
    world.run(until, &mut steady(1.0, 0.0, 0.0), |_| false);
    assert_eq!(waits_for(&world), Some("AwaitingPods"));
    give_pods(&mut world);
    // What had run of the evidence's clock had run: it continues where it stood.
    let began = world.observation.now;
    let until = minutes_on(&world, 60);
    assert!(world.run(until, &mut steady(1.0, 0.0, 0.0), |o| {
        o.status.phase == Phase::Degraded
    }));
    let took = world.observation.now.duration_since(began).as_secs();
    assert!((30..=150).contains(&took), "{took} s");
    lawful(&world);
}

/// Two gates for people, each with its own two hours (FOUND.md C9).
#[test]
pub(super) fn each_gate_for_people_has_its_own_time() {
    let mut world = serving();
    let mut policy = unattended();
    let low = &mut policy.spec.tiers.low;
    low.on_scarce_evidence = Some(countersign_api::policy::OnScarceEvidence::Hold);
    low.promotion_sign_off = Some(serde_json::from_value(json!([{ "count": 1 }])).unwrap());
    low.wait_at_most = Some(Duration::seconds(2 * 3_600));
    world.observation.policies = vec![policy];
    halves(&mut world, "1m");
    change(&mut world, "v2", harmless());
    let mut quiet = steady(1.0, 0.0, 0.0);
    let until = minutes_on(&world, 60);
    let waits = |reason: &'static str| {
        move |o: &Observation| o.status.waiting_for.as_deref() == Some(reason)
    };
    assert!(world.run(until, &mut quiet, waits("AwaitingPerson")));
    let due = sign_off::deadline(&world.observation.status).unwrap();
    let left = due.duration_since(world.observation.now).as_mins();
    assert!((118..=120).contains(&left), "{left} min");
    let until = minutes_on(&world, 100);
    assert!(!world.run(until, &mut quiet, |o| o.status.phase == Phase::Degraded));
    let step = world.observation.status.change.as_ref().unwrap().step;
    super::people::sign(&mut world, super::people::person("bob", &[]), |spec| {
        spec.gate = Some(format!("evidence-{step}"));
    });
    let until = minutes_on(&world, 10);
    assert!(
        world.run(until, &mut quiet, waits("AwaitingSignOff")),
        "{}",
        world.observation.status.message
    );
    let since = world.observation.now;
    let due = sign_off::deadline(&world.observation.status).unwrap();
    let until = minutes_on(&world, 180);
    assert!(world.run(until, &mut quiet, |o| o.status.phase == Phase::Degraded));
    let took = world.observation.now.duration_since(since).as_mins();
    let late = world.observation.now.duration_since(due).as_mins();
    assert!((0..=2).contains(&late), "{late} min after {due}");
    assert_eq!(sign_off::deadline(&world.observation.status), None);
    let transitions = &world
        .observation
        .status
        .change
        .as_ref()
        .unwrap()
        .transitions;
    assert!((118..=122).contains(&took), "{took} min: {transitions:?}");
    lawful(&world);
}

#[test]
pub(super) fn a_sign_off_that_a_policy_adds_now_has_the_whole_deadline() {
    let hours = |world: &mut World, hours: i64| go_on(world, hours * 60);
    let day = |spec: &mut RolloutPolicySpec| {
        spec.tiers.low.wait_at_most = Some(Duration::seconds(24 * 3_600));
    };
    let mut world = serving();
    world.observation.policies = vec![requiring(&[(1, &[])], day)];
    change(&mut world, "v2", harmless());
    hours(&mut world, 23);
    assert_eq!(waits_for(&world), Some("AwaitingSignOff"));
    let mut tightened = requiring(&[(1, &[]), (1, &["security"])], day);
    tightened.generation = 2;
    world.observation.policies = vec![tightened];
    hours(&mut world, 23);
    assert_eq!(waits_for(&world), Some("AwaitingSignOff"));
    hours(&mut world, 2);
    assert_eq!(world.observation.status.phase, Phase::Degraded);
}

/// The fortieth command was a pause that nothing could end; after more no pause took effect (FOUND.md C8).
#[test]
pub(super) fn a_pause_and_its_end_are_applied_however_many_there_were() {
    use countersign_api::intervention::InterventionAction::{Pause, Promote, Resume};
    for (first, rounds) in [(1, 20), (3, 100)] {
        let mut world = serving();
        change(&mut world, "v2", harmless());
        go_on(&mut world, 2);
        let reconcile = |world: &mut World| {
            let decision = world.reconcile(&mut steady(5_000.0, 0.0, 0.0));
            world.carry_out(&decision, usize::MAX);
        };
        for _ in 0..first {
            command(&mut world, "dave", Promote);
            reconcile(&mut world);
        }
        let paused = |world: &World| {
            let change = world.observation.status.change.as_ref();
            change.unwrap().paused_by.is_some()
        };
        for round in 0..rounds {
            command(&mut world, "alice", Pause);
            reconcile(&mut world);
            assert!(paused(&world), "{first}, {round}");
            command(&mut world, "alice", Resume);
            reconcile(&mut world);
            assert!(!paused(&world), "{first}, {round}");
        }
        // Nor do ignored commands keep a pause from taking effect.
        for _ in 0..200 {
            command(&mut world, "alice", Resume);
            reconcile(&mut world);
        }
        command(&mut world, "alice", Pause);
        reconcile(&mut world);
        assert!(paused(&world), "{first}, {rounds}");
        let unanswered = world.observation.people.interventions.iter();
        assert_eq!(unanswered.filter(|it| !it.answered).count(), 0);
        let change = world.observation.status.change.as_ref().unwrap();
        assert!(change.handled_requests.len() <= 256 && change.ignored_requests.len() <= 256);
        lawful(&world);
    }
}

/// No step is ever without its line, whatever people have done before (FOUND.md M6).
#[test]
pub(super) fn many_signatures_on_a_long_plan_leave_room_for_every_step() {
    let mut world = serving();
    let steps: Vec<_> = (1..=50).map(|it| json!({ "weight": 2 * it - 1 })).collect();
    world.observation.spec.strategy.canary.steps = serde_json::from_value(json!(steps)).unwrap();
    world.observation.policies = vec![requiring(&[(200, &[])], |spec| {
        spec.tiers.low.steps.iter_mut().for_each(|step| {
            step.bake = Duration::default();
        });
    })];
    change(&mut world, "v2", harmless());
    go_on(&mut world, 1);
    for user in 0..200 {
        approve(&mut world, &format!("user-{user}"), &[]);
        if user % 20 == 0 {
            go_on(&mut world, 1);
        }
    }
    let until = minutes_on(&world, 60 * 24);
    let mut transitions = Vec::new();
    assert!(
        world.run(until, &mut steady(50_000.0, 0.0, 0.0), |o| {
            if let Some(change) = &o.status.change {
                transitions.clone_from(&change.transitions);
            }
            rolled_back_or_promoted(o)
        }),
        "{}: {}",
        step(&world),
        world.observation.status.message
    );
    lawful(&world);
    let steps = transitions
        .iter()
        .filter(|it| it.reason == "StepStarted")
        .count();
    assert_eq!(steps, 50);
    assert!(transitions.len() <= 256, "{}", transitions.len());
    assert_eq!(stable_image(&world), "example.org/shop:v2");
}

/// Bake and warm-up count the time in which the pods were there (FOUND.md L2).
#[test]
pub(super) fn a_bake_stands_still_while_its_pods_are_missing() {
    for (lost, minutes) in [("one", 7), ("all", 7), ("idle", 30)] {
        let mut world = serving();
        halves(&mut world, "20m");
        change(&mut world, "v2", harmless());
        let in_step = |o: &Observation| {
            let change = o.status.change.as_ref();
            change.is_some_and(|it| it.step == 1 && it.available_at.is_some())
        };
        let mut traffic = steady(5_000.0, 0.0, 0.0);
        let until = minutes_on(&world, 30);
        assert!(world.run(until, &mut traffic, in_step));
        let began = world.observation.now;
        let until = minutes_on(&world, 2);
        world.run(until, &mut traffic, |_| false);
        match lost {
            "one" => lose_pods(&mut world, 1),
            "all" => lose_pods(&mut world, 20),
            _ => world.observation.spec.replicas = 0,
        }
        let until = minutes_on(&world, minutes);
        world.run(until, &mut traffic, |_| false);
        if lost == "idle" {
            world.observation.spec.replicas = 20;
        } else {
            give_pods(&mut world);
        }
        let until = minutes_on(&world, 60);
        assert!(world.run(until, &mut traffic, |o| {
            let change = o.status.change.as_ref();
            change.is_none_or(|it| it.stage != Stage::Stepping)
        }));
        lawful(&world);
        let change = world.observation.status.change.as_ref().unwrap();
        assert_eq!(change.outcome, None, "{lost}: {:?}", change.transitions);
        let took = world.observation.now.duration_since(began).as_mins();
        let least = 20 + minutes;
        assert!((least..=least + 2).contains(&took), "{lost}: {took} min");
    }
}

/// New pods are cold, also those that come after all were lost in mid-step.
#[test]
pub(super) fn pods_that_come_after_all_were_lost_warm_up_from_their_beginning() {
    let mut world = serving();
    halves(&mut world, "20m");
    let canary = &mut world.observation.spec.strategy.canary;
    canary.analysis.as_mut().unwrap().warm_up = Some(Duration::seconds(600));
    change(&mut world, "v2", harmless());
    let mut traffic = steady(5_000.0, 0.0, 0.0);
    let until = minutes_on(&world, 14);
    world.run(until, &mut traffic, |_| false);
    world.observation.spec.replicas = 0;
    let until = minutes_on(&world, 30);
    world.run(until, &mut traffic, |_| false);
    world.observation.spec.replicas = 20;
    let back = world.observation.now;
    // Six minutes of the bake are left; the windows of the first ten minutes count for a rollback alone.
    let step_windows = |o: &Observation| {
        let change = o.status.change.as_ref().unwrap();
        change.evidence.checks[0].step_windows
    };
    let before = step_windows(&world.observation);
    let until = back + SignedDuration::from_secs(330);
    world.run(until, &mut traffic, |_| false);
    assert_eq!(stage(&world), Stage::Stepping);
    assert_eq!(step_windows(&world.observation), before);
    lawful(&world);
    let until = minutes_on(&world, 60);
    assert!(world.run(until, &mut traffic, rolled_back_or_promoted));
    assert_eq!(stable_image(&world), "example.org/shop:v2");
}

/// Who wrote what was never promoted is behind what replaces it (FOUND.md L6).
#[test]
pub(super) fn law_2_who_wrote_a_change_that_was_replaced_does_not_sign_the_next() {
    let ways = [
        "superseded",
        "rolled back",
        "two in one reconcile",
        "a conflict passes",
    ];
    for ended in ways {
        let mut world = serving();
        world.observation.policies = vec![requiring(&[(1, &[])], |_| {})];
        let by = |version: &str, stamp: &str, world: &mut World| {
            let mut annotations = harmless();
            annotations.insert(CHANGED_BY.into(), stamp.into());
            if version == "v2" {
                annotations.extend(super::annotations(&[("authors", "carol")]));
            }
            change(world, version, annotations);
        };
        if ended == "two in one reconcile" {
            by("v3", "mallory\npipeline", &mut world);
        } else {
            by("v2", "mallory", &mut world);
            go_on(&mut world, 2);
            if ended == "rolled back" {
                command(
                    &mut world,
                    "alice",
                    countersign_api::intervention::InterventionAction::Abort,
                );
                go_on(&mut world, 2);
            }
            by("v3", "pipeline", &mut world);
        }
        if ended == "a conflict passes" {
            let conflict = "Rollout api already claims Service api (spec.strategy.canary)";
            world.observation.conflicts = vec![conflict.into()];
            go_on(&mut world, 3);
            assert_eq!(waits_for(&world), Some("Conflict"));
            world.observation.conflicts.clear();
        }
        go_on(&mut world, 3);
        let users: &[&str] = match ended {
            "two in one reconcile" => &["mallory", "pipeline"],
            _ => &["mallory", "carol", "pipeline"],
        };
        for user in users {
            approve(&mut world, user, &[]);
            go_on(&mut world, 2);
            assert_eq!(step(&world), 0, "{ended}: {user}");
        }
        approve(&mut world, "bob", &[]);
        go_on(&mut world, 60);
        assert_eq!(stable_image(&world), "example.org/shop:v3");

        // What was promoted is over: its people may sign what follows.
        by("v4", "pipeline", &mut world);
        go_on(&mut world, 3);
        approve(&mut world, "mallory", &[]);
        go_on(&mut world, 2);
        assert_eq!(step(&world), 1, "{ended}");
    }
}

const CHANGED_BY: &str = countersign_api::CHANGED_BY_ANNOTATION;
