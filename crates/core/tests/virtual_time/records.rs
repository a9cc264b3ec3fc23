//! Which records of changes are kept, and what is remembered without them.

use countersign_api::policy::History;
use countersign_api::rollout::{Outcome, Stage};
use countersign_api::{Duration, RolloutRunSpec};
use countersign_core::decide;
use countersign_core::decision::{Action, HistoryAction};
use countersign_core::observation::Observation;
use countersign_core::observation::workload::PastRun;
use countersign_core::simulation::world::World;
use k8s_openapi::jiff::SignedDuration;

use crate::{after, begin, change, harmless, lawful, observation, serving, steady};

/// Long after everything has ended.
const DAYS: i64 = 60 * 24 * 10;

#[test]
fn law_7_a_rollback_is_remembered_without_its_record() {
    let mut first = observation("v1");
    first.spec.revision_history_limit = 0;
    let mut world = begin(first);
    assert!(world.run(after(10), &mut steady(5_000.0, 0.0, 0.0), World::at_rest));
    change(&mut world, "v2", harmless());
    let rejected = |seen: &Observation| {
        let change = seen.status.change.as_ref();
        change.is_some_and(|it| it.stage == Stage::RolledBack)
    };
    assert!(world.run(after(DAYS), &mut steady(5_000.0, 0.3, 0.0), rejected));
    let rolled_back_at = world.observation.status.last_rollback_at.clone();
    assert!(rolled_back_at.is_some());
    change(&mut world, "v1", harmless());
    let rolled_back = |run: &PastRun| run.outcome == Some(Outcome::RolledBack);
    let forgotten = |seen: &Observation| {
        seen.status.change.is_none() && !seen.history().iter().any(rolled_back)
    };
    assert!(
        world.run(after(DAYS), &mut steady(5_000.0, 0.0, 0.0), forgotten),
        "its record is removed: {:?}",
        world.observation.history
    );
    change(&mut world, "v3", harmless());
    let begun = |seen: &Observation| seen.status.change.is_some();
    assert!(world.run(after(DAYS), &mut steady(5_000.0, 0.0, 0.0), begun));
    let status = &world.observation.status;
    assert!(status.change.as_ref().unwrap().after_rollback);
    assert_eq!(status.last_rollback_at, rolled_back_at);
    lawful(&world);
}

/// A Rollout with records of this many changes, one an hour, of which it keeps two.
fn with_records(count: i64) -> Observation {
    let mut seen = serving().observation;
    let run = |age: i64| {
        let at = seen.now.checked_sub(SignedDuration::from_mins(60 * age));
        let at = Some(at.unwrap());
        PastRun {
            started_at: at,
            ended_at: at,
            outcome: Some(Outcome::Superseded),
            ..PastRun::of(&age.to_string(), &RolloutRunSpec::default())
        }
    };
    seen.history = Some(Ok((0..count).map(run).collect()));
    seen.spec.revision_history_limit = 2;
    seen
}

/// The ages of the records that are removed, in hours.
fn removed(seen: &Observation, runs: i32, keep_for: Option<Duration>) -> Vec<i64> {
    let mut seen = seen.clone();
    let runs = Some(runs);
    seen.policies[0].spec.history = History { runs, keep_for };
    let actions = decide(&seen).actions.into_iter();
    let removed = actions.filter_map(|action| match action {
        Action::History(HistoryAction::DeleteRun { run }) => run.parse().ok(),
        _ => None,
    });
    let mut removed: Vec<i64> = removed.collect();
    removed.sort_unstable();
    removed
}

#[test]
fn a_policy_keeps_more_records_than_the_rollout() {
    let seen = with_records(20);
    let hours = |hours: u64| Some(Duration::minutes(60 * hours));
    assert_eq!(removed(&seen, 0, None), (2..20).collect::<Vec<_>>());
    assert_eq!(removed(&seen, 5, None), (5..20).collect::<Vec<_>>());
    assert_eq!(removed(&seen, 0, hours(10)), (10..20).collect::<Vec<_>>());
    assert_eq!(removed(&seen, 12, hours(10)), (12..20).collect::<Vec<_>>());
    let mut unknown = seen;
    unknown.unreadable_policies = vec!["RolloutPolicy x cannot be read".into()];
    assert_eq!(removed(&unknown, 0, None), [0_i64; 0]);
}

/// So that a Rollout that is deleted and made again is asked like a change of it.
#[test]
fn a_record_outlives_its_rollout_by_a_week_or_as_long_as_a_policy_says() {
    let mut world = serving();
    change(&mut world, "v2", harmless());
    let kept = |seen: &Observation| decide(seen).record.unwrap().keep_for;
    let hours = |hours: u64| Duration::minutes(60 * hours);
    assert_eq!(kept(&world.observation), hours(7 * 24));
    for own in [1, 2_160] {
        world.observation.policies[0].spec.history.keep_for = Some(hours(own));
        assert_eq!(kept(&world.observation), hours(own));
    }
}

#[test]
fn beyond_a_thousand_records_the_oldest_are_removed_however_long_they_are_kept() {
    let seen = with_records(1_010);
    let ever = Some(Duration::minutes(60 * 99_999));
    assert_eq!(removed(&seen, 0, ever), (1_000..1_010).collect::<Vec<_>>());
}
