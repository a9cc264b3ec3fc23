//! Kinds of dynamic objects: by name, and those of types.

use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};

/// The resource of a kind in an API version such as `gateway.networking.k8s.io/v1`.
#[must_use]
pub fn resource(api_version: &str, kind: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or_default();
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// The objects of a kind in a namespace, untyped: fields that this build does not know are kept, and one object that it
/// cannot read does not hide the others.
pub fn untyped<K>(client: &Client, namespace: &str) -> Api<DynamicObject>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<K>(&()))
}
