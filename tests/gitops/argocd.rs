//! Argo CD: health, the two actions, and the `ConfigMap` that holds their scripts.

use std::collections::BTreeSet;

use countersign_api::intervention::InterventionAction;
use countersign_api::{InterventionSpec, RolloutStatus};
use countersign_core::laws::Reading;
use serde_json::{Value, json};

use crate::document;
use crate::kstatus::{lawful, waits_for_others};
use crate::lua::{run, script};
use crate::story::{BAD, GOOD, Story};

/// The health that Argo CD shows.
fn health(object: &Value) -> String {
    let health = run(&script("health.lua"), object);
    assert!(health["message"].is_string(), "{health}");
    health["status"].as_str().unwrap().to_owned()
}

/// The actions that Argo CD offers.
fn offered(object: &Value) -> String {
    let actions = run(&script("discovery.lua"), object);
    let actions = actions.as_object().unwrap().iter();
    let enabled = actions.filter(|(_, action)| action["disabled"] == false);
    let mut names: Vec<_> = enabled.map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.join(" ")
}

/// The Intervention that an action creates.
fn intervention(action: &str, object: &Value) -> Value {
    let answer = run(&script(&format!("{action}.lua")), object);
    let [made] = &answer.as_array().unwrap()[..] else {
        panic!("{action} makes one object: {answer}")
    };
    assert_eq!(made["operation"], "create");
    made["resource"].clone()
}

#[test]
fn health_is_what_kstatus_reads_and_a_wait_for_others_is_suspended() {
    let (objects, mut suspended) = (lawful(), 0);
    assert!(objects.len() > 300, "{}", objects.len());
    for (object, reading) in objects {
        let shown = health(&object);
        let is_observed =
            object["status"]["observedGeneration"] == object["metadata"]["generation"];
        let expected = match reading {
            Reading::Current => "Healthy",
            Reading::Failed => "Degraded",
            Reading::InProgress if is_observed && waits_for_others(&object) => "Suspended",
            Reading::InProgress => "Progressing",
        };
        assert_eq!(shown, expected, "{object}");
        suspended += usize::from(shown == "Suspended");
    }
    assert!(suspended > 10, "{suspended}");
}

#[test]
fn a_healthy_change_is_progressing_until_it_serves() {
    let mut story = Story::new();
    assert_eq!(
        health(&story.object()),
        "Progressing",
        "no operator has seen it"
    );
    story.until("Stable", GOOD, |status| status.stable.is_some());
    assert_eq!(health(&story.object()), "Healthy");
    story.apply("v2");
    assert_eq!(
        health(&story.object()),
        "Progressing",
        "its status is of the last one"
    );
    story.until("Progressing", GOOD, |status| status.weight > Some(0));
    assert_eq!(health(&story.object()), "Progressing");
    story.until("Stable", GOOD, |status| status.revision == 2);
    assert_eq!(health(&story.object()), "Healthy");
}

#[test]
fn a_change_that_waits_for_people_is_suspended_and_a_bad_one_degraded() {
    let mut story = Story::serving();
    story.require_people();
    story.apply("v2");
    story.until("AwaitingSignOff", GOOD, |_| true);
    assert_eq!(health(&story.object()), "Suspended");

    let mut story = Story::serving();
    story.apply("v2");
    story.until("Degraded", BAD, |_| true);
    assert_eq!(health(&story.object()), "Degraded");
}

/// Argo CD tests the scripts of its own `resource_customizations` by such a file.
#[test]
fn the_test_for_argo_cd_passes_on_statuses_of_this_api() {
    let tests = document("argocd/health_test.yaml")["tests"].clone();
    let mut seen = BTreeSet::new();
    for test in tests.as_array().unwrap() {
        let path = test["inputPath"].as_str().unwrap();
        let object = document(&format!("argocd/{path}"));
        let shown = run(&script("health.lua"), &object);
        assert_eq!(shown, test["healthStatus"], "{path}");
        seen.insert(shown["status"].as_str().unwrap().to_owned());

        let status: RolloutStatus = serde_json::from_value(object["status"].clone()).unwrap();
        let known = serde_json::to_value(status).unwrap();
        let mut fields = object["status"].as_object().unwrap().keys();
        assert!(fields.all(|it| known.get(it).is_some()), "{path}: {known}");
    }
    let all = ["Degraded", "Healthy", "Progressing", "Suspended"];
    assert!(seen.iter().eq(&all), "{seen:?}");
}

#[test]
fn an_action_is_offered_where_it_has_an_effect_and_has_it() {
    let mut story = Story::new();
    assert_eq!(offered(&story.object()), "", "nothing is known yet");
    story.until("Progressing", GOOD, |status| status.change.is_some());
    assert_eq!(offered(&story.object()), "", "there is no other revision");
    story.until("Stable", GOOD, |status| status.stable.is_some());
    assert_eq!(offered(&story.object()), "");
    story.apply("v2");
    story.until("Progressing", GOOD, |status| status.weight > Some(0));
    assert_eq!(offered(&story.object()), "abort pause");

    story.intervene(&intervention("pause", &story.object()));
    story.until("Held", GOOD, |status| {
        status.waiting_for.as_deref() == Some("Paused")
    });
    assert_eq!(health(&story.object()), "Suspended");
    assert_eq!(offered(&story.object()), "abort");

    story.intervene(&intervention("abort", &story.object()));
    story.until("Degraded", GOOD, |_| true);
    assert_eq!(offered(&story.object()), "");
    let status = &story.world.observation.status;
    let lines = &status.change.as_ref().unwrap().transitions;
    let message = "aborted by system:serviceaccount:argocd:argocd-server: requested in Argo CD";
    assert!(
        lines.iter().any(|line| line.message == message),
        "{lines:?}"
    );
}

/// With the longest name that the API server takes: its own is short whatever the Rollout is called.
#[test]
fn an_action_makes_a_whole_intervention_of_the_change_that_is_shown() {
    let mut story = Story::serving();
    story.apply("v2");
    story.until("Progressing", GOOD, |status| status.weight > Some(0));
    let mut object = story.object();
    object["metadata"]["name"] = json!("a".repeat(253));
    let actions = [
        ("abort", InterventionAction::Abort),
        ("pause", InterventionAction::Pause),
    ];
    for (name, action) in actions {
        let made = intervention(name, &object);
        assert_eq!(made["apiVersion"], "countersign.dev/v1alpha1");
        assert_eq!(made["kind"], "Intervention");
        let metadata = json!({
            "generateName": format!("{name}-"),
            "namespace": "shop",
            "ownerReferences": [{
                "apiVersion": "countersign.dev/v1alpha1", "kind": "Rollout",
                "name": object["metadata"]["name"], "uid": "uid",
            }],
        });
        assert_eq!(made["metadata"], metadata);

        let mut spec = made["spec"].clone();
        assert_eq!(
            spec.get("person"),
            None,
            "the API server fills in the person"
        );
        spec["person"] = json!({ "username": "system:serviceaccount:argocd:argocd-server" });
        let read: InterventionSpec = serde_json::from_value(spec.clone()).unwrap();
        assert_eq!(read.action, action);
        assert_eq!(
            serde_json::to_value(&read).unwrap(),
            spec,
            "no field is unknown"
        );
        let change = &object["status"]["change"];
        assert_eq!(
            (&spec["run"], &spec["digest"]),
            (&change["run"], &change["digest"])
        );
    }
}

#[test]
fn the_config_map_holds_the_scripts() {
    let data = document("argocd/argocd-cm.yaml")["data"].clone();
    let key = |of: &str| format!("resource.customizations.{of}.countersign.dev_Rollout");
    assert_eq!(
        data.as_object().unwrap().len(),
        2,
        "no standard libraries are switched on"
    );
    assert_eq!(data[key("health")], script("health.lua"));
    let actions: Value = serde_saphyr::from_str(data[key("actions")].as_str().unwrap()).unwrap();
    let definition =
        |name: &str| json!({ "name": name, "action.lua": script(&format!("{name}.lua")) });
    let expected = json!({
        "discovery.lua": script("discovery.lua"),
        "definitions": [definition("abort"), definition("pause")],
    });
    assert_eq!(actions, expected);
}

#[test]
fn scripts_have_no_library_that_argo_cd_leaves_out() {
    let libraries = "return { string = string ~= nil, math = math ~= nil, table = table ~= nil, io = io ~= nil }";
    let expected = json!({ "string": false, "math": false, "table": true, "io": false });
    assert_eq!(run(libraries, &json!({})), expected);
}
