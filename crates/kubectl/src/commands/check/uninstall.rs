//! What would remain if the operator were uninstalled now.

use countersign_api::{KEEP_FINALIZER, Rollout};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use kube::api::ListParams;

use crate::cluster::connection::Connection;
use crate::cluster::refusal::Refusal;
use crate::commands::check::finding::{Finding, problems_or};

/// A finding for each Rollout of the cluster.
pub async fn findings(connection: &Connection) -> Result<Vec<Finding>, Refusal> {
    let rollouts = connection.everywhere::<Rollout>();
    let rollouts = connection
        .ask(rollouts.list(&ListParams::default()))
        .await?;
    let mut findings = Vec::new();
    for rollout in &rollouts.items {
        findings.extend(of(rollout, adopted(connection, rollout).await));
    }
    let good = Finding::ok("uninstall", "there is no Rollout");
    Ok(problems_or(findings, good))
}

/// The requested pods of the Deployment that a Rollout adopts, or why they are not known.
async fn adopted(
    connection: &Connection,
    rollout: &Rollout,
) -> Option<(String, Result<i32, Refusal>)> {
    let name = rollout.spec.workload_ref.as_ref()?.name.clone();
    let namespace = rollout.namespace().unwrap_or_default();
    let deployments = connection.within::<Deployment>(&namespace);
    let deployment = connection.ask(deployments.get(&name)).await;
    let replicas = deployment.map(|it| it.spec.replicas.unwrap_or(1));
    Some((name, replicas))
}

fn of(rollout: &Rollout, adopted: Option<(String, Result<i32, Refusal>)>) -> Vec<Finding> {
    let namespace = rollout.namespace().unwrap_or_default();
    let name = rollout.name_any();
    let subject = format!("rollout {namespace}/{name}");
    let mut findings = vec![match under_way(rollout) {
        Some(state) => Finding::failed(&subject, state),
        None => Finding::warning(&subject, remains(rollout)),
    }];
    match adopted {
        Some((deployment, Ok(0))) => {
            let message = format!(
                "Deployment {deployment} remains with 0 replicas: `kubectl countersign unmigrate {name} -n {namespace}` returns its pods first"
            );
            findings.push(Finding::warning(&subject, message));
        }
        Some((deployment, Err(refusal))) => {
            let message = format!("Deployment {deployment} is not checked: {refusal}");
            findings.push(Finding::warning(&subject, message));
        }
        _ => {}
    }
    if rollout.finalizers().iter().any(|it| it == KEEP_FINALIZER) {
        let message = format!(
            "it has the finalizer {KEEP_FINALIZER}, so it and its namespace can be deleted only while the operator runs: delete it first, or set spec.deletionPolicy to Delete"
        );
        findings.push(Finding::warning(&subject, message));
    }
    findings
}

/// What the operator has begun with a Rollout and would leave undone.
fn under_way(rollout: &Rollout) -> Option<String> {
    if rollout.metadata.deletion_timestamp.is_some() {
        return Some(
            "it is being deleted, which the operator has to finish: wait until it is gone".into(),
        );
    }
    let status = rollout.status.as_ref();
    let change = status.and_then(|status| status.change.as_ref())?;
    if change.outcome.is_some() {
        return None;
    }
    let step = status.and_then(|status| status.step.as_deref());
    Some(format!(
        "a change is under way at step {}, whose canary would keep {}% of the traffic unjudged: wait for its end, or abort it",
        step.unwrap_or("0"),
        change.weight
    ))
}

/// What serves on without the operator, and stays as it is.
fn remains(rollout: &Rollout) -> String {
    let status = rollout.status.as_ref();
    let stable = status.and_then(|status| status.stable.as_ref());
    let pods = stable.map_or_else(
        || "no revision serves".to_owned(),
        |stable| {
            format!(
                "ReplicaSet {}-{} keeps its pods, and no edit is rolled out",
                rollout.name_any(),
                stable.pod_template_hash
            )
        },
    );
    let services = status.into_iter().flat_map(|status| &status.services);
    let services = services
        .map(|service| format!("Service {service} keeps pod-template-hash in its selector"));
    let traffic = rollout.spec.strategy.canary.traffic.iter();
    let routes = traffic.flat_map(|traffic| &traffic.routes);
    let routes = routes.map(|route| format!("{} {} keeps its weights", route.kind, route.name));
    let parts: Vec<_> = [pods].into_iter().chain(services).chain(routes).collect();
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::check::finding::Level;
    use crate::view::tests::{at_rest, waiting};

    #[test]
    fn a_change_under_way_and_a_deletion_fail() {
        let change = of(&waiting().rollout, None);
        assert_eq!(change[0].level, Level::Failed);
        let message = &change[0].message;
        assert!(
            message.contains("at step 1/2") && message.contains("20%"),
            "{message}"
        );
        let mut deleted = at_rest();
        deleted.metadata.deletion_timestamp =
            serde_json::from_value(json!("2026-03-01T12:00:00Z")).unwrap();
        assert_eq!(of(&deleted, None)[0].level, Level::Failed);
    }

    #[test]
    fn what_remains_of_a_rollout_is_named() {
        let mut rollout = at_rest();
        let canary = &mut rollout.spec.strategy.canary;
        let traffic = json!({ "routes": [{ "name": "web" }] });
        canary.traffic = serde_json::from_value(traffic).unwrap();
        rollout.status.as_mut().unwrap().services = ["web-stable".to_owned()].into();
        assert_eq!(
            of(&rollout, None),
            [Finding::warning(
                "rollout shop/web",
                "ReplicaSet web-aaa111 keeps its pods, and no edit is rolled out; Service web-stable keeps pod-template-hash in its selector; HTTPRoute web keeps its weights"
            )]
        );
        rollout.metadata.finalizers = Some(vec![KEEP_FINALIZER.into()]);
        let adopts = of(&rollout, Some(("web".into(), Ok(0))));
        assert_eq!(adopts.len(), 3);
        assert!(adopts[1].message.contains("unmigrate web -n shop"));
        assert!(adopts[2].message.contains(KEEP_FINALIZER));
        let back = of(&rollout, Some(("web".into(), Ok(4))));
        assert_eq!(back.len(), 2);
    }
}
