use serde_json::{Value, json};

use super::*;

/// A pod of ReplicaSet `1` whose only container has this state.
fn pod(state: &Value, restarts: i32, ready: bool) -> Pod {
    let end = json!({ "exitCode": 1, "reason": "Error", "message": "no database" });
    let container = json!({
        "name": "app", "image": "a", "imageID": "", "ready": ready, "restartCount": restarts,
        "state": state, "lastState": if restarts > 0 { json!({ "terminated": end }) } else { json!({}) },
    });
    of_set(&json!({ "phase": "Running", "containerStatuses": [container] }))
}

fn of_set(status: &Value) -> Pod {
    let owner = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "s", "uid": "1", "controller": true });
    let pod = json!({ "metadata": { "name": "p", "ownerReferences": [owner] }, "status": status });
    serde_json::from_value(pod).unwrap()
}

/// The state of the pods of ReplicaSet `1`, or another one.
fn described(pods: &[Pod], uid: &str, more: bool) -> NewPods {
    let own = pods.iter().filter_map(|pod| status_of(pod.clone(), uid));
    describe(own.collect(), more)
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({ "waiting": { "reason": reason, "message": message } })
}

fn running() -> Value {
    json!({ "running": {} })
}

#[test]
fn pods_that_crash_again_and_again_are_counted_with_how_they_ended() {
    let back_off = waiting(CRASH_LOOP, "back-off 40s");
    for (state, restarts, ready, crashes) in [
        (&back_off, 1, false, false),
        (&back_off, 2, false, true),
        (&running(), 2, false, false),
        (&running(), 3, false, true),
        // This container recovered.
        (&running(), 7, true, false),
        (
            &waiting("ImagePullBackOff", "no such image"),
            0,
            false,
            false,
        ),
    ] {
        let seen = described(&[pod(state, restarts, ready)], "1", false);
        assert_eq!(seen.existing, 1);
        assert_eq!(seen.crashing, i32::from(crashes), "{state} {restarts}");
        assert_eq!(seen.crash.is_some(), crashes);
    }
    let both = [pod(&back_off, 2, false), pod(&running(), 0, false)];
    let seen = described(&both, "1", false);
    assert_eq!((seen.existing, seen.crashing), (2, 1));
    let crash = seen.crash.unwrap();
    assert_eq!(
        (crash.exit_code, crash.message.as_str()),
        (1, "no database")
    );
    assert_eq!(
        seen.trouble.as_deref(),
        Some("container app: CrashLoopBackOff: it exited with 1 (Error)")
    );
}

#[test]
fn what_was_not_read_may_be_well() {
    let back_off = waiting(CRASH_LOOP, "back-off 40s");
    let seen = described(&[pod(&back_off, 9, false)], "1", true);
    assert_eq!((seen.existing, seen.crashing), (2, 1));
}

#[test]
fn pods_that_go_or_ended_or_are_of_another_do_not_count() {
    let back_off = waiting(CRASH_LOOP, "back-off 40s");
    let mut going = pod(&back_off, 9, false);
    going.metadata.deletion_timestamp =
        Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    let evicted =
        of_set(&json!({ "phase": "Failed", "reason": "Evicted", "message": "no memory" }));
    let seen = described(&[going, evicted], "1", false);
    let expected = NewPods {
        trouble: Some("Evicted: no memory".into()),
        ..NewPods::default()
    };
    assert_eq!(seen, expected);
    assert_eq!(
        described(&[pod(&back_off, 9, false)], "2", false),
        NewPods::default()
    );
}

#[test]
fn why_a_pod_does_not_start_is_reported_and_that_it_starts_is_not() {
    let unscheduled = json!({ "phase": "Pending", "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes are available",
        }] });
    for (pod, expected) in [
        (
            pod(&waiting("ErrImagePull", "not found"), 0, false),
            Some("container app: ErrImagePull: not found"),
        ),
        (
            pod(
                &waiting("CreateContainerConfigError", "no secret"),
                0,
                false,
            ),
            Some("container app: CreateContainerConfigError: no secret"),
        ),
        (
            of_set(&unscheduled),
            Some("Unschedulable: 0/2 nodes are available"),
        ),
        (
            pod(
                &json!({ "waiting": { "reason": "ContainerCreating" } }),
                0,
                false,
            ),
            None,
        ),
        (pod(&running(), 0, false), None),
    ] {
        let seen = described(&[pod], "1", false);
        assert_eq!(seen.trouble.as_deref(), expected);
    }
}
