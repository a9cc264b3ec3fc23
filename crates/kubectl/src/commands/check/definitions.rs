//! Whether the CustomResourceDefinitions are installed as this plugin has them.

use countersign_api::definition::difference;
use countersign_api::is_established;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;

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
    let place = difference(ours, &found)?;
    let message = format!("{name} is another version's ({place} differs): {REMEDY}");
    Some(Finding::new(differing, SUBJECT, message))
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
}
