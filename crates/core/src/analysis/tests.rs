use countersign_api::counts::{Counts, EProcess};
use countersign_api::rollout::{Change, CheckEvidence, GateEvidence, WindowState};
use countersign_api::{Check, Duration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::analysis::checks::Checks;
use crate::analysis::verdict::{Verdict, judge};
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
