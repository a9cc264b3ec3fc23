//! Manifests in files: bounded reads, and their typed objects.

pub mod pods;
pub mod rules;
pub mod schema;
pub mod yaml;

pub mod error;
pub(crate) mod finding;
pub(crate) mod inputs;
pub(crate) mod kinds;
pub mod source;

use std::collections::BTreeMap;

use countersign_api::{
    AnalysisTemplate, AnalysisTemplateSpec, PROVENANCE_PREFIX, PodTemplate, Rollout, RolloutPolicy,
};
use countersign_core::observation::Observation;
use countersign_core::observation::people::NamedPolicy;
use countersign_core::observation::workload::Service;
use countersign_core::policy;
use countersign_core::provenance::{Provenance, digest};
use countersign_core::simulation::manifest;
use countersign_core::simulation::manifest::Surroundings;
use countersign_core::text::sanitize_to;
use finding::Severity;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde::de::DeserializeOwned;
use serde_json::Value;
use yaml::Node;

use crate::manifests::error::{MAX_MESSAGE, ManifestError};
use crate::manifests::source::Source;

/// The typed objects of some files.
#[derive(Default)]
pub struct Manifests {
    /// The Rollouts in their order.
    pub rollouts: Vec<Rollout>,
    /// The policies in their order.
    pub policies: Vec<RolloutPolicy>,
    /// The Services by namespace and name.
    services: BTreeMap<(String, String), Service>,
    /// The AnalysisTemplates in their order.
    templates: Vec<AnalysisTemplate>,
    /// The Deployments in their order, as written.
    deployments: Vec<Value>,
}

impl Manifests {
    /// The objects of the sources; an object that the API server would refuse is an error.
    pub fn read(
        sources: Vec<(String, Result<Source, ManifestError>)>,
    ) -> Result<Self, ManifestError> {
        let sources: Result<Vec<_>, _> = sources.into_iter().map(|(_, source)| source).collect();
        Self::of(&sources?)
    }

    /// The objects in some texts.
    pub fn of(sources: &[Source]) -> Result<Self, ManifestError> {
        let mut all = Self::default();
        for source in sources {
            let objects = source
                .objects()
                .map_err(|error| source.invalid(error.at, &error.message, 0))?;
            for object in objects {
                all.add(source, &object)?;
            }
        }
        all.adopt()?;
        Ok(all)
    }

    /// Copies the Deployment's template, selector and provenance to each Rollout that adopts it.
    fn adopt(&mut self) -> Result<(), ManifestError> {
        for rollout in &mut self.rollouts {
            let Some(workload) = &rollout.spec.workload_ref else {
                continue;
            };
            let namespace = rollout.metadata.namespace.as_deref();
            let same = |it: &&Value| {
                let text = |path: &str| it.pointer(path).and_then(Value::as_str);
                text("/metadata/name") == Some(&workload.name)
                    && text("/metadata/namespace") == namespace
            };
            let found = self.deployments.iter().find(same);
            let missing = || ManifestError::NoWorkload {
                rollout: sanitize_to(&rollout.name_any(), MAX_MESSAGE),
                deployment: sanitize_to(&workload.name, MAX_MESSAGE),
            };
            let found = found.ok_or_else(missing)?;
            let part = |path: &str| found.pointer(path).cloned().unwrap_or_default();
            rollout.spec.template = PodTemplate(part("/spec/template"));
            rollout.spec.selector =
                serde_json::from_value(part("/spec/selector")).unwrap_or_default();
            let declared = rollout.annotations().keys();
            if !declared
                .into_iter()
                .any(|key| key.starts_with(PROVENANCE_PREFIX))
            {
                let annotations: BTreeMap<String, String> =
                    serde_json::from_value(part("/metadata/annotations")).unwrap_or_default();
                let provenance = annotations
                    .into_iter()
                    .filter(|(key, _)| key.starts_with(PROVENANCE_PREFIX));
                rollout.annotations_mut().extend(provenance);
            }
        }
        Ok(())
    }

    fn add(&mut self, source: &Source, object: &Node) -> Result<(), ManifestError> {
        match kinds::kind(object) {
            Some("Rollout") => self.rollouts.push(typed(source, object)?),
            Some("RolloutPolicy") => self.policies.push(typed(source, object)?),
            Some("AnalysisTemplate") => self.templates.push(typed(source, object)?),
            None if is_deployment(object) => self.deployments.push(object.json()),
            _ => self.services.extend(service(object)),
        }
        Ok(())
    }

    /// The observation of each Rollout right after it is applied over the Rollout of the same name in
    /// `stable`, or, if there is none, over another image.
    pub fn observations(
        self,
        stable: Option<&Self>,
        namespace_labels: &BTreeMap<String, String>,
        now: Timestamp,
    ) -> Result<Vec<Observed>, ManifestError> {
        let observe = |rollout: &Rollout| {
            let before = stable.map(|stable| stable.same(rollout)).transpose()?;
            let serving = match before {
                Some(before) => before.spec.template.clone(),
                None => manifest::with_another_image(&rollout.spec.template),
            };
            let (governing, others): (Vec<_>, Vec<_>) = self.policies.iter().partition(|policy| {
                policy::governs(&policy.spec, namespace_labels, rollout.labels())
            });
            let around = Surroundings {
                namespace_labels: namespace_labels.clone(),
                policies: governing.into_iter().map(named).collect(),
                services: self.services_of(rollout),
                templates: self.templates_beside(rollout),
            };
            let mut observation = manifest::observe(rollout, &serving, around, now);
            let annotations = before.map(ResourceExt::annotations);
            if let (Some(stable), Some(annotations)) = (&mut observation.status.stable, annotations)
            {
                stable.provenance_digest = digest::provenance_digest(annotations);
                stable.source_revision = Provenance::read(annotations, &serving).revision;
            }
            Ok(Observed {
                observation,
                namespace: rollout.namespace(),
                not_governing: others.into_iter().map(|it| reason(it, rollout)).collect(),
            })
        };
        self.rollouts.iter().map(observe).collect()
    }

    /// The Rollout of the same name.
    fn same(&self, rollout: &Rollout) -> Result<&Rollout, ManifestError> {
        let same = |other: &&Rollout| {
            other.name_any() == rollout.name_any() && other.namespace() == rollout.namespace()
        };
        let found = self.rollouts.iter().find(same);
        let missing = || ManifestError::NoStable(sanitize_to(&rollout.name_any(), MAX_MESSAGE));
        found.ok_or_else(missing)
    }

    /// The AnalysisTemplates of a Rollout's namespace.
    fn templates_beside(&self, rollout: &Rollout) -> BTreeMap<String, AnalysisTemplateSpec> {
        let beside = self.templates.iter();
        let beside = beside.filter(|template| template.namespace() == rollout.namespace());
        beside
            .map(|template| (template.name_any(), template.spec.clone()))
            .collect()
    }

    /// The Services that a Rollout references, as far as the files hold them.
    fn services_of(&self, rollout: &Rollout) -> BTreeMap<String, Option<Service>> {
        let canary = &rollout.spec.strategy.canary;
        let names = canary.stable_service.iter().chain(&canary.canary_service);
        let known = names.filter_map(|name| {
            let key = (rollout.namespace().unwrap_or_default(), name.clone());
            Some((name.clone(), Some(self.services.get(&key)?.clone())))
        });
        known.collect()
    }
}

/// A Rollout as the controller would observe it.
pub struct Observed {
    /// The input of the decision.
    pub observation: Observation,
    /// The manifest's namespace.
    pub namespace: Option<String>,
    /// The policies that do not apply to the Rollout, each with the reason.
    pub not_governing: Vec<String>,
}

fn named(policy: &RolloutPolicy) -> NamedPolicy {
    NamedPolicy {
        name: policy.name_any(),
        generation: policy.metadata.generation.unwrap_or_default(),
        spec: policy.spec.clone(),
    }
}

/// Why a policy does not apply to a Rollout.
fn reason(policy: &RolloutPolicy, rollout: &Rollout) -> String {
    let selector = &policy.spec.rollout_selector;
    let by_rollout = selector.as_ref().filter(|it| !it.matches(rollout.labels()));
    let (what, selector) = match (by_rollout, &policy.spec.namespace_selector) {
        (None, Some(selector)) => ("namespace", selector.to_string()),
        (selector, _) => (
            "Rollout",
            selector.map(ToString::to_string).unwrap_or_default(),
        ),
    };
    let (name, selector) = (
        sanitize_to(&policy.name_any(), 80),
        sanitize_to(&selector, 200),
    );
    format!("{name}: the {what} does not have the labels {selector}")
}

/// An object of a known kind that the API server would accept.
fn typed<T: DeserializeOwned>(source: &Source, object: &Node) -> Result<T, ManifestError> {
    let mut errors = schema::check(object);
    errors.retain(|finding| finding.severity == Severity::Error);
    if let Some(first) = errors.first() {
        return Err(source.invalid(first.at, &first.message, errors.len() - 1));
    }
    serde_json::from_value(schema::stored(object))
        .map_err(|error| source.invalid(object.at, &error.to_string(), 0))
}

fn is_deployment(object: &Node) -> bool {
    let text = |key| object.get(key).and_then(Node::text);
    text("kind") == Some("Deployment") && text("apiVersion") == Some("apps/v1")
}

/// Namespace, name and relevant fields of a Service.
fn service(object: &Node) -> Option<((String, String), Service)> {
    let is_service =
        object.get("kind")?.text()? == "Service" && object.get("apiVersion")?.text()? == "v1";
    let metadata = object.get("metadata").filter(|_| is_service)?;
    let text = |key| {
        metadata
            .get(key)
            .and_then(Node::text)
            .map(ToOwned::to_owned)
    };
    let spec = object.get("spec")?;
    let selector = spec.get("selector").into_iter().flat_map(Node::entries);
    let service = Service {
        kind: spec
            .get("type")
            .and_then(Node::text)
            .unwrap_or("ClusterIP")
            .to_owned(),
        selector: selector
            .filter_map(|entry| Some((entry.key.clone(), entry.value.text()?.to_owned())))
            .collect(),
    };
    Some((
        (text("namespace").unwrap_or_default(), text("name")?),
        service,
    ))
}

#[cfg(test)]
mod tests {
    use super::source::{HELM_TEMPLATE, is_helm_template};
    use super::*;

    fn source(text: &str) -> Source {
        Source {
            name: "a.yaml".into(),
            text: text.into(),
        }
    }

    #[test]
    fn helm_templates_are_distinguished_from_queries() {
        for template in [
            "{{ .Values.name }}",
            "{{- if .Values.x }}",
            "a: {{ include \"x\" . }}",
            "{{- end }}",
            "{{/* note */}}",
            "{{ $name }}",
            "{{ toYaml .x | nindent 2 }}",
        ] {
            assert!(is_helm_template(template), "{template}");
        }
        for other in [
            "x{a=\"{{revision}}\"}",
            "{{ window }}",
            "no braces",
            "{a: {b: c}}",
        ] {
            assert!(!is_helm_template(other), "{other}");
        }
    }

    #[test]
    fn a_helm_template_that_is_no_yaml_is_called_one_at_its_line() {
        let error = source("kind: Rollout\nname: {{ .Values.name }}\n")
            .objects()
            .unwrap_err();
        assert_eq!((error.at.line, error.message.as_str()), (2, HELM_TEMPLATE));
    }

    #[test]
    fn the_objects_of_a_list_are_read_one_by_one() {
        let list = "apiVersion: v1\nkind: List\nitems:\n  - kind: A\n  - kind: B\n---\nkind: C\n";
        let objects = source(list).objects().unwrap();
        let kinds: Vec<_> = objects
            .iter()
            .map(|it| it.get("kind").unwrap().text())
            .collect();
        assert_eq!(kinds, [Some("A"), Some("B"), Some("C")]);
    }

    #[test]
    fn what_the_api_server_would_refuse_is_refused_with_its_place() {
        let policy = "apiVersion: countersign.dev/v1alpha1
kind: RolloutPolicy
metadata: { name: a }
spec:
  tiers: { low: { minBake: 5 } }
  risks: {}
";
        let source = source(policy);
        let object = source.objects().unwrap().remove(0);
        let error = Manifests::default().add(&source, &object).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a.yaml:5:28: spec.tiers.low.minBake: 5 is not a text: write it in quotes (and 1 more: see `kubectl countersign lint`)"
        );
    }

    #[test]
    fn a_rollout_that_adopts_a_deployment_takes_its_template_and_provenance() {
        let rollout = "apiVersion: countersign.dev/v1alpha1
kind: Rollout
metadata: { name: web }
spec: { workloadRef: { name: web } }
";
        let deployment = "apiVersion: apps/v1
kind: Deployment
metadata: { name: web, annotations: { provenance.countersign.dev/contributor: human } }
spec:
  selector: { matchLabels: { app: web } }
  template: { metadata: { labels: { app: web } }, spec: { containers: [{ name: web, image: a:1 }] } }
";
        let read = |text: &str| {
            let source = source(text);
            let mut all = Manifests::default();
            for object in source.objects().unwrap() {
                all.add(&source, &object).unwrap();
            }
            all.adopt().map(|()| all)
        };
        let missing = read(rollout).map(drop).unwrap_err();
        assert!(
            matches!(missing, ManifestError::NoWorkload { .. }),
            "{missing}"
        );
        let all = read(&format!("{rollout}---\n{deployment}")).unwrap();
        let rollout = &all.rollouts[0];
        assert_eq!(rollout.spec.template.images(), ["a:1"]);
        assert_eq!(rollout.spec.selector.to_string(), "app=web");
        assert!(
            rollout
                .annotations()
                .contains_key("provenance.countersign.dev/contributor")
        );
    }

    #[test]
    fn a_service_is_read_as_far_as_it_matters() {
        let text = "apiVersion: v1
kind: Service
metadata: { name: web, namespace: shop }
spec: { type: LoadBalancer, selector: { app: web } }
";
        let (key, service) = service(&source(text).objects().unwrap()[0]).unwrap();
        assert_eq!(key, ("shop".into(), "web".into()));
        assert_eq!(
            (service.kind.as_str(), service.selector.len()),
            ("LoadBalancer", 1)
        );
    }
}
