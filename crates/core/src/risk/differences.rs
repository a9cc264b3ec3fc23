//! Differences between two pod templates, by kind.
//!
//! The stable template is read from a ReplicaSet, in which the API server has set Kubernetes' defaults and
//! normalised quantities; the new one is not. So both are compared without defaults. A value that is not a
//! known default is a difference: doubt adds points.

use std::collections::{BTreeMap, BTreeSet};

use countersign_api::PodTemplate;
use countersign_api::policy::Difference;
use serde_json::{Map, Value};

use crate::risk::score;
use crate::risk::template_defaults::{self, CONTAINER_LISTS, PROBES};

/// How the new template differs from the stable one; empty if there is no stable one.
#[must_use]
pub fn differences(stable: Option<&PodTemplate>, new: &PodTemplate) -> BTreeSet<Difference> {
    let Some(stable) = stable else {
        return BTreeSet::new();
    };
    let mut found = BTreeSet::new();
    let (stable, new) = (
        template_defaults::without_defaults(stable),
        template_defaults::without_defaults(new),
    );
    for (field, before, after) in changed_members(&stable, &new) {
        match field {
            "metadata" => found.extend(in_metadata(before, after)),
            "spec" => in_pods(before, after, &mut found),
            _ => _ = found.insert(Difference::Other),
        }
    }
    found
}

/// The names of these kinds, such as `image, command`.
#[must_use]
pub fn names_of(differences: &BTreeSet<Difference>) -> String {
    let names: Vec<_> = differences.iter().map(score::name_of).collect();
    names.join(", ")
}

/// Labels and annotations that describe pods or restart them, and change nothing that they do.
const DESCRIPTIVE: [&str; 3] = [
    "kubectl.kubernetes.io/restartedAt",
    "app.kubernetes.io/version",
    "helm.sh/chart",
];

/// Domains, and subdomains of these, under which annotations have containers injected into a pod or choose
/// their image.
const INJECTORS: [&str; 9] = [
    "istio.io",
    "linkerd.io",
    "cilium.io",
    "consul.hashicorp.com",
    "vault.hashicorp.com",
    "dapr.io",
    "instrumentation.opentelemetry.io",
    "sidecar.opentelemetry.io",
    "admission.datadoghq.com",
];

/// Checksums of configuration, by which Helm charts restart the pods that read it.
const CHECKSUMS: &str = "checksum/";

fn in_metadata(stable: &Value, new: &Value) -> BTreeSet<Difference> {
    let mut found = BTreeSet::new();
    for (field, before, after) in changed_members(stable, new) {
        match field {
            "labels" | "annotations" => {
                found.extend(changed_members(before, after).map(|(key, _, _)| of_key(key)));
            }
            _ => _ = found.insert(Difference::Other),
        }
    }
    found
}

fn of_key(key: &str) -> Difference {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let is_below = |of: &&str| {
        let above = domain.strip_suffix(*of);
        above.is_some_and(|it| it.is_empty() || it.ends_with('.'))
    };
    if INJECTORS.iter().any(is_below) {
        Difference::Containers
    } else if key.starts_with(CHECKSUMS) {
        Difference::Environment
    } else if DESCRIPTIVE.contains(&key) {
        Difference::Metadata
    } else {
        Difference::Other
    }
}

fn in_pods(stable: &Value, new: &Value, found: &mut BTreeSet<Difference>) {
    for (field, before, after) in changed_members(stable, new) {
        let kind = match field {
            list if CONTAINER_LISTS.contains(&list) => {
                in_containers(before, after, found);
                continue;
            }
            "volumes" => {
                if sources(before, "image") != sources(after, "image") {
                    found.insert(Difference::Image);
                }
                // A path of the node is a right on the node.
                if sources(before, "hostPath") != sources(after, "hostPath") {
                    found.insert(Difference::SecurityContext);
                }
                Difference::Volumes
            }
            "securityContext"
            | "hostNetwork"
            | "hostPID"
            | "hostIPC"
            | "hostUsers"
            | "shareProcessNamespace"
            | "runtimeClassName" => Difference::SecurityContext,
            "serviceAccountName" | "automountServiceAccountToken" => Difference::ServiceAccount,
            "resources" | "overhead" | "resourceClaims" => Difference::Resources,
            _ => Difference::Other,
        };
        found.insert(kind);
    }
}

fn in_containers(stable: &Value, new: &Value, found: &mut BTreeSet<Difference>) {
    let (before, after) = (by_name(stable), by_name(new));
    let (Some(before), Some(after)) = (before, after) else {
        found.insert(Difference::Containers);
        return;
    };
    let names = |list: &[(&str, &Value)]| {
        list.iter()
            .map(|(name, _)| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    if names(&before) != names(&after) {
        found.insert(Difference::Containers);
    }
    let after: BTreeMap<_, _> = after.into_iter().collect();
    for (name, before) in before {
        let Some(after) = after.get(name) else {
            continue;
        };
        found.extend(
            changed_members(before, after).map(|(field, _, _)| match field {
                "image" | "imagePullPolicy" => Difference::Image,
                "command" | "args" | "workingDir" => Difference::Command,
                "env" | "envFrom" => Difference::Environment,
                "ports" => Difference::Ports,
                "resources" | "resizePolicy" => Difference::Resources,
                "lifecycle" => Difference::Probes,
                probe if PROBES.contains(&probe) => Difference::Probes,
                "securityContext" => Difference::SecurityContext,
                "volumeMounts" | "volumeDevices" => Difference::Volumes,
                // An init container that always restarts is a sidecar.
                "restartPolicy" => Difference::Containers,
                _ => Difference::Other,
            }),
        );
    }
}

/// What volumes of a kind mount.
fn sources(volumes: &Value, kind: &str) -> BTreeSet<String> {
    let volumes = volumes.as_array().into_iter().flatten();
    volumes
        .filter_map(|it| it.get(kind).map(Value::to_string))
        .collect()
}

/// The containers of a list by name; `None` if a name is missing or not unique.
fn by_name(list: &Value) -> Option<Vec<(&str, &Value)>> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let named: Option<Vec<_>> = list
        .iter()
        .map(|container| Some((container.get("name")?.as_str()?, container)))
        .collect();
    let distinct: BTreeSet<_> = named.iter().flatten().map(|(name, _)| *name).collect();
    named.filter(|named| named.len() == distinct.len())
}

/// Members of two objects that differ, absent ones as null.
fn changed_members<'a>(
    a: &'a Value,
    b: &'a Value,
) -> impl Iterator<Item = (&'a str, &'a Value, &'a Value)> {
    const NULL: &Value = &Value::Null;
    let member = |of: &'a Value, key: &str| of.get(key).unwrap_or(NULL);
    let keys: BTreeSet<&str> = [a, b]
        .into_iter()
        .filter_map(Value::as_object)
        .flat_map(Map::keys)
        .map(String::as_str)
        .collect();
    keys.into_iter()
        .map(move |key| (key, member(a, key), member(b, key)))
        .filter(|(_, a, b)| a != b)
}

#[cfg(test)]
mod tests;
