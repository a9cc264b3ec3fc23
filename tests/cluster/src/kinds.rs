//! Definitions of kinds that the API server lacks at first, as in a cluster without routers: the real
//! definitions, without their controllers.

use crate::{
    directory::Directory,
    error::{Error, Result},
    kubectl,
    tools::Tools,
    wait::wait_for,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client};
use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

/// Timeout from a definition's creation or deletion until discovery reflects it.
const TIMEOUT: Duration = Duration::from_mins(1);

/// A set of definitions that comes with the tools; see `tools/README.md` for the versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinds {
    /// Gateway API's standard channel: `HTTPRoute`, `GRPCRoute` and so on.
    /// [`Cluster::gateway`](crate::Cluster::gateway) installs it too.
    GatewayApi,
    /// The routes of its experimental channel: only `TCPRoute`, `TLSRoute` and `UDPRoute`.
    GatewayApiExperimental,
    /// Istio's: `VirtualService`, `DestinationRule` and all others.
    Istio,
}

impl Kinds {
    /// The path of their manifests.
    pub(crate) fn folder(self, tools: &Tools) -> Result<PathBuf> {
        let folder = tools.file(match self {
            Self::GatewayApi => "gateway-api",
            Self::GatewayApiExperimental => "gateway-api-experimental",
            Self::Istio => "istio",
        });
        // kubectl reads no folder through a link.
        folder.canonicalize().map_err(Error::file("find", folder))
    }

    /// kubectl's arguments for their manifests; it prints their names.
    fn arguments(self, tools: &Tools) -> Result<[OsString; 3]> {
        let folder = self.folder(tools)?.into();
        Ok(["--filename".into(), folder, "--output=name".into()])
    }
}

/// One version of a kind: the names of its definition and of the version.
type Version = (String, String);

/// Installs `kinds`, and returns once all their versions are served and their objects can be listed: a definition
/// that is removed while its storage still initializes stays for longer than a minute.
pub(crate) async fn install(
    dir: &Directory,
    client: &Client,
    kubeconfig: &Path,
    kinds: Kinds,
) -> Result<()> {
    let tools = Tools::at(dir.tools());
    let arguments = kinds.arguments(&tools)?;
    let names = names(&kubectl::apply(&tools, dir, kubeconfig, &arguments, &[]).await?);

    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut wanted: BTreeSet<Version> = BTreeSet::new();
    let mut resources = Vec::new();
    for name in &names {
        let definition = definitions.get(name).await;
        let definition =
            definition.map_err(Error::kubernetes(format!("read definition {name}")))?;
        let spec = definition.spec;
        for version in spec.versions.into_iter().filter(|version| version.served) {
            let kind = GroupVersionKind::gvk(&spec.group, &version.name, &spec.names.kind);
            resources.push(ApiResource::from_gvk_with_plural(&kind, &spec.names.plural));
            wanted.insert((name.clone(), version.name));
        }
    }
    wait_for(&format!("{kinds:?} is served"), TIMEOUT, async || {
        // What is not yet Established is not listed.
        let served = served(client, &names).await?;
        if let Some((name, version)) = wanted.difference(&served).next() {
            return Err(format!("{name} is not served in version {version}"));
        }
        for resource in &resources {
            let objects: Api<DynamicObject> = Api::all_with(client.clone(), resource);
            let listed = objects.list(&ListParams::default().limit(1)).await;
            listed.map_err(|error| format!("{}: {error}", resource.plural))?;
        }
        Ok(())
    })
    .await
}

/// Removes `kinds` and returns once none of them is served.
pub(crate) async fn remove(
    dir: &Directory,
    client: &Client,
    kubeconfig: &Path,
    kinds: Kinds,
) -> Result<()> {
    let tools = Tools::at(dir.tools());
    let arguments = kinds.arguments(&tools)?;
    let names = names(&kubectl::delete(&tools, dir, kubeconfig, &arguments).await?);
    wait_for(
        &format!("{kinds:?} is gone"),
        TIMEOUT,
        async || match served(client, &names).await?.first() {
            None => Ok(()),
            Some((name, version)) => Err(format!("{name} is served in version {version}")),
        },
    )
    .await
}

/// The definitions whose names kubectl has printed.
fn names(printed: &[u8]) -> BTreeSet<String> {
    String::from_utf8_lossy(printed)
        .lines()
        .filter_map(|line| line.strip_prefix("customresourcedefinition.apiextensions.k8s.io/"))
        .map(str::to_owned)
        .collect()
}

/// Which of these definitions discovery lists, and in which versions.
async fn served(client: &Client, names: &BTreeSet<String>) -> Result<BTreeSet<Version>, String> {
    // The name of a definition is the kind's plural and group.
    let groups = names.iter().filter_map(|name| name.split_once('.'));
    let groups: BTreeSet<_> = groups.map(|(_, group)| group).collect();
    let listed = client.list_api_groups().await;
    let listed = listed.map_err(|error| error.to_string())?.groups;
    let mut served = BTreeSet::new();
    for group in listed.iter().filter(|it| groups.contains(it.name.as_str())) {
        for version in &group.versions {
            let resources = match client
                .list_api_group_resources(&version.group_version)
                .await
            {
                Ok(list) => list.resources,
                // The list of groups lags behind.
                Err(kube::Error::Api(status)) if status.code == 404 => continue,
                Err(error) => return Err(error.to_string()),
            };
            let found = resources
                .into_iter()
                .map(|resource| format!("{}.{}", resource.name, group.name))
                .filter(|name| names.contains(name));
            served.extend(found.map(|name| (name, version.version.clone())));
        }
    }
    Ok(served)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_known_by_what_kubectl_prints() {
        let printed = "customresourcedefinition.apiextensions.k8s.io/tcproutes.gateway.networking.k8s.io\n\
                       service/shop\n";
        let names = names(printed.as_bytes());
        assert!(
            names.iter().eq(["tcproutes.gateway.networking.k8s.io"]),
            "{names:?}"
        );
    }
}
