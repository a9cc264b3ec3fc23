//! Flux: what the health expressions of the examples make of a Rollout.

use cel::{Context, Program};
use countersign_core::laws::Reading;
use serde_json::Value;

use crate::document;
use crate::kstatus::{lawful, waits_for_others};

/// The examples, whose expressions are the same.
const EXAMPLES: [&str; 2] = ["flux/kustomization.yaml", "flux/helmrelease.yaml"];

/// Whether an expression holds for an object.
fn holds(expression: &str, object: &Value) -> bool {
    let program = Program::compile(expression).unwrap();
    let mut context = Context::default();
    context.add_variable("status", &object["status"]).unwrap();
    match program.execute(&context) {
        Ok(cel::Value::Bool(holds)) => holds,
        other => panic!("{expression}: {other:?} for {object}"),
    }
}

/// As the `StatusEvaluator` of fluxcd/pkg: another generation is in progress, then `failed` and `current` are evaluated.
fn evaluate(expressions: &Value, object: &Value) -> Reading {
    let of = |name: &str| holds(expressions[name].as_str().unwrap(), object);
    if object["status"]["observedGeneration"] != object["metadata"]["generation"] {
        Reading::InProgress
    } else if of("failed") {
        Reading::Failed
    } else if of("current") {
        Reading::Current
    } else {
        Reading::InProgress
    }
}

#[test]
fn the_expressions_are_kstatus_but_for_waits_that_others_end() {
    let [first, second] = EXAMPLES.map(|file| document(file)["spec"]["healthCheckExprs"].clone());
    assert_eq!(first, second);
    let [expressions] = &first.as_array().unwrap()[..] else {
        panic!("one entry: {first}")
    };
    assert_eq!(expressions["apiVersion"], "countersign.dev/v1alpha1");
    assert_eq!(expressions["kind"], "Rollout");
    assert_eq!(expressions.get("inProgress"), None);
    let mut passed = 0;
    for (object, reading) in lawful() {
        let found = evaluate(expressions, &object);
        if found != reading {
            assert_eq!(
                (reading, found),
                (Reading::InProgress, Reading::Current),
                "{object}"
            );
            assert!(waits_for_others(&object), "{object}");
            passed += 1;
        }
    }
    assert!(passed > 10, "{passed}");
}

/// Flux waits for custom resources by kstatus, and for as long as the timeout.
#[test]
fn the_examples_wait_and_do_not_deploy_what_was_rolled_back_again() {
    let [kustomization, release] = EXAMPLES.map(|file| document(file)["spec"].clone());
    assert_eq!(kustomization["wait"], true);
    assert_eq!(release["waitStrategy"]["name"], "poller");
    for action in ["install", "upgrade"] {
        assert_eq!(release[action]["remediation"]["retries"], 0, "{action}");
    }
    assert_eq!(kustomization["timeout"], release["timeout"]);
}
