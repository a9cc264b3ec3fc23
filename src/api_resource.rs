//! Kinds by name, for dynamic objects.

use kube::api::{ApiResource, GroupVersionKind};

/// The resource of a kind in an API version such as `gateway.networking.k8s.io/v1`.
#[must_use]
pub fn resource(api_version: &str, kind: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or_default();
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}
