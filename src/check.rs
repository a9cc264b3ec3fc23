//! Whether an installation is complete: definitions, admission policies, a leader, Prometheus. `helm test` runs it with
//! the operator's own options and `ServiceAccount`.
//!
//! **Invariant:** it only reads.

use std::time::Duration;

use countersign_api::definition::difference;
use countersign_api::{MANAGER, is_established};
use countersign_core::leader::{Holder, holder};
use countersign_core::observation::people::IncidentAnswer;
use futures::future::join_all;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client, ResourceExt};
use tokio::time::Instant;

use crate::api_server::sentence;
use crate::clock;
use crate::observe::admission::AdmissionCheck;
use crate::operator::{self, Error, Options};
use crate::prometheus::Prometheus;
use crate::timing::CHECK_INTERVAL;

/// A query that needs no series.
const QUERY: &str = "vector(0)";

/// What the installation lacks, each in a sentence: nothing, or what it still lacks after this time.
pub fn run(options: &Options, wait: Duration) -> Result<Vec<String>, Error> {
    operator::runtime()?.block_on(lacking(options, wait))
}

async fn lacking(options: &Options, wait: Duration) -> Result<Vec<String>, Error> {
    let client = operator::client().await?;
    let prometheus = Prometheus::new(&options.prometheus())?;
    let give_up = Instant::now() + wait;
    loop {
        let problems = problems(&client, &prometheus, &options.namespace).await;
        if problems.is_empty() || Instant::now() >= give_up {
            return Ok(problems);
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

async fn problems(client: &Client, prometheus: &Prometheus, namespace: &str) -> Vec<String> {
    let admission = AdmissionCheck::new(client.clone());
    let (mut problems, admission, leader, answer) = tokio::join!(
        definitions(client),
        admission.check(),
        leader(client, namespace),
        prometheus.incident(QUERY, clock::now()),
    );
    problems.extend(admission.problems);
    problems.extend(leader);
    if let IncidentAnswer::Unknown { message } = answer {
        problems.push(format!("the query `{QUERY}`: {message}"));
    }
    problems
}

async fn definitions(client: &Client) -> Vec<String> {
    let installed: Api<CustomResourceDefinition> = Api::all(client.clone());
    let expected = countersign_api::crds();
    let checks = expected
        .iter()
        .map(|expected| definition(&installed, expected));
    join_all(checks).await.into_iter().flatten().collect()
}

async fn definition(
    installed: &Api<CustomResourceDefinition>,
    expected: &CustomResourceDefinition,
) -> Option<String> {
    let name = expected.name_any();
    let problem = match installed.get_opt(&name).await {
        Ok(Some(found)) => match difference(expected, &found) {
            Some(place) => format!(
                "is not that of this version of the operator ({place} differs): upgrade the chart's release"
            ),
            None if is_established(&found) => return None,
            None => "is not served yet".to_owned(),
        },
        Ok(None) => "is missing: upgrade the chart's release".to_owned(),
        Err(error) => format!("cannot be read: {}", sentence(&error)),
    };
    Some(format!("CustomResourceDefinition {name} {problem}"))
}

async fn leader(client: &Client, namespace: &str) -> Option<String> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let problem = match leases.get_opt(MANAGER).await {
        Ok(Some(lease)) => unheld(&lease.spec.unwrap_or_default(), clock::now())?,
        Ok(None) => "does not exist: no replica has led yet".to_owned(),
        Err(error) => format!("cannot be read: {}", sentence(&error)),
    };
    Some(format!("Lease {namespace}/{MANAGER} {problem}"))
}

/// Why no replica leads.
fn unheld(lease: &LeaseSpec, now: Timestamp) -> Option<String> {
    let Some(Holder { renewed, leads, .. }) = holder(lease, now) else {
        return Some("has no holder: no replica leads".to_owned());
    };
    (!leads).then(|| format!("was renewed last at {renewed:.0}: no replica leads"))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use serde_json::json;

    use super::*;
    use crate::stand_in::{Fault, RecordedRequest, StandIn};

    const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

    #[tokio::test]
    async fn each_definition_that_is_missing_altered_or_not_served_is_named() {
        let server = StandIn::new();
        let established = json!({ "conditions": [{ "type": "Established", "status": "True" }] });
        for crd in countersign_api::crds() {
            let mut stored = json!(crd);
            // As the API server fills in.
            stored["spec"]["conversion"] = json!({ "strategy": "None" });
            stored["status"] = established.clone();
            let name = crd.name_any();
            match name.as_str() {
                "signoffs.countersign.dev" => {
                    let version = &mut stored["spec"]["versions"][0];
                    let schema = &mut version["schema"]["openAPIV3Schema"]["properties"];
                    schema["spec"]["properties"]["reason"]["maxLength"] = json!(7);
                }
                "rolloutruns.countersign.dev" => stored["status"] = json!({}),
                _ => {}
            }
            server.put(&format!("{DEFINITIONS}/{name}"), stored);
        }
        let missing = |it: &RecordedRequest| it.path.ends_with("/freezes.countersign.dev");
        server.fails(move |it| missing(it).then_some(Fault::Refuse(404)));
        let mut problems = definitions(&server.client()).await;
        problems.sort();
        assert_eq!(
            problems,
            [
                "CustomResourceDefinition freezes.countersign.dev is missing: upgrade the chart's release",
                "CustomResourceDefinition rolloutruns.countersign.dev is not served yet",
                "CustomResourceDefinition signoffs.countersign.dev is not that of this version of the operator (spec.versions[0].schema.openAPIV3Schema.properties.spec.properties.reason.maxLength differs): upgrade the chart's release",
            ]
        );
    }

    #[test]
    fn a_lease_is_held_if_it_has_a_holder_that_renews_it() {
        let now: Timestamp = "2026-11-29T12:00:00Z".parse().unwrap();
        let lease = |holder: &str, renewed: &str| LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            renew_time: Some(MicroTime(renewed.parse().unwrap())),
            ..LeaseSpec::default()
        };
        assert_eq!(unheld(&lease("a", "2026-11-29T11:59:58Z"), now), None);
        assert_eq!(
            unheld(&lease("a", "2026-11-29T11:50:00Z"), now).unwrap(),
            "was renewed last at 2026-11-29T11:50:00Z: no replica leads"
        );
        for lease in [lease("", "2026-11-29T11:59:58Z"), LeaseSpec::default()] {
            let why = unheld(&lease, now).unwrap();
            assert_eq!(why, "has no holder: no replica leads");
        }
    }
}
