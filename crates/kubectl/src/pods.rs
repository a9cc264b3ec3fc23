//! What Kubernetes' own validation says of a pod template, without an API server.
//!
//! The definition of a Rollout holds the template to its schema alone; the rest is said only when a
//! ReplicaSet is made of it, which is late. Fields and values that are newer than this build are left
//! alone. An error is what the API server refuses in a ReplicaSet or Job, or what no node can ever start.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use countersign_core::text::shown;
use countersign_core::workload::smoke_job;

use super::schema::{Finding, is_label, is_quantity, is_subdomain, join};
use super::yaml::{Node, Yaml};

/// Most characters of a value that are shown.
const MAX_SHOWN: usize = 80;
/// Most bytes of all annotations of an object.
const MAX_ANNOTATIONS: usize = 256 * 1024;

const DNS: [&str; 4] = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
const PREEMPTION: [&str; 2] = ["PreemptLowerPriority", "Never"];
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const CHOICES: [&str; 2] = ["DoNotSchedule", "ScheduleAnyway"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const MESSAGES: [&str; 2] = ["File", "FallbackToLogsOnError"];
const RESTARTS: [&str; 3] = ["Always", "OnFailure", "Never"];
const SOURCES: [&str; 5] = [
    "fieldRef",
    "resourceFieldRef",
    "configMapKeyRef",
    "secretKeyRef",
    "fileKeyRef",
];

/// What the pods are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// They serve, until they are deleted.
    #[default]
    Serve,
    /// They run to an end, as those of a Job.
    RunOnce,
}

/// What is wrong with a pod template, which stands at this path.
#[must_use]
pub fn check(template: &Node, path: &str, purpose: Purpose) -> Vec<Finding> {
    let mut pods = Pods {
        purpose,
        ..Pods::default()
    };
    if let Some(metadata) = template.get("metadata") {
        pods.metadata(metadata, &join(path, "metadata"));
    }
    if let Some(spec) = template.get("spec") {
        pods.spec(spec, &join(path, "spec"));
    }
    pods.findings
}

/// What is wrong with the labels and annotations of any object.
#[must_use]
pub fn check_metadata(metadata: &Node, path: &str) -> Vec<Finding> {
    let mut pods = Pods::default();
    pods.metadata(metadata, path);
    pods.findings
}

/// What is wrong with labels by which pods are selected.
#[must_use]
pub fn check_labels(labels: &Node, path: &str) -> Vec<Finding> {
    let mut pods = Pods::default();
    pods.labels(labels, path);
    pods.findings
}

#[derive(Default)]
struct Pods {
    purpose: Purpose,
    findings: Vec<Finding>,
}

/// The pod around a container, as far as its containers depend on it.
struct Pod<'a> {
    volumes: BTreeSet<&'a str>,
    grace: f64,
    host_network: bool,
    is_init: bool,
}

impl Pods {
    fn error(&mut self, node: &Node, path: &str, problem: impl AsRef<str>) {
        let message = format!("{path}: {}", problem.as_ref());
        self.findings.push(Finding::error(node.at, message));
    }

    /// A text that must have a form, unless it is empty, which is as good as absent.
    fn form(&mut self, of: &Node, key: &str, path: &str, has: fn(&str) -> bool, form: &str) {
        if let Some(node) = of.get(key)
            && let Some(text) = node.text()
            && !text.is_empty()
            && !has(text)
        {
            self.error(node, &join(path, key), format!("{} {form}", quoted(text)));
        }
    }

    /// A text that must be one of a few, or empty, which is its default.
    fn one_of(&mut self, of: &Node, key: &str, path: &str, known: &[&str]) {
        if let Some(node) = of.get(key)
            && let Some(text) = node.text()
            && !text.is_empty()
            && !known.contains(&text)
        {
            let problem = format!("{} is none of {}", quoted(text), known.join(", "));
            self.error(node, &join(path, key), problem);
        }
    }

    fn range(&mut self, of: &Node, key: &str, path: &str, least: f64, most: f64) {
        if let Some(node) = of.get(key)
            && let Some(number) = node.number()
            && !(least..=most).contains(&number)
        {
            let problem = if most.is_infinite() {
                format!("{number} is below {least}")
            } else {
                format!("{number} is not from {least} to {most}")
            };
            self.error(node, &join(path, key), problem);
        }
    }

    /// An object of which exactly one member is to be set.
    fn exactly_one(&mut self, node: &Node, path: &str, members: &[&str]) {
        let set = members.iter().filter(|it| node.get(it).is_some()).count();
        if set != 1 {
            let problem = format!("set exactly one of {}", members.join(", "));
            self.error(node, path, problem);
        }
    }

    fn required(&mut self, of: &Node, key: &str, path: &str) {
        let is_empty = |node: &Node| node.text() == Some("");
        if of.get(key).is_none_or(is_empty) {
            self.error(of, &join(path, key), "is missing");
        }
    }

    /// What the schema asks for must hold something.
    fn not_empty(&mut self, of: &Node, key: &str, path: &str) {
        if of.get(key).is_some() {
            self.required(of, key, path);
        }
    }

    fn metadata(&mut self, metadata: &Node, path: &str) {
        if let Some(labels) = metadata.get("labels") {
            self.labels(labels, &join(path, "labels"));
        }
        let Some(annotations) = metadata.get("annotations") else {
            return;
        };
        let path = join(path, "annotations");
        let mut bytes = 0;
        for entry in annotations.entries() {
            bytes += entry.key.len() + entry.value.text().unwrap_or_default().len();
            if !is_qualified(&entry.key.to_lowercase()) {
                let message = format!("{path}: {} {QUALIFIED}", quoted(&entry.key));
                self.findings.push(Finding::error(entry.at, message));
            }
        }
        if bytes > MAX_ANNOTATIONS {
            let problem = format!("{bytes} bytes in all, of which there may be {MAX_ANNOTATIONS}");
            self.error(annotations, &path, problem);
        }
    }

    fn labels(&mut self, labels: &Node, path: &str) {
        for entry in labels.entries() {
            if !is_qualified(&entry.key) {
                let message = format!("{path}: {} {QUALIFIED}", quoted(&entry.key));
                self.findings.push(Finding::error(entry.at, message));
            }
            if let Some(value) = entry.value.text()
                && !is_label_value(value)
            {
                let problem = format!(
                    "{} is no value of a label: write at most 63 letters, digits, `-`, `_` and `.`, the first and last a letter or digit",
                    quoted(value)
                );
                self.error(&entry.value, &join(path, &entry.key), problem);
            }
        }
    }

    // --- the pod ---------------------------------------------------------------------------------

    fn spec(&mut self, spec: &Node, path: &str) {
        if self.purpose == Purpose::Serve {
            self.serves(spec, path);
        }
        let ephemeral = spec.get("ephemeralContainers");
        if let Some(node) = ephemeral.filter(|it| !it.items().is_empty()) {
            let path = join(path, "ephemeralContainers");
            self.error(node, &path, "a template cannot have ephemeral containers");
        }
        self.one_of(spec, "dnsPolicy", path, &DNS);
        let own_dns = spec.get("dnsPolicy").filter(|it| it.text() == Some("None"));
        let servers = spec.find(&["dnsConfig", "nameservers"]).map(Node::items);
        if let Some(node) = own_dns.filter(|_| servers.is_none_or(<[Node]>::is_empty)) {
            let problem = "None needs at least one server in dnsConfig.nameservers";
            self.error(node, &join(path, "dnsPolicy"), problem);
        }
        self.one_of(spec, "preemptionPolicy", path, &PREEMPTION);
        for key in [
            "serviceAccountName",
            "nodeName",
            "priorityClassName",
            "runtimeClassName",
        ] {
            self.form(spec, key, path, is_subdomain, NAME);
        }
        for key in ["hostname", "subdomain"] {
            self.form(spec, key, path, is_dns_label, LABEL);
        }
        if let Some(selector) = spec.get("nodeSelector") {
            self.labels(selector, &join(path, "nodeSelector"));
        }
        if is_true(spec, "hostPID") && is_true(spec, "shareProcessNamespace") {
            let problem = "cannot be shared where the node's is used (hostPID)";
            self.error(spec, &join(path, "shareProcessNamespace"), problem);
        }
        self.users(spec, path);
        self.tolerations(spec, path);
        self.placement(spec, path);
        self.host_aliases(spec, path);
        self.volumes(spec, path);
        self.containers(spec, path);
    }

    fn serves(&mut self, spec: &Node, path: &str) {
        let policy = spec.get("restartPolicy");
        if let Some(node) = policy.filter(|it| !matches!(it.text(), Some("Always" | ""))) {
            let problem =
                "must be Always, or left out: pods of a ReplicaSet serve until they are deleted";
            self.error(node, &join(path, "restartPolicy"), problem);
        }
        if let Some(node) = spec.get("activeDeadlineSeconds") {
            let problem = "a ReplicaSet has no pods that end: remove it";
            self.error(node, &join(path, "activeDeadlineSeconds"), problem);
        }
    }

    fn users(&mut self, of: &Node, path: &str) {
        let Some(context) = of.get("securityContext") else {
            return;
        };
        let path = join(path, "securityContext");
        for key in ["runAsUser", "runAsGroup", "fsGroup"] {
            self.range(context, key, &path, 0.0, f64::from(i32::MAX));
        }
        let escalation = context.get("allowPrivilegeEscalation");
        if let Some(node) = escalation.filter(|it| it.value == Yaml::Bool(false))
            && is_true(context, "privileged")
        {
            let problem = "cannot be false where privileged is true";
            self.error(node, &join(&path, "allowPrivilegeEscalation"), problem);
        }
    }

    fn tolerations(&mut self, spec: &Node, path: &str) {
        for (node, path) in members(spec, "tolerations", path) {
            let text = |key| node.get(key).and_then(Node::text).unwrap_or_default();
            self.one_of(node, "operator", &path, &["Exists", "Equal", "Lt", "Gt"]);
            self.one_of(node, "effect", &path, &EFFECTS);
            if text("key").is_empty() && text("operator") != "Exists" {
                self.error(node, &path, "without a key the operator must be Exists");
            }
            if text("operator") == "Exists" && !text("value").is_empty() {
                self.error(node, &path, "with the operator Exists there is no value");
            }
            if node.get("tolerationSeconds").is_some() && text("effect") != "NoExecute" {
                self.error(node, &path, "tolerationSeconds needs the effect NoExecute");
            }
        }
    }

    fn placement(&mut self, spec: &Node, path: &str) {
        for (node, path) in members(spec, "topologySpreadConstraints", path) {
            self.range(node, "maxSkew", &path, 1.0, f64::INFINITY);
            self.not_empty(node, "topologyKey", &path);
            self.one_of(node, "whenUnsatisfiable", &path, &CHOICES);
        }
        let Some(affinity) = spec.get("affinity") else {
            return;
        };
        let path = join(path, "affinity");
        if let Some(required) = affinity.find(&["nodeAffinity", REQUIRED])
            && required
                .get("nodeSelectorTerms")
                .is_none_or(|it| it.items().is_empty())
        {
            let path = format!("{path}.nodeAffinity.{REQUIRED}.nodeSelectorTerms");
            self.error(required, &path, "has no term: give one, or remove it");
        }
        for kind in ["nodeAffinity", "podAffinity", "podAntiAffinity"] {
            let Some(affinity) = affinity.get(kind) else {
                continue;
            };
            let path = join(&path, kind);
            for (node, path) in members(affinity, PREFERRED, &path) {
                self.range(node, "weight", &path, 1.0, 100.0);
                if let Some(term) = node.get("podAffinityTerm") {
                    self.not_empty(term, "topologyKey", &join(&path, "podAffinityTerm"));
                }
            }
            if kind != "nodeAffinity" {
                for (node, path) in members(affinity, REQUIRED, &path) {
                    self.not_empty(node, "topologyKey", &path);
                }
            }
        }
    }

    fn host_aliases(&mut self, spec: &Node, path: &str) {
        for (node, path) in members(spec, "hostAliases", path) {
            let is_ip = |text: &str| text.parse::<IpAddr>().is_ok();
            self.form(node, "ip", &path, is_ip, "is no IP address");
            for (name, path) in members(node, "hostnames", &path) {
                if let Some(text) = name.text().filter(|it| !is_subdomain(it)) {
                    self.error(name, &path, format!("{} {NAME}", quoted(text)));
                }
            }
        }
    }

    fn volumes(&mut self, spec: &Node, path: &str) {
        for (node, path) in members(spec, "volumes", path) {
            self.form(node, "name", &path, is_dns_label, LABEL);
            let sources = node.entries().iter();
            let sources = sources.filter(|it| it.key != "name" && it.value.value != Yaml::Null);
            let sources: Vec<_> = sources.map(|it| it.key.as_str()).collect();
            if sources.len() > 1 {
                let problem = format!("is of one kind only, not of {}", sources.join(" and "));
                self.error(node, &path, problem);
            }
            for (kind, name) in [("persistentVolumeClaim", "claimName"), ("hostPath", "path")] {
                if let Some(source) = node.get(kind) {
                    self.not_empty(source, name, &join(&path, kind));
                }
            }
            for (kind, name) in [("configMap", "name"), ("secret", "secretName")] {
                if let Some(source) = node.get(kind) {
                    let path = join(&path, kind);
                    self.required(source, name, &path);
                    self.modes(source, &path);
                }
            }
            for kind in ["projected", "downwardAPI"] {
                if let Some(source) = node.get(kind) {
                    self.modes(source, &join(&path, kind));
                }
            }
        }
    }

    /// Permissions are octal in YAML only with a 0 before them.
    fn modes(&mut self, source: &Node, path: &str) {
        let items = members(source, "items", path);
        let items = items.map(|(item, path)| (item, path, "mode"));
        for (node, path, key) in items.chain([(source, path.to_owned(), "defaultMode")]) {
            if let Some(mode) = node.get(key)
                && let Some(number) = mode.number()
                && !(0.0..=511.0).contains(&number)
            {
                let problem =
                    format!("{number} is no permission: write 0 to 0777, with the 0 before it");
                self.error(mode, &join(&path, key), problem);
            }
        }
    }

    // --- containers ------------------------------------------------------------------------------

    fn containers(&mut self, spec: &Node, path: &str) {
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
                    // The same list is held to its keys by the schema.
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

    fn container(&mut self, node: &Node, path: &str, pod: &Pod) {
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
                "{} is no reference of an image, so no node can start it: write [HOST/]NAME[:TAG][@DIGEST] in lower case",
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

    fn probe(&mut self, probe: &Node, kind: &str, path: &str, container: &Node) {
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

    /// What a probe or hook does, on a port that the container may name.
    fn action(&mut self, action: &Node, path: &str, kinds: &[&str], container: &Node) {
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
                // The API server takes it, and a node never finds it.
                let message = format!("{below}: the container has no port named {}", quoted(name));
                self.findings.push(Finding::warning(port.at, message));
            }
        }
    }

    fn ports(&mut self, container: &Node, path: &str, pod: &Pod) {
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
                let problem = "must be containerPort where hostNetwork is true";
                self.error(node, &join(&path, "hostPort"), problem);
            }
        }
    }

    /// A port of the node goes to one container alone.
    fn host_ports<'a>(
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

    fn environment(&mut self, container: &Node, path: &str) {
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
            let form = "is no name of a variable: `=` and what cannot be printed may not be in it";
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
                let form = "is no field that a variable may have";
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

    fn mounts(&mut self, container: &Node, path: &str, pod: &Pod) {
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

    fn resources(&mut self, container: &Node, path: &str) {
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
                        "{below} is no resource of a container: write cpu, memory, ephemeral-storage, or an extended one such as example.org/gpu"
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
                // What cannot be shared out twice is asked for as it is limited.
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

/// The members of a list, each with its path.
fn members<'a>(of: &'a Node, list: &str, path: &str) -> impl Iterator<Item = (&'a Node, String)> {
    let path = join(path, list);
    let items = of.get(list).into_iter().flat_map(Node::items);
    items
        .enumerate()
        .map(move |(index, item)| (item, format!("{path}[{index}]")))
}

fn quoted(text: &str) -> String {
    format!("`{}`", shown(text, MAX_SHOWN))
}

fn is_true(of: &Node, key: &str) -> bool {
    of.get(key).map(|it| &it.value) == Some(&Yaml::Bool(true))
}

// --- forms ---------------------------------------------------------------------------------------

const NAME: &str = "is no name: write lower-case letters, digits, `-` and `.`";
const LABEL: &str = "is no name: write at most 63 lower-case letters, digits and `-`";
const PORT: &str = "is no name of a port: write at most 15 lower-case letters, digits and `-`, at least one a letter";
const QUALIFIED: &str =
    "is no key: write [DOMAIN/]NAME, the name of at most 63 letters, digits, `-`, `_` and `.`";

fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_label(text)
}

fn is_port_name(text: &str) -> bool {
    is_label(text)
        && text.len() <= 15
        && text.contains(|c: char| c.is_ascii_lowercase())
        && !text.contains("--")
}

/// Letters and digits at both ends, with `-`, `_` and `.` between.
fn is_word(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 63
        && text.starts_with(letter)
        && text.ends_with(letter)
        && text.chars().all(|c| letter(c) || "-_.".contains(c))
}

fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_word(text)
}

fn is_qualified(text: &str) -> bool {
    match text.split_once('/') {
        Some((domain, name)) => domain.len() <= 253 && is_subdomain(domain) && is_word(name),
        None => is_word(text),
    }
}

fn is_field(text: &str) -> bool {
    const FIELDS: [&str; 9] = [
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    let of_map = ["metadata.labels['", "metadata.annotations['"];
    FIELDS.contains(&text) || (text.ends_with("']") && of_map.iter().any(|it| text.starts_with(it)))
}

/// Whether a node can tell where to pull from: the grammar of the distribution's references.
fn is_image(text: &str) -> bool {
    if text == smoke_job::IMAGE {
        return false;
    }
    let (named, digest) = match text.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (text, None),
    };
    let is_digest = |digest: &str| {
        digest.split_once(':').is_some_and(|(algorithm, hex)| {
            is_word(algorithm) && hex.len() >= 32 && hex.bytes().all(|it| it.is_ascii_hexdigit())
        })
    };
    let (name, tag) = match named.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (named, None),
    };
    let is_tag = |tag: &str| {
        (1..=128).contains(&tag.len())
            && !tag.starts_with(['.', '-'])
            && tag
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || b"_.-".contains(&it))
    };
    let is_part = |part: &str| {
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        part.starts_with(letter)
            && part.ends_with(letter)
            && part.chars().all(|c| letter(c) || "._-".contains(c))
    };
    let is_host = |host: &str| {
        let named = host.contains(['.', ':']) || host == "localhost" || host.to_lowercase() != host;
        named
            && host
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || ".:-[]".contains(c))
    };
    let path = match name.split_once('/') {
        Some((host, path)) if is_host(host) => path,
        _ => name,
    };
    path.split('/').all(is_part) && tag.is_none_or(is_tag) && digest.is_none_or(is_digest)
}

/// A quantity as a number.
fn amount(node: &Node) -> Option<f64> {
    let Some(text) = node.text() else {
        return node.number();
    };
    let end = text.find(|c: char| c.is_ascii_alphabetic());
    let (number, suffix) = text.split_at(end.unwrap_or(text.len()));
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => f64::from(1 << 20),
        "Gi" => f64::from(1 << 30),
        "Ti" => 2_f64.powi(40),
        "Pi" => 2_f64.powi(50),
        "Ei" => 2_f64.powi(60),
        _ => return text.parse().ok().filter(|_| is_quantity(text)),
    };
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::documents;

    fn pod(spec: &str) -> String {
        format!("metadata: {{ labels: {{ app: web }} }}\nspec: {{ {spec} }}\n")
    }

    fn container(members: &str) -> String {
        pod(&format!(
            "containers: [{{ name: web, image: a:1, {members} }}]"
        ))
    }

    fn told(text: &str, purpose: Purpose) -> Vec<String> {
        let template = documents(text).unwrap().remove(0);
        let findings = check(&template, "template", purpose).into_iter();
        findings.map(|it| it.message).collect()
    }

    #[test]
    fn what_kubernetes_takes_has_no_findings() {
        for text in [
            container(""),
            pod("restartPolicy: '', containers: [{ name: web, image: a }]"),
            pod(
                "restartPolicy: Always, nodeSelector: ~, tolerations: ~, affinity: ~, containers: [{ name: web, image: a, env: ~, resources: ~ }]",
            ),
            pod(
                "initContainers: [{ name: init, image: a }, { name: proxy, image: a, restartPolicy: Always, startupProbe: { tcpSocket: { port: 80 } } }], containers: [{ name: web, image: a }]",
            ),
            pod(
                "volumes: [{ name: cache }, { name: config, configMap: { name: c, defaultMode: 0644 } }], containers: [{ name: web, image: a, volumeMounts: [{ name: cache, mountPath: /c }, { name: config, mountPath: /d, subPath: a/b }] }]",
            ),
            pod(
                "tolerations: [{ operator: Exists }, { key: a, value: b, effect: NoSchedule }], containers: [{ name: web, image: a }]",
            ),
            container(
                "ports: [{ containerPort: 8080, name: http }], readinessProbe: { httpGet: { port: http, path: / } }, livenessProbe: { tcpSocket: { port: 8080 } }",
            ),
            container(
                "env: [{ name: A, value: '${B} {{ x }}' }, { name: a.b-c, valueFrom: { fieldRef: { fieldPath: \"metadata.labels['a']\" } } }], envFrom: [{ secretRef: { name: s } }]",
            ),
            container(
                "resources: { requests: { cpu: 0.5, memory: 256Mi, example.org/gpu: 1 }, limits: { cpu: 500m, memory: 0.25Gi, example.org/gpu: '1', hugepages-2Mi: 4Mi } }",
            ),
            container(
                "lifecycle: { preStop: { sleep: { seconds: 5 } } }, securityContext: { runAsUser: 0, privileged: true }",
            ),
            container("command: ['{{- with secret -}}'], newField: { x: 1 }"),
        ] {
            assert_eq!(told(&text, Purpose::Serve), [] as [&str; 0], "{text}");
        }
        let once = pod(
            "restartPolicy: Never, activeDeadlineSeconds: 5, containers: [{ name: smoke, image: '{{image}}' }]",
        );
        assert_eq!(told(&once, Purpose::RunOnce), [] as [&str; 0]);
    }

    #[test]
    #[allow(clippy::too_many_lines, reason = "a table")]
    fn what_kubernetes_refuses_is_named_with_its_place() {
        for (text, expected) in [
            (
                pod("restartPolicy: OnFailure, containers: [{ name: web, image: a }]"),
                "template.spec.restartPolicy: must be Always",
            ),
            (
                pod("activeDeadlineSeconds: 5, containers: [{ name: web, image: a }]"),
                "template.spec.activeDeadlineSeconds: ",
            ),
            (
                pod(
                    "ephemeralContainers: [{ name: e, image: a }], containers: [{ name: web, image: a }]",
                ),
                "template.spec.ephemeralContainers: ",
            ),
            (
                pod("dnsPolicy: Cluster, containers: [{ name: web, image: a }]"),
                "template.spec.dnsPolicy: `Cluster` is none of ClusterFirst,",
            ),
            (
                pod("dnsPolicy: None, containers: [{ name: web, image: a }]"),
                "template.spec.dnsPolicy: None needs",
            ),
            (
                pod("serviceAccountName: Web, containers: [{ name: web, image: a }]"),
                "template.spec.serviceAccountName: `Web` is no name",
            ),
            (
                pod("nodeSelector: { 'a b': c }, containers: [{ name: web, image: a }]"),
                "template.spec.nodeSelector: `a b` is no key",
            ),
            (
                pod(
                    "hostPID: true, shareProcessNamespace: true, containers: [{ name: web, image: a }]",
                ),
                "template.spec.shareProcessNamespace: ",
            ),
            (
                pod("securityContext: { runAsUser: -1 }, containers: [{ name: web, image: a }]"),
                "template.spec.securityContext.runAsUser: -1 is not from 0",
            ),
            (
                pod("tolerations: [{ value: b }], containers: [{ name: web, image: a }]"),
                "template.spec.tolerations[0]: without a key",
            ),
            (
                pod(
                    "tolerations: [{ key: a, effect: NoRun }], containers: [{ name: web, image: a }]",
                ),
                "template.spec.tolerations[0].effect: `NoRun`",
            ),
            (
                pod(
                    "tolerations: [{ key: a, tolerationSeconds: 5 }], containers: [{ name: web, image: a }]",
                ),
                "template.spec.tolerations[0]: tolerationSeconds",
            ),
            (
                pod(
                    "topologySpreadConstraints: [{ maxSkew: 0, topologyKey: z, whenUnsatisfiable: DoNotSchedule }], containers: [{ name: web, image: a }]",
                ),
                "template.spec.topologySpreadConstraints[0].maxSkew: 0 is below 1",
            ),
            (
                pod(
                    "affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [] } } }, containers: [{ name: web, image: a }]",
                ),
                "template.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: has no term",
            ),
            (
                pod(
                    "affinity: { podAntiAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 101, podAffinityTerm: { topologyKey: z } }] } }, containers: [{ name: web, image: a }]",
                ),
                "template.spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: 101",
            ),
            (
                pod("hostAliases: [{ ip: nowhere }], containers: [{ name: web, image: a }]"),
                "template.spec.hostAliases[0].ip: `nowhere` is no IP address",
            ),
            (
                pod(
                    "volumes: [{ name: c, emptyDir: {}, secret: { secretName: s } }], containers: [{ name: web, image: a }]",
                ),
                "template.spec.volumes[0]: is of one kind only, not of emptyDir and secret",
            ),
            (
                pod(
                    "volumes: [{ name: c, configMap: { name: s, defaultMode: 644 } }], containers: [{ name: web, image: a }]",
                ),
                "template.spec.volumes[0].configMap.defaultMode: 644 is no permission",
            ),
            (
                pod("volumes: [{ name: c, secret: {} }], containers: [{ name: web, image: a }]"),
                "template.spec.volumes[0].secret.secretName: is missing",
            ),
            (
                pod(
                    "initContainers: [{ name: web, image: a }], containers: [{ name: web, image: a }]",
                ),
                "template.spec.initContainers[0].name: `web` is the name of one of containers already",
            ),
            (
                pod(
                    "initContainers: [{ name: i, image: a, readinessProbe: { exec: { command: [a] } } }], containers: [{ name: web, image: a }]",
                ),
                "template.spec.initContainers[0].readinessProbe: an init container has none",
            ),
            (
                pod("containers: [{ name: web }]"),
                "template.spec.containers[0].image: is missing",
            ),
            (
                pod("containers: [{ name: web_1, image: a }]"),
                "template.spec.containers[0].name: `web_1` is no name",
            ),
            (
                pod("containers: [{ name: web, image: 'Shop/Web:1' }]"),
                "template.spec.containers[0].image: `Shop/Web:1` is no reference",
            ),
            (
                pod("containers: [{ name: web, image: 'web:${TAG}' }]"),
                "template.spec.containers[0].image: `web:${TAG}` is no reference",
            ),
            (
                pod(
                    "containers: [{ name: web, image: a, ports: [{ containerPort: 80, hostPort: 80 }] }, { name: b, image: a, ports: [{ containerPort: 81, hostPort: 80 }] }]",
                ),
                "template.spec.containers[1].ports[0].hostPort: 80 of the node is taken",
            ),
            (
                pod(
                    "hostNetwork: true, containers: [{ name: web, image: a, ports: [{ containerPort: 80, hostPort: 81 }] }]",
                ),
                "template.spec.containers[0].ports[0].hostPort: must be containerPort",
            ),
            (
                container("imagePullPolicy: Sometimes"),
                "template.spec.containers[0].imagePullPolicy: `Sometimes`",
            ),
            (
                container("ports: [{ containerPort: 70000 }]"),
                "template.spec.containers[0].ports[0].containerPort: 70000 is not from 1 to 65535",
            ),
            (
                container("ports: [{ containerPort: 80, protocol: HTTP }]"),
                "template.spec.containers[0].ports[0].protocol: `HTTP`",
            ),
            (
                container("ports: [{ containerPort: 80, name: a-name-that-is-long }]"),
                "template.spec.containers[0].ports[0].name: ",
            ),
            (
                container(
                    "ports: [{ containerPort: 80, name: a }, { containerPort: 81, name: a }]",
                ),
                "template.spec.containers[0].ports[1].name: `a` is the name of another port",
            ),
            (
                container("volumeMounts: [{ name: cache, mountPath: /c }]"),
                "template.spec.containers[0].volumeMounts[0].name: there is no volume `cache`",
            ),
            (
                container("env: [{ name: 'a=b', value: c }]"),
                "template.spec.containers[0].env[0].name: `a=b`",
            ),
            (
                container(
                    "env: [{ name: a, value: c, valueFrom: { fieldRef: { fieldPath: metadata.name } } }]",
                ),
                "template.spec.containers[0].env[0].valueFrom: cannot be set beside value",
            ),
            (
                container("env: [{ name: a, valueFrom: { fieldRef: { fieldPath: spec.image } } }]"),
                "template.spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: `spec.image`",
            ),
            (
                container("envFrom: [{ prefix: a }]"),
                "template.spec.containers[0].envFrom[0]: set exactly one of",
            ),
            (
                container("resources: { requests: { memory: 2Gi }, limits: { memory: 1Gi } }"),
                "template.spec.containers[0].resources.requests.memory: is more than its limit",
            ),
            (
                container("resources: { limits: { mem: 1Gi } }"),
                "template.spec.containers[0].resources.limits.mem is no resource",
            ),
            (
                container(
                    "resources: { requests: { example.org/gpu: 1 }, limits: { example.org/gpu: 2 } }",
                ),
                "template.spec.containers[0].resources.requests[example.org/gpu]: must be its limit",
            ),
            (
                container("readinessProbe: { periodSeconds: 5 }"),
                "template.spec.containers[0].readinessProbe: set exactly one of exec, httpGet, tcpSocket, grpc",
            ),
            (
                container("readinessProbe: { httpGet: { port: http } }"),
                "template.spec.containers[0].readinessProbe.httpGet.port: the container has no port named `http`",
            ),
            (
                container("readinessProbe: { httpGet: { port: '8080' } }"),
                "template.spec.containers[0].readinessProbe.httpGet.port: `8080` is no name of a port",
            ),
            (
                container("livenessProbe: { successThreshold: 2, tcpSocket: { port: 80 } }"),
                "template.spec.containers[0].livenessProbe.successThreshold: 2 is not from 0 to 1",
            ),
            (
                container("lifecycle: { preStop: { sleep: { seconds: 60 } } }"),
                "template.spec.containers[0].lifecycle.preStop.sleep.seconds: 60 is not from 0 to 30",
            ),
            (
                container("securityContext: { privileged: true, allowPrivilegeEscalation: false }"),
                "template.spec.containers[0].securityContext.allowPrivilegeEscalation: ",
            ),
        ] {
            let found = told(&text, Purpose::Serve);
            assert!(
                found.len() == 1 && found[0].starts_with(expected),
                "{text}: {found:?}"
            );
        }
        let labels = documents("labels: { app: 'a b', '-x': y }\n")
            .unwrap()
            .remove(0);
        assert_eq!(check_metadata(&labels, "metadata").len(), 2);
    }

    #[test]
    fn references_of_images_are_those_that_a_node_can_read() {
        let digest = "a".repeat(64);
        for good in [
            "web".to_owned(),
            "web:1".into(),
            "shop/web:v1.2.3-rc_1".into(),
            "registry.example/shop/web:1".into(),
            "localhost:5000/web".into(),
            "REGISTRY.example:5000/web:Latest".into(),
            format!("web@sha256:{digest}"),
            format!("quay.io/a/b__c:1@sha256:{digest}"),
        ] {
            assert!(is_image(&good), "{good}");
        }
        for bad in [
            "",
            " ",
            "Web",
            "shop/Web",
            "web:",
            "web:a b",
            "web:-1",
            "web@sha256:1",
            "/web",
            "web/",
            "{{image}}",
            "a:${T}",
            "http://a/b",
        ] {
            assert!(!is_image(bad), "{bad}");
        }
    }

    #[test]
    fn amounts_are_compared_whatever_their_suffix() {
        for (text, expected) in [
            ("0.5", 0.5),
            ("500m", 0.5),
            ("'1Gi'", 1_073_741_824.0),
            ("1e3", 1_000.0),
            ("'1e3'", 1_000.0),
            ("2", 2.0),
        ] {
            let node = documents(&format!("[{text}]")).unwrap().remove(0);
            let found = amount(&node.items()[0]).unwrap();
            assert!((found - expected).abs() < 1e-9, "{text}: {found}");
        }
    }
}
