//! Records with known figures.

use countersign_api::{Duration, RolloutRun};
use countersign_core::estimate::odds::Finding;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::deployment::{Deployment, deployments};
use super::{By, Delivery, csv, render};

fn start() -> Timestamp {
    "2026-11-01T00:00:00Z".parse().unwrap()
}

fn at(minute: i64) -> Timestamp {
    start() + SignedDuration::from_mins(minute)
}

/// A record whose transitions are a minute, a weight and a reason each; its template has the revision's number.
fn run(revision: i64, outcome: &str, lines: &[(i64, i32, &str)]) -> RolloutRun {
    let transitions = lines.iter().map(|(minute, weight, reason)| {
        json!({ "at": at(*minute), "step": 1, "weight": weight, "reason": reason, "message": "" })
    });
    let run = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "RolloutRun",
        "metadata": { "name": format!("web-{revision}"), "namespace": "shop" },
        "spec": {
            "rollout": "web", "digest": "", "podTemplateHash": "", "revision": revision,
            "templateDigest": revision.to_string(),
            "risk": { "score": 1.0, "tier": "low" },
            "progress": {
                "outcome": outcome, "startedAt": at(lines[0].0),
                "endedAt": at(lines[lines.len() - 1].0),
                "transitions": transitions.collect::<Vec<_>>(),
            },
        },
    });
    serde_json::from_value(run).unwrap()
}

fn by(mut run: RolloutRun, contributor: &str, lines: &str) -> RolloutRun {
    let annotations = json!({
        "contributor": contributor, "lines-added": lines, "lines-deleted": "0",
        "image": "of another registry", "committed-at": start(),
    });
    run.spec.provenance.state = "Declared".into();
    run.spec.provenance.annotations = serde_json::from_value(annotations).unwrap();
    run
}

fn first() -> RolloutRun {
    run(1, "Promoted", &[(0, 100, "Promoted")])
}

fn promoted(revision: i64, minute: i64) -> RolloutRun {
    let lines = [
        (minute, 0, "ChangeStarted"),
        (minute + 1, 20, "StepStarted"),
        (minute + 5, 100, "Promoting"),
        (minute + 6, 100, "Promoted"),
        (minute + 8, 100, "Stable"),
    ];
    run(revision, "Promoted", &lines)
}

fn rolled_back(revision: i64, minute: i64, reason: &str) -> RolloutRun {
    let lines = [
        (minute, 0, "ChangeStarted"),
        (minute + 1, 20, "StepStarted"),
        (minute + 5, 50, "StepStarted"),
        (minute + 7, 0, reason),
        (minute + 8, 0, "RolledBack"),
    ];
    run(revision, "RolledBack", &lines)
}

fn minutes(count: u64) -> Duration {
    Duration::minutes(count)
}

fn one(runs: &[RolloutRun]) -> Deployment<'_> {
    let mut found = deployments(runs);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn a_promotion_is_a_deployment_and_the_first_revision_is_none() {
    assert_eq!(deployments(&[first()]).len(), 0);
    let runs = [first(), by(promoted(2, 100), "human", "60")];
    let found = one(&runs);
    assert_eq!((found.at, found.failed), (at(106), false));
    assert_eq!(found.lead_time, Some(minutes(106)));
    assert_eq!((found.lines, found.restored_in), (Some(60), None));
    assert!(!found.is_rework);
}

#[test]
fn what_is_not_declared_is_not_known() {
    let mut run = by(promoted(2, 100), "ai", "60");
    run.spec.provenance.state = "Stale".into();
    let runs = [run];
    let found = one(&runs);
    let known = (found.contributor, found.lines, found.lead_time);
    assert_eq!(known, (None, None, None));
    // A clock that is wrong gives no time.
    let mut run = by(promoted(2, 100), "ai", "60");
    let later = at(10_000).to_string();
    let annotations = &mut run.spec.provenance.annotations;
    annotations.insert("committed-at".into(), later);
    let runs = [run];
    assert_eq!(one(&runs).lead_time, None);
}

#[test]
fn a_rollback_is_a_failure_for_the_time_of_its_step() {
    let runs = [rolled_back(2, 100, "AnalysisFailed")];
    let found = one(&runs);
    assert_eq!((found.at, found.failed), (at(107), true));
    assert_eq!(
        (found.restored_in, found.lead_time),
        (Some(minutes(3)), None)
    );
    let reverted = run(2, "Reverted", &[(0, 20, "StepStarted"), (3, 0, "Reverted")]);
    let runs = [reverted];
    assert_eq!(one(&runs).restored_in, Some(minutes(3)));
    let mut lines = vec![(1, 20, "StepStarted"), (5, 100, "Promoting")];
    lines.extend([(6, 100, "Promoted"), (16, 0, "Regressed")]);
    let runs = [run(2, "RolledBack", &lines)];
    let found = one(&runs);
    assert_eq!((found.failed, found.restored_in), (true, Some(minutes(10))));
}

#[test]
fn what_ends_before_traffic_or_without_a_fault_is_no_deployment() {
    for run in [
        run(
            2,
            "RolledBack",
            &[(0, 0, "ChangeStarted"), (1, 0, "SmokeFailed")],
        ),
        run(2, "RolledBack", &[(0, 0, "StepStarted"), (1, 0, "Aborted")]),
        run(
            2,
            "Superseded",
            &[(0, 20, "StepStarted"), (1, 0, "Superseded")],
        ),
        rolled_back(2, 100, "WaitExpired"),
        rolled_back(2, 100, "RolledBackByFreeze"),
    ] {
        let ended = super::deployment::ended_without(&run);
        let last = run.spec.progress.transitions.last().unwrap();
        assert_eq!(ended, last.at.as_ref().map(|at| at.0), "{run:?}");
        assert_eq!(deployments(&[run]).len(), 0);
    }
}

#[test]
fn the_deployment_after_a_failed_one_is_rework() {
    let runs = [
        promoted(4, 300),
        first(),
        rolled_back(2, 100, "AnalysisFailed"),
        promoted(3, 200),
    ];
    let found: Vec<_> = deployments(&runs)
        .iter()
        .map(|it| (it.run.spec.revision, it.is_rework))
        .collect();
    assert_eq!(found, [(2, false), (3, true), (4, false)]);
}

#[test]
fn a_promoted_change_that_is_taken_back_has_failed() {
    let back = |minute: i64| {
        let mut back = promoted(4, minute);
        back.spec.template_digest = Some("1".into());
        back
    };
    let between = rolled_back(3, 200, "AnalysisFailed");
    let runs = [first(), promoted(2, 100), between, back(300)];
    let found: Vec<_> = deployments(&runs)
        .iter()
        .map(|it| (it.failed, it.is_rework))
        .collect();
    assert_eq!(found, [(true, false), (true, false), (false, true)]);
    assert_eq!(deployments(&runs)[0].restored_in, Some(minutes(200)));

    let later = [first(), promoted(2, 100), back(100 + 8 * 24 * 60)];
    assert!(deployments(&later).iter().all(|it| !it.failed));
}

/// Four changes of each week: one of an AI, three of people.
fn quarter() -> Vec<RolloutRun> {
    let mut runs = vec![first()];
    for week in 0..12 {
        for change in 0..4 {
            let (revision, minute) = (2 + week * 4 + change, week * 10_080 + change * 1_000 + 10);
            let fails = revision % 12 == 5;
            let run = if fails {
                rolled_back(revision, minute, "AnalysisFailed")
            } else {
                promoted(revision, minute)
            };
            let contributor = if change == 0 { "mixed" } else { "human" };
            runs.push(by(run, contributor, if change == 3 { "400" } else { "12" }));
        }
    }
    runs
}

fn report(runs: &[RolloutRun], group: Option<By>) -> Delivery {
    let end = at(12 * 10_080);
    Delivery::of(runs, (start(), end), group, |run| {
        Some(format!("team-{}", run.spec.revision % 2))
    })
}

#[test]
fn the_figures_are_those_of_the_records() {
    let found = report(&quarter(), Some(By::Contributor));
    let total = &found.total;
    assert_eq!(total.deployments, 48);
    assert!((total.per_week.unwrap().value - 4.0).abs() < 1e-9);
    let failures = &total.change_failure_rate;
    assert_eq!((failures.count, failures.of), (4, 48));
    assert_eq!(
        (total.time_to_restore.count, total.rework_rate.count),
        (4, 4)
    );
    assert_eq!(total.time_to_restore.median, Some(minutes(3)));
    assert_eq!(
        total.time_to_restore.interval, None,
        "four times are too few"
    );
    assert_eq!(total.lead_time.count, 44);
    assert!(total.lead_time.interval.is_some());
    assert_eq!(found.groups["mixed"].deployments, 12);
    assert_eq!(found.groups["human"].deployments, 36);
    let strata: Vec<_> = found
        .comparison
        .strata
        .iter()
        .map(|row| (row.lines.to_string(), row.ai.of, row.people.of))
        .collect();
    assert_eq!(strata, [("0-49".into(), 12, 24), ("400+".into(), 0, 12)]);
    let finding = found.comparison.finding;
    assert!(matches!(finding, Finding::NotEnough { more } if more > 100.0));
    assert_eq!(found.incomplete, [""; 0]);
}

#[test]
fn deployments_outside_the_time_do_not_count() {
    let runs = quarter();
    let found = Delivery::of(&runs, (at(10_080), at(2 * 10_080)), None, |_| None);
    assert_eq!((found.total.deployments, found.groups.len()), (4, 0));
    let none = Delivery::of(&runs, (at(-2), at(-1)), None, |_| None);
    let text = render::table(&none);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("0 deployments from 2026-10-31T23:58:00Z"));
}

#[test]
fn deployments_a_week_are_of_the_time_that_has_records() {
    let week = 10_080;
    let runs = [first(), promoted(2, 100), promoted(3, week)];
    let from = |since| Delivery::of(&runs, (at(since), at(2 * week)), None, |_| None);
    let longer = from(-8 * week);
    assert_eq!(longer.recorded_since, start());
    assert!((longer.total.per_week.unwrap().value - 1.0).abs() < 1e-9);
    let text = render::table(&longer);
    let stated =
        "The oldest record began at 2026-11-01T00:00:00Z: deployments a week are from then.";
    assert!(text.contains(stated), "{text}");

    let shorter = from(week);
    assert_eq!(shorter.recorded_since, at(week));
    assert!((shorter.total.per_week.unwrap().value - 1.0).abs() < 1e-9);
    assert!(!render::table(&shorter).contains("oldest record"));

    let days = Delivery::of(&runs, (at(0), at(week - 1)), None, |_| None);
    assert_eq!(days.total.per_week, None, "days tell of no week");

    // A record that began after the time, by a clock that is wrong, makes no rate of no time.
    let none = Delivery::of(&runs[2..], (at(0), at(week)), None, |_| None);
    assert_eq!(none.recorded_since, start());
    assert!(none.total.per_week.unwrap().value.abs() < 1e-9);
}

/// As a deployment counts by its end, whenever it began.
#[test]
fn a_change_that_ended_otherwise_counts_by_its_end() {
    let runs = [first(), rolled_back(2, 100, "WaitExpired")];
    let until = |end| Delivery::of(&runs, (at(102), end), None, |_| None);
    assert_eq!(until(at(107)).not_deployed, 0);
    let text = render::table(&until(at(108)));
    assert!(text.contains("; 1 change ended without one. "), "{text}");
}

#[test]
fn the_text_has_no_share_without_its_count_and_interval() {
    let found = report(&quarter(), Some(By::Team));
    let text = render::table(&found);
    for part in [
        "48 deployments from 2026-11-01T00:00:00Z to 2027-01-24T00:00:00Z. In brackets",
        "\nTEAM     DEPLOYMENTS",
        "\nteam-0   24 ",
        "4 of 48: 8.3% (3.3% to 19.6%)",
        "3m0s of 4",
        "\nTIER   LINES   FAILED-WITH-AI   FAILED-OF-PEOPLE\n",
        "\nlow    400+    -                4 of 12\n",
        "not enough changes yet: about ",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let markdown = render::markdown(&found);
    assert!(
        markdown.contains("\n\n| TEAM | DEPLOYMENTS |"),
        "{markdown}"
    );
    let csv = csv::csv(&found);
    assert_eq!(csv.lines().count(), 1 + 3 * 5 + 1, "{csv}");
    let failures = "all,change failure rate,4,48,0.0833,0.0329,0.1955,share,\r\n";
    assert!(csv.contains(failures), "{csv}");
    // There is no valid odds ratio, and its row has what that means.
    let finding = "all,AI to people,,,,,,odds ratio,not enough changes yet: about 2600 more.\r\n";
    assert!(csv.ends_with(finding), "{csv}");
    assert!(!text.contains("odds of failure times"), "{text}");
    let json: Value = serde_json::to_value(&found).unwrap();
    assert_eq!(json["comparison"]["finding"]["result"], "notEnough");
    assert_eq!(json["comparison"]["strata"][1]["lines"], "400+");
    assert_eq!(json["total"]["changeFailureRate"]["of"], 48);
}
