//! A single permission of a role, and who has it.

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;

/// One thing that a role allows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission {
    pub verb: String,
    /// With its subresource, such as `rollouts/status`.
    pub resource: String,
    pub group: String,
    pub name: Option<String>,
}

impl fmt::Display for Permission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.verb, self.resource)?;
        if let Some(name) = &self.name {
            write!(formatter, " {name}")?;
        }
        Ok(())
    }
}

impl Permission {
    /// Everything that these rules allow, one by one.
    pub fn of(rules: &[PolicyRule]) -> BTreeSet<Self> {
        let mut all = BTreeSet::new();
        for rule in rules {
            assert_eq!(rule.non_resource_urls, None, "{rule:?}");
            let names = rule.resource_names.clone().unwrap_or_default();
            let names: Vec<_> = if names.is_empty() {
                vec![None]
            } else {
                names.into_iter().map(Some).collect()
            };
            for group in rule.api_groups.iter().flatten() {
                for resource in rule.resources.iter().flatten() {
                    for (verb, name) in rule
                        .verbs
                        .iter()
                        .flat_map(|verb| names.iter().map(move |name| (verb, name)))
                    {
                        all.insert(Self {
                            verb: verb.clone(),
                            resource: resource.clone(),
                            group: group.clone(),
                            name: name.clone(),
                        });
                    }
                }
            }
        }
        all
    }

    pub fn rule(&self) -> PolicyRule {
        PolicyRule {
            api_groups: Some(vec![self.group.clone()]),
            resources: Some(vec![self.resource.clone()]),
            verbs: vec![self.verb.clone()],
            resource_names: self.name.clone().map(|name| vec![name]),
            ..PolicyRule::default()
        }
    }

    /// All of them but this one, as rules.
    pub fn lacking(&self, all: &BTreeSet<Self>) -> Vec<PolicyRule> {
        let others = all.iter().filter(|it| *it != self);
        others.map(Self::rule).collect()
    }

    /// Whether a text has the API server's message for the lack of this permission.
    pub fn is_named(&self, text: &str) -> bool {
        // In JSON quotes are escaped.
        let text = text.replace('\\', "");
        let refusal = format!(
            "cannot {} resource \"{}\" in API group \"{}\"",
            self.verb, self.resource, self.group
        );
        let subject = self
            .name
            .as_ref()
            .map(|name| format!("\"{name}\" is forbidden"));
        text.lines().any(|line| {
            line.contains(&refusal)
                && subject
                    .as_ref()
                    .is_none_or(|subject| line.contains(subject))
        })
    }

    /// Whether a user has the permission in this namespace; in every one if it is empty.
    pub async fn is_granted(&self, client: &Client, user: &str, namespace: &str) -> bool {
        let (resource, subresource) = self
            .resource
            .split_once('/')
            .unwrap_or((&self.resource, ""));
        let question = json!({ "spec": { "user": user, "resourceAttributes": {
            "group": self.group, "resource": resource, "subresource": subresource, "verb": self.verb,
            "name": self.name, "namespace": namespace,
        } } });
        let question = serde_json::from_value(question).unwrap();
        let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
        let answer = reviews.create(&PostParams::default(), &question).await;
        answer.unwrap().status.unwrap().allowed
    }
}
