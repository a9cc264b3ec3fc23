//! The chart's roles are minimal: each single permission is removed in turn. Then the API server refuses
//! a request, the operator reports it, and continues once the permission is restored.

mod leader;
mod metrics;
mod replica;
mod standby;

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, Role, RoleBinding, RoleRef, Subject,
};
use kube::Api;
use kube::api::ListParams;

use crate::support::{Permission, Scene};

/// The operator's namespace.
const SYSTEM: &str = "countersign-system";
/// Its `ServiceAccount`, and everything that the chart names after it.
const NAME: &str = "countersign";

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
