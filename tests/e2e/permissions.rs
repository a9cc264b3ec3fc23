//! The chart's roles are minimal: each single permission is removed in turn. Then the API server refuses
//! a request, the operator reports it, and continues once the permission is restored.

mod leader;
mod metrics;
mod replica;
mod standby;

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::support::Scene;

/// The operator's namespace.
const SYSTEM: &str = "countersign-system";
/// Its `ServiceAccount`, and everything that the chart names after it.
const NAME: &str = "countersign";

/// One thing that a role allows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Permission {
    verb: String,
    resource: String,
    group: String,
    name: Option<String>,
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
    fn of(rules: &[PolicyRule]) -> BTreeSet<Self> {
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

    fn rule(&self) -> PolicyRule {
        PolicyRule {
            api_groups: Some(vec![self.group.clone()]),
            resources: Some(vec![self.resource.clone()]),
            verbs: vec![self.verb.clone()],
            resource_names: self.name.clone().map(|name| vec![name]),
            ..PolicyRule::default()
        }
    }

    /// All of them but this one, as rules.
    fn lacking(&self, all: &BTreeSet<Self>) -> Vec<PolicyRule> {
        let others = all.iter().filter(|it| *it != self);
        others.map(Self::rule).collect()
    }

    /// Whether a text has the API server's message for the lack of this permission.
    fn is_named(&self, text: &str) -> bool {
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

    /// Whether a user has the permission; if namespaced, in this namespace.
    async fn is_granted(&self, client: &Client, user: &str, namespace: &str) -> bool {
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

/// What the chart's `ClusterRole` grants, as it is installed.
async fn granted(scene: &Scene) -> BTreeSet<Permission> {
    let roles: Api<ClusterRole> = Api::all(scene.cluster.client());
    Permission::of(&roles.get(NAME).await.unwrap().rules.unwrap())
}

/// What the chart's Role grants in the operator's own namespace.
async fn granted_at_home(scene: &Scene) -> BTreeSet<Permission> {
    let roles: Api<Role> = Api::namespaced(scene.cluster.client(), SYSTEM);
    Permission::of(&roles.get(NAME).await.unwrap().rules.unwrap())
}

/// Besides the chart's two roles, the operator has only the rights that the API server grants to every
/// authenticated user.
#[tokio::test]
async fn the_operator_is_granted_nothing_beside_the_roles_of_the_chart() {
    let scene = Scene::new("granted").await;
    let client = scene.cluster.client();
    let everybody = ListParams::default();
    let is_operator = |subjects: Option<Vec<Subject>>| {
        subjects
            .into_iter()
            .flatten()
            .any(|it| match it.kind.as_str() {
                "ServiceAccount" => it.name == NAME && it.namespace.as_deref() == Some(SYSTEM),
                _ => it.name.starts_with("system:serviceaccount") && it.name.contains(SYSTEM),
            })
    };
    let role = |namespace: Option<String>, it: RoleRef| (namespace, it.kind, it.name);
    let clusterwide = Api::<ClusterRoleBinding>::all(client.clone())
        .list(&everybody)
        .await;
    let clusterwide = clusterwide.unwrap().items.into_iter();
    let clusterwide = clusterwide.filter(|it| is_operator(it.subjects.clone()));
    let mut found: Vec<_> = clusterwide.map(|it| role(None, it.role_ref)).collect();
    let namespaced = Api::<RoleBinding>::all(client).list(&everybody).await;
    let namespaced = namespaced.unwrap().items.into_iter();
    let namespaced = namespaced.filter(|it| is_operator(it.subjects.clone()));
    found.extend(namespaced.map(|it| role(it.metadata.namespace, it.role_ref)));
    let own = |namespace: Option<&str>, kind: &str| {
        (
            namespace.map(str::to_owned),
            kind.to_owned(),
            NAME.to_owned(),
        )
    };
    assert_eq!(found, [own(None, "ClusterRole"), own(Some(SYSTEM), "Role")]);
}
