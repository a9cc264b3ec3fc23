//! A Rollout of Argo Rollouts.

use serde_json::{Map, Value};

use crate::commands::convert::argo::{blue_green, canary};
use crate::commands::convert::document::{object, put};
use crate::commands::convert::foreign::{Field, Object, metadata};

/// The Rollout; none if its pods cannot be selected as they were.
pub fn convert<'a>(rollout: &'a Object<'a>, objects: &'a [Object<'a>]) -> Vec<Value> {
    let root = rollout.root();
    let metadata = metadata(&root);
    let Some(spec) = root.get("spec") else {
        root.missing("spec", "there is nothing to convert");
        return Vec::new();
    };
    let mut converted = Map::new();
    for key in [
        "replicas",
        "minReadySeconds",
        "revisionHistoryLimit",
        "progressDeadlineSeconds",
    ] {
        put(&mut converted, key, spec.int(key));
    }
    put(
        &mut converted,
        "paused",
        spec.flag("paused").filter(|it| *it),
    );
    if !pods(&spec, &mut converted) {
        return Vec::new();
    }
    others(&spec);
    let replicas = spec.int("replicas").unwrap_or(1);
    if let Some(strategy) = strategy(&spec, replicas, &metadata, objects) {
        let strategy = Map::from_iter([("canary".to_owned(), strategy.into())]);
        put(&mut converted, "strategy", Some(strategy));
    }
    vec![object("Rollout", metadata, converted)]
}

fn strategy<'a>(
    spec: &Field<'a>,
    replicas: i64,
    metadata: &Map<String, Value>,
    objects: &'a [Object<'a>],
) -> Option<Map<String, Value>> {
    let strategy = spec.get("strategy")?;
    if let Some(blue_green) = strategy.get("blueGreen") {
        return Some(blue_green::strategy(
            &blue_green,
            replicas,
            metadata,
            objects,
        ));
    }
    let canary = strategy.get("canary")?;
    Some(canary::strategy(&canary, replicas, metadata, objects))
}

/// The pods: a template with its selector, or the Deployment that has them.
fn pods(spec: &Field<'_>, converted: &mut Map<String, Value>) -> bool {
    if let Some(workload) = spec.get("workloadRef") {
        workload.skip_all(&["apiVersion"]);
        let kind = workload.text("kind").unwrap_or_default();
        if kind != "Deployment" {
            workload
                .lost("only a Deployment is adopted: write its pod template into spec.template");
            return false;
        }
        if workload.text("scaleDown") == Some("never") {
            workload.decide("the Deployment is scaled to 0 once the Rollout's pods serve");
        }
        let name = workload.text("name").unwrap_or_default();
        let reference = Map::from_iter([("name".to_owned(), name.into())]);
        put(converted, "workloadRef", Some(reference));
        spec.skip_all(&["selector"]);
        return true;
    }
    if let Some(selector) = spec.get("selector") {
        if let [expression, ..] = selector.items("matchExpressions").as_slice() {
            expression.lost("pods are selected by matchLabels alone: give them labels that state the same, in a Rollout of another name");
            return false;
        }
        put(
            converted,
            "selector",
            selector
                .value("matchLabels")
                .map(|labels| Map::from_iter([("matchLabels".to_owned(), labels)])),
        );
    }
    put(converted, "template", spec.value("template"));
    true
}

/// Fields of the spec that have another place here, or none.
fn others(spec: &Field<'_>) {
    // A change that makes no progress is always rolled back here.
    spec.skip_all(&["progressDeadlineAbort"]);
    spec.drop_all(
        &["analysis"],
        "has no counterpart: revisionHistoryLimit is the number of RolloutRuns",
    );
    spec.drop_all(
        &["restartAt"],
        "has no counterpart: `kubectl countersign restart`",
    );
    spec.drop_all(
        &["rollbackWindow"],
        "has no counterpart: a return to an older template is staged by its risk",
    );
}
