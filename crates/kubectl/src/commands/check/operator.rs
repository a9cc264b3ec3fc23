//! The operator: its version, its pods, and which of them leads.

use countersign_api::MANAGER;
use countersign_core::leader::holder;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::jiff::Timestamp;

use crate::clock;
use crate::cluster::connection::Connection;
use crate::cluster::installation::{Installation, VERSION};
use crate::cluster::refusal::Refusal;
use crate::commands::check::finding::Finding;
use crate::output::age;

const SUBJECT: &str = "operator";
const LEADER: &str = "leader";

/// The operator among those that were found, and the findings on them.
pub fn chosen(found: Result<Vec<Installation>, Refusal>) -> (Option<Installation>, Vec<Finding>) {
    let mut found = match found {
        Ok(found) => found,
        Err(refusal) => {
            let message = format!(
                "not checked: {refusal}; --operator-namespace names the one in which you may read it"
            );
            return (None, vec![Finding::warning(SUBJECT, message)]);
        }
    };
    if found.len() > 1 {
        let names: Vec<_> = found
            .iter()
            .map(|it| format!("{}/{}", it.namespace, it.name))
            .collect();
        let message = format!(
            "the Deployments {} have the chart's labels, and operators overwrite each other's work: keep one, and name the namespace of the one to check by --operator-namespace",
            names.join(", ")
        );
        // Anybody may label a Deployment of their own.
        return (None, vec![Finding::failed(SUBJECT, message)]);
    }
    let Some(operator) = found.pop() else {
        let message = "no Deployment has the chart's labels, so no Rollout is reconciled: install the chart, or name its namespace by --operator-namespace";
        return (None, vec![Finding::failed(SUBJECT, message)]);
    };
    let findings = vec![version(&operator), pods(&operator)];
    (Some(operator), findings)
}

fn version(operator: &Installation) -> Finding {
    match operator.skew() {
        Some(skew) => Finding::warning("version", skew),
        None => Finding::ok("version", format!("operator and plugin are {VERSION}")),
    }
}

fn pods(operator: &Installation) -> Finding {
    let name = format!("Deployment {}/{}", operator.namespace, operator.name);
    match operator.available {
        0 => {
            let message = format!(
                "{name} has no available pod, so nothing is promoted and no bad canary is rolled back: see `kubectl describe deployment {} -n {}`",
                operator.name, operator.namespace
            );
            Finding::failed(SUBJECT, message)
        }
        count => Finding::ok(SUBJECT, format!("{name} has {count} available")),
    }
}

/// Which pod leads, by the Lease.
pub async fn leader(connection: &Connection, operator: &Installation) -> Finding {
    let leases = connection.within::<Lease>(&operator.namespace);
    match connection.ask(leases.get_opt(MANAGER)).await {
        Ok(lease) => {
            let spec = lease.and_then(|lease| lease.spec);
            held(&spec.unwrap_or_default(), clock::now())
        }
        Err(refusal) => Finding::warning(LEADER, format!("not checked: {refusal}")),
    }
}

fn held(lease: &LeaseSpec, now: Timestamp) -> Finding {
    let nobody = "no pod leads, so nothing is decided: see the operator's log";
    let Some(holder) = holder(lease, now) else {
        return Finding::failed(LEADER, nobody);
    };
    let (name, since) = (holder.name, age(holder.renewed, now));
    if !holder.leads {
        let message = format!("{nobody}; {name} led last, {since} ago");
        return Finding::failed(LEADER, message);
    }
    let led = lease.acquire_time.as_ref();
    let led = led.map_or_else(String::new, |at| format!(" since {}", age(at.0, now)));
    Finding::ok(LEADER, format!("{name} leads{led}, renewed {since} ago"))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use k8s_openapi::jiff::SignedDuration;

    use super::*;
    use crate::commands::check::finding::Level;
    use crate::view::tests::now;

    fn installed(version: &str, available: i32) -> Installation {
        Installation {
            namespace: "system".into(),
            name: "countersign".into(),
            version: version.into(),
            available,
            ..Installation::default()
        }
    }

    fn levels(findings: &[Finding]) -> Vec<Level> {
        findings.iter().map(|it| it.level).collect()
    }

    #[test]
    fn an_operator_is_judged_by_its_version_and_its_pods() {
        let (operator, findings) = chosen(Ok(vec![installed(VERSION, 2)]));
        assert!(operator.is_some());
        assert_eq!(levels(&findings), [Level::Ok, Level::Ok]);
        let (_, findings) = chosen(Ok(vec![installed("9.1.0", 0)]));
        assert_eq!(levels(&findings), [Level::Warning, Level::Failed]);

        let (operator, findings) = chosen(Ok(Vec::new()));
        assert!(operator.is_none());
        assert_eq!(levels(&findings), [Level::Failed]);
        let two = vec![installed(VERSION, 2), installed(VERSION, 2)];
        let (operator, findings) = chosen(Ok(two));
        assert!(operator.is_none() && findings[0].message.contains("--operator-namespace"));
        assert_eq!(levels(&findings), [Level::Failed]);
        let (operator, findings) = chosen(Err(Refusal::Other("why".into())));
        assert!(operator.is_none() && findings[0].message.contains("why"));
        assert_eq!(levels(&findings), [Level::Warning]);
    }

    #[test]
    fn a_lease_that_is_not_renewed_has_no_leader() {
        let ago = |seconds| Some(MicroTime(now() - SignedDuration::from_secs(seconds)));
        let lease = |renewed| LeaseSpec {
            holder_identity: Some("countersign-0".into()),
            acquire_time: ago(600),
            renew_time: ago(renewed),
            ..LeaseSpec::default()
        };
        assert_eq!(
            held(&lease(2), now()),
            Finding::ok(LEADER, "countersign-0 leads since 10m, renewed 2s ago")
        );
        let stale = held(&lease(90), now());
        assert!(stale.level == Level::Failed && stale.message.ends_with("led last, 90s ago"));
        let released = LeaseSpec {
            holder_identity: Some(String::new()),
            ..lease(2)
        };
        assert_eq!(held(&released, now()).level, Level::Failed);
        assert_eq!(held(&LeaseSpec::default(), now()).level, Level::Failed);
    }
}
