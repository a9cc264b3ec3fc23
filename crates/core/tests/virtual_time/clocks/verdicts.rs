//! What each verdict means in each tier, before the deadline and at it.

use countersign_api::rollout::WaitingKind;

use super::*;

/// The built-in policy without people, which makes a tier of every change.
pub(crate) fn always(tier: Tier) -> countersign_core::observation::people::NamedPolicy {
    let mut policy = unattended();
    let from = |it: Tier| Some(if tier >= it { -1_000.0 } else { 1_000.0 });
    let thresholds = &mut policy.spec.risk.thresholds;
    thresholds.medium = from(Tier::Medium);
    thresholds.high = from(Tier::High);
    thresholds.critical = from(Tier::Critical);
    policy
}

/// What is seen of a canary.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    Pass,
    Fail,
    NoData,
    Scarce,
    NoChecks,
    StableAboveCeiling,
    Outdated,
}

/// A verdict, what the first step waits for until the deadline, and by tier what follows it and after how
/// many deadlines.
type Row = (Seen, &'static str, [(&'static str, i64); 4]);

/// The table of docs/analysis.md, "At the deadline": each verdict in each tier, before and after it.
#[test]
pub(crate) fn what_each_verdict_means_in_each_tier_before_and_at_the_deadline() {
    use Seen::{Fail, NoChecks, NoData, Outdated, Pass, Scarce, StableAboveCeiling};
    let tiers = [Tier::Low, Tier::Medium, Tier::High, Tier::Critical];
    let rows: [Row; 7] = [
        (Pass, "", [("StepStarted", 0); 4]),
        (Fail, "", [("AnalysisFailed", -1); 4]),
        (NoData, "NoSeries", [("ProgressDeadlineExceeded", 1); 4]),
        (
            Scarce,
            "AwaitingEvidence",
            [
                ("ScarceEvidenceAccepted", 1),
                ("AwaitingPerson", 1),
                ("AwaitingPerson", 1),
                ("AwaitingPerson", 1),
            ],
        ),
        (
            NoChecks,
            "NoChecks",
            [
                ("StepStarted", 0),
                ("ProgressDeadlineExceeded", 1),
                ("ProgressDeadlineExceeded", 1),
                ("ProgressDeadlineExceeded", 1),
            ],
        ),
        (
            StableAboveCeiling,
            "StableAboveCeiling",
            [("ProgressDeadlineExceeded", 1); 4],
        ),
        (
            Outdated,
            "EvidenceOutdated",
            [("ProgressDeadlineExceeded", 1); 4],
        ),
    ];
    for (seen, held, ends) in rows {
        for (tier, (end, deadlines)) in tiers.into_iter().zip(ends) {
            let mut world = serving();
            let canary = &mut world.observation.spec.strategy.canary;
            let checks = &mut canary.analysis.as_mut().unwrap().checks;
            match seen {
                NoChecks => checks.clear(),
                StableAboveCeiling => checks[0].ceiling = Some(0.05),
                _ => {}
            }
            world.observation.policies = vec![always(tier)];
            change(&mut world, "v2", harmless());
            let row = format!("{seen:?}, {tier:?}");
            let bakes = stage_by_stage(&mut world, seen, held, &row);
            let change = world.observation.status.change.as_ref().unwrap();
            assert_eq!(change.tier, tier, "{row}");
            let now = world.observation.now;
            let took = now.duration_since(bakes).as_secs();
            let expected = deadlines * 600;
            // A window and its lag may come first, and a reconcile may be a minute late.
            let slack = if deadlines < 0 { -3_600..=0 } else { -40..=120 };
            assert!(slack.contains(&(took - expected.max(0))), "{row}: {took} s");
            let reached = if end == "AwaitingPerson" {
                let status = &world.observation.status;
                assert_eq!(status.phase, Phase::AwaitingSignOff);
                assert_eq!(status.waiting_kind, Some(WaitingKind::People), "{row}");
                waits_for(&world).unwrap().to_owned()
            } else {
                let lines = change.transitions.iter();
                let ends = ["StepStarted", "RolledBack", "CountsNot"];
                let mut lines = lines.rev().map(|it| it.reason.as_str());
                let last = lines.find(|it| !ends[1..].contains(it)).unwrap();
                match (last, lines.next()) {
                    ("StepStarted", Some("ScarceEvidenceAccepted")) => {
                        "ScarceEvidenceAccepted".into()
                    }
                    (last, _) => last.to_owned(),
                }
            };
            assert_eq!(reached, end, "{row}");
            lawful(&world);
        }
    }
}

/// Runs a change until its first step is over, one way or the other; returns when its bake was.
fn stage_by_stage(world: &mut World, seen: Seen, held: &str, row: &str) -> Timestamp {
    let mut traffic: Box<dyn FnMut(Timestamp, f64) -> WindowOutcome> = match seen {
        Seen::Fail => Box::new(steady(5_000.0, 0.3, 0.0)),
        Seen::NoData => uncounted(Uncounted::NoSeries),
        Seen::Scarce => Box::new(steady(1.0, 0.0, 0.0)),
        Seen::StableAboveCeiling => Box::new(steady(50_000.0, 0.2, 0.2)),
        _ => Box::new(steady(50_000.0, 0.0, 0.0)),
    };
    let over = |o: &Observation| {
        let change = o.status.change.as_ref();
        change.is_some_and(|it| it.step > 1 || it.outcome.is_some())
            || o.status.phase == Phase::AwaitingSignOff
    };
    let served = |o: &Observation| {
        let change = o.status.change.as_ref();
        change.is_some_and(|it| it.step == 1 && it.available_at.is_some())
    };
    let until = minutes_on(world, 30);
    assert!(world.run(until, &mut *traffic, served), "{row}");
    let change = world.observation.status.change.clone().unwrap();
    let bake = change.plan.steps[0].bake.signed();
    let bakes = change.available_at.unwrap().0 + bake;
    if seen == Seen::Outdated {
        // Its windows are counted to the end of the bake, and none after that.
        world.run(bakes, &mut *traffic, |_| false);
        let mut waits = std::collections::BTreeSet::new();
        while !over(&world.observation) {
            world.observation.now += SignedDuration::from_secs(30);
            world.observation.analysis.windows.clear();
            let decision = decide::decide(&world.observation);
            world
                .broken
                .extend(laws::broken(&world.observation, &decision));
            world.observation.status = decision.status;
            waits.extend(world.observation.status.waiting_for.clone());
            assert!(world.observation.now < minutes_on(world, 60), "{row}");
        }
        assert!(waits.contains(held), "{row}: {waits:?}");
        return bakes;
    }
    let until = bakes + SignedDuration::from_secs(300);
    world.run(until, &mut *traffic, over);
    if !held.is_empty() && !over(&world.observation) {
        assert_eq!(waits_for(world), Some(held), "{row}");
    }
    let until = minutes_on(world, 60);
    assert!(world.run(until, &mut *traffic, over), "{row}");
    bakes
}
