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
mod tests {
    use serde_json::json;

    use super::*;
    use crate::risk;
    use crate::risk::template_defaults::amount;

    /// A template in a manifest.
    fn written() -> Value {
        json!({
            "metadata": { "labels": { "app": "shop" } },
            "spec": {
                "serviceAccountName": "shop",
                "containers": [{
                    "name": "web", "image": "shop:1",
                    "args": ["--port=8080"],
                    "env": [{ "name": "EMPTY", "value": "" }, { "name": "POD", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }],
                    "ports": [{ "containerPort": 8080 }],
                    "resources": { "limits": { "cpu": "0.5", "memory": "1024Mi" }, "requests": { "cpu": "100m" } },
                    "readinessProbe": { "httpGet": { "path": "/", "port": 8080 } },
                    "volumeMounts": [{ "name": "config", "mountPath": "/etc/shop", "readOnly": false }],
                }],
                "volumes": [{ "name": "config", "configMap": { "name": "shop" } }, { "name": "tmp", "emptyDir": {} }],
            },
        })
    }

    /// The same template in a stored ReplicaSet, with Kubernetes' defaults.
    fn stored() -> Value {
        json!({
            "metadata": { "creationTimestamp": null, "labels": { "app": "shop" } },
            "spec": {
                "serviceAccountName": "shop", "serviceAccount": "shop",
                "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "securityContext": {},
                "schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 30,
                "containers": [{
                    "name": "web", "image": "shop:1", "imagePullPolicy": "IfNotPresent",
                    "args": ["--port=8080"],
                    "env": [{ "name": "EMPTY" }, { "name": "POD", "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.name" } } }],
                    "ports": [{ "containerPort": 8080, "protocol": "TCP" }],
                    "resources": { "limits": { "cpu": "500m", "memory": "1Gi" }, "requests": { "cpu": "100m", "memory": "1Gi" } },
                    "readinessProbe": {
                        "httpGet": { "path": "/", "port": 8080, "scheme": "HTTP" },
                        "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
                    },
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "volumeMounts": [{ "name": "config", "mountPath": "/etc/shop" }],
                }],
                "volumes": [{ "name": "config", "configMap": { "name": "shop", "defaultMode": 420 } }, { "name": "tmp", "emptyDir": {} }],
            },
        })
    }

    fn found(stable: Value, new: Value) -> BTreeSet<Difference> {
        differences(Some(&PodTemplate(stable)), &PodTemplate(new))
    }

    #[test]
    fn defaults_that_the_api_server_wrote_are_no_difference() {
        assert_eq!(
            risk::differences::tests::found(
                risk::differences::tests::stored(),
                risk::differences::tests::written()
            ),
            BTreeSet::new()
        );
        assert_eq!(
            risk::differences::tests::found(
                risk::differences::tests::written(),
                risk::differences::tests::stored()
            ),
            BTreeSet::new()
        );
    }

    #[test]
    fn an_image_that_a_volume_mounts_is_an_image() {
        let with_volume = |reference: &str| {
            let mut template = written();
            let volume = json!({ "name": "data", "image": { "reference": reference } });
            let volumes = template["spec"]["volumes"].as_array_mut().unwrap();
            volumes.push(volume);
            template
        };
        let differs = found(with_volume("data:1"), with_volume("data:2"));
        assert_eq!(differs, [Difference::Image, Difference::Volumes].into());
        let images = PodTemplate(with_volume("data:1"));
        assert_eq!(images.images(), ["shop:1", "data:1"]);
    }

    #[test]
    fn nothing_differs_from_no_stable_template() {
        assert_eq!(
            differences(None, &PodTemplate(risk::differences::tests::written())),
            BTreeSet::new()
        );
    }

    #[test]
    #[allow(clippy::too_many_lines, reason = "a table")]
    fn each_edit_is_of_its_kind() {
        let edits = [
            (
                "/spec/containers/0/image",
                json!("shop:2"),
                Difference::Image,
            ),
            (
                "/spec/containers/0/imagePullPolicy",
                json!("Always"),
                Difference::Image,
            ),
            (
                "/spec/containers/0/command",
                json!(["sh"]),
                Difference::Command,
            ),
            ("/spec/containers/0/args", json!([]), Difference::Command),
            (
                "/spec/containers/0/workingDir",
                json!("/"),
                Difference::Command,
            ),
            (
                "/spec/containers/0/env/0/value",
                json!("x"),
                Difference::Environment,
            ),
            (
                "/spec/containers/0/envFrom",
                json!([{ "secretRef": { "name": "s" } }]),
                Difference::Environment,
            ),
            (
                "/spec/containers/0/ports/0/containerPort",
                json!(8081),
                Difference::Ports,
            ),
            (
                "/spec/containers/0/resources/limits/cpu",
                json!("501m"),
                Difference::Resources,
            ),
            (
                "/spec/containers/0/readinessProbe/periodSeconds",
                json!(11),
                Difference::Probes,
            ),
            (
                "/spec/containers/0/lifecycle",
                json!({ "preStop": {} }),
                Difference::Probes,
            ),
            (
                "/spec/containers/0/securityContext",
                json!({ "runAsUser": 0 }),
                Difference::SecurityContext,
            ),
            (
                "/spec/containers/0/volumeMounts/0/readOnly",
                json!(true),
                Difference::Volumes,
            ),
            (
                "/spec/containers/0/restartPolicy",
                json!("Always"),
                Difference::Containers,
            ),
            ("/spec/containers/0/tty", json!(true), Difference::Other),
            (
                "/spec/containers/0/name",
                json!("other"),
                Difference::Containers,
            ),
            (
                "/spec/initContainers",
                json!([{ "name": "init", "image": "i" }]),
                Difference::Containers,
            ),
            (
                "/spec/hostNetwork",
                json!(true),
                Difference::SecurityContext,
            ),
            (
                "/spec/securityContext",
                json!({ "fsGroup": 0 }),
                Difference::SecurityContext,
            ),
            (
                "/spec/serviceAccountName",
                json!("root"),
                Difference::ServiceAccount,
            ),
            (
                "/spec/automountServiceAccountToken",
                json!(false),
                Difference::ServiceAccount,
            ),
            (
                "/spec/volumes/1/emptyDir",
                json!({ "medium": "Memory" }),
                Difference::Volumes,
            ),
            (
                "/spec/volumes/0/configMap/defaultMode",
                json!(511),
                Difference::Volumes,
            ),
            (
                "/spec/terminationGracePeriodSeconds",
                json!(0),
                Difference::Other,
            ),
            (
                "/spec/nodeSelector",
                json!({ "scheme": "HTTP" }),
                Difference::Other,
            ),
            ("/spec/fieldOfKubernetes2030", json!(1), Difference::Other),
            ("/metadata/labels/app", json!("other"), Difference::Other),
            (
                "/metadata/annotations",
                json!({ "a": "b" }),
                Difference::Other,
            ),
            (
                "/metadata/annotations",
                json!({ "kubectl.kubernetes.io/restartedAt": "2026-01-02T03:04:05Z" }),
                Difference::Metadata,
            ),
            (
                "/metadata/annotations",
                json!({ "checksum/config": "1f2e" }),
                Difference::Environment,
            ),
            (
                "/metadata/annotations",
                json!({ "sidecar.istio.io/proxyImage": "example.org/proxy" }),
                Difference::Containers,
            ),
            (
                "/metadata/annotations",
                json!({ "notistio.io/proxyImage": "example.org/proxy" }),
                Difference::Other,
            ),
            ("/metadata/finalizers", json!(["a/b"]), Difference::Other),
            ("/newPart", json!(1), Difference::Other),
        ];
        for (path, value, kind) in edits {
            let mut new = risk::differences::tests::written();
            let (parent, field) = path.rsplit_once('/').unwrap();
            new.pointer_mut(parent).unwrap()[field] = value;
            assert_eq!(
                risk::differences::tests::found(risk::differences::tests::stored(), new.clone()),
                [kind].into(),
                "{path}"
            );
            assert_eq!(
                risk::differences::tests::found(new, risk::differences::tests::stored()),
                [kind].into(),
                "{path}, the other way"
            );
        }
    }

    #[test]
    fn several_edits_are_all_seen() {
        let mut new = risk::differences::tests::written();
        new["spec"]["containers"][0]["image"] = json!("shop:2");
        new["spec"]["containers"][0]["securityContext"] = json!({ "privileged": true });
        new["spec"]["containers"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "name": "sidecar", "image": "s" }));
        let expected = [
            Difference::Image,
            Difference::SecurityContext,
            Difference::Containers,
        ];
        assert_eq!(
            risk::differences::tests::found(risk::differences::tests::stored(), new),
            expected.into()
        );
    }

    #[test]
    fn containers_without_a_name_of_their_own_are_not_compared_by_it() {
        let mut new = risk::differences::tests::written();
        new["spec"]["containers"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "name": "web", "image": "evil" }));
        assert_eq!(
            risk::differences::tests::found(risk::differences::tests::stored(), new),
            [Difference::Containers].into()
        );
    }

    #[test]
    fn quantities_are_compared_by_amount() {
        for (a, b) in [
            ("1", "1000m"),
            ("0.1", "100m"),
            ("1Gi", "1024Mi"),
            ("1e3", "1k"),
            ("1.5", "1500m"),
            ("1E", "1e18"),
        ] {
            assert!(amount(a).is_some(), "{a}");
            assert_eq!(amount(a), amount(b), "{a} {b}");
        }
        for text in [
            "",
            "x",
            "1x",
            "1e",
            "1e99",
            "99999999999999999999999999999999E",
            "-1",
            ".",
            "1.2.3",
        ] {
            assert_eq!(amount(text), None, "{text}");
        }
        assert_ne!(amount("1Gi"), amount("1G"));
    }

    #[test]
    fn hostile_templates_are_compared_without_a_panic() {
        for template in [
            json!(null),
            json!([]),
            json!({ "spec": [] }),
            json!({ "spec": { "containers": {} } }),
            json!({ "spec": { "containers": [1, null] } }),
        ] {
            let _ = risk::differences::tests::found(
                template.clone(),
                risk::differences::tests::written(),
            );
            assert_eq!(
                risk::differences::tests::found(template.clone(), template),
                BTreeSet::new()
            );
        }
    }
}
