use countersign_api::counts::{Counts, EProcess};
use countersign_api::rollout::{Change, CheckEvidence, GateEvidence, WindowState};
use countersign_api::{Check, Duration, Metric};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::analysis::checks::Checks;
use crate::analysis::gather::gather;
use crate::analysis::verdict::{Verdict, judge};
use crate::observation::windows::{CheckWindows, Window, WindowOutcome};
use crate::reason::Reason;

/// A check whose roll-back test stands at this e-value, and which would pass otherwise.
fn evidence(name: &str, e: f64, now: Timestamp) -> CheckEvidence {
    let counts = Counts {
        requests: 5_000.0,
        errors: 0.0,
    };
    CheckEvidence {
        name: name.into(),
        canary: counts,
        stable: counts,
        step_requests: 5_000.0,
        rollback: EProcess {
            ln_e: vec![e.ln(); 8],
        },
        gates: vec![GateEvidence {
            share: 100,
            promote: EProcess { ln_e: vec![9.0; 7] },
        }],
        last: WindowState::Counted,
        last_window_end: Some(Time(now)),
        ..CheckEvidence::default()
    }
}

#[test]
fn one_check_that_fails_alone_holds_and_all_together_roll_back() {
    let now = Timestamp::UNIX_EPOCH;
    let judged = |e: [f64; 3]| {
        let names = ["a", "b", "c"];
        let check = |name: &str| (name.to_owned(), Check::default());
        let checks = Checks {
            checks: names.into_iter().map(check).collect(),
            ..Checks::default()
        };
        let mut change = Change {
            weight: 5,
            ..Change::default()
        };
        change.plan.strictness.max_false_rollback = 0.05;
        change.plan.strictness.max_false_promotion = 0.05;
        let values = names.into_iter().zip(e);
        change.evidence.checks = values.map(|(name, e)| evidence(name, e, now)).collect();
        judge(&change, &checks, now, Duration::default())
    };
    // Rolled back from 1.5 / 0.05 = 30 on.
    assert!(matches!(judged([0.1, 1.0, 29.0]), Verdict::Pass { .. }));
    let Verdict::NoData { reason, message } = judged([0.1, 0.1, 60.0]) else {
        panic!("{:?}", judged([0.1, 0.1, 60.0]));
    };
    assert_eq!(reason, Reason::CheckFailing);
    assert!(message.starts_with("check c"), "{message}");
    assert!(matches!(judged([0.1, 0.1, 95.0]), Verdict::Fail { .. }));
}

#[test]
fn the_counts_of_the_last_windows_are_kept_within_a_bound() {
    let at = |number: i64| Timestamp::from_second(30 * number).unwrap();
    let counts = |requests, errors| Counts { requests, errors };
    let window = |number: i64| Window {
        start: at(number),
        end: at(number + 1),
        outcome: WindowOutcome::Counted {
            canary: counts(12_346.0, 1.0),
            stable: counts(123_456.0, 12.0),
        },
    };
    let windows = CheckWindows {
        due: (0..100).map(window).collect(),
        history: None,
    };
    let mut change = Change::default();
    change.plan.strictness.max_false_rollback = 0.05;
    change.plan.strictness.max_false_promotion = 0.05;
    for (count, kept) in [(1, 60), (20, 60), (100, 12)] {
        let check = |number: i32| (format!("c{number}"), Check::default());
        let checks = Checks {
            checks: (0..count).map(check).collect(),
            ..Checks::default()
        };
        let names = checks.checks.keys();
        let answers = names.map(|name| (name.clone(), windows.clone())).collect();
        let evidence = gather(&change, &checks, &answers);
        for check in evidence.checks {
            let written = serde_json::to_string(&check.windows).unwrap();
            assert_eq!(check.windows.len(), kept);
            assert!(
                written.starts_with("[[12350.0,1.0,123500.0,12.0],"),
                "{written}"
            );
            assert!(written.len() <= 2_048, "{}", written.len());
        }
    }
}

/// Windows that are read together after an absence judge as those that are read one by one.
#[test]
fn a_metric_that_has_failed_has_failed_whatever_the_next_window_of_the_same_read_is() {
    let metric = Metric {
        query: "queue_length".into(),
        max: Some(10.0),
        failures: 3,
        ..Metric::default()
    };
    let check = Check {
        metric: Some(metric),
        ..Check::default()
    };
    let checks = Checks {
        checks: [("queue".to_owned(), check)].into(),
        ..Checks::default()
    };
    let window = |second: i64, value: f64| Window {
        start: Timestamp::from_second(second).unwrap(),
        end: Timestamp::from_second(second + 10).unwrap(),
        outcome: WindowOutcome::Measured { value },
    };
    let due = vec![
        window(0, 11.0),
        window(10, 12.0),
        window(20, 13.0),
        window(30, 1.0),
    ];
    let windows = CheckWindows { due, history: None };
    let windows = [("queue".to_owned(), windows)].into();
    let mut change = Change {
        weight: 5,
        ..Change::default()
    };
    change.evidence.from = Some(Time(Timestamp::UNIX_EPOCH));
    change.evidence = gather(&change, &checks, &windows);
    let now = Timestamp::from_second(41).unwrap();
    let verdict = judge(&change, &checks, now, Duration::default());
    assert!(matches!(verdict, Verdict::Fail { .. }), "{verdict:?}");
}
