use countersign_api::rollout::SmokeProgress;
use serde_json::{Value, json};

use super::*;
use crate::observation::workload::ContainerFailure;
use crate::simulation::manifest::{Surroundings, observe, with_another_image};
use crate::workload::failure::tail;
use crate::workload::smoke_job::template;

/// A Rollout with a smoke check, and its change right before the first step.
fn waiting(smoke: &Value) -> (Observation, Change) {
    let rollout: countersign_api::Rollout = serde_json::from_value(json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "Rollout",
        "metadata": { "name": "shop", "namespace": "team", "uid": "uid" },
        "spec": {
            "selector": { "matchLabels": { "app": "shop" } },
            "template": {
                "metadata": { "labels": { "app": "shop" } },
                "spec": { "containers": [{ "name": "app", "image": "shop:2" }] },
            },
            "strategy": { "canary": { "smoke": smoke } },
        },
    }))
    .unwrap();
    let stable = with_another_image(&rollout.spec.template);
    let around = Surroundings::default();
    let observation = observe(&rollout, &stable, around, Timestamp::UNIX_EPOCH);
    let change = Change {
        run: "shop-0123456789-2".into(),
        digest: "0123456789abcdef".into(),
        pod_template_hash: "7f8d".into(),
        ..Change::default()
    };
    (observation, change)
}

fn plain() -> Value {
    json!({ "template": { "spec": { "containers": [{ "name": "smoke", "image": "{{image}}" }] } } })
}

fn made(smoke: &Value) -> Value {
    let (observation, change) = waiting(smoke);
    let smoke = observation.spec.strategy.canary.smoke.clone().unwrap();
    template(&observation, &change, &smoke).0
}

fn failed(reason: &str, failures: Vec<ContainerFailure>) -> Job {
    Job {
        name: "shop-0123456789-2-smoke".into(),
        end: Some(JobEnd::Failed {
            reason: reason.into(),
            message: "Job has failed".into(),
        }),
        failures,
        ..Job::default()
    }
}

#[test]
fn a_name_fits_in_a_label_and_differs_between_attempts() {
    assert_eq!(job_name("shop-0123456789-2"), "shop-0123456789-2-smoke");
    let long = |attempt: i32| job_name(&format!("{}-0123456789-{attempt}", "a.".repeat(100)));
    assert!(long(7).len() <= 63, "{}", long(7));
    assert!(long(7).ends_with("a-0123456789-7-smoke"), "{}", long(7));
    assert_ne!(long(7), long(8));
}

#[test]
fn the_image_under_test_and_who_is_tested_are_filled_in_and_nothing_is_overwritten() {
    let made = made(&json!({ "timeout": "2m", "template": {
        "metadata": { "labels": { "app": "smoke", "pod-template-hash": "7f8d" } },
        "spec": {
            "restartPolicy": "OnFailure",
            "serviceAccountName": "tester",
            "readinessGates": [{ "conditionType": "own" }],
            "initContainers": [{ "name": "wait", "image": "{{image}}-not" }],
            "containers": [{
                "name": "smoke", "image": "{{image}}", "terminationMessagePolicy": "File", "newer": true,
                "env": [{ "name": "COUNTERSIGN_ROLLOUT", "value": "mine" }],
            }],
        },
    } }));
    assert_eq!(
        made,
        json!({
            "metadata": { "labels": { "app": "smoke" } },
            "spec": {
                "restartPolicy": "Never",
                "activeDeadlineSeconds": 120,
                "serviceAccountName": "tester",
                "readinessGates": [{ "conditionType": "own" }, { "conditionType": "countersign.dev/Serves" }],
                "initContainers": [{
                    "name": "wait", "image": "{{image}}-not", "terminationMessagePolicy": "FallbackToLogsOnError",
                    "env": [
                        { "name": "COUNTERSIGN_ROLLOUT", "value": "shop" },
                        { "name": "COUNTERSIGN_REVISION", "value": "7f8d" },
                        { "name": "COUNTERSIGN_DIGEST", "value": "0123456789abcdef" },
                    ],
                }],
                "containers": [{
                    "name": "smoke", "image": "shop:2", "terminationMessagePolicy": "File", "newer": true,
                    "env": [
                        { "name": "COUNTERSIGN_ROLLOUT", "value": "mine" },
                        { "name": "COUNTERSIGN_REVISION", "value": "7f8d" },
                        { "name": "COUNTERSIGN_DIGEST", "value": "0123456789abcdef" },
                    ],
                }],
            },
        })
    );
}

#[test]
fn a_failure_states_its_cause_and_ends_with_the_end_of_the_log() {
    let (mut observation, change) = waiting(&plain());
    let log = format!(
        "{}\n\n\u{1b}[31mFAIL\u{1b}[0m \u{202e}checkout\n2 of 3 passed\n",
        "GET / 200\n".repeat(500)
    );
    let failures = vec![ContainerFailure {
        container: "smoke".into(),
        exit_code: 3,
        reason: "Error".into(),
        message: log,
    }];
    observation.jobs = Some(Ok(vec![failed("BackoffLimitExceeded", failures)]));
    let message = failure(&observation, &change).unwrap();
    let begin = "Job shop-0123456789-2-smoke failed: container smoke exited with 3 (Error); its last output: …";
    assert!(message.starts_with(begin), "{message}");
    let end = "| GET / 200 | \\u{1b}[31mFAIL\\u{1b}[0m \\u{202e}checkout | 2 of 3 passed";
    assert!(message.ends_with(end), "{message}");
    assert!(
        message.len() <= 1_000,
        "{} bytes fit in an Event",
        message.len()
    );
    assert_eq!(success(&observation, &change), None);
}

#[test]
fn a_failure_of_any_shape_is_reported() {
    let (mut observation, change) = waiting(&plain());
    let killed = ContainerFailure {
        container: "smoke".into(),
        exit_code: 137,
        reason: "DeadlineExceeded".into(),
        message: String::new(),
    };
    for (job, expected) in [
        (
            failed("BackoffLimitExceeded", vec![killed]),
            "took longer than 5m: container smoke exited with 137 (DeadlineExceeded); it left no message",
        ),
        (
            failed("DeadlineExceeded", vec![]),
            "took longer than 5m: DeadlineExceeded: Job has failed",
        ),
        (
            Job {
                waiting: Some("ImagePullBackOff".into()),
                ..failed("DeadlineExceeded", vec![])
            },
            "took longer than 5m: DeadlineExceeded: Job has failed; ImagePullBackOff",
        ),
    ] {
        observation.jobs = Some(Ok(vec![job]));
        let message = failure(&observation, &change).unwrap();
        assert!(message.ends_with(expected), "{message}");
    }
}

#[test]
fn the_last_output_is_cut_between_characters() {
    assert_eq!(tail(""), "");
    assert_eq!(tail("a\r\n\n b \n"), "a | b");
    let long = "ä".repeat(1_000);
    let cut = tail(&long);
    assert_eq!(cut, format!("…{}", "ä".repeat(400)));
}

#[test]
fn a_check_that_was_awaited_stays_required() {
    let (mut observation, mut change) = waiting(&plain());
    assert!(is_awaited(&observation, &change));
    observation.spec.strategy.canary.smoke = None;
    assert!(!is_awaited(&observation, &change), "it never was");
    change.smoke = Some(SmokeProgress::default());
    assert!(is_awaited(&observation, &change));
    let message = awaited(&observation, &change).unwrap();
    assert!(message.contains("restore the field"), "{message}");
    change.smoke = Some(SmokeProgress {
        passed: true,
        ..SmokeProgress::default()
    });
    assert!(!is_awaited(&observation, &change));
}
