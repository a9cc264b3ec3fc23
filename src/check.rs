//! Whether an installation is complete: definitions, admission policies, a leader, Prometheus. `helm test` runs it with
//! the operator's own options and `ServiceAccount`.
//!
//! **Invariant:** it only reads.

use std::time::Duration;

use countersign_api::{MANAGER, is_established};
use countersign_core::observation::people::IncidentAnswer;
use futures::future::join_all;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use tokio::time::Instant;

use crate::api_server::sentence;
use crate::clock;
use crate::observe::admission::AdmissionCheck;
use crate::operator::{self, Error, Options};
use crate::prometheus::Prometheus;
use crate::timing::{CHECK_INTERVAL, LEASE_ABANDONED};

/// A query that needs no series.
const QUERY: &str = "vector(0)";
/// A field of definitions that Kubernetes before 1.31 does not keep.
const OPTIONAL: &str = "selectableFields";

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
        Ok(Some(found)) if !is_same(expected, &found) => {
            "is not that of this version of the operator: upgrade the chart's release".to_owned()
        }
        Ok(Some(found)) if !is_established(&found) => "is not served yet".to_owned(),
        Ok(Some(_)) => return None,
        Ok(None) => "is missing: upgrade the chart's release".to_owned(),
        Err(error) => format!("cannot be read: {}", sentence(&error)),
    };
    Some(format!("CustomResourceDefinition {name} {problem}"))
}

fn is_same(expected: &CustomResourceDefinition, found: &CustomResourceDefinition) -> bool {
    let spec = |it: &CustomResourceDefinition| serde_json::to_value(&it.spec).ok();
    spec(expected).is_some_and(|written| is_stored(&written, spec(found).as_ref()))
}

/// Whether a value is stored as it was written. The API server fills in fields, leaves out what is empty, and writes
/// 1.0 as 1.
fn is_stored(written: &Value, stored: Option<&Value>) -> bool {
    match (written, stored) {
        (written, None) => {
            let empty = ["null", "false", "0", "0.0", "\"\"", "[]", "{}"];
            empty.contains(&written.to_string().as_str())
        }
        (Value::Object(written), Some(Value::Object(stored))) => written
            .iter()
            .filter(|(key, _)| *key != OPTIONAL)
            .all(|(key, value)| is_stored(value, stored.get(key))),
        (Value::Array(written), Some(Value::Array(stored))) => {
            let mut pairs = written.iter().zip(stored);
            written.len() == stored.len() && pairs.all(|(a, b)| is_stored(a, Some(b)))
        }
        (Value::Number(written), Some(Value::Number(stored))) => {
            written.as_f64().map(f64::to_bits) == stored.as_f64().map(f64::to_bits)
        }
        (written, Some(stored)) => written == stored,
    }
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
    let holder = lease.holder_identity.as_deref();
    if holder.unwrap_or_default().is_empty() {
        return Some("has no holder: no replica leads".to_owned());
    }
    let renewed = lease.renew_time.as_ref();
    let renewed = renewed.map_or(Timestamp::UNIX_EPOCH, |it| it.0);
    let abandoned = now.duration_since(renewed) > LEASE_ABANDONED;
    abandoned.then(|| format!("was renewed last at {renewed:.0}: no replica leads"))
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
                "CustomResourceDefinition signoffs.countersign.dev is not that of this version of the operator: upgrade the chart's release",
            ]
        );
    }

    #[test]
    fn a_value_is_stored_with_further_fields_and_without_empty_ones() {
        let written = json!({
            "a": [{ "b": 1.0, "empty": [], "selectableFields": [{ "jsonPath": ".a" }] }], "off": false,
        });
        assert!(is_stored(
            &written,
            Some(&json!({ "a": [{ "b": 1, "more": 2 }] }))
        ));
        for other in [
            json!({ "a": [{ "b": 2 }] }),
            json!({ "a": [] }),
            json!({ "a": [{ "b": 1 }, {}] }),
            json!({ "a": [{ "b": 1 }], "off": true }),
            json!({}),
        ] {
            assert!(!is_stored(&written, Some(&other)), "{other}");
        }
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
