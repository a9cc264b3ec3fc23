//! Whether the admission policies are installed as this plugin has them.

use std::collections::BTreeMap;

use countersign_core::admission::{PROOF, PROTECTION, objects};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, ResourceExt};
use serde_json::Value;

use crate::cluster::connection::Connection;
use crate::cluster::installation::{Installation, VERSION};
use crate::cluster::refusal::Refusal;
use crate::commands::check::finding::{Finding, Level, problems_or};

const SUBJECT: &str = "admission";
const GROUP: &str = "admissionregistration.k8s.io";
const KINDS: [&str; 4] = [
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

/// The specs of the installed policies and bindings by kind and name.
type Installed = BTreeMap<(String, String), Value>;

/// Compares the policies of an operator; `differing` is the level of one that is another version's.
pub async fn findings(
    connection: &Connection,
    operator: &Installation,
    differing: Level,
) -> Vec<Finding> {
    let lists = KINDS.iter().map(async |kind| {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1", kind));
        let api: Api<DynamicObject> = Api::all_with(connection.client(), &resource);
        (
            *kind,
            connection.ask(api.list(&ListParams::default())).await,
        )
    });
    let mut installed = Installed::new();
    let mut problems = Vec::new();
    let mut read = Vec::new();
    for (kind, list) in futures::future::join_all(lists).await {
        match list {
            Ok(list) => {
                read.push(kind);
                let objects = list.items.into_iter().map(|it| {
                    let spec = it.data.get("spec").cloned();
                    ((kind.to_owned(), it.name_any()), spec.unwrap_or_default())
                });
                installed.extend(objects);
            }
            // Kubernetes' version is a finding of its own.
            Err(Refusal::UnknownKind { .. }) => {}
            Err(refusal) => {
                let message = format!("not checked: {refusal}");
                problems.push(Finding::warning(SUBJECT, message));
            }
        }
    }
    let expected = objects(&[PROOF, PROTECTION].concat(), &operator.user);
    let expected = expected
        .iter()
        .filter(|it| read.contains(&text(it, "kind")));
    let compared: Vec<_> = expected.map(|it| compared(it, &installed)).collect();
    let good = format!(
        "all {} policies and bindings are those of version {VERSION}",
        compared.len()
    );
    let differences = compared.into_iter().flatten();
    problems.extend(differences.map(|difference| difference.finding(differing)));
    problems_or(problems, Finding::ok(SUBJECT, good))
}

/// How an installed object differs from the expected one.
#[derive(Debug, PartialEq, Eq)]
enum Difference {
    /// There is none of that kind and name.
    Missing(String),
    /// It has another spec.
    Other(String),
}

impl Difference {
    fn finding(self, differing: Level) -> Finding {
        match self {
            // The operator accepts that: the policy `stamped` demands what they would write.
            Self::Missing(object) if object.starts_with("Mutating") => {
                let message = format!(
                    "{object} is missing, so the requester writes what it would, or is refused: set admission.mutating to install it"
                );
                Finding::warning(SUBJECT, message)
            }
            Self::Missing(object) => {
                let message = format!(
                    "{object} is missing, so no sign-off counts: upgrade the chart's release"
                );
                Finding::failed(SUBJECT, message)
            }
            Self::Other(object) => {
                let message = format!(
                    "{object} is not that of version {VERSION}: upgrade the chart's release, and find out who altered it"
                );
                Finding::new(differing, SUBJECT, message)
            }
        }
    }
}

fn compared(expected: &Value, installed: &Installed) -> Option<Difference> {
    let kind = text(expected, "kind");
    let name = expected.pointer("/metadata/name").and_then(Value::as_str);
    let name = name.unwrap_or_default();
    let object = format!("{kind} {name}");
    match installed.get(&(kind.to_owned(), name.to_owned())) {
        None => Some(Difference::Missing(object)),
        Some(spec) if expected.get("spec") != Some(spec) => Some(Difference::Other(object)),
        Some(_) => None,
    }
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    let value = object.get(field).and_then(Value::as_str);
    value.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_missing_or_altered_is_named() {
        let expected = objects(&[PROOF, PROTECTION].concat(), "system:serviceaccount:a:b");
        let key = |object: &Value| {
            let name = object["metadata"]["name"].as_str().unwrap();
            (text(object, "kind").to_owned(), name.to_owned())
        };
        let mut installed: Installed = expected
            .iter()
            .map(|it| (key(it), it["spec"].clone()))
            .collect();
        let differences = |installed: &Installed| -> Vec<_> {
            let compared = expected.iter().map(|it| compared(it, installed));
            compared.flatten().collect()
        };
        assert!(differences(&installed).is_empty());

        let (kind, name) = key(&expected[0]);
        let object = format!("{kind} {name}");
        installed.insert((kind.clone(), name.clone()), json!({}));
        let altered = differences(&installed);
        assert_eq!(altered, [Difference::Other(object.clone())]);
        installed.remove(&(kind, name));
        assert_eq!(differences(&installed), [Difference::Missing(object)]);
        for (kind, level) in [
            ("MutatingAdmissionPolicy", Level::Warning),
            ("ValidatingAdmissionPolicyBinding", Level::Failed),
        ] {
            let missing = Difference::Missing(format!("{kind} changed-by"));
            assert_eq!(missing.finding(Level::Failed).level, level);
        }
        assert!(expected.iter().all(|it| KINDS.contains(&text(it, "kind"))));
    }
}
