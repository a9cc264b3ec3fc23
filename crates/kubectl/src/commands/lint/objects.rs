//! Checks across the objects of all files.

use std::collections::{BTreeMap, BTreeSet};

use countersign_api::provenance::{Trust, TrustedKey};
use countersign_api::{HASH_LABEL, Rollout, RolloutPolicy, RouteReference, Selector};
use countersign_core::observation::traffic::RouteObject;
use countersign_core::traffic::route::rule;
use countersign_core::traffic::route::rule::Sides;
use k8s_openapi::jiff::Timestamp;

use crate::commands::lint::fields::{Key, identified, nameless, service, texts, typed};
use crate::commands::lint::people;
use crate::commands::lint::provenance::{explain_placeholders, pods_of, provenance, smoke_images};
use crate::commands::lint::queries::{analysis_queries, incident, template};
use crate::commands::lint::windows::windows;
use crate::manifests::finding::{Finding, Severity};
use crate::manifests::kinds::kind;
use crate::manifests::pods::{self};
use crate::manifests::schema;
use crate::manifests::yaml::Node;

/// Checks across the objects of all files.
pub(super) struct Around<'a> {
    now: Timestamp,
    rollouts: Vec<BTreeMap<String, String>>,
    /// Selectors of Services by namespace and name.
    services: BTreeMap<(Option<&'a str>, &'a str), &'a Node>,
    /// Every object by namespace, kind and name.
    objects: BTreeMap<Key<'a>, &'a Node>,
}

impl<'a> Around<'a> {
    pub(super) fn of(objects: impl Iterator<Item = &'a Node>, now: Timestamp) -> Self {
        let mut around = Self {
            now,
            rollouts: Vec::new(),
            services: BTreeMap::new(),
            objects: BTreeMap::new(),
        };
        for object in objects {
            if kind(object) == Some("Rollout") {
                around
                    .rollouts
                    .push(texts(object.find(&["metadata", "labels"])));
            }
            around.services.extend(service(object));
            around.objects.extend(identified(object));
        }
        around
    }

    pub(super) fn check(&self, object: &Node) -> Vec<Finding> {
        let Some(kind) = kind(object) else {
            return nameless(object).into_iter().collect();
        };
        let mut findings = schema::check(object);
        let sound = findings.iter().all(|it| it.severity != Severity::Error);
        let metadata = object.get("metadata");
        findings.extend(
            metadata
                .into_iter()
                .flat_map(|it| pods::check_metadata(it, "metadata")),
        );
        if let Some(spec) = object.get("spec") {
            if kind == "Rollout" {
                findings.extend(pods_of(spec));
            }
            if sound {
                findings.extend(self.beyond_schema(kind, object, spec));
            }
        }
        explain_placeholders(object, &mut findings);
        findings
    }

    fn beyond_schema(&self, kind: &str, object: &Node, spec: &Node) -> Vec<Finding> {
        let mut findings = Vec::new();
        match kind {
            "Rollout" => findings.extend(self.rollout(object, spec)),
            "RolloutPolicy" => findings.extend(self.policy(object, spec)),
            "AnalysisTemplate" => findings.extend(template(object, spec)),
            "Freeze" => findings.extend(self.freeze(spec)),
            "SignOff" => findings.extend(self.signature(spec, "approver", "expiresAt")),
            "Intervention" => findings.extend(self.signature(spec, "person", "expiresAt")),
            _ => {}
        }
        findings
    }

    fn rollout(&self, object: &Node, spec: &Node) -> Vec<Finding> {
        let rollout: Rollout = match typed(object) {
            Ok(rollout) => rollout,
            Err(finding) => return vec![finding],
        };
        // With `workloadRef`, the selector may be set; it describes the Deployment's template.
        let mut findings = match rollout.spec.workload_ref {
            Some(_) => Vec::new(),
            None => provenance(object, &rollout),
        };
        findings.extend(self.circle(object, spec));
        findings.extend(system_namespace(object));
        if let Some(canary) = spec.find(&["strategy", "canary"]) {
            findings.extend(people::of_canary(canary));
            let strategy = &rollout.spec.strategy.canary;
            let services = [&strategy.canary_service, &strategy.stable_service];
            let services = services.map(Option::as_deref);
            if let (Some(node), Some(analysis)) = (canary.get("analysis"), &strategy.analysis) {
                findings.extend(analysis_queries(node, analysis, &services));
            }
            let pods = canary.find(&["smoke", "template"]);
            findings.extend(pods.into_iter().flat_map(smoke_images));
            let namespace = object.find(&["metadata", "namespace"]).and_then(Node::text);
            let routes = canary.find(&["traffic", "routes"]);
            let routes = routes.into_iter().flat_map(Node::items);
            for node in routes {
                findings.extend(self.route(node, namespace, &rollout));
            }
            for key in ["stableService", "canaryService"] {
                let name = canary.get(key);
                findings.extend(name.and_then(|name| self.service(name, namespace, &rollout)));
            }
        }
        findings
    }

    /// A route in the files that cannot be split.
    fn route(&self, node: &Node, namespace: Option<&str>, rollout: &Rollout) -> Option<Finding> {
        let reference: RouteReference = serde_json::from_value(node.json()).ok()?;
        let (kind, name) = (reference.kind, reference.name.as_str());
        let found = self.objects.get(&(namespace, kind.as_str(), name))?;
        let object = RouteObject {
            object: found.json(),
            last_writer: None,
        };
        let strategy = &rollout.spec.strategy.canary;
        let sides = match &reference.destination_rule {
            Some(subsets) => Sides::Subsets {
                namespace: namespace.unwrap_or("default"),
                host: None,
                subsets,
            },
            None => Sides::Services {
                namespace: namespace.unwrap_or("default"),
                stable: strategy.stable_service.as_deref()?,
                canary: strategy.canary_service.as_deref()?,
            },
        };
        let problem = rule::rules(kind, &object, &reference.rules, sides).err()?;
        let at = node.get("name").map_or(node.at, |name| name.at);
        Some(Finding::error(at, format!("{kind} {name}: {problem}")))
    }

    /// Rollouts that wait for each other, so that no change of them ever begins.
    fn circle(&self, object: &Node, spec: &Node) -> Option<Finding> {
        let namespace = object.find(&["metadata", "namespace"]).and_then(Node::text);
        let own = object.find(&["metadata", "name"])?.text()?;
        let list = spec.get("dependsOn")?;
        let mut seen = BTreeSet::new();
        let mut next: Vec<&str> = list.items().iter().filter_map(Node::text).collect();
        while let Some(name) = next.pop() {
            if name == own {
                let message =
                    format!("dependsOn leads back to {own} itself: its changes would wait forever");
                return Some(Finding::error(list.at, message));
            }
            let other = self
                .objects
                .get(&(namespace, "Rollout", name))
                .filter(|_| seen.insert(name));
            let further = other.and_then(|it| it.find(&["spec", "dependsOn"]));
            next.extend(
                further
                    .into_iter()
                    .flat_map(Node::items)
                    .filter_map(Node::text),
            );
        }
        None
    }

    /// The selector of a referenced Service: it matches no pods of the Rollout, or conflicts with the
    /// operator's.
    fn service(&self, name: &Node, namespace: Option<&str>, rollout: &Rollout) -> Option<Finding> {
        let service = name.text()?;
        let selector = texts(Some(self.services.get(&(namespace, service))?));
        // An adopted workload's labels are not in the Rollout, and its Service keeps its selector until
        // the takeover.
        let labels = Some(rollout.spec.template.labels()).filter(|it| !it.is_empty())?;
        let stray = selector
            .iter()
            .find(|(label, value)| *label != HASH_LABEL && labels.get(*label) != Some(value));
        Some(match stray {
            Some((label, value)) => Finding::error(
                name.at,
                format!(
                    "Service {service} selects pods with {label}={value}, which is not a label of spec.template: it would never reach them"
                ),
            ),
            None => Finding::warning(
                name.at,
                format!(
                    "the manifest of Service {service} has spec.selector, which is one value for server-side apply: that conflicts with the controller, or takes {HASH_LABEL} out; leave spec.selector out, the controller sets it"
                ),
            ),
        })
    }

    fn policy(&self, object: &Node, spec: &Node) -> Vec<Finding> {
        let policy: RolloutPolicy = match typed(object) {
            Ok(policy) => policy,
            Err(finding) => return vec![finding],
        };
        let mut findings = Vec::new();
        if let (Some(node), Some(analysis)) = (spec.get("analysis"), &policy.spec.analysis) {
            findings.extend(analysis_queries(node, analysis, &[Some("service")]));
        }
        findings.extend(self.selects_nothing(spec));
        findings.extend(windows(spec));
        findings.extend(people::of_policy(spec));
        findings.extend(
            spec.find(&["freeze", "incident", "query"])
                .and_then(incident),
        );
        let demands = &policy.spec.provenance;
        let keys = spec
            .find(&["provenance", "keys"])
            .into_iter()
            .flat_map(Node::items);
        for (node, key) in keys.zip(&demands.keys) {
            findings.extend(self.key(node, key));
        }
        if demands.trust == Some(Trust::Attested) && demands.keys.is_empty() {
            let at = spec
                .find(&["provenance", "trust"])
                .map_or(spec.at, |trust| trust.at);
            let message = "no key is named whose attestations are believed, so every provenance counts as unknown: add one to spec.provenance.keys here or in another policy";
            findings.push(Finding::warning(at, message));
        }
        findings
    }

    fn key(&self, node: &Node, key: &TrustedKey) -> Option<Finding> {
        use ed25519_dalek::pkcs8::DecodePublicKey as _;
        let pem = &key.public_key;
        let can_be_read = p256::PublicKey::from_public_key_pem(pem).is_ok()
            || ed25519_dalek::VerifyingKey::from_public_key_pem(pem).is_ok();
        if !can_be_read {
            let at = node.entry("publicKey").map_or(node.at, |entry| entry.at);
            let message = "spec.provenance.keys: this is not a public key: give ECDSA P-256 or Ed25519 in PEM, beginning with -----BEGIN PUBLIC KEY-----";
            return Some(Finding::error(at, message));
        }
        self.past(node, "notAfter", "it is no longer trusted")
    }

    fn freeze(&self, spec: &Node) -> Vec<Finding> {
        let past = self.past(spec, "until", "it freezes nothing");
        past.into_iter().chain(self.selects_nothing(spec)).collect()
    }

    fn signature(&self, spec: &Node, person: &str, expiry: &str) -> Vec<Finding> {
        let mut findings: Vec<_> = self
            .past(spec, expiry, "it counts for nothing")
            .into_iter()
            .collect();
        if let Some(digest) = spec.get("digest")
            && !digest
                .text()
                .is_some_and(|it| it.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f')))
        {
            let message = "spec.digest is not the digest of a change: copy status.change.digest of the Rollout";
            findings.push(Finding::error(digest.at, message));
        }
        if let Some(name) = spec.find(&[person, "username"])
            && name.text().is_some_and(|it| it.starts_with("system:"))
        {
            let message =
                format!("spec.{person}.username is not a person, so this counts for nothing");
            findings.push(Finding::error(name.at, message));
        }
        findings
    }

    fn past(&self, node: &Node, key: &str, effect: &str) -> Option<Finding> {
        let value = node.get(key)?;
        let time: Timestamp = value.text()?.parse().ok()?;
        let message = format!("{key} is in the past: {effect}");
        (time <= self.now).then(|| Finding::warning(value.at, message))
    }

    /// A selector that matches none of the Rollouts in the files.
    fn selects_nothing(&self, spec: &Node) -> Option<Finding> {
        let node = spec.get("rolloutSelector")?;
        let selector: Selector = serde_json::from_value(node.json()).ok()?;
        let count = self.rollouts.len();
        let selects = self.rollouts.iter().any(|labels| selector.matches(labels));
        let message = format!(
            "rolloutSelector {selector} fits none of the {count} Rollouts in these files: compare it with their metadata.labels"
        );
        (count > 0 && !selects).then(|| Finding::warning(node.at, message))
    }
}

/// A namespace in which the admission policy `operator-confined` lets the operator create nothing; its own has
/// this name unless the chart was installed elsewhere.
fn system_namespace(rollout: &Node) -> Option<Finding> {
    let namespace = rollout.find(&["metadata", "namespace"])?;
    let name = namespace.text()?;
    let message = format!(
        "the operator creates no pods in kube-system and in its own namespace, so a Rollout in {name} would never serve: use another namespace"
    );
    ["kube-system", "countersign-system"]
        .contains(&name)
        .then(|| Finding::warning(namespace.at, message))
}
