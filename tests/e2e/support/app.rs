//! An application: everything of a Rollout that tests vary.

use countersign_api::PodTemplate;
use countersign_core::provenance::digest::template_digest;
use serde_json::{Value, json};

/// An application: everything of a Rollout that tests vary.
#[derive(Clone, Debug)]
pub struct App {
    pub name: String,
    pub replicas: i32,
    pub version: String,
    pub error_rate: f64,
    pub fail_first: i32,
    pub latency: String,
    /// The kubelet's reason why its container never starts; if `None`, it starts.
    pub starts: Option<String>,
    pub scraped: bool,
    pub pod_annotations: Value,
    pub provenance: Value,
    pub spec: Value,
    pub checks: bool,
}

impl App {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            replicas: 4,
            version: "v1".into(),
            error_rate: 0.0,
            fail_first: 0,
            latency: "0".into(),
            starts: None,
            scraped: true,
            pod_annotations: json!({}),
            provenance: harmless(),
            spec: json!({}),
            checks: true,
        }
    }

    /// The same application with another image, which is a change.
    #[must_use]
    pub fn version(&self, version: &str) -> Self {
        Self {
            version: version.to_owned(),
            ..self.clone()
        }
    }

    #[must_use]
    pub fn failing(&self, error_rate: f64) -> Self {
        Self {
            error_rate,
            ..self.clone()
        }
    }

    #[must_use]
    pub fn provenance(&self, provenance: Value) -> Self {
        Self {
            provenance,
            ..self.clone()
        }
    }

    /// The same application with other fields in its spec.
    #[must_use]
    pub fn spec(&self, spec: Value) -> Self {
        Self {
            spec,
            ..self.clone()
        }
    }

    pub fn manifest(&self) -> Value {
        let annotations: serde_json::Map<_, _> = self
            .provenance
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| (format!("provenance.countersign.dev/{key}"), value.clone()))
            .collect();
        let analysis = json!({ "interval": "1s", "checks": [{ "name": "errors", "preset": "HttpRequestsTotal" }] });
        let mut manifest = json!({
            "apiVersion": "countersign.dev/v1alpha1",
            "kind": "Rollout",
            "metadata": { "name": self.name, "annotations": annotations },
            "spec": {
                "replicas": self.replicas,
                "progressDeadlineSeconds": 30,
                "selector": { "matchLabels": { "app": self.name } },
                "template": {
                    "metadata": { "labels": { "app": self.name }, "annotations": self.pod_annotations },
                    "spec": {
                        "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
                        "containers": [{
                            "name": "app",
                            "image": format!("example.org/{}:{}", self.name, self.version),
                            "ports": [{ "containerPort": 8080 }],
                            "env": [
                                { "name": "ERROR_RATE", "value": self.error_rate.to_string() },
                                { "name": "FAIL_FIRST", "value": self.fail_first.to_string() },
                                { "name": "LATENCY", "value": self.latency },
                                { "name": "SCRAPED", "value": self.scraped.to_string() },
                                { "name": "STARTS", "value": self.starts.clone().unwrap_or_default() },
                            ],
                            "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
                        }],
                    },
                },
                "strategy": { "canary": if self.checks { json!({ "analysis": analysis }) } else { json!({}) } },
            },
        });
        merge(&mut manifest["spec"], &self.spec);
        self.stamp(&mut manifest);
        manifest
    }

    /// Each template has a provenance of its own, as from a pipeline: the revision is the template's, and what was
    /// reviewed.
    fn stamp(&self, manifest: &mut Value) {
        let reviewed = self.provenance.get("approved-revision");
        if reviewed.is_none() || reviewed != self.provenance.get("revision") {
            return;
        }
        let template = PodTemplate(manifest["spec"]["template"].clone());
        let revision = &template_digest(&template)[..7];
        for key in ["revision", "approved-revision"] {
            let key = format!("provenance.countersign.dev/{key}");
            manifest["metadata"]["annotations"][key] = json!(revision);
        }
    }
}

/// Merges a value into another one.
pub fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// The provenance of a small change by a person, reviewed and tested: tier low.
pub fn harmless() -> Value {
    json!({
        "revision": "1111111", "approved-revision": "1111111", "contributor": "human", "authors": "alice@example.org",
        "reviewers": "bob@example.org", "tests": "PASSED", "lines-added": "3", "lines-deleted": "2", "files-changed": "1",
    })
}

/// The provenance of a large change by an AI, which touches authentication: tier high.
pub fn risky() -> Value {
    json!({
        "revision": "2222222", "approved-revision": "2222222", "contributor": "ai", "ai-share": "90", "agents": "assistant:acme/model-1",
        "human-operator": "alice@example.org", "authors": "alice@example.org", "reviewers": "bob@example.org", "tests": "PASSED",
        "lines-added": "380", "lines-deleted": "120", "files-changed": "9", "touches": "auth",
    })
}
