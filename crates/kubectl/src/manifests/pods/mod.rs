//! Kubernetes' own validation of a pod template, without an API server.
//!
//! The definition of a Rollout checks the template by its schema only; further errors would appear only
//! when its ReplicaSet is created. Fields and values that are newer than this build are ignored. An error
//! is refused by the API server in a ReplicaSet or Job, or no node can start the pod.

mod containers;
mod forms;

use std::collections::BTreeSet;
use std::net::IpAddr;

use countersign_core::label::{is_label_value, is_qualified, is_subdomain};

use crate::manifests::finding::{Finding, join};
use crate::manifests::pods::forms::{LABEL, NAME, QUALIFIED, is_dns_label, is_true, quoted};
use crate::manifests::yaml::{Node, Yaml};

/// Most bytes of all annotations of an object; the API server refuses more.
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

/// The purpose of the pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Pods of a ReplicaSet, which serve until they are deleted.
    #[default]
    Serve,
    /// Pods of a Job, which run to completion.
    RunOnce,
}

/// Findings on a pod template at this path.
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

/// Findings on the labels and annotations of any object.
#[must_use]
pub fn check_metadata(metadata: &Node, path: &str) -> Vec<Finding> {
    let mut pods = Pods::default();
    pods.metadata(metadata, path);
    pods.findings
}

/// Findings on the labels of a selector.
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

/// The fields of a pod that its containers depend on.
struct Pod<'a> {
    volumes: BTreeSet<&'a str>,
    grace: f64,
    host_network: bool,
    is_init: bool,
}

impl Pods {
    pub(super) fn error(&mut self, node: &Node, path: &str, problem: impl AsRef<str>) {
        let message = format!("{path}: {}", problem.as_ref());
        self.findings.push(Finding::error(node.at, message));
    }

    /// Checks the form of a text; an empty text counts as absent.
    pub(super) fn form(
        &mut self,
        of: &Node,
        key: &str,
        path: &str,
        has: fn(&str) -> bool,
        form: &str,
    ) {
        if let Some(node) = of.get(key)
            && let Some(text) = node.text()
            && !text.is_empty()
            && !has(text)
        {
            self.error(node, &join(path, key), format!("{} {form}", quoted(text)));
        }
    }

    /// Checks that a text is one of the known values, or empty, which is the default.
    pub(super) fn one_of(&mut self, of: &Node, key: &str, path: &str, known: &[&str]) {
        if let Some(node) = of.get(key)
            && let Some(text) = node.text()
            && !text.is_empty()
            && !known.contains(&text)
        {
            let problem = format!("{} is none of {}", quoted(text), known.join(", "));
            self.error(node, &join(path, key), problem);
        }
    }

    pub(super) fn range(&mut self, of: &Node, key: &str, path: &str, least: f64, most: f64) {
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

    /// Checks that exactly one member of an object is set.
    pub(super) fn exactly_one(&mut self, node: &Node, path: &str, members: &[&str]) {
        let set = members.iter().filter(|it| node.get(it).is_some()).count();
        if set != 1 {
            let problem = format!("set exactly one of {}", members.join(", "));
            self.error(node, path, problem);
        }
    }

    pub(super) fn required(&mut self, of: &Node, key: &str, path: &str) {
        let is_empty = |node: &Node| node.text() == Some("");
        if of.get(key).is_none_or(is_empty) {
            self.error(of, &join(path, key), "is missing");
        }
    }

    /// A required value must not be empty.
    pub(super) fn not_empty(&mut self, of: &Node, key: &str, path: &str) {
        if of.get(key).is_some() {
            self.required(of, key, path);
        }
    }

    pub(super) fn metadata(&mut self, metadata: &Node, path: &str) {
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

    pub(super) fn labels(&mut self, labels: &Node, path: &str) {
        for entry in labels.entries() {
            if !is_qualified(&entry.key) {
                let message = format!("{path}: {} {QUALIFIED}", quoted(&entry.key));
                self.findings.push(Finding::error(entry.at, message));
            }
            if let Some(value) = entry.value.text()
                && !is_label_value(value)
            {
                let problem = format!(
                    "{} is not a label value: write at most 63 letters, digits, `-`, `_` and `.`, the first and last a letter or digit",
                    quoted(value)
                );
                self.error(&entry.value, &join(path, &entry.key), problem);
            }
        }
    }

    pub(super) fn spec(&mut self, spec: &Node, path: &str) {
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
            let problem = "cannot be shared if the node's is used (hostPID)";
            self.error(spec, &join(path, "shareProcessNamespace"), problem);
        }
        self.users(spec, path);
        self.tolerations(spec, path);
        self.placement(spec, path);
        self.host_aliases(spec, path);
        self.volumes(spec, path);
        self.containers(spec, path);
    }

    pub(super) fn serves(&mut self, spec: &Node, path: &str) {
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

    pub(super) fn users(&mut self, of: &Node, path: &str) {
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
            let problem = "cannot be false if privileged is true";
            self.error(node, &join(&path, "allowPrivilegeEscalation"), problem);
        }
    }

    pub(super) fn tolerations(&mut self, spec: &Node, path: &str) {
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

    pub(super) fn placement(&mut self, spec: &Node, path: &str) {
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

    pub(super) fn host_aliases(&mut self, spec: &Node, path: &str) {
        for (node, path) in members(spec, "hostAliases", path) {
            let is_ip = |text: &str| text.parse::<IpAddr>().is_ok();
            self.form(node, "ip", &path, is_ip, "is not an IP address");
            for (name, path) in members(node, "hostnames", &path) {
                if let Some(text) = name.text().filter(|it| !is_subdomain(it)) {
                    self.error(name, &path, format!("{} {NAME}", quoted(text)));
                }
            }
        }
    }

    pub(super) fn volumes(&mut self, spec: &Node, path: &str) {
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
    pub(super) fn modes(&mut self, source: &Node, path: &str) {
        let items = members(source, "items", path);
        let items = items.map(|(item, path)| (item, path, "mode"));
        for (node, path, key) in items.chain([(source, path.to_owned(), "defaultMode")]) {
            if let Some(mode) = node.get(key)
                && let Some(number) = mode.number()
                && !(0.0..=511.0).contains(&number)
            {
                let problem =
                    format!("{number} is not a file mode: write 0 to 0777, with the 0 before it");
                self.error(mode, &join(&path, key), problem);
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

#[cfg(test)]
mod tests;
