//! kstatus, which Flux, Helm and kpt use: its rules for a custom resource, and what they make of a Rollout and of
//! the statuses of policies, templates and Freezes.

use countersign_api::{
    AnalysisTemplateSpec, FreezeSpec, Rollout, RolloutPolicySpec, RolloutStatus,
};
use countersign_core::acceptance::{self, Subject};
use countersign_core::laws::{self, Reading};
use serde_json::{Value, json};

use crate::story;

/// The rules for an object that is not being deleted, in the order of `pkg/kstatus/status` in sigs.k8s.io/cli-utils
/// (at commit 5895ad6): `checkGenericProperties`, then `checkReadyCondition`, then what remains is current.
pub fn reading(object: &Value) -> Reading {
    let status = &object["status"];
    let generation = object["metadata"]["generation"].as_i64();
    let observed = status["observedGeneration"].as_i64();
    if generation.is_some() && observed.is_some() && generation != observed {
        return Reading::InProgress;
    }
    let conditions = || {
        let conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.map(|it| (it["type"].as_str(), it["status"].as_str()))
    };
    for condition in conditions() {
        match condition {
            (Some("Reconciling"), Some("True")) => return Reading::InProgress,
            (Some("Stalled"), Some("True")) => return Reading::Failed,
            _ => {}
        }
    }
    for condition in conditions() {
        match condition {
            (Some("Ready"), Some("True")) => return Reading::Current,
            (Some("Ready"), Some("False" | "Unknown")) => return Reading::InProgress,
            _ => {}
        }
    }
    Reading::Current
}

/// Whether a change waits for what people or other Rollouts do.
pub fn waits_for_others(object: &Value) -> bool {
    let kind = object["status"]["waitingKind"].as_str();
    matches!(kind, Some("People" | "Requested"))
}

/// Objects with every combination of what tools read.
fn combinations() -> Vec<Value> {
    const VALUES: [Option<&str>; 4] = [None, Some("True"), Some("False"), Some("Unknown")];
    const WAITS: [Option<&str>; 6] = [
        None,
        Some("Requested"),
        Some("People"),
        Some("Time"),
        Some("Doubt"),
        Some("Scarce"),
    ];
    let condition = |kind: &str, value: &str| {
        json!({
            "type": kind, "status": value, "reason": "Reason", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let mut all = Vec::new();
    for ready in VALUES {
        for reconciling in VALUES {
            for stalled in VALUES {
                let conditions = [
                    ("Ready", ready),
                    ("Reconciling", reconciling),
                    ("Stalled", stalled),
                ];
                let conditions = conditions.into_iter();
                let conditions: Vec<_> = conditions
                    .filter_map(|(kind, value)| Some(condition(kind, value?)))
                    .collect();
                let status = |observed: i64, waits: Option<&str>| {
                    let mut status =
                        json!({ "observedGeneration": observed, "conditions": conditions });
                    if let Some(waits) = waits {
                        status["waitingKind"] = json!(waits);
                    }
                    json!({ "metadata": { "generation": 2 }, "status": status })
                };
                all.extend([-1, 1].map(|observed| status(observed, None)));
                all.extend(WAITS.map(|waits| status(2, waits)));
            }
        }
    }
    all
}

/// What the laws make of an object; `None` if they forbid its conditions.
fn by_the_laws(object: &Value) -> Option<Reading> {
    let status: RolloutStatus = serde_json::from_value(object["status"].clone()).unwrap();
    let generation = object["metadata"]["generation"].as_i64().unwrap();
    laws::kstatus(generation, &status)
}

/// Every object that the laws allow, with what kstatus reads: every combination, and those of real rollouts.
pub fn lawful() -> Vec<(Value, Reading)> {
    let combinations = combinations().into_iter();
    // Every status that the operator writes has the condition Ready.
    let complete =
        combinations.filter(|it| it["status"]["conditions"].to_string().contains("Ready"));
    let allowed = complete.filter(|it| by_the_laws(it).is_some());
    let objects = allowed.chain(story::objects());
    let with_reading = |object: Value| {
        let read = reading(&object);
        (object, read)
    };
    objects.map(with_reading).collect()
}

#[test]
fn the_laws_read_a_status_as_kstatus_does() {
    let (mut read, mut refused) = (0, 0);
    for object in combinations() {
        if let Some(found) = by_the_laws(&object) {
            assert_eq!(found, reading(&object), "{object}");
            read += 1;
        } else {
            refused += 1;
        }
    }
    assert!(
        read > 300 && refused > 10,
        "{read} were read, {refused} were refused"
    );
}

#[test]
fn real_rollouts_are_in_progress_current_and_failed() {
    let objects = story::objects();
    for expected in [Reading::InProgress, Reading::Current, Reading::Failed] {
        let count = objects.iter().filter(|it| reading(it) == expected).count();
        assert!(count > 0, "{expected:?} in none of {}", objects.len());
    }
    for object in &objects {
        let found = by_the_laws(object);
        assert_eq!(found, Some(reading(object)), "{object}");
    }
}

/// The statuses of a policy, a template and a Freeze, of generation 2.
fn statuses(
    policy: &Result<RolloutPolicySpec, String>,
    template: &Result<AnalysisTemplateSpec, String>,
    freeze: &Result<FreezeSpec, String>,
) -> [Value; 3] {
    let subject = Subject {
        conditions: &[],
        generation: 2,
        now: "2026-01-01T00:00:00Z".parse().unwrap(),
    };
    let template = acceptance::template::acceptance(template);
    [
        json!(acceptance::policy::status(policy, 1, subject)),
        json!(acceptance::template::status(&template, 1, subject)),
        json!(acceptance::freeze::status(freeze, subject)),
    ]
}

/// What no operator has seen is in force all the same, and what it cannot use waits for a person.
#[test]
fn policies_templates_and_freezes_are_current_and_failed_if_they_are_not_accepted() {
    let person = json!({ "reason": "a test", "person": { "username": "dave" } });
    let freeze = serde_json::from_value(person).map_err(|error| error.to_string());
    let (policy, template) = (
        RolloutPolicySpec::default(),
        AnalysisTemplateSpec::default(),
    );
    let accepted = statuses(&Ok(policy), &Ok(template), &freeze);
    let problem = "a field of a newer build";
    let refused = statuses(
        &Err(problem.to_owned()),
        &Err(problem.to_owned()),
        &Err(problem.to_owned()),
    );
    let read = |status: &Value, generation: i64| {
        reading(&json!({ "metadata": { "generation": generation }, "status": status }))
    };
    for (status, expected) in [(&accepted, Reading::Current), (&refused, Reading::Failed)] {
        for status in status {
            assert_eq!(read(status, 2), expected, "{status}");
            assert_eq!(read(status, 3), Reading::InProgress, "{status}");
        }
    }
    assert_eq!(read(&json!({}), 1), Reading::Current);
}

/// Fills in a schema's defaults as the API server does.
fn fill_in(schema: &Value, object: &mut Value) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if let (Some(default), None) = (property.get("default"), object.get(name)) {
            object[name] = default.clone();
        }
        if let Some(value) = object.get_mut(name) {
            fill_in(property, value);
        }
    }
}

/// Where no controller runs, `kubectl wait`, Flux and Helm must not continue.
#[test]
fn a_rollout_that_no_controller_has_seen_is_in_progress() {
    let definitions = countersign_api::crds();
    let rollout = definitions
        .iter()
        .find(|it| it.spec.names.kind == "Rollout");
    let definition = serde_json::to_value(rollout).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut object = json!({
        "metadata": { "name": "shop", "generation": 1 }, "spec": {},
    });
    assert_eq!(reading(&object), Reading::Current, "as kstatus has it");
    fill_in(schema, &mut object);
    assert_eq!(reading(&object), Reading::InProgress, "{object}");

    let read: Rollout = serde_json::from_value(object).unwrap();
    let blank = RolloutStatus {
        observed_generation: -1,
        ..RolloutStatus::default()
    };
    assert_eq!(read.status, Some(blank), "nothing else is made up");
}
