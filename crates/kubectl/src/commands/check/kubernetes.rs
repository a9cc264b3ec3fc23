//! The version of Kubernetes and what it lacks, and the kinds of routes that it serves.

use std::collections::{BTreeMap, BTreeSet};

use countersign_api::{Rollout, RouteKind};
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::ResourceExt;

use crate::cluster::connection::Connection;
use crate::cluster::refusal::Refusal;
use crate::commands::check::finding::Finding;

const SUBJECT: &str = "kubernetes";
const ROUTES: &str = "routes";
const ADMISSION: &str = "admissionregistration.k8s.io/v1";
/// The first minor version of Kubernetes 1 whose custom resources have selectable fields without a feature gate.
const SELECTABLE_FIELDS: u32 = 31;

/// The kinds that an API version serves.
type Served = BTreeMap<String, BTreeSet<String>>;

/// The version with what it lacks, and the routes, those of a Rollout among them.
pub async fn findings(connection: &Connection, rollout: Option<&Rollout>) -> Vec<Finding> {
    let client = connection.client();
    let version = connection.ask(client.apiserver_version()).await;
    let version = match version {
        Ok(version) => version,
        Err(refusal) => return vec![Finding::failed(SUBJECT, refusal.to_string())],
    };
    match served(connection).await {
        Ok(served) => {
            let mut findings = of_version(&version, &served);
            findings.extend(routes(&served, rollout));
            findings
        }
        Err(refusal) => vec![Finding::warning(SUBJECT, format!("not checked: {refusal}"))],
    }
}

/// What the API versions serve that matter here.
async fn served(connection: &Connection) -> Result<Served, Refusal> {
    let client = connection.client();
    let groups = connection.ask(client.list_api_groups()).await?.groups;
    let versions = groups.into_iter().flat_map(|group| group.versions);
    let wanted: BTreeSet<&str> = RouteKind::ALL
        .iter()
        .flat_map(|kind| kind.api_versions())
        .copied()
        .chain([ADMISSION])
        .collect();
    let versions = versions
        .map(|version| version.group_version)
        .filter(|version| wanted.contains(version.as_str()));
    let lists = versions.map(|version| {
        let client = client.clone();
        async move {
            let resources = client.list_api_group_resources(&version);
            let list = connection.ask(resources).await?;
            let kinds: BTreeSet<_> = list.resources.into_iter().map(|it| it.kind).collect();
            Ok::<_, Refusal>((version, kinds))
        }
    });
    futures::future::try_join_all(lists)
        .await
        .map(|served| served.into_iter().collect())
}

fn of_version(version: &Info, served: &Served) -> Vec<Finding> {
    let mut findings = vec![Finding::ok(SUBJECT, version.git_version.clone())];
    let has = |kind: &str| served.get(ADMISSION).is_some_and(|it| it.contains(kind));
    if !has("MutatingAdmissionPolicy") {
        let message = format!(
            "{} serves no MutatingAdmissionPolicy, as 1.36 does, so the requester must write the stamp countersign.dev/changed-by of a Rollout, and the person of a SignOff, an Intervention or a Freeze, or is refused (policy `stamped`); the commands of this plugin write both",
            version.git_version
        );
        findings.push(Finding::warning(SUBJECT, message));
    }
    if minor(version).is_some_and(|minor| minor < SELECTABLE_FIELDS) {
        let message = format!(
            "{} has no selectable fields, as 1.{SELECTABLE_FIELDS} does: --field-selector selects by name and namespace alone",
            version.git_version
        );
        findings.push(Finding::warning(SUBJECT, message));
    }
    findings
}

/// The minor version of Kubernetes 1, which some distributions write with a `+`.
fn minor(version: &Info) -> Option<u32> {
    let digits: String = version
        .minor
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().ok().filter(|_| version.major == "1")
}

fn routes(served: &Served, rollout: Option<&Rollout>) -> Vec<Finding> {
    let version_of = |kind: RouteKind| {
        let mut versions = kind.api_versions().iter();
        versions.find(|version| {
            let kinds = served.get(**version);
            kinds.is_some_and(|kinds| kinds.contains(kind.as_str()))
        })
    };
    let found: Vec<_> = RouteKind::ALL
        .into_iter()
        .filter_map(|kind| Some(format!("{kind} of {}", version_of(kind)?)))
        .collect();
    let mut findings = vec![Finding::ok(
        ROUTES,
        if found.is_empty() {
            "no kind of route is served: the weight of a canary is its share of the pods".to_owned()
        } else {
            found.join(", ")
        },
    )];
    let Some(rollout) = rollout else {
        return findings;
    };
    let traffic = rollout.spec.strategy.canary.traffic.iter();
    for route in traffic.flat_map(|traffic| &traffic.routes) {
        if version_of(route.kind).is_none() {
            let message = format!(
                "Rollout {} names {} {}, and the API server serves no such kind: install its definitions, or remove it from spec.strategy.canary.traffic",
                rollout.name_any(),
                route.kind,
                route.name
            );
            findings.push(Finding::failed(ROUTES, message));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::check::finding::Level;
    use crate::view::tests::at_rest;

    fn version(minor: &str) -> Info {
        Info {
            major: "1".into(),
            minor: minor.into(),
            git_version: format!("v1.{minor}.0"),
            ..Info::default()
        }
    }

    fn served(api_version: &str, kind: &str) -> Served {
        Served::from([(api_version.to_owned(), BTreeSet::from([kind.to_owned()]))])
    }

    #[test]
    fn what_an_older_kubernetes_lacks_is_named() {
        let all = served(ADMISSION, "MutatingAdmissionPolicy");
        let good = of_version(&version("36+"), &all);
        assert_eq!(good, [Finding::ok(SUBJECT, "v1.36+.0")]);
        let older = of_version(&version("30"), &Served::new());
        assert_eq!(older.len(), 3);
        assert!(older[1].message.contains("MutatingAdmissionPolicy"));
        assert!(older[2].message.contains("selectable fields"));
    }

    #[test]
    fn a_route_of_a_kind_that_is_not_served_fails() {
        let mut rollout = at_rest();
        let traffic = json!({ "routes": [{ "kind": "TLSRoute", "name": "web" }] });
        rollout.spec.strategy.canary.traffic = serde_json::from_value(traffic).unwrap();
        let none = routes(&Served::new(), Some(&rollout));
        assert!(none[0].message.starts_with("no kind of route"));
        assert_eq!(none[1].level, Level::Failed);
        assert!(none[1].message.contains("TLSRoute web"));

        let served = served("gateway.networking.k8s.io/v1alpha3", "TLSRoute");
        let some = routes(&served, Some(&rollout));
        let message = "TLSRoute of gateway.networking.k8s.io/v1alpha3";
        assert_eq!(some, [Finding::ok(ROUTES, message)]);
    }
}
