//! Provenance, pods and placeholders in them.

use std::collections::BTreeMap;

use countersign_api::{CHANGED_BY_ANNOTATION, PROVENANCE_PREFIX, Rollout};
use countersign_core::provenance::problem::Problem;
use countersign_core::provenance::{Provenance, State};
use countersign_core::text::sanitize_to;
use countersign_core::workload::smoke_job;

use crate::manifests::finding::{Finding, Severity};
use crate::manifests::pods::{self, Purpose};
use crate::manifests::source::{HELM_TEMPLATE, is_helm_template};
use crate::manifests::yaml::{Node, Position};

/// Placeholders that were not filled in: an error if the value cannot work as it is, else a warning.
/// Commands, arguments, variables and annotations may hold templates of other programs.
pub(super) fn explain_placeholders(object: &Node, findings: &mut Vec<Finding>) {
    let mut placeholders = Vec::new();
    find_placeholders(object, &mut placeholders);
    for (at, message) in placeholders {
        let before = findings.len();
        findings.retain(|finding| finding.at != at || finding.severity != Severity::Error);
        let refused = findings.len() < before;
        findings.push(if refused {
            Finding::error(at, message)
        } else {
            Finding::warning(at, message)
        });
    }
}

pub(super) fn find_placeholders(node: &Node, found: &mut Vec<(Position, String)>) {
    if let Some(text) = node.text() {
        let shell = text.split("${").skip(1).any(|rest| {
            rest.split_once('}')
                .is_some_and(|(name, _)| !name.is_empty())
        });
        if is_helm_template(text) {
            found.push((node.at, HELM_TEMPLATE.to_owned()));
        } else if shell {
            let text = sanitize_to(text, 80);
            let message = format!(
                "`{text}` holds a placeholder that was not filled in: render the manifest first, such as by envsubst or kustomize"
            );
            found.push((node.at, message));
        }
    }
    for entry in node.entries() {
        match entry.key.as_str() {
            "command" | "args" | "env" | "lifecycle" => {}
            "annotations" => {
                let entries = entry.value.entries().iter();
                let ours = entries.filter(|it| it.key.starts_with(PROVENANCE_PREFIX));
                ours.for_each(|it| find_placeholders(&it.value, found));
            }
            _ => find_placeholders(&entry.value, found),
        }
    }
    for item in node.items() {
        find_placeholders(item, found);
    }
}

pub(super) fn provenance(object: &Node, rollout: &Rollout) -> Vec<Finding> {
    let nothing = BTreeMap::new();
    let metadata = object.get("metadata");
    let annotations = rollout.metadata.annotations.as_ref().unwrap_or(&nothing);
    let read = Provenance::read(annotations, &rollout.spec.template);
    let node = metadata.and_then(|metadata| metadata.get("annotations"));
    let otherwise = node.or(metadata).map_or(object.at, |node| node.at);
    let entry = |name: &str| node.and_then(|node| node.entry(name));
    let place = |key: &str| {
        let entry = entry(&format!("{PROVENANCE_PREFIX}{key}"));
        entry.map_or(otherwise, |entry| entry.at)
    };
    let problems = read.problems.iter();
    let mut findings: Vec<_> = problems
        .map(|problem| {
            Finding::warning(
                key_of(problem).map_or(otherwise, place),
                problem.to_string(),
            )
        })
        .collect();
    if read.state == State::Absent {
        let message = format!(
            "no annotation {PROVENANCE_PREFIX}* names the origin of the change, so it counts as unknown and takes small steps: have the pipeline write them, by `kubectl countersign stamp`"
        );
        findings.push(Finding::warning(otherwise, message));
    }
    if let Some(stamp) = entry(CHANGED_BY_ANNOTATION) {
        let message = format!(
            "annotation {CHANGED_BY_ANNOTATION} is written by the API server from Kubernetes 1.36 on: remove it, unless yours is older and demands the name of the user who applies the Rollout"
        );
        findings.push(Finding::note(stamp.at, message));
    }
    findings
}

/// The annotation that a problem refers to.
pub(super) fn key_of(problem: &Problem) -> Option<&str> {
    match problem {
        Problem::UnknownWord { key, .. }
        | Problem::NoCount { key, .. }
        | Problem::NoPercentage { key, .. }
        | Problem::NoTime { key, .. }
        | Problem::Empty { key }
        | Problem::Invisible { key, .. }
        | Problem::TooLong { key, .. }
        | Problem::Contradiction { key, .. } => Some(key),
        Problem::OtherImage { .. } => Some("image"),
        Problem::Attestation(_) | Problem::Attested(_) => Some("attestation"),
        Problem::UnknownKeys { names } => names.split(',').next(),
        Problem::AllTooLong { .. } | Problem::EarlierChange => None,
    }
}

/// Findings on the pods of a Rollout and of its smoke check, and on their selectors.
pub(super) fn pods_of(spec: &Node) -> Vec<Finding> {
    let smoke = ["strategy", "canary", "smoke", "template"];
    let labels = spec.find(&["selector", "matchLabels"]).into_iter();
    let serving = spec.get("template").into_iter();
    let smoke = spec.find(&smoke).into_iter();
    labels
        .flat_map(|it| pods::check_labels(it, "spec.selector.matchLabels"))
        .chain(serving.flat_map(|it| pods::check(it, "spec.template", Purpose::Serve)))
        .chain(smoke.flat_map(|it| {
            pods::check(it, "spec.strategy.canary.smoke.template", Purpose::RunOnce)
        }))
        .collect()
}

/// Images of a smoke check that resemble the placeholder but would not be replaced.
pub(super) fn smoke_images(template: &Node) -> Vec<Finding> {
    let lists = ["containers", "initContainers"].map(|list| template.find(&["spec", list]));
    let containers = lists.into_iter().flatten().flat_map(Node::items);
    let images = containers.filter_map(|container| container.get("image"));
    let images = images.filter_map(|image| {
        let text = image.text()?;
        let message = format!(
            "`{}` is not an image: write {} alone, which becomes the image of the Rollout's first container",
            sanitize_to(text, 80),
            smoke_job::IMAGE
        );
        (text.contains("{{") && text != smoke_job::IMAGE).then(|| Finding::error(image.at, message))
    });
    images.collect()
}
