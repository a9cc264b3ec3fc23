//! Containers of a pod template.

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::label::is_qualified;

use crate::manifests::finding::{Finding, join};
use crate::manifests::pods::forms::{
    LABEL, PORT, amount, is_dns_label, is_field, is_image, is_port_name, is_true, quoted,
};
use crate::manifests::pods::{MESSAGES, Pod, Pods, Purpose, RESTARTS, SOURCES, members};
use crate::manifests::yaml::{Node, Yaml};

impl Pods {
    pub(super) fn containers(&mut self, spec: &Node, path: &str) {
        let volumes = spec.get("volumes").into_iter().flat_map(Node::items);
        let names = volumes.filter_map(|it| it.get("name")?.text());
        let grace = spec.get("terminationGracePeriodSeconds");
        let mut pod = Pod {
            volumes: names.collect(),
            grace: grace.and_then(Node::number).unwrap_or(30.0),
            host_network: is_true(spec, "hostNetwork"),
            is_init: false,
        };
        let mut names = BTreeMap::new();
        let mut host_ports = BTreeSet::new();
        for list in ["containers", "initContainers"] {
            pod.is_init = list == "initContainers";
            for (node, path) in members(spec, list, path) {
                self.container(node, &path, &pod);
                if let Some(name) = node.get("name")
                    && let Some(text) = name.text()
                    && let Some(other) = names.insert(text, list)
                    // The schema checks for duplicates within the same list.
                    && other != list
                {
                    let problem = format!("{} is the name of one of {other} already", quoted(text));
                    self.error(name, &join(&path, "name"), problem);
                }
                if !pod.is_init {
                    self.host_ports(node, &path, &mut host_ports);
                }
            }
        }
    }

    pub(super) fn container(&mut self, node: &Node, path: &str, pod: &Pod) {
        self.form(node, "name", path, is_dns_label, LABEL);
        self.not_empty(node, "name", path);
        self.required(node, "image", path);
        if let Some(image) = node.get("image")
            && let Some(text) = image.text()
            && !text.is_empty()
            && !is_image(text)
            && !(self.purpose == Purpose::RunOnce && text.contains("{{"))
        {
            let problem = format!(
                "{} is not an image reference, so no node can start it: write [HOST/]NAME[:TAG][@DIGEST] in lower case",
                quoted(text)
            );
            self.error(image, &join(path, "image"), problem);
        }
        self.one_of(
            node,
            "imagePullPolicy",
            path,
            &["Always", "IfNotPresent", "Never"],
        );
        self.one_of(node, "terminationMessagePolicy", path, &MESSAGES);
        self.one_of(node, "restartPolicy", path, &RESTARTS);
        self.ports(node, path, pod);
        self.environment(node, path);
        self.mounts(node, path, pod);
        self.resources(node, path);
        self.users(node, path);
        let restarts = node.get("restartPolicy").and_then(Node::text) == Some("Always");
        for key in [
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
        ] {
            let Some(member) = node.get(key) else {
                continue;
            };
            let below = join(path, key);
            if pod.is_init && !restarts {
                let problem = "an init container has none, unless its restartPolicy is Always";
                self.error(member, &below, problem);
            } else if key == "lifecycle" {
                for hook in ["postStart", "preStop"] {
                    if let Some(hook_node) = member.get(hook) {
                        let kinds = ["exec", "httpGet", "tcpSocket", "sleep"];
                        self.action(hook_node, &join(&below, hook), &kinds, node);
                        if let Some(sleep) = hook_node.get("sleep") {
                            let path = format!("{below}.{hook}.sleep");
                            self.range(sleep, "seconds", &path, 0.0, pod.grace);
                        }
                    }
                }
            } else {
                self.probe(member, key, &below, node);
            }
        }
    }

    pub(super) fn probe(&mut self, probe: &Node, kind: &str, path: &str, container: &Node) {
        self.action(
            probe,
            path,
            &["exec", "httpGet", "tcpSocket", "grpc"],
            container,
        );
        for key in [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ] {
            self.range(probe, key, path, 0.0, f64::INFINITY);
        }
        self.range(
            probe,
            "terminationGracePeriodSeconds",
            path,
            1.0,
            f64::INFINITY,
        );
        if kind != "readinessProbe" {
            self.range(probe, "successThreshold", path, 0.0, 1.0);
        }
    }

    /// The action of a probe or hook; its port may be a name of the container's ports.
    pub(super) fn action(&mut self, action: &Node, path: &str, kinds: &[&str], container: &Node) {
        self.exactly_one(action, path, kinds);
        if let Some(exec) = action.get("exec")
            && exec.get("command").is_none_or(|it| it.items().is_empty())
        {
            self.error(exec, &join(path, "exec"), "has no command");
        }
        if let Some(grpc) = action.get("grpc") {
            self.range(grpc, "port", &join(path, "grpc"), 1.0, 65_535.0);
        }
        for kind in ["httpGet", "tcpSocket"] {
            let Some(target) = action.get(kind) else {
                continue;
            };
            let path = join(path, kind);
            self.one_of(target, "scheme", &path, &["HTTP", "HTTPS"]);
            self.range(target, "port", &path, 1.0, 65_535.0);
            let Some((port, name)) = target.get("port").and_then(|it| Some((it, it.text()?)))
            else {
                continue;
            };
            let below = join(&path, "port");
            let ports = container.get("ports").into_iter().flat_map(Node::items);
            let mut names = ports.filter_map(|it| it.get("name")?.text());
            if !is_port_name(name) {
                let is_number = name.parse::<u16>().is_ok();
                let hint = if is_number {
                    ": write it without quotes"
                } else {
                    ""
                };
                self.error(port, &below, format!("{} {PORT}{hint}", quoted(name)));
            } else if !names.any(|it| it == name) {
                // The API server accepts an unknown name, but no node can resolve it.
                let message = format!("{below}: the container has no port named {}", quoted(name));
                self.findings.push(Finding::warning(port.at, message));
            }
        }
    }

    pub(super) fn ports(&mut self, container: &Node, path: &str, pod: &Pod) {
        let mut names = BTreeSet::new();
        for (node, path) in members(container, "ports", path) {
            self.range(node, "containerPort", &path, 1.0, 65_535.0);
            self.range(node, "hostPort", &path, 0.0, 65_535.0);
            self.one_of(node, "protocol", &path, &["TCP", "UDP", "SCTP"]);
            self.form(node, "name", &path, is_port_name, PORT);
            if let Some(name) = node.get("name")
                && let Some(text) = name.text()
                && !text.is_empty()
                && !names.insert(text)
            {
                let problem = format!("{} is the name of another port already", quoted(text));
                self.error(name, &join(&path, "name"), problem);
            }
            let number = |key| node.get(key).and_then(Node::number);
            let host_port = number("hostPort").filter(|it| pod.host_network && *it != 0.0);
            if host_port.is_some() && host_port != number("containerPort") {
                let problem = "must be containerPort if hostNetwork is true";
                self.error(node, &join(&path, "hostPort"), problem);
            }
        }
    }

    /// Only one container can use a port of the node.
    pub(super) fn host_ports<'a>(
        &mut self,
        container: &'a Node,
        path: &str,
        taken: &mut BTreeSet<(&'a str, &'a str, String)>,
    ) {
        for (node, path) in members(container, "ports", path) {
            let text = |key, otherwise| match node.get(key).and_then(Node::text) {
                Some(text) if !text.is_empty() => text,
                _ => otherwise,
            };
            let port = node.get("hostPort").and_then(Node::number);
            let Some(port) = port.filter(|port| *port > 0.0) else {
                continue;
            };
            let key = (
                text("protocol", "TCP"),
                text("hostIP", ""),
                port.to_string(),
            );
            if !taken.insert(key) {
                let problem = format!("{port} of the node is taken by another container already");
                self.error(node, &join(&path, "hostPort"), problem);
            }
        }
    }

    pub(super) fn environment(&mut self, container: &Node, path: &str) {
        let mut names = BTreeSet::new();
        for (node, path) in members(container, "env", path) {
            if let Some(name) = node.get("name")
                && let Some(text) = name.text()
                && !names.insert(text)
            {
                let path = join(&path, "name");
                let message = format!(
                    "{path}: {} is set above already, and the last value counts",
                    quoted(text)
                );
                self.findings.push(Finding::warning(name.at, message));
            }
            self.not_empty(node, "name", &path);
            let is_name = |text: &str| {
                text.bytes()
                    .all(|it| (b' '..=b'~').contains(&it) && it != b'=')
            };
            let form = "is not a variable name: `=` and what cannot be printed may not be in it";
            self.form(node, "name", &path, is_name, form);
            let Some(source) = node.get("valueFrom") else {
                continue;
            };
            let path = join(&path, "valueFrom");
            if node.get("value").is_some_and(|it| it.text() != Some("")) {
                self.error(source, &path, "cannot be set beside value");
            }
            self.exactly_one(source, &path, &SOURCES);
            for kind in ["configMapKeyRef", "secretKeyRef"] {
                if let Some(reference) = source.get(kind) {
                    self.required(reference, "name", &join(&path, kind));
                    self.not_empty(reference, "key", &join(&path, kind));
                }
            }
            if let Some(field) = source.get("fieldRef") {
                let form = "is not a field that a variable may have";
                self.form(field, "fieldPath", &join(&path, "fieldRef"), is_field, form);
            }
        }
        for (node, path) in members(container, "envFrom", path) {
            self.exactly_one(node, &path, &["configMapRef", "secretRef"]);
            for kind in ["configMapRef", "secretRef"] {
                if let Some(reference) = node.get(kind) {
                    self.required(reference, "name", &join(&path, kind));
                }
            }
        }
    }

    pub(super) fn mounts(&mut self, container: &Node, path: &str, pod: &Pod) {
        for list in ["volumeMounts", "volumeDevices"] {
            for (node, path) in members(container, list, path) {
                if let Some(name) = node.get("name")
                    && let Some(text) = name.text()
                    && !pod.volumes.contains(text)
                {
                    let problem = format!("there is no volume {}", quoted(text));
                    self.error(name, &join(&path, "name"), problem);
                }
                let is_below =
                    |text: &str| !text.starts_with('/') && text.split('/').all(|part| part != "..");
                for key in ["subPath", "subPathExpr"] {
                    let form = "must be a path below the volume's";
                    self.form(node, key, &path, is_below, form);
                }
            }
        }
    }

    pub(super) fn resources(&mut self, container: &Node, path: &str) {
        let Some(resources) = container.get("resources") else {
            return;
        };
        let path = join(path, "resources");
        let limits = resources.get("limits");
        for list in ["limits", "requests"] {
            let entries = resources.get(list).into_iter().flat_map(Node::entries);
            for entry in entries.filter(|it| it.value.value != Yaml::Null) {
                let below = join(&join(&path, list), &entry.key);
                let name = entry.key.as_str();
                let is_known = matches!(name, "cpu" | "memory" | "ephemeral-storage")
                    || name.starts_with("hugepages-")
                    || (name.contains('/') && is_qualified(name));
                if !is_known {
                    let message = format!(
                        "{below} is not a container resource: write cpu, memory, ephemeral-storage, or an extended one such as example.org/gpu"
                    );
                    self.findings.push(Finding::error(entry.at, message));
                }
                let Some(amount) = amount(&entry.value) else {
                    continue;
                };
                if amount < 0.0 {
                    self.error(&entry.value, &below, "is below 0");
                }
                let limit = limits.and_then(|it| it.get(name));
                let limit = limit.filter(|_| list == "requests");
                let Some(most) = limit.and_then(self::amount) else {
                    continue;
                };
                // Requests of resources that cannot be overcommitted must equal their limits.
                let is_whole = name.contains('/') || name.starts_with("hugepages-");
                if amount > most * (1.0 + f64::EPSILON * 4.0) {
                    self.error(&entry.value, &below, "is more than its limit");
                } else if is_whole && (most - amount) > most * f64::EPSILON * 4.0 {
                    self.error(&entry.value, &below, "must be its limit");
                }
            }
        }
    }
}
