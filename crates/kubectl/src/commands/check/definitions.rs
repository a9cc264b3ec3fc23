//! Whether the CustomResourceDefinitions are installed as this plugin has them.

use countersign_api::is_established;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use serde_json::Value;

use crate::cluster::connection::Connection;
use crate::cluster::installation::VERSION;
use crate::cluster::refusal::Refusal;
use crate::commands::check::finding::{Finding, Level, problems_or};

const SUBJECT: &str = "definitions";
const REMEDY: &str =
    "`kubectl countersign crds | kubectl apply --server-side -f -` installs it, or the chart does";

/// Compares the definitions; `differing` is the level of one that is another version's.
pub async fn findings(connection: &Connection, differing: Level) -> Vec<Finding> {
    let definitions = connection.cluster::<CustomResourceDefinition>();
    let ours = countersign_api::crds();
    let compared = ours.iter().map(async |ours| {
        let name = ours.name_any();
        let found = connection.ask(definitions.get_opt(&name)).await;
        compared(ours, found, differing)
    });
    let compared = futures::future::join_all(compared).await;
    let good = format!("all {} are those of version {VERSION}", ours.len());
    problems_or(
        compared.into_iter().flatten().collect(),
        Finding::ok(SUBJECT, good),
    )
}

fn compared(
    ours: &CustomResourceDefinition,
    found: Result<Option<CustomResourceDefinition>, Refusal>,
    differing: Level,
) -> Option<Finding> {
    let name = ours.name_any();
    let found = match found {
        Ok(Some(found)) => found,
        Ok(None) => {
            let message = format!("{name} is missing: {REMEDY}");
            return Some(Finding::failed(SUBJECT, message));
        }
        Err(refusal) => {
            let message = format!("not checked: {refusal}");
            return Some(Finding::warning(SUBJECT, message));
        }
    };
    if !is_established(&found) {
        let message = format!(
            "{name} is not established: `kubectl describe crd {name}` shows what the API server objects to"
        );
        return Some(Finding::failed(SUBJECT, message));
    }
    let place = difference(&versions(ours), &versions(&found))?;
    let message = format!("{name} is another version's (spec.versions{place} differs): {REMEDY}");
    Some(Finding::new(differing, SUBJECT, message))
}

fn versions(definition: &CustomResourceDefinition) -> Value {
    serde_json::to_value(&definition.spec.versions).unwrap_or_default()
}

/// The first place at which two values differ. A number is the same whether or not it is written with a
/// fraction.
fn difference(ours: &Value, theirs: &Value) -> Option<String> {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let others = theirs.keys().filter(|key| !ours.contains_key(*key));
            let mut keys = ours.keys().chain(others);
            keys.find_map(|key| {
                let inner = match (ours.get(key), theirs.get(key)) {
                    (Some(ours), Some(theirs)) => difference(ours, theirs)?,
                    // The API server leaves out what says nothing.
                    (Some(Value::Bool(false) | Value::Null), None) => return None,
                    _ => String::new(),
                };
                Some(format!(".{key}{inner}"))
            })
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            let mut places = ours.iter().zip(theirs).enumerate();
            places.find_map(|(at, (ours, theirs))| {
                Some(format!("[{at}]{}", difference(ours, theirs)?))
            })
        }
        (Value::Number(ours), Value::Number(theirs)) => {
            (ours.as_f64() != theirs.as_f64()).then(String::new)
        }
        _ => (ours != theirs).then(String::new),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn installed() -> CustomResourceDefinition {
        let mut definition = countersign_api::crds().remove(0);
        let status = json!({
            "acceptedNames": { "kind": "Rollout", "plural": "rollouts" }, "storedVersions": ["v1alpha1"],
            "conditions": [{ "type": "Established", "status": "True" }],
        });
        definition.status = Some(serde_json::from_value(status).unwrap());
        definition
    }

    #[test]
    fn a_definition_that_is_missing_older_or_unreadable_is_named() {
        let ours = countersign_api::crds().remove(0);
        let compared = |found| compared(&ours, found, Level::Failed);
        assert_eq!(compared(Ok(Some(installed()))), None);

        let missing = compared(Ok(None)).unwrap();
        assert_eq!(missing.level, Level::Failed);
        assert!(
            missing
                .message
                .starts_with("rollouts.countersign.dev is missing: ")
        );

        let mut older = installed();
        older.spec.versions[0].additional_printer_columns = None;
        let older = compared(Ok(Some(older))).unwrap();
        assert!(
            older
                .message
                .contains("spec.versions[0].additionalPrinterColumns differs"),
            "{}",
            older.message
        );

        let mut refused = installed();
        refused.status = None;
        let refused = compared(Ok(Some(refused))).unwrap();
        assert!(refused.message.contains("is not established"));

        let unread = compared(Err(Refusal::Other("why".into()))).unwrap();
        assert_eq!(unread, Finding::warning(SUBJECT, "not checked: why"));
    }

    #[test]
    fn the_first_difference_is_named_by_its_place() {
        let ours = json!({ "a": [{ "b": 1 }, { "c": 2.0 }] });
        let place = |theirs: Value| difference(&ours, &theirs);
        assert_eq!(place(json!({ "a": [{ "b": 1.0 }, { "c": 2 }] })), None);
        let other = place(json!({ "a": [{ "b": 1 }, { "c": 3 }] }));
        assert_eq!(other.as_deref(), Some(".a[1].c"));
        let more = place(json!({ "a": [{ "b": 1, "d": 0 }, { "c": 2 }] }));
        assert_eq!(more.as_deref(), Some(".a[0].d"));
        let unsaid = json!({ "a": [], "nullable": false });
        assert_eq!(difference(&unsaid, &json!({ "a": [] })), None);
        let fewer = place(json!({ "a": [] }));
        assert_eq!(fewer.as_deref(), Some(".a"));
    }
}
